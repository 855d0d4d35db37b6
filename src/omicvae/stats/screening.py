"""Which features of an assay do the other assays know anything about?

They are looked for twice: among all features of the other assays, and, where these have features that the first look let
through beyond doubt, among these alone. Private variation of the source is noise to the first look, which with a hundred
samples or where the dependence is weak misses features that the second one finds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances

from omicvae.stats.components import Array, Block, Float32, covariate_effects, residual

PENALTIES = np.logspace(-3, 1.5, 10)
N_FOLDS = 5
LEAST_ROWS = 30
"""Samples two assays must have in common to say anything about one another here."""
MOST_ROWS = 2000
LEAST_SCORE = 0.02
LEAST_VARIANCE = 1e-6
NULL_QUANTILE, SECOND_NULL_QUANTILE = 0.995, 0.999
NULL_FEATURES = 1000
"""Scores of permuted targets that the threshold is read from."""
LEAST_PASSED, LEAST_EVIDENCE = 3, 3.0
"""Of an assay that the second look reads. Where nothing is shared, evidence is below 2 or so."""
WIDTHS = (0.25, 0.5, 1.0)
"""Of Gaussian kernels, as inverses of the median squared distance."""


class Screen(NamedTuple):
    """How well the other assays predict each feature of an assay."""

    score: Array
    """(p,) held-out R2, of the source assay that predicts the feature best; NaN where none could be asked."""
    threshold: float
    """Score that a feature has to exceed."""
    evidence: float = 0.0
    """Sum of positive scores, over the largest sum among permuted targets; of the source for which it is largest."""

    @property
    def passed(self) -> NDArray[np.bool_]:
        """``(p,)`` features that another assay predicts."""
        return np.nan_to_num(self.score, nan=-np.inf) > self.threshold

    @property
    def gate(self) -> Float32:
        """``(p,)`` square root of the score where a feature passed, else 0."""
        return np.where(self.passed, np.sqrt(np.clip(np.nan_to_num(self.score), 0, 1)), 0).astype(np.float32)


def screens(blocks: list[Block], *, seed: int = 0) -> list[Screen]:
    """Held-out predictability of every feature of every assay, at the second look where there is one.

    The second look predicts by kernel ridge regression from the features of a source that the first look let through,
    weighted by how well they are predicted, if there are :data:`LEAST_PASSED` and the source's evidence is
    :data:`LEAST_EVIDENCE`. A feature whose second score exceeds what permuted targets reach, and the first threshold,
    has the larger of both scores.

    Parameters
    ----------
    blocks
        Training samples of every assay.
    seed
        Of folds, permutations and the choice of at most :data:`MOST_ROWS` samples.
    """
    first = [screen(blocks, target, seed=seed) for target in range(len(blocks))]
    return [_looked_at_again(blocks, first, target, seed) for target in range(len(blocks))]


def screen(blocks: list[Block], target: int, *, seed: int = 0) -> Screen:
    """Held-out predictability of every feature of one assay from each of the others, at the first look.

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
    best, threshold, evidence = np.full(y.values.shape[1], np.nan), LEAST_SCORE, 0.0
    for source, x in enumerate(blocks):
        common = _common(x, y, rng) if source != target else None
        if common is None:
            continue
        found = _scores(_linear_and_squares(_around(x, common)[0]), *_around(y, common), rng)
        best = np.fmax(best, found.score)
        threshold = max(threshold, float(np.quantile(found.null, NULL_QUANTILE)))
        evidence = max(evidence, found.evidence)
    return Screen(best, threshold, evidence)


def _looked_at_again(blocks: list[Block], first: list[Screen], target: int, seed: int) -> Screen:
    rng, own, y = np.random.default_rng([seed, 2]), first[target], blocks[target]
    score = own.score
    for x, screened in zip(blocks, first, strict=True):
        clear = screened.passed.sum() >= LEAST_PASSED and screened.evidence >= LEAST_EVIDENCE
        common = _common(x, y, rng) if x is not y and clear else None
        if common is None:
            continue
        read = (_around(x, common)[0] * screened.gate)[:, screened.passed]
        found = _scores(_gaussians(read), *_around(y, common), rng)
        least = max(own.threshold, float(np.quantile(found.null, SECOND_NULL_QUANTILE)))
        score = np.fmax(score, np.where(found.score > least, found.score, np.nan))
    return own._replace(score=score)


def _common(x: Block, y: Block, rng: np.random.Generator) -> NDArray[np.intp] | None:
    """Samples that two assays have in common, or some of them; ``None`` if they are too few."""
    common = np.intersect1d(x.rows, y.rows)
    if len(common) < LEAST_ROWS:
        return None
    return np.sort(rng.choice(common, MOST_ROWS, replace=False)) if len(common) > MOST_ROWS else common


