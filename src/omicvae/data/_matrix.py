"""Row readers: one object per kind of storage, all answering ``take(rows) -> (len(rows), n_vars) float32``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import torch
import zarr
from anndata.abc import CSCDataset, CSRDataset
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from omicvae.data._device_matrix import DeviceDense, DeviceSparse

CHUNK_ELEMENTS = 2**25
RESIDENT_BYTES = 2**31  # a dense matrix up to this size is held as float32 for indexing, beyond it is cast row by row

Stored = h5py.Dataset | zarr.Array | CSRDataset | CSCDataset
"""Kinds of matrix on disk."""


class Matrix(ABC):
    """Rows of one registered layer, with columns put in the order of the schema.

    Parameters
    ----------
    values
        The stored matrix.
    columns
        ``(n_vars,)`` position in the stored matrix of each registered feature; ``None`` if the order is already right.
    """

    def __init__(self, values: Any, columns: NDArray[np.intp] | None) -> None:
        self._values, self._columns = values, columns

    def _stored(self) -> Any:
        """The matrix, which can be read."""
        return self._values

    @abstractmethod
    def _read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Stored rows, in the order asked."""

    def take(self, rows: NDArray[np.intp]) -> Tensor:
        """``(len(rows), n_vars)`` float32, in the order of ``rows``."""
        values = self._read(rows)
        return torch.from_numpy(values if self._columns is None else np.ascontiguousarray(values[:, self._columns]))

    def loaded(self, runs: Sequence[NDArray[np.intp]]) -> Matrix:
        """The rows of all ``runs``, in that order, in memory; each run is read at once, sparse values as sparse."""
        stored = self._stored()
        blocks = [read_rows(stored, rows) for rows in runs if len(rows)]
        blocks = blocks or [read_rows(stored, np.zeros(0, dtype=np.intp))]
        if sparse.issparse(blocks[0]):
            return SparseMatrix(sparse.vstack(blocks, format="csr"), self._columns)
        return DenseMatrix(np.concatenate(blocks, dtype=np.float32, casting="unsafe"), self._columns)

    @property
    def n_bytes(self) -> int | None:
        """Size of the whole on a device; ``None`` if it is on disk and stays there."""
        return None

    def to(self, device: torch.device | str) -> DeviceDense | DeviceSparse:
        """The same rows, all of them on ``device``."""
        raise TypeError(f"{type(self).__name__} is read from disk and cannot be kept on {device}")


class DenseMatrix(Matrix):
    """A numpy array, held as a float32 tensor where it is small enough."""

    def __init__(self, values: NDArray[np.generic], columns: NDArray[np.intp] | None) -> None:
        super().__init__(values, columns)
        self._tensor: Tensor | None = None
        if values.shape[0] * values.shape[1] * 4 <= RESIDENT_BYTES:
            ordered = values if columns is None else values[:, columns]
            self._tensor = torch.from_numpy(np.array(ordered, dtype=np.float32, order="C"))  # a row in one piece
            self._values, self._columns = self._tensor.numpy(), None

    def take(self, rows: NDArray[np.intp]) -> Tensor:
        if self._tensor is not None:
            return self._tensor.index_select(0, torch.from_numpy(rows))
        return super().take(rows)

    def _read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.ascontiguousarray(self._values[rows], dtype=np.float32)

    @property
    def n_bytes(self) -> int:
        return 4 * self._values.shape[0] * self._values.shape[1]

    def to(self, device: torch.device | str) -> DeviceDense:
        values = self.take(np.arange(len(self._values))) if self._tensor is None else self._tensor
        return DeviceDense(values, device)


class SparseMatrix(Matrix):
    """A scipy matrix, kept sparse until a batch asks for rows."""

    def __init__(self, values: sparse.spmatrix, columns: NDArray[np.intp] | None) -> None:
        super().__init__(sparse.csr_matrix(values), columns)

    def _read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return self._values[rows].astype(np.float32).toarray()

    @property
    def n_bytes(self) -> int:
        return 12 * self._values.nnz  # float32 values and int64 columns

    def to(self, device: torch.device | str) -> DeviceSparse:
        ordered = self._values if self._columns is None else self._values[:, self._columns]
        return DeviceSparse(ordered, device)


