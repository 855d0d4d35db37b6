"""How much of a prediction to believe: per component, and per feature."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

Array = NDArray[np.float64]

GAIN_RANGE = (0.0, 1.3)
SLOPE_SPREAD = 0.05  # variance among features that is supposed when slopes are weighted
_LEAST = 1e-9


def isotonic_gates(products: Array, squares: Array) -> Array:
    r"""Gate of every component: the regression of a held-out code on its prediction, falling along the components.

    Leading components carry what assays share more often than trailing ones, so gates are pooled by isotonic
    regression: :math:`c_k` minimises :math:`\sum_i (z_{ik} - c_k \hat z_{ik})^2` summed over components, subject to
    :math:`1 \ge c_1 \ge c_2 \ge \dots \ge 0`.

    Parameters
    ----------
    products
        ``(k,)`` sums over held-out samples of :math:`z_k \hat z_k`.
    squares
        ``(k,)`` sums of :math:`\hat z_k^2`.

    Returns
    -------
    ``(k,)`` gates in [0, 1].
    """
    if len(products) == 0:
        return np.zeros(0)
    weight = np.maximum(squares, _LEAST)
    found = isotonic_regression(products / weight, sample_weight=weight, y_min=0.0, y_max=1.0, increasing=False)
    return np.asarray(found, dtype=np.float64)


def gated_error(total: Array, products: Array, squares: Array, weight: Array) -> float:
    r"""Squared error :math:`\sum_k w_k \sum_i (z_{ik} - c_k \hat z_{ik})^2` that is left with the best gates.

    Parameters
    ----------
    total, products, squares
        ``(k,)`` sums of :math:`z_k^2`, :math:`z_k \hat z_k` and :math:`\hat z_k^2`.
    weight
        ``(k,)`` variance that each component explains.
    """
    c = isotonic_gates(products, squares)
    return float((weight * (total - 2 * c * products + c**2 * squares)).sum())


def gained_error(total: Array, products: Array, squares: Array) -> float:
    r"""Squared error :math:`\sum_j \sum_i (x_{ij} - g_j \hat x_{ij})^2` left with the best factor on every feature.

    Parameters
    ----------
    total, products, squares
        ``(p,)`` sums of :math:`x_j^2`, :math:`x_j \hat x_j` and :math:`\hat x_j^2`.
    """
    g = np.clip(products / np.maximum(squares, _LEAST), *GAIN_RANGE)
    return float((total - 2 * g * products + g**2 * squares).sum())


class Slopes(NamedTuple):
    """Regressions of one row of values on another, feature by feature."""

    told: NDArray[np.bool_]
    """(p,) features whose predictor varies; the rest of the fields are of these."""
    slope: Array
    noise: Array
    """Sampling variance of each slope."""
    size: Array
    """Mean square of each predictor."""
    weight: Array
    """Precision of each slope, allowing for a spread of :data:`SLOPE_SPREAD` among features."""


def _slopes(truth: NDArray[np.floating], predictor: NDArray[np.floating], n_obs: Array) -> Slopes:
    products = np.einsum("ij,ij->j", truth, predictor, dtype=np.float64)
    squares = np.einsum("ij,ij->j", predictor, predictor, dtype=np.float64)
    total = np.einsum("ij,ij->j", truth, truth, dtype=np.float64)
    told = (squares > _LEAST * np.maximum(n_obs, 1)) & (n_obs > 1)
    products, squares, total, n_obs = products[told], squares[told], total[told], n_obs[told]
    slope = products / squares
    noise = np.maximum(total - slope * products, 0) / (n_obs - 1) / squares
    return Slopes(told, slope, noise, squares / n_obs, 1 / (noise + SLOPE_SPREAD))


def _shrunk(found: Slopes, prior: Array) -> Array:
    """Empirical Bayes: slopes drawn towards ``prior`` by their noise, relative to their spread around it."""
    excess = found.weight * ((found.slope - prior) ** 2 - found.noise)
    spread = max(float(excess.sum() / found.weight.sum()), 0.0)
    total = spread + found.noise
    share = np.divide(spread, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(prior + share * (found.slope - prior))


def feature_gains(truth: NDArray[np.floating], prediction: NDArray[np.floating], n_obs: Array) -> Array:
    r"""Factor on the prediction of every feature, by regression on held-out samples.

    The least-squares factor :math:`g_j` of a feature has a sampling variance :math:`v_j`, which in small cohorts is not
    small. It is shrunk towards what features with predictions as large have, :math:`\mu_j` (isotonic in the variance of
    the prediction: a prediction that hardly moves is mostly noise), by empirical Bayes:
    :math:`(\tau^2 g_j + v_j \mu_j) / (\tau^2 + v_j)`, with :math:`\tau^2` the variance of factors around
    :math:`\mu_j` that sampling does not explain.

    Parameters
    ----------
    truth, prediction
        ``(n, p)`` values around their mean, both 0 where a value was not measured.
    n_obs
        ``(p,)`` number of measured values.

    Returns
    -------
    ``(p,)`` factors within :data:`GAIN_RANGE`; 1 for a feature whose prediction does not vary.
    """
    gains, found = np.ones(truth.shape[1]), _slopes(truth, prediction, n_obs)
    if found.told.any():
        gains[found.told] = _shrunk(found, _by_size(found, GAIN_RANGE[1]))
    return np.clip(gains, *GAIN_RANGE)


def _by_size(found: Slopes, most: float) -> Array:
    """Slope expected of a predictor of each one's size: rising with it, from 0 to ``most``."""
    order = np.argsort(found.size, kind="stable")
    expected = np.empty_like(found.slope)
    expected[order] = isotonic_regression(found.slope[order], sample_weight=found.weight[order], y_min=0.0, y_max=most)
    return expected


def shrunken_slopes(
    truth: NDArray[np.floating], predictor: NDArray[np.floating], n_obs: Array, *, by_size: bool = False
) -> Array:
    """Slope of every feature on its predictor, shrunk by empirical Bayes towards that of all, and that towards 0.

    Parameters
    ----------
    truth, predictor
        ``(n, p)``, both 0 where a value was not measured.
    n_obs
        ``(p,)`` number of measured values.
    by_size
        Shrink towards the slope, in [0, 1], of features with predictors as large instead, where a few features have
        large ones.

    Returns
    -------
    ``(p,)``; 0 for a feature whose predictor does not vary.
    """
    slopes, found = np.zeros(truth.shape[1]), _slopes(truth, predictor, n_obs)
    if found.told.any():
        common = _by_size(found, 1.0) if by_size else np.full(len(found.slope), _common_slope(truth, predictor))
        slopes[found.told] = _shrunk(found, common)
    return slopes


def _common_slope(truth: NDArray[np.floating], predictor: NDArray[np.floating]) -> float:
    """Slope of all features together, drawn towards 0 by its own sampling error (positive-part James-Stein).

    Features of a sample err together, so the error is that of a ratio of sums over samples.
    """
    products = np.einsum("ij,ij->i", truth, predictor, dtype=np.float64)
    squares = np.einsum("ij,ij->i", predictor, predictor, dtype=np.float64)
    slope = products.sum() / squares.sum()
    error = ((products - slope * squares) ** 2).sum() / squares.sum() ** 2
    return float(slope * max(0.0, 1 - error / slope**2)) if slope else 0.0
