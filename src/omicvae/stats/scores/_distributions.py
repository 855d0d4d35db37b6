"""Scores of predictive distributions: how close they are to the truth, and whether it could be a draw of them."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import erf, ndtr

from omicvae.stats.scores._arrays import Array, Floats, as_floats, column_slices, with_draws


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
    y, draws = with_draws(y, draws)
    K = len(draws)
    if K < 2:
        raise ValueError(f"the spread of {K} draws is not known: at least 2 are needed")
    weights = (2 * np.arange(1, K + 1) - K - 1) / (K * (K - 1))
    out = np.empty(y.shape, dtype=np.result_type(y, draws, np.float32))
    flat, by_value, found = y.reshape(-1), draws.reshape(K, -1), out.reshape(-1)
    for part in column_slices(flat.size, K):
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
    y, draws = with_draws(y, draws)
    if len(draws) == 0:
        raise ValueError("there are no draws to rank the truth among")
    below, equal, unknown = np.zeros(y.shape, np.int64), np.zeros(y.shape, np.int64), np.isnan(y)
    for draw in draws:
        below += draw < y
        equal += draw == y
        unknown |= np.isnan(draw)
    return np.where(unknown, np.nan, (below + rng.random(y.shape) * (equal + 1)) / (len(draws) + 1))


def _standardised(y: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Error, error in standard deviations (infinite or 0 where the sd is 0) and sd."""
    y, mean, sd = as_floats(y), as_floats(mean), as_floats(sd)
    if (sd < 0).any():
        raise ValueError(f"{int((sd < 0).sum())} standard deviations are negative")
    error = y - mean
    with np.errstate(over="ignore"):
        return error, error / np.maximum(sd, np.finfo(error.dtype).tiny), sd
