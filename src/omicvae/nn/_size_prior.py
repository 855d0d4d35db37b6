"""The distribution of library sizes, for assays whose size is not known because they were not measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

LEAST_SAMPLES = 5  # a batch with fewer training samples borrows the distribution of all batches


class DrawnSizes(NamedTuple):
    """Library sizes, and where in their prior they lie; all ``(K, B)``."""

    size: Tensor
    score: Tensor
    """Logarithm in prior standard deviations from the prior mean; 0 where the size was not drawn."""
    deviation: Tensor
    """Prior standard deviation of the logarithm; 0 where the size was not drawn."""


class SizePrior(nn.Module):
    """Log-normal library size (or size factor) of one modality, per batch.

    The size factor of an assay that was not measured is unknown; using the hidden sample's own would be a leak.

    Parameters
    ----------
    n_batches
        Number of batches; 1 without a batch covariate.
    """

    mean: Tensor
    deviation: Tensor
    median: Tensor

    def __init__(self, n_batches: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_batches))
        self.register_buffer("deviation", torch.ones(n_batches))
        self.register_buffer("median", torch.ones(()))

    @torch.no_grad()
    def fit(self, chunks: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Fit from ``(sizes, batch codes)`` of training samples, both ``(n,)``; code -1 counts towards all batches."""
        gathered = list(chunks)
        log_size = torch.cat([size for size, _ in gathered]).double().log()
        codes = torch.cat([code for _, code in gathered])
        if len(log_size) == 0:
            return
        overall = log_size.mean(), log_size.std(correction=0)
        for batch in range(len(self.mean)):
            own = log_size[codes == batch]
            enough = len(own) >= LEAST_SAMPLES
            self.mean[batch] = own.mean() if enough else overall[0]
            self.deviation[batch] = own.std(correction=1) if enough else overall[1]
        self.median.copy_(log_size.median().exp())

    def sample(self, codes: Tensor) -> DrawnSizes:
        """Draw a size for every entry of ``codes`` (known batches, any shape)."""
        score, deviation = torch.randn(codes.shape, device=codes.device), self.deviation[codes]
        return DrawnSizes((self.mean[codes] + deviation * score).exp(), score, deviation)

    def score(self, size: Tensor, codes: Tensor) -> Tensor:
        """Logarithms of sizes in standard deviations from the mean of their batch; code -1 counts as the first."""
        codes = codes.clamp_min(0)
        return (size.clamp_min(1e-30).log() - self.mean[codes]) / self.deviation[codes].clamp_min(1e-6)
