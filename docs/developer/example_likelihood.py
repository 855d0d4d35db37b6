"""A complete likelihood: Laplace noise, for continuous values with outliers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.distributions import Laplace as TorchLaplace

from omicvae.nn.likelihoods import LIKELIHOODS, Likelihood, Observed
from omicvae.nn.likelihoods._base import FeatureMoments, gather, noise_parameter


class Laplace(Likelihood):
    r"""Laplace density with a scale per feature.

    .. math:: \log p(x_j | \eta) = -\frac{|x_j - \bar x_j - s_j \eta_j|}{b_{rj}} - \log 2 b_{rj}, \qquad
        b_{rj} = s_j e^{\rho_{rj}} / \sqrt 2

    with :math:`\bar x_j, s_j` the training mean and standard deviation, and :math:`r` own or cross.
    """

    name = "laplace"
    discrete = False

    def __init__(self, n_vars: int) -> None:
        super().__init__(n_vars)
        self.raw_noise = noise_parameter(n_vars)  # (2, p), learned at five times the rate of weights

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        moments = FeatureMoments(self.n_vars)
        for chunk in chunks:
            moments.update(chunk.x)
        self._set_input(moments)  # input_mean and input_scale

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> TorchLaplace:
        return TorchLaplace(self.input_mean + self.input_scale * eta[..., 0, :], self._scale(noise))

    def linear_target(self, observed: Observed) -> Tensor:
        return self.encode_transform(observed)  # the link is the identity

    def _transform(self, observed: Observed) -> Tensor:
        return observed.x

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        return self(eta, noise=noise).log_prob(x)

    def _scale(self, noise: Tensor) -> Tensor:
        return self.input_scale * gather(self.raw_noise, noise).exp() / 2**0.5


LIKELIHOODS["laplace"] = Laplace
