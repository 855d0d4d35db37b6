r"""Draws moved to where held-out values say that they belong.

Conformal calibration makes single intervals true; whoever works with draws (multiple imputation, sums over features)
needs draws whose intervals are those. Each draw has a conformity score, like a measured value, and among the draws of its
sample and feature the score has a rank, that is, a level. A draw is moved, on the side of the centre where it lies, to the
score that held-out values keep with that level. The order of draws does not change, so that features which were high
together stay high together (ensemble copula coupling: Schefzik, Thorarinsdottir and Gneiting, *Uncertainty quantification
in complex simulation models using ensemble copula coupling*, Statistical Science 28, 2013).
"""

from __future__ import annotations

import torch
from torch import Tensor

from omicvae.stats.conformal import Conformal

LEAST_DRAWS = 99
"""Draws of a value from which its ranks are told."""


def moved_by_residual(draws: Tensor, conformal: Conformal, mean: Tensor, sd: Tensor) -> Tensor:
    """Draws of continuous values, whose scores are absolute residuals in standard deviations.

    Parameters
    ----------
    draws
        ``(K, n, p)``
    conformal
        Held-out scores of the ``p`` features.
    mean, sd
        ``(n, p)`` of the predictive distribution.

    Returns
    -------
    ``(K, n, p)``
    """
    away = draws - mean
    score = conformal_scores(_levels(away.abs()), conformal)
    return mean + away.sign() * score * sd


def moved_by_rank(draws: Tensor, conformal: Conformal, *, discrete: bool) -> Tensor:
    """Draws whose scores are the levels of the smallest central intervals that hold them.

    Parameters
    ----------
    draws
        ``(K, n, p)``
    conformal
        Held-out scores of the ``p`` features.
    discrete
        Whether draws are whole numbers, which may be equal: ranks of equal ones are random.

    Returns
    -------
    ``(K, n, p)`` values that were among the draws.
    """
    K = draws.shape[0]
    order = (draws + torch.rand_like(draws) if discrete else draws).argsort(0)
    ordered = draws.gather(0, order)
    u = (_ranks(order) + 0.5) / K
    away = 2 * u - 1
    score = conformal_scores(away.abs(), conformal).clamp(0, 1)
    at = (0.5 * (1 + away.sign() * score) * K).long().clamp(0, K - 1)
    return ordered.gather(0, at)


def conformal_scores(level: Tensor, conformal: Conformal) -> Tensor:
    """``(K, n, p)`` scores that new values keep with probability ``level``, linear between the known ones."""
    table = torch.from_numpy(conformal.table).to(level)
    ranks = torch.from_numpy(conformal.ranks).to(level)
    last = table[-1:] / ranks[-1]  # stretched as in Conformal.quantile
    table = torch.cat([torch.zeros_like(last), table, last])
    ranks = torch.cat([ranks.new_zeros(1), ranks, ranks.new_ones(1)])
    above = torch.searchsorted(ranks, level.contiguous()).clamp(1, len(ranks) - 1)
    share = (level - ranks[above - 1]) / (ranks[above] - ranks[above - 1])
    columns, p = torch.arange(table.shape[1], device=level.device), table.shape[1]
    flat = table.reshape(-1)
    return torch.lerp(flat[(above - 1) * p + columns], flat[above * p + columns], share)


def _levels(score: Tensor) -> Tensor:
    """Share of draws with a smaller score, between those of the neighbours."""
    return (_ranks(score.argsort(0)) + 0.5) / score.shape[0]


def _ranks(order: Tensor) -> Tensor:
    """Rank of every draw from the positions that put them in order."""
    rank = torch.arange(order.shape[0], device=order.device).view(-1, 1, 1).expand_as(order)
    return torch.empty_like(order).scatter_(0, order, rank)
