"""Sets of sources: which to fit, on which folds, and which of the fitted ones to predict with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omicvae.stats.components import Array, Float32, Rows

LEAST_ROWS = 20  # with fewer samples in common, two assays say nothing about one another here
LEAST_VARIANCE = 1e-6
LEAST_GAIN = 1e-4

Key = tuple[tuple[int, ...], int]
"""Sources (ascending) and target, as positions of assays."""


class CrossFit(NamedTuple):
    """Predictions of samples by fits that have not seen them."""

    rows: Rows
    """(n,) positions of the samples, in the order of the target's rows."""
    folds: NDArray[np.intp]
    """(n,) fold of each sample."""
    prediction: Float32
    """(n, p) on the standardised scale."""


class SampleErrors(NamedTuple):
    """Mean squared error over features of each sample, predicted by fits that have not seen it."""

    rows: Rows
    """(n,) positions of samples, ascending."""
    error: Float32
    """(n,)"""

    def better_than(self, other: SampleErrors) -> bool | None:
        """Whether errors are smaller in the samples that both have; ``None`` if these are too few to say."""
        _, own, others = np.intersect1d(self.rows, other.rows, assume_unique=True, return_indices=True)
        return None if len(own) < LEAST_ROWS else bool(self.error[own].mean() < other.error[others].mean())


def default_patterns(present: NDArray[np.bool_]) -> list[Key]:
    """All sets of sources for up to four assays; else single ones, all others, and those that occur."""
    n_modalities = present.shape[1]
    found: set[Key] = set()
    for target in range(n_modalities):
        others = [m for m in range(n_modalities) if m != target]
        sizes = range(1, len(others) + 1) if n_modalities <= 4 else (1, len(others))
        found |= {(sources, target) for size in sizes for sources in combinations(others, size)}
        if n_modalities > 4:
            for pattern in np.unique(present, axis=0):
                sources = tuple(m for m in others if pattern[m])
                found |= {(sources, target)} if sources else set()
    return sorted(found)


def assign_folds(present: NDArray[np.bool_], n_folds: int, seed: int) -> NDArray[np.intp]:
    """``(n,)`` fold of every sample, at random and equally within each pattern of assays."""
    rng = np.random.default_rng(seed)
    folds = np.zeros(len(present), dtype=np.intp)
    _, group = np.unique(present, axis=0, return_inverse=True)
    start = 0
    for g in range(group.max() + 1 if len(group) else 0):
        members = rng.permutation(np.flatnonzero(group.reshape(-1) == g))
        folds[members] = (start + np.arange(len(members))) % n_folds
        start += len(members)
    return folds


def cover(sources: Sequence[int], unexplained: Mapping[Key, float], errors: Mapping[Key, SampleErrors]) -> list[Key]:
    """Fitted patterns of one target to predict it with, best first; they share no source.

    Parameters
    ----------
    sources
        What there is to predict from.
    unexplained
        Fitted patterns of the target, and the share of its variance that each leaves.
    errors
        Of each sample, for each pattern.
    """
    chosen: list[Key] = []
    left = set(sources)
    while fitted := [key for key in unexplained if set(key[0]) <= left]:
        best, *others = sorted(fitted, key=lambda key: (-len(key[0]), key))  # the largest, or one that beats it
        for key in others:
            better = errors[key].better_than(errors[best])
            if better is None:
                better = unexplained[key] < unexplained[best]
            best = key if better else best
        chosen.append(best)
        left -= set(best[0])
    return chosen


def gained_precision(variance: Array, total: Array) -> Array:
    """``(p,)`` inverse variance with a prediction, less that without one; hardly above 0 where nothing is gained.

    Weights of an average: predictions that tell nothing take no part, and equal ones stay what they are.
    """
    gained = 1 / np.maximum(variance, LEAST_VARIANCE) - 1 / np.maximum(total, LEAST_VARIANCE)
    return np.asarray(np.maximum(gained, LEAST_GAIN))
