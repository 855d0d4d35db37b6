"""MMVAE+: a mixture of experts whose cross-modal predictions draw private latents from auxiliary priors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omicvae.data import Schema
from omicvae.module._mmvae import MMVAEModule
from omicvae.module._shared_private import Shape
from omicvae.nn import NetworkConfig
from omicvae.stats.location_scale import FamilyName


class MMVAEPlusModule(MMVAEModule):
    r"""MMVAE+ :cite:p:`palumbo2023mmvaeplus` for any number of modalities.

    Latents :math:`z_{sh}, z_{pr_1}, \dots, z_{pr_M}` with standard priors; shared and private encoders share no
    parameters. The shared posterior of a sample with modalities :math:`O` is the mixture
    :math:`q_\Phi(z_{sh}|x_O) = \frac1{|O|} \sum_{m \in O} q(z_{sh}|x_m)`. Maximised is the paper's bound: every source
    :math:`m` reconstructs itself from its own private latents and predicts every other assay :math:`t` from private
    latents of an *auxiliary* prior :math:`r_t`, with
    :math:`z_{sh}^k, z_{pr_m}^k \sim q(\cdot|x_m)` and :math:`\tilde z_t^k \sim r_t`,

    .. math::
        \frac1{|O|} \sum_{m \in O} E \log \frac1K \sum_{k=1}^K
        p(x_m | z_{sh}^k, z_{pr_m}^k) \prod_{t \in O \setminus m} p(x_t | z_{sh}^k, \tilde z_t^k)
        \Big( \frac{p(z_{sh}^k)\, p(z_{pr_m}^k)}{q_\Phi(z_{sh}^k | x_O)\, q(z_{pr_m}^k | x_m)} \Big)^{\beta}

    With :math:`K = 1` it is an ELBO; with :math:`K > 1` it is importance-weighted, with DReG gradients, as in
    :class:`MMVAEModule`, of which this is the structured form with other private latents of targets.

    :math:`r_t` has mean 0 and learned scales, so that what cross-modal prediction asks of private latents does not
    press on what reconstruction puts there. Their mean over dimensions is held at 1, as in the authors' code: free, they
    shrink, because the bound is highest where :math:`\tilde z_t` varies least. The auxiliary priors belong to the
    objective alone. Predictions draw from the prior :math:`p(z_{pr_t})`, as the authors do, and have the noise of cross
    passes; likelihood bounds hold every modality that was measured.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    family
        ``"laplace"``, as in the paper, or ``"normal"``: priors and posteriors.
    n_samples
        :math:`K`.
    label_weight
        :math:`\beta_y` of :math:`\beta_y \frac1{|O|} \sum_m E_{q(z_{sh}|x_m)} \log p(y|z_{sh})`; ``None`` leaves labels
        out.
    """

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        shape: Shape,
        *,
        family: FamilyName = "normal",
        n_samples: int = 1,
        label_weight: float | None = None,
    ) -> None:
        super().__init__(schema, network, shape, family=family, n_samples=n_samples, label_weight=label_weight)
        self.raw_scales = nn.ParameterList(nn.Parameter(torch.zeros(shape.private[m])) for m in self.modalities)

    def auxiliary_scale(self, modality: str) -> Tensor:
        """``(p_m,)`` standard deviations of :math:`r_m`, of mean 1."""
        raw = self.raw_scales[self.modalities.index(modality)]
        return torch.softmax(raw, 0) * raw.shape[0]

    def private_of_target(self, like: Tensor, modality: str) -> Tensor:
        """``(..., p_m)`` draws from :math:`r_m`, beside shared latents ``(..., d)``."""
        return self.auxiliary_scale(modality) * super().private_of_target(like, modality)
