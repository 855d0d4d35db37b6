"""Beta likelihood for proportions: methylation arrays."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import Distribution

from omicvae.nn.likelihoods._base import (
    FeatureMoments,
    Likelihood,
    Observed,
    complaint,
    gather,
    noise_parameter,
)
from omicvae.nn.likelihoods._blockwise import BetaDensity, decodings, of_decodings, pays
from omicvae.nn.likelihoods._stirling import log_beta
from omicvae.stats.summary import ValueSummary

logger = logging.getLogger("omicvae")

SQUEEZE = 1e-4
"""Proportions are moved into ``[SQUEEZE, 1 - SQUEEZE]``: the density is 0 or infinite at exactly 0 and 1. The technical
noise of methylation arrays is about a hundred times larger."""

MOST_LOGIT = 12.0  # of a mean, beyond what squeezed data ask for; keeps both parameters of the density above 0
CONCENTRATION_START = (1.0, 1e5)
LOG_CONCENTRATION_RANGE = (math.log(0.1), math.log(1e6))
DEFAULT_CONCENTRATION = 10.0  # where training samples do not tell


class Beta(Likelihood):
    r"""Beta density by mean and concentration.

    .. math::

        p(x_j \mid \eta) = \frac{x_j^{a_j - 1} (1 - x_j)^{b_j - 1}}{B(a_j, b_j)}, \qquad
        a_j = \phi_{rj} \mu_j, \quad b_j = \phi_{rj} (1 - \mu_j), \quad
        \mu_j = \operatorname{sigmoid}(\operatorname{logit}(m_j) + s_j \eta_j),

    with :math:`m_j` the training mean, :math:`s_j` the training standard deviation of :math:`\operatorname{logit} x`
    (the M-value up to a factor, at least :data:`LEAST_INPUT_SCALE`) and :math:`r` own or cross. The concentration
    :math:`\phi = \exp(` ``raw_noise`` :math:`)` is larger where values are closer to their mean; it starts at the
    moment estimate :math:`m(1-m)/v - 1` for both rows. Mean-concentration form of Ferrari and Cribari-Neto, *Beta
    regression for modelling rates and proportions*, Journal of Applied Statistics 31 (2004).

    Values are squeezed to ``[SQUEEZE, 1 - SQUEEZE]``.

    Parameters
    ----------
    n_vars
        Number of features.
    """

    name = "beta"
    discrete = False

    _fill = 0.5

    logit_mean: Tensor
    link_scale: Tensor

    def __init__(self, n_vars: int) -> None:
        super().__init__(n_vars)
        self.register_buffer("logit_mean", torch.zeros(n_vars))
        self.register_buffer("link_scale", torch.ones(n_vars))
        self.raw_noise = noise_parameter(n_vars)

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        level, logit = FeatureMoments(self.n_vars), FeatureMoments(self.n_vars)
        for chunk in chunks:
            level.update(_squeeze(chunk.x))
            logit.update(self._transform(chunk))
        self._set_input(logit)
        mean = torch.where(level.count == 0, 0.5, level.mean)
        concentration = mean * (1 - mean) / level.variance - 1
        start = torch.where(level.count < 2, DEFAULT_CONCENTRATION, concentration.clamp(*CONCENTRATION_START))
        self.logit_mean.copy_(mean.logit())
        self.link_scale.copy_(self.input_scale)
        self.raw_noise.copy_(start.log())
        self.varies.copy_((level.variance > 0) | (level.count < 2))

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        a, b = self._shapes(eta, noise)
        return TorchBeta(a, b, validate_args=False)

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        if not pays(eta, observed.x, noise):
            return super().log_prob(eta, observed, noise)
        x, mask = self.filled(observed)
        x, weight = _squeeze(x), self.varies.to(x.dtype) * (torch.ones_like(x) if mask is None else mask)
        log_phi = of_decodings(gather(self.raw_noise.clamp(*LOG_CONCENTRATION_RANGE), noise), eta)
        arguments = (log_phi, x, weight, self.logit_mean, self.link_scale, MOST_LOGIT)
        fixed = ((x.log() + torch.log1p(-x)) * weight).sum(-1)  # of the uniform density
        return (BetaDensity.apply(decodings(eta), *arguments) - fixed).reshape(eta.shape[:-2])

    def linear_target(self, observed: Observed) -> Tensor:
        target = (self._transform(observed) - self.logit_mean) / self.link_scale
        return torch.where(self.measured(observed), target, 0.0).to(torch.float32)

    def _shapes(self, eta: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Both shape parameters of the Beta distribution, ``(..., p)``."""
        logit = (self.logit_mean + self.link_scale * (eta[..., 0, :] * self.varies)).clamp(-MOST_LOGIT, MOST_LOGIT)
        concentration = gather(self.raw_noise.clamp(*LOG_CONCENTRATION_RANGE).exp(), noise)
        # 1 - sigmoid(l) loses all digits where sigmoid(-l) does not.
        return concentration * logit.sigmoid(), concentration * (-logit).sigmoid()

    def _transform(self, observed: Observed) -> Tensor:
        return _squeeze(observed.x).logit()

    def clip(self, values: Tensor) -> Tensor:
        """Values moved into [0, 1]."""
        return values.clamp(0.0, 1.0)

    def _untransform(self, values: Tensor) -> Tensor:
        return values.sigmoid()

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        a, b = self._shapes(eta, noise)
        x = _squeeze(x)
        return (a - 1) * x.log() + (b - 1) * torch.log1p(-x) - log_beta(a, b)

    @classmethod
    def _check(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None) -> None:
        if summary.n_outside_unit:
            advice = (
                "The beta likelihood needs proportions between 0 and 1 (NaN where not measured). Register the layer "
                f"with beta values, or use likelihoods={{{modality!r}: 'normal'}} for M-values."
            )
            raise ValueError(complaint(modality, summary, "outside_unit", "outside [0, 1]", advice))
        if summary.n_exact_unit:
            logger.info(
                "modality %r: %d values are exactly 0 or 1 and are squeezed to %g and 1 - %g",
                modality, summary.n_exact_unit, SQUEEZE, SQUEEZE,
            )  # fmt: skip


def _squeeze(x: Tensor) -> Tensor:
    return x.clamp(SQUEEZE, 1 - SQUEEZE)
