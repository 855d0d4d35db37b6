r"""What an assay that was not measured would tell: Gaussian posteriors with and without it.

Latents ``z ~ N(mu_0, Sigma)``; assay ``m`` adds evidence of precision :math:`J_m` (for CoVAE the potential's precision
on the assay's own latents, for a linear factor model :math:`W_m' \Psi_m^{-1} W_m`). The posterior covariance given a set
of assays does not depend on what they measured, only on how precise they are, so that it is known in advance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Explained(NamedTuple):
    """Share of a Gaussian uncertainty that one more assay will explain."""

    root: Tensor
    """(B, d, d) lower Cholesky factor ``L`` of the covariance now."""
    share: Tensor
    """(B, d, d) symmetric ``S``, eigenvalues in [0, 1]: the covariance falls by ``L S L'``."""


def posterior_covariance(prior_covariance: Tensor, evidence: Sequence[Tensor], present: Tensor) -> Tensor:
    r"""``(B, D, D)`` float64 covariance of all latents given the assays that each sample has.

    .. math:: C_O = \Big(\Sigma^{-1} + \sum_{m \in O} J_m\Big)^{-1} = (I + \Sigma J_O)^{-1} \Sigma

    Parameters
    ----------
    prior_covariance
        ``(D, D)`` positive definite.
    evidence
        One a modality: precision ``(D, D)``, or ``(B, D, D)`` where it differs between samples, positive semi-definite.
        What it holds for absent assays is not read.
    present
        ``(B, M)`` bool.

    References
    ----------
    Bishop, *Pattern recognition and machine learning* (2006), eq. 2.117.
    """
    prior = prior_covariance.double()
    total = torch.zeros(present.shape[0], *prior.shape, dtype=torch.float64, device=prior.device)
    for precision, here in zip(evidence, present.unbind(1), strict=True):
        total = total + torch.where(here[:, None, None], precision.double(), 0.0)
    identity = torch.eye(len(prior), dtype=torch.float64, device=prior.device)
    found = torch.linalg.solve(identity + prior @ total, prior.expand_as(total))
    return 0.5 * (found + found.mT)


def explained(now: Tensor, then: Tensor) -> Explained:
    """Compare the covariances of some latents without and with a further assay.

    Parameters
    ----------
    now, then
        ``(B, d, d)`` with ``now - then`` positive semi-definite.
    """
    root = torch.linalg.cholesky(now)
    half = torch.linalg.solve_triangular(root, now - then, upper=False)
    share = torch.linalg.solve_triangular(root, half.mT, upper=False)
    return Explained(root, 0.5 * (share + share.mT))


def partner_draws(gain: Explained, first: Tensor, second: Tensor) -> Tensor:
    r"""Latents that agree with others in what a further assay will tell, and in nothing else.

    With ``u = L first`` a draw of the uncertainty now, returned is ``v`` of the same distribution with
    :math:`\operatorname{Cov}(u, v) = L S L'`: two samples that the assay, once measured, leaves the same posterior mean.
    Hence for any function, with :math:`x_c` the assay to come,

    .. math:: E_{x_c} \operatorname{Var}(f(z) \mid x_c) = \operatorname{Var} f(u) - \operatorname{Cov}(f(u), f(v)),

    by the law of total variance.

    Parameters
    ----------
    gain
        From :func:`explained`.
    first, second
        ``(K, d)`` independent standard normal draws.

    Returns
    -------
    ``(K, B, d)``
    """
    values, vectors = torch.linalg.eigh(gain.share)
    values = values.clamp(0, 1)
    share = (vectors * values.unsqueeze(-2)) @ vectors.mT
    rest = (vectors * (1 - values.square()).sqrt().unsqueeze(-2)) @ vectors.mT
    inner = torch.einsum("bij,kj->kbi", share, first) + torch.einsum("bij,kj->kbi", rest, second)
    return torch.einsum("bij,kbj->kbi", gain.root, inner)


def balanced_normal(n_draws: int, dim: int, seed: int) -> Tensor:
    """``(n_draws, dim)`` standard normal draws in pairs of opposite sign, whose second moments are exactly the identity.

    Means and covariances of *linear* functions of them have no sampling error.

    Parameters
    ----------
    n_draws
        Even, at least twice ``dim``.
    dim
        Number of dimensions.
    seed
        Of the draws.
    """
    if n_draws % 2 or n_draws < 2 * dim:
        raise ValueError(f"n_draws must be even and at least {2 * dim}, got {n_draws}")
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(n_draws // 2, dim, generator=generator, dtype=torch.float64)
    root = torch.linalg.cholesky(half.mT @ half / len(half))
    half = torch.linalg.solve_triangular(root, half.mT, upper=False).mT
    return torch.cat([half, -half])
