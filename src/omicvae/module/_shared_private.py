"""Latents that all assays share beside latents that each has alone: encoders, layout, labels."""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._base import MultimodalModule, dense
from omicvae.module._mixture import MixturePosterior
from omicvae.module._per_modality import PerModality
from omicvae.module._records import Evidence, LatentPosterior, Pass, Readout
from omicvae.nn import Encoder, NetworkConfig
from omicvae.stats.gaussian import block_slices
from omicvae.stats.location_scale import FAMILIES, FamilyName

LEAST_SD = 1e-3
PrivateOfTarget = Literal["prior", "zero"]


class Shape(NamedTuple):
    """Widths of the latent spaces."""

    shared: int
    private: dict[str, int]
    """modality -> width; all 0 where every latent is shared."""


class SharedPrivateModule(MultimodalModule):
    r"""Latents :math:`z = [z_{sh}, z_{pr_1}, \dots, z_{pr_M}]`, independent a priori with mean 0 and variance 1.

    The decoder of modality :math:`m` sees :math:`[z_{sh}, z_{pr_m}]`. Shared and private encoders share no parameters.
    A subclass says what its encoders' evidence is (``evidence_scale``), which passes it makes and what its posterior
    is.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    private
        Private latent of a target that is not a source: a draw from its prior, or zero.
    family
        Law of latents and their posteriors.
    label_weight
        :math:`\beta_y` of the term :math:`\beta_y E \log p(y | z_{sh})`, with a linear classifier; ``None`` leaves
        labels out.
    """

    evidence_scale: ClassVar[Literal["sd", "precision"]] = "sd"
    """What the second part of :class:`Evidence` is: of a posterior, or of a potential that is to meet the prior."""
    scale_start: ClassVar[float] = 0.0
    """Raw scale of evidence before training."""

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        private: PrivateOfTarget = "prior",
        family: FamilyName = "normal",
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, {m: shape.shared + shape.private[m] for m in schema.names})
        self.shape, self.private, self.family, self.label_weight = shape, private, family, label_weight

        def encoder(m: str, width: int) -> Encoder:
            return Encoder(schema[m].n_vars, self.encoder_design_width(m), width, network, self.scale_start)

        self.shared_encoders = PerModality(self.modalities, lambda m: encoder(m, shape.shared))
        with_private = [m for m in self.modalities if shape.private[m]]
        self.private_encoders = PerModality(with_private, lambda m: encoder(m, shape.private[m]))
        widths = [shape.private[m] for m in self.modalities]
        self.private_blocks = dict(zip(self.modalities, block_slices(widths), strict=True))
        self.classifier: nn.Linear | None = None
        if label_weight is not None:
            if schema.labels is None:
                raise ValueError("label_weight needs labels: register them with setup_mudata(labels_key=...)")
            self.classifier = nn.Linear(shape.shared, len(schema.labels.categories))

    # ------------------------------------------------------------------ evidence

    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Evidence about ``[shared, private_m]`` from each modality's packed rows."""
        least = LEAST_SD if self.evidence_scale == "sd" else 0.0
        found = {}
        for m in self.modalities:
            inputs = self.encoder_inputs(batch, m)
            parts = [self.encode_shared(m, *inputs)]
            if self.shape.private[m]:
                parts.append(self.encode_private(m, *inputs))
            location, raw = (torch.cat(part, -1) for part in zip(*parts, strict=True))
            found[m] = Evidence(location, F.softplus(raw) + least)
        return found

    def encode_shared(self, modality: str, values: Tensor, design: Tensor | None) -> tuple[Tensor, Tensor]:
        """Location and raw scale of the shared latents, from transformed values and covariates."""
        found: tuple[Tensor, Tensor] = self.shared_encoders.of(modality)(values, design)
        return found

    def encode_private(self, modality: str, values: Tensor, design: Tensor | None) -> tuple[Tensor, Tensor]:
        """The same of a modality's private latents."""
        found: tuple[Tensor, Tensor] = self.private_encoders.of(modality)(values, design)
        return found

    def shared_evidence(self, evidence: dict[str, Evidence], batch: Batch) -> Evidence:
        """``(B, M, d)`` evidence about the shared latents; location 0 and scale 1 where an assay is absent."""
        d = self.shape.shared
        full = [dense(evidence[m], batch.rows[m], batch.n_samples) for m in self.modalities]
        location = torch.stack([e.location[:, :d] for e in full], 1)
        scale = torch.stack([e.scale[:, :d] for e in full], 1)
        return Evidence(location, torch.where(batch.present.unsqueeze(-1), scale, torch.ones_like(scale)))

    def private_posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> Evidence:
        """``(B, p)`` mean and sd of all private latents: posteriors of assays that are ``given``, else the prior's."""
        d = self.shape.shared
        locations, scales = [], []
        for i, m in enumerate(self.modalities):
            location, scale = (e[:, d:] for e in dense(evidence[m], batch.rows[m], batch.n_samples))
            if self.evidence_scale == "precision":
                location, scale = location * scale / (1 + scale), (1 + scale).rsqrt()
            use = given[:, i : i + 1]
            locations.append(torch.where(use, location, torch.zeros_like(location)))
            scales.append(torch.where(use, scale, torch.ones_like(scale)))
        return Evidence(torch.cat(locations, -1), torch.cat(scales, -1))

    def mixture(
        self, shared: Evidence, used: Tensor, evidence: dict[str, Evidence], batch: Batch, given: Tensor
    ) -> MixturePosterior:
        """Posterior with shared components ``(C, B, d)``, of which a sample has ``used`` ``(B, C)``."""
        private = self.private_posterior(evidence, batch, given)
        free = torch.cat(
            [
                (given[:, i : i + 1] | (self.private == "prior")).expand(-1, self.shape.private[m])
                for i, m in enumerate(self.modalities)
            ],
            -1,
        )
        return MixturePosterior(shared, used, private, free, self.family)

    @property
    def decodes_private_across(self) -> bool:
        """Whether a prediction depends on private latents of its target."""
        return self.private == "prior"

    def proposal(
        self, evidence: dict[str, Evidence], batch: Batch, targets: Tensor, given: Tensor | None
    ) -> LatentPosterior:
        """Private latents that predictions do not depend on are left as they are before the targets are seen."""
        after = super().proposal(evidence, batch, targets, given)
        if self.decodes_private_across or given is None:
            return after
        before = self.posterior(evidence, batch, given)
        assert isinstance(after, MixturePosterior) and isinstance(before, MixturePosterior)
        return after.with_private_of(before)

    # ------------------------------------------------------------------ layout

    def block(self, z: Tensor, modality: str) -> Tensor:
        """``(..., p_m)`` private latents of a modality in ``z`` ``(..., D)``."""
        return z[..., self.shape.shared :][..., self.private_blocks[modality]]

    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        return {m: torch.cat([z[..., : self.shape.shared], self.block(z, m)], -1) for m in self.modalities}

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return FAMILIES[self.family].standard_log_density(z).sum(-1)

    def readout(self, kind: str, modality: str | None) -> Readout:
        """``joint``: shared and all private latents; ``shared``; ``private`` of a modality."""
        d, total = self.shape.shared, self.shape.shared + sum(self.shape.private.values())
        eye = torch.eye(total, device=next(self.parameters()).device)
        if kind == "shared":
            eye = eye[:, :d]
        elif kind == "private":
            eye = self.block(eye, str(modality))
        return Readout(eye, torch.zeros(total, device=eye.device))

    def private_of_target(self, like: Tensor, modality: str) -> Tensor:
        """``(..., p_m)`` private latent of a target that is not a source, beside shared latents ``(..., d)``."""
        shape = (*like.shape[:-1], self.shape.private[modality])
        zero = self.private == "zero"
        return torch.zeros(shape, device=like.device) if zero else self._prior_draw(like.new_empty(shape))

    def _prior_draw(self, like: Tensor) -> Tensor:
        return FAMILIES[self.family].noise(like)

    # ------------------------------------------------------------------ labels

    def label_fit(self, shared: Tensor, batch: Batch) -> Tensor:
        """``(K, B)`` log-likelihood of the label at shared latents ``(K, B, d)``; 0 where it is not known."""
        assert self.classifier is not None
        logits = self.classifier(shared).movedim(-1, 1)  # (K, classes, B)
        target = batch.labels.clamp_min(0).expand(shared.shape[0], -1)
        return -F.cross_entropy(logits, target, reduction="none") * (batch.labels >= 0)

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        r""":math:`\beta_y` times the expected log-likelihood of the label, for every pass a sample takes part in."""
        if self.classifier is None or self.label_weight is None:
            return None
        total = torch.zeros(batch.n_samples, device=batch.present.device)
        for one in passes:
            shared = next(iter(one.latents.values()))[..., : self.shape.shared]
            total = total + self.label_fit(shared, batch).mean(0) * one.sources.any(1)
        return self.label_weight * total
