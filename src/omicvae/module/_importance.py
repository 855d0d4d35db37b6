"""Importance-weighted objectives with doubly reparametrised gradients."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from omicvae.module._records import Pass


@dataclass(frozen=True)
class WeightedPass(Pass):
    """A pass whose ``K`` latent samples are importance-weighted."""

    draws: Tensor | None = None
    """(K, B, D) latents that everything else in the pass was computed from."""
    shared: Tensor | None = None
    """(K, B, d) shared latents beside ``draws``, whose gradients are not importance-weighted: for labels."""


def importance_weighted_bound(one: WeightedPass, log_likelihoods: dict[str, Tensor], kl_weight: float) -> Tensor:
    r"""``(B,)`` bound of a source, with gradients by DReG.

    .. math::
        \hat L = \log \frac1K \sum_k w_k, \qquad
        \log w_k = \sum_t \log p(x_t | z_k) - \beta \, (\log q(z_k) - \log p(z_k)), \qquad
        \bar w_k = \frac{w_k}{\sum_j w_j}

        \nabla_\theta \hat L = \sum_k \bar w_k \nabla_\theta \log w_k, \qquad
        \nabla_\phi \hat L = \sum_k \bar w_k^2 \frac{\partial \log w_k}{\partial z_k} \nabla_\phi z_k

    The second needs :math:`\log q` to be computed with the encoder's outputs detached. With ``K = 1`` both are the
    ordinary gradients of what is passed.

    Parameters
    ----------
    one
        Pass with log ratios :math:`\log q(z_k) - \log p(z_k)` as its divergence.
    log_likelihoods
        modality -> ``(K, B)``.
    kl_weight
        :math:`\beta`.

    References
    ----------
    Tucker et al., *Doubly reparameterized gradient estimators for Monte Carlo objectives*, ICLR 2019, eq. (8).
    """
    terms = [one.weights[m] * value for m, value in log_likelihoods.items()]
    log_w = torch.stack(terms).sum(0) - kl_weight * torch.stack(list(one.kl.values())).sum(0)
    K = log_w.shape[0]
    if K == 1:
        return log_w[0]
    share = torch.softmax(log_w.detach(), 0)
    if one.draws is not None and one.draws.requires_grad:
        one.draws.register_hook(lambda gradient: share.unsqueeze(-1) * gradient)
    surrogate = (share * log_w).sum(0)
    value = torch.logsumexp(log_w.detach(), 0) - math.log(K)
    return value + surrogate - surrogate.detach()
