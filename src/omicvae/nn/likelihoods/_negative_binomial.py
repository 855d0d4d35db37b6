"""Negative binomial likelihoods for overdispersed counts, without and with zero inflation."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scvi.distributions import NegativeBinomial as ScviNegativeBinomial
from scvi.distributions import ZeroInflatedNegativeBinomial as ScviZeroInflatedNegativeBinomial
from torch import Tensor, nn
from torch.distributions import Distribution

from omicvae.nn.likelihoods._base import Observed, gather, noise_parameter
from omicvae.nn.likelihoods._blockwise import CountDeviance, decodings, noise_of_decodings, pays
from omicvae.nn.likelihoods._counts import LOG_RATE_RANGE, CountLikelihood
from omicvae.nn.likelihoods._stirling import log_beta

Float32 = NDArray[np.float32]

LOG_DISPERSION_RANGE = (math.log(1e-3), math.log(1e5))
SPARSE = 0.25  # share of nonzero counts below which they are worth picking out, on a CPU
MOST_COUNT = 1e15
FEW, LEAST_SHAPE = 1.0, 0.1  # mean below which, and dispersion above which, counts are quicker to draw by inversion
LEAST_FEW = 0.1  # share of such counts from which on it pays to draw them apart
DROPOUT_START = -3.0  # logit


class NegativeBinomial(CountLikelihood):
    r"""Counts whose rate varies more than their sampling.

    .. math::

        p(x_j \mid \eta) = \frac{\Gamma(x_j + \theta_{rj})}{\Gamma(\theta_{rj})\, x_j!}
            \Big(\frac{\theta_{rj}}{\theta_{rj} + \mu_j}\Big)^{\theta_{rj}}
            \Big(\frac{\mu_j}{\theta_{rj} + \mu_j}\Big)^{x_j}, \qquad
        \operatorname{Var} x_j = \mu_j + \mu_j^2 / \theta_{rj},

    with :math:`\mu_j` the rate of :class:`CountLikelihood` and :math:`\theta = \exp(` ``raw_noise`` :math:`)` the
    inverse dispersion, own or cross: what the other modalities do not tell about a count adds to its variance. Both
    rows start at the moment estimate around the training mean. As Lopez et al., *Deep generative modeling for
    single-cell transcriptomics* (scVI), Nature Methods 15 (2018).

    Parameters
    ----------
    n_vars
        Number of features.
    size_is_factor
        Whether sizes are size factors instead of library sizes.
    """

    name = "nb"

    def __init__(self, n_vars: int, size_is_factor: bool = False) -> None:
        super().__init__(n_vars, size_is_factor)
        self.raw_noise = noise_parameter(n_vars)

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        super().fit(chunks)
        self.raw_noise.copy_(self.dispersion_start.log())

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        log_rate = self._log_rate(eta, size).clamp(*LOG_RATE_RANGE)
        return NegativeBinomialCounts(mu=log_rate.exp(), theta=self._log_dispersion(noise).exp())

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        x = observed.x
        if x.device.type != "cpu" or x.isnan().any():
            return super().log_prob(eta, observed, noise)
        sparse = bool(torch.count_nonzero(x) < SPARSE * x.numel())
        if pays(eta, x, noise):
            return self._log_prob_in_blocks(eta, observed, noise, sparse)
        return self._log_prob_of_sparse(eta, observed, noise) if sparse else super().log_prob(eta, observed, noise)

    def _log_prob_in_blocks(self, eta: Tensor, observed: Observed, noise: Tensor, sparse: bool) -> Tensor:
        """A few rows at a time; what does not depend on the mean is computed once for all decodings with the same noise."""
        used, which = noise_of_decodings(noise, eta)
        which, log_theta, x = which.reshape(-1), self._log_dispersion(used), observed.x
        rows, columns = x.nonzero(as_tuple=True) if sparse else (which[:0], which[:0])
        counts = x[rows, columns]
        deviance, at = CountDeviance.apply(
            decodings(eta),
            log_theta[which],
            self._log_size(observed.size),
            self.log_base,
            self.link_scale,
            not self.size_is_factor,
            None if sparse else x,
            rows,
            columns,
        )
        theta = log_theta.double().exp()
        if sparse:
            fixed = theta.new_zeros(len(used), len(x))
            fixed = fixed.index_add(1, rows, _coefficient(counts.double(), theta[:, columns]))
        else:
            fixed = _coefficient(x.double(), theta[:, None]).sum(-1)
        total = (fixed.to(x.dtype)[which] - deviance).index_add(1, rows, -counts * F.softplus(-at))
        return total.reshape(eta.shape[:-2])

    def _log_prob_of_sparse(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        r"""Sum over features when most counts are 0, where all terms but :math:`-\theta \log(1 + \mu/\theta)` vanish."""
        log_theta = self._log_dispersion(noise)
        logit = self._log_rate(eta, observed.size) - log_theta
        total = -(log_theta.exp() * F.softplus(logit)).sum(-1)
        rows, columns = observed.x.nonzero(as_tuple=True)
        x, at = observed.x[rows, columns], logit[..., rows, columns]
        theta = log_theta.expand_as(logit)[..., rows, columns].exp()
        return total.index_add(-1, rows, _log_coefficient(x, theta) - x * F.softplus(-at))

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        return _log_prob(x, self._log_rate(eta, observed.size), self._log_dispersion(noise))

    def _log_dispersion(self, noise: Tensor) -> Tensor:
        return gather(self.raw_noise.clamp(*LOG_DISPERSION_RANGE), noise)


class ZeroInflatedNegativeBinomial(NegativeBinomial):
    r"""Negative binomial counts of which a part is lost.

    .. math::

        p(x_j \mid \eta) = \pi_j \, [x_j = 0] + (1 - \pi_j)\, \mathrm{NB}(x_j; \mu_j, \theta_{rj}), \qquad
        \operatorname{logit} \pi_j = b_j + \eta^{(2)}_j,

    with the negative binomial of :class:`NegativeBinomial` (own and cross :math:`\theta` as there), a second head
    :math:`\eta^{(2)}` and :math:`b_j` a parameter that starts at -3: at ``eta = 0`` 5 % of counts are lost, and the
    mean is 5 % below the training mean. As Lopez et al., *Deep generative modeling for single-cell transcriptomics*
    (scVI), Nature Methods 15 (2018). Counts with unique molecular identifiers seldom need it (Svensson, *Droplet
    scRNA-seq is not zero-inflated*, Nature Biotechnology 38, 2020).

    Parameters
    ----------
    n_vars
        Number of features.
    size_is_factor
        Whether sizes are size factors instead of library sizes.
    """

    name = "zinb"
    n_heads = 2

    def __init__(self, n_vars: int, size_is_factor: bool = False) -> None:
        super().__init__(n_vars, size_is_factor)
        self.dropout_logit = nn.Parameter(torch.full((n_vars,), DROPOUT_START))

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        log_rate = self._log_rate(eta, size).clamp(*LOG_RATE_RANGE)
        dispersion = self._log_dispersion(noise).exp()
        return ZeroInflatedCounts(mu=log_rate.exp(), theta=dispersion, zi_logits=self._dropout(eta))

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        return CountLikelihood.log_prob(self, eta, observed, noise)  # inflation changes the zeros: none can be skipped

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        counts = _log_prob(x, self._log_rate(eta, observed.size), self._log_dispersion(noise))
        return _inflate(x, counts, self._dropout(eta))

    def _dropout(self, eta: Tensor) -> Tensor:
        return self.dropout_logit + eta[..., 1, :]


class NegativeBinomialCounts(ScviNegativeBinomial):
    """scvi-tools' distribution with its ``batch_shape``, samples autograd can use, and an accurate log-probability."""

    def __init__(self, *, mu: Tensor, theta: Tensor) -> None:
        super().__init__(mu=mu, theta=theta)
        self._batch_shape = self.mu.shape

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw counts, as floats."""
        if self.mu.device.type == "cpu":
            return _numpy_draws(self.mu, self.theta, torch.Size(sample_shape) + self.batch_shape)
        # scvi-tools draws in inference mode; what comes out could not be part of a later backward pass.
        return super().sample(torch.Size(sample_shape)).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts."""
        return _log_prob(value, self.mu.log(), self.theta.log())


