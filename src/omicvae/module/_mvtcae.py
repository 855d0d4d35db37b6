"""MVTCAE: a product of posteriors, trained on a bound of the total correlation that latents explain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omicvae.data import Batch, Schema
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass
from omicvae.module._shared_private import Shape, SharedPrivateModule
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import OWN
from omicvae.stats.experts import DiagonalGaussian, product_of_experts
from omicvae.stats.gaussian import diagonal_kl


class MVTCAEModule(SharedPrivateModule):
    r"""MVTCAE :cite:p:`hwang2021multi` for samples that have any of the modalities.

    The posterior given any set :math:`S` of modalities is the product of unimodal posteriors, without the prior,

    .. math:: q(z | x_S) \propto \prod_{m \in S} q(z | x_m).

    Maximised is a lower bound of the total correlation between modalities that :math:`z` explains,
    :math:`\sum_m I(x_m; z) - I(x_O; z)`. The second term splits with weight :math:`\alpha` into that of an information
    bottleneck (VIB) and the mean of conditional ones (CVIB),

    .. math::
        I(x_O; z) = (1 - \alpha)\, I(x_O; z)
        + \frac{\alpha}{M} \sum_{m \in O} \big[ I(x_m; z) + I(x_{O \setminus m}; z \,|\, x_m) \big]

    so that :math:`\alpha / M` of each :math:`I(x_m; z)` cancels, and the objective of a sample with the modalities
    :math:`O`, :math:`M = |O|`, is

    .. math::
        \frac{M - \alpha}{M}\, E_{q(z|x_O)} \Big[ \sum_{m \in O} \log p(x_m|z) \Big]
        - \beta \Big[ (1 - \alpha)\, \mathrm{KL}(q(z|x_O) \,\|\, p(z))
        + \frac{\alpha}{M} \sum_{m \in O} \mathrm{KL}(q(z|x_O) \,\|\, q(z|x_m)) \Big]

    **Samples that lack modalities.** :math:`M` is the number of modalities the *sample* has, because the identity above
    is about those: with the cohort's number, reconstructions and divergences would no longer be parts of one bound, and
    a sample with few assays would be regularised too little. A single modality has no total correlation, its conditional
    divergence from itself is 0, and what is left is :math:`1 - \alpha` times its ELBO. That is kept, because it trains its
    encoder and decoder, and is why :math:`\alpha = 1` leaves such samples without any influence.

    **Weights.** :math:`\alpha` is :math:`M / (M + 1)` by default: the prior and each of the :math:`M` unimodal posteriors
    then pull with the same weight :math:`1/(M+1)`. It is the published setting for five views, 5/6, and becomes 1/2 for a
    sample with one. Near 0, the objective is a plain VIB and unimodal posteriors are not trained to be used alone: in
    simulations with three assays, absent ones were predicted with an R2 of .20 to .27 at 0.1 (a default of public code),
    and of .29 to .31 at the default. :math:`\beta` is the training plan's KL weight: 1 after its warm-up, which makes the
    objective a bound. The published 2.5 goes with a likelihood of fixed scale; here noise is learned.

    Targets are sources: only the conditional divergences train the prediction of one assay from another, and no noise
    scale is learned for it. Without the prior, the product of all posteriors and those of few cannot all be exact: on
    linear-Gaussian data, experts whose complete product is exact hold :math:`1/M` of the prior each, and :math:`S` then has
    the posterior under the prior :math:`N(0, (M/|S|) I)`.

    The reported ELBO is :math:`E_q \sum_m \log p(x_m|z) - \mathrm{KL}(q \| p)` at unit weights.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces; all of them shared.
    alpha
        :math:`\alpha` in [0, 1]; ``None`` is :math:`M / (M + 1)` of each sample.
    label_weight
        :math:`\beta_y` of :math:`\beta_y E_{q(z|x_O)} \log p(y|z)`, with a linear classifier; ``None`` leaves labels out.
    """

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        alpha: float | None = None,
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, shape, label_weight=label_weight)
        self.alpha = alpha

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """One decoding of the product of everything measured, and the divergences from its factors."""
        shared = self.shared_evidence(evidence, batch)
        q = self._product(shared, batch.present)
        z = (q.mean + q.variance.sqrt() * torch.randn_like(q.mean)).unsqueeze(0)
        here = batch.present.to(z.dtype)
        conditional = {}
        for i, m in enumerate(self.modalities):  # affine maps keep divergences: that from N(mu, s^2) is from N(0, 1)
            mu, s = shared.location[:, i], shared.scale[:, i]
            conditional[m] = (diagonal_kl((q.mean - mu) / s, q.variance / s.square()) * here[:, i]).unsqueeze(0)
        joint = Pass(
            name="joint",
            sources=batch.present,
            latents=self.decoder_inputs(z),
            weights={m: here[:, i] for i, m in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, "own"),
            kl={"joint": diagonal_kl(q.mean, q.variance).unsqueeze(0)},  # 0 in rows without a source
            elbo_weight=torch.ones_like(here[:, 0]),
        )
        return [joint, Pass("conditional", batch.present, {}, {}, {}, conditional)]

    def reduce(self, passes: Sequence[Pass], log_likelihoods: list[dict[str, Tensor]], kl_weight: float) -> Tensor:
        """``(B,)`` objective, with each sample's own number of modalities."""
        joint, conditional = passes
        M = joint.sources.sum(1).clamp_min(1)
        alpha = M / (M + 1) if self.alpha is None else self.alpha
        fit = torch.stack([joint.weights[m] * value.mean(0) for m, value in log_likelihoods[0].items()]).sum(0)
        vib = joint.kl["joint"].mean(0)
        cvib = torch.stack([value.mean(0) for value in conditional.kl.values()]).sum(0)
        return (M - alpha) / M * fit - kl_weight * ((1 - alpha) * vib + alpha / M * cvib)

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        """Of the only pass that has latents."""
        return super().label_term(passes[:1], batch)

    def _product(self, shared: Evidence, given: Tensor) -> DiagonalGaussian:
        """``(B, d)`` product of the unimodal posteriors in ``given`` ``(B, M)``; the prior if there is none."""
        return product_of_experts(shared.location, shared.scale.square().reciprocal(), given, prior=False)

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        q = self._product(self.shared_evidence(evidence, batch), given)
        component = Evidence(q.mean.unsqueeze(0), q.variance.sqrt().unsqueeze(0))
        return self.mixture(component, torch.ones_like(given[:, :1]), evidence, batch, given)

    def predictive_route(self, target_is_source: bool) -> int:
        """The only noise that is trained."""
        return OWN
