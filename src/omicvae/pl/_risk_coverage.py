"""Whether small predictive standard deviations mean small errors."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_beside, style, tidy
from omicvae.pl._held_out import Array, held_out_predictions, layer
from omicvae.stats import scores

SHARES = np.linspace(0.05, 1, 20)
LEAST_VALUES = 20  # a mean of fewer says nothing


def risk_coverage(
    model: Model,
    *,
    modality: str | Sequence[str] | None = None,
    given: Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    r"""Plot the error of the most certain share of imputed values against that share.

    Held-out values of all features are ranked by predictive standard deviation. The curve is the root mean squared
    error of the most certain of them; dashed is what their predictive standard deviations promise, the root of their
    mean square. A rising curve says that certainty can be relied on to choose values, a dashed curve below it that
    errors are larger than said. Both are in standard deviations of each feature, over the held-out samples, so that 1
    is the error of a feature's mean and the right end is :math:`\sqrt{1 - R^2}`.

    Values are in the units of the registered layer; standard deviations are those of the predictive distribution before
    its intervals are calibrated.

    Parameters
    ----------
    model
        Trained model, with data.
    modality
        What is predicted: one or several; by default all of which samples were held out.
    given
        Modalities to predict from; by default all others that a sample has.
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
        If ``model`` is not a model.
    ValueError
        For an unknown modality, or one that is in ``given``.
    RuntimeError
        If the model is not trained, no measured value was held out, or no feature varies among those that were.

    References
    ----------
    El-Yaniv and Wiener, *On the foundations of noise-free selective classification*, JMLR 11 (2010); Ilg et al.,
    *Uncertainty estimates and multi-hypotheses networks for optical flow*, ECCV 2018.
    """
    curves = {
        name: standardised_risk(adata)
        for name, adata in held_out_predictions(model, modality, given, "risk_coverage").items()
    }
    if all(np.isnan(c.error).all() for c in curves.values()):
        raise RuntimeError(
            f"fewer than {LEAST_VALUES} values of features that vary were held out of {', '.join(curves)}: nothing to rank"
        )
    drawn = canvas(ax, 5.2, 3.2)
    handles = []
    for position, (name, curve) in enumerate(curves.items()):
        look = style(position)
        drawn.ax.plot(
            SHARES, curve.error, color=look.color, marker=look.marker, markersize=4, markevery=(1, 3), linewidth=1.4
        )
        drawn.ax.plot(SHARES, curve.promised, color=look.color, linestyle="--", linewidth=0.9)
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=4, label=name))
    handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="promised by the sd"))
    handles.append(drawn.ax.axhline(1, color=GREY, linewidth=0.9, linestyle=":", zorder=0, label="mean of the feature"))
    drawn.ax.set(xlim=(0, 1.02), ylim=(0, max(1.1, drawn.ax.get_ylim()[1])))
    drawn.ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    drawn.ax.set_xlabel("Most certain values")
    drawn.ax.set_ylabel("RMSE (sd of the feature)")
    legend_beside(drawn.ax, handles)
    tidy(drawn.ax)
    return drawn.finish(show, save)


class Risk(NamedTuple):
    """Curves ``(S,)`` at :data:`SHARES`; NaN where they would rest on too few values."""

    error: Array
    """Root mean squared error of the most certain values."""
    promised: Array
    """Root mean squared predictive standard deviation of the same values."""


def standardised_risk(adata: AnnData) -> Risk:
    """Risk-coverage curves in standard deviations of each feature; features that do not vary are left out."""
    truth = layer(adata)
    seen = ~np.isnan(truth)
    count = np.maximum(seen.sum(0), 1)
    centre = np.sum(truth, axis=0, where=seen) / count
    scale = np.sqrt(np.sum((truth - centre) ** 2, axis=0, where=seen) / count)
    varies = (scale > 1e-6 * np.abs(centre)) & (seen.sum(0) >= scores.LEAST_VALUES)
    scale = np.where(varies, scale, np.nan)
    error, sd = (truth - layer(adata, "imputed")) / scale, layer(adata, "imputed_sd") / scale
    few = np.ceil(SHARES * (~np.isnan(error)).sum()) < LEAST_VALUES
    squares = error**2, np.where(np.isnan(error), np.nan, sd**2)
    return Risk(*(np.where(few, np.nan, np.sqrt(scores.risk_coverage(square, sd, SHARES))) for square in squares))
