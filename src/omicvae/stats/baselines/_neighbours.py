"""Prediction by similar samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from omicvae.stats.baselines._base import Array, Baseline


class KNNBaseline(Baseline):
    """Mean of the nearest training samples (Euclidean, standardised sources).

    Their number is chosen by leave-one-out, which is exact here, and so are residuals. A missing target value takes no
    part; where all neighbours lack it the prediction is the training mean.

    Parameters
    ----------
    n_neighbours
        Numbers to choose from; those above ``n - 1`` are left out.
    n_folds, seed
        Not used: residuals are leave-one-out.
    """

    def __init__(self, n_neighbours: Sequence[int] = (5, 10, 20, 40), *, n_folds: int = 5, seed: int = 0) -> None:
        super().__init__(n_folds=n_folds, seed=seed)
        self.n_neighbours = tuple(n_neighbours)
        if not self.n_neighbours or min(self.n_neighbours) < 1:
            raise ValueError(f"n_neighbours must be positive numbers, got {n_neighbours}")

    def _learn(self, x: Array, y: Array) -> Array | None:
        self._seen = ~np.isnan(y)
        self._targets = np.where(self._seen, y, 0.0).astype(np.float32)
        self._nearest = NearestNeighbors(algorithm="brute").fit(x.astype(np.float32))
        most = min(max(self.n_neighbours), len(x) - 1)
        self.k_ = max(most, 1)
        if most < 1:
            return np.full_like(y, np.nan)
        found = self._nearest.kneighbors(n_neighbors=most, return_distance=False)  # without the sample itself
        best, least = None, np.inf
        for k in sorted({min(k, most) for k in self.n_neighbours}):
            residual = np.where(self._seen, y - self._average(found[:, :k]), np.nan)
            error = float(np.sum(residual**2, where=self._seen))
            if best is None or error < least:
                best, least, self.k_ = residual, error, k
        return best

    def _infer(self, x: Array) -> Array:
        if len(x) == 0:
            return np.zeros((0, self._targets.shape[1]))
        return self._average(self._nearest.kneighbors(x.astype(np.float32), n_neighbors=self.k_, return_distance=False))

    def _average(self, neighbours: NDArray[np.integer]) -> Array:
        """``(n, q)`` mean over ``(n, k)`` training samples that have a value."""
        n, k = neighbours.shape
        shape = (n, len(self._targets))
        ones = np.ones(n * k, dtype=np.float32)
        weights = sparse.csr_array((ones, neighbours.reshape(-1), np.arange(0, n * k + 1, k)), shape=shape)
        count = weights @ self._seen.astype(np.float32) if not self._seen.all() else np.float32(k)
        return np.asarray(weights @ self._targets / np.maximum(count, 1), dtype=np.float64)
