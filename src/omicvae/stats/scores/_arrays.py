"""What scores take: arrays of one shape, in parts that fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.floating]

HELD = 2**21
"""Numbers that a temporary array holds."""


def as_floats(values: ArrayLike) -> Floats:
    """Floats as they are, everything else as float64."""
    found = np.asarray(values)
    return found if np.issubdtype(found.dtype, np.floating) else found.astype(np.float64)


def of_one_shape(*values: ArrayLike) -> tuple[Floats, ...]:
    """The arrays, or a ValueError if their shapes differ."""
    found = tuple(as_floats(v) for v in values)
    if len({v.shape for v in found}) > 1:
        raise ValueError(f"arrays must have the same shape, got {' and '.join(str(v.shape) for v in found)}")
    return found


def as_matrices(*values: ArrayLike) -> tuple[Floats, ...]:
    """The arrays, or a ValueError if they are not all ``(n, p)``."""
    found = of_one_shape(*values)
    if found[0].ndim != 2:
        raise ValueError(f"arrays must have the shape (samples, features), got {found[0].shape}")
    return found


def with_draws(y: ArrayLike, draws: ArrayLike) -> tuple[Floats, Floats]:
    """Truth ``(...)`` and draws ``(K, ...)``, or a ValueError."""
    y, draws = as_floats(y), as_floats(draws)
    if draws.shape[1:] != y.shape or draws.ndim == 0:
        raise ValueError(f"draws must have the shape (K, {', '.join(map(str, y.shape))}), got {draws.shape}")
    return y, draws


def column_slices(n: int, height: int) -> Iterator[slice]:
    """Parts of ``n`` columns that hold at most :data:`HELD` numbers each."""
    size = max(1, HELD // max(height, 1))
    return (slice(start, start + size) for start in range(0, n, size))


def mean_of_measured(values: Floats, seen: NDArray[np.bool_], axis: int | None) -> Array:
    """Mean of the values that are ``seen``; NaN where there are none."""
    count = seen.sum(axis)
    total = np.sum(values, axis=axis, where=seen, dtype=np.float64)
    return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))
