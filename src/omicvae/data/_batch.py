"""The minibatch every module receives: only the rows that exist, and where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Batch(NamedTuple):
    """A minibatch of ``B`` samples in which any sample may lack any of the ``M`` modalities.

    Values are *packed*: ``x[m]`` holds a row only for a sample whose assay ``m`` was measured, and ``rows[m]`` says
    which sample of the batch that row belongs to. Nothing is padded, so a missing assay is never a number.
    """

    x: dict[str, Tensor]
    """modality -> (n_m, p_m) float32; NaN where a single element was not measured."""
    rows: dict[str, Tensor]
    """modality -> (n_m,) int64 position in the batch of each packed row."""
    present: Tensor
    """(B, M) bool, columns in the order of the registered modalities."""
    coverage: dict[str, Tensor]
    """modality -> (n_m, p_m) total reads, for modalities registered with a coverage layer."""
    size: dict[str, Tensor]
    """modality -> (n_m,) library size or size factor, for modalities whose likelihood uses one."""
    codes: dict[str, Tensor]
    """categorical covariate -> (B,) int64 category, -1 where it is missing or was never seen in training."""
    continuous: Tensor
    """(B, C) float32 continuous covariates; NaN where missing."""
    labels: Tensor
    """(B,) int64 class, -1 where unknown."""

    @property
    def n_samples(self) -> int:
        """Number of samples ``B``."""
        return self.present.shape[0]

    def to(self, device: torch.device | str) -> Batch:
        """Copy of the batch with every tensor on ``device``."""

        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device) for name, tensor in tensors.items()}

        return Batch(
            x=each(self.x),
            rows=each(self.rows),
            present=self.present.to(device),
            coverage=each(self.coverage),
            size=each(self.size),
            codes=each(self.codes),
            continuous=self.continuous.to(device),
            labels=self.labels.to(device),
        )


def concatenated(batches: Sequence[Batch]) -> Batch:
    """One minibatch of the samples of several, in their order."""
    first = batches[0]
    starts = np.cumsum([0, *(batch.n_samples for batch in batches)])

    def joined(field: str) -> dict[str, Tensor]:
        return {name: torch.cat([getattr(batch, field)[name] for batch in batches]) for name in getattr(first, field)}

    return Batch(
        x=joined("x"),
        rows={m: torch.cat([b.rows[m] + int(s) for b, s in zip(batches, starts, strict=False)]) for m in first.rows},
        present=torch.cat([batch.present for batch in batches]),
        coverage=joined("coverage"),
        size=joined("size"),
        codes=joined("codes"),
        continuous=torch.cat([batch.continuous for batch in batches]),
        labels=torch.cat([batch.labels for batch in batches]),
    )
