"""JMVAE: a joint encoder, and unimodal encoders that are trained to be near it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass, scatter_rows
from omicvae.module._shared_private import LEAST_SD, Shape, SharedPrivateModule
from omicvae.nn import Encoder, NetworkConfig
from omicvae.nn.likelihoods import OWN
from omicvae.stats.experts import product_of_experts
from omicvae.stats.gaussian import diagonal_kl


class JMVAEModule(SharedPrivateModule):
    r"""JMVAE :cite:p:`suzuki2016joint` (the paper's JMVAE-kl) for any number of modalities and samples that lack some.

    With :math:`O` the modalities of a sample, maximised is

    .. math::
        E_{q(z|x_O)} \Big[ \sum_{m \in O} \log p(x_m|z) \Big]
        - \beta \Big[ \mathrm{KL}(q(z|x_O) \,\|\, p(z))
        + \alpha \sum_{m \in O} \mathrm{KL}(q(z|x_O) \,\|\, q(z|x_m)) \Big]

    :math:`q(z|x_O)` comes from one joint encoder, which takes all modalities, zeros (the training mean) for those a sample
    lacks, and the mask that tells the two apart. Gradients of the last term reach both encoders. :math:`\beta` is the
    training plan's KL weight, whose rise is the paper's warm-up; :math:`\alpha` is constant. Targets are sources: decoders
    only meet latents of the joint encoder, and no noise scale is learned for predictions.

    **Posterior of a subset.** Unimodal posteriors are :math:`q(z|x_m) \propto p(z)\, N(z; \mu_m, \Lambda_m^{-1})` with
    :math:`\Lambda_m \ge 0`, so that their product with the prior divided out is proper for every set :math:`S`,

    .. math:: q(z|x_S) \propto p(z)^{1-|S|} \prod_{m \in S} q(z|x_m) = p(z) \prod_{m \in S} N(z; \mu_m, \Lambda_m^{-1})

    (multiplying posteriors as they are, as public code does, counts the prior :math:`|S|` times). The joint encoder gives
    the posterior of **complete** sets, and this product that of all others, whether the rest was hidden or never measured.
    In training the joint encoder does take incomplete samples, because their assays train decoders and unimodal encoders;
    but nothing asks it there for what the absent assay could tell, while each unimodal encoder has learned from samples in
    which the others were measured, too. In simulations with three assays the joint encoder predicted absent ones with an R2
    of .07 to .11, and the product with .30 to .40. Hidden and absent assays are thus treated alike, so that what is
    measured on the former holds for the latter. Without any complete training sample, complete sets have the product, too.

    The reported ELBO is that of the joint encoder at :math:`\beta = 1`, without the terms in :math:`\alpha`.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces; all of them shared.
    alpha
        :math:`\alpha`, positive; 0.1 as in the paper.
    label_weight
        :math:`\beta_y` of :math:`\beta_y E_{q(z|x_O)} \log p(y|z)`, with a linear classifier; ``None`` leaves labels out.
    """

    evidence_scale = "precision"
    complete_seen: Tensor

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        alpha: float = 0.1,
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, shape, label_weight=label_weight)
        self.alpha = alpha
        width = sum(schema[m].n_vars + self.encoder_design_width(m) for m in self.modalities)
        self.joint_encoder = Encoder(width, len(self.modalities), shape.shared, network, self.scale_start)
        self.register_buffer("complete_seen", torch.tensor(True))

    def begin_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Training statistics, and whether the joint encoder will meet complete samples."""
        self.fit_statistics(batches)
        self.complete_seen.fill_(any(bool(batch.present.all(1).any()) for batch in batches()))

    def joint_posterior(self, batch: Batch, given: Tensor) -> Evidence:
        """``(B, d)`` mean and sd by the joint encoder, which sees the assays in ``given`` ``(B, M)`` and that mask."""
        inputs = []
        for i, m in enumerate(self.modalities):
            values, design = self.encoder_inputs(batch, m)
            packed = values if design is None else torch.cat([values, design], -1)
            full = scatter_rows(packed, batch.rows[m], batch.n_samples)
            inputs.append(torch.where(given[:, i : i + 1], full, torch.zeros_like(full)))
        location, raw = self.joint_encoder(torch.cat(inputs, -1), given.to(inputs[0].dtype))
        return Evidence(location, F.softplus(raw) + LEAST_SD)

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """One decoding of what the joint encoder says, and its divergences from the unimodal posteriors."""
        q = self.joint_posterior(batch, batch.present)
        z = (q.location + q.scale * torch.randn_like(q.location)).unsqueeze(0)
        here, any_here = batch.present.to(z.dtype), batch.present.any(1).to(z.dtype)
        potential = self.shared_evidence(evidence, batch)
        divergences = {}
        for i, m in enumerate(self.modalities):
            s = (1 + potential.scale[:, i]).rsqrt()
            mu = potential.location[:, i] * potential.scale[:, i] * s.square()
            divergence = diagonal_kl((q.location - mu) / s, (q.scale / s).square())  # in units of N(mu, s^2)
            divergences[m] = (divergence * here[:, i]).unsqueeze(0)
        joint = Pass(
            name="joint",
            sources=batch.present,
            latents=self.decoder_inputs(z),
            weights={m: here[:, i] for i, m in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, "own"),
            kl={"joint": (diagonal_kl(q.location, q.scale.square()) * any_here).unsqueeze(0)},
            elbo_weight=torch.ones_like(any_here),
        )
        weights = dict.fromkeys(divergences, self.alpha)
        return [joint, Pass("unimodal", batch.present, {}, {}, {}, divergences, weights)]

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        """Of the only pass that has latents."""
        return super().label_term(passes[:1], batch)

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        potential = self.shared_evidence(evidence, batch)
        product = product_of_experts(potential.location, potential.scale, given)
        joint = self.joint_posterior(batch, given)
        complete = given.all(1, keepdim=True) & self.complete_seen
        mean = torch.where(complete, joint.location, product.mean)
        sd = torch.where(complete, joint.scale, product.variance.sqrt())
        component = Evidence(mean.unsqueeze(0), sd.unsqueeze(0))
        return self.mixture(component, torch.ones_like(given[:, :1]), evidence, batch, given)

    def predictive_route(self, target_is_source: bool) -> int:
        """The only noise that is trained."""
        return OWN
