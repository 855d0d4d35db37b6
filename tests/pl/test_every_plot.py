"""What holds for every plot: where it draws, what it returns, and what becomes of its figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from mudata import MuData

from omicvae import pl, tl
from omicvae.model import CoVAE

Plot = Callable[..., Axes]


def benchmarked() -> pd.DataFrame:
    scores = {"ridge": 1.0, "CoVAE": 0.92, "mean": 1.2}
    rows = [
        (split, m, model, s + 0.01 * split) for split in (0, 1) for m in ("rna", "rppa") for model, s in scores.items()
    ]
    return pd.DataFrame(rows, columns=["split", "target", "model", "crps_relative_to_ridge"])


def completed(model: CoVAE) -> MuData:
    found = tl.complete(model.adata, model, n_draws=20, level=0.5)
    found.obsm["X_umap"] = np.random.default_rng(0).normal(size=(found.n_obs, 2))
    return found


SUBJECTS: dict[str, Callable[[CoVAE], tuple[Any, ...]]] = {
    "aggregated_posterior": lambda model: (model,),
    "assay_value": lambda model: (
        pd.DataFrame({"candidate": ["rna", "rppa"], "target": ["rppa", "rna"], "reduction": [0.1, 0.05]}),
    ),
    "benchmark": lambda model: (benchmarked(),),
    "calibration": lambda model: (tl.calibration_curve(model),),
    "cross_correlation": lambda model: (tl.cross_correlation(model),),
    "history": lambda model: (model,),
    "loadings": lambda model: (model, "rppa"),
    "missingness": lambda model: (model.adata,),
    "observed_vs_imputed": lambda model: (model, "rppa"),
    "pit": lambda model: (model,),
    "risk_coverage": lambda model: (model,),
    "skill": lambda model: (model,),
    "uncertainty": lambda model: (completed(model), "rppa"),
    "variance_explained": lambda model: (tl.variance_explained(model),),
    "variance_explained by dimension": lambda model: (tl.variance_explained(model),),
}
"""What each plot takes before its options."""


def test_every_plot_is_here() -> None:
    assert {name.split()[0] for name in SUBJECTS} == set(pl.__all__)


@pytest.fixture(scope="module", params=list(SUBJECTS))
def plot(request: pytest.FixtureRequest, model: CoVAE) -> Plot:
    """Each plot with its first arguments filled in."""
    name, *options = request.param.split(" by ")
    subject = SUBJECTS[request.param](model)
    fixed = {"by": options[0]} if options else {}
    return lambda **arguments: getattr(pl, name)(*subject, **fixed, **arguments)


def test_axes_are_returned_and_labelled(plot: Plot) -> None:
    ax = plot()
    assert isinstance(ax, Axes)
    assert ax.get_ylabel()
    assert len(plt.get_fignums()) == 1


def test_the_axes_given_are_drawn_on_and_no_figure_is_made(plot: Plot, tmp_path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2)
    assert plot(ax=right, save=tmp_path / "plot.png") is right
    assert right.has_data()
    assert not left.has_data()
    assert plt.get_fignums() == [figure.number]  # neither another one, nor is the user's closed


def test_a_figure_is_written_and_closed(plot: Plot, tmp_path: Path) -> None:
    for name in ("plot.png", "plot.pdf"):
        ax = plot(save=tmp_path / name)
        assert isinstance(ax, Axes)
        assert (tmp_path / name).stat().st_size > 1000
    assert plt.get_fignums() == []
    picture = image.imread(tmp_path / "plot.png")
    assert picture.std() > 0.02  # not blank


def test_a_figure_is_shown_only_if_asked_or_interactive(
    plot: Plot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[bool] = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    plot()
    assert shown == []
    plot(show=True)
    assert len(shown) == 1
    with plt.ion():
        plot()
        assert len(shown) == 2
        plot(show=False)
        plot(save=tmp_path / "plot.png")
        plot(ax=plt.figure().add_subplot())
        assert len(shown) == 2


def test_no_text_overlaps_another_or_is_cut(plot: Plot) -> None:
    figure = plot().figure
    figure.canvas.draw()
    texts = []
    for ax in figure.axes:
        texts += [ax.xaxis.label, ax.yaxis.label, *ax.texts]
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())  # ticks outside have labels that are not drawn
            texts += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
        if ax.get_legend() is not None:
            texts += ax.get_legend().get_texts()
    boxes = [(t.get_text(), t.get_window_extent().padded(-1)) for t in texts if t.get_visible() and t.get_text()]
    clashes = [(a, b) for i, (a, x) in enumerate(boxes) for b, y in boxes[:i] if x.overlaps(y)]
    assert clashes == []
    cut = [a for a, x in boxes if not (figure.bbox.contains(x.x0, x.y0) and figure.bbox.contains(x.x1, x.y1))]
    assert cut == []


def test_something_else_than_axes_is_refused(plot: Plot) -> None:
    with pytest.raises(TypeError, match="ax must be a matplotlib Axes, got Figure"):
        plot(ax=plt.figure())
