"""Correlated Gaussians: posteriors under evidence potentials, conditioning, and covariances with unit blocks.

Latent vectors are concatenations of one block a modality; ``sizes`` are the block widths. Matrices of the prior are
prepared in float64 (:func:`gaussian_prior`), whatever the dtype the network works in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

COMPLETION_SWEEPS = 30


class GaussianPrior(NamedTuple):
    """``N(mean, covariance)`` over all latents, with the matrices that posteriors need."""

    mean: Tensor
    """(D,)"""
    covariance: Tensor
    """(D, D)"""
    precision: Tensor
    """(D, D) inverse of the covariance."""
    tril: Tensor
    """(D, D) lower Cholesky factor of the covariance."""
    logdet: Tensor
    """() log determinant of the covariance."""


class FullGaussian(NamedTuple):
    """A batch of Gaussians held by the Cholesky factor of their *precision*."""

    mean: Tensor
    """(B, D)"""
    precision_tril: Tensor
    """(B, D, D) lower factor ``L`` with precision ``L L'``."""

    def rsample(self, n_samples: int) -> Tensor:
        """``(n_samples, B, D)`` reparametrised draws."""
        noise = torch.randn(n_samples, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        spread = torch.linalg.solve_triangular(self.precision_tril.mT, noise.permute(1, 2, 0), upper=True)
        return self.mean + spread.permute(2, 0, 1)

    def covariance(self) -> Tensor:
        """``(B, D, D)``."""
        return torch.cholesky_inverse(self.precision_tril)

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(B, r)`` of ``z @ matrix``, without forming the covariance."""
        wide = matrix.expand(self.mean.shape[0], -1, -1)
        half = torch.linalg.solve_triangular(self.precision_tril, wide, upper=False)
        return self.mean @ matrix, half.square().sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(n_samples, B)`` log density at ``value`` ``(n_samples, B, D)``."""
        scaled = torch.einsum("bij,sbi->sbj", self.precision_tril, value - self.mean)
        half_logdet = torch.diagonal(self.precision_tril, dim1=-2, dim2=-1).log().sum(-1)
        return half_logdet - 0.5 * scaled.square().sum(-1) - 0.5 * self.mean.shape[-1] * math.log(2 * math.pi)


class CovarianceGaussian(NamedTuple):
    """A batch of Gaussians held by the Cholesky factor of their covariance."""

    mean: Tensor
    """(B, D)"""
    tril: Tensor
    """(B, D, D) lower factor of the covariance."""

    def rsample(self, n_samples: int) -> Tensor:
        """``(n_samples, B, D)`` reparametrised draws."""
        noise = torch.randn(n_samples, *self.mean.shape, dtype=self.mean.dtype, device=self.mean.device)
        return self.mean + torch.einsum("bij,sbj->sbi", self.tril, noise)

    def covariance(self) -> Tensor:
        """``(B, D, D)``."""
        return self.tril @ self.tril.mT

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(B, r)`` of ``z @ matrix``."""
        return self.mean @ matrix, (self.tril.mT @ matrix).square().sum(-2)

    def log_prob(self, value: Tensor) -> Tensor:
        """``(n_samples, B)`` log density at ``value`` ``(n_samples, B, D)``."""
        density = torch.distributions.MultivariateNormal(self.mean, scale_tril=self.tril, validate_args=False)
        return density.log_prob(value)

    def kl(self, prior: GaussianPrior) -> Tensor:
        """``(B,)`` divergence from ``prior``."""
        trace = (prior.precision @ self.tril * self.tril).sum((-2, -1))
        offset = self.mean - prior.mean
        quadratic = ((offset @ prior.precision) * offset).sum(-1)
        logdet = 2 * torch.diagonal(self.tril, dim1=-2, dim2=-1).log().sum(-1)
        return 0.5 * (trace + quadratic - self.mean.shape[-1] + prior.logdet - logdet)


def gaussian_prior(mean: Tensor, covariance: Tensor) -> GaussianPrior:
    """Prepare ``N(mean, covariance)``; factors are computed in float64 and returned in the dtype of ``mean``.

    Raises
    ------
    torch.linalg.LinAlgError
        If the covariance is not positive definite.
    """
    wide = covariance.double()
    tril = torch.linalg.cholesky(wide)
    logdet = 2 * torch.diagonal(tril).log().sum()
    matrices = (wide, torch.cholesky_inverse(tril), tril, logdet)
    return GaussianPrior(mean, *(m.to(mean.dtype) for m in matrices))


def cholesky(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of ``(..., D, D)``.

    On a GPU a matrix that is not positive definite gives NaN: an error would mean waiting for the device at every step.

    Raises
    ------
    torch.linalg.LinAlgError
        On the CPU, if a matrix is not positive definite.
    """
    if not matrix.is_cuda:
        return torch.linalg.cholesky(matrix)
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where((info == 0)[..., None, None], factor, torch.nan)


def potential_posterior(prior: GaussianPrior, location: Tensor, precision: Tensor) -> FullGaussian:
    r"""Posterior under evidence potentials :math:`N(z; m, \Lambda^{-1})` with diagonal :math:`\Lambda`.

    .. math:: P = \Sigma^{-1} + \Lambda, \qquad \mu = P^{-1}(\Sigma^{-1} \mu_0 + \Lambda m)

    Parameters
    ----------
    prior
        The prior over all ``D`` latents.
    location
        ``(B, D)`` potential means ``m``; any finite value where the precision is 0.
    precision
        ``(B, D)`` diagonal of ``Lambda``, 0 for latents without evidence.
    """
    P = prior.precision + torch.diag_embed(precision)
    L = cholesky(P)
    h = precision * location + prior.precision @ prior.mean
    mean = torch.cholesky_solve(h.unsqueeze(-1), L).squeeze(-1)
    return FullGaussian(mean, L)


def potential_kl(posterior: FullGaussian, prior: GaussianPrior, precision: Tensor) -> Tensor:
    r"""``(B,)`` divergence of :func:`potential_posterior` from its prior.

    .. math:: \tfrac12 [ -\mathrm{tr}(\Lambda C) + (\mu-\mu_0)' \Sigma^{-1} (\mu-\mu_0) + \log|P| + \log|\Sigma| ]

    because :math:`\mathrm{tr}(\Sigma^{-1} C) = D - \mathrm{tr}(\Lambda C)`.
    """
    L = posterior.precision_tril
    half = torch.linalg.solve_triangular(L, torch.diag_embed(precision.sqrt()), upper=False)
    trace = half.square().sum((-2, -1))
    offset = posterior.mean - prior.mean
    quadratic = ((offset @ prior.precision) * offset).sum(-1)
    logdet_P = 2 * torch.diagonal(L, dim1=-2, dim2=-1).log().sum(-1)
    return 0.5 * (quadratic - trace + logdet_P + prior.logdet)


def diagonal_kl(mean: Tensor, variance: Tensor) -> Tensor:
    """``(...,)`` divergence of ``N(mean, diag(variance))`` from the standard normal."""
    return 0.5 * (variance + mean.square() - 1 - variance.log()).sum(-1)


def block_slices(sizes: Sequence[int]) -> list[slice]:
    """Where each block lies in the concatenated latent vector."""
    ends = torch.tensor(list(sizes)).cumsum(0).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def symmetric_power(matrix: Tensor, power: float, floor: float = 1e-6) -> Tensor:
    """Symmetric matrix power with eigenvalues floored at ``floor`` times the largest."""
    values, vectors = torch.linalg.eigh(matrix.double())
    values = values.clamp_min(floor * values[-1].clamp_min(1e-12))
    return (vectors * values.pow(power)) @ vectors.mT


def standardise_blocks(covariance: Tensor, sizes: Sequence[int], floor: float = 1e-3) -> Tensor:
    """The nearest-in-spirit covariance with identity diagonal blocks and eigenvalues of at least about ``floor``.

    Each block is whitened symmetrically (which keeps its basis), eigenvalues are floored, and, since flooring moves the
    blocks off the identity, they are whitened once more.

    Parameters
    ----------
    covariance
        ``(D, D)`` positive semi-definite.
    sizes
        Block widths.
    floor
        Least eigenvalue before the last whitening.

    Returns
    -------
    ``(D, D)`` float64.
    """
    result = _whiten_blocks(covariance.double(), sizes)
    values, vectors = torch.linalg.eigh(result)
    if values[0] < floor:
        result = _whiten_blocks((vectors * values.clamp_min(floor)) @ vectors.mT, sizes)
    return result


def _whiten_blocks(covariance: Tensor, sizes: Sequence[int]) -> Tensor:
    W = torch.block_diag(*(symmetric_power(covariance[b, b], -0.5) for b in block_slices(sizes)))
    result = W @ covariance @ W
    result = 0.5 * (result + result.mT)
    for b in block_slices(sizes):
        result[b, b] = torch.eye(b.stop - b.start, dtype=result.dtype)
    return result


def shrink_singular_values(block: Tensor, n: float) -> Tensor:
    r"""Denoise a ``(d_a, d_b)`` block of sample correlations between two whitened vectors.

    With ``n`` samples the entries of a block that is truly zero have sd :math:`1/\sqrt n`, and its singular values
    reach :math:`(\sqrt{d_a} + \sqrt{d_b})/\sqrt n`. The optimal Frobenius-norm shrinker for a low-rank matrix in white
    noise is applied to each singular value.

    Parameters
    ----------
    block
        ``(d_a, d_b)`` sample correlations.
    n
        Number of samples; with none of them the block becomes 0.

    Returns
    -------
    ``(d_a, d_b)`` float64.

    References
    ----------
    Gavish and Donoho, *Optimal shrinkage of singular values*, IEEE Trans. Inf. Theory 63 (2017), eq. (7).
    """
    if n <= 0:
        return torch.zeros_like(block, dtype=torch.float64)
    U, s, Vh = torch.linalg.svd(block.double(), full_matrices=False)
    d_a, d_b = block.shape
    noise = 1 / n
    inside = (s.square() - (d_a + d_b) * noise).square() - 4 * d_a * d_b * noise**2
    above = s > (math.sqrt(d_a) + math.sqrt(d_b)) * math.sqrt(noise)
    kept = torch.where(above, inside.clamp_min(0).sqrt() / s.clamp_min(1e-12), torch.zeros_like(s))
    return (U * kept) @ Vh


def shrink_cross_blocks(correlation: Tensor, sizes: Sequence[int], pairs: Tensor) -> Tensor:
    """Denoise every off-diagonal block of a covariance with identity diagonal blocks.

    Parameters
    ----------
    correlation
        ``(D, D)`` with identity diagonal blocks.
    sizes
        Block widths.
    pairs
        ``(M, M)`` number of samples in which both modalities were measured. A block without any is completed through
        the other modalities (:func:`complete_blocks`); without such a link it is 0.

    Returns
    -------
    ``(D, D)`` float64, positive definite, identity diagonal blocks.
    """
    result = torch.eye(correlation.shape[0], dtype=torch.float64)
    blocks = block_slices(sizes)
    for i, a in enumerate(blocks):
        for j, b in enumerate(blocks[:i]):
            shrunk = shrink_singular_values(correlation[a, b], float(pairs[i, j]))
            result[a, b], result[b, a] = shrunk, shrunk.mT
    return standardise_blocks(complete_blocks(result, sizes, pairs), sizes)


def complete_blocks(covariance: Tensor, sizes: Sequence[int], pairs: Tensor) -> Tensor:
    r"""Fill the blocks of modalities never measured together with what the other modalities imply.

    The maximum-entropy completion: given all others ``O``, the two are independent,
    :math:`\Sigma_{ab} = \Sigma_{aO} \Sigma_{OO}^{-1} \Sigma_{Ob}`. Zero would claim that they are unrelated, and
    contradict a third assay that ties them together. Several such pairs are filled in turn until nothing changes.

    Parameters
    ----------
    covariance
        ``(D, D)`` with any value in the blocks to fill.
    sizes
        Block widths.
    pairs
        ``(M, M)`` number of samples in which both modalities were measured.

    References
    ----------
    Dempster, *Covariance selection*, Biometrics 28 (1972).
    """
    blocks, result = block_slices(sizes), covariance.clone()
    unknown = [(a, b) for i, a in enumerate(blocks) for j, b in enumerate(blocks[:i]) if pairs[i, j] == 0]
    for a, b in unknown:
        result[a, b], result[b, a] = 0.0, 0.0
    for _ in range(COMPLETION_SWEEPS if len(unknown) > 1 else 1):
        for a, b in unknown:
            others = torch.ones(len(result), dtype=torch.bool)
            others[a] = others[b] = False
            if not others.any():
                continue
            link = torch.linalg.solve(_positive_definite(result[others][:, others]), result[others][:, b])
            result[a, b] = result[a][:, others] @ link
            result[b, a] = result[a, b].mT
    return result


def _positive_definite(matrix: Tensor, floor: float = 1e-3) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return matrix if values[0] >= floor else (vectors * values.clamp_min(floor)) @ vectors.mT


def conditional(prior: GaussianPrior, observed: Tensor) -> tuple[Tensor, Tensor]:
    r"""Regression and residual covariance of the unobserved latents on the observed ones (eq. 2 of CoVAE).

    Parameters
    ----------
    prior
        Zero-mean prior.
    observed
        ``(D,)`` bool, which latents are given.

    Returns
    -------
    ``A`` ``(D_miss, D_obs)`` with :math:`E[z_{miss}|z_{obs}] = A z_{obs}`, and the ``(D_miss, D_miss)`` lower Cholesky
    factor of the conditional covariance.
    """
    S = prior.covariance.double()
    S_mo, S_oo = S[~observed][:, observed], S[observed][:, observed]
    A = torch.linalg.solve(S_oo, S_mo.mT).mT
    residual = S[~observed][:, ~observed] - A @ S_mo.mT
    residual = 0.5 * (residual + residual.mT) + 1e-6 * torch.eye(len(residual), dtype=S.dtype, device=S.device)
    dtype = prior.mean.dtype
    return A.to(dtype), torch.linalg.cholesky(residual).to(dtype)
