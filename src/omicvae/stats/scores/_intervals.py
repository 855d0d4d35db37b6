"""Scores of predictive intervals and standard deviations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from omicvae.stats.scores._arrays import Array, mean_of_measured, of_one_shape
from omicvae.stats.scores._points import spearman


def coverage(y: ArrayLike, lower: ArrayLike, upper: ArrayLike, axis: int | None = None) -> Array:
    """Share of measured values in their closed intervals; NaN where there are none.

    Parameters
    ----------
    y
        Truth.
    lower, upper
        Limits, of the shape of ``y``.
    axis
        To average over; all by default.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    y, lower, upper = of_one_shape(y, lower, upper)
    inside = np.where(np.isnan(lower) | np.isnan(upper), np.nan, (lower <= y) & (y <= upper))
    return mean_of_measured(inside, ~np.isnan(y), axis)


def risk_coverage(error: ArrayLike, sd: ArrayLike, shares: Sequence[float] | Array) -> Array:
    """Mean absolute error of the values that are predicted with most certainty.

    All values are ranked together, so both arguments should be in units that features share: divided by each feature's
    standard deviation, not by the predictive one, which would make every prediction look alike.

    Parameters
    ----------
    error
        Errors, of any shape; NaN where not measured.
    sd
        Predictive standard deviations, of the same shape; ties are in the order of the values.
    shares
        ``(S,)`` shares in (0, 1] of the values, the most certain first.

    Returns
    -------
    ``(S,)``; NaN if nothing was measured.

    Raises
    ------
    ValueError
        If shapes differ or a share is not in (0, 1].

    References
    ----------
    El-Yaniv and Wiener, *On the foundations of noise-free selective classification*, JMLR 11 (2010).
    """
    error, sd = of_one_shape(error, sd)
    asked = np.asarray(shares, dtype=np.float64)
    if not ((asked > 0) & (asked <= 1)).all():
        raise ValueError(f"shares must lie in (0, 1], got {asked.tolist()}")
    seen = ~np.isnan(error)
    if not seen.any():
        return np.full(asked.shape, np.nan)
    ordered = np.abs(error[seen])[np.argsort(sd[seen], kind="stable")]
    n = np.maximum(np.ceil(asked * len(ordered) - 1e-9).astype(np.intp), 1)
    return np.asarray(np.cumsum(ordered, dtype=np.float64)[n - 1] / n)


def rank_correlation(error: ArrayLike, sd: ArrayLike) -> float:
    """Rank correlation of absolute errors with predictive standard deviations, over all values together.

    Parameters
    ----------
    error, sd
        As in :func:`risk_coverage`.

    Returns
    -------
    NaN if either is constant or there are fewer than three values.

    Raises
    ------
    ValueError
        If shapes differ.
    """
    error, sd = of_one_shape(error, sd)
    return float(spearman(np.abs(error).reshape(-1, 1), sd.reshape(-1, 1))[0])
