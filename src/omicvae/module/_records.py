"""What a model's module says about a minibatch: its passes, and its posterior for any set of sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor


class Evidence(NamedTuple):
    """What an encoder says about a modality's packed rows."""

    location: Tensor
    """(n_m, d)"""
    scale: Tensor
    """(n_m, d): precision of a potential, or standard deviation of a posterior (each model says which)."""


@dataclass(frozen=True)
class Pass:
    """A set of source modalities turned into a latent sample for decoders.

    Gradients of ``latents`` are already stopped where the paper stops them. ``K`` is the number of latent samples,
    ``B`` the number of samples in the batch.
    """

    name: str
    """``"joint"``, ``"rna"``, ``"rna->mirna"``, ..."""
    sources: Tensor
    """(B, M) bool: what this pass has seen, row by row."""
    latents: dict[str, Tensor]
    """modality -> (K, B, d_m) decoder input."""
    weights: dict[str, Tensor]
    """modality -> (B,) weight of its log-likelihood in the objective."""
    route: dict[str, str]
    """modality -> ``"own"`` or ``"cross"``: which noise scale decodes it."""
    kl: dict[str, Tensor] = field(default_factory=dict)
    """name -> (K, B) divergence, unweighted."""
    kl_weights: dict[str, float] = field(default_factory=dict)
    """name -> weight in the objective."""
    elbo_weight: Tensor | None = None
    """(B,) weight of this pass, with unit weights inside, in the reported ELBO; ``None`` if it is not part of it."""


class LatentPosterior(ABC):
    """Distribution of all latents of ``B`` samples given some of their assays."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """(B, D) point estimate."""

    @abstractmethod
    def sample(self, n_samples: int) -> Tensor:
        """(n_samples, B, D) draws."""

    @abstractmethod
    def log_prob(self, value: Tensor) -> Tensor:
        """(n_samples, B) log density at ``value`` (n_samples, B, D)."""

    @abstractmethod
    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance, both (B, r), of ``z @ matrix`` for a ``matrix`` (D, r)."""


class Readout(NamedTuple):
    """A reported latent as a linear function of the module's latents: ``(z - offset) @ matrix``."""

    matrix: Tensor
    """(D, r)"""
    offset: Tensor
    """(D,)"""


class LikelihoodTerms(NamedTuple):
    r"""Log-likelihood of ``B`` samples and what it is made of (appendix C of :cite:t:`caretti2026covae`).

    Expectations are over the posterior that is the proposal, so that

    .. math:: \log p = \text{reconstruction} + \text{prior} - \text{posterior} + \text{gap},

    with a gap that is 0 where the posterior is exact.
    """

    log_likelihood: Tensor
    """(B,) float64."""
    reconstruction: Tensor
    """(B,) expected log-likelihood of what is scored, at the latents."""
    prior: Tensor
    """(B,) expected log density of the latents before it was seen."""
    posterior: Tensor
    """(B,) expected log density of the latents after it was seen: their negative entropy."""
    effective_draws: Tensor
    """(B,) draws that the estimate rests on, ``(sum w)**2 / sum w**2`` of the importance weights; infinite where exact."""


class Step(NamedTuple):
    """What one minibatch contributes to training."""

    loss: Tensor
    """() mean negative objective."""
    sums: Tensor
    """(len(metric_names),) metrics summed over samples, on the device."""
    counts: Tensor
    """(len(metric_names),) samples each sum is over."""


def alone(present: Tensor, column: int) -> Tensor:
    """``(B, M)`` bool: what is left of ``present`` when only the modality of one column may be seen."""
    seen = torch.zeros_like(present)
    seen[:, column] = present[:, column]
    return seen


def scatter_rows(packed: Tensor, rows: Tensor, n_samples: int) -> Tensor:
    """``(n_samples, ...)`` with packed rows put in their place and zeros elsewhere."""
    return torch.zeros(n_samples, *packed.shape[1:], dtype=packed.dtype, device=packed.device).index_copy(
        0, rows, packed
    )