def _numpy_draws(mu: Tensor, theta: Tensor, shape: torch.Size) -> Tensor:
    """Draws by numpy, several times as fast as torch's on a CPU, under torch's seed."""
    rng = np.random.default_rng(int(torch.randint(2**62, ())))
    means, shapes = (np.broadcast_to(t.detach().numpy(), shape) for t in (mu, theta))
    few = (means < FEW) & (shapes > LEAST_SHAPE)
    if few.all():
        return torch.from_numpy(_by_inversion(rng, means, shapes))
    if few.mean() < LEAST_FEW:
        return torch.from_numpy(_by_gamma(rng, means, shapes))
    drawn = np.empty(shape, np.float32)
    drawn[few], drawn[~few] = _by_inversion(rng, means[few], shapes[few]), _by_gamma(rng, means[~few], shapes[~few])
    return torch.from_numpy(drawn)


def _by_gamma(rng: np.random.Generator, mu: Float32, theta: Float32) -> Float32:
    """Poisson draws with gamma-distributed rates."""
    shapes = theta.astype(np.float64)
    rates = rng.standard_gamma(shapes) * (mu / shapes)
    return rng.poisson(np.minimum(rates, MOST_COUNT)).astype(np.float32)


def _by_inversion(rng: np.random.Generator, mu: Float32, theta: Float32) -> Float32:
    """The largest counts that are reached with a probability above a uniform draw: one step where most are 0."""
    odds = mu / (theta + mu)
    reached = -np.expm1(theta * np.log1p(-odds))
    drawn = np.zeros(mu.shape, np.float32)
    uniform = rng.random(mu.shape, dtype=np.float32) + np.float32(2**-25)  # never 0, which no count is beyond
    left: NDArray[Any] = np.flatnonzero(uniform < reached)
    u, q, shape = (a.reshape(-1)[left].astype(np.float64) for a in (uniform, odds, theta))
    mass, count = np.exp(shape * np.log1p(-q)), 0  # in float64: what is left of 1 has to fall below any uniform draw
    above = 1 - mass
    while len(left):
        mass = mass * q * ((count + shape) / (count + 1))
        above, count = above - mass, count + 1
        drawn.reshape(-1)[left] = count
        higher = u < above
        left = left[higher]
        u, mass, above, q, shape = (a[higher] for a in (u, mass, above, q, shape))
    return drawn


