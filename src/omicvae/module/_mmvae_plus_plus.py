"""MMVAE++: shared and private latents, with the shared ones trained by cross-modal prediction alone."""

from __future__ import annotations

import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module._base import dense
from omicvae.module._mixture import MixturePosterior
from omicvae.module._records import Evidence, Pass, alone
from omicvae.module._shared_private import SharedPrivateModule
from omicvae.stats.gaussian import diagonal_kl


class MMVAEPlusPlusModule(SharedPrivateModule):
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
                    latents[t] = torch.cat([shared, self.private_of_target(shared, t)], -1)
                weights[t] = here * batch.present[:, j]
            divergence = diagonal_kl(location, scale.square()) * here
            found.append(
                Pass(
                    name=m,
                    sources=alone(batch.present, i),
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
        total = torch.zeros(batch.n_samples, device=batch.present.device)
        for one in passes:
            other = next(t for t in self.modalities if t != one.name)  # a target whose shared part carries gradients
            fit = self.label_fit(one.latents[other][..., : self.shape.shared], batch).mean(0)
            total = total + fit * one.weights[one.name]
        return self.label_weight * total

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> MixturePosterior:
        location, scale = self.shared_evidence(evidence, batch)
        components = Evidence(location.movedim(1, 0), scale.movedim(1, 0))
        return self.mixture(components, given, evidence, batch, given)
