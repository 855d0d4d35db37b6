"""MMVAE: a mixture of experts, each of which predicts every modality."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omicvae.data import Batch, Schema
from omicvae.module._importance import WeightedPass, importance_weighted_bound
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass, alone
from omicvae.module._shared_private import PrivateOfTarget, Shape, SharedPrivateModule
from omicvae.nn import NetworkConfig
from omicvae.stats.location_scale import FAMILIES, FamilyName


class MMVAEModule(SharedPrivateModule):
    r"""MMVAE :cite:p:`shi2019variational`, plain or with private latents.

    The posterior of a sample with modalities :math:`O` is the mixture
    :math:`q_\Phi(z|x_O) = \frac1{|O|} \sum_{m \in O} q(z|x_m)`. Maximised is the stratified bound of sec. 3.2, every
    source predicting every modality (:math:`z_m^{1:K} \sim q(z|x_m)`):

    .. math::
        \frac1{|O|} \sum_{m \in O} E \log \frac1K \sum_{k=1}^K
        \Big[ \prod_{t \in O} p(x_t | z_m^k) \Big] \Big( \frac{p(z_m^k)}{q_\Phi(z_m^k | x_O)} \Big)^{\beta}

    With :math:`K = 1` it is the ELBO. With :math:`K > 1` it is importance-weighted and encoders get DReG gradients, as
    in the paper; these are exact for samples with one assay and an approximation for mixtures, because the proposal of
    a stratum is not the mixture in the denominator.

    With private latents (the base version of :cite:t:`palumbo2023mmvaeplus`), source :math:`m` reconstructs itself from
    :math:`[z_{sh}, z_{pr_m}] \sim q(\cdot | x_m)` and predicts :math:`t \neq m` from
    :math:`z_{sh}` and :math:`z_{pr_t} \sim p(z_{pr_t})`, or 0 with ``private="zero"``; the ratio becomes
    :math:`p(z_{sh}) p(z_{pr_m}) / q_\Phi(z_{sh} | x_O) q(z_{pr_m} | x_m)`. Own and cross passes have separate noise
    scales. With labels, :math:`\beta_y \frac1{|O|} \sum_m E_{q(z_{sh}|x_m)} \log p(y|z_{sh})` is added.

    The paper learns the scales of a Laplace prior; here they are 1, which encoders and decoders absorb.

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
    family
        ``"laplace"``, as in the paper, or ``"normal"``: prior and posteriors.
    n_samples
        :math:`K`.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        private: PrivateOfTarget = "prior",
        family: FamilyName = "normal",
        n_samples: int = 1,
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, shape, private=private, family=family, label_weight=label_weight)
        self.importance_samples = n_samples

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """One pass a source, decoding every modality."""
        fixed = evidence
        if self.importance_samples > 1:
            fixed = {m: Evidence(e.location.detach(), e.scale.detach()) for m, e in evidence.items()}
        density = self.posterior(fixed, batch, batch.present)
        shared = self.shared_evidence(evidence, batch)
        private = self.private_posterior(evidence, batch, batch.present)
        return [self._source_pass(i, m, shared, private, density, batch) for i, m in enumerate(self.modalities)]

    def _source_pass(
        self, i: int, m: str, shared: Evidence, private: Evidence, density: MixturePosterior, batch: Batch
    ) -> WeightedPass:
        d, block, family = self.shape.shared, self.private_blocks[m], FAMILIES[self.family]
        here = batch.present[:, i].to(shared.location.dtype)
        location = torch.cat([shared.location[:, i], private.location[:, block]], -1)
        scale = torch.cat([shared.scale[:, i], private.scale[:, block]], -1)
        location = location.expand(self.importance_samples, -1, -1)
        drawn = location + scale * family.noise(location)
        z = drawn.clone()
        own = family.log_density(z[..., d:], density.private.location[:, block], density.private.scale[:, block])
        log_ratio = density.shared_log_prob(z[..., :d]) + own.sum(-1) - family.standard_log_density(z).sum(-1)
        latents = {
            t: z if t == m else torch.cat([z[..., :d], self.private_of_target(z[..., :d], t)], -1)
            for t in self.modalities
        }
        return WeightedPass(
            name=m,
            sources=alone(batch.present, i),
            latents=latents,
            weights={t: here * batch.present[:, j] for j, t in enumerate(self.modalities)},
            route={t: "own" if t == m else "cross" for t in self.modalities},
            kl={m: log_ratio * here},
            elbo_weight=here / batch.present.sum(1).clamp_min(1),
            draws=z,
            shared=drawn[..., :d],
        )

    def reduce(self, passes: Sequence[Pass], log_likelihoods: list[dict[str, Tensor]], kl_weight: float) -> Tensor:
        """``(B,)`` mean over a sample's sources of their bounds."""
        total = torch.zeros_like(next(iter(passes[0].weights.values())))
        for one, found in zip(passes, log_likelihoods, strict=True):
            assert isinstance(one, WeightedPass) and one.elbo_weight is not None
            total = total + one.elbo_weight * importance_weighted_bound(one, found, kl_weight)
        return total

    def label_term(self, passes: Sequence[Pass], batch: Batch) -> Tensor | None:
        r""":math:`\beta_y` times the expected log-likelihood of the label, mean over sources."""
        if self.classifier is None or self.label_weight is None:
            return None
        total = torch.zeros(batch.n_samples, device=batch.present.device)
        for one in passes:
            assert isinstance(one, WeightedPass) and one.shared is not None and one.elbo_weight is not None
            total = total + one.elbo_weight * self.label_fit(one.shared, batch).mean(0)
        return self.label_weight * total

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        location, scale = self.shared_evidence(evidence, batch)
        components = Evidence(location.movedim(1, 0), scale.movedim(1, 0))
        return self.mixture(components, given, evidence, batch, given)
