"""Predictions of measured values by predictors that have not seen them, and their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Binomial, Distribution

from omicvae.data import Batch, Cohort
from omicvae.model._closed_form import read_target
from omicvae.module import MultimodalModule
from omicvae.module._prediction import Unknowns, draw_unknowns, moments_of
from omicvae.nn.likelihoods import Likelihood, Observed
from omicvae.stats.calibrated_draws import moved_by_rank, moved_by_residual
from omicvae.stats.conformal import Conformal, central_scores, residual_scores
from omicvae.stats.quantiles import central_interval
from omicvae.stats.scores import crps_sample

Float32 = NDArray[np.float32]

DRAWS, FEWER_DRAWS = 100, 50
DRAWS_IN_ALL = 50_000  # of a feature: with many samples, fewer of each give a mean score as precisely


class Detail(NamedTuple):
    """What is computed of held-out predictions."""

    n_draws: int
    crps: bool
    """Takes as long as everything else together."""
    normalized: bool
    """Whether with the predictive mean at the median library size."""


FOR_INTERVALS = Detail(FEWER_DRAWS, crps=False, normalized=False)
FOR_REPORTS = Detail(DRAWS, crps=True, normalized=True)

HELD = 2**24  # numbers of one (draws, samples, features) array held at once
MOST_VALUES = 2**22  # values of one part that are scored
SEED = 0


class Part(NamedTuple):
    """Samples with a target and exactly some sources, predicted by what has not seen them."""

    positions: NDArray[np.intp]
    """(n,) in the cohort."""
    folds: NDArray[np.intp]
    """(n,) samples of one fold share a fit; scores of one are never used to calibrate itself."""
    sources: tuple[int, ...]
    target: int
    predict: Callable[[NDArray[np.intp], Batch, Unknowns, int], Distribution]
    """Distribution of some rows of the part (all of one fold), given their batch, unknowns and number of draws."""

    def thinned(self, limit: int) -> Part:
        """At most ``limit`` of the samples, evenly spread."""
        if len(self.positions) <= limit:
            return self
        kept = np.linspace(0, len(self.positions) - 1, limit).astype(np.intp)
        predict = self.predict

        def chosen(rows: NDArray[np.intp], batch: Batch, unknowns: Unknowns, n_draws: int) -> Distribution:
            return predict(kept[rows], batch, unknowns, n_draws)

        return Part(self.positions[kept], self.folds[kept], self.sources, self.target, chosen)


class Scored(NamedTuple):
    """A part's predictions beside the truth, ``(n, p)`` unless said; NaN where not measured."""

    part: Part
    truth: Float32
    """In the units of the registered layer; the fraction of methylated reads for ``betabinomial``."""
    mean: Float32
    sd: Float32
    below: Float32
    """Predictive probability of less than the truth, from draws, ..."""
    at: Float32
    """... and of at most the truth."""
    pit: Float32
    """Randomised probability integral transform, before calibration."""
    conformity: Float32
    """What :mod:`omicvae.stats.conformal` calibrates."""
    standardised: Float32
    """The truth on the encoders' scale."""
    standardised_mean: Float32
    """Mean of the draws on that scale, the library size given, ..."""
    draw_variance: Float32
    """... and what its squared error owes to the number of draws; both ``(0, p)`` if the CRPS was not asked for."""
    normalized_mean: Float32
    """Predictive mean at the median library size, where there are library sizes and it was asked for."""
    crps: Float32 | None
    """On the encoders' scale, the library size given; ``None`` if not asked for."""
    discrete: bool = False
    binary: bool = False


