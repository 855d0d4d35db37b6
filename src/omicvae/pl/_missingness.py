"""Who has which assay."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import modality_rows
from omicvae.data._validate import nearest
from omicvae.pl._figure import COLORS, canvas, tidy
from omicvae.tl._arguments import check_data

ABSENT, PRESENT = "0.85", "0.15"
ROW = 0.26  # inches a row of dots


def missingness(
    mdata: MuData,
    *,
    modalities: Sequence[str] | None = None,
    max_patterns: int = 20,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot how many samples have which combination of modalities.

    Bars count the samples of a combination, the most frequent first; the dots below say which modalities it has.
    Samples are matched by name.

    Parameters
    ----------
    mdata
        Modalities may hold different samples.
    modalities
        Modalities to look at, from top to bottom; all by default.
    max_patterns
        Combinations to show; how many are left out is written on the axis.
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
        If ``mdata`` is not a MuData or ``modalities`` is a text.
    ValueError
        For an unknown modality, a MuData without samples, or ``max_patterns`` below 1.
    """
    names = _names(check_data(mdata, "missingness"), modalities)
    if max_patterns < 1:
        raise ValueError(f"max_patterns must be at least 1, got {max_patterns}")
    if mdata.n_obs == 0:
        raise ValueError("the MuData has no samples")
    present = np.stack([modality_rows(mdata, m) >= 0 for m in names], axis=1)
    patterns, counts = np.unique(present, axis=0, return_counts=True)
    order = np.lexsort((-patterns.sum(1), -counts))
    shown = order[:max_patterns]
    drawn = canvas(ax, max(3.6, 1.8 + 0.38 * len(shown)), 2.8 + ROW * len(names))
    row = _bars(drawn.ax, counts[shown], len(names))
    _dots(drawn.ax, patterns[shown], row)
    for i, (name, n) in enumerate(zip(names, present.sum(0), strict=True), start=1):
        drawn.ax.text(
            -0.02, -i * row, f"{name} ({n})", ha="right", va="center", transform=drawn.ax.get_yaxis_transform()
        )
    rest = order[max_patterns:]
    if len(rest):
        note = f"{len(rest)} rarer combinations with {counts[rest].sum()} samples not shown"
        drawn.ax.set_xlabel(note, fontsize="small")
    return drawn.finish(show, save)


def _names(mdata: MuData, modalities: Sequence[str] | None) -> list[str]:
    if isinstance(modalities, str):
        raise TypeError(f"modalities must be a list of names, got the text {modalities!r}; write [{modalities!r}]")
    names = list(mdata.mod) if modalities is None else list(dict.fromkeys(modalities))
    if not names:
        raise ValueError("modalities is empty: name at least one, or leave it out for all")
    for name in names:
        if name not in mdata.mod:
            raise ValueError(f"modality {name!r} is not in the MuData {list(mdata.mod)}.{nearest(name, mdata.mod)}")
    return names


def _bars(ax: Axes, counts: NDArray[np.int_], n_rows: int) -> float:
    """Draw bars in the upper part of the Axes and return the height of a row of dots below, in samples."""
    bars = ax.bar(np.arange(len(counts)), counts, width=0.6, color=COLORS[0])
    ax.bar_label(bars, fontsize="small", padding=2)
    figure = ax.get_figure(root=True)
    assert figure is not None
    inches = ax.get_window_extent().height / figure.dpi
    lower = min(0.6, ROW * (n_rows + 0.6) / inches)  # share of the height that the dots take
    top = 1.12 * counts.max()
    bottom = -lower / (1 - lower) * top
    ax.set(xlim=(-0.6, len(counts) - 0.4), ylim=(bottom, top), xticks=[])
    ax.set_yticks([t for t in MaxNLocator(5, integer=True).tick_values(0, counts.max()) if 0 <= t <= top])
    ax.set_ylabel("Samples", y=(1 + lower) / 2)
    ax.axhline(0, color="black", linewidth=0.8)
    tidy(ax)
    ax.spines["bottom"].set_visible(False)
    ax.spines["left"].set_bounds(0, top)
    return -bottom / (n_rows + 0.6)


def _dots(ax: Axes, patterns: NDArray[np.bool_], row: float) -> None:
    """Matrix of dots, one column a combination; what it has is dark and joined by a line."""
    columns, rows = np.meshgrid(np.arange(len(patterns)), np.arange(1, patterns.shape[1] + 1), indexing="ij")
    ax.scatter(columns[~patterns], -row * rows[~patterns], s=42, color=ABSENT, zorder=2)
    ax.scatter(columns[patterns], -row * rows[patterns], s=42, color=PRESENT, zorder=4)
    for column, pattern in enumerate(patterns):
        has = np.flatnonzero(pattern) + 1
        if len(has) > 1:
            ax.plot([column, column], [-row * has[0], -row * has[-1]], color=PRESENT, linewidth=1.6, zorder=3)
