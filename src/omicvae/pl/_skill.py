"""How many features are predicted better than by a reference."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_beside, style, tidy
from omicvae.pl._frame import as_frame

LOWEST = -0.5
"""Skill below which curves leave the axis: a few features that fail must not hide the others."""
REFERENCES = {"ridge": "ridge regression", "mean": "the mean"}


def skill(
    model_or_frame: Model | pd.DataFrame,
    *,
    reference: Literal["ridge", "mean"] = "ridge",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot the skill of imputed features over a reference, best feature first.

    A curve a modality, from its best to its worst feature. Skill is the share of the reference's CRPS that the model
    saves, on samples neither has seen: above the line the model is better. The legend says for how many features.

    Parameters
    ----------
    model_or_frame
        Trained model, or what ``model.calibration_report(by="feature")`` returned.
    reference
        ``"ridge"``: ridge regression fitted on the same samples; ``"mean"``: the distribution over training samples.
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
        For an unknown reference, or if a column is missing.
    RuntimeError
        If the model is not trained, or nothing was held out.
    """
    if reference not in REFERENCES:
        raise ValueError(f"reference must be 'ridge' or 'mean', got {reference!r}")
    column = f"skill_vs_{reference}"
    frame = as_frame(model_or_frame, ("modality", column), _measure, "model.calibration_report(by='feature')")
    drawn = canvas(ax, 5.6, 3.2)
    drawn.ax.axhline(0, color=GREY, linestyle="--", linewidth=0.9)
    handles, low = [], -0.05
    for position, (modality, part) in enumerate(frame.groupby("modality", sort=False)):
        values = np.sort(part[column].dropna().to_numpy(dtype=float))[::-1]
        if not len(values):
            continue
        look = style(position)
        label = f"{modality}: {(values > 0).mean():.0%} of {len(values)} better"
        share = (np.arange(len(values)) + 0.5) / len(values)
        every = max(1, len(values) // 8)
        handles += drawn.ax.plot(
            share,
            values,
            color=look.color,
            marker=look.marker,
            markersize=4,
            markevery=every,
            linewidth=1.4,
            label=label,
        )
        low = min(low, float(values[-1]) - 0.05)
    drawn.ax.set_xlim(0, 1)
    drawn.ax.set_ylim(bottom=max(low, LOWEST))
    drawn.ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    drawn.ax.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    drawn.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    drawn.ax.set_xlabel("Features, best first")
    drawn.ax.set_ylabel(f"Skill over {REFERENCES[reference]}")
    legend_beside(drawn.ax, handles)
    tidy(drawn.ax)
    return drawn.finish(show, save)


def _measure(model: Model) -> pd.DataFrame:
    return model.calibration_report(by="feature")
