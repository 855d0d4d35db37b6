"""The posterior of models with shared and private latents: a mixture over experts, one of which may be all there is."""

from __future__ import annotations

from copy import copy

import torch
from torch import Tensor

from omicvae.module._records import Evidence, LatentPosterior
from omicvae.stats.experts import mixture_log_density, mixture_moments, stratified_components
from omicvae.stats.location_scale import FAMILIES, FamilyName


class MixturePosterior(LatentPosterior):
    """Mixture over components of shared posteriors, times private posteriors (or priors where an assay is not used).

    Parameters
    ----------
    shared
        ``(C, B, d)`` mean and standard deviation of the shared latent under each component: one a source, one a subset
        of sources, or a single one.
    used
        ``(B, C)`` bool, the components a sample has, equally likely. Without any, the shared latent has its prior.
    private
        ``(B, p)`` posterior of all private latents; mean 0 and variance 1 where the assay is not used.
    free
        ``(B, p)`` bool, private latents that are random; the others are exactly zero.
    family
        Law of every latent.
    """

    def __init__(
        self, shared: Evidence, used: Tensor, private: Evidence, free: Tensor, family: FamilyName = "normal"
    ) -> None:
        none = ~used.any(1)
        location = torch.where(none[None, :, None], torch.zeros_like(shared.location), shared.location)
        scale = torch.where(none[None, :, None], torch.ones_like(shared.scale), shared.scale)
        self.shared = Evidence(location, scale)
        weights = torch.where(none[:, None], torch.ones_like(used, dtype=location.dtype), used.to(location.dtype))
        self.weights = weights / weights.sum(1, keepdim=True)
        self.private, self.free = private, free
        self.family = FAMILIES[family]

    @property
    def mean(self) -> Tensor:
        """Mean of the components' means."""
        shared = torch.einsum("bc,cbd->bd", self.weights, self.shared.location)
        return torch.cat([shared, self.private.location], -1)

    def sample(self, n_samples: int) -> Tensor:
        """Draws stratified over components, so that each takes its share of them."""
        component = stratified_components(self.weights, n_samples)
        at = (component, torch.arange(component.shape[1], device=component.device).expand(n_samples, -1))
        location, scale = self.shared.location[at], self.shared.scale[at]
        shared = location + scale * self.family.noise(location)
        like = self.private.location.expand(n_samples, -1, -1)
        return torch.cat([shared, like + self.private.scale * self.family.noise(like) * self.free], -1)

    def with_private_of(self, other: MixturePosterior) -> MixturePosterior:
        """The same shared latents with another posterior's private ones."""
        found = copy(self)
        found.private, found.free = other.private, other.free
        return found

    def shared_log_prob(self, value: Tensor) -> Tensor:
        """``(n, B)`` log density of the mixture at shared latents ``(n, B, d)``."""
        return mixture_log_density(value, self.shared.location, self.shared.scale, self.weights, self.family)

    def log_prob(self, value: Tensor) -> Tensor:
        """Latents that are exactly zero count with the prior's density, which cancels in importance weights."""
        d = self.shared.location.shape[-1]
        own = self.family.log_density(value[..., d:], self.private.location, self.private.scale)
        return self.shared_log_prob(value[..., :d]) + own.sum(-1)

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Exact for a ``matrix`` that selects coordinates, and for any if there is one component."""
        shared = mixture_moments(self.shared.location, self.shared.scale, self.weights)
        mean = torch.cat([shared.mean, self.private.location], -1)
        variance = torch.cat([shared.variance, self.private.scale.square() * self.free], -1)
        return mean @ matrix, variance @ matrix.square()
