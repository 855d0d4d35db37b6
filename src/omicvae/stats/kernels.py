"""Kernels between samples, and the rows of an assay seen through one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

Array = NDArray[np.float64]

JITTER = 1e-6  # of the mean diagonal, so that a kernel matrix of repeated rows has a Cholesky factor


@dataclass(frozen=True)
class MixedKernel:
    r"""Linear and radial parts in one kernel.

    .. math::

        k(x, y) = (1 - w)\, x^\top y / p + w \exp(-\gamma \lVert x - y \rVert^2 / p)

    with :math:`p` features, standardised. :math:`w = 0` is linear.

    Parameters
    ----------
    nonlinear
        Weight :math:`w` in [0, 1] of the radial part.
    gamma
        Its inverse squared width :math:`\gamma`, on the scale of one feature.
    """

    nonlinear: float = 0.5
    gamma: float = 0.5

    def __call__(self, a: NDArray[np.floating], b: NDArray[np.floating]) -> Array:
        """``(n, k)`` kernel between rows of ``a`` ``(n, p)`` and ``b`` ``(k, p)``."""
        p = max(a.shape[1], 1)
        products = (a @ b.T).astype(np.float64)
        if self.nonlinear == 0:
            return products / p
        squares = _squared_norms(a)[:, None] + _squared_norms(b)
        distance = np.maximum(squares - 2 * products, 0) / p
        return (1 - self.nonlinear) * products / p + self.nonlinear * np.exp(-self.gamma * distance)


def _float64(values: NDArray[np.floating]) -> Array:
    return np.asarray(values, dtype=np.float64)


def _squared_norms(x: NDArray[np.floating]) -> Array:
    return np.einsum("ij,ij->i", x, x, dtype=np.float64)


class KernelRows:
    r"""Training rows of one assay in the space of a kernel.

    With at most ``limit`` rows a feature of :math:`x` is its kernel with each training row, and inner products are
    exact. Above, features are those of the Nystroem approximation (Williams and Seeger, NIPS 2000):
    :math:`\phi(x) = L^{-1} k(\text{landmarks}, x)` with :math:`L L^\top` the kernel of randomly chosen landmarks.

    Parameters
    ----------
    kernel
        The kernel.
    x
        ``(n, p)`` training rows.
    limit
        Most landmarks.
    seed
        Of the choice of landmarks.
    """

    def __init__(self, kernel: MixedKernel, x: NDArray[np.float32], *, limit: int, seed: int = 0) -> None:
        self.kernel = kernel
        self.exact = len(x) <= limit
        self._factor: Array | None = None
        if self.exact:
            self.landmarks = x
        else:
            chosen = np.sort(np.random.default_rng(seed).choice(len(x), limit, replace=False))
            self.landmarks = x[chosen]
            double = self.landmarks.astype(np.float64)  # float32 rounding of a gram of low rank exceeds the jitter
            gram = kernel(double, double)
            jitter = max(JITTER * float(np.trace(gram)) / limit, JITTER**2)
            self._factor = _float64(np.linalg.cholesky(gram + jitter * np.eye(limit)))
        self.training = self.features(x)

    @classmethod
    def restored(cls, kernel: MixedKernel, landmarks: NDArray[np.float32], factor: Array | None) -> KernelRows:
        """Rows of a saved predictor: features of new samples, without those of the training samples."""
        rows = cls.__new__(cls)
        rows.kernel, rows.landmarks, rows._factor, rows.exact = kernel, landmarks, factor, factor is None
        rows.training = np.zeros((0, len(landmarks)))
        return rows

    @property
    def factor(self) -> Array | None:
        """``(m, m)`` Cholesky factor of the landmarks' kernel; ``None`` where features are exact."""
        return self._factor

    def features(self, x: NDArray[np.floating]) -> Array:
        """``(n, m)`` features of rows ``(n, p)``."""
        products = self.kernel(x, self.landmarks)
        if self._factor is None:
            return products
        return np.asarray(scipy.linalg.solve_triangular(self._factor, products.T, lower=True, check_finite=False).T)

    def inner(self, a: NDArray[np.intp], b: NDArray[np.intp]) -> Array:
        """``(len(a), len(b))`` kernel between training rows at two lists of positions."""
        if self.exact:
            return np.asarray(self.training[np.ix_(a, b)])
        return np.asarray(self.training[a] @ self.training[b].T)

    def weights(self, rows: NDArray[np.intp], dual: Array) -> Array:
        """``(m, k)`` weights of the features that are worth ``dual`` ``(len(rows), k)`` on training rows."""
        if not self.exact:
            return np.asarray(self.training[rows].T @ dual)
        spread = np.zeros((len(self.landmarks), dual.shape[1]))
        spread[rows] = dual
        return spread
