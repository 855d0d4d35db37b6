"""Hand-built modules and minibatches."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from omicvae.data import Batch, ModalitySchema, Schema


def schema(n_vars: dict[str, int], likelihood: str = "normal") -> Schema:
    """Modalities without covariates."""
    return Schema(tuple(ModalitySchema(m, likelihood, tuple(f"{m}_{j}" for j in range(p))) for m, p in n_vars.items()))


def batch(values: dict[str, Tensor], present: Tensor, labels: Tensor | None = None) -> Batch:
    """Minibatch of full ``(B, p)`` values, packed according to ``present`` ``(B, M)``."""
    rows = {m: torch.nonzero(present[:, i]).squeeze(-1) for i, m in enumerate(values)}
    B = present.shape[0]
    return Batch(
        x={m: x[rows[m]] for m, x in values.items()},
        rows=rows,
        present=present,
        coverage={},
        size={m: x[rows[m]].nansum(1).clamp_min(1.0) for m, x in values.items()},
        codes={},
        continuous=torch.zeros(B, 0),
        labels=torch.full((B,), -1) if labels is None else labels,
    )


@pytest.fixture
def make_schema() -> Callable[..., Schema]:
    return schema


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return batch
