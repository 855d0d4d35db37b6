"""Spectrum of what assays share."""

from __future__ import annotations

import os

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_beside, style, tidy
from omicvae.pl._frame import as_frame
from omicvae.tl import cross_correlation as measure

COLUMNS = ("modality_a", "modality_b", "dimension", "correlation", "null")
LIMITS = ("lower", "upper")
SPREAD = 0.5  # of the distance between two dimensions, over which the whiskers of several pairs are spread


def cross_correlation(
    model_or_frame: Model | pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot the correlation between assays, dimension by dimension, with its interval and with what chance alone gives.

    One line a pair of modalities. Whiskers are the confidence interval, which a table without the columns ``lower`` and
    ``upper`` lacks; the dashed line of the same colour is the 95 % point when samples are permuted. Pairs stand a little
    beside each other, so that whiskers do not hide one another.

    Parameters
    ----------
    model_or_frame
        Trained model, or what :func:`omicvae.tl.cross_correlation` returned.
    ax
        Axes to draw on.
    show
        Show the figure; by default if it was made here, is not saved, and matplotlib is interactive.
    save
        File to write.

    Returns
    -------
    Axes.

    Raises
    ------
    TypeError
        For anything but a model or a DataFrame.
    ValueError
        If a column is missing.
    """
    frame = as_frame(model_or_frame, COLUMNS, measure)
    drawn = canvas(ax, 6.4, 3.2)
    handles = []
    pairs = list(frame.groupby(["modality_a", "modality_b"], sort=False))
    for position, (pair, part) in enumerate(pairs):
        look = style(position)
        label = f"{pair[0]} and {pair[1]}"
        x = part["dimension"] + SPREAD * ((position + 0.5) / len(pairs) - 0.5)
        drawn.ax.plot(x, part["correlation"], color=look.color, marker=look.marker, markersize=4, linewidth=1.4)
        drawn.ax.plot(x, part["null"], color=look.color, linestyle="--", linewidth=0.9)
        if set(LIMITS) <= set(part):
            drawn.ax.vlines(x, part["lower"], part["upper"], color=look.color, linewidth=0.9, alpha=0.7)
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=4, label=label))
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="95 % of permutations"))
    drawn.ax.axhline(0, color=GREY, linewidth=0.6, zorder=0)
    legend_beside(drawn.ax, handles)
    drawn.ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    drawn.ax.set_xlabel("Shared dimension")
    drawn.ax.set_ylabel("Correlation between modalities")
    drawn.ax.set_ylim(top=1)
    tidy(drawn.ax)
    return drawn.finish(show, save)
