"""Where measured values lie in their predictive distributions."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_beside, style, tidy
from omicvae.pl._held_out import Array, held_out_predictions, layer

N_BINS = 10
BAND = 2  # standard errors


def pit(
    model: Model,
    *,
    modality: str | Sequence[str] | None = None,
    given: Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    r"""Plot the histogram of probability integral transforms (PIT) of held-out values.

    A PIT is the predictive probability of less than what was measured (for counts randomised within the probability of
    the count itself), after calibration on other samples than the value's own. If predictive distributions are true it
    is uniform: density 1. High at both ends they are too narrow, high in the middle too wide, sloping they are biased.

    Bars are two standard errors of sampling to either side. Values of one sample are not independent, so the error is
    that between samples (of a ratio: each sample's share of values in a bin, weighted by how many were measured in
    it), and at least that of independent values.

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
        If the model is not trained, or no measured value was held out.

    References
    ----------
    Gneiting, Balabdaoui and Raftery, *Probabilistic forecasts, calibration and sharpness*, J. R. Stat. Soc. B 69
    (2007); Czado, Gneiting and Held, *Predictive model assessment for count data*, Biometrics 65 (2009).
    """
    found = held_out_predictions(model, modality, given, "pit")
    drawn = canvas(ax, 5.2, 3.2)
    edges, top = np.linspace(0, 1, N_BINS + 1), 1.5
    handles: list[Artist] = [
        drawn.ax.axhline(1, color=GREY, linestyle="--", linewidth=0.9, label="true distributions", zorder=1)
    ]
    for position, (name, adata) in enumerate(found.items()):
        density, error = pit_density(layer(adata, "pit"))
        look = style(position)
        drawn.ax.stairs(density, edges, color=look.color, linewidth=1.0, alpha=0.7, zorder=2, baseline=None)
        at = edges[:-1] + (position + 1) / (len(found) + 1) / N_BINS  # side by side within a bin
        drawn.ax.errorbar(
            at, density, yerr=BAND * error, color=look.color, marker=look.marker, markersize=4, linestyle="",
            elinewidth=1.4, zorder=3,
        )  # fmt: skip
        label = f"{name} ({_samples(adata)} samples)"
        handles.append(Line2D([], [], color=look.color, marker=look.marker, markersize=4, linewidth=1.0, label=label))
        top = max(top, 1.08 * float(np.nanmax(density + BAND * np.nan_to_num(error))))
    handles.append(
        Line2D([], [], color=GREY, marker="|", markersize=9, linestyle="", label=f"± {BAND} standard errors")
    )
    drawn.ax.set(xlim=(0, 1), ylim=(0, top))
    drawn.ax.xaxis.set_major_locator(MultipleLocator(0.2))
    drawn.ax.set_xlabel("Probability integral transform")
    drawn.ax.set_ylabel("Density")
    legend_beside(drawn.ax, handles)
    tidy(drawn.ax)
    return drawn.finish(show, save)


def pit_density(values: Array, n_bins: int = N_BINS) -> tuple[Array, Array]:
    """Histogram of PIT values and its standard error.

    Parameters
    ----------
    values
        ``(n, p)`` in [0, 1]; NaN where not measured.
    n_bins
        Bins of equal width.

    Returns
    -------
    density, error
        ``(n_bins,)`` each; the error is NaN if there is one sample.
    """
    seen = ~np.isnan(values)
    bins = np.clip((np.where(seen, values, 0) * n_bins).astype(np.intp), 0, n_bins - 1)
    counts = np.stack([((bins == b) & seen).sum(1) for b in range(n_bins)], axis=1)[seen.any(1)]  # (samples, bins)
    measured = counts.sum(1, keepdims=True)
    n, total = len(counts), counts.sum()
    share = counts.sum(0) / total
    independent = (1 / n_bins) * (1 - 1 / n_bins) / total
    if n < 2:
        return share * n_bins, np.full(n_bins, np.nan)
    between = n / (n - 1) * ((counts - measured * share) ** 2).sum(0) / total**2
    return share * n_bins, np.sqrt(np.maximum(between, independent)) * n_bins


def _samples(adata: object) -> int:
    return int((~np.isnan(layer(adata))).any(1).sum())  # type: ignore[arg-type]
