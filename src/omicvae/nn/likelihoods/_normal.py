"""Normal likelihood for values on a continuous scale."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Normal as TorchNormal

from omicvae.nn.likelihoods._base import FeatureMoments, Likelihood, Observed, gather, noise_parameter
from omicvae.nn.likelihoods._blockwise import Squares, decodings, of_decodings, pays

LOG_NOISE_RANGE = (-6.0, 4.0)  # of log(noise sd / training sd): a feature fitted without error must not reach 0
_FLOAT32_RESOLUTION = 1e-7


class Normal(Likelihood):
    r"""Normal density with a noise standard deviation per feature.

    .. math::

        \log p(x_j \mid \eta) = -\tfrac12 \Big(\frac{x_j - \bar x_j - s_j \eta_j}{\sigma_j}\Big)^2
            - \log \sigma_j - \tfrac12 \log 2\pi, \qquad \sigma_j = s_j \exp(\rho_{rj}),

    with :math:`\bar x_j, s_j` the training mean and standard deviation (1 for a constant feature) and :math:`r` own
    or cross. Both rows of ``raw_noise`` (:math:`\rho`) start at 0: before training, a feature is as uncertain as it
    varies. Own noise is what the latent code of the modality itself leaves unexplained, cross noise what the other
    modalities leave.

    Parameters
    ----------
    n_vars
        Number of features.
    scale
        ``"feature"`` learns the noise (Rybkin, Daniilidis and Levine, *Simple and effective VAE training with
        calibrated decoders*, ICML 2021); ``"unit"`` fixes :math:`\sigma_j = s_j`, the unit variance on standardised
        features of the papers on multimodal VAEs, and has no parameter.
    """

    name = "normal"
    discrete = False

    def __init__(self, n_vars: int, scale: Literal["feature", "unit"] = "feature") -> None:
        super().__init__(n_vars)
        if scale not in ("feature", "unit"):
            raise ValueError(f"scale must be 'feature' or 'unit', got {scale!r}")
        self.raw_noise: nn.Parameter | None = noise_parameter(n_vars) if scale == "feature" else None

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        moments = FeatureMoments(self.n_vars)
        for chunk in chunks:
            moments.update(chunk.x)
        constant = moments.deviation <= _FLOAT32_RESOLUTION * moments.mean.abs()
        self.input_mean.copy_(moments.mean)
        self.input_scale.copy_(torch.where(constant, 1.0, moments.deviation))
        if self.raw_noise is not None:
            constant &= moments.count > 1
            self.varies.copy_(~constant)
            self.raw_noise.masked_fill_(constant, LOG_NOISE_RANGE[0])

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> TorchNormal:
        location = self.input_mean + self.input_scale * (eta[..., 0, :] * self.varies)
        return TorchNormal(location, self.input_scale * self._log_noise(noise).exp(), validate_args=False)

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        if not pays(eta, observed.x, noise):
            return super().log_prob(eta, observed, noise)
        x, mask = self.filled(observed)
        log_noise, varies = of_decodings(self._log_noise(noise), eta), self.varies.to(x.dtype)
        target = (x - self.input_mean) / self.input_scale
        squares = Squares.apply(decodings(eta), target, mask, varies * torch.exp(-2 * log_noise))
        log_scale = (log_noise + self.input_scale.log() + 0.5 * math.log(2 * math.pi)) * varies
        volume = log_scale.sum(-1, keepdim=True) if mask is None else log_scale @ mask.mT
        return (-0.5 * squares - volume).reshape(eta.shape[:-2])

    def linear_target(self, observed: Observed) -> Tensor:
        return self.encode_transform(observed)

    def _transform(self, observed: Observed) -> Tensor:
        return observed.x

    def _untransform(self, values: Tensor) -> Tensor:
        return values

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        log_noise = self._log_noise(noise)
        residual = ((x - self.input_mean) / self.input_scale - eta[..., 0, :]) * torch.exp(-log_noise)
        return -0.5 * residual.square() - (log_noise + self.input_scale.log() + 0.5 * math.log(2 * math.pi))

    def _log_noise(self, noise: Tensor) -> Tensor:
        """Log of the noise in training standard deviations, ``(*noise.shape, p)``, or ``()`` where it is fixed."""
        if self.raw_noise is None:
            return self.input_mean.new_zeros(())
        return gather(self.raw_noise.clamp(*LOG_NOISE_RANGE), noise)


class UnitNormal(Normal):
    """:class:`Normal` with ``scale="unit"``, under a name of its own: the papers' fixed variance of 1.

    Parameters
    ----------
    n_vars
        Number of features.
    """

    name = "unit_normal"

    def __init__(self, n_vars: int) -> None:
        super().__init__(n_vars, scale="unit")
