"""How good predictions and their uncertainties are: scores of arrays, a feature a column.

A value whose truth is NaN was not measured and counts nowhere. A NaN predicted for a measured value makes its score NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, ndtr
from scipy.stats import rankdata

Array = NDArray[np.float64]
Floats = NDArray[np.floating]

HELD = 2**21
"""Numbers that a temporary array holds."""
LEAST_VALUES = 3
"""Measured values from which on a feature has a score of agreement."""


def crps_normal(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Floats:
    r"""Continuous ranked probability score of normal predictive distributions.

    .. math:: \sigma \left[ z \, (2 \Phi(z) - 1) + 2 \varphi(z) - \pi^{-1/2} \right], \quad z = (y - \mu) / \sigma,

    in the units of ``y``; smaller is better. Equation 21 of Gneiting and Raftery, *Strictly proper scoring rules,
    prediction, and estimation*, JASA 102 (2007), with the sign changed. The absolute error where ``sd`` is 0.

    Parameters
    ----------
    y
        Truth.
    mean, sd
        Of the predictive distribution; shapes that broadcast with that of ``y``.

    Raises
    ------
    ValueError
        If an sd is negative.
    """
    error, z, sd = _standardised(y, mean, sd)
    density = np.exp(-0.5 * np.minimum(np.abs(z), 1e4) ** 2) * math.sqrt(2 / math.pi)
    return np.asarray(error * erf(z / math.sqrt(2)) + sd * (density - 1 / math.sqrt(math.pi)), dtype=error.dtype)


def pit_normal(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> Floats:
    r"""Probability integral transform :math:`\Phi((y - \mu) / \sigma)` of normal predictive distributions.

    Parameters
    ----------
    y
        Truth.
    mean, sd
        Of the predictive distribution; shapes that broadcast with that of ``y``.

    Raises
    ------
    ValueError
        If an sd is negative.
    """
    error, z, _ = _standardised(y, mean, sd)
    return np.asarray(ndtr(z), dtype=error.dtype)


def crps_sample(y: ArrayLike, draws: ArrayLike) -> Floats:
    r"""Continuous ranked probability score of predictive distributions known by draws.

    .. math:: \frac 1 K \sum_k |x_k - y| - \frac 1 {2 K (K - 1)} \sum_{j, k} |x_j - x_k|

    The *fair* score, whose expectation over draws is that of infinitely many (Ferro, *Fair scores for ensemble
    forecasts*, Q. J. R. Meteorol. Soc. 140, 2014); a single one may be negative. The double sum is
    :math:`2 \sum_k (2k - K - 1) x_{(k)}` of the ordered draws.

    Parameters
    ----------
    y
        ``(n, p)`` truth.
    draws
        ``(K, n, p)`` draws of the predictive distribution.

    Returns
    -------
    ``(n, p)``, in the units of ``y``; float32 if both are, else float64.

    Raises
    ------
    ValueError
        If shapes do not match or there are fewer than two draws.
    """
    y, draws = _with_draws(y, draws)
    K = len(draws)
    if K < 2:
        raise ValueError(f"the spread of {K} draws is not known: at least 2 are needed")
    weights = (2 * np.arange(1, K + 1) - K - 1) / (K * (K - 1))
    out = np.empty(y.shape, dtype=np.result_type(y, draws, np.float32))
    flat, by_value, found = y.reshape(-1), draws.reshape(K, -1), out.reshape(-1)
    for part in _slices(flat.size, K):
        # Less the truth, so that rounding is relative to errors; draws last, because sorting strides is slow.
        difference = np.subtract(by_value[:, part].T, flat[part, None], dtype=found.dtype, order="C")
        first = np.abs(difference).mean(1, dtype=np.float64)
        difference.sort(axis=1)
        found[part] = first - difference @ weights
    return out


def randomised_pit(y: ArrayLike, draws: ArrayLike, rng: np.random.Generator) -> Array:
    r"""Randomised probability integral transform: the rank of the truth among draws.

    .. math:: u = \frac{\#\{x_k < y\} + V (\#\{x_k = y\} + 1)}{K + 1}, \quad V \sim U(0, 1)

    Exactly uniform if ``y`` is exchangeable with the draws, for continuous and discrete values alike (Czado, Gneiting
    and Held, *Predictive model assessment for count data*, Biometrics 65, 2009, with ranks for probabilities).

    Parameters
    ----------
    y
        ``(n, p)`` truth.
    draws
        ``(K, n, p)`` draws of the predictive distribution.
    rng
        Source of :math:`V`.

    Returns
    -------
    ``(n, p)`` in [0, 1].

    Raises
    ------
    ValueError
        If shapes do not match or there is no draw.
    """
    y, draws = _with_draws(y, draws)
    if len(draws) == 0:
        raise ValueError("there are no draws to rank the truth among")
    below, equal, unknown = np.zeros(y.shape, np.int64), np.zeros(y.shape, np.int64), np.isnan(y)
    for draw in draws:
        below += draw < y
        equal += draw == y
        unknown |= np.isnan(draw)
    return np.where(unknown, np.nan, (below + rng.random(y.shape) * (equal + 1)) / (len(draws) + 1))


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
    y, lower, upper = _alike(y, lower, upper)
    inside = np.where(np.isnan(lower) | np.isnan(upper), np.nan, (lower <= y) & (y <= upper))
    return _mean(inside, ~np.isnan(y), axis)


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
    y, prediction = _alike(y, prediction)
    return _mean(np.abs(y - prediction), ~np.isnan(y), axis)


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
    y, prediction = _matrices(y, prediction)
    out = np.full(y.shape[1], np.nan)
    for part in _slices(y.shape[1], len(y)):
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
    y, prediction = _matrices(y, prediction)
    out = np.full(y.shape[1], np.nan)
    for part in _slices(y.shape[1], len(y)):
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
    y01, score = _matrices(y01, score)
    other = y01[~(np.isnan(y01) | (y01 == 0) | (y01 == 1))]
    if other.size:
        raise ValueError(f"{other.size} values are neither 0 nor 1, the first is {other[0]:g}")
    out = np.full(y01.shape[1], np.nan)
    for part in _slices(y01.shape[1], len(y01)):
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
    score, reference = _alike(score, reference)
    both = ~(np.isnan(score) | np.isnan(reference))
    own, other = (np.sum(v, axis=axis, where=both, dtype=np.float64) for v in (score, reference))
    return np.asarray(np.where(other > 0, 1 - own / np.where(other > 0, other, 1), np.nan))


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
    error, sd = _alike(error, sd)
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
    error, sd = _alike(error, sd)
    return float(spearman(np.abs(error).reshape(-1, 1), sd.reshape(-1, 1))[0])


# ---------------------------------------------------------------------- shared


def _floats(values: ArrayLike) -> Floats:
    found = np.asarray(values)
    return found if np.issubdtype(found.dtype, np.floating) else found.astype(np.float64)


def _alike(*values: ArrayLike) -> tuple[Floats, ...]:
    found = tuple(_floats(v) for v in values)
    if len({v.shape for v in found}) > 1:
        raise ValueError(f"arrays must have the same shape, got {' and '.join(str(v.shape) for v in found)}")
    return found


def _matrices(*values: ArrayLike) -> tuple[Floats, ...]:
    found = _alike(*values)
    if found[0].ndim != 2:
        raise ValueError(f"arrays must have the shape (samples, features), got {found[0].shape}")
    return found


def _with_draws(y: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    y, draws = _floats(y), _floats(draws)
    if draws.shape[1:] != y.shape or draws.ndim == 0:
        raise ValueError(f"draws must have the shape (K, {', '.join(map(str, y.shape))}), got {draws.shape}")
    return y, draws


def _slices(n: int, height: int) -> Iterator[slice]:
    """Parts of ``n`` columns that hold at most :data:`HELD` numbers each."""
    size = max(1, HELD // max(height, 1))
    return (slice(start, start + size) for start in range(0, n, size))


def _standardised(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Error, error in standard deviations (infinite or 0 where the sd is 0) and sd."""
    y, mean, sd = _floats(y), _floats(mean), _floats(sd)
    if (sd < 0).any():
        raise ValueError(f"{int((sd < 0).sum())} standard deviations are negative")
    error = y - mean
    with np.errstate(over="ignore"):
        return error, error / np.maximum(sd, np.finfo(error.dtype).tiny), sd


def _mean(values: Floats, seen: NDArray[np.bool_], axis: int | None) -> Array:
    count = seen.sum(axis)
    total = np.sum(values, axis=axis, where=seen, dtype=np.float64)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))


def _varies(values: Floats, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """``(p,)`` whether a feature has enough values and they differ; not if one that should be there is NaN."""
    low = np.min(values, axis=0, where=seen, initial=np.inf)
    high = np.max(values, axis=0, where=seen, initial=-np.inf)
    return np.asarray((seen.sum(0) >= LEAST_VALUES) & (low < high))


def _centred_ranks(values: Floats, seen: NDArray[np.bool_]) -> Array:
    """``(n, p)`` ranks less their mean, 0 where not measured."""
    ranks = rankdata(np.where(seen, values, np.nan), axis=0, nan_policy="omit")
    return np.asarray(np.where(seen, ranks - (seen.sum(0) + 1) / 2, 0.0))
