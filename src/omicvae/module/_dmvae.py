"""DMVAE: shared latents by a product of experts, private latents, and a decoding of everything from every assay."""

from __future__ import annotations

import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass, alone
from omicvae.module._shared_private import SharedPrivateModule
from omicvae.stats.experts import DiagonalGaussian, product_of_experts
from omicvae.stats.gaussian import diagonal_kl


class DMVAEModule(SharedPrivateModule):
    r"""DMVAE :cite:p:`lee2021private` for any number of modalities and samples that lack some.

    Latents :math:`z_{sh}, z_{pr_1}, \dots, z_{pr_M}` with standard normal priors; shared and private encoders share no
    parameters. Encoder :math:`m` gives a Gaussian potential :math:`N(z_{sh}; \mu_m, \Lambda_m^{-1})`, and for any set
    :math:`S` of modalities

    .. math:: q(z_{sh} | x_S) \propto p(z_{sh}) \prod_{m \in S} N(z_{sh}; \mu_m, \Lambda_m^{-1}).

    With :math:`O` the modalities of a sample, maximised is the sum of a joint pass and a pass for every single one,

    .. math::
        \mathcal L(x_O; O) + \sum_{m \in O} \mathcal L(x_O; \{m\}), \qquad
        \mathcal L(x_O; S) = \sum_{t \in O} E_{q(z_{sh}|x_S)\, q(z_{pr_t}|x_t)} \log p(x_t | z_{sh}, z_{pr_t})
        - \beta \Big[ \mathrm{KL}(q(z_{sh}|x_S) \| p(z_{sh})) + \sum_{t \in O} \mathrm{KL}(q(z_{pr_t}|x_t) \| p(z_{pr_t})) \Big]

    Every assay is decoded with its *own* private latents, also from another assay's shared ones. At :math:`\beta = 1`
    each :math:`\mathcal L` is by itself a lower bound of :math:`\log p(x_O)`, so that private divergences rightly count
    once in each. The paper's weights of log-likelihoods are 1. An assay decoded from shared latents that it took part in
    has its own noise scale, and one decoded from another assay's the cross scale.

    Single passes train the posterior that is used. Public code trains :math:`q(z_{sh}|x_m)` as the encoder gives it, and
    then multiplies it by the prior whenever :math:`m` is all that is known: what is used is narrower and closer to 0 than
    what was trained. Here an encoder gives evidence, the prior is an expert of every product in training and in use, and
    a sample with one assay has the same posterior in its joint pass, in its single pass and in :meth:`posterior`.

    In use, an assay that a sample lacks has no private latents of its own; they are drawn from their prior, which no term
    of the objective does.

    With labels, :math:`\beta_y E \log p(y|z_{sh})` is added to every pass, with a linear classifier. The reported ELBO is
    the joint pass at :math:`\beta = 1`.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    evidence_scale = "precision"
    scale_start = 2.0  # potentials that start flat leave decoders nothing to learn from

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """The joint pass and one for every single source, each decoding every modality."""
        private = self.private_posterior(evidence, batch, batch.present)
        found = [self._pass("joint", batch.present, dict.fromkeys(self.modalities, "own"), evidence, private, batch)]
        for i, m in enumerate(self.modalities):
            route = {t: "own" if t == m else "cross" for t in self.modalities}
            found.append(self._pass(m, alone(batch.present, i), route, evidence, private, batch))
        return found

    def _pass(
        self,
        name: str,
        sources: Tensor,
        route: dict[str, str],
        evidence: dict[str, Evidence],
        private: Evidence,
        batch: Batch,
    ) -> Pass:
        r""":math:`\mathcal L(x_O; S)`; rows that have no source take no part."""
        shared = self._product(evidence, batch, sources)
        location = torch.cat([shared.mean, private.location], -1)
        scale = torch.cat([shared.variance.sqrt(), private.scale], -1)
        here = sources.any(1).to(location.dtype)
        return Pass(
            name=name,
            sources=sources,
            latents=self.decoder_inputs((location + scale * torch.randn_like(location)).unsqueeze(0)),
            weights={t: here * batch.present[:, j] for j, t in enumerate(self.modalities)},
            route=route,
            kl={name: (diagonal_kl(location, scale.square()) * here).unsqueeze(0)},
            elbo_weight=here if name == "joint" else None,
        )

    def _product(self, evidence: dict[str, Evidence], batch: Batch, sources: Tensor) -> DiagonalGaussian:
        """``(B, d)`` posterior of the shared latents; the prior in rows without a source."""
        location, precision = self.shared_evidence(evidence, batch)
        return product_of_experts(location, precision, sources)

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        shared = self._product(evidence, batch, given)
        component = Evidence(shared.mean.unsqueeze(0), shared.variance.sqrt().unsqueeze(0))
        return self.mixture(component, torch.ones_like(given[:, :1]), evidence, batch, given)
