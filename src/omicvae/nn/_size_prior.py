"""The distribution of library sizes, for assays whose size is not known because they were not measured."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

LEAST_SAMPLES = 5  # a batch with fewer training samples borrows the distribution of all batches


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

    def sample(self, codes: Tensor) -> Tensor:
        """Draw a size for every entry of ``codes`` (known batches, any shape)."""
        return (self.mean[codes] + self.deviation[codes] * torch.randn(codes.shape, device=codes.device)).exp()
