"""A cohort written so that large pieces of it, read one after another, are well mixed."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from anndata.io import sparse_dataset, write_elem
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from omicvae.data._cohort import Cohort, stored_values
from omicvae.data._fields import as_categories
from omicvae.data._manager import registered_manager
from omicvae.data._matrix import read_rows
from omicvae.data._runs import mixed_windows
from omicvae.data._schema import ModalitySchema, Schema
from omicvae.data._shard_setup import SETUP, SHARDS, setup_text
from omicvae.data._target import is_zarr, replacing
from omicvae.data._zarr import BYTES, matrix_bytes

logger = logging.getLogger("omicvae")

WINDOW_BYTES = 2**27  # values in memory while writing
SHARD_BYTES = 2**20  # of values that are read at once


def write_shards(
    mdata: MuData,
    path: str | os.PathLike[str],
    *,
    shard_rows: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> None:
    """Write a registered MuData for training from disk.

    Samples with the same assays stand together, in random order: blocks of 32 neighbours are drawn at random, and the
    samples of all blocks that fit into 128 MB are shuffled. So each shard, a run of samples that is read at once, is a
    random part of its pattern. No more than these 128 MB of values are in memory, whether ``mdata`` is or not.

    What is written is an ordinary MuData in a zarr store, with what ``setup_mudata`` registered: layers, features,
    names, and columns of ``.obs``. Open it with :func:`open_zarr`; ``setup_mudata`` without arguments then repeats the
    registration.

    Parameters
    ----------
    mdata
        Registered by ``setup_mudata`` of any model; in memory, or backed by a file.
    path
        Folder to make, by custom ending in ``.zarr``.
    shard_rows
        Samples a shard; by default as many as make 1 MB.
    seed
        Of the order.
    overwrite
        Replace a zarr store at ``path``.

    Raises
    ------
    FileExistsError
        If ``path`` exists and is not to be overwritten, or is no zarr store.
    FileNotFoundError
        If there is no folder to write it in.
    TypeError, ValueError
        If ``mdata`` is not a registered MuData, or ``path`` is the store it is read from, or for other impossible
        arguments.
    """
    manager = registered_manager(mdata)
    target = _target(path, overwrite, mdata)
    cohort, matrices = manager.cohort, _matrices(mdata, manager.cohort.schema)
    bytes_a_row = sum(row_bytes(values, mdata.n_obs) for values in matrices.values())
    rows = _shard_rows(shard_rows, bytes_a_row)
    windows = list(mixed_windows(cohort, max(rows, int(WINDOW_BYTES // bytes_a_row)), seed))
    order = np.concatenate([np.zeros(0, dtype=np.intp), *windows])
    if len(order) < len(cohort):
        logger.info("%d samples have none of the registered modalities and are left out", len(cohort) - len(order))
    bare = _without_values(mdata, cohort, order)
    bare.uns[SETUP] = setup_text(manager.registry)
    bare.uns[SHARDS] = {"rows": rows, "seed": seed}
    with replacing(target) as new:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning)
            mudata.write_zarr(str(new), bare)
        root: Any = zarr.open_group(str(new), mode="r+")
        for (name, layer), values in matrices.items():
            _write(root["mod"][name], layer, values, list(_rows(cohort, name, windows)), rows)
        root.attrs[BYTES] = matrix_bytes(new)


def row_bytes(values: Any, n_obs: int) -> float:
    """Bytes that the row of a sample takes, on average over ``n_obs`` samples of which some have none."""
    if isinstance(values, CSRDataset | CSCDataset):
        total = values.group["data"].shape[0] * (values.dtype.itemsize + 4)
    elif sparse.issparse(values):
        total = values.nnz * (values.dtype.itemsize + 4)
    else:
        total = values.shape[0] * values.shape[1] * values.dtype.itemsize
    return total / max(n_obs, 1) + 1e-3


def _target(path: str | os.PathLike[str], overwrite: bool, mdata: MuData) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"path must be a path such as 'cohort.zarr', got {path!r}")
    target = Path(path).resolve()
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path={str(path)!r}: {target.parent} is not a folder; make it first")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
    if target.exists() and not is_zarr(target):
        raise FileExistsError(f"{target} exists and is not a zarr store; it is left as it is")
    if any(folder.is_relative_to(target) for folder in _folders(mdata)):
        raise ValueError(f"path={str(path)!r} is the store the data are read from; name another")
    return target


def _folders(mdata: MuData) -> Iterator[Path]:
    """Zarr stores that values are read from."""
    for values in (v for adata in mdata.mod.values() for v in (adata.X, *adata.layers.values())):
        stored = values.group if isinstance(values, CSRDataset | CSCDataset) else values
        if isinstance(stored, zarr.Array | zarr.Group):
            place = getattr(stored.store, "root", None) or getattr(stored.store, "path", None)  # of zarr 3 or 2
            if isinstance(place, str | os.PathLike):
                yield Path(place).resolve()


def _shard_rows(asked: int | None, bytes_a_row: float) -> int:
    if asked is None:
        return int(np.clip(SHARD_BYTES / bytes_a_row, 16, 4096))
    if isinstance(asked, bool) or not isinstance(asked, int | np.integer) or asked < 1:
        raise ValueError(f"shard_rows must be a whole number of at least 1, got {asked!r}")
    return int(asked)


def _layers(modality: ModalitySchema) -> list[str | None]:
    """Registered layers of a modality; ``None`` is ``.X``."""
    return [modality.layer, *([modality.coverage_layer] if modality.coverage_layer is not None else [])]


def _matrices(mdata: MuData, schema: Schema) -> dict[tuple[str, str | None], Any]:
    """(modality, layer) -> what holds its values; compressed by rows where it is sparse and in memory."""
    held = [m for m in schema.modalities if m.name in mdata.mod]
    found = {(m.name, layer): stored_values(mdata, m.name, layer) for m in held for layer in _layers(m)}
    return {key: sparse.csr_matrix(v) if sparse.issparse(v) else v for key, v in found.items()}


def _without_values(mdata: MuData, cohort: Cohort, order: NDArray[np.intp]) -> MuData:
    """Names and registered columns of the samples, in order."""
    schema, mods = cohort.schema, {}
    for m, modality in enumerate(schema.modalities):
        if modality.name in mdata.mod:
            adata = mdata.mod[modality.name]
            rows = cohort.stored_rows(order[cohort.present[order, m]], m)
            obs = adata.obs.iloc[rows]
            columns: dict[str, Any] = {
                c.column: _text(obs, c.column) for c in schema.categorical if c.modality == modality.name
            }
            if modality.size_factor_key is not None:
                columns[modality.size_factor_key] = _numbers(obs, modality.size_factor_key)
            mods[modality.name] = AnnData(obs=pd.DataFrame(columns, index=obs.index), var=adata.var.copy())
    with mudata.set_options(pull_on_update=False):
        bare = MuData(mods)
    obs = mdata.obs.reindex(bare.obs_names)
    categorical = [c for c in (*schema.categorical, schema.labels) if c is not None and c.modality is None]
    columns = {c.column: _text(obs, c.column) for c in categorical}
    bare.obs = pd.DataFrame(columns | {c: _numbers(obs, c) for c in schema.continuous}, index=bare.obs_names)
    return bare


def _text(obs: pd.DataFrame, column: str) -> pd.Categorical:
    """A column as a model reads it; all missing where other data lack it."""
    return pd.Categorical(as_categories(obs[column]) if column in obs else np.full(len(obs), None))


def _numbers(obs: pd.DataFrame, column: str) -> NDArray[np.float64]:
    return obs[column].to_numpy(dtype=np.float64, na_value=np.nan)


def _rows(cohort: Cohort, modality: str, windows: list[NDArray[np.intp]]) -> Iterator[NDArray[np.intp]]:
    """Stored rows of each window whose samples have the modality."""
    m = cohort.schema.names.index(modality)
    return (cohort.stored_rows(window, m) for window in windows if cohort.present[window[0], m])


def _write(group: Any, layer: str | None, values: Any, windows: list[NDArray[np.intp]], file_rows: int) -> None:
    """Write the rows of a matrix, a window at a time."""
    place, key = (group, "X") if layer is None else (group["layers"], layer)
    if key in place:
        del place[key]  # an ``X`` that says there is none
    _begin(place, key, values, file_rows)
    for rows in windows:
        _append(place[key], read_rows(values, rows))


def _begin(group: Any, key: str, values: Any, rows: int) -> None:
    """An empty matrix on disk, in files of about ``rows`` rows."""
    n_vars = values.shape[1]
    if isinstance(values, np.ndarray | zarr.Array) or not hasattr(values, "format"):
        options: dict[str, Any] = {"chunks": (rows, max(1, n_vars))}
        write_elem(group, key, np.zeros((0, n_vars), values.dtype), dataset_kwargs=options)
        return
    count = values.nnz if sparse.issparse(values) else values.group["data"].shape[0]
    pointers = np.int32 if count < np.iinfo(np.int32).max else np.int64  # they are in memory when rows are read
    chunk = max(1024, int(rows * count / max(values.shape[0], 1)))
    options = {"chunks": (chunk,), "indptr_dtype": np.dtype(pointers)}
    write_elem(group, key, sparse.csr_matrix((0, n_vars), dtype=values.dtype), dataset_kwargs=options)


def _append(stored: Any, block: NDArray[np.generic] | sparse.csr_matrix) -> None:
    if isinstance(stored, zarr.Group):
        sparse_dataset(stored).append(sparse.csr_matrix(block))
        return
    start = stored.shape[0]
    stored.resize((start + len(block), stored.shape[1]))
    stored[start:] = block
