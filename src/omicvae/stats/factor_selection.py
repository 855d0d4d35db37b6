"""How many factors, and when to stop: by predicting modalities of held-out samples from their other modalities.

The bound of :mod:`omicvae.stats.variational_factors` grows long after predictions of missing modalities have begun to
get worse: relevance determination switches weak shared factors off one by one, because they explain little of any
modality. Early stopping on what the model is for keeps them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from omicvae.stats.components import Block
from omicvae.stats.factor_predictor import Sizes, model_rows
from omicvae.stats.probabilistic_cca import Weights, evidence, posterior
from omicvae.stats.variational_factors import Rows, iterations

CANDIDATES = (16, 32, 64, 128)
EVERY = 5  # iterations between scores
PATIENCE = 3  # scores without improvement
MOST_ITERATIONS = 100
USUAL_FACTORS, USUAL_ITERATIONS = 64, 25  # where nothing can be held out
INDIFFERENT = 2e-3  # share of the least error by which more factors or iterations must improve on it
LEAST_HELD_OUT = 10
MOST_NUMBERS = 2**25  # in the covariances of the weights of features with gaps


class Scored(NamedTuple):
    """A model size and its error on held-out samples."""

    n_factors: int
    n_iter: int
    error: float
    """Root mean squared error in training standard deviations, mean over features and modalities."""


def select_sizes(
    blocks: Sequence[Block],
    train: NDArray[np.bool_],
    held_out: NDArray[np.bool_],
    *,
    n_factors: int | None = None,
    n_private: Sequence[int],
    max_iter: int | None = None,
) -> tuple[Sizes, list[Scored]]:
    """Choose the number of factors and of iterations.

    Parameters
    ----------
    blocks
        One a modality.
    train, held_out
        ``(n,)`` samples to fit, and to predict.
    n_factors
        A number that is not to be chosen.
    n_private
        Factors of each modality alone.
    max_iter
        Most iterations.

    Returns
    -------
    What was chosen, and the error of every number of factors that was tried at its best iteration. Of iterations, and
    then of numbers of factors, whose errors differ by less than :data:`INDIFFERENT`, the smallest is taken.
    """
    n = int(train.sum())
    candidates = (n_factors,) if n_factors is not None else _candidates(blocks, n)
    most = max_iter or MOST_ITERATIONS
    rows, effects = model_rows(blocks, train)
    held, _ = model_rows(blocks, held_out, effects)
    n_held = int(held_out.sum())
    scored: list[Scored] = []
    if cross_modal_rows(held, n_held) >= LEAST_HELD_OUT:
        for k in candidates:
            scored.append(_best(rows, n, held, n_held, k, n_private, most))
            if scored[-1].error > (1 + INDIFFERENT) * min(s.error for s in scored):
                break  # more factors do not help any more
    if not scored:
        usual = n_factors or max((k for k in candidates if k <= USUAL_FACTORS), default=candidates[0])
        return Sizes(usual, tuple(n_private), min(most, USUAL_ITERATIONS)), []
    chosen = _least(scored)
    return Sizes(chosen.n_factors, tuple(n_private), chosen.n_iter), scored


def _candidates(blocks: Sequence[Block], n: int) -> tuple[int, ...]:
    """At most half as many factors as samples, or as features; fewer where many features have gaps.

    Each of these needs a covariance of its own.
    """
    limit = max(1, min(n, sum(b.values.shape[1] for b in blocks)) // 2)
    gappy = sum(int((~b.observed.all(0)).sum()) for b in blocks if b.observed is not None)
    if gappy:
        limit = min(limit, max(CANDIDATES[0], int((MOST_NUMBERS / gappy) ** 0.5)))
    return tuple(k for k in CANDIDATES if k <= limit) or (limit,)


def _best(
    rows: list[Rows], n: int, held: list[Rows], n_held: int, k: int, n_private: Sequence[int], most: int
) -> Scored:
    """The first iteration about as good as any of a number of factors."""
    path: list[Scored] = []
    for i, step in enumerate(iterations(rows, n, k, n_private), 1):
        if i % EVERY == 0 or i == most:
            path.append(Scored(k, i, cross_modal_error(step.weights, held, n_held)))
        if i >= most or len(path) - int(np.argmin([s.error for s in path] or [0])) > PATIENCE:
            break
    return _least(path)


def _least(scored: Sequence[Scored]) -> Scored:
    """The first that is about as good as the best."""
    bound = (1 + INDIFFERENT) * min(s.error for s in scored)
    return next(s for s in scored if s.error <= bound)


def cross_modal_rows(held: Sequence[Rows], n: int) -> int:
    """Number of samples that have two modalities."""
    count = torch.zeros(n)
    for block in held:
        count.index_add_(0, block.rows, torch.ones(len(block.rows)))
    return int((count > 1).sum())


def cross_modal_error(weights: Sequence[Weights], held: Sequence[Rows], n: int) -> float:
    """Root mean squared error of predicting each modality of held-out samples from their others.

    Mean over features, then over modalities; NaN if no sample has two.
    """
    K = weights[0].mean.shape[1]
    found = [evidence(w, b.x, b.gaps, with_constant=False) for w, b in zip(weights, held, strict=True)]
    errors = []
    for target, block in enumerate(held):
        others = [m for m in range(len(held)) if m != target]
        have = torch.zeros(n, dtype=torch.bool)
        for m in others:
            have[held[m].rows] = True
        here = have[block.rows]
        if not bool(here.any()):
            continue
        q = posterior([found[m] for m in others], [held[m].rows for m in others], n, K)
        mean = weights[target].intercept + q.mean[block.rows[here]] @ weights[target].mean.mT
        squared = (block.x[here] - mean).square()
        seen = torch.ones_like(squared)
        if block.gaps is not None:
            seen[:, block.gaps.columns] = block.gaps.observed[here]
        count = seen.sum(0)
        errors.append(float((((squared * seen).sum(0) / count.clamp_min(1)).sqrt())[count > 0].mean()))
    return float(np.mean(errors)) if errors else float("nan")
