"""Products and mixtures of experts: how the posteriors of several modalities become one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from omicvae.stats.location_scale import FAMILIES, Family

NORMAL = FAMILIES["normal"]


class DiagonalGaussian(NamedTuple):
    """A Gaussian with independent coordinates."""

    mean: Tensor
    """(..., d)"""
    variance: Tensor
    """(..., d)"""


def product_of_experts(location: Tensor, precision: Tensor, present: Tensor, *, prior: bool = True) -> DiagonalGaussian:
    r"""Normalised product of the Gaussian experts that are present.

    .. math:: q(z) \propto p(z)^{[prior]} \prod_{m \in S} N(z; \mu_m, \Lambda_m^{-1}), \qquad p(z) = N(0, I)

    With the prior as an expert (Wu & Goodman 2018, sec. 2.2), the others are the evidence of one modality each, and may
    be flat. Without it they are posteriors, and their precisions must be positive. A set without any expert gives the
    prior either way. What absent experts hold, also if it is not a number, has no influence.

    Parameters
    ----------
    location, precision
        ``(..., M, d)`` means and precisions of the experts.
    present
        ``(..., M)`` bool, broadcastable: the experts to multiply. A leading axis multiplies several sets at once.
    prior
        Whether ``N(0, I)`` is one of the experts.

    Returns
    -------
    Mean and variance, each ``(..., d)``.

    References
    ----------
    Hinton, *Training products of experts*, Neural Computation 2002.
    """
    used = present.unsqueeze(-1)
    each = torch.where(used, precision, torch.zeros_like(precision))
    centre = torch.where(used, location, torch.zeros_like(location))  # before the product: gradients of inf * 0
    total = each.sum(-2)
    weighted = (each * centre).sum(-2)
    base = torch.ones_like(total) if prior else (~present.any(-1, keepdim=True)).to(total.dtype)
    total = total + base
    return DiagonalGaussian(weighted / total, 1 / total)


def mixture_log_density(
    value: Tensor, location: Tensor, sd: Tensor, weights: Tensor, family: Family = NORMAL
) -> Tensor:
    r""":math:`\log \sum_c w_c \prod_k f(z_k; \mu_{ck}, \sigma_{ck})`.

    Parameters
    ----------
    value
        ``(n, B, d)``.
    location, sd
        ``(C, B, d)`` means and standard deviations of the components.
    weights
        ``(B, C)``, adding up to 1 in each row.
    family
        Law of every coordinate.

    Returns
    -------
    ``(n, B)``.
    """
    each = family.log_density(value.unsqueeze(1), location, sd).sum(-1)  # (n, C, B)
    return torch.logsumexp(each + weights.mT.log(), 1)


def mixture_moments(location: Tensor, sd: Tensor, weights: Tensor) -> DiagonalGaussian:
    """Mean and variance, each ``(B, d)``, of a mixture with components ``(C, B, d)`` and weights ``(B, C)``."""
    mean = torch.einsum("bc,cbd->bd", weights, location)
    within = torch.einsum("bc,cbd->bd", weights, sd.square())
    between = torch.einsum("bc,cbd->bd", weights, (location - mean).square())
    return DiagonalGaussian(mean, within + between)


def stratified_components(weights: Tensor, n_draws: int) -> Tensor:
    """``(n_draws, B)`` indices of components in ascending order, each with its share ``weights`` ``(B, C)`` of draws.

    Shares are met up to one draw, and exactly on average (systematic sampling).
    """
    offset = torch.rand(1, weights.shape[0], device=weights.device)
    position = (torch.arange(n_draws, device=weights.device)[:, None] + offset) / n_draws
    ends = weights.cumsum(1)
    edges = (ends / ends[:, -1:])[:, :-1]  # exactly 1 after the last component that has a share
    inside = position.clamp_max(1 - torch.finfo(torch.float32).eps).mT  # rounding may reach 1
    return (inside.unsqueeze(-1) >= edges.unsqueeze(1)).sum(-1).mT


def subset_table(n_modalities: int) -> Tensor:
    """``(2**M - 1, M)`` bool, the non-empty subsets of ``M`` modalities."""
    codes = torch.arange(1, 2**n_modalities)
    return (codes[:, None] >> torch.arange(n_modalities) & 1).bool()


def random_subset(present: Tensor) -> Tensor:
    """``(B, M)`` bool: for every row of ``present``, some of its modalities but neither one nor all.

    The number of modalities is uniform from 2 to one less than the row has, then each choice is equally likely. Rows
    with fewer than three have none.
    """
    n = present.sum(1)
    size = 2 + (torch.rand(len(present), device=present.device) * (n - 2).clamp_min(0)).floor()
    score = torch.rand(present.shape, device=present.device).masked_fill(~present, torch.inf)
    rank = score.argsort(1).argsort(1)
    return present & (rank < torch.minimum(size, n - 1)[:, None]) & (n > 2)[:, None]
