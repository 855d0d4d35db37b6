"""Rows of samples in a matrix, in little memory where they follow one another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST_LENGTH = 8  # samples a stretch, on average, below which the rows themselves are kept


class Stretches:
    """Row of every sample in a matrix, -1 where it has none; looked up like an array of these.

    In a store that holds one pattern of assays after another, rows are a handful of stretches, each of which goes up by one from
    sample to sample, or is absent as a whole: then where these begin is kept, and not a number for each sample.

    Parameters
    ----------
    rows
        ``(n,)`` rows.
    """

    def __init__(self, rows: NDArray[np.integer]) -> None:
        self._n, here = len(rows), rows >= 0
        begins = np.ones(self._n, dtype=bool)
        begins[1:] = (np.diff(rows) != here[1:]) | (here[1:] != here[:-1])
        starts = np.flatnonzero(begins)
        self._rows: NDArray[np.integer] | None = None
        if len(starts) * LEAST_LENGTH > self._n:
            self._rows = compact(rows)
        else:
            self._starts, self._first = starts, rows[starts].astype(np.intp)

    def __getitem__(self, positions: NDArray[np.integer]) -> NDArray[np.intp]:
        if self._rows is not None:
            return self._rows[positions].astype(np.intp)
        positions = np.asarray(positions, dtype=np.intp)
        if positions.min(initial=0) < -self._n or positions.max(initial=-1) >= self._n:
            raise IndexError(f"positions must lie in 0..{self._n - 1}, got {positions.min()}..{positions.max()}")
        positions = np.where(positions < 0, positions + self._n, positions)
        stretch = np.searchsorted(self._starts, positions, side="right") - 1
        first = self._first[stretch]
        return np.where(first < 0, -1, first + positions - self._starts[stretch])


def compact(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """Positions in half the memory, as long as there are fewer than 2^31."""
    return rows.astype(np.int32, copy=False) if rows.max(initial=-1) <= np.iinfo(np.int32).max else rows
