"""From a prediction on the encoders' scale to a distribution of the data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Beta, Distribution

from omicvae.nn._code_regression import CodeRegression
from omicvae.nn._mixtures import ByFeature, TransformedResiduals
from omicvae.nn._residual_scale import ResidualScale
from omicvae.nn._size_prior import DrawnSizes
from omicvae.nn.likelihoods import Likelihood, NegativeBinomialCounts, Observed

GRID = 41
"""Quantiles of residuals that are kept."""
OWN_QUANTILES = 200  # residuals from which on a feature has quantiles of its own
ROWS = 1000  # samples from which a response is fitted; more tell nothing new about two or three numbers a feature
NEWTON_STEPS = 6
PRIOR_SAMPLES = 2.0  # how strongly the slope of the link is held at 1 and its intercept at 0
LEAST_DEVIATION = 1e-3
LEAST_SIZES = 50  # library sizes from which on they are told from the prediction
LEAST_SHARE = 0.05  # of the average rate or probability: what a prediction below it is raised to
LOG_THETA = (math.log(1e-2), math.log(1e4))
LEAST_COUNT = 3.0  # expected counts below which a residual on a transformed scale makes no sense
SLOPES = (0.0, 3.0)


class Response(nn.Module):
    r"""Distribution of an assay's values given a prediction of their transformed values.

    Two forms, chosen by likelihood, and for counts feature by feature by held-out likelihood:

    *residual*: the transformed value is the prediction plus a residual with the empirical distribution of held-out
    residuals, whose scale depends on the prediction (:class:`ResidualScale`) or is constant, mapped back and, for
    counts, rounded. Right for continuous values and for counts of some size.

    *rate*: a generalised linear model whose one covariate is the prediction :math:`v` on the link's scale,

    .. math::

        x_j \sim \operatorname{NB}(s\, e^{a_j + b_j v_j}, \theta_j), \qquad
        x_j \sim \operatorname{Bernoulli}(\operatorname{logit}^{-1}(a_j + b_j v_j)), \qquad
        x_j \sim \operatorname{BetaBin}(n, \operatorname{logit}^{-1}(a_j + b_j v_j), \phi_j).

    Right for sparse counts, 0/1 values and methylated reads, whose noise depends on their mean.

    Parameters
    ----------
    likelihood
        Of the assay, fitted.
    constant_scale
        Whether a feature's residuals have the same scale in every sample, as in a linear-Gaussian model.
    """

    deviation: Tensor
    quantiles: Tensor
    intercept: Tensor
    slope: Tensor
    log_theta: Tensor
    by_rate: Tensor
    least: Tensor

    def __init__(self, likelihood: Likelihood, *, constant_scale: bool = False) -> None:
        super().__init__()
        p = likelihood.n_vars
        self.constant_scale = constant_scale
        self.scale = ResidualScale(p)
        self.log_size = CodeRegression(p)
        self._likelihood = [likelihood]  # not a submodule: it belongs to the model
        self.family = likelihood.response_family
        self.register_buffer("deviation", torch.ones(p))
        self.register_buffer("quantiles", torch.linspace(-2, 2, GRID)[:, None])
        self.register_buffer("intercept", torch.zeros(p))
        self.register_buffer("slope", torch.ones(p))
        self.register_buffer("log_theta", torch.zeros(p))
        self.register_buffer("by_rate", torch.full((p,), self.family is not None))
        self.register_buffer("least", torch.full((p,), 1e-6))

    @property
    def likelihood(self) -> Likelihood:
        """Of the assay."""
        return self._likelihood[0]

    # ------------------------------------------------------------------ fit

    @torch.no_grad()
    def fit(
        self,
        prediction: Tensor,
        observed: Observed,
        size_score: Tensor | None = None,
        source_sizes: Tensor | None = None,
    ) -> Response:
        """Fit to predictions ``(n, p)`` of samples that the predictor was not fitted on.

        Parameters
        ----------
        prediction
            ``(n, p)``
        observed
            The values of these samples.
        size_score
            ``(n,)`` logarithms of their library sizes, in prior standard deviations from the prior mean.
        source_sizes
            ``(n, k)`` the same of the ``k`` assays with library sizes that are predicted from.

        Returns
        -------
        Itself.
        """
        if len(prediction) == 0:
            return self
        keep = spread_rows(len(prediction))
        prediction, observed = prediction[keep], observed.take(keep)
        if size_score is not None and len(keep) >= LEAST_SIZES and not self.constant_scale:
            beside = None if source_sizes is None else source_sizes[keep]
            self.log_size.fit(prediction, size_score[keep], beside)
        measured = self.likelihood.measured(observed)
        residual = torch.where(measured, self.likelihood.encode_transform(observed) - prediction, torch.nan)
        self._fit_residuals(prediction, residual)
        if self.family is not None:
            self._fit_rate(prediction, observed, measured)
        if self.family == "count":
            self.by_rate.copy_(self._rate_is_better(prediction, observed))
        return self

    def restore(self, arrays: Mapping[str, Tensor]) -> Response:
        """Read what ``state_dict`` gave; the sizes of some arrays differ from fit to fit.

        Returns
        -------
        Itself.
        """
        for name, value in arrays.items():
            owner, _, field = name.rpartition(".")
            setattr(self.get_submodule(owner), field, value)
        return self

    def _fit_residuals(self, prediction: Tensor, residual: Tensor) -> None:
        self._fit_deviation(residual)
        if not self.constant_scale and self.family in (None, "count"):
            some = torch.ones_like(self.by_rate)
            if self.family == "count":
                some = ~self._few(prediction)
            self.scale.fit(prediction, residual / self.deviation, some)
            residual = residual / self.scale(prediction)
            self._fit_deviation(residual)
        count = (~residual.isnan()).sum(0)
        standardised = residual / self.deviation
        own, varies = count >= OWN_QUANTILES, (count > 1) & (self.deviation > LEAST_DEVIATION)
        if bool(own.all()):
            self.quantiles = quantile_table(standardised)
            return
        pooled = standardised[:, varies]
        pooled = pooled[~pooled.isnan()]
        if len(pooled) < GRID:
            return
        table = quantile_table(pooled[:, None])
        if bool(own.any()):
            table = table.repeat(1, len(own))
            table[:, own] = quantile_table(standardised[:, own])
        self.quantiles = table

    def _fit_deviation(self, residual: Tensor) -> None:
        count = (~residual.isnan()).sum(0)
        spread = residual.square().nansum(0) / count.clamp_min(1)
        self.deviation.copy_(torch.where(count > 1, spread.sqrt(), 1.0).clamp_min(LEAST_DEVIATION))

    def _few(self, prediction: Tensor) -> Tensor:
        """``(p,)`` whether a feature's counts are too small for a residual on a transformed scale."""
        return self.likelihood.decode_transform(prediction).mean(0) < LEAST_COUNT

    def _fit_rate(self, prediction: Tensor, observed: Observed, measured: Tensor) -> None:
        raw = self.likelihood.input_mean + self.likelihood.input_scale * prediction
        if self.family != "reads":
            self.least.copy_((LEAST_SHARE * raw.clamp_min(0).mean(0)).clamp_min(1e-6))
        v = self._link(prediction)
        x, exposure = observed.x.nan_to_num(), self._exposure(observed, measured)
        center = torch.where(measured, v, 0.0).sum(0) / measured.sum(0).clamp_min(1)
        u = v - center
        a, b = center.clone(), torch.ones_like(center)  # around the centre, where the two hardly depend on one another
        overdispersion = torch.zeros_like(center)
        n = measured.sum(0).clamp_min(1)
        for step in range(NEWTON_STEPS):
            eta = (a + b * u).clamp(-30, 30)
            mean, weight = self._mean_and_weight(eta, exposure, overdispersion)
            weight = weight * measured
            score = torch.where(measured, (x - mean) * self._score_factor(mean, exposure, overdispersion), 0.0)
            held = PRIOR_SAMPLES * (weight.sum(0) / n).clamp_min(1e-8)
            spread = (u.square() * measured).sum(0) / n
            g = torch.stack([score.sum(0) - 1e-3 * held * (a - center), (score * u).sum(0) - held * spread * (b - 1)])
            h11, h12 = weight.sum(0) + 1e-3 * held, (weight * u).sum(0)
            h22 = (weight * u.square()).sum(0) + held * spread + 1e-8
            determinant = (h11 * h22 - h12.square()).clamp_min(1e-12)
            a = a + ((h22 * g[0] - h12 * g[1]) / determinant).clamp(-2, 2)
            b = (b + ((h11 * g[1] - h12 * g[0]) / determinant).clamp(-1, 1)).clamp(*SLOPES)
            if step % 2:
                mean, _ = self._mean_and_weight((a + b * u).clamp(-30, 30), exposure, overdispersion)
                overdispersion = self._overdispersion(x, mean, exposure, measured)
        self.intercept.copy_(a - b * center)
        self.slope.copy_(b)
        self.log_theta.copy_((-overdispersion.clamp_min(1e-30).log()).clamp(*LOG_THETA))

    def _exposure(self, observed: Observed, measured: Tensor) -> Tensor:
        if self.family == "count":
            assert observed.size is not None
            return observed.size[:, None].clamp_min(1e-6) / self.likelihood.reference_size
        if self.family == "reads":
            assert observed.coverage is not None
            return torch.where(measured, observed.coverage.nan_to_num(), 1.0)
        return self.deviation.new_ones(1, 1)

    def _mean_and_weight(self, eta: Tensor, exposure: Tensor, overdispersion: Tensor) -> tuple[Tensor, Tensor]:
        """Mean, and Fisher information of ``eta``."""
        if self.family == "count":
            mean = exposure * eta.exp()
            return mean, mean / (1 + overdispersion * mean)
        p = eta.sigmoid()
        return exposure * p, exposure * p * (1 - p) / (1 + self._extra(exposure, overdispersion))

    def _score_factor(self, mean: Tensor, exposure: Tensor, overdispersion: Tensor) -> Tensor:
        if self.family == "count":
            return 1 / (1 + overdispersion * mean)
        return 1 / (1 + self._extra(exposure, overdispersion))

    @staticmethod
    def _extra(exposure: Tensor, overdispersion: Tensor) -> Tensor:
        """Excess variance of beta-binomial reads over binomial ones, as a share; ``overdispersion`` is 1/phi."""
        return (exposure - 1).clamp_min(0) * overdispersion / (1 + overdispersion)

    def _overdispersion(self, x: Tensor, mean: Tensor, exposure: Tensor, measured: Tensor) -> Tensor:
        r"""Dispersion at which Pearson's statistic is its expectation (Breslow, 1984), by bisection of its logarithm."""
        if self.family == "binary" or self.likelihood.name == "poisson":
            return x.new_zeros(x.shape[1])
        squared = torch.where(measured, (x - mean).square(), 0.0)
        n = (measured.sum(0) - 2).clamp_min(1)
        low, high = (x.new_full((x.shape[1],), v) for v in (-LOG_THETA[1], -LOG_THETA[0]))
        for _ in range(12):
            middle = 0.5 * (low + high)
            d = middle.exp()
            if self.family == "count":
                variance = mean + d * mean.square()
            else:
                variance = mean * (1 - mean / exposure) * (1 + self._extra(exposure, d))
            too_small = (squared / variance.clamp_min(1e-8)).sum(0) > n
            low, high = torch.where(too_small, middle, low), torch.where(too_small, high, middle)
        return torch.where(measured.sum(0) > 2, (0.5 * (low + high)).exp(), 1.0)

    def _rate_is_better(self, prediction: Tensor, observed: Observed) -> Tensor:
        """``(p,)`` whether the rate form gives the held-out counts a larger probability."""
        assert observed.size is not None
        x = observed.x.nan_to_num()
        rate = self._rate_distribution(prediction[None], observed.size[None], 1).log_prob(x)[0].sum(0)

        deviation = self.deviation * self.scale(prediction)

        def standardised(value: Tensor) -> Tensor:
            moved = self.likelihood.encode_transform(observed._replace(x=value))
            return (moved - prediction) / deviation

        upper, lower = standardised(x + 0.5), torch.where(x > 0, standardised((x - 0.5).clamp_min(0)), -torch.inf)
        # of the tail in which it lies, where the difference of two probabilities keeps its digits
        flip = lower > 0
        upper, lower = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
        mass = torch.special.ndtr(upper) - torch.special.ndtr(lower)
        return self._few(prediction) | (rate >= mass.clamp_min(1e-12).log().sum(0))

    # ------------------------------------------------------------------ predict

    def conditioned(self, sizes: DrawnSizes, prediction: Tensor, source_sizes: Tensor | None = None) -> Tensor:
        """``(K, B)`` library sizes as they are to be expected beside a prediction, instead of from the prior.

        Cells of one type, and tumours of one kind, have sizes that are more alike than those of all samples; so have the
        assays of one sample.

        Parameters
        ----------
        sizes
            Drawn from the prior.
        prediction
            ``(K or 1, B, p)`` on the encoders' scale.
        source_sizes
            ``(B, k)`` as in :meth:`fit`.
        """
        if len(self.log_size.coefficients) == 0:
            return sizes.size
        narrower = (self.log_size.residual - 1) * sizes.score
        return sizes.size * (sizes.deviation * (self.log_size(prediction, source_sizes) + narrower)).exp()

    def _link(self, prediction: Tensor) -> Tensor:
        """The prediction on the scale of the rate's linear predictor."""
        raw = self.likelihood.input_mean + self.likelihood.input_scale * prediction
        if self.family == "count":
            return torch.expm1(torch.maximum(raw, self.least).clamp_max(25.0)).log()
        if self.family == "binary":
            most = 1 - LEAST_SHARE + self.least  # the same share of the average probability of a 0, below 1
            return torch.minimum(torch.maximum(raw, self.least), most).clamp(1e-6, 1 - 1e-4).logit()
        return raw

    def _rate_distribution(
        self, prediction: Tensor, size: Tensor | None, n_draws: int, columns: Tensor | slice = slice(None)
    ) -> Distribution:
        """``(K, B, p)`` for predictions ``(K or 1, B, p)``: what draws have in common is computed once."""
        eta = (self.intercept + self.slope * self._link(prediction)).clamp(-30, 25)[..., columns]
        log_theta = self.log_theta[columns]
        if self.family == "count":
            assert size is not None
            mu = (size / self.likelihood.reference_size).unsqueeze(-1) * eta.exp()
            return NegativeBinomialCounts(mu=mu.clamp_min(1e-8), theta=log_theta.exp())
        if self.family == "binary":
            return Bernoulli(logits=eta.expand(n_draws, -1, -1), validate_args=False)
        phi = log_theta.exp()
        p = eta.sigmoid().clamp(1e-6, 1 - 1e-6).expand(n_draws, -1, -1)
        return Beta(p * phi, (1 - p) * phi, validate_args=False)

    def forward(self, prediction: Tensor, size: Tensor | None, n_draws: int) -> Distribution:
        """Distribution of the values, in the units of the registered layer (methylation levels for reads).

        Parameters
        ----------
        prediction
            ``(K or 1, B, p)`` on the encoders' scale.
        size
            ``(K, B)`` library sizes, for counts.
        n_draws
            ``K``.

        Returns
        -------
        Distribution of ``batch_shape`` ``(K, B, p)``.
        """
        prediction = prediction.to(self.deviation)
        if bool(self.by_rate.all()):
            return self._rate_distribution(prediction, size, n_draws)
        if not bool(self.by_rate.any()):
            return self._residual_distribution(prediction, size, n_draws, slice(None))
        columns = (~self.by_rate).nonzero()[:, 0], self.by_rate.nonzero()[:, 0]
        components = [
            self._residual_distribution(prediction, size, n_draws, columns[0]),
            self._rate_distribution(prediction, size, n_draws, columns[1]),
        ]
        return ByFeature(components, columns)

    def _residual_distribution(
        self, prediction: Tensor, size: Tensor | None, n_draws: int, columns: Tensor | slice
    ) -> Distribution:
        factor = None
        if self.family == "count":
            assert size is not None
            factor = size / self.likelihood.reference_size
        return TransformedResiduals(
            prediction[..., columns],
            (self.deviation * self.scale(prediction))[..., columns],
            self.quantiles[:, columns] if self.quantiles.shape[1] > 1 else self.quantiles,
            back=partial(self.likelihood.decode_transform, columns=columns),
            size=factor,
            discrete=self.likelihood.discrete,
            n_draws=n_draws,
        )


