"""Regression on a few directions of the sources: principal components, partial least squares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse.linalg import svds
from sklearn.decomposition import PCA

from omicvae.stats.baselines._base import Array, Baseline
from omicvae.stats.baselines._ridge import PENALTIES, RidgeBaseline

EXACT = 100
"""Size up to which a singular vector is computed from all of them."""


class PCARidgeBaseline(RidgeBaseline):
    """Ridge regression on leading principal components of the sources.

    The penalty is chosen as in :class:`RidgeBaseline`; uncertainty comes from folds, because components have seen the
    samples that leave-one-out leaves out.

    Parameters
    ----------
    n_components
        At most; fewer where there are not as many samples or features.
    penalties, n_folds, seed
        As in :class:`RidgeBaseline` and :class:`Baseline`.
    """

    def __init__(
        self,
        n_components: int = 50,
        *,
        penalties: Sequence[float] | Array = PENALTIES,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(penalties=penalties, n_folds=n_folds, seed=seed)
        self.n_components = n_components

    def _learn(self, x: Array, y: Array) -> Array | None:
        k = max(1, min(self.n_components, len(x) - 1, x.shape[1]))
        if len(x) > 1 and x.any():
            with np.errstate(invalid="ignore"):  # shares of a variance of 0, which are not used
                self._components = PCA(k, random_state=self.seed).fit(x).components_.T
        else:
            self._components = np.zeros((x.shape[1], 1))
        super()._learn(x @ self._components, y)
        return None

    def _infer(self, x: Array) -> Array:
        return super()._infer(x @ self._components)


class PLSBaseline(Baseline):
    """Partial least squares of all targets together (PLS2).

    Weights are those of :class:`sklearn.cross_decomposition.PLSRegression` without scaling, by the kernel algorithm of
    Dayal and MacGregor (J. Chemometrics 11, 1997), which takes products of whole matrices once instead of in every
    iteration. Missing target values are put at the training mean.

    Parameters
    ----------
    n_components
        At most; fewer where there are not as many samples or features.
    n_folds, seed
        As in :class:`Baseline`.
    """

    def __init__(self, n_components: int = 10, *, n_folds: int = 5, seed: int = 0) -> None:
        super().__init__(n_folds=n_folds, seed=seed)
        self.n_components = n_components

    def _learn(self, x: Array, y: Array) -> Array | None:
        filled = np.nan_to_num(y)
        self._centre = filled.mean(0)
        self._rotations, self._loadings = _pls(x - x.mean(0), filled - self._centre, self.n_components)
        self._centre = self._centre - x.mean(0) @ self._rotations @ self._loadings.T
        return None

    def _infer(self, x: Array) -> Array:
        return np.asarray((x @ self._rotations) @ self._loadings.T + self._centre)


def _pls(x: Array, y: Array, n_components: int) -> tuple[Array, Array]:
    """Rotations ``(p, k)`` and target loadings ``(q, k)`` of centred data; the coefficients are their product."""
    across = x.T @ y
    rotations, loadings, x_loadings = np.zeros((x.shape[1], 0)), np.zeros((y.shape[1], 0)), np.zeros((x.shape[1], 0))
    least = 1e-10 * max(float(np.linalg.norm(across)), 1e-300)
    for _ in range(min(n_components, len(x) - 1, x.shape[1])):
        if np.linalg.norm(across) <= least:
            break  # sources or targets are used up
        weight = _leading_left(across)
        rotation = weight - rotations @ (x_loadings.T @ weight)
        score = x @ rotation
        square = float(score @ score)
        x_loading, loading = score @ x / square, rotation @ across / square
        across -= square * np.outer(x_loading, loading)
        rotations = np.column_stack([rotations, rotation])
        loadings = np.column_stack([loadings, loading])
        x_loadings = np.column_stack([x_loadings, x_loading])
    return rotations, loadings


def _leading_left(matrix: Array) -> Array:
    """``(p,)`` left singular vector of the largest singular value."""
    p, q = matrix.shape
    if min(p, q) <= EXACT:
        product = matrix @ matrix.T if p <= q else matrix.T @ matrix
        leading = np.linalg.eigh(product)[1][:, -1]
        left = leading if p <= q else matrix @ leading
        return np.asarray(left / np.linalg.norm(left))
    start = np.random.default_rng(0).normal(size=min(p, q))
    return np.asarray(svds(matrix, k=1, v0=start)[0][:, 0])
