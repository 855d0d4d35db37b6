"""Probabilistic principal components, the linear start of encoders and decoders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

LARGE = 1000  # rows and columns beyond which components are found by iteration
ITERATIONS = 6


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
    total = float(x.square().sum(1).double().sum() / len(x))
    return _factors(vectors, values[:n_factors].double().square() / len(x), total, x.shape[1])
