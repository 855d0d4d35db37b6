"""The figure shows every method and target, in order, and survives failures and outliers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba

from omicvae import pl
from omicvae.pl._figure import style

MODELS = ["mean", "ridge", "pca_ridge", "knn", "CoVAE"]
TARGETS = ["rna", "mirna", "rppa"]
SCORES = {"mean": 1.2, "ridge": 1.0, "pca_ridge": 1.02, "knn": 1.1, "CoVAE": 0.94}


@pytest.fixture
def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        (split, target, model, SCORES[model] * (1 if model == "ridge" else rng.uniform(0.99, 1.01)))
        for split in range(4)
        for target in TARGETS
        for model in MODELS
    ]
    return pd.DataFrame(rows, columns=["split", "target", "model", "crps_relative_to_ridge"])


def rows_of(ax: Axes) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def spans(ax: Axes, target: str) -> list[np.ndarray]:
    """Lines of one target that span splits, from top to bottom."""
    colour = style(TARGETS.index(target)).color
    found = [line for line in ax.lines if len(line.get_xdata()) == 2 and line.get_color() == colour]
    return [line.get_xdata() for line in sorted(found, key=lambda line: line.get_ydata()[0])]


def test_methods_are_ordered_from_best_to_worst(table: pd.DataFrame) -> None:
    ax = pl.benchmark(table)
    assert rows_of(ax) == ["CoVAE", "ridge", "pca_ridge", "knn", "mean"]
    assert ax.yaxis_inverted()  # the first is on top
    assert [text.get_text() for text in ax.get_legend().get_texts()] == TARGETS


def test_lines_span_the_splits_and_marks_are_their_means(table: pd.DataFrame) -> None:
    ax = pl.benchmark(table)
    for target in TARGETS:
        scores = table[table["target"] == target].groupby("model")["crps_relative_to_ridge"]
        expected = scores.agg(["min", "max"]).loc[rows_of(ax)].to_numpy()
        np.testing.assert_allclose(spans(ax, target), expected)
        colour = style(TARGETS.index(target)).color
        marks = [li for li in ax.lines if len(li.get_xdata()) == 1 and li.get_color() == colour]
        marks.sort(key=lambda line: line.get_ydata()[0])
        np.testing.assert_allclose([m.get_xdata()[0] for m in marks], scores.mean().loc[rows_of(ax)])


def test_every_split_is_a_dot(table: pd.DataFrame) -> None:
    ax = pl.benchmark(table, targets=["mirna"])
    dots = np.concatenate([points.get_offsets()[:, 0] for points in ax.collections])
    chosen = table.loc[table["target"] == "mirna", "crps_relative_to_ridge"]
    np.testing.assert_allclose(np.sort(dots), np.sort(chosen))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["mirna"]


def test_an_outlier_does_not_squeeze_the_others(table: pd.DataFrame) -> None:
    table.loc[table["model"] == "knn", "crps_relative_to_ridge"] *= 30
    ax = pl.benchmark(table)
    assert ax.get_xlim()[1] < 1.6
    labels = [text.get_text() for text in ax.texts]
    assert len(labels) == 3
    assert all(30 < float(label) < 36 for label in labels)
    assert sum(line.get_marker() == ">" for line in ax.lines) == 3


def test_a_method_that_failed_is_last_and_said_to_have(table: pd.DataFrame) -> None:
    table.loc[table["model"] == "CoVAE", "crps_relative_to_ridge"] = np.nan
    table.loc[(table["model"] == "knn") & (table["target"] == "rna"), "crps_relative_to_ridge"] = np.nan
    ax = pl.benchmark(table)
    assert rows_of(ax)[-1] == "CoVAE"
    assert [text.get_text().strip() for text in ax.texts] == ["failed"] * 4
    assert to_rgba(ax.texts[0].get_color()) in {to_rgba(style(i).color) for i in range(3)}


def test_nothing_but_failures_and_a_single_row_can_be_drawn(table: pd.DataFrame) -> None:
    assert rows_of(pl.benchmark(table.assign(crps_relative_to_ridge=np.nan))) == MODELS
    assert rows_of(pl.benchmark(table.iloc[[0]])) == ["mean"]


def test_it_is_drawn_where_asked_and_saved(table: pd.DataFrame, tmp_path: Path) -> None:
    figure, ax = plt.subplots()
    assert pl.benchmark(table, ax=ax, save=tmp_path / "plot.png") is ax
    assert plt.get_fignums() == [figure.number]
    plt.close(figure)
    pl.benchmark(table, save=tmp_path / "own.pdf")
    assert plt.get_fignums() == []
    assert (tmp_path / "own.pdf").stat().st_size > 1000


def test_no_label_of_ten_methods_overlaps_another(table: pd.DataFrame) -> None:
    more = [table.assign(model=table["model"] + suffix) for suffix in ("", "_with_a_longer_name")]
    figure = pl.benchmark(pd.concat(more)).figure
    figure.canvas.draw()
    ax = figure.axes[0]
    low, high = ax.get_xlim()
    ticks = [t.label1 for t in ax.xaxis.get_major_ticks() if low <= t.get_loc() <= high]  # those outside are not drawn
    texts = [*ax.get_yticklabels(), *ticks, ax.xaxis.label, ax.yaxis.label, *ax.get_legend().get_texts()]
    boxes = [t.get_window_extent().padded(-1) for t in texts if t.get_text()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert all(figure.bbox.contains(b.x0, b.y0) and figure.bbox.contains(b.x1, b.y1) for b in boxes)


def test_wrong_arguments_are_named(table: pd.DataFrame) -> None:
    with pytest.raises(TypeError, match="expected the DataFrame of omicvae.tl.benchmark, got dict"):
        pl.benchmark({})
    with pytest.raises(ValueError, match="lacks the columns 'crps_relative_to_ridge'"):
        pl.benchmark(table.drop(columns="crps_relative_to_ridge"))
    with pytest.raises(ValueError, match="is empty"):
        pl.benchmark(table.iloc[:0])
    with pytest.raises(ValueError, match="targets names 'protein'; the table has 'rna'"):
        pl.benchmark(table, targets=["protein"])
    with pytest.raises(TypeError, match=r"write targets=\['rna'\]"):
        pl.benchmark(table, targets="rna")
