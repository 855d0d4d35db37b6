"""How much of a prediction to believe: per component, and per feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

Array = NDArray[np.float64]

GAIN_RANGE = (0.0, 1.3)
GAIN_SPREAD = 0.05  # variance of factors among features that is supposed when they are weighted
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
    products = np.einsum("ij,ij->j", truth, prediction, dtype=np.float64)
    squares = np.einsum("ij,ij->j", prediction, prediction, dtype=np.float64)
    left = np.einsum("ij,ij->j", truth, truth, dtype=np.float64)
    gains = np.ones(len(squares))
    told = (squares > _LEAST * np.maximum(n_obs, 1)) & (n_obs > 1)
    if not told.any():
        return gains
    products, squares, left, n_obs = products[told], squares[told], left[told], n_obs[told]
    raw = products / squares
    noise = np.maximum(left - raw * products, 0) / (n_obs - 1) / squares
    weight = 1 / (noise + GAIN_SPREAD)
    order = np.argsort(squares / n_obs, kind="stable")
    prior = np.empty_like(raw)
    prior[order] = isotonic_regression(raw[order], sample_weight=weight[order], y_min=0.0, y_max=GAIN_RANGE[1])
    spread = max(float((weight * ((raw - prior) ** 2 - noise)).sum() / weight.sum()), 0.0)
    share = np.divide(spread, spread + noise, out=np.zeros_like(noise), where=spread + noise > 0)
    gains[told] = prior + share * (raw - prior)
    return np.clip(gains, *GAIN_RANGE)
