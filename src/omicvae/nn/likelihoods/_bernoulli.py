"""Bernoulli likelihood for binary values: open chromatin, mutations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Bernoulli as TorchBernoulli
from torch.distributions import Distribution

from omicvae.nn.likelihoods._base import (
    LINK_SCALE_RANGE,
    FeatureMoments,
    Likelihood,
    Observed,
    complaint,
)
from omicvae.nn.likelihoods._blockwise import BinaryDeviance, decodings, pays
from omicvae.stats.summary import ValueSummary


class Bernoulli(Likelihood):
    r"""Probability of a one, on the logit scale.

    .. math::

        \log p(x_j \mid \eta) = x_j \ell_j - \log(1 + e^{\ell_j}), \qquad
        \ell_j = \operatorname{logit}(p_j) + s_j \eta_j,

    with :math:`p_j` the fraction of ones in training samples, kept half a sample away from 0 and 1. A single binary
    value says little about its probability, so link values of data are those of the posterior mean
    :math:`(x + p_j)/2` under a Beta(:math:`p_j, 1 - p_j`) prior, and :math:`s_j` is their standard deviation over
    training samples (within :data:`LINK_SCALE_RANGE`). The mean fixes the noise, so own and cross do not differ. As
    used for chromatin accessibility by Ashuach et al., *PeakVI*, Cell Reports Methods 2 (2022).

    Parameters
    ----------
    n_vars
        Number of features.
    """

    name = "bernoulli"
    discrete = True
    response_family = "binary"

    logit_mean: Tensor
    link_scale: Tensor

    def __init__(self, n_vars: int) -> None:
        super().__init__(n_vars)
        self.register_buffer("logit_mean", torch.zeros(n_vars))
        self.register_buffer("link_scale", torch.ones(n_vars))

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        moments = FeatureMoments(self.n_vars)
        for chunk in chunks:
            moments.update(chunk.x)
        self._set_input(moments)
        least = 0.5 / (moments.count + 1)
        p = torch.minimum(torch.maximum(moments.mean, least), 1 - least)
        p = torch.where(moments.count == 0, 0.5, p)
        self.logit_mean.copy_(p.logit())
        jump = _shrunk_logit(torch.ones_like(p), p) - _shrunk_logit(torch.zeros_like(p), p)
        self.link_scale.copy_((jump * moments.deviation).clamp(*LINK_SCALE_RANGE))

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> TorchBernoulli:
        return TorchBernoulli(logits=self._logits(eta), validate_args=False)

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        if not pays(eta, observed.x, noise):
            return super().log_prob(eta, observed, noise)
        x, mask = self.filled(observed)
        weight = self.varies.to(x.dtype)
        deviance = BinaryDeviance.apply(decodings(eta), x, mask, self.logit_mean, self.link_scale, weight)
        return -deviance.reshape(eta.shape[:-2])

    def linear_target(self, observed: Observed) -> Tensor:
        p = self.logit_mean.sigmoid()
        target = (_shrunk_logit(observed.x, p) - self.logit_mean) / self.link_scale
        return torch.where(self.measured(observed), target, 0.0).to(torch.float32)

    @torch.no_grad()
    def interval(self, distribution: Distribution, level: float) -> tuple[Tensor, Tensor]:
        r"""Exact central interval of the mixture, which is Bernoulli(:math:`\bar p`), no draws needed.

        With :math:`\alpha = 1 - ` ``level`` and :math:`\bar p` the mean over components, the limits are the quantiles
        at :math:`\alpha/2` and :math:`1 - \alpha/2`: ``lower`` is 0 unless
        :math:`P(0) = 1 - \bar p < \alpha/2`, ``upper`` is 1 unless :math:`\bar p \le \alpha/2`.

        Parameters
        ----------
        distribution
            Of ``batch_shape`` ``(K, n, p)``.
        level
            Nominal coverage in (0, 1).

        Returns
        -------
        Lower and upper limit, each ``(n, p)``, 0 or 1.
        """
        tail = (1 - level) / 2
        one = distribution.mean.mean(0)
        return ((1 - one) < tail).to(one.dtype), (one > tail).to(one.dtype)

    def _logits(self, eta: Tensor) -> Tensor:
        return self.logit_mean + self.link_scale * eta[..., 0, :]

    def _transform(self, observed: Observed) -> Tensor:
        return observed.x

    def _untransform(self, values: Tensor) -> Tensor:
        return values

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        logits = self._logits(eta)
        return x * logits - F.softplus(logits)

    @classmethod
    def _check(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None) -> None:
        if summary.n_not_binary:
            advice = (
                f"The bernoulli likelihood needs 0 and 1 (NaN where not measured). Binarise them, for example with "
                f"mdata[{modality!r}].layers['binary'] = (mdata[{modality!r}].X > 0).astype('float32') and "
                f"layers={{{modality!r}: 'binary'}}, or use another likelihood."
            )
            raise ValueError(complaint(modality, summary, "not_binary", "neither 0 nor 1", advice))


def _shrunk_logit(x: Tensor, p: Tensor) -> Tensor:
    """Logit of the posterior mean ``(x + p) / 2`` of a probability with a Beta(p, 1 - p) prior after one value."""
    return ((x + p) / (2 - x - p)).log()
