"""Predictive distributions of a modality given any set of assays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from omicvae.data import Batch
from omicvae.nn import Covariates

if TYPE_CHECKING:
    from omicvae.module._base import MultimodalModule


class Predictive(NamedTuple):
    """``K`` equally weighted components of a predictive distribution."""

    distribution: Distribution
    """batch shape (K, B, n_vars)."""
    used: Tensor
    """(B, M) bool: the assays each row was conditioned on."""


class Moments(NamedTuple):
    """A predictive distribution in numbers, all (B, n_vars)."""

    mean: Tensor
    sd: Tensor
    sd_latent: Tensor
    """Part of the sd that comes from not knowing latents, library size and batch."""
    sd_noise: Tensor
    """Part of the sd that would remain if they were known."""
    lower: Tensor | None
    upper: Tensor | None


def predictive_distribution(
    module: MultimodalModule,
    batch: Batch,
    target: str,
    given: Tensor,
    n_draws: int,
    *,
    scale: Literal["input", "normalized"] = "input",
    transform_batch: int | None = None,
) -> Predictive:
    """Draw latents, unknown batches and unknown library sizes, and decode.

    Parameters
    ----------
    module
        A trained module.
    batch
        Minibatch of ``B`` samples.
    target
        Modality to predict.
    given
        ``(B, M)`` or ``(M,)`` bool: assays that may be conditioned on; intersected with what each sample has.
    n_draws
        Number of components ``K``.
    scale
        ``"input"``: units of the registered layer, with the library size known only if ``target`` is conditioned on;
        ``"normalized"``: at the median training library size.
    transform_batch
        Decode as if every sample came from this batch category.
    """
    used = given & batch.present
    column = module.modalities.index(target)
    posterior = module.posterior(module.encode(batch), batch, used)
    z = module.decoder_inputs(posterior.sample(n_draws))[target]
    codes = module.designs.of(target).fill(batch.codes, n_draws)
    if transform_batch is not None:
        codes.update(
            {name: torch.full_like(c, transform_batch) for name, c in codes.items() if not name.startswith("cat_")}
        )
    design = module.designs.of(target)(Covariates(codes, batch.continuous))
    eta = module.decoders.of(target)(z, design)
    own, cross = (module.predictive_route(flag) for flag in (True, False))
    noise = torch.where(used[:, column], own, cross)
    size = _sizes(module, batch, target, used[:, column], codes, n_draws, scale)
    distribution = module.likelihoods.of(target)(eta, noise=noise, size=size, coverage=None)
    return Predictive(distribution, used)


def _sizes(
    module: MultimodalModule,
    batch: Batch,
    target: str,
    known: Tensor,
    codes: dict[str, Tensor],
    n_draws: int,
    scale: str,
) -> Tensor | None:
    """``(K, B)`` library sizes: the sample's own where its assay is conditioned on, drawn from the prior elsewhere."""
    if not module.likelihoods.of(target).uses_size:
        return None
    prior = module.size_priors.of(target)
    if scale == "normalized":
        return prior.median.expand(n_draws, batch.n_samples)
    batches = [c for name, c in codes.items() if not name.startswith("cat_")]
    drawn = prior.sample(batches[0] if batches else torch.zeros_like(known, dtype=torch.int64).expand(n_draws, -1))
    own = torch.ones(batch.n_samples, device=drawn.device).index_copy(0, batch.rows[target], batch.size[target])
    return torch.where(known, own, drawn)


def summarise_draws(module: MultimodalModule, predictive: Predictive, target: str, level: float | None) -> Moments:
    """Mean, standard deviation with its two parts (law of total variance), and the central interval at ``level``."""
    distribution = predictive.distribution
    means = distribution.mean
    n_draws = means.shape[0]
    within = distribution.variance.mean(0)
    between = means.var(0, correction=1) if n_draws > 1 else torch.zeros_like(within)
    likelihood = module.likelihoods.of(target)
    lower, upper = (None, None) if level is None else likelihood.interval(distribution, level)
    return Moments(means.mean(0), (within + between).sqrt(), between.sqrt(), within.sqrt(), lower, upper)
