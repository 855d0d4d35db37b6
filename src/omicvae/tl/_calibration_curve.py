"""Whether intervals hold what they promise, on samples the model has not seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omicvae.data._measured import observed_values
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._report import calibrated
from omicvae.tl._held_out import samples_to_measure_on

COLUMNS = ["modality", "level", "coverage", "n_values"]


def calibration_curve(
    model: Model,
    *,
    levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95),
    indices: Sequence[int] | Sequence[str] | Sequence[bool] | None = None,
) -> pd.DataFrame:
    """How often measured values lie in the interval predicted from the other assays.

    Every modality is hidden in turn in the samples that have it and at least one other.

    Parameters
    ----------
    model
        Trained model with data attached.
    levels
        Probabilities that central intervals are to hold, each in (0, 1).
    indices
        Samples to measure on (positions, names or a mask), which should not have been trained on. By default the
        samples of :meth:`~omicvae.model.CoVAE.get_held_out_predictions`: each predicted by a fit that has not seen it,
        with an interval calibrated on others. Where nothing was held out, all samples, with a warning.

    Returns
    -------
    DataFrame with one row a modality and level:

    ``modality``
        The modality that was hidden and predicted.
    ``level``
        Nominal coverage: the probability with which the interval is to hold the value.
    ``coverage``
        Share of measured elements (sample by feature, NaN left out) that lie in their interval, ends included. Equal to
        ``level`` where intervals are true, below it where they are too narrow. For discrete data (counts, 0/1) it
        exceeds ``level`` by nature, because an interval of whole numbers cannot hold exactly 90 %: [0, 0] holds most
        of a sparse feature. NaN if no sample could be used.
    ``n_values``
        Elements counted. Those of one sample are not independent, so coverage is less certain than their number
        suggests.

    Raises
    ------
    TypeError
        If ``model`` is not a model or ``levels`` is not a sequence.
    ValueError
        If a level is not in (0, 1), or the model was loaded without data.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "calibration_curve")
    if isinstance(levels, str) or not np.iterable(levels):
        raise TypeError(f"levels must be a list of probabilities, got {levels!r}; write levels=[0.9]")
    wrong = [level for level in levels if not 0 < level < 1]
    if wrong or not len(levels):
        raise ValueError(f"levels must lie between 0 and 1, got {wrong if wrong else 'none'}")
    if indices is None and model.adata is not None:
        model._require_training()
        rows = [row for modality in model.modalities for row in _crossed_curve(model, modality, levels)]
        if any(n for *_, n in rows):
            return pd.DataFrame(rows, columns=COLUMNS)
    positions = samples_to_measure_on(model, indices, "the coverage of intervals")
    rows = [row for modality in model.modalities for row in _curve(model, modality, levels, positions)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _crossed_curve(model: Model, modality: str, levels: Sequence[float]) -> list[tuple[str, float, float, int]]:
    """On samples that the predictor has not seen, with intervals calibrated on others than these."""
    scored = list(model._scored_as_measured(modality))
    rows = []
    for level in levels:
        inside = np.concatenate([np.zeros(0, np.float32), *(calibrated(s).inside(level).ravel() for s in scored)])
        n = int((~np.isnan(inside)).sum())
        rows.append((modality, float(level), float(np.nanmean(inside)) if n else float("nan"), n))
    return rows


def _curve(
    model: Model, modality: str, levels: Sequence[float], positions: NDArray[np.intp]
) -> list[tuple[str, float, float, int]]:
    usable, values = hidden_values(model, modality, positions)
    n = int(np.isfinite(values).sum())
    rows = []
    for level in levels:
        coverage = float("nan")
        if n:
            found = model.impute(modality, indices=usable, level=level)
            # Comparisons with NaN are False: elements that were not measured are never inside.
            inside = (values >= found.layers["lower"]) & (values <= found.layers["upper"])
            coverage = float(inside.sum() / n)
        rows.append((modality, float(level), coverage, n))
    return rows


def hidden_values(
    model: Model, modality: str, positions: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Positions of the samples in which a modality can be hidden and predicted, and ``(n, n_vars)`` what was hidden."""
    cohort = model._cohort(None)
    column = model.modalities.index(modality)
    present = cohort.present[positions]
    usable = positions[present[:, column] & (present.sum(1) > 1)]
    return usable, observed_values(cohort, modality, usable)
