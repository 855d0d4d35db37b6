r"""Which directions of a factor model's latent space modalities share, and which one of them has alone.

Factors are determined up to a rotation, so sharing is a property of directions, not of factors. How much modalities
:math:`M` tell about a direction :math:`v` of :math:`z \sim N(0, I)` is the share of its variance that measuring them
explains,

.. math::

    r_M(v) = v' \Lambda_M (I + \Lambda_M)^{-1} v, \qquad
    \Lambda_M = \sum_{m \in M} \sum_{j \in m} \frac{m_j m_j' - C_j}{\psi_j}.

:math:`C_j`, the uncertainty of the weights, is subtracted because estimated weights are too long: noise in thousands of
them would otherwise count as information.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from omicvae.stats.probabilistic_cca import Weights

PRIVATE = 0.5
"""A direction is private to a modality that explains this much more of it than all others together."""
SHARED = 0.25
"""A direction is shared if, whichever modality is left out, the others explain this much of it."""
INDEPENDENT = 0.5  # length that must be left of a private direction beside those found before


class Directions(NamedTuple):
    """Orthonormal directions of the latent space; what belongs to none is not determined by the data."""

    vectors: Tensor
    """(K, R) shared ones first, best determined first; then those of each modality."""
    owner: Tensor
    """(R,) int64: modality a direction is private to, -1 if shared."""


def shared_private(weights: Sequence[Weights]) -> Directions:
    """Split the latent space of a fitted model.

    At least one direction is shared: the one that is told best when any one modality is left out.
    """
    information = [_information(w) for w in weights]
    total = torch.stack(information).sum(0)
    own = [_explained(a) for a in information]
    rest = [_explained(total - a) for a in information]
    private, owner = _private(own, rest)
    complement = _complement(private)
    values, vectors = torch.linalg.eigh(complement.mT @ (sum(rest, torch.zeros_like(total))) @ complement)
    candidates = complement @ vectors.flip(1)
    told = torch.stack([((r @ candidates) * candidates).sum(0) for r in rest]).min(0).values
    kept = told > SHARED
    kept[told.argmax()] = True
    shared = candidates[:, kept]
    order = owner.argsort(stable=True)
    owner = torch.cat([owner.new_full((shared.shape[1],), -1), owner[order]])
    return Directions(torch.cat([shared, private[:, order]], 1), owner)


def _information(weights: Weights) -> Tensor:
    per_noise = 1 / weights.noise
    uncertain = (weights.basis * (per_noise @ weights.spread)) @ weights.basis.mT
    return weights.mean.mT @ (per_noise[:, None] * weights.mean) - uncertain


def _explained(information: Tensor) -> Tensor:
    """``(K, K)`` matrix of ``r``, negative information counting as none."""
    values, vectors = torch.linalg.eigh(information)
    values = values.clamp_min(0)
    return (vectors * (values / (1 + values))) @ vectors.mT


def _private(own: Sequence[Tensor], rest: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Orthonormal directions ``(K, r)`` that a single modality tells, and which; one direction is left over."""
    found: list[tuple[float, int, Tensor]] = []
    for m, (a, b) in enumerate(zip(own, rest, strict=True)):
        values, vectors = torch.linalg.eigh(a - b)
        found += [(float(v), m, vectors[:, k]) for k, v in enumerate(values) if v > PRIVATE]
    K = len(own[0])
    basis, owner = own[0].new_zeros(K, 0), []
    for _, m, vector in sorted(found, key=lambda f: -f[0])[: K - 1]:
        left = vector - basis @ (basis.mT @ vector)
        if float(left.norm()) > INDEPENDENT:
            basis = torch.cat([basis, (left / left.norm())[:, None]], 1)
            owner.append(m)
    return basis, torch.tensor(owner, dtype=torch.int64, device=basis.device)


def _complement(basis: Tensor) -> Tensor:
    """Orthonormal basis of what is orthogonal to ``basis`` ``(K, r)``."""
    K, r = basis.shape
    if r == 0:
        return torch.eye(K, dtype=basis.dtype, device=basis.device)
    return torch.linalg.qr(basis, mode="complete").Q[:, r:]
