"""What likelihoods of sequencing counts share, and the Poisson."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scvi.distributions import Poisson as ScviPoisson
from torch import Tensor
from torch.distributions import Distribution

from omicvae.nn.likelihoods._base import (
    LINK_SCALE_RANGE,
    FeatureMoments,
    Likelihood,
    Observed,
    complaint,
    float64,
)
from omicvae.nn.likelihoods._stirling import stirling_error
from omicvae.stats.summary import ValueSummary

LOG_RATE_RANGE = (-80.0, 25.0)  # what exp() can take in float32, and its square
LEAST_SIZE = 1e-6
DISPERSION_START = (1e-2, 1e4)
DEFAULT_DISPERSION = 1.0  # where training samples do not tell


class CountLikelihood(Likelihood):
    r"""Counts with a rate that is a share of the library.

    .. math::

        \text{rate}_j = \text{size} \cdot \beta \, \operatorname{softmax}(\log \pi + s \odot \eta)_j,
        \qquad \beta = \textstyle\sum_j \pi_j,

    with :math:`\pi_j` the mean of :math:`x_j / \text{size}` over training samples (at least half a count among all of
    them) and :math:`s_j` the training standard deviation of :math:`\log(1 + x_j \tilde n / \text{size})`,
    :math:`\tilde n` the median training size, within :data:`LINK_SCALE_RANGE`. :math:`\beta` is 1 where the size is the
    sum of the registered features; it keeps ``eta = 0`` at the training mean where the size counts others as well.
    With ``size_is_factor`` the size is a factor given by the user, whose product with a rate of no fixed sum is the
    expected count: :math:`\text{rate}_j = \text{size} \cdot \pi_j \exp(s_j \eta_j)`.

    Parameters
    ----------
    n_vars
        Number of features.
    size_is_factor
        Whether sizes are size factors (no softmax) instead of library sizes.
    """

    uses_size = True
    discrete = True
    response_family = "count"

    log_base: Tensor
    link_scale: Tensor
    median_size: Tensor
    dispersion_start: Tensor

    def __init__(self, n_vars: int, size_is_factor: bool = False) -> None:
        super().__init__(n_vars)
        self.size_is_factor = size_is_factor
        self.register_buffer("log_base", torch.zeros(n_vars))
        self.register_buffer("link_scale", torch.ones(n_vars))
        self.register_buffer("median_size", torch.ones(()))
        self.register_buffer("dispersion_start", torch.full((n_vars,), DEFAULT_DISPERSION))

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        blocks: Iterable[Observed] = list(chunks) if iter(chunks) is chunks else chunks
        self._fit_base(blocks)
        self._fit_scale(blocks)

    def _fit_base(self, blocks: Iterable[Observed]) -> None:
        """First pass: median size and mean share of every feature."""
        share, sizes = FeatureMoments(self.n_vars), [torch.zeros(0, dtype=torch.float64)]
        for block in blocks:
            size = float64(_size(block.size))
            sizes.append(size)
            share.update(float64(block.x) / size[:, None])
        size = torch.cat(sizes).sort().values
        if len(size) == 0:
            return
        self.median_size.copy_((size[(len(size) - 1) // 2] + size[len(size) // 2]) / 2)
        self.log_base.copy_(torch.maximum(share.mean, 0.5 / size.sum()).log())

    def _fit_scale(self, blocks: Iterable[Observed]) -> None:
        """Second pass: scale of the input, and dispersion by moments around the first pass's mean."""
        logs, sums = FeatureMoments(self.n_vars), torch.zeros(2, self.n_vars, dtype=torch.float64)
        base = float64(self.log_base).exp()
        for block in blocks:
            x, size = float64(block.x), float64(_size(block.size))[:, None]
            logs.update(torch.log1p(x / size * float64(self.median_size)))
            mu = torch.where(x.isnan(), 0.0, size * base)
            sums += torch.stack([mu.square().sum(0), ((x.nan_to_num() - mu).square() - mu).sum(0)])
        self._set_input(logs)
        self.link_scale.copy_(logs.deviation.clamp(*LINK_SCALE_RANGE))
        # var = mu + mu^2 / theta; no excess over the Poisson is the largest theta.
        squared_mean, excess = sums
        theta = torch.where(excess > 0, squared_mean / excess, torch.inf).clamp(*DISPERSION_START)
        self.dispersion_start.copy_(torch.where(logs.count < 2, DEFAULT_DISPERSION, theta))

    def linear_target(self, observed: Observed) -> Tensor:
        r"""``(n, p)`` log rate over the training mean, in units of the link scale, 0 where missing.

        The rate is its posterior mean given the count, which for a negative binomial with dispersion
        :math:`\theta` and mean :math:`\mu` is :math:`\mu (x + \theta) / (\mu + \theta)`: counts too few to tell
        count little, and zeros have a logarithm.
        """
        mu = _size(observed.size)[:, None] * self.log_base.exp()
        ratio = (observed.x + self.dispersion_start) / (mu + self.dispersion_start)
        return torch.where(self.measured(observed), ratio.log() / self.link_scale, 0.0).to(torch.float32)

    def _transform(self, observed: Observed) -> Tensor:
        return torch.log1p(observed.x / _size(observed.size)[:, None] * self.median_size)

    def _untransform(self, values: Tensor) -> Tensor:
        return torch.expm1(values.clamp(0.0, LOG_RATE_RANGE[1]))

    @property
    def separate(self) -> bool:
        return self.size_is_factor

    @property
    def reference_size(self) -> Tensor:
        """``()`` the median training size."""
        return self.median_size

    def _log_rate(self, eta: Tensor, size: Tensor | None) -> Tensor:
        """Log of the expected count, ``(..., p)``."""
        logits = self.log_base + self.link_scale * eta[..., 0, :]
        if not self.size_is_factor:
            logits = logits.log_softmax(-1)
        return logits + self._log_size(size).to(logits.dtype)[..., None]

    def _log_size(self, size: Tensor | None) -> Tensor:
        """Log of the expected sum of counts, ``(...)``, or of the factor."""
        log_size = _size(size).log()
        return log_size if self.size_is_factor else self.log_base.logsumexp(-1) + log_size

    @classmethod
    def _check(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None) -> None:
        otherwise = f"likelihoods={{{modality!r}: 'normal'}}"
        for kind in ("negative", "fractional"):
            if getattr(summary, f"n_{kind}"):
                advice = (
                    f"The {cls.name} likelihood needs raw counts. Register the layer that holds them, for example "
                    f"layers={{{modality!r}: 'counts'}}, or use {otherwise} for normalised or log-transformed values."
                )
                raise ValueError(complaint(modality, summary, kind, kind, advice))
        if summary.n_nan:
            advice = (
                f"The {cls.name} likelihood needs every count of a measured sample. If the assay of these samples "
                f"failed, drop them from mdata[{modality!r}] (they may stay in the other modalities), or use "
                f"{otherwise}."
            )
            raise ValueError(complaint(modality, summary, "nan", "NaN", advice))


