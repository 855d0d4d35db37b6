"""Bounds on the likelihood of what was measured."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module._base import MultimodalModule

CHUNK = 2**22  # decoded numbers held at once


def importance_weighted(module: MultimodalModule, batch: Batch, n_samples: int) -> Tensor:
    r"""``(B,)`` importance-weighted bound with the posterior given everything measured as its proposal.

    .. math:: \log \frac1S \sum_s \frac{\prod_m p(x_m | z_s)\, p(z_s)}{q(z_s | x)}

    Parameters
    ----------
    module
        A trained module.
    batch
        Minibatch of ``B`` samples.
    n_samples
        Draws ``S``.
    """
    posterior = module.posterior(module.encode(batch), batch, batch.present)
    widest = max(m.n_vars for m in module.schema.modalities)
    per_chunk = max(1, CHUNK // (max(batch.n_samples, 1) * widest))
    weights = []
    for start in range(0, n_samples, per_chunk):
        z = posterior.sample(min(per_chunk, n_samples - start))
        weights.append(joint_log_likelihood(module, batch, z) + module.prior_log_prob(z) - posterior.log_prob(z))
    return torch.logsumexp(torch.cat(weights), 0) - math.log(n_samples)


def joint_log_likelihood(module: MultimodalModule, batch: Batch, z: Tensor) -> Tensor:
    """``(S, B)`` log-likelihood of the measured modalities at latents ``z`` ``(S, B, D)``."""
    total = torch.zeros(z.shape[:2], device=z.device)
    inputs = module.decoder_inputs(z)
    for modality in module.modalities:
        rows = batch.rows[modality]
        design = module.design(batch, modality)
        noise = torch.full((1, 1), module.predictive_route(True), device=z.device)
        z_m = inputs[modality].index_select(1, rows)
        eta = module.decode(modality, z_m, None if design is None else design.index_select(0, rows), noise)
        packed = module.likelihoods.of(modality).log_prob(eta, module.observed(batch, modality), noise)
        total = total.index_add(1, rows, packed)
    return total
