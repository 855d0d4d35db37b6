"""Whether latents are used, and whether together they look like the prior."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from omicvae.model._model import Model
from omicvae.pl._figure import COLORS, GREY, canvas, legend_above, tidy
from omicvae.pl._frame import as_frame
from omicvae.tl import aggregated_posterior as measure

COLUMNS = ("dimension", "means", "uncertainty")
UNKNOWN = "0.8"
MOST_NAMED = 60  # dimensions whose names still fit below the bars


def aggregated_posterior(
    model_or_frame: Model | pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot the variance of every latent over the samples, as bars that should reach the prior's.

    Dark is the variance of posterior means, light the mean posterior variance on top of it. A dimension without dark is
    not used by the model; bars far from the dashed line mean that samples drawn from the prior do not look like data.

    Parameters
    ----------
    model_or_frame
        Trained model, or what :func:`omicvae.tl.aggregated_posterior` returned.
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
    drawn = canvas(ax, float(np.clip(1.6 + 0.17 * len(frame), 4.8, 12.0)), 3.2)
    at = np.arange(len(frame))
    drawn.ax.bar(at, frame["means"], width=0.8, color=COLORS[0])
    drawn.ax.bar(at, frame["uncertainty"], width=0.8, bottom=frame["means"], color=UNKNOWN)
    drawn.ax.axhline(1, color=GREY, linestyle="--", linewidth=0.9)
    drawn.ax.set_xlim(-0.7, len(frame) - 0.3)
    if len(frame) <= MOST_NAMED:
        drawn.ax.set_xticks(at, frame["dimension"].astype(str), rotation=90, fontsize="x-small")
        drawn.ax.tick_params(axis="x", length=0)
    else:
        drawn.ax.set_xlabel("Latent")
    drawn.ax.set_ylabel("Variance over samples")
    legend_above(
        drawn.ax,
        [
            Patch(color=COLORS[0], label="posterior means"),
            Patch(color=UNKNOWN, label="posterior variances"),
            Line2D([], [], color=GREY, linestyle="--", linewidth=0.9, label="prior"),
        ],
    )
    tidy(drawn.ax)
    return drawn.finish(show, save)
