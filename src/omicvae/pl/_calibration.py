"""Whether intervals hold what they promise."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator, PercentFormatter

from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_beside, style, tidy
from omicvae.pl._frame import as_frame
from omicvae.tl import calibration_curve

COLUMNS = ("modality", "level", "coverage")


def calibration(
    model_or_frame: Model | pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot how often measured values lie in their predicted interval against how often they should.

    Every modality is predicted from the others in samples the model was not trained on. On the diagonal intervals are
    true; below it they are too narrow. Discrete data lie above it by nature.

    Parameters
    ----------
    model_or_frame
        Trained model, or what :func:`omicvae.tl.calibration_curve` returned.
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
    frame = as_frame(model_or_frame, COLUMNS, calibration_curve)
    drawn = canvas(ax, 4.8, 3.4)
    low = max(0.0, float(np.nanmin([frame["level"].min(), frame["coverage"].min()])) - 0.08)
    handles = drawn.ax.plot([low, 1], [low, 1], color=GREY, linestyle="--", linewidth=0.9, label="true intervals")
    for position, (modality, part) in enumerate(frame.groupby("modality", sort=False)):
        part, look = part.sort_values("level"), style(position)
        handles += drawn.ax.plot(
            part["level"], part["coverage"], color=look.color, marker=look.marker, markersize=5, linewidth=1.4,
            label=str(modality),
        )  # fmt: skip
    drawn.ax.set(xlim=(low, 1.02), ylim=(low, 1.02))
    for axis in (drawn.ax.xaxis, drawn.ax.yaxis):
        axis.set_major_locator(MultipleLocator(0.1 if low > 0.3 else 0.2))
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    drawn.ax.set_xlabel("Probability of the interval")
    drawn.ax.set_ylabel("Measured values inside")
    legend_beside(drawn.ax, handles)
    tidy(drawn.ax)
    return drawn.finish(show, save)
