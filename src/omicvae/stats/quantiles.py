"""Quantiles of Monte Carlo draws that keep their promise for a new draw."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ROUNDING = 1e-9  # relative; (1 - 0.9) / 2 is a little less than 0.05 in floating point


def predictive_quantiles(draws: Tensor, probabilities: Sequence[float]) -> Tensor:
    r"""Sample quantiles at position :math:`(K + 1) p` of the ordered draws, interpolated linearly between them.

    A new draw exchangeable with the ``K`` others is equally likely to fall into each of the ``K + 1`` gaps between
    their order statistics, so the interval from the ``alpha / 2`` to the ``1 - alpha / 2`` quantile holds it with
    probability exactly ``1 - alpha`` whenever ``(K + 1) alpha / 2`` is a whole number, whatever the (continuous)
    distribution. The usual position ``(K - 1) p + 1`` gives intervals that are too narrow.

    Parameters
    ----------
    draws
        ``(K, ...)`` draws.
    probabilities
        Probabilities in (0, 1).

    Returns
    -------
    ``(len(probabilities), ...)`` quantiles, floating point.

    Raises
    ------
    ValueError
        If a probability is not in (0, 1), or ``K`` is too small to resolve it: ``(K + 1) min(p, 1 - p) < 1``.

    References
    ----------
    Weibull (1939); definition 6 of Hyndman and Fan, *Sample quantiles in statistical packages*, The American
    Statistician 50 (1996).
    """
    if not draws.is_floating_point():
        draws = draws.to(torch.get_default_dtype())
    ordered = _sorted(draws)
    return torch.stack([_quantile(ordered, p) for p in probabilities])


def central_interval(draws: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Central interval of draws at a level of its own for every feature.

    Quantiles are those of :func:`predictive_quantiles`; a level that the draws cannot resolve gives their range.

    Parameters
    ----------
    draws
        ``(K, n, p)`` draws.
    level
        ``(p,)`` levels; clamped to [0, 1].

    Returns
    -------
    Lower and upper limit, each ``(n, p)``.
    """
    ordered = _sorted(draws if draws.is_floating_point() else draws.to(torch.get_default_dtype()))
    K = ordered.shape[0]

    def quantile(probability: Tensor) -> Tensor:
        position = ((K + 1) * probability).clamp(1, K)
        below = (position + _ROUNDING * K).floor().clamp(1, K)
        share = (position - below).clamp_min(0).to(ordered.dtype)
        at = (below.long() - 1).expand(1, *ordered.shape[1:])
        low = ordered.gather(0, at)[0]
        return torch.lerp(low, ordered.gather(0, (at + 1).clamp_max(K - 1))[0], share)

    tail = 0.5 * (1 - level.clamp(0, 1))
    return quantile(tail), quantile(1 - tail)


def draws_needed(level: float) -> int:
    """Least number of draws from which a central interval of probability ``level`` can be read.

    Its coverage is exact where ``2 / (1 - level)`` is a whole number.

    Parameters
    ----------
    level
        Nominal coverage in (0, 1), such as 0.9 (19 draws) or 0.95 (39 draws).

    Raises
    ------
    ValueError
        If ``level`` is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    return _draws_resolving((1 - level) / 2)


def _draws_resolving(tail: float) -> int:
    return math.ceil(1 / tail * (1 - _ROUNDING)) - 1


def _sorted(draws: Tensor) -> Tensor:
    """Draws in increasing order along the first axis; numpy's vectorised sort is many times torch's on a CPU."""
    if draws.device.type != "cpu":
        return draws.sort(0).values
    last = np.ascontiguousarray(np.moveaxis(draws.detach().numpy(), 0, -1))
    last.sort(axis=-1)
    return torch.from_numpy(last).movedim(-1, 0)


def _quantile(ordered: Tensor, probability: float) -> Tensor:
    """One quantile of draws that are in order along the first axis."""
    K = ordered.shape[0]
    if not 0 < probability < 1:
        raise ValueError(f"probabilities must lie between 0 and 1, got {probability}")
    tail = min(probability, 1 - probability)
    if K < (needed := _draws_resolving(tail)):
        raise ValueError(f"{K} draws cannot resolve the quantile at {probability:g}: at least {needed} are needed")
    position = (K + 1) * probability
    if abs(position - round(position)) < _ROUNDING * (K + 1):
        position = round(position)
    rank = int(position)
    fraction = position - rank
    return ordered[rank - 1] if fraction == 0 else torch.lerp(ordered[rank - 1], ordered[rank], fraction)