def for_trust(part: Part) -> Detail:
    """What is computed of a part to tell the mean scores of its features."""
    return Detail(
        int(np.clip(DRAWS_IN_ALL // max(len(part.positions), 1), FEWER_DRAWS, DRAWS)), crps=True, normalized=False
    )


def score(module: MultimodalModule, cohort: Cohort, part: Part, detail: Detail) -> Scored:
    """Score a part; the same numbers at every call.

    Parameters
    ----------
    module
        Trained.
    cohort
        The training data.
    part
        What to score.
    detail
        What to compute.
    """
    name = module.modalities[part.target]
    likelihood = module.likelihoods.of(name)
    fields: dict[str, list[Float32]] = {f: [] for f in Scored._fields[1:-2]}
    order: list[NDArray[np.intp]] = []
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(SEED)
        for rows in _chunks(part, likelihood.n_vars):
            observed = read_target(module, cohort, part.positions[rows], part.target).observed
            batch = cohort.batch(part.positions[rows]).to(module.device)
            for field, values in _score_rows(module, name, part, rows, batch, observed, detail).items():
                fields[field].append(values.cpu().numpy().astype(np.float32, copy=False))
            order.append(rows)
    back = np.argsort(np.concatenate(order)) if order else np.zeros(0, np.intp)
    blank = np.zeros((0, likelihood.n_vars), np.float32)
    joined = {f: np.concatenate(v)[back] if v else blank for f, v in fields.items()}
    crps = joined.pop("crps")
    return Scored(
        part,
        **joined,
        crps=crps if detail.crps else None,
        discrete=likelihood.discrete,
        binary=likelihood.response_family == "binary",
    )


def _chunks(part: Part, n_vars: int) -> Iterator[NDArray[np.intp]]:
    size = max(1, HELD // (DRAWS * max(n_vars, 1)))
    for fold in np.unique(part.folds):
        members = np.flatnonzero(part.folds == fold)
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _score_rows(
    module: MultimodalModule,
    name: str,
    part: Part,
    rows: NDArray[np.intp],
    batch: Batch,
    observed: Observed,
    detail: Detail,
) -> dict[str, Tensor]:
    likelihood = module.likelihoods.of(name)
    nothing = torch.zeros(batch.n_samples, dtype=torch.bool, device=module.device)
    n_draws = detail.n_draws
    unknowns = draw_unknowns(module, batch, name, nothing, n_draws)
    distribution = part.predict(rows, batch, unknowns, n_draws)
    measured = likelihood.measured(observed)
    truth, mean, sd = _in_reported_units(distribution, observed)
    below = at = pit = torch.full_like(truth, torch.nan)
    if detail.crps or likelihood.discrete:
        draws = as_measured(distribution.sample(), observed)
        below = (draws < observed.x).sum(0) / (n_draws + 1)
        at = ((draws <= observed.x).sum(0) + 1) / (n_draws + 1)
        pit = below + torch.rand_like(below) * (at - below)
    if likelihood.discrete:
        conformity = central_scores(pit.cpu().numpy())
    else:
        conformity = residual_scores(truth.cpu().numpy(), mean.cpu().numpy(), sd.cpu().numpy())
    found = {"truth": truth, "mean": mean, "sd": sd, "below": below, "at": at, "pit": pit}
    found |= {
        "conformity": torch.from_numpy(conformity).to(truth),
        "standardised": likelihood.encode_transform(observed),
        "normalized_mean": mean,
    }
    if detail.normalized and likelihood.uses_size:
        at_median = draw_unknowns(module, batch, name, nothing, FEWER_DRAWS, scale="normalized")
        found["normalized_mean"] = part.predict(rows, batch, at_median, FEWER_DRAWS).mean.mean(0)
    if detail.crps:
        if likelihood.uses_size:
            unknowns = draw_unknowns(module, batch, name, ~nothing, n_draws)
            draws = part.predict(rows, batch, unknowns, n_draws).sample()
        moved = on_encoder_scale(likelihood, draws, observed)
        target = found["standardised"].cpu().numpy()
        variance, found["standardised_mean"] = torch.var_mean(moved, 0)
        found["draw_variance"] = variance / n_draws
        found["crps"] = torch.from_numpy(crps_sample(target, moved.cpu().numpy())).to(truth)
    return {k: torch.where(measured, v, torch.nan) for k, v in found.items()}


def as_measured(draws: Tensor, observed: Observed) -> Tensor:
    """Draws of what would have been measured: reads at the sample's coverage for methylation levels."""
    if observed.coverage is None:
        return draws
    coverage = observed.coverage.nan_to_num()
    return Binomial(coverage.expand_as(draws), probs=draws.clamp(0, 1), validate_args=False).sample()


def _in_reported_units(distribution: Distribution, observed: Observed) -> tuple[Tensor, Tensor, Tensor]:
    """Truth, predictive mean and sd."""
    means, within = distribution.mean, distribution.variance
    mean = means.mean(0)
    variance = within.mean(0) + means.var(0, correction=0)
    if observed.coverage is None:
        return observed.x, mean, variance.sqrt()
    coverage = observed.coverage.nan_to_num().clamp_min(1)
    sampling = (mean * (1 - mean) - variance).clamp_min(0) / coverage
    return observed.x / coverage, mean, (variance + sampling).sqrt()


def on_encoder_scale(likelihood: Likelihood, draws: Tensor, observed: Observed) -> Tensor:
    """``(K, n, p)`` draws as an encoder would see them in a sample of this library size or coverage."""
    k = draws.shape[0]
    flat = Observed(
        draws.flatten(0, 1),
        None if observed.size is None else observed.size.repeat(k),
        None if observed.coverage is None else observed.coverage.repeat(k, 1),
    )
    return likelihood.encode_transform(flat).reshape(draws.shape)


def intervals(
    module: MultimodalModule, cohort: Cohort, scored: Scored, conformal: dict[int, Conformal], level: float
) -> tuple[Float32, Float32]:
    """Limits ``(n, p)`` of central intervals at a level; each fold by the calibration under its number."""
    part, likelihood = scored.part, module.likelihoods.of(module.modalities[scored.part.target])
    lower, upper = np.full(scored.truth.shape, np.nan, np.float32), np.full(scored.truth.shape, np.nan, np.float32)
    devices = [module.device] if module.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.inference_mode():
        torch.manual_seed(SEED)
        for rows in _chunks(part, likelihood.n_vars):
            batch = cohort.batch(part.positions[rows]).to(module.device)
            nothing = torch.zeros(batch.n_samples, dtype=torch.bool, device=module.device)
            unknowns = draw_unknowns(module, batch, likelihood_name(module, part), nothing, DRAWS)
            distribution = part.predict(rows, batch, unknowns, DRAWS)
            found = calibrated_interval(
                likelihood, distribution, level, conformal.get(int(part.folds[rows[0]])),
                torch.from_numpy(scored.mean[rows]).to(module.device), torch.from_numpy(scored.sd[rows]).to(module.device),
            )  # fmt: skip
            lower[rows], upper[rows] = (limit.cpu().numpy() for limit in found)
    return lower, upper


def likelihood_name(module: MultimodalModule, part: Part) -> str:
    """The modality that a part is about."""
    return module.modalities[part.target]


def calibrated_interval(
    likelihood: Likelihood,
    distribution: Distribution,
    level: float,
    conformal: Conformal | None,
    mean: Tensor,
    sd: Tensor,
) -> tuple[Tensor, Tensor]:
    """Central interval ``(B, p)`` of a predictive distribution, made true by held-out scores.

    Continuous values: mean plus or minus a multiple of the sd. Counts and reads: quantiles of draws at a level that
    held-out values kept. 0/1 values, and where nothing was held out: the predictive distribution's own.

    Parameters
    ----------
    likelihood
        Of the modality.
    distribution
        ``(K, B, p)``
    level
        Nominal coverage.
    conformal
        Held-out scores.
    mean, sd
        ``(B, p)`` of the predictive distribution.
    """
    if conformal is None or likelihood.response_family == "binary":
        return likelihood.interval(distribution, level)
    bound = torch.from_numpy(conformal.quantile(level)).to(mean)
    if not likelihood.discrete:
        return likelihood.clip(mean - bound * sd), likelihood.clip(mean + bound * sd)
    lower, upper = central_interval(distribution.sample(), bound)
    if distribution.support.is_discrete:  # type: ignore[union-attr]
        return lower.floor(), upper.ceil()
    return lower, upper


def calibrated_sample(likelihood: Likelihood, distribution: Distribution, conformal: Conformal | None) -> Tensor:
    """``(K, B, p)`` draws whose central intervals are those of :func:`calibrated_interval`."""
    draws = distribution.sample()
    if conformal is None or likelihood.response_family == "binary":
        return draws
    if likelihood.discrete:
        whole = distribution.support.is_discrete  # type: ignore[union-attr]
        return moved_by_rank(draws, conformal, discrete=whole)
    moments = moments_of(distribution)
    return likelihood.clip(moved_by_residual(draws, conformal, moments.mean, moments.sd))
