from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

from omicvae import pl
from omicvae.model import CoVAE


@pytest.fixture
def table() -> pd.DataFrame:
    """``c`` is never a candidate; ``a`` and ``b`` for different numbers of samples."""
    rows = [("a", "b", 0.10), ("a", "b", 0.30), ("a", "c", 0.02), ("b", "a", 0.40), ("b", "c", 0.001)]
    return pd.DataFrame(rows, columns=["candidate", "target", "reduction"])


def fields(ax: plt.Axes) -> dict[tuple[str, str], str]:
    """(candidate, target) -> what is written in that field."""
    rows, columns = ([t.get_text() for t in axis.get_ticklabels()] for axis in (ax.yaxis, ax.xaxis))
    return {(rows[round(t.get_position()[1])], columns[round(t.get_position()[0])]): t.get_text() for t in ax.texts}


def test_fields_hold_mean_and_number_of_samples(table: pd.DataFrame) -> None:
    ax = pl.assay_value(table)
    assert fields(ax) == {
        ("a", "b"): "20 %\nn = 2",
        ("a", "c"): "2 %\nn = 1",
        ("b", "a"): "40 %\nn = 1",
        ("b", "c"): "0 %\nn = 1",
    }
    shown = np.ma.filled(ax.images[0].get_array().astype(float), np.nan)
    np.testing.assert_allclose(shown, [[np.nan, 0.2, 0.02], [0.4, np.nan, 0.001]])
    assert ax.get_xlabel()
    assert ax.get_ylabel()


def test_fields_hold_what_was_measured_where_it_was(table: pd.DataFrame) -> None:
    ax = pl.assay_value(table.assign(held_out=[0.5, 0.5, np.nan, -0.02, np.nan]))
    found = fields(ax)
    assert found["a", "b"] == "20 %\nn = 2\nheld-out 50 %"
    assert found["b", "a"] == "40 %\nn = 1\nheld-out -2 %"
    assert found["a", "c"] == "2 %\nn = 1"


def test_a_reduction_nobody_would_pay_for_is_not_dark(table: pd.DataFrame) -> None:
    ax = pl.assay_value(table.assign(reduction=[0.001, 0.002, 0.003, 0.004, 0.0]))
    assert ax.images[0].norm.vmin == 0
    assert ax.images[0].norm.vmax >= 0.1


def test_text_is_readable_on_every_field(table: pd.DataFrame) -> None:
    ax = pl.assay_value(table)
    image = ax.images[0]
    for text in ax.texts:
        x, y = (round(v) for v in text.get_position())
        background = np.mean(image.cmap(image.norm(image.get_array()[y, x]))[:3])
        assert abs(background - (text.get_color() == "white")) > 0.35


def test_it_draws_where_it_is_told_and_writes_what_it_drew(table: pd.DataFrame, tmp_path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    assert pl.assay_value(table, ax=right, save=tmp_path / "value.png") is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]
    assert (tmp_path / "value.png").stat().st_size > 1000
    plt.close(figure)
    pl.assay_value(table, save=tmp_path / "own.png")
    assert plt.get_fignums() == []
    assert plt.imread(tmp_path / "own.png").std() > 0.02


def test_no_text_is_cut_or_overlaps(table: pd.DataFrame) -> None:
    long = {"a": "transcriptome", "b": "methylation", "c": "phosphoproteome"}
    figure = pl.assay_value(table.replace(long)).figure
    figure.canvas.draw()
    texts = []
    for ax in figure.axes:
        texts += [ax.xaxis.label, ax.yaxis.label, *ax.texts, *ax.get_xticklabels(), *ax.get_yticklabels()]
    boxes = [t.get_window_extent().padded(-1) for t in texts if t.get_text()]
    assert not [1 for i, x in enumerate(boxes) for y in boxes[:i] if x.overlaps(y)]
    assert all(figure.bbox.contains(*corner) for x in boxes for corner in (x.min, x.max))


def test_wrong_arguments_are_named(table: pd.DataFrame, model: CoVAE) -> None:
    with pytest.raises(ValueError, match="no sample lacks two assays"):
        pl.assay_value(model)  # only one of its assays is ever missing
    with pytest.raises(ValueError, match="is empty"):
        pl.assay_value(table.iloc[:0])
    with pytest.raises(ValueError, match="lacks the columns .*reduction.*omicvae.tl.assay_value"):
        pl.assay_value(table.drop(columns="reduction"))
    with pytest.raises(TypeError, match="expected a model or a DataFrame"):
        pl.assay_value([1])
