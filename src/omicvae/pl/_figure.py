"""What every plot shares: where it is drawn, its colours, and what happens to it afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito (2008): told apart with any colour vision, and as shades of grey."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "0.55"
DPI = 200


class Style(NamedTuple):
    """How one of several series is drawn."""

    color: str
    marker: str


def style(position: int) -> Style:
    """Colour and marker of the series at ``position``; 49 differ."""
    turn = position // len(COLORS)
    return Style(COLORS[position % len(COLORS)], MARKERS[(position + turn) % len(MARKERS)])


class Canvas(NamedTuple):
    """Axes to draw on, and whether their figure was made for them."""

    ax: Axes
    created: bool

    def finish(self, show: bool | None, save: str | os.PathLike[str] | None) -> Axes:
        """Save and show the figure as asked, and return the Axes.

        Parameters
        ----------
        show
            Show the figure. ``None``: if it was made here, is not saved, and matplotlib is interactive, as in a notebook.
        save
            File to write. A figure that was made here is then closed, so that loops do not pile figures up.
        """
        figure = self.ax.figure
        assert isinstance(figure, Figure)
        if save is not None:
            figure.savefig(save, dpi=DPI, bbox_inches="tight")
        if show or (show is None and self.created and save is None and matplotlib.is_interactive()):
            plt.show()
        if save is not None and self.created:
            plt.close(figure)
        return self.ax


def canvas(ax: Axes | None, width: float, height: float) -> Canvas:
    """The Axes given, or those of a new figure of this size in inches."""
    if ax is not None and not isinstance(ax, Axes):
        raise TypeError(f"ax must be a matplotlib Axes, got {type(ax).__name__}")
    if ax is not None:
        return Canvas(ax, created=False)
    _, made = plt.subplots(figsize=(width, height), layout="constrained")
    return Canvas(made, created=True)


def tidy(ax: Axes) -> None:
    """Leave the left and bottom spine only."""
    ax.spines[["top", "right"]].set_visible(False)


def legend_beside(ax: Axes, handles: Sequence[Artist]) -> None:
    """Legend to the right of the Axes, where it hides no data."""
    ax.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize="small")


def legend_above(ax: Axes, handles: Sequence[Artist]) -> None:
    """Legend on top of the Axes, three entries a row."""
    ax.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3, frameon=False, fontsize="small",
        borderaxespad=0.2, columnspacing=1.2,
    )  # fmt: skip
