"""Likelihood of what was measured, alone or given other assays, by importance sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module._base import MultimodalModule
from omicvae.module._records import LikelihoodTerms

CHUNK = 2**22  # decoded numbers held at once
DEFENSIVE_SHARE = 0.1  # of the draws of a conditional likelihood, from the latents' distribution before the targets


def importance_weighted(
    module: MultimodalModule,
    batch: Batch,
    n_samples: int,
    *,
    targets: Tensor | None = None,
    given: Tensor | None = None,
) -> LikelihoodTerms:
    r"""Importance-weighted log-likelihood of each sample's targets, :math:`\log p(x_T)` or :math:`\log p(x_T | x_G)`.

    .. math::
        \log \frac1S \sum_s \frac{\prod_{m \in T} p(x_m | z_s)\, \pi(z_s)}{r(z_s)}, \qquad z_s \sim r

    Without ``given``, :math:`\pi = p(z)` and :math:`r = q(z|x_T)`: a lower bound of :math:`\log p(x_T)` in expectation.
    With it, :math:`\pi = q(z|x_G)`, the distribution that imputation decodes, and
    :math:`r = .9\, q(z|x_{G \cup T}) + .1\, q(z|x_G)`: the density of what the model predicts for :math:`T`, the density of
    a distribution whether or not :math:`q` is exact, and :math:`\log p(x_T | x_G)` where it is. The second component of
    :math:`r` bounds the weights where :math:`q(z|x_{G \cup T})` is too narrow. Draws are stratified over components.

    Noise is that of assays that were seen (*own*) without ``given``, and that of predictions (*cross*) with it, where a
    model has both. Library sizes and coverages are those of the sample: counts are scored given their depth.

    Parameters
    ----------
    module
        A trained module.
    batch
        Minibatch of ``B`` samples.
    n_samples
        Draws ``S``.
    targets
        ``(B, M)`` bool, assays to score among those measured; all that are not given by default. Without any, 0.
    given
        ``(B, M)`` bool, assays to condition on among those measured.

    References
    ----------
    Burda et al., *Importance weighted autoencoders*, ICLR 2016, eq. (8). Hesterberg, *Weighted average importance sampling
    and defensive mixture distributions*, Technometrics 37 (1995).
    """
    sources = torch.zeros_like(batch.present) if given is None else given & batch.present
    scored = (batch.present if targets is None else targets & batch.present) & ~sources
    evidence = module.encode(batch)
    before = None if given is None else module.posterior(evidence, batch, sources)
    after = module.proposal(evidence, batch, scored, None if given is None else sources)
    n_before = 0 if before is None else int(DEFENSIVE_SHARE * n_samples)
    z = after.sample(n_samples - n_before)
    if before is not None and n_before:
        z = torch.cat([z, before.sample(n_before)])
    noise = module.predictive_route(given is None)
    per_chunk = max(1, CHUNK // (max(batch.n_samples, 1) * max(m.n_vars for m in module.schema.modalities)))
    parts = []
    for some in z.split(per_chunk):
        prior = module.prior_log_prob(some) if before is None else before.log_prob(some)
        parts.append(torch.stack([log_likelihood(module, batch, some, scored, noise), prior, after.log_prob(some)]))
    return _combine(torch.cat(parts, 1).double(), n_before)


def _combine(found: Tensor, n_before: int) -> LikelihoodTerms:
    """From ``(3, S, B)`` log-likelihood, log density before and log density after, the last ``n_before`` draws from before."""
    reconstruction, prior, posterior = found
    S = found.shape[1]
    density = posterior
    if n_before:
        share = n_before / S
        density = torch.logaddexp(posterior + math.log(1 - share), prior + math.log(share))
    weights = reconstruction + prior - density
    total = torch.logsumexp(weights, 0)
    effective = (2 * total - torch.logsumexp(2 * weights, 0)).exp()
    means = found[:, : S - n_before].mean(1)
    return LikelihoodTerms(total - math.log(S), means[0], means[1], means[2], effective)


def log_likelihood(module: MultimodalModule, batch: Batch, z: Tensor, targets: Tensor, noise: int) -> Tensor:
    """``(S, B)`` log-likelihood of the assays in ``targets`` ``(B, M)``, all measured, at latents ``z`` ``(S, B, D)``."""
    total = torch.zeros(z.shape[:2], device=z.device)
    inputs = module.decoder_inputs(z)
    route = torch.full((1, 1), noise, device=z.device)
    for i, modality in enumerate(module.modalities):
        wanted = targets[batch.rows[modality], i]
        rows = batch.rows[modality][wanted]
        if len(rows) == 0:
            continue
        design = module.design(batch, modality)
        z_m = inputs[modality].index_select(1, rows)
        eta = module.decode(modality, z_m, None if design is None else design.index_select(0, rows), route)
        observed = module.observed(batch, modality).take(wanted)
        total = total.index_add(1, rows, module.likelihoods.of(modality).log_prob(eta, observed, route))
    return total
