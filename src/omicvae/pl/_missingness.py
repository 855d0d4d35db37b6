"""Who has which assay."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from mpl_toolkits.axes_grid1 import make_axes_locatable  # type: ignore[import-untyped]
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import modality_rows
from omicvae.data._validate import nearest
from omicvae.pl._figure import COLORS, canvas, tidy
from omicvae.tl._arguments import check_data

ABSENT = "0.85"


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
        Axes to draw the bars on; the dots take their lower part.
    show
        Show the figure; by default if it was made here, is not saved, and matplotlib is interactive.
    save
        File to write.

    Returns
    -------
    Axes of the bars. Those of the dots share its x axis.

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
    drawn = canvas(ax, max(3.6, 1.8 + 0.38 * len(shown)), 2.4 + 0.26 * len(names))
    _bars(drawn.ax, counts[shown])
    dots = make_axes_locatable(drawn.ax).append_axes("bottom", size=0.26 * len(names), pad=0.08, sharex=drawn.ax)
    _dots(dots, patterns[shown], [f"{m} ({n})" for m, n in zip(names, present.sum(0), strict=True)])
    drawn.ax.tick_params(labelbottom=False, bottom=False)
    rest = order[max_patterns:]
    if len(rest):
        dots.set_xlabel(f"{len(rest)} rarer combinations with {counts[rest].sum()} samples not shown", fontsize="small")
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


def _bars(ax: Axes, counts: NDArray[np.int_]) -> None:
    bars = ax.bar(np.arange(len(counts)), counts, width=0.6, color=COLORS[0])
    ax.bar_label(bars, fontsize="small", padding=2)
    ax.set_ylabel("Samples")
    ax.margins(y=0.12)
    ax.set_xlim(-0.6, len(counts) - 0.4)
    tidy(ax)


def _dots(ax: Axes, patterns: NDArray[np.bool_], labels: Sequence[str]) -> None:
    """Matrix of dots, one column a combination; what it has is dark and joined by a line."""
    n, m = patterns.shape
    columns, rows = np.meshgrid(np.arange(n), np.arange(m), indexing="ij")
    ax.scatter(columns[~patterns], rows[~patterns], s=42, color=ABSENT, zorder=1)
    ax.scatter(columns[patterns], rows[patterns], s=42, color="0.15", zorder=3)
    for column, pattern in enumerate(patterns):
        has = np.flatnonzero(pattern)
        if len(has) > 1:
            ax.plot([column, column], [has[0], has[-1]], color="0.15", linewidth=1.6, zorder=2)
    ax.set_yticks(np.arange(m), labels)
    ax.set_ylim(m - 0.5, -0.5)
    ax.set_xticks([])
    ax.tick_params(left=False)
    ax.spines[:].set_visible(False)
