"""Scores of point predictions, feature by feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from omicvae.stats.scores._arrays import Array, Floats, as_matrices, column_slices, mean_of_measured, of_one_shape

LEAST_VALUES = 3
"""Measured values from which on a feature has a score of agreement."""


def mae(y: ArrayLike, prediction: ArrayLike, axis: int | None = 0) -> Array:
    """Mean absolute error of the measured values; NaN where there are none.

    Parameters
    ----------
    y, prediction
        ``(n, p)``
    axis
        To average over; ``None`` for all.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    y, prediction = of_one_shape(y, prediction)
    return mean_of_measured(np.abs(y - prediction), ~np.isnan(y), axis)


def r2(y: ArrayLike, prediction: ArrayLike) -> Array:
    """Share of each feature's variance that is explained: one minus the ratio of squared errors to those of the mean.

    Negative if the prediction is worse than the mean of the measured values.

    Parameters
    ----------
    y, prediction
        ``(n, p)``

    Returns
    -------
    ``(p,)``; NaN for features that are constant or measured in fewer than three samples.

    Raises
    ------
    ValueError
        If shapes differ or are not ``(n, p)``.
    """
    y, prediction = as_matrices(y, prediction)
    out = np.full(y.shape[1], np.nan)
    for part in column_slices(y.shape[1], len(y)):
        seen = ~np.isnan(y[:, part])
        truth = np.where(seen, y[:, part], 0).astype(np.float64)
        centre = truth.sum(0) / np.maximum(seen.sum(0), 1)
        total = np.sum((truth - centre) ** 2, axis=0, where=seen)
        error = np.sum((truth - prediction[:, part]) ** 2, axis=0, where=seen)
        known = _varies(truth, seen)
        out[part][known] = 1 - error[known] / total[known]
    return out


def spearman(y: ArrayLike, prediction: ArrayLike) -> Array:
    """Rank correlation of each feature's truth and prediction; tied values have their mean rank.

    Parameters
    ----------
    y, prediction
        ``(n, p)``

    Returns
    -------
    ``(p,)``; NaN for features whose truth or prediction is constant, or that are measured in fewer than three samples.

    Raises
    ------
    ValueError
        If shapes differ or are not ``(n, p)``.
    """
    y, prediction = as_matrices(y, prediction)
    out = np.full(y.shape[1], np.nan)
    for part in column_slices(y.shape[1], len(y)):
        seen = ~np.isnan(y[:, part])
        known = _varies(y[:, part], seen) & _varies(prediction[:, part], seen)
        if known.any():
            a, b = (_centred_ranks(v[:, part][:, known], seen[:, known]) for v in (y, prediction))
            out[part][known] = (a * b).sum(0) / np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return out


def auroc(y01: ArrayLike, score: ArrayLike) -> Array:
    """Area under each feature's receiver operating characteristic, ties counting half.

    Parameters
    ----------
    y01
        ``(n, p)`` truth, 0 or 1.
    score
        ``(n, p)``, larger where 1 is more likely.

    Returns
    -------
    ``(p,)``; NaN where only one class was measured.

    Raises
    ------
    ValueError
        If shapes differ or are not ``(n, p)``, or a measured value is neither 0 nor 1.
    """
    y01, score = as_matrices(y01, score)
    other = y01[~(np.isnan(y01) | (y01 == 0) | (y01 == 1))]
    if other.size:
        raise ValueError(f"{other.size} values are neither 0 nor 1, the first is {other[0]:g}")
    out = np.full(y01.shape[1], np.nan)
    for part in column_slices(y01.shape[1], len(y01)):
        truth, given = y01[:, part], score[:, part]
        seen, positive = ~np.isnan(truth), truth == 1
        n_1, n_0 = positive.sum(0), (truth == 0).sum(0)
        known = (n_1 > 0) & (n_0 > 0) & ~(seen & np.isnan(given)).any(0)
        ranks = rankdata(np.where(seen, given, np.nan)[:, known], axis=0, nan_policy="omit")
        above = np.sum(ranks, axis=0, where=positive[:, known]) - n_1[known] * (n_1[known] + 1) / 2
        out[part][known] = above / (n_1[known] * n_0[known])
    return out


def skill(score: ArrayLike, reference: ArrayLike, axis: int | None = 0) -> Array:
    """``1 - sum(score) / sum(reference)`` over the values for which both are known.

    Parameters
    ----------
    score, reference
        ``(n, p)`` errors, such as CRPS, of a prediction and of one to be beaten; NaN where not scored.
    axis
        To sum over; ``None`` for all.

    Returns
    -------
    1 for a perfect prediction, 0 for one as good as the reference, NaN where the reference makes no error.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    score, reference = of_one_shape(score, reference)
    both = ~(np.isnan(score) | np.isnan(reference))
    own, other = (np.sum(v, axis=axis, where=both, dtype=np.float64) for v in (score, reference))
    return np.asarray(np.where(other > 0, 1 - own / np.where(other > 0, other, 1), np.nan))


def _varies(values: Floats, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(p,)`` whether a feature has enough values and they differ; not if one that should be there is NaN."""
    low = np.min(values, axis=0, where=seen, initial=np.inf)
    high = np.max(values, axis=0, where=seen, initial=-np.inf)
    return np.asarray((seen.sum(0) >= LEAST_VALUES) & (low < high))


def _centred_ranks(values: Floats, seen: NDArray[np.bool_]) -> Array:
    """``(n, p)`` ranks less their mean, 0 where not measured."""
    ranks = rankdata(np.where(seen, values, np.nan), axis=0, nan_policy="omit")
    return np.asarray(np.where(seen, ranks - (seen.sum(0) + 1) / 2, 0.0))
