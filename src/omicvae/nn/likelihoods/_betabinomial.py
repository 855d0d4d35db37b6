"""Beta-binomial likelihood for methylated reads out of a coverage: bisulfite sequencing."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from scvi.distributions import BetaBinomial as ScviBetaBinomial
from torch import Tensor
from torch.distributions import Beta as TorchBeta
from torch.distributions import Distribution

from omicvae.nn.likelihoods._base import (
    LINK_SCALE_RANGE,
    FeatureMoments,
    Observed,
    complaint,
    float64,
)
from omicvae.nn.likelihoods._beta import CONCENTRATION_START, DEFAULT_CONCENTRATION, Beta
from omicvae.nn.likelihoods._stirling import log_beta
from omicvae.stats.summary import ValueSummary


class BetaBinomial(Beta):
    r"""Methylated reads out of ``n`` whose level varies around a mean.

    .. math::

        p(x_j \mid n_j, \eta) = \binom{n_j}{x_j} \frac{B(x_j + a_j, n_j - x_j + b_j)}{B(a_j, b_j)},

    with :math:`a_j, b_j` from mean and concentration as in :class:`~omicvae.nn.likelihoods.Beta`: :math:`m_j` is the
    methylated fraction of all training reads, :math:`s_j` the training standard deviation of
    :math:`\operatorname{logit}\frac{x + 1/2}{n + 1}` (within :data:`LINK_SCALE_RANGE`), and the concentration (own and
    cross) starts at the moment estimate that takes the binomial part of the variance out. As in Weinberger and Lopez,
    *methylVI* (2023), and Dolzhenko and Smith, *Using beta-binomial regression for high-precision differential
    methylation analysis*, BMC Bioinformatics 15 (2014).

    Elements with coverage 0, or NaN in either layer, are missing.

    Parameters
    ----------
    n_vars
        Number of features.
    """

    name = "betabinomial"
    uses_coverage = True
    discrete = True
    response_family = "reads"

    _fill = 0.0

    def measured(self, observed: Observed) -> Tensor:
        return ~observed.x.isnan() & (_coverage(observed) > 0)

    @torch.no_grad()
    def fit(self, chunks: Iterable[Observed]) -> None:
        logit = FeatureMoments(self.n_vars)
        sums = torch.zeros(6, self.n_vars, dtype=torch.float64)
        for chunk in chunks:
            measured = self.measured(chunk)
            logit.update(torch.where(measured, self._transform(chunk), torch.nan))
            x, n = (float64(torch.where(measured, v, 0)) for v in (chunk.x, _coverage(chunk)))
            sums += torch.stack([v.sum(0) for v in (x, n, x * x, x * n, n * n, (n > 0).to(n))])
        x, n, xx, xn, nn, count = sums
        self._set_input(logit)
        mean = (x + 0.5) / (n + 1)
        self.logit_mean.copy_(mean.logit())
        self.link_scale.copy_(logit.deviation.clamp(*LINK_SCALE_RANGE))
        # E sum (x - n m)^2 = m (1 - m) (sum n + rho sum n (n - 1)) with rho = 1 / (1 + concentration)
        rho = ((xx - 2 * mean * xn + mean**2 * nn) / (mean * (1 - mean)) - n) / (nn - n)
        concentration = torch.where(rho > 0, 1 / rho - 1, torch.inf).clamp(*CONCENTRATION_START)
        known = (count > 1) & (nn > n)
        self.raw_noise.copy_(torch.where(known, concentration, DEFAULT_CONCENTRATION).log())

    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        """Distribution of the methylated reads or, where no coverage is given, of the methylation level.

        Parameters
        ----------
        eta
            ``(..., 1, p)`` raw decoder output.
        noise
            0 for own, 1 for cross; broadcasts against the leading dimensions of ``eta``.
        size
            Not used.
        coverage
            Total reads, broadcasting against ``(..., p)``; NaN counts as 0.

        Returns
        -------
        Beta-binomial counts, or the Beta distribution of the level, of ``batch_shape`` ``(..., p)``.
        """
        a, b = self._shapes(eta, noise)
        if coverage is None:
            return TorchBeta(a, b, validate_args=False)
        return MethylatedReads(a, b, torch.nan_to_num(coverage).to(a.dtype))

    def _transform(self, observed: Observed) -> Tensor:
        n = _coverage(observed)
        return ((observed.x + 0.5) / (n - observed.x + 0.5)).log()

    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        a, b = self._shapes(eta, noise)
        return _log_prob(x, torch.nan_to_num(_coverage(observed)).to(x.dtype), a, b)

    @classmethod
    def _check(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None) -> None:
        if coverage is None:
            raise ValueError(
                f"modality {modality!r}: the betabinomial likelihood needs the coverage as well as the methylated "
                f"reads. Name its layer with coverage_layers={{{modality!r}: 'coverage'}}, or register the fraction of "
                f"methylated reads with likelihoods={{{modality!r}: 'beta'}}."
            )
        advice = "Register the layers with raw numbers of methylated and of total reads."
        for layer, which in ((summary, "methylated reads"), (coverage, "coverage")):
            for kind in ("inf", "negative", "fractional"):
                if getattr(layer, f"n_{kind}"):
                    adjective = "infinite" if kind == "inf" else kind
                    raise ValueError(complaint(modality, layer, kind, f"{adjective} in the {which}", advice))
        if summary.n_above_upper:
            advice = (
                "The registered layer must hold methylated reads and the coverage layer all reads (methylated and "
                "unmethylated); check that the two are not exchanged."
            )
            raise ValueError(complaint(modality, summary, "above_upper", "larger than their coverage", advice))
        if summary.maximum > coverage.maximum:
            raise ValueError(
                f"modality {modality!r}: up to {summary.maximum:g} methylated reads, but a coverage of at most "
                f"{coverage.maximum:g}. Check that the two layers are not exchanged."
            )


class MethylatedReads(ScviBetaBinomial):
    """Beta-binomial whose log-probability is accurate in float32 for deep coverage."""

    def __init__(self, a: Tensor, b: Tensor, coverage: Tensor) -> None:
        super().__init__(total_count=coverage, alpha=a, beta=b, validate_args=False)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:
        """Draw methylated reads, as floats."""
        # newer scvi-tools draw in inference mode; what comes out could not be part of a later backward pass
        return super().sample(torch.Size(sample_shape)).clone()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-probability of ``value`` methylated reads."""
        return _log_prob(value, self.total_count, self.alpha, self.beta)


def _coverage(observed: Observed) -> Tensor:
    if observed.coverage is None:
        raise ValueError("the betabinomial likelihood needs observed.coverage")
    return observed.coverage


def _log_prob(x: Tensor, n: Tensor, a: Tensor, b: Tensor) -> Tensor:
    choose = -(n + 1).log() - log_beta(x + 1, n - x + 1)
    return choose + log_beta(x + a, n - x + b) - log_beta(a, b)
