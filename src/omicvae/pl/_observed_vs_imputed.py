"""Measured values of single features beside what was predicted for them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from anndata import AnnData
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from omicvae.data._validate import listing, nearest
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.pl._figure import COLORS, GREY, canvas, legend_beside, tidy
from omicvae.pl._held_out import Array, layer, measured_beside_predicted
from omicvae.stats.scores import coverage, r2

BEST = 4  # features shown if none is named
MOST = 16
COLUMNS = 4
MOST_SAMPLES = 1000  # points drawn; more hide each other
COUNTS = ("nb", "zinb", "poisson")
LARGE = 20  # counts from which on the axes are logarithmic
INSIDE, OUTSIDE, INTERVAL = COLORS[0], COLORS[1], "0.7"


def observed_vs_imputed(
    model: Model,
    modality: str,
    features: str | Sequence[str] | None = None,
    *,
    given: Sequence[str] | None = None,
    level: float = 0.9,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot measured values of held-out samples against what was imputed for them, with calibrated intervals.

    A dot is a sample: to its right the prediction, upwards what was measured. The vertical line through its prediction
    is the interval, and a dot lies on its line if the interval holds the value. The title has the R2 of the values as
    drawn (counts above 20 are drawn, and scored, as ``log(1 + count)``) and the share inside.

    Parameters
    ----------
    model
        Trained model, with data.
    modality
        What is predicted.
    features
        One or a few, a panel each; by default the four that can be trusted most (the best one on an ``ax``), by
        :meth:`~omicvae.model.CoVAE.trust`. The best of many look better than they are.
    given
        Modalities to predict from; by default all others that a sample has.
    level
        Of the intervals.
    ax
        Axes to draw on, for one feature.
    show
        Show the figure; by default if it was made here, is not saved, and matplotlib is interactive.
    save
        File to write.

    Returns
    -------
    Axes, those of the first feature if there are several.

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        For an unknown modality or feature, one that was not measured in a held-out sample, several features on one
        ``ax``, or more than 16.
    RuntimeError
        If the model is not trained, or no measured value was held out.
    """
    check_model(model, "observed_vs_imputed")
    if features is not None:
        features = _check_features(features, ax)
    adata = measured_beside_predicted(model, modality, given, level)
    names = _best(model, modality, adata, 1 if ax is not None else BEST) if features is None else features
    chosen = _rows(adata, names, modality)
    as_counts = model.schema[modality].likelihood in COUNTS
    n_columns, n_rows = min(len(names), COLUMNS), math.ceil(len(names) / COLUMNS)
    drawn = canvas(ax, 2.9 * n_columns + 1.4, 3.1 * n_rows)
    panels = [drawn.ax, *_beside(drawn.ax, len(names), n_rows, n_columns)]
    for position, (panel, j) in enumerate(zip(panels, chosen, strict=True)):
        _draw(panel, str(adata.var_names[j]), _points(adata, int(j)), as_counts)
        if position % n_columns == 0:
            panel.set_ylabel(f"Measured {modality}")
        if position + n_columns >= len(names):
            panel.set_xlabel(f"Imputed {modality}")
    legend_beside(panels[n_columns - 1], _legend(level))
    return drawn.finish(show, save)


class Points(NamedTuple):
    """One feature in the held-out samples in which it was measured, ``(n,)`` each."""

    truth: Array
    imputed: Array
    lower: Array
    upper: Array


def _points(adata: AnnData, j: int) -> Points:
    one = adata[:, j]
    found = Points(*(layer(one, name)[:, 0] for name in (None, "imputed", "imputed_lower", "imputed_upper")))
    seen = ~np.isnan(found.truth)
    return Points(*(values[seen] for values in found))


