"""MMVAE++: shared and private latents, with the shared ones trained by cross-modal prediction alone."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._base import MultimodalModule, PerModality, dense
from omicvae.module._records import Evidence, LatentPosterior, Pass, Readout
from omicvae.nn import Encoder, NetworkConfig
from omicvae.stats.gaussian import block_slices, diagonal_kl

LEAST_SD = 1e-3


class Shape(NamedTuple):
    """Widths of the latent spaces."""

    shared: int
    private: dict[str, int]


class MixturePosterior(LatentPosterior):
    """Mixture over sources of shared posteriors, times private posteriors (or priors where an assay is not used).

    Parameters
    ----------
    shared
        ``(M, B, d)`` posterior of the shared latent from each source.
    used
        ``(B, M)`` bool, the sources. Without any, the shared latent has its prior.
    private
        ``(B, p)`` posterior of all private latents; standard normal where the assay is not used.
    free
        ``(B, p)`` bool, private latents that are random; the others are exactly zero.
    """

    def __init__(self, shared: Evidence, used: Tensor, private: Evidence, free: Tensor) -> None:
        none = ~used.any(1)
        location = torch.where(none[None, :, None], torch.zeros_like(shared.location), shared.location)
        scale = torch.where(none[None, :, None], torch.ones_like(shared.scale), shared.scale)
        self.shared = Evidence(location, scale)
        weights = torch.where(none[:, None], torch.ones_like(used, dtype=location.dtype), used.to(location.dtype))
        self.weights = weights / weights.sum(1, keepdim=True)
        self.private, self.free = private, free

    @property
    def mean(self) -> Tensor:
        """Mean of the sources' means."""
        shared = torch.einsum("bm,mbd->bd", self.weights, self.shared.location)
        return torch.cat([shared, self.private.location], -1)

    def sample(self, n_samples: int) -> Tensor:
        """Draws stratified over sources, so that each takes its share of them."""
        B = self.weights.shape[0]
        steps = torch.arange(n_samples, device=self.weights.device)[:, None] + torch.rand(
            1, B, device=self.weights.device
        )
        edges = self.weights.cumsum(1)[:, :-1]
        source = (steps.mT.unsqueeze(-1) / n_samples > edges.unsqueeze(1)).sum(-1).mT  # (n_samples, B)
        at = (source, torch.arange(B, device=source.device).expand(n_samples, -1))
        location, scale = self.shared.location[at], self.shared.scale[at]
        shared = location + scale * torch.randn_like(location)
        noise = torch.randn(n_samples, *self.private.location.shape, device=location.device) * self.free
        return torch.cat([shared, self.private.location + self.private.scale * noise], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        d = self.shared.location.shape[-1]
        shared, private = value[..., :d], value[..., d:]
        each = _log_normal(shared.unsqueeze(1), self.shared.location, self.shared.scale).sum(-1)  # (n, M, B)
        mixture = torch.logsumexp(each + self.weights.mT.clamp_min(1e-30).log(), 1)
        own = _log_normal(private, self.private.location, self.private.scale) * self.free
        return mixture + own.sum(-1)

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Exact for a ``matrix`` that selects coordinates."""
        mean = self.mean
        d = self.shared.location.shape[-1]
        second = torch.einsum("bm,mbd->bd", self.weights, self.shared.scale.square() + self.shared.location.square())
        variance = torch.cat([second - mean[:, :d].square(), self.private.scale.square() * self.free], -1)
        return mean @ matrix, variance @ matrix.square()


def _log_normal(value: Tensor, location: Tensor, scale: Tensor) -> Tensor:
    return -0.5 * ((value - location) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)


class MMVAEPlusPlusModule(MultimodalModule):
    r"""MMVAE++ :cite:p:`martens2024disentangling` for any number of modalities.

    Latents :math:`z = [z_{sh}, z_{pr_1}, \dots, z_{pr_M}]` with standard normal priors; shared and private encoders
    share no parameters. For every source :math:`m` and every target :math:`t` that a sample has (sec. 3.2),

    .. math::
        E \log p(x_t \mid z) = \begin{cases}
        E_{z_{sh} \sim \mathrm{sg}[q(z_{sh}|x_m)],\; z_{pr} \sim q(z_{pr_m}|x_m)} \log p(x_m | z_{sh}, z_{pr}) & t = m \\
        E_{z_{sh} \sim q(z_{sh}|x_m),\; z_{pr} \sim p(z_{pr_t})} \log p(x_t | z_{sh}, z_{pr}) & t \neq m
        \end{cases}

    where sg stops the gradient, and the objective is the sum over sources and targets minus
    :math:`\beta(t) \sum_m \mathrm{KL}(q(z_{sh}, z_{pr_m} | x_m) \,\|\, N(0, I))`. The shared posterior of a sample with
    several assays is the mixture over them. Own and cross passes have separate noise scales. With ``private="zero"``
    the private latent of a target that is not the source is 0, as in the authors' code. With labels (sec. 3.3),
    :math:`\beta_y E_{z_{sh} \sim q(z_{sh}|x_m)} \log p(y|z_{sh})` with a linear classifier is added for every source.

    The reported ELBO is the mean over a sample's sources of their terms at :math:`\beta = 1`.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    private
        Private latent of a target that is not the source: a draw from its prior, or zero.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        private: Literal["prior", "zero"] = "prior",
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, {m: shape.shared + shape.private[m] for m in schema.names})
        self.shape, self.private, self.label_weight = shape, private, label_weight

        def encoder(m: str, width: int) -> Encoder:
            return Encoder(schema[m].n_vars, self.encoder_design_width(m), width, network, scale_start=0.0)

        self.shared_encoders = PerModality(self.modalities, lambda m: encoder(m, shape.shared))
        self.private_encoders = PerModality(self.modalities, lambda m: encoder(m, shape.private[m]))
        widths = [shape.private[m] for m in self.modalities]
        self.private_blocks = dict(zip(self.modalities, block_slices(widths), strict=True))
        self.classifier: nn.Linear | None = None
        if label_weight is not None:
            if schema.labels is None:
                raise ValueError("label_weight needs labels: register them with setup_mudata(labels_key=...)")
            self.classifier = nn.Linear(shape.shared, len(schema.labels.categories))

    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Mean and standard deviation of ``[shared, private_m]`` from each modality's packed rows."""
        found = {}
        for m in self.modalities:
            inputs = self.encoder_inputs(batch, m)
            parts = [self.shared_encoders.of(m)(*inputs), self.private_encoders.of(m)(*inputs)]
            location, raw = (torch.cat(part, -1) for part in zip(*parts, strict=True))
            found[m] = Evidence(location, F.softplus(raw) + LEAST_SD)
        return found

    def _private_of_target(self, like: Tensor, width: int) -> Tensor:
        shape = (*like.shape[:-1], width)
        zero = self.private == "zero"
        return torch.zeros(shape, device=like.device) if zero else torch.randn(shape, device=like.device)

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """One pass a source, decoding every modality."""
        n_present = batch.present.sum(1).clamp_min(1)
        d = self.shape.shared
        found = []
        for i, m in enumerate(self.modalities):
            location, scale = dense(evidence[m], batch.rows[m], batch.n_samples)
            here = batch.present[:, i].to(location.dtype)
            scale = scale + (1 - here).unsqueeze(-1)  # any positive value: rows without the assay have weight 0
            z = (location + scale * torch.randn_like(location)).unsqueeze(0)
            shared, private = z[..., :d], z[..., d:]
            latents, weights = {}, {}
            for j, t in enumerate(self.modalities):
                if t == m:
                    latents[t] = torch.cat([shared.detach(), private], -1)
                else:
                    latents[t] = torch.cat([shared, self._private_of_target(shared, self.shape.private[t])], -1)
                weights[t] = here * batch.present[:, j]
            divergence = diagonal_kl(location, scale.square()) * here
            found.append(
                Pass(
                    name=m,
                    sources=F.one_hot(torch.tensor(i), len(self.modalities)).bool().to(here.device) & batch.present,
                    latents=latents,
                    weights=weights,
                    route={t: "own" if t == m else "cross" for t in self.modalities},
                    kl={m: divergence.unsqueeze(0)},
                    elbo_weight=here / n_present,
                )
            )
        return found

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        r""":math:`\beta_y` times the expected log-likelihood of the label, summed over sources."""
        if self.classifier is None or self.label_weight is None:
            return None
        known = (batch.labels >= 0).float()
        total = torch.zeros_like(known)
        for one in passes:
            other = next(t for t in self.modalities if t != one.name)  # a target whose shared part carries gradients
            logits = self.classifier(one.latents[other][0, :, : self.shape.shared])
            fit = -F.cross_entropy(logits, batch.labels.clamp_min(0), reduction="none")
            total = total + fit * known * one.weights[one.name]
        return self.label_weight * total

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        full = {m: dense(evidence[m], batch.rows[m], batch.n_samples) for m in self.modalities}
        d = self.shape.shared
        shared = Evidence(
            torch.stack([full[m].location[:, :d] for m in self.modalities]),
            torch.stack([full[m].scale[:, :d] for m in self.modalities]).clamp_min(LEAST_SD),
        )
        location, scale, free = [], [], []
        for i, m in enumerate(self.modalities):
            use = given[:, i : i + 1]
            location.append(full[m].location[:, d:] * use)
            scale.append(torch.where(use, full[m].scale[:, d:], torch.ones_like(full[m].scale[:, d:])))
            free.append((use | (self.private == "prior")).expand(-1, self.shape.private[m]))
        private = Evidence(torch.cat(location, -1), torch.cat(scale, -1))
        return MixturePosterior(shared, given, private, torch.cat(free, -1))

    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        d = self.shape.shared
        return {m: torch.cat([z[..., :d], z[..., d:][..., block]], -1) for m, block in self.private_blocks.items()}

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)

    def readout(self, kind: str, modality: str | None) -> Readout:
        """``joint``: shared and all private latents; ``shared``; ``private`` of a modality."""
        d, total = self.shape.shared, self.shape.shared + sum(self.shape.private.values())
        eye = torch.eye(total, device=next(self.parameters()).device)
        if kind == "shared":
            eye = eye[:, :d]
        elif kind == "private":
            eye = eye[:, d:][:, self.private_blocks[str(modality)]]
        return Readout(eye, torch.zeros(total, device=eye.device))
