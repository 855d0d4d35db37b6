"""Differentiable measures of dependence between two sets of codes, for pre-training."""

from __future__ import annotations

import torch
from torch import Tensor

RIDGE = 1e-4


def canonical_sum(a: Tensor, b: Tensor) -> Tensor:
    """Sum of the sample canonical correlations of ``a`` ``(n, d_a)`` and ``b`` ``(n, d_b)``; differentiable.

    References
    ----------
    Andrew et al., *Deep canonical correlation analysis*, ICML 2013.
    """
    a, b = a - a.mean(0), b - b.mean(0)
    n = len(a)
    eye_a, eye_b = torch.eye(a.shape[1], device=a.device), torch.eye(b.shape[1], device=b.device)
    L_a = torch.linalg.cholesky(a.mT @ a / (n - 1) + RIDGE * eye_a)
    L_b = torch.linalg.cholesky(b.mT @ b / (n - 1) + RIDGE * eye_b)
    half = torch.linalg.solve_triangular(L_a, a.mT @ b / (n - 1), upper=False)
    return torch.linalg.svdvals(torch.linalg.solve_triangular(L_b, half.mT, upper=False)).sum()


def distance_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Sample distance correlation (biased V-statistic) of ``a`` ``(n, d_a)`` and ``b`` ``(n, d_b)``; differentiable.

    References
    ----------
    Szekely et al., *Measuring and testing dependence by correlation of distances*, Ann. Statist. 35 (2007), def. 3.
    """

    def centred(x: Tensor) -> Tensor:
        distance = ((x[:, None] - x[None]).square().sum(-1) + 1e-8).sqrt()
        return distance - distance.mean(0) - distance.mean(1, keepdim=True) + distance.mean()

    A, B = centred(a), centred(b)
    # Bounds are inside the roots: the gradient of a root at 0, which collapsed codes reach, is not finite.
    spread = ((A * A).mean() * (B * B).mean()).clamp_min(1e-24).sqrt()
    return ((A * B).mean() / spread).clamp_min(1e-12).sqrt()