class Poisson(CountLikelihood):
    r"""Counts that vary around their rate by sampling alone.

    .. math::

        \log p(x_j \mid \eta) = x_j \log \mu_j - \mu_j - \log x_j!, \qquad \mu_j = \text{rate}_j

    with the rate of :class:`CountLikelihood`. Own and cross do not differ: there is no free noise. For fragment counts
    of ATAC-seq see Martens et al., *Modeling fragment counts improves single-cell ATAC-seq analysis*, Nature Methods 21
    (2024).

    Parameters
    ----------
    n_vars
        Number of features.
    size_is_factor
        Whether sizes are size factors instead of library sizes.
    """

    name = "poisson"

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        rate = self._log_rate(eta, size).clamp(*LOG_RATE_RANGE).exp()
        return ScviPoisson(rate, validate_args=False)

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        """Written around ``x = mu``, so that large counts do not cancel: ``x log(mu / x) + x - mu`` is one term."""
        least_one = x.clamp(min=1.0)
        log_ratio = self._log_rate(eta, observed.size).clamp(max=LOG_RATE_RANGE[1]) - least_one.log()
        deviance = torch.where(x > 0, least_one * (torch.expm1(log_ratio) - log_ratio), log_ratio.exp())
        normaliser = 0.5 * (2 * torch.pi * least_one).log() + stirling_error(least_one)
        return -deviance - torch.where(x > 0, normaliser, 0.0)


def _size(size: Tensor | None) -> Tensor:
    if size is None:
        raise ValueError("likelihoods of counts need the library size or size factor of every sample")
    return size.clamp(min=LEAST_SIZE)
