"""Linear factors that encoders and decoders start from: each assay's own, or those of a joint model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LEAST_EVIDENCE = 0.3  # precision of one sample's evidence on a latent that is worth having
LARGE = 1000  # rows and columns beyond which components are found by iteration
ITERATIONS = 6
ROWS = 256  # squared at a time


class Factors(NamedTuple):
    """Probabilistic PCA of ``n`` samples: ``x = z W' + noise``, ``z ~ N(0, I)``."""

    directions: Tensor
    """(p, d) orthonormal principal directions."""
    loading: Tensor
    """(d,) length of each loading, ``sqrt(s_k^2 - sigma^2)`` with ``s_k^2`` the variance along direction ``k``."""
    noise: float
    """Noise variance ``sigma^2``: mean of the variances left over."""

    @property
    def precision(self) -> Tensor:
        """``(d,)`` precision of the evidence that one sample gives on each factor, ``loading^2 / noise``."""
        return self.loading.square() / self.noise


class Potentials(NamedTuple):
    """What one assay says about latents of its own with independent evidence: ``location = x @ weight``."""

    weight: Tensor
    """(p, d) location of the evidence, per unit of each feature."""
    precision: Tensor
    """(d,)"""


def pca_potentials(x: Tensor, n_latent: int) -> Potentials:
    """Evidence on the probabilistic principal components of centred data ``(n, p)``, at most ``n_latent``."""
    factors = probabilistic_pca(x, n_latent)
    return Potentials(factors.directions / factors.loading, factors.precision)


class OwnFactors(NamedTuple):
    """Factors of a joint model as seen from one assay."""

    potentials: Potentials
    rotation: Tensor
    """(K, d) orthonormal: the assay's latents are ``z @ rotation`` of the joint factors ``z``."""


def own_factors(loadings: Tensor, noise: Tensor, n_latent: int, spread: Tensor | None = None) -> OwnFactors:
    r"""Rotate common factors into the latents that one assay tells about, in order of its evidence on them.

    With :math:`x = W z + \epsilon`, :math:`\Psi^{-1/2} W = U S V'`, the evidence of :math:`x` on :math:`V'z` has
    information :math:`S U' \Psi^{-1/2} x` and independent precisions :math:`S^2`, to which uncertainty of the weights
    adds. Directions that the assay says next to nothing about are left out.

    Parameters
    ----------
    loadings
        ``(p, K)`` :math:`W`, or its posterior mean.
    noise
        ``(p,)`` diagonal of :math:`\Psi`.
    n_latent
        Most latents.
    spread
        ``(K, K)`` sum over features of the covariance of their weights, divided by their noise.
    """
    scale = noise.double().sqrt()[:, None]
    left, sizes, right = torch.linalg.svd(loadings.double() / scale, full_matrices=False)
    d = min(n_latent, int((sizes.square() > LEAST_EVIDENCE).sum()))
    rotation, precision = right[:d].mT, sizes[:d].square()
    if spread is not None:
        precision = precision + torch.einsum("kd,kl,ld->d", rotation, spread.double(), rotation)
    weight = left[:, :d] / scale * sizes[:d] / precision
    return OwnFactors(Potentials(weight.float(), precision.float()), rotation)


def probabilistic_pca(x: Tensor, n_factors: int) -> Factors:
    """Closed-form maximum likelihood of probabilistic PCA.

    Parameters
    ----------
    x
        ``(n, p)`` centred data.
    n_factors
        Number of factors ``d``, less than ``min(n, p)``.

    References
    ----------
    Tipping and Bishop, *Probabilistic principal component analysis*, J. R. Stat. Soc. B 61 (1999), eq. (7, 8).
    """
    n, p = x.shape
    if min(n, p) > LARGE:
        return _by_subspace_iteration(x, n_factors)
    x = x.double()
    if p <= n:
        values, vectors = torch.linalg.eigh(x.mT @ x / n)
        values, vectors = values.flip(0), vectors.flip(1)
    else:
        values, left = torch.linalg.eigh(x @ x.mT / n)
        values, left = values.flip(0), left.flip(1)
        vectors = x.mT @ left[:, :n_factors] / (n * values[:n_factors].clamp_min(1e-12)).sqrt()
    return _factors(vectors[:, :n_factors], values[:n_factors], float(x.square().sum() / n), p)


def _factors(vectors: Tensor, values: Tensor, total: float, p: int) -> Factors:
    """Loadings and noise from the leading directions and variances, and the total variance."""
    d = len(values)
    values = values.clamp_min(0)
    noise = max((total - float(values.sum())) / max(p - d, 1), 1e-4)
    loading = (values - noise).clamp_min(0.02 * noise).sqrt()
    return Factors(vectors.float(), loading.float(), noise)


def _by_subspace_iteration(x: Tensor, n_factors: int) -> Factors:
    """Leading components of a large matrix without its Gram matrix, which would cost ``n^2 p``.

    References
    ----------
    Halko et al., *Finding structure with randomness*, SIAM Review 53 (2011), algorithm 4.4.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(x.shape[1], n_factors + 10, generator=generator, dtype=x.dtype)
    for _ in range(ITERATIONS):
        basis, _ = torch.linalg.qr(x.mT @ (x @ basis))
    _, values, right = torch.linalg.svd(x @ basis, full_matrices=False)
    vectors = (basis @ right.mT)[:, :n_factors]
    total = sum(float(rows.square().sum(1).double().sum()) for rows in x.split(ROWS)) / len(x)
    return _factors(vectors, values[:n_factors].double().square() / len(x), total, x.shape[1])
