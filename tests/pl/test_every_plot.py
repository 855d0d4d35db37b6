"""What holds for every plot: where it draws, what it returns, and what becomes of its figure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from matplotlib import image
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from omicvae import pl
from omicvae.model import CoVAE

Plot = Callable[..., Axes]


@pytest.fixture(params=["history", "missingness", "cross_correlation", "calibration", "skill", "aggregated_posterior"])
def plot(request: pytest.FixtureRequest, model: CoVAE) -> Plot:
    """Each plot with its first argument filled in."""
    subject = model.adata if request.param == "missingness" else model
    return lambda **arguments: getattr(pl, request.param)(subject, **arguments)


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
