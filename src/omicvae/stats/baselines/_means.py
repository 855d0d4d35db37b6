"""Prediction by averages of the target, without or with a known grouping of samples."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from omicvae.stats.baselines._base import Array, Baseline, Scale


class MeanBaseline(Baseline):
    """Every sample is predicted by the training mean; what any method must beat.

    Residuals are exactly leave-one-out.
    """

    def _learn(self, x: Array, y: Array) -> Array | None:
        self._n_features = y.shape[1]
        n = (~np.isnan(y)).sum(0)
        return np.where(n > 1, y * n / np.maximum(n - 1, 1), np.nan)

    def _infer(self, x: Array) -> Array:
        return np.zeros((len(x), self._n_features))


class GroupMeanBaseline(Baseline):
    """Every sample is predicted by the training mean of its group, such as a tumour subtype.

    In place of sources, ``x`` is one label a sample, ``(n,)`` or ``(n, 1)``. A sample without a label, or with one that
    was not in training, is predicted by the mean over all samples.
    """

    def _sources(self, x: ArrayLike) -> NDArray[np.generic]:
        labels = np.asarray(x, dtype=object)
        if labels.ndim == 2 and labels.shape[1] == 1:
            labels = labels[:, 0]
        if labels.ndim != 1:
            raise ValueError(f"groups must be one label a sample, got an array of shape {labels.shape}")
        named = labels.astype(str).astype(object)
        named[pd.isna(labels)] = None
        return np.asarray(named)

    def _fit_point(self, x: NDArray[np.generic], y: Array) -> Array | None:
        self._scale = Scale.of(y)
        return self._learn(x, self._scale.forward(y))  # type: ignore[arg-type]

    def _point(self, x: NDArray[np.generic]) -> Array:
        return self._infer(x) * self._scale.deviation + self._scale.mean  # type: ignore[arg-type]

    def _learn(self, x: Array, y: Array) -> Array | None:
        self._groups = pd.Index(sorted({label for label in x if label is not None}))
        self._means = np.zeros((len(self._groups) + 1, y.shape[1]))  # the last row is the mean over all
        seen = ~np.isnan(y)
        for row, group in enumerate(self._groups):
            here = x == group
            n = seen[here].sum(0)
            self._means[row] = np.sum(y[here], axis=0, where=seen[here]) / np.maximum(n, 1)
        return None

    def _infer(self, x: Array) -> Array:
        return self._means[self._groups.get_indexer(pd.Index(x, dtype=object))]
