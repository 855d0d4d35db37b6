"""MVAE: a product of experts, trained on the ELBOs of many sets of modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from omicvae.data import Batch, Schema
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass, alone
from omicvae.module._shared_private import Shape, SharedPrivateModule
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import OWN
from omicvae.stats.experts import product_of_experts, random_subset
from omicvae.stats.gaussian import diagonal_kl


class MVAEModule(SharedPrivateModule):
    r"""MVAE :cite:p:`wu2018multimodal`, plain or with private latents :cite:p:`lee2021private`.

    Encoder :math:`m` gives a Gaussian potential :math:`\tilde q(z|x_m) = N(\mu_m, \Lambda_m^{-1})`. For any set
    :math:`S` of modalities (sec. 2.2)

    .. math:: q(z | x_S) \propto p(z) \prod_{m \in S} \tilde q(z|x_m), \qquad
        \mathrm{ELBO}(x_S) = E_{q(z|x_S)} \Big[\sum_{m \in S} \log p(x_m|z)\Big]
        - \beta \, \mathrm{KL}(q(z|x_S) \,\|\, p(z))

    and maximised is eq. (5), with :math:`k` random subsets :math:`S_j` of the observed set :math:`O`, neither single
    nor full and drawn anew for every sample and step:

    .. math:: \mathrm{ELBO}(x_O) + \sum_{m \in O} \mathrm{ELBO}(x_m) + \sum_{j=1}^k \mathrm{ELBO}(x_{S_j})

    Targets are sources: nothing trains the prediction of one assay from another, and no noise scale is learned for it.

    With private latents, :math:`q(z|x_S) = q(z_{sh}|x_S) \prod_{m \in S} q(z_{pr_m}|x_m) \prod_{m \notin S} p(z_{pr_m})`.
    With labels, :math:`\beta_y E \log p(y|z_{sh})` is added to every ELBO, with a linear classifier.

    The reported ELBO is that of the observed set at :math:`\beta = 1`.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    n_subsets
        :math:`k`; without effect on samples with fewer than three assays.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    evidence_scale = "precision"
    scale_start = 2.0  # potentials that start flat leave decoders nothing to learn from

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        n_subsets: int = 1,
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, shape, label_weight=label_weight)
        self.n_subsets = n_subsets

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        found = [self._elbo_pass("joint", evidence, batch, batch.present, in_elbo=True)]
        for i, m in enumerate(self.modalities):
            found.append(self._elbo_pass(m, evidence, batch, alone(batch.present, i), targets=(m,)))
        if len(self.modalities) > 2:
            for j in range(self.n_subsets):
                found.append(self._elbo_pass(f"subset_{j}", evidence, batch, random_subset(batch.present)))
        return found

    def _elbo_pass(
        self,
        name: str,
        evidence: dict[str, Evidence],
        batch: Batch,
        sources: Tensor,
        *,
        targets: tuple[str, ...] | None = None,
        in_elbo: bool = False,
    ) -> Pass:
        """Reconstruct the sources from themselves."""
        q = self._product(evidence, batch, sources)
        z = (q.location + q.scale * torch.randn_like(q.location)).unsqueeze(0)
        inputs, here = self.decoder_inputs(z), sources.to(z.dtype)
        chosen = self.modalities if targets is None else targets
        return Pass(
            name=name,
            sources=sources,
            latents={m: inputs[m] for m in chosen},
            weights={m: here[:, self.modalities.index(m)] for m in chosen},
            route=dict.fromkeys(chosen, "own"),
            kl={name: diagonal_kl(q.location, q.scale.square()).unsqueeze(0)},  # 0 in rows without a source
            elbo_weight=torch.ones_like(here[:, 0]) if in_elbo else None,
        )

    def _product(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> Evidence:
        """``(B, D)`` mean and sd of all latents; those nothing is known about have their prior."""
        location, precision = self.shared_evidence(evidence, batch)
        shared = product_of_experts(location, precision, given & batch.present)
        private = self.private_posterior(evidence, batch, given & batch.present)
        return Evidence(
            torch.cat([shared.mean, private.location], -1), torch.cat([shared.variance.sqrt(), private.scale], -1)
        )

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        location, precision = self.shared_evidence(evidence, batch)
        shared = product_of_experts(location, precision, given)
        component = Evidence(shared.mean.unsqueeze(0), shared.variance.sqrt().unsqueeze(0))
        return self.mixture(component, torch.ones_like(given[:, :1]), evidence, batch, given)

    def predictive_route(self, target_is_source: bool) -> int:
        """The only noise that is trained."""
        return OWN