def _around(block: Block, samples: NDArray[np.intp]) -> tuple[Float32, NDArray[np.bool_]]:
    """``(n, p)`` values of some samples around what covariates explain, 0 where not measured, and where they were."""
    at = np.searchsorted(block.rows, samples)
    seen = np.ones((len(at), block.values.shape[1]), bool) if block.observed is None else block.observed[at]
    effects = covariate_effects(block, np.arange(len(block.rows)))
    return residual(block.values[at], seen, block.design[at], effects), seen


def _linear_and_squares(x: Float32) -> list[Array]:
    squares = x**2 - (x**2).mean(0)
    squares /= np.maximum(squares.std(0), 1e-6)
    linear = x @ x.T / x.shape[1]
    return [linear, 0.5 * (linear + squares @ squares.T / x.shape[1])]


def _gaussians(x: Float32) -> list[Array]:
    distances = euclidean_distances(x.astype(np.float64), squared=True)
    return [np.exp(-width * distances / max(float(np.median(distances)), 1e-12)) for width in WIDTHS]


class _Scores(NamedTuple):
    """Held-out R2 ``(q,)`` of targets, and ``(rounds, q)`` of permuted targets, which no predictor can have above 0."""

    score: Array
    null: Array

    @property
    def evidence(self) -> float:
        """Sum of positive scores over that of permuted targets."""
        chance = max(float(np.maximum(self.null, 0).sum(1).max()), LEAST_SCORE)
        return float(np.maximum(self.score, 0).sum()) / chance


def _scores(grams: list[Array], y: Float32, seen: NDArray[np.bool_], rng: np.random.Generator) -> _Scores:
    """Of the kernel and the penalty with the largest sum of positive scores.

    Around the mean of these samples, of which a feature's own mean is another: where a rare feature is 0 in all of them,
    every prediction would be perfect, and so would be those of permuted targets, which set the threshold.
    """
    n, q = y.shape
    folds = rng.permutation(n) % N_FOLDS
    mean = np.where(seen, y, 0).sum(0, dtype=np.float64) / np.maximum(seen.sum(0), 1)
    y = np.where(seen, y - mean, 0).astype(np.float32)
    total = (y**2).sum(0, dtype=np.float64)
    total = np.where(total > LEAST_VARIANCE * n, total, np.nan)  # a constant feature is not predicted by anything
    candidates = []
    for gram in grams:
        solve = _Paths(gram, folds)
        scores = np.nan_to_num(1 - solve.errors(y, seen, PENALTIES) / total)
        candidates.append((np.maximum(scores, 0).sum(1).max(), solve, scores))
    _, solve, scores = max(candidates, key=lambda c: c[0])
    chosen = int(np.maximum(scores, 0).sum(1).argmax())
    null = []
    for _round in range(-(-NULL_FEATURES // q)):
        order = rng.permutation(n)
        null.append(np.nan_to_num(1 - solve.errors(y[order], seen[order], PENALTIES[chosen : chosen + 1])[0] / total))
    return _Scores(scores[chosen], np.stack(null))


class _Paths:
    """Held-out squared errors of kernel ridge regressions that share one factorisation a fold, in single precision."""

    def __init__(self, gram: Array, folds: NDArray[np.intp]) -> None:
        self.parts = []
        gram = gram.astype(np.float32)
        for k in range(N_FOLDS):
            train, test = np.flatnonzero(folds != k), np.flatnonzero(folds == k)
            # of 600 samples twice as fast as numpy's
            values, vectors = (t.numpy() for t in torch.linalg.eigh(torch.from_numpy(gram[np.ix_(train, train)])))
            self.parts.append((train, test, np.maximum(values, 0), vectors, gram[np.ix_(test, train)] @ vectors))

    def errors(self, y: Float32, seen: NDArray[np.bool_], penalties: Array) -> Array:
        """``(len(penalties), q)`` sums over measured held-out values."""
        out = np.zeros((len(penalties), y.shape[1]))
        for train, test, values, vectors, across in self.parts:
            mean = y[train].sum(0) / np.maximum(seen[train].sum(0, dtype=np.float32), 1)
            inside = vectors.T @ np.where(seen[train], y[train] - mean, 0)
            for i, penalty in enumerate(penalties.tolist()):
                left = y[test] - mean - across @ (inside / (values[:, None] + penalty))
                out[i] += (np.where(seen[test], left, 0) ** 2).sum(0)
        return out
