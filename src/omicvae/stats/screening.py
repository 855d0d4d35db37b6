"""Which features of an assay do the other assays know anything about?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omicvae.stats.components import Array, Block, Float32, covariate_effects, residual

PENALTIES = np.logspace(-3, 1.5, 10)
N_FOLDS = 5
LEAST_ROWS = 30
"""Samples two assays must have in common to say anything about one another here."""
MOST_ROWS = 2000
LEAST_SCORE = 0.02
LEAST_VARIANCE = 1e-6
NULL_QUANTILE = 0.995
NULL_FEATURES = 1000
"""Scores of permuted targets that the threshold is read from."""


class Screen(NamedTuple):
    """How well the other assays predict each feature of an assay."""

    score: Array
    """(p,) held-out R2, of the source assay that predicts the feature best; NaN where none could be asked."""
    threshold: float
    """Score that a feature has to exceed."""

    @property
    def passed(self) -> NDArray[np.bool_]:
        """``(p,)`` features that another assay predicts."""
        return np.nan_to_num(self.score, nan=-np.inf) > self.threshold

    @property
    def gate(self) -> Float32:
        """``(p,)`` square root of the score where a feature passed, else 0."""
        return np.where(self.passed, np.sqrt(np.clip(np.nan_to_num(self.score), 0, 1)), 0).astype(np.float32)


def screen(blocks: list[Block], target: int, *, seed: int = 0) -> Screen:
    """Held-out predictability of every feature of one assay from each of the others.

    Ridge regression from all features of a source, and from all of them and their squares (which see dependence that is
    an even function); the kind and the penalty are those with the largest sum of positive scores. The threshold is the
    larger of :data:`LEAST_SCORE` and the :data:`NULL_QUANTILE` quantile of the scores of targets whose samples were
    permuted, which matters below a few hundred samples.

    Parameters
    ----------
    blocks
        Training samples of every assay.
    target
        Position of the assay that is predicted.
    seed
        Of folds, permutations and the choice of at most :data:`MOST_ROWS` samples.
    """
    rng = np.random.default_rng(seed)
    y = blocks[target]
    best, threshold = np.full(y.values.shape[1], np.nan), LEAST_SCORE
    for source, x in enumerate(blocks):
        if source == target:
            continue
        common = np.intersect1d(x.rows, y.rows)
        if len(common) < LEAST_ROWS:
            continue
        if len(common) > MOST_ROWS:
            common = np.sort(rng.choice(common, MOST_ROWS, replace=False))
        found, null = _scores(*_around(x, common), *_around(y, common), rng)
        best = np.fmax(best, found)
        threshold = max(threshold, float(np.quantile(null, NULL_QUANTILE)))
    return Screen(best, threshold)


def _around(block: Block, samples: NDArray[np.intp]) -> tuple[Float32, NDArray[np.bool_]]:
    """``(n, p)`` values of some samples around what covariates explain, 0 where not measured, and where they were."""
    at = np.searchsorted(block.rows, samples)
    seen = np.ones((len(at), block.values.shape[1]), bool) if block.observed is None else block.observed[at]
    effects = covariate_effects(block, np.arange(len(block.rows)))
    return residual(block.values[at], seen, block.design[at], effects), seen


def _scores(
    x: Float32, _: NDArray[np.bool_], y: Float32, seen: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Array, Array]:
    """``(q,)`` held-out R2 of targets, and some of permuted targets, which no predictor can have above 0."""
    n, q = y.shape
    folds = rng.permutation(n) % N_FOLDS
    squares = x**2 - (x**2).mean(0)
    squares /= np.maximum(squares.std(0), 1e-6)
    kinds = {"linear": x @ x.T / x.shape[1]}
    kinds["with squares"] = 0.5 * (kinds["linear"] + squares @ squares.T / x.shape[1])
    total = (y**2).sum(0, dtype=np.float64)
    total = np.where(total > LEAST_VARIANCE * n, total, np.nan)  # a constant feature is not predicted by anything
    candidates = []
    for gram in kinds.values():
        solve = _Paths(gram.astype(np.float64), folds)
        scores = np.nan_to_num(1 - solve.errors(y, seen, PENALTIES) / total)
        candidates.append((np.maximum(scores, 0).sum(1).max(), solve, scores))
    _, solve, scores = max(candidates, key=lambda c: c[0])
    chosen = int(np.maximum(scores, 0).sum(1).argmax())
    null = []
    for _round in range(-(-NULL_FEATURES // q)):
        order = rng.permutation(n)
        null.append(np.nan_to_num(1 - solve.errors(y[order], seen[order], PENALTIES[chosen : chosen + 1])[0] / total))
    return scores[chosen], np.concatenate(null)


class _Paths:
    """Held-out squared errors of kernel ridge regressions that share one factorisation a fold."""

    def __init__(self, gram: Array, folds: NDArray[np.intp]) -> None:
        self.parts = []
        for k in range(N_FOLDS):
            train, test = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
            values, vectors = np.linalg.eigh(gram[np.ix_(train, train)])
            self.parts.append((train, test, np.maximum(values, 0), vectors, gram[np.ix_(test, train)] @ vectors))

    def errors(self, y: Float32, seen: NDArray[np.bool_], penalties: Array) -> Array:
        """``(len(penalties), q)`` sums over measured held-out values."""
        out = np.zeros((len(penalties), y.shape[1]))
        for train, test, values, vectors, across in self.parts:
            mean = y[train].sum(0) / np.maximum(seen[train].sum(0), 1)
            inside = vectors.T @ np.where(seen[train], y[train] - mean, 0)
            for i, penalty in enumerate(penalties):
                left = y[test] - mean - across @ (inside / (values[:, None] + penalty))
                out[i] += (np.where(seen[test], left, 0) ** 2).sum(0)
        return out
