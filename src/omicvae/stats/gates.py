"""How much of a prediction to believe: per component, and per feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import isotonic_regression

Array = NDArray[np.float64]

GAIN_RANGE = (0.0, 1.3)
GAIN_PRIOR = 0.005  # of the number of samples: how strongly a gain is held at 1
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
    """Factor on the prediction of every feature, by regression on held-out samples.

    Parameters
    ----------
    truth, prediction
        ``(n, p)`` values around their mean, both 0 where a value was not measured.
    n_obs
        ``(p,)`` number of measured values.

    Returns
    -------
    ``(p,)`` factors within :data:`GAIN_RANGE`.
    """
    held = GAIN_PRIOR * n_obs + _LEAST
    products = np.einsum("ij,ij->j", truth, prediction, dtype=np.float64)
    squares = np.einsum("ij,ij->j", prediction, prediction, dtype=np.float64)
    return np.asarray(np.clip((products + held) / (squares + held), *GAIN_RANGE))
