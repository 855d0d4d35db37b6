"""How much weight a second predictive distribution has earned beside a first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]

POOLED_SAMPLES = 20.0  # samples' worth by which a feature's weight is drawn towards that of all features
LEAST_WEIGHT = 0.05  # less is not worth a second predictor
CONVINCING = 1.0  # standard errors by which the mixture must be better on samples its weights were not chosen on
DISCOVERIES = 0.05  # share of features that gain nothing among those that have a weight each for itself


class Terms(NamedTuple):
    r"""CRPS of the mixture :math:`(1 - w) F_1 + w F_2` as a polynomial in :math:`w`, all ``(n, p)``."""

    constant: NDArray[np.float32]
    linear: NDArray[np.float32]
    quadratic: NDArray[np.float32]

    def at(self, weights: Array) -> NDArray[np.floating]:
        """``(n, p)`` improvement of the CRPS at weights ``(p,)`` over :math:`w = 0`."""
        return -(self.linear * weights + self.quadratic * weights**2)


def mixture_terms(truth: NDArray[np.floating], first: NDArray[np.floating], second: NDArray[np.floating]) -> Terms:
    r"""Terms of the CRPS of a mixture of two predictive distributions, from draws of both.

    With :math:`e_i = \operatorname{E}|X_i - y|` and :math:`g_{ij} = \operatorname{E}|X_i - X_j'|` (Gneiting and Raftery,
    JASA 102, 2007, eq. 21) the CRPS is

    .. math::

        (1-w) e_1 + w e_2 - \tfrac12 \big((1-w)^2 g_{11} + 2 w (1-w) g_{12} + w^2 g_{22}\big).

    Parameters
    ----------
    truth
        ``(n, p)``; NaN where not measured.
    first, second
        ``(K, n, p)`` draws, the same number of both.
    """
    e1, e2 = (np.abs(x - truth).mean(0) for x in (first, second))
    K = len(first)
    s1, s2 = _pair_sum(first), _pair_sum(second)
    g11, g22 = s1 / (K * (K - 1)), s2 / (K * (K - 1))
    g12 = (_pair_sum(np.concatenate([first, second])) - s1 - s2) / (2 * K * K)
    terms = e1 - 0.5 * g11, e2 - e1 + g11 - g12, g12 - 0.5 * (g11 + g22)
    return Terms(*(np.asarray(t, dtype=np.float32) for t in terms))


def _pair_sum(draws: NDArray[np.floating]) -> Array:
    """``(n, p)`` sum of absolute differences over ordered pairs of draws."""
    ordered = np.sort(draws, axis=0)
    K = len(ordered)
    return np.asarray(2 * np.tensordot(2 * np.arange(K) - K + 1.0, ordered, axes=(0, 0)))


def mixture_weights(terms: Terms, *, together: bool = False) -> Array:
    """``(p,)`` weights of the second distribution with the least CRPS; 0 unless it is convincing.

    Chosen on one half of the samples and judged on the other, and the other way round. If the improvement, as a mean over
    samples and features, is not larger than its standard error, those features alone have a weight for which it is beyond
    doubt: where hundreds of features have nothing to gain, their noise hides ten that have. With ``together``, one of the two
    distributions is taken for all features.
    """
    n, p = terms.linear.shape
    if n < 4:
        return np.zeros(p)
    half = np.arange(n) % 2 == 0
    gain = np.concatenate(
        [
            Terms(*(t[~part] for t in terms)).at(_best(Terms(*(t[part] for t in terms)), together))
            for part in (half, ~half)
        ]
    )
    rows = _row_means(gain)
    weights = _best(terms, together)
    if not rows.mean() > CONVINCING * rows.std(ddof=1) / np.sqrt(n):
        weights = np.zeros(p) if together else np.where(_beyond_doubt(gain), weights, 0.0)
    return np.where(weights < LEAST_WEIGHT, 0.0, weights)


def _beyond_doubt(gain: NDArray[np.floating]) -> NDArray[np.bool_]:
    """``(p,)`` features whose mean gain is above 0 by a t-test, at a false discovery rate of :data:`DISCOVERIES`."""
    count = (~np.isnan(gain)).sum(0)
    mean = np.nansum(gain, 0, dtype=np.float64) / np.maximum(count, 1)
    squares = np.nansum((gain - mean) ** 2, 0, dtype=np.float64)
    error = np.sqrt(squares / np.maximum(count * (count - 1), 1))
    ratio = np.divide(mean, error, out=np.zeros_like(mean), where=error > 0)
    chance = stats.t.sf(ratio, np.maximum(count - 1, 1))
    return np.asarray(stats.false_discovery_control(chance) <= DISCOVERIES) if len(chance) else np.zeros(0, bool)


def _best(terms: Terms, together: bool) -> Array:
    linear, quadratic = (np.nansum(t, 0, dtype=np.float64) for t in (terms.linear, terms.quadratic))
    n = (~np.isnan(terms.linear)).sum(0)
    if together:
        return np.full(len(n), float(linear.sum() + quadratic.sum() < 0))
    pooled = [POOLED_SAMPLES * v.sum() / max(n.sum(), 1) for v in (linear, quadratic)]
    linear, quadratic = linear + pooled[0], np.maximum(quadratic + pooled[1], 1e-12)
    return np.asarray(np.clip(-linear / (2 * quadratic), 0, 1))


def _row_means(values: NDArray[np.floating]) -> Array:
    count = (~np.isnan(values)).sum(1)
    return np.nansum(values, 1, dtype=np.float64) / np.maximum(count, 1)
