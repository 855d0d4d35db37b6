from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.axes import Axes
from mudata import MuData

from omicvae.pl import missingness


def cohort(**samples: str) -> MuData:
    """MuData whose modalities hold the samples spelt by letters, in that order."""
    return MuData({m: AnnData(np.ones((len(s), 1)), obs=pd.DataFrame(index=list(s))) for m, s in samples.items()})


def shown(ax: Axes) -> dict[tuple[bool, ...], int]:
    """Combination of modalities -> number of samples, read off the picture."""
    heights = sorted((text.get_position()[1] for text in ax.texts if "(" in text.get_text()), reverse=True)
    dark = {(round(x), heights.index(y)) for x, y in np.asarray(ax.collections[1].get_offsets()).tolist()}
    n = len(heights)
    return {tuple((i, j) in dark for j in range(n)): int(bar.get_height()) for i, bar in enumerate(ax.patches)}


def test_samples_are_counted_by_combination() -> None:
    ax = missingness(cohort(a="pqrst", b="srx", c="q"))
    # p, t: a; r, s: a and b; q: a and c; x: b
    assert shown(ax) == {(1, 1, 0): 2, (1, 0, 0): 2, (1, 0, 1): 1, (0, 1, 0): 1}
    heights = [bar.get_height() for bar in ax.patches]
    assert heights == sorted(heights, reverse=True)
    assert [t.get_text() for t in ax.texts if "(" in t.get_text()] == ["a (5)", "b (3)", "c (1)"]
    assert ax.get_ylabel() == "Samples"
    assert ax.get_yticks().min() == 0


def test_rows_are_matched_by_name() -> None:
    mdata = cohort(a="pqrs", b="pq")
    before = shown(missingness(mdata))
    mdata.mod["a"] = mdata.mod["a"][["s", "r", "q", "p"]].copy()
    assert shown(missingness(mdata)) == before == {(1, 1): 2, (1, 0): 2}


def test_samples_without_any_of_the_chosen_modalities_are_counted() -> None:
    ax = missingness(cohort(a="pqr", b="q", c="rstu"), modalities=["b", "a"])
    assert shown(ax) == {(1, 1): 1, (0, 1): 2, (0, 0): 3}


def test_rarer_combinations_are_left_out_and_said_to_be() -> None:
    ax = missingness(cohort(a="pqrst", b="srx", c="q"), max_patterns=2)
    assert len(ax.patches) == 2
    assert ax.get_xlabel() == "2 rarer combinations with 2 samples not shown"


def test_wrong_arguments_are_named() -> None:
    mdata = cohort(rna="pq", mirna="q")
    with pytest.raises(TypeError, match="expects a MuData, got AnnData"):
        missingness(mdata["rna"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"write \['rna'\]"):
        missingness(mdata, modalities="rna")
    with pytest.raises(ValueError, match="'rma' is not in the MuData.*Did you mean 'rna'"):
        missingness(mdata, modalities=["rma"])
    with pytest.raises(ValueError, match="modalities is empty"):
        missingness(mdata, modalities=[])
    with pytest.raises(ValueError, match="max_patterns must be at least 1"):
        missingness(mdata, max_patterns=0)