class ZeroInflatedCounts(ScviZeroInflatedNegativeBinomial):
    """scvi-tools' distribution with the same three changes."""

    def __init__(self, *, mu: Tensor, theta: Tensor, zi_logits: Tensor) -> None:
        super().__init__(mu=mu, theta=theta, zi_logits=zi_logits)
        self._batch_shape = self.mu.shape

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw counts, as floats."""
        return super().sample(torch.Size(sample_shape)).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of counts."""
        return _inflate(value, _log_prob(value, self.mu.log(), self.theta.log()), self.zi_logits)


def _log_prob(x: Tensor, log_mu: Tensor, log_theta: Tensor) -> Tensor:
    """Log-probability of counts, accurate in float32.

    ``lgamma`` and ``log(theta) - log(theta + mu)``, the terms of the usual form, lose up to a nat at counts of a million
    and tens of nats at ten million. Here every term is small where the sum is.
    """
    theta, logit = log_theta.exp(), log_mu - log_theta
    return _log_coefficient(x, theta) - theta * F.softplus(logit) - x * F.softplus(-logit)


def _coefficient(x: Tensor, theta: Tensor) -> Tensor:
    """:func:`_log_coefficient` in double precision, where differences of ``lgamma`` are accurate enough, and quicker."""
    return torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)


def _log_coefficient(x: Tensor, theta: Tensor) -> Tensor:
    r""":math:`\log \Gamma(x + \theta) - \log \Gamma(\theta) - \log x!`, which is 0 for a count of 0."""
    return -log_beta(theta, x + 1) - (x + theta).log()


def _inflate(x: Tensor, log_prob: Tensor, dropout: Tensor) -> Tensor:
    """Log-probability after zero inflation with logit ``dropout``."""
    kept = log_prob - F.softplus(dropout)
    return torch.where(x > 0, kept, torch.logaddexp(-F.softplus(-dropout), kept))
