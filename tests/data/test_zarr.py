"""A zarr store is opened without its values, and not at all if some are lost."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from anndata.abc import CSRDataset

from omicvae.data import Cohort, open_zarr, write_shards
from omicvae.data._matrix import BackedMatrix, open_matrix
from omicvae.model import CoVAE

ROWS = [[4, 0, 9, 9, 2], [], [11], [3, 4, 5], list(range(12))[::-1]]


@pytest.mark.parametrize("storage", ["dense", "csr", "csc"])
def test_rows_come_in_the_order_asked(mosaic: Any, storage: str, tmp_path: Path) -> None:
    mosaic.mdata(storage=storage).write_zarr(tmp_path / "m.zarr")
    opened = open_zarr(tmp_path / "m.zarr")
    cohort = Cohort(opened, mosaic.schema())
    assert cohort.n_bytes is None
    for rows in ROWS:
        mosaic.check(cohort.batch(rows), opened.obs_names[rows])
        mosaic.check(cohort.loaded([np.array(rows, dtype=np.intp)]).batch(slice(None)), opened.obs_names[rows])


@pytest.mark.parametrize("columns", [None, np.array([5, 0, 3, 1])])
@pytest.mark.parametrize("runs", [[], [[3, 4, 5], [0], []], [[9, 2], [2, 9]]])
def test_loading_is_reading(tmp_path: Path, columns: np.ndarray | None, runs: list[list[int]]) -> None:
    values = np.random.default_rng(0).normal(size=(12, 6))
    stored = zarr.open_array(str(tmp_path / "x"), mode="w", shape=(12, 6), chunks=(5, 6), dtype="f8")
    stored[:] = values
    expected = values.astype(np.float32)[[i for run in runs for i in run]]
    found = open_matrix(stored, columns).loaded([np.array(run, dtype=np.intp) for run in runs])
    assert not isinstance(found, BackedMatrix)
    everything = found.take(np.arange(len(expected)))
    np.testing.assert_array_equal(everything, expected if columns is None else expected[:, columns])


def test_names_are_in_memory_once(mosaic: Any, tmp_path: Path) -> None:
    """Of a million cells they, and the tables to look them up, are what is largest."""
    mosaic.mdata(storage="csr").write_zarr(tmp_path / "m.zarr")
    opened = open_zarr(tmp_path / "m.zarr")
    held = {name: id(name) for name in opened.obs_names}
    for adata in opened.mod.values():
        assert all(held[name] == id(name) for name in adata.obs_names)
    cohort = Cohort(opened, mosaic.schema())
    assert len(cohort) == opened.n_obs
    for names in (opened.obs_names, *(adata.obs_names for adata in opened.mod.values())):
        assert "_engine" not in names._cache


@pytest.mark.parametrize("whole", [["x", "b", "b"], ["x", "y", "z"]])
def test_names_that_the_whole_does_not_know_are_kept(whole: list[str], tmp_path: Path) -> None:
    mdata = mudata.MuData({"rna": AnnData(np.ones((3, 2)), obs=pd.DataFrame(index=list("abc")))})
    mdata.write_zarr(tmp_path / "m.zarr")
    stored: Any = zarr.open_group(str(tmp_path / "m.zarr"), mode="r+")["obs"]
    stored[stored.attrs["_index"]][:] = np.array(whole, dtype=object)
    assert list(open_zarr(tmp_path / "m.zarr")["rna"].obs_names) == list("abc")


def test_all_but_values_is_as_it_was_written(mosaic: Any, tmp_path: Path) -> None:
    """Order of samples, columns and embeddings: what `mudata.read_zarr` would give."""
    mdata = mosaic.mdata(storage="csr")
    mdata.obsm["X_map"] = np.arange(2.0 * mdata.n_obs).reshape(-1, 2)
    mdata["rna"].layers["half"] = mdata["rna"].X / 2
    mdata["rna"].var["length"] = np.arange(7)
    mdata.uns["about"] = "three assays"
    mdata.write_zarr(tmp_path / "m.zarr")
    opened, read = open_zarr(tmp_path / "m.zarr"), mudata.read_zarr(tmp_path / "m.zarr")
    assert isinstance(opened["rna"].X, CSRDataset) and isinstance(opened["rna"].layers["half"], CSRDataset)
    assert list(opened.mod) == list(read.mod)
    pd.testing.assert_frame_equal(opened.obs, read.obs, check_dtype=False)
    pd.testing.assert_frame_equal(opened["rna"].var, read["rna"].var)
    np.testing.assert_array_equal(opened.obsm["X_map"], read.obsm["X_map"])
    assert opened.uns["about"] == "three assays"


def test_what_is_no_mudata_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no zarr store at"):
        open_zarr(tmp_path / "nowhere.zarr")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="is not a zarr store"):
        open_zarr(tmp_path / "folder")
    AnnData(np.ones((3, 2))).write_zarr(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="does not hold a MuData"):
        open_zarr(tmp_path / "a.zarr")


class TestDamage:
    """zarr reads files that are missing as zeros and shortened ones as anything; here that is an error."""

    @pytest.fixture
    def store(self, mosaic: Any, tmp_path: Path) -> Path:
        mdata = mosaic.mdata(storage="csr")
        mdata["prot.surface"].X = mdata["prot.surface"].X.toarray()
        CoVAE.setup_mudata(mdata, likelihoods=mosaic.likelihoods)
        write_shards(mdata, tmp_path / "s.zarr", shard_rows=4)
        return tmp_path / "s.zarr"

    @pytest.mark.parametrize("part", ["prot.surface/X", "rna/X/data", "rna/X/indices"])
    @pytest.mark.parametrize("keep", [None, 5])
    def test_lost_and_shortened_files_are_found(self, store: Path, part: str, keep: int | None) -> None:
        files = [f for f in (store / "mod" / part).rglob("*") if f.is_file() and not f.name.startswith((".z", "zarr"))]
        if keep is None:
            files[0].unlink()
        else:
            files[0].write_bytes(files[0].read_bytes()[:keep])
        with pytest.raises(ValueError, match=rf"mod/{part.split('/')[0]}/X has \d+ of its \d+ bytes"):
            open_zarr(store)

    def test_lost_matrices_are_found(self, store: Path) -> None:
        shutil.rmtree(store / "mod" / "rna" / "X")
        with pytest.raises(ValueError, match="mod/rna/X has 0 of its"):
            open_zarr(store)

    def test_files_that_cannot_be_decoded_are_named(self, store: Path, mosaic: Any) -> None:
        """As many bytes as there were, but others."""
        for file in (store / "mod" / "prot.surface" / "X").rglob("*"):
            if file.is_file() and not file.name.startswith((".z", "zarr")):
                file.write_bytes(b"?" * file.stat().st_size)
        opened = open_zarr(store)
        CoVAE.setup_mudata(opened)
        with pytest.raises(ValueError, match="cannot be read, the file is damaged"):
            Cohort(opened, mosaic.schema()).batch(slice(None))

    def test_a_matrix_that_does_not_fit_its_names_is_refused(self, store: Path) -> None:
        root = zarr.open_group(str(store), mode="r+")
        root["mod/prot.surface/X"].resize((3, 5))
        del root.attrs["omicvae_bytes"]
        with pytest.raises(ValueError, match="has 3 rows for 12 names"):
            open_zarr(store)

    def test_pointers_that_do_not_fit_are_refused(self, store: Path) -> None:
        root = zarr.open_group(str(store), mode="r+")
        root["mod/rna/X/indptr"][2] = 10**6
        del root.attrs["omicvae_bytes"]
        with pytest.raises(ValueError, match="mod/rna/X has lost values"):
            open_zarr(store)


def test_names_are_read_in_pieces_with_their_columns(tmp_path: Path) -> None:
    """Of several chunks; a named index and columns of .obs come back as AnnData reads them."""
    names = pd.Index([f"s{i}" for i in range(10)], name="sample")
    obs = pd.DataFrame({"age": np.arange(10.0), "kind": pd.Categorical(list("aab" * 3 + "b"))}, index=names)
    parts = {
        m: AnnData(np.ones((len(rows), 2), np.float32), obs=obs.iloc[rows])
        for m, rows in {"a": range(10), "b": [7, 2, 5]}.items()
    }
    written = mudata.MuData(parts)
    written.obs["age"] = obs["age"]
    written.write_zarr(tmp_path / "m.zarr")
    root = zarr.open_group(str(tmp_path / "m.zarr"), mode="r+")
    for place in ("obs", "mod/a/obs", "mod/b/obs"):
        group = root[place]
        key = group.attrs["_index"]
        values, attributes = group[key][:], dict(group[key].attrs)
        del group[key]
        group.create_array(key, data=values, chunks=(3,)).attrs.update(attributes)
    opened, whole = open_zarr(tmp_path / "m.zarr"), mudata.read_zarr(tmp_path / "m.zarr")
    for m in parts:
        pd.testing.assert_frame_equal(opened[m].obs, whole[m].obs)
    # the other reader renews the table of all samples: columns of modalities, index without a name
    pd.testing.assert_frame_equal(opened.obs, whole.obs[["age"]], check_names=False, check_dtype=False)