def _draw(ax: Axes, name: str, points: Points, as_counts: bool) -> None:
    """One panel."""
    share = float(coverage(points.truth, points.lower, points.upper))
    logarithmic = as_counts and max(points.truth.max(), np.nan_to_num(points.upper).max()) > LARGE
    scored = [np.log1p(np.maximum(v, 0)) if logarithmic else v for v in points[:2]]
    explained = float(r2(scored[0][:, None], scored[1][:, None])[0])
    kept = np.unique(np.linspace(0, len(points.truth) - 1, min(len(points.truth), MOST_SAMPLES)).astype(np.intp))
    x, y, low, high = points.imputed[kept], points.truth[kept], points.lower[kept], points.upper[kept]
    inside = (low <= y) & (y <= high)
    ax.vlines(x, low, high, color=INTERVAL, alpha=float(np.clip(80 / len(kept), 0.2, 0.8)), linewidth=1.2, zorder=1)
    for part, color in ((inside, INSIDE), (~inside, OUTSIDE)):
        ax.scatter(x[part], y[part], s=11, color=color, alpha=0.7, linewidth=0, zorder=3)
    if logarithmic:
        ax.set_xscale("symlog", linthresh=1)
        ax.set_yscale("symlog", linthresh=1)
    _equal_axes(ax)
    value = (
        "undefined" if np.isnan(explained) else f"{round(explained, 2) + 0.0:.2f}" + (" (log)" if logarithmic else "")
    )
    ax.set_title(f"{name}\nR² {value}, {100 * share:.0f} % inside", fontsize="small")
    tidy(ax)


def _equal_axes(ax: Axes) -> None:
    """The same limits on both axes, and the diagonal."""
    limits = [f(a, b) for f, a, b in zip((min, max), ax.get_xlim(), ax.get_ylim(), strict=True)]
    ax.plot(limits, limits, color=GREY, linestyle="--", linewidth=0.9, zorder=2)
    ax.set(xlim=limits, ylim=limits)


def _legend(level: float) -> list[Artist]:
    dot: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 4}
    return [
        Line2D([], [], color=INTERVAL, linewidth=1.2, label=f"{100 * level:g} % interval"),
        Line2D([], [], color=INSIDE, label="value inside", **dot),
        Line2D([], [], color=OUTSIDE, label="value outside", **dot),
        Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="imputed = measured"),
    ]


def _beside(first: Axes, n: int, n_rows: int, n_columns: int) -> list[Axes]:
    """Further panels in the figure of the first, which moves to the upper left."""
    if n == 1:
        return []
    figure = first.figure
    assert isinstance(figure, Figure)
    grid = figure.add_gridspec(n_rows, n_columns)
    first.set_subplotspec(grid[0])
    return [figure.add_subplot(grid[divmod(i, n_columns)]) for i in range(1, n)]


def _check_features(features: str | Sequence[str], ax: Axes | None) -> list[str]:
    names = [features] if isinstance(features, str) else [str(f) for f in dict.fromkeys(features)]
    if not names:
        raise ValueError("features is empty: name at least one, or leave it out for the best")
    if len(names) > MOST:
        raise ValueError(f"{len(names)} features are too many to look at: name at most {MOST}")
    if ax is not None and len(names) > 1:
        raise ValueError(f"one ax has room for one feature, not {len(names)}; leave ax out, or name one feature")
    return names


def _best(model: Model, modality: str, adata: AnnData, n: int) -> list[str]:
    """Features that can be trusted most, of those measured in held-out samples."""
    measured = adata.var_names[(~np.isnan(layer(adata))).any(0)]
    trust = model.trust(modality).loc[measured].assign(r2=lambda t: t["r2"].fillna(-np.inf))
    return list(trust.sort_values(["imputable", "r2"], ascending=False, kind="stable").index[:n])


def _rows(adata: AnnData, names: Sequence[str], modality: str) -> Array:
    """Positions of features by name."""
    for name in names:
        if name not in adata.var_names:
            raise ValueError(f"modality {modality!r} has no feature {name!r}.{nearest(name, adata.var_names)}")
    found = adata.var_names.get_indexer(names)
    blank = [name for name, j in zip(names, found, strict=True) if np.isnan(layer(adata)[:, j]).all()]
    if blank:
        raise ValueError(f"{listing(blank)} of modality {modality!r} was not measured in any held-out sample")
    return np.asarray(found)
