"""Plots of tables: calibration curves and correlation spectra."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from omicvae import pl, tl
from omicvae.model import CoVAE


def test_calibration_has_a_line_a_modality_and_the_diagonal(model: CoVAE) -> None:
    table = tl.calibration_curve(model, levels=[0.9, 0.5])
    ax = pl.calibration(table)
    diagonal, *lines = ax.lines
    np.testing.assert_array_equal(*diagonal.get_data())
    assert [line.get_label() for line in lines] == list(model.modalities)
    for line, (_, part) in zip(lines, table.groupby("modality", sort=False), strict=True):
        np.testing.assert_array_equal(line.get_data(), part.sort_values("level")[["level", "coverage"]].T)
    low, high = ax.get_xlim()
    assert (low, high) == ax.get_ylim()
    assert low < table[["level", "coverage"]].min().min()
    assert high > 1
    assert len({line.get_color() for line in lines} | {line.get_marker() for line in lines}) == 2 * len(lines)


def test_calibration_of_a_model_is_that_of_its_table(model: CoVAE) -> None:
    assert len(pl.calibration(model).lines) == 1 + len(model.modalities)


def test_a_modality_without_coverage_leaves_the_others_visible() -> None:
    table = pd.DataFrame(
        {"modality": ["a", "a", "b", "b"], "level": [0.5, 0.9] * 2, "coverage": [0.02, 0.8, np.nan, np.nan]}
    )
    ax = pl.calibration(table)
    assert ax.get_xlim()[0] == 0
    assert len(ax.lines) == 3


def test_spectra_have_a_line_and_a_null_line_a_pair(model: CoVAE) -> None:
    table = tl.cross_correlation(model)
    ax = pl.cross_correlation(table)
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2]
    pairs = list(table.groupby(["modality_a", "modality_b"], sort=False))
    assert len(lines) == 2 * len(pairs)
    for i, (_, part) in enumerate(pairs):
        np.testing.assert_array_equal(lines[2 * i].get_ydata(), part["correlation"])
        np.testing.assert_array_equal(lines[2 * i + 1].get_ydata(), part["null"])
        assert lines[2 * i].get_color() == lines[2 * i + 1].get_color()
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["rna and mirna", "rna and rppa", "mirna and rppa", "95 % of permutations"]
    assert all(float(tick).is_integer() for tick in ax.get_xticks())


def test_more_pairs_than_colours_remain_distinct() -> None:
    names = [f"m{i}" for i in range(9)]
    table = pd.DataFrame(
        [(a, b, d, 0.5, 0.1) for i, a in enumerate(names) for b in names[:i] for d in range(3)],
        columns=["modality_a", "modality_b", "dimension", "correlation", "null"],
    )
    lines = pl.cross_correlation(table).lines[:-1:2]
    assert len({(line.get_color(), line.get_marker()) for line in lines}) == len(lines) == 36


@pytest.mark.parametrize("plot", [pl.calibration, pl.cross_correlation])
def test_wrong_arguments_are_named(plot, model: CoVAE) -> None:
    with pytest.raises(TypeError, match="expected a model or a DataFrame, got MuData"):
        plot(model.adata)
    with pytest.raises(ValueError, match="lacks the columns .*pass what omicvae.tl.c"):
        plot(pd.DataFrame({"level": [0.5]}))
    with pytest.raises(ValueError, match="is empty"):
        plot(tl.calibration_curve(model).iloc[:0] if plot is pl.calibration else tl.cross_correlation(model).iloc[:0])
    with pytest.raises(RuntimeError, match="has not been trained"):
        plot(CoVAE(model.adata))
