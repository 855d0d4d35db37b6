"""MoPoE: a mixture of the products of experts of all subsets of modalities."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from omicvae.data import Batch, Schema
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass
from omicvae.module._shared_private import PrivateOfTarget, Shape, SharedPrivateModule
from omicvae.nn import NetworkConfig
from omicvae.stats.experts import DiagonalGaussian, product_of_experts, stratified_components, subset_table
from omicvae.stats.gaussian import diagonal_kl

MOST_MODALITIES = 10


class SubsetProducts(NamedTuple):
    """The products of experts of all subsets, for every sample."""

    gaussian: DiagonalGaussian
    """(C, B, d) each."""
    valid: Tensor
    """(B, C) bool: subsets of what may be used."""


class MoPoEModule(SharedPrivateModule):
    r"""MoPoE-VAE :cite:p:`sutter2021generalized`, plain or with private latents.

    The posterior of a sample with modalities :math:`O` is the mixture over the :math:`n = 2^{|O|} - 1` non-empty subsets
    of :math:`O` (eq. (3) and (4)),

    .. math::
        q(z|x_O) = \frac1n \sum_{S \subseteq O} \tilde q(z|x_S), \qquad
        \tilde q(z|x_S) \propto p(z) \prod_{m \in S} \tilde q(z|x_m)

    Maximised is eq. (5), with the divergence of the mixture bounded by the mean of divergences:

    .. math::
        E_{q(z|x_O)} \Big[ \sum_{t \in O} \log p(x_t|z) \Big]
        - \beta \, \frac1n \sum_{S \subseteq O} \mathrm{KL}(\tilde q(z|x_S) \,\|\, p(z))

    The expectation is estimated by one subset a sample, drawn at random in every step. The prior is an expert of every
    product, so that an encoder gives the evidence of one assay and no product counts the prior twice (the paper has no
    prior expert). Targets in and outside of :math:`S` have separate noise scales.

    With private latents, :math:`\tilde q(z|x_S)` gains
    :math:`\prod_{m \in S} q(z_{pr_m}|x_m) \prod_{m \notin S} p(z_{pr_m})`, or zeros for the latter with
    ``private="zero"``. With labels, :math:`\beta_y E \log p(y|z_{sh})` is added, with a linear classifier.

    Parameters
    ----------
    schema
        Registered modalities and covariates; at most 10 modalities.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    private
        Private latent of a target outside of the subset: a draw from its prior, or zero.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    evidence_scale = "precision"
    scale_start = 2.0  # potentials that start flat leave decoders nothing to learn from
    subsets: Tensor

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        private: PrivateOfTarget = "prior",
        label_weight: float | None = None,
    ) -> None:
        M = len(schema.names)
        if M > MOST_MODALITIES:
            raise ValueError(
                f"MoPoE mixes 2**M - 1 subsets, which is too many for M = {M} modalities; use MVAE or MMVAE"
            )
        super().__init__(schema, network, shape, private=private, label_weight=label_weight)
        self.register_buffer("subsets", subset_table(M), persistent=False)

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """One latent sample a row, decoded with the own noise for sources and with the cross noise for the others."""
        products = self.products(evidence, batch, batch.present)
        chosen = stratified_components(products.valid.to(products.gaussian.mean.dtype), 1)[0]
        sources = self.subsets[chosen] & batch.present
        rows = torch.arange(batch.n_samples, device=chosen.device)
        shared = Evidence(products.gaussian.mean[chosen, rows], products.gaussian.variance[chosen, rows].sqrt())
        one = torch.ones_like(sources[:, :1])
        q = self.mixture(Evidence(shared.location[None], shared.scale[None]), one, evidence, batch, sources)
        latents = self.decoder_inputs(q.sample(1))
        others = batch.present & ~sources
        divergence = self._divergence(products, evidence, batch)
        return [
            self._decoding("own", sources, sources, latents, {"mean over subsets": divergence.unsqueeze(0)}),
            self._decoding("cross", sources, others, latents, {}),
        ]

    def _decoding(
        self, route: str, sources: Tensor, targets: Tensor, latents: dict[str, Tensor], kl: dict[str, Tensor]
    ) -> Pass:
        weights = targets.to(next(iter(latents.values())).dtype)
        return Pass(
            name=f"subset, {route}",
            sources=sources,
            latents=latents,
            weights={m: weights[:, i] for i, m in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, route),
            kl=kl,
            elbo_weight=torch.ones_like(weights[:, 0]),
        )

    def products(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> SubsetProducts:
        """The product of every subset of ``given``; subsets that hold more have the product of what is given."""
        location, precision = self.shared_evidence(evidence, batch)
        valid = (~self.subsets | given.unsqueeze(1)).all(-1)
        used = self.subsets.unsqueeze(1) & given  # (C, B, M)
        return SubsetProducts(product_of_experts(location, precision, used), valid)

    def _divergence(self, products: SubsetProducts, evidence: dict[str, Evidence], batch: Batch) -> Tensor:
        """``(B,)`` mean over a sample's subsets of the divergence from the prior."""
        valid = products.valid.to(products.gaussian.mean.dtype)
        share = valid / valid.sum(1, keepdim=True).clamp_min(1)  # (B, C)
        total = (share.mT * diagonal_kl(*products.gaussian)).sum(0)
        containing = share @ self.subsets.to(share.dtype)  # (B, M) share of subsets that hold each modality
        private = self.private_posterior(evidence, batch, batch.present)
        for i, m in enumerate(self.modalities):
            block = self.private_blocks[m]
            own = diagonal_kl(private.location[:, block], private.scale[:, block].square())
            total = total + containing[:, i] * own
        return total

    def elbo_terms(
        self, passes: list[Pass], found: list[dict[str, Tensor]], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Each target counts once: in the pass that has its noise."""
        rec = {m: torch.zeros(batch.n_samples, device=batch.present.device) for m in self.modalities}
        for one, values in zip(passes, found, strict=True):
            for m, value in values.items():
                rec[m] = rec[m] + one.weights[m] * value.mean(0)
        return rec, next(iter(passes[0].kl.values())).mean(0)

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        """Both passes hold the same latents; the label counts once."""
        return super().label_term(passes[:1], batch)

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        products = self.products(evidence, batch, given)
        components = Evidence(products.gaussian.mean, products.gaussian.variance.sqrt())
        return self.mixture(components, products.valid, evidence, batch, given)