class BackedMatrix(Matrix):
    """A matrix on disk.

    Parameters
    ----------
    values, columns
        As for every matrix.
    again
        Opens the file again: ``AnnData.to_memory`` closes it behind the back of whoever reads from it, and AnnData's own
        ``.X`` opens it when it is next asked for.
    """

    def __init__(
        self, values: Any, columns: NDArray[np.intp] | None, again: Callable[[], object] | None = None
    ) -> None:
        super().__init__(values, columns)
        self._again = again

    def _stored(self) -> Any:
        if self._again is not None and _is_closed(self._values):
            self._values = self._again()
        return self._values

    def _read(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        block: Any = read_rows(self._stored(), rows)
        return np.ascontiguousarray(block.toarray() if sparse.issparse(block) else block, dtype=np.float32)


def _is_closed(values: object) -> bool:
    """Whether the HDF5 file that a matrix is in was closed."""
    stored = values.group if isinstance(values, CSRDataset | CSCDataset) else values
    return isinstance(stored, h5py.Dataset | h5py.Group) and not stored


def read_rows(values: object, rows: NDArray[np.intp]) -> NDArray[np.generic] | sparse.csr_matrix:
    """Rows of a stored matrix in the order asked, in memory, in the stored dtype, sparse if stored so.

    Files are read in increasing order only, so rows on disk are sorted, read, and put back; rows that follow one
    another are read as one slice, which is several times faster.

    Parameters
    ----------
    values
        As for :func:`open_matrix`, sparse ones in memory as CSR.
    rows
        Positions, repeated or not.

    Raises
    ------
    ValueError
        If a file is damaged.
    """
    if not isinstance(values, Stored):
        return values[rows]  # type: ignore[index]
    n_vars = values.shape[1]
    if len(rows) == 0:
        sparse_kind = isinstance(values, CSRDataset | CSCDataset)
        return (
            sparse.csr_matrix((0, n_vars), dtype=values.dtype) if sparse_kind else np.zeros((0, n_vars), values.dtype)
        )
    unique, inverse = np.unique(rows, return_inverse=True)
    first, last = int(unique[0]), int(unique[-1])
    try:
        if last - first + 1 == len(unique):
            block = values[first : last + 1]
        else:
            block = values.oindex[unique] if isinstance(values, zarr.Array) else values[unique]
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise ValueError(
            f"rows {first} to {last} of a matrix on disk {tuple(values.shape)} cannot be read, the file is damaged: {error}"
        ) from error
    if len(rows) == len(unique) and (np.diff(inverse) == 1).all():
        return block
    return block[inverse]


def open_matrix(
    values: object, columns: NDArray[np.intp] | None = None, again: Callable[[], object] | None = None
) -> Matrix:
    """Reader for whatever AnnData holds in ``.X`` or a layer.

    Parameters
    ----------
    values
        numpy array, scipy sparse matrix, a backed dataset of AnnData, or an array of HDF5 or zarr.
    columns
        Reordering of the stored columns, or ``None``.
    again
        Gives ``values`` anew after their file was closed.

    Raises
    ------
    TypeError
        For any other kind of storage.
    """
    if isinstance(values, Stored):
        return BackedMatrix(values, columns, again)
    if sparse.issparse(values):
        return SparseMatrix(values, columns)
    if isinstance(values, np.ndarray):
        return DenseMatrix(np.asarray(values), columns)
    raise TypeError(f"cannot read rows of a {type(values).__name__}; use a numpy array or a scipy sparse matrix")


def iterate_chunks(values: object, chunk_rows: int | None = None) -> Iterator[NDArray[np.generic] | sparse.csr_matrix]:
    """Consecutive row blocks of a stored matrix, each in memory, in the stored dtype.

    Parameters
    ----------
    values
        As for :func:`open_matrix`.
    chunk_rows
        Rows a block; by default as many as make :data:`CHUNK_ELEMENTS`.
    """
    n_obs, n_vars = values.shape  # type: ignore[attr-defined]
    chunk_rows = chunk_rows or max(1, CHUNK_ELEMENTS // max(n_vars, 1))
    stored = sparse.csr_matrix(values) if sparse.issparse(values) else values
    for start in range(0, n_obs, chunk_rows):
        block = stored[start : start + chunk_rows]  # type: ignore[index]
        yield block if sparse.issparse(block) else np.asarray(block)
