"""What is known of an assay in samples of which some lack it."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omicvae.tl._out_of_sample import (
    Predicted,
    Request,
    held_out_predictions,
    measured_values,
    noise_variance,
    predicted_means,
    predictive_noise,
)


class Evidence(NamedTuple):
    """Measured and predicted values, one row a sample, measured ones first."""

    position: NDArray[np.intp]
    """(n,) in mdata; -1 for samples from elsewhere, which only tell how far predictions are off"""
    imputed: NDArray[np.bool_]
    """(n,) samples without the assay"""
    values: NDArray[np.floating]
    """(n, p) measured; NaN elsewhere"""
    prediction: NDArray[np.floating]
    """(n, p) by fits that have not seen the value; NaN where there is none"""
    draws: NDArray[np.float32]
    """(K, n_imputed, p) noise of the predictor"""
    noise: NDArray[np.float64]
    """(p,) its mean variance where values were measured"""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """``(n,)`` samples of mdata."""
        return self.position >= 0


def gather(request: Request, used: NDArray[np.bool_], n_imputations: int) -> Evidence:
    """Read measured values, and predict what is missing.

    Parameters
    ----------
    request
        What is asked for.
    used
        ``(n_obs,)`` samples; those without the assay have something to be predicted from.
    n_imputations
        Number of draws.

    Raises
    ------
    ValueError
        If there is something to predict and the model has no data, or nothing tells how far predictions are off.
    """
    has = request.cohort.present[:, request.target]
    measured, imputed = np.flatnonzero(used & has), np.flatnonzero(used & ~has)
    n, p = len(measured) + len(imputed), len(request.columns)
    values = np.full((n, p), np.nan, np.float32)
    values[: len(measured)] = measured_values(request, measured)
    evidence = Evidence(
        np.concatenate([measured, imputed]),
        np.arange(n) >= len(measured),
        values,
        np.full_like(values, np.nan),
        np.zeros((n_imputations if len(imputed) else 1, len(imputed), p), np.float32),
        np.zeros(p),
    )
    return _predicted(request, evidence) if len(imputed) else evidence


def _predicted(request: Request, evidence: Evidence) -> Evidence:
    """Add predictions that have not seen what they predict, and the noise of the predictor."""
    model, at = request.model, evidence.position
    if model.adata is None:
        raise ValueError(
            f"the {type(model).__name__} was loaded without data, and what it was fitted on cannot be told from new "
            "samples: load it with load(dir, mdata)"
        )
    fitted = request.on_own_data().cohort.obs_names[model._fitted_positions()]
    predictable = request.predictable()[at]
    new = predictable & (evidence.imputed | ~request.cohort.obs_names[at].isin(fitted))
    evidence.prediction[new] = predicted_means(request, at[new])
    held = held_out_predictions(request)
    n_draws = len(evidence.draws)
    for rows, noise in predictive_noise(request, at[evidence.imputed], n_draws):
        evidence.draws[:, rows] = noise
    if held is not None and evidence.imputed.all():
        own = request.on_own_data()
        where = own.cohort.obs_names.get_indexer(held.names).astype(np.intp)
        return _with_others(evidence, held)._replace(noise=noise_variance(own, where, n_draws))
    if held is not None:
        found = held.names.get_indexer(request.cohort.obs_names[at])
        seen = (found >= 0) & ~new & ~evidence.imputed
        evidence.prediction[seen] = held.prediction[found[seen]]
    _check_compared(request, evidence)
    return evidence._replace(noise=noise_variance(request, at[predictable & ~evidence.imputed], n_draws))


def _with_others(evidence: Evidence, held: Predicted) -> Evidence:
    """With the model's own samples, where nothing else tells how far predictions are off."""
    n = len(held.names)
    return evidence._replace(
        position=np.concatenate([evidence.position, np.full(n, -1, np.intp)]),
        imputed=np.concatenate([evidence.imputed, np.zeros(n, bool)]),
        values=np.concatenate([evidence.values, held.values]),
        prediction=np.concatenate([evidence.prediction, held.prediction]),
    )


def _check_compared(request: Request, evidence: Evidence) -> None:
    """Raise or warn where no prediction can be held against a measured value."""
    measured = ~np.isnan(evidence.values)
    if (measured & ~np.isnan(evidence.prediction)).any():
        return
    if not measured.any():
        raise ValueError(
            f"{request.modality!r} was measured in none of the samples, and no sample of the training data was held out: "
            "how far predictions are off is not known. Train with calibration_size > 0."
        )
    warnings.warn(
        f"no measured value of {request.modality!r} was predicted by a fit that had not seen it: imputed samples add "
        "nothing to what was measured. Train with calibration_size > 0.",
        UserWarning,
        stacklevel=5,
    )
