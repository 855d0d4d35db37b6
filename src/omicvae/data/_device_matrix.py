"""Row readers whose values stay on one device, so that a minibatch is picked without moving any."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor


class DeviceDense:
    """A dense matrix on a device.

    Parameters
    ----------
    values
        ``(n, p)`` float32, columns in the order of the schema.
    device
        Where it is kept.
    """

    def __init__(self, values: Tensor, device: torch.device | str) -> None:
        self._values = values.to(device)

    def take(self, rows: NDArray[np.intp]) -> Tensor:
        """``(len(rows), p)``, in the order of ``rows``."""
        return self._values.index_select(0, moved(rows, self._values.device))


class DeviceSparse:
    """A sparse matrix on a device, of which only the rows of a minibatch are ever dense.

    How many values these rows hold is read off a copy of the row pointers in memory: asking the device would mean
    waiting for it at every step.

    Parameters
    ----------
    values
        ``(n, p)``, columns in the order of the schema.
    device
        Where it is kept.
    """

    def __init__(self, values: sparse.csr_matrix, device: torch.device | str) -> None:
        summed = sparse.csr_matrix(values, copy=True)
        summed.sum_duplicates()
        self._n_vars = summed.shape[1]
        self._counts = np.diff(summed.indptr).astype(np.int64)
        self._first = torch.from_numpy(summed.indptr[:-1].astype(np.int64)).to(device)
        self._columns = torch.from_numpy(summed.indices.astype(np.int64)).to(device)
        self._data = torch.from_numpy(summed.data.astype(np.float32)).to(device)

    def take(self, rows: NDArray[np.intp]) -> Tensor:
        """``(len(rows), p)`` dense, in the order of ``rows``."""
        device, counts = self._data.device, self._counts[rows]
        total = int(counts.sum())
        before = np.cumsum(counts) - counts  # values of earlier rows of the minibatch
        count = moved(counts, device)
        start = self._first.index_select(0, moved(rows, device)) - moved(before, device)
        at = torch.repeat_interleave(start, count, output_size=total) + torch.arange(total, device=device)
        line = torch.repeat_interleave(torch.arange(len(rows), device=device), count, output_size=total)
        dense = self._data.new_zeros(len(rows) * self._n_vars)
        cell = line * self._n_vars + self._columns.index_select(0, at)
        return dense.index_copy_(0, cell, self._data.index_select(0, at)).view(len(rows), self._n_vars)


def moved(values: NDArray[np.integer] | NDArray[np.bool_], device: torch.device | str) -> Tensor:
    """An array as a tensor on a device, without waiting for what runs there."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)
