"""Probabilistic principal components, the linear start of encoders and decoders."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


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
    x = x.double()
    if p <= n:
        values, vectors = torch.linalg.eigh(x.mT @ x / n)
        values, vectors = values.flip(0), vectors.flip(1)
    else:
        values, left = torch.linalg.eigh(x @ x.mT / n)
        values, left = values.flip(0), left.flip(1)
        vectors = x.mT @ left[:, :n_factors] / (n * values[:n_factors].clamp_min(1e-12)).sqrt()
    values = values.clamp_min(0)
    left_over = float((x.square().sum() / n - values[:n_factors].sum()) / max(p - n_factors, 1))
    noise = max(left_over, 1e-4)
    loading = (values[:n_factors] - noise).clamp_min(0.02 * noise).sqrt()
    return Factors(vectors[:, :n_factors].float(), loading.float(), noise)
