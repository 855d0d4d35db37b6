"""Which method imputes best, by how much, and where."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from omicvae.data._validate import listing
from omicvae.pl._figure import GREY, canvas, legend_above, style, tidy

COLUMNS = ("split", "target", "model", "crps_relative_to_ridge")
ROW, LANE = 0.17, 0.085
"""Height in inches of a method, and of each of its targets."""
FARTHEST = 1.5
"""Scores beyond are drawn at the edge, so that one failure does not squeeze the others together."""


def benchmark(
    table: pd.DataFrame,
    *,
    targets: Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot the CRPS of every method relative to ridge regression, best method on top.

    A row a method, ordered by its mean over targets; a colour a target. A large mark is the mean over splits, small dots
    are splits, and the line spans them: methods whose lines overlap may differ by chance. Left of the vertical line a
    method is better than ridge. An arrow at the right edge is a score beyond the axis, with its value; a method that
    failed is said to have.

    Parameters
    ----------
    table
        What :func:`omicvae.tl.benchmark` returned.
    targets
        Modalities to show; all by default.
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
        If ``table`` is not a DataFrame.
    ValueError
        If a column is missing, the table is empty, or a target is not in it.
    """
    frame, shown = _checked(table, targets)
    models = _ranked(frame)
    drawn = canvas(ax, 6.4, 1.1 + len(models) * (ROW + LANE * len(shown)))
    limit = min(float(np.nanmax([1.02, frame["crps_relative_to_ridge"].max()])), FARTHEST)
    lanes = 0.62 * (np.arange(len(shown)) - (len(shown) - 1) / 2) / max(len(shown), 2)
    drawn.ax.axvline(1, color=GREY, linewidth=0.9, zorder=1)
    for row, model in enumerate(models):
        if row % 2 == 0:
            drawn.ax.axhspan(row - 0.5, row + 0.5, color="0.96", linewidth=0, zorder=0)
        for position, target in enumerate(shown):
            chosen = (frame["model"] == model) & (frame["target"] == target)
            _strip(drawn.ax, frame.loc[chosen, "crps_relative_to_ridge"], row + lanes[position], position, limit)
    low = float(np.nanmin([0.98, frame["crps_relative_to_ridge"].min()]))
    margin = 0.04 * (limit - low)
    drawn.ax.set(xlim=(low - margin, limit + margin), ylim=(len(models) - 0.5, -0.5))
    drawn.ax.set_yticks(range(len(models)), models)
    drawn.ax.tick_params(axis="y", length=0)
    drawn.ax.xaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    drawn.ax.set_xlabel("CRPS relative to ridge (smaller is better)")
    drawn.ax.set_ylabel("Method")
    handles = [
        Line2D([], [], color=style(i).color, marker=style(i).marker, markersize=5, linewidth=1.2, label=str(target))
        for i, target in enumerate(shown)
    ]
    legend_above(drawn.ax, handles)
    tidy(drawn.ax)
    return drawn.finish(show, save)


def _strip(ax: Axes, scores: pd.Series, height: float, position: int, limit: float) -> None:
    """One method's splits for one target."""
    look, values = style(position), scores.dropna().to_numpy()
    if not len(values):
        ax.text(1, height, "  failed", color=look.color, fontsize="x-small", va="center", ha="left")
        return
    mean, inside = float(values.mean()), values[values <= limit]
    ax.plot([values.min(), values.max()], [height] * 2, color=look.color, linewidth=1.2, zorder=2)
    ax.scatter(inside, np.full(len(inside), height), s=5, color=look.color, alpha=0.55, linewidth=0, zorder=3)
    if mean <= limit:
        ax.plot(mean, height, color=look.color, marker=look.marker, markersize=5, zorder=4)
        return
    ax.plot(limit, height, color=look.color, marker=">", markersize=5, zorder=4, clip_on=False)
    ax.annotate(
        f"{mean:.3g}", (limit, height), (3, 3), textcoords="offset points", color=look.color, fontsize="x-small",
        va="bottom", ha="right",
    )  # fmt: skip


def _ranked(frame: pd.DataFrame) -> list[str]:
    """Methods by their mean over targets, best first; failed ones last."""
    by_target = frame.groupby(["model", "target"], sort=False)["crps_relative_to_ridge"].mean()
    mean = by_target.groupby(level="model", sort=False).mean()
    return mean.sort_values(kind="stable", na_position="last").index.astype(str).tolist()


def _checked(table: pd.DataFrame, targets: Sequence[str] | None) -> tuple[pd.DataFrame, list[str]]:
    if not isinstance(table, pd.DataFrame):
        raise TypeError(f"expected the DataFrame of omicvae.tl.benchmark, got {type(table).__name__}")
    missing = [c for c in COLUMNS if c not in table]
    if missing or table.empty:
        lack = f"lacks the columns {listing(missing)}" if missing else "is empty"
        raise ValueError(f"the DataFrame {lack}; pass what omicvae.tl.benchmark returned")
    known = list(dict.fromkeys(table["target"]))
    if isinstance(targets, str):
        raise TypeError(f"targets must be a list of modalities, got the text {targets!r}; write targets=[{targets!r}]")
    shown = known if targets is None else list(dict.fromkeys(targets))
    unknown = [t for t in shown if t not in known]
    if unknown or not shown:
        raise ValueError(f"targets names {listing(unknown) or 'nothing'}; the table has {listing(known)}")
    return table[table["target"].isin(shown)], shown
