"""Start CoVAE at the linear-Gaussian model of the data: principal components, and the moments between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from omicvae.data import Batch
from omicvae.nn import Covariates
from omicvae.stats.factors import OwnFactors, Potentials, pca_potentials
from omicvae.stats.gaussian import block_slices, shrink_cross_blocks

if TYPE_CHECKING:
    from omicvae.module._covae import CoVAEModule

MOST_ROWS = 4096
SHRINKAGE = 0.99  # of correlations of latents that are functions of the same factors
RIDGE = 1e-2


@torch.no_grad()
def linear_start(
    module: CoVAEModule, batches: Callable[[], Iterable[Batch]], factors: Mapping[str, OwnFactors] | None = None
) -> None:
    r"""Set encoders, decoders and ``Sigma`` to a closed-form linear model; perceptrons start near zero.

    Each assay's latents are its probabilistic principal components, whose evidence on factor ``k`` is
    :math:`m_k(x) = v_k'x / l_k` with precision :math:`l_k^2 / \sigma^2`. Because the noise of two assays is
    independent, :math:`E[m_a m_b']` over samples that have both estimates the block :math:`\Sigma_{ab}` without bias;
    it is then denoised. Decoders regress the link-scale data on the posterior mean of the factors and on covariates.

    With factors of a joint model, each assay's latents are the directions of these it tells about, and :math:`\Sigma` is
    what they have in common.

    Parameters
    ----------
    module
        Module whose likelihoods and designs have been fitted.
    batches
        Yields the training samples; the first few thousand are used.
    factors
        modality -> factors of a joint linear model, instead of principal components.
    """
    gathered = list(_first_rows(batches()))
    n_samples = sum(batch.n_samples for batch in gathered)
    potentials, measured = [], []
    for modality in module.modalities:
        own = None if factors is None else factors[modality].potentials
        location, rows = _start_modality(module, modality, gathered, own)
        full = torch.zeros(n_samples, location.shape[1], dtype=torch.float64)
        full[rows] = location.double()
        potentials.append(full)
        here = torch.zeros(n_samples, dtype=torch.float64)
        here[rows] = 1.0
        measured.append(here)
    if factors is not None:
        module.set_prior(_common(module, factors).to(module.prior_covariance))
        return
    covariance = torch.eye(sum(module.sizes), dtype=torch.float64)
    blocks = block_slices(module.sizes)
    pairs = torch.stack(measured) @ torch.stack(measured).mT
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[:i]):
            moment = potentials[i].mT @ potentials[j] / pairs[i, j].clamp_min(1.0)
            covariance[a, b], covariance[b, a] = moment, moment.mT
    module.set_prior(shrink_cross_blocks(covariance, module.sizes, pairs).to(module.prior_covariance))


def _common(module: CoVAEModule, factors: Mapping[str, OwnFactors]) -> Tensor:
    """Covariance of all assays' latents that are directions of the same factors; positive definite."""
    padded = [
        F.pad(factors[m].rotation, (0, d - factors[m].rotation.shape[1]))
        for m, d in zip(module.modalities, module.sizes, strict=True)
    ]
    rotation = torch.cat(padded, 1)
    covariance = SHRINKAGE * rotation.mT @ rotation
    return covariance.fill_diagonal_(1.0)


def _first_rows(batches: Iterable[Batch]) -> Iterable[Batch]:
    seen = 0
    for batch in batches:
        yield batch
        seen += batch.n_samples
        if seen >= MOST_ROWS:
            return


def _gathered(module: CoVAEModule, modality: str, batches: list[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """``(n, p)`` inputs of a modality, ``(n, k)`` covariates, and which samples these are."""
    likelihood, n = module.likelihoods.of(modality), sum(len(batch.rows[modality]) for batch in batches)
    inputs = torch.empty(n, likelihood.n_vars, device=module.device)
    designs, rows, first, offset = [], [], 0, 0
    for batch in batches:
        here = batch.rows[modality]
        inputs[first : first + len(here)] = likelihood.encode_transform(module.observed(batch, modality))
        design = module.designs.of(modality)(Covariates(batch.codes, batch.continuous))
        designs.append(torch.zeros(len(here), 0) if design is None else design[here])
        rows.append(here + offset)
        first, offset = first + len(here), offset + batch.n_samples
    return inputs, torch.cat(designs), torch.cat(rows)


def _decoder_coefficients(module: CoVAEModule, modality: str, batches: list[Batch], predictors: Tensor) -> Tensor:
    """``(k, p)`` regression of the decoder's targets on centred predictors ``(n, k)``, a minibatch of targets at a time."""
    likelihood, first = module.likelihoods.of(modality), 0
    moment = torch.zeros(predictors.shape[1], likelihood.n_vars, device=predictors.device)
    for batch in batches:
        targets = likelihood.linear_target(module.observed(batch, modality))
        moment += predictors[first : first + len(targets)].mT @ targets
        first += len(targets)
    return _solved(predictors, moment)


def _start_modality(
    module: CoVAEModule, modality: str, gathered: list[Batch], own: Potentials | None
) -> tuple[Tensor, Tensor]:
    """Linear encoder and decoder of one modality; returns its potential means and the samples they belong to."""
    encoder, decoder = module.encoders.of(modality), module.decoders.of(modality)
    within, design, row = _gathered(module, modality, gathered)
    center = within.mean(0)
    within -= center  # in place: before training there is no larger array than this one
    explained = _regress(design, within)
    if design.shape[1]:
        within.addmm_(design, explained, alpha=-1)
    own = pca_potentials(within, encoder.n_latent) if own is None else own
    # Fewer samples or factors than latents leave the last latents without a direction, and without evidence.
    blank = encoder.n_latent - own.weight.shape[1]
    weight = F.pad(own.weight, (0, blank)).to(within)
    encoder.linear.weight.zero_()
    encoder.linear.weight[:, : len(weight)] = weight.mT
    if module.network.encode_covariates and design.shape[1]:
        encoder.linear.weight[:, len(weight) :] = -(explained @ weight).mT
    encoder.linear.bias.copy_(-center @ weight)
    precision = F.pad(own.precision, (0, blank)).to(within).clamp(0.05, 100.0)
    encoder.scale_bias.copy_(precision + torch.log(-torch.expm1(-precision)))  # inverse of softplus
    location = within @ weight
    means = location * (precision / (1 + precision))
    predictors = torch.cat([means, design], 1)
    coefficients = _decoder_coefficients(module, modality, gathered, predictors - predictors.mean(0))
    decoder.linear.weight.view(decoder.n_heads, decoder.n_vars, -1)[0].copy_(coefficients.mT)
    # a curved link leaves the mean of its target off zero; at eta = 0 the likelihood stands at the training mean
    decoder.linear.bias.view(decoder.n_heads, decoder.n_vars)[0].copy_(-predictors.mean(0) @ coefficients)
    return location, row


def _regress(x: Tensor, y: Tensor) -> Tensor:
    """``(k, p)`` lightly penalised least squares of ``y`` ``(n, p)`` on ``x`` ``(n, k)``."""
    return _solved(x, x.mT @ y)


def _solved(x: Tensor, moment: Tensor) -> Tensor:
    """The same from ``moment``, ``x' y``."""
    gram = x.mT @ x + RIDGE * len(x) * torch.eye(x.shape[1])
    return torch.linalg.solve(gram, moment)
