"""Every kind of storage gives the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pytest
import torch
from scipy import sparse

from omicvae.data import Cohort, _matrix
from omicvae.data._matrix import BackedMatrix, DenseMatrix, SparseMatrix, iterate_chunks, open_matrix

KINDS = ["dense", "csr", "csc", "csr_array", "csc_array"]
ROWS = [[4, 0, 9, 9, 2], [], [11], list(range(12))[::-1]]


@pytest.fixture
def values() -> np.ndarray:
    x = np.random.default_rng(0).poisson(0.8, (12, 6)).astype(np.float64)
    x[3, 2], x[9, 0] = np.nan, -0.5
    return x


@pytest.mark.parametrize("columns", [None, np.array([5, 0, 3, 1])])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_in_the_order_asked(mosaic: Any, values: np.ndarray, kind: str, columns: np.ndarray | None) -> None:
    matrix = open_matrix(mosaic.storage[kind](values), columns)
    assert isinstance(matrix, DenseMatrix if kind == "dense" else SparseMatrix)
    for rows in ROWS:
        expected = values[rows] if columns is None else values[rows][:, columns]
        found = matrix.take(np.array(rows, dtype=np.intp))
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_sparse_values_stay_sparse_until_a_batch_asks(mosaic: Any, kind: str) -> None:
    cohort = Cohort(mosaic.mdata(storage=kind), mosaic.schema())
    for matrix in cohort._values.values():
        assert isinstance(matrix, SparseMatrix) and sparse.issparse(matrix._values)
    dense = Cohort(mosaic.mdata(), mosaic.schema()).batch(slice(None))
    for modality, x in cohort.batch(slice(None)).x.items():
        torch.testing.assert_close(x, dense.x[modality], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("columns", [None, np.array([5, 0, 3, 1])])
def test_a_matrix_too_large_to_hold_twice_is_cast_row_by_row(
    monkeypatch: pytest.MonkeyPatch, values: np.ndarray, columns: np.ndarray | None
) -> None:
    monkeypatch.setattr(_matrix, "RESIDENT_BYTES", 0)
    matrix = open_matrix(values, columns)
    assert matrix._tensor is None  # type: ignore[attr-defined]
    for rows in ROWS:
        expected = values[rows] if columns is None else values[rows][:, columns]
        np.testing.assert_array_equal(matrix.take(np.array(rows, dtype=np.intp)).numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("columns", [None, np.array([5, 0, 3, 1])])
def test_values_stored_by_columns_are_held_by_rows(values: np.ndarray, columns: np.ndarray | None) -> None:
    """A row of such an array lies in as many places as it has features, and minibatches are slow."""
    matrix = open_matrix(np.asfortranarray(values.astype(np.float32)), columns)
    assert isinstance(matrix, DenseMatrix) and matrix._tensor is not None and matrix._tensor.is_contiguous()


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(k, d) for k in ("dense", "csr", "csc") for d in (np.int64, np.uint8, bool)]
    + [("dense", np.float16), ("dense", ">f4")],
)
def test_any_numeric_dtype_is_read_as_float32(mosaic: Any, kind: str, dtype: Any) -> None:
    x = (np.arange(12).reshape(4, 3) % 3).astype(dtype)
    found = open_matrix(mosaic.storage[kind](x)).take(np.array([2, 0]))
    np.testing.assert_array_equal(found.numpy(), x[[2, 0]].astype(np.float32))


def test_other_storage_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="cannot read rows of a list; use a numpy array or a scipy sparse matrix"):
        open_matrix([[1.0, 2.0]])


@pytest.mark.parametrize("kind", ["dense", "csr", "csc"])
class TestBacked:
    @pytest.fixture
    def backed(self, mosaic: Any, kind: str, tmp_path: Path) -> mudata.MuData:
        mosaic.mdata(storage=kind).write(tmp_path / "m.h5mu")
        return mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")

    def test_shuffled_and_repeated_rows_equal_those_in_memory(
        self, mosaic: Any, kind: str, backed: mudata.MuData
    ) -> None:
        """HDF5 returns rows in increasing order; sorting them for it must be undone."""
        cohort = Cohort(backed, mosaic.schema())
        assert all(isinstance(matrix, BackedMatrix) for matrix in cohort._values.values())
        for indices in ([9, 3, 7, 1], [19, 0, 0, 19, 5], [], np.random.default_rng(0).permutation(20)):
            mosaic.check(cohort.batch(indices), backed.obs_names[list(indices)])

    def test_features_are_reordered_too(self, mosaic: Any, kind: str, tmp_path: Path) -> None:
        features = {m: mosaic.features(m)[::-1] for m in mosaic.n_vars}
        mosaic.mdata(storage=kind, features=features).write(tmp_path / "r.h5mu")
        backed = mudata.read_h5mu(tmp_path / "r.h5mu", backed="r")
        cohort = Cohort(backed, mosaic.schema())
        mosaic.check(cohort.batch([9, 3, 7, 1]), backed.obs_names[[9, 3, 7, 1]])
        assert cohort.batch([]).x["rna"].shape == (0, 7)

    def test_a_file_that_was_closed_is_opened_again(self, mosaic: Any, kind: str, backed: mudata.MuData) -> None:
        """`AnnData.to_memory` closes the file; AnnData's own `.X` opens it again when asked."""
        cohort = Cohort(backed, mosaic.schema())
        for adata in backed.mod.values():
            adata.to_memory()
        backed.file.close()
        assert not backed.file.is_open
        mosaic.check(cohort.batch([9, 3, 7, 1]), backed.obs_names[[9, 3, 7, 1]])
        backed.file.close()
        loaded = cohort.loaded([np.array([9, 3, 7, 1], dtype=np.intp)])
        mosaic.check(loaded.batch(slice(None)), backed.obs_names[[9, 3, 7, 1]])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk_rows", [1, 5, 100])
def test_chunks_put_together_are_the_matrix(mosaic: Any, values: np.ndarray, kind: str, chunk_rows: int) -> None:
    chunks = list(iterate_chunks(mosaic.storage[kind](values), chunk_rows))
    assert all(sparse.issparse(c) == (kind != "dense") for c in chunks)
    dense = [c.toarray() if sparse.issparse(c) else c for c in chunks]
    assert all(len(c) <= chunk_rows for c in dense)
    np.testing.assert_array_equal(np.concatenate(dense), values)


def test_chunks_of_wide_data_have_few_rows(monkeypatch: pytest.MonkeyPatch, values: np.ndarray) -> None:
    monkeypatch.setattr(_matrix, "CHUNK_ELEMENTS", 18)
    assert [len(c) for c in iterate_chunks(values)] == [3, 3, 3, 3]
    monkeypatch.setattr(_matrix, "CHUNK_ELEMENTS", 5)
    assert [len(c) for c in iterate_chunks(values)] == [1] * 12
