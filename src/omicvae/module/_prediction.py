"""Predictive distributions of a modality given any set of assays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from omicvae.data import Batch
from omicvae.nn import Covariates, DrawnSizes

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


class Unknowns(NamedTuple):
    """What is drawn before anything is decoded, because it is not known of a sample: ``K`` times."""

    design: Tensor | None
    """(K, B, c) covariates of the target."""
    sizes: DrawnSizes | None
    """Library sizes of the target."""

    @property
    def size(self) -> Tensor | None:
        """``(K, B)`` library sizes of the target."""
        return None if self.sizes is None else self.sizes.size


def draw_unknowns(
    module: MultimodalModule,
    batch: Batch,
    target: str,
    known: Tensor,
    n_draws: int,
    *,
    scale: Literal["input", "normalized"] = "input",
    transform_batch: int | None = None,
) -> Unknowns:
    """Draw unknown batches and library sizes.

    Parameters
    ----------
    module
        A trained module.
    batch
        Minibatch of ``B`` samples.
    target
        Modality to predict.
    known
        ``(B,)`` bool: samples whose own library size may be used.
    n_draws
        Number of draws ``K``.
    scale
        ``"input"``: sizes as they are or as they could be; ``"normalized"``: the median training size.
    transform_batch
        As if every sample came from this batch category.
    """
    codes = module.designs.of(target).fill(batch.codes, n_draws)
    if transform_batch is not None:
        codes.update(
            {name: torch.full_like(c, transform_batch) for name, c in codes.items() if not name.startswith("cat_")}
        )
    design = module.designs.of(target)(Covariates(codes, batch.continuous))
    if design is not None:
        design = design.expand(n_draws, -1, -1)  # continuous covariates alone have nothing to draw
    return Unknowns(design, _sizes(module, batch, target, known, codes, n_draws, scale))


def predictive_distribution(
    module: MultimodalModule,
    batch: Batch,
    target: str,
    given: Tensor,
    n_draws: int,
    *,
    scale: Literal["input", "normalized"] = "input",
    transform_batch: int | None = None,
    unknowns: Unknowns | None = None,
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
    unknowns
        Drawn before, ``K`` times, instead of here.
    """
    used = given & batch.present
    known = used[:, module.modalities.index(target)]
    if unknowns is None:
        unknowns = draw_unknowns(module, batch, target, known, n_draws, scale=scale, transform_batch=transform_batch)
    posterior = module.posterior(module.encode(batch), batch, used)
    z = module.decoder_inputs(posterior.sample(n_draws))[target]
    own, cross = (module.predictive_route(flag) for flag in (True, False))
    noise = torch.where(known, own, cross)
    eta = module.decode(target, z, unknowns.design, noise)
    distribution = module.likelihoods.of(target)(eta, noise=noise, size=unknowns.size, coverage=None)
    return Predictive(distribution, used)


def _sizes(
    module: MultimodalModule,
    batch: Batch,
    target: str,
    known: Tensor,
    codes: dict[str, Tensor],
    n_draws: int,
    scale: str,
) -> DrawnSizes | None:
    """Library sizes: the sample's own where its assay is conditioned on, drawn from the prior elsewhere."""
    if not module.likelihoods.of(target).uses_size:
        return None
    prior = module.size_priors.of(target)
    nothing = torch.zeros(n_draws, batch.n_samples, device=known.device)
    if scale == "normalized":
        return DrawnSizes(prior.median.expand_as(nothing), nothing, nothing)
    drawn = prior.sample(batch_codes(codes, nothing.long()))
    own = torch.ones_like(nothing[0]).index_copy(0, batch.rows[target], batch.size[target])
    return DrawnSizes(*(torch.where(known, a, b) for a, b in zip((own, nothing, nothing), drawn, strict=True)))


def batch_codes(codes: Mapping[str, Tensor], without: Tensor) -> Tensor:
    """Codes of the batch covariate, or ``without`` one."""
    found = [c for name, c in codes.items() if not name.startswith("cat_")]
    return found[0] if found else without


def moments_of(distribution: Distribution) -> Moments:
    """Mean and standard deviation of ``K`` equally weighted components, with its two parts (law of total variance)."""
    means = distribution.mean
    within = distribution.variance.mean(0)
    between = means.var(0, correction=1) if means.shape[0] > 1 else torch.zeros_like(within)
    return Moments(means.mean(0), (within + between).sqrt(), between.sqrt(), within.sqrt())