def spread_rows(n: int) -> Tensor:
    """At most :data:`ROWS` of ``n`` rows, evenly spread."""
    return torch.arange(n) if n <= ROWS else torch.linspace(0, n - 1, ROWS).long()


def quantile_table(values: Tensor) -> Tensor:
    """``(GRID, p)`` quantiles of each column's values ``(n, p)`` that are not NaN, at least one in each.

    The outermost two are not the smallest and the largest value, which between many others would make the tails far too
    heavy once values are drawn uniformly between quantiles, but such that a tail keeps its mean.
    """
    ordered = values.sort(0).values  # NaN last
    count = (~values.isnan()).sum(0)
    at = torch.linspace(0, 1, GRID, device=values.device)[:, None] * (count - 1)
    low = at.long().minimum(count - 1)
    high = (low + 1).minimum(count - 1)
    table = torch.lerp(ordered.gather(0, low), ordered.gather(0, high), (at - low).to(values.dtype))
    below, start = int(at[1].max()) + 1, int(at[-2].min())
    rank = torch.arange(len(ordered), device=values.device)[:, None]
    lower = _masked_mean(ordered[:below], rank[:below] <= at[1])
    upper = _masked_mean(ordered[start:], (rank[start:] >= at[-2]) & (rank[start:] < count))
    table[0] = torch.maximum(table[0], 2 * lower - table[1])
    table[-1] = torch.minimum(table[-1], 2 * upper - table[-2])
    return table.to(torch.float32)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    return torch.where(mask, values, 0.0).sum(0) / mask.sum(0).clamp_min(1)
