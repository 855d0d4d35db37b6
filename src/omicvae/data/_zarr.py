"""A MuData in a zarr store, opened without reading its values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, sparse_dataset
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data._heap import return_free_memory
from omicvae.data._names import without_table

BYTES = "omicvae_bytes"
"""Attribute of a store that says how many bytes its matrices have; zarr reads files that are lost or cut as numbers."""
VALUES = ("X", "layers")
LEFT_OUT = ("raw", "obsp", "varp")


def open_zarr(path: str | os.PathLike[str]) -> MuData:
    """A MuData in a zarr store; the values of its modalities stay on disk.

    ``mudata.read_zarr`` reads everything. Here ``.X`` and layers are read when rows are asked for, a minibatch or a few
    at a time; names, ``.obs``, ``.var``, ``.obsm``, ``.varm`` and ``.uns`` are in memory. Keep it as it is: a subset or
    a copy would have to read the values, and AnnData refuses it.

    Parameters
    ----------
    path
        Written by ``MuData.write_zarr`` or :func:`write_shards`.

    Returns
    -------
    MuData for ``setup_mudata`` and every ``mdata=``. Without ``raw``, ``.obsp`` and ``.varp``.

    Raises
    ------
    FileNotFoundError
        If there is nothing at ``path``.
    ValueError
        If it is not a MuData, or files are missing from it.

    Examples
    --------
    >>> import tempfile, omicvae
    >>> path = tempfile.mkdtemp() + "/cohort.zarr"
    >>> omicvae.datasets.simulated_cohort(n_obs=120).mdata.write_zarr(path)
    >>> mdata = omicvae.data.open_zarr(path)
    >>> omicvae.model.CoVAE.setup_mudata(mdata)
    """
    folder = Path(path)
    if not folder.exists():
        raise FileNotFoundError(f"there is no zarr store at {folder}")
    try:
        root: Any = zarr.open_group(str(folder), mode="r")
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a zarr store: {error}") from error
    if "mod" not in root:
        raise ValueError(f"{folder} does not hold a MuData; write one with MuData.write_zarr")
    _check_bytes(root, folder)
    try:
        names = [n for n in root["mod"].attrs.get("mod-order", []) if n in root["mod"]] or sorted(root["mod"])
        parts = {key: read_elem(root[key]) for key in root if key not in ("mod", "obs", *LEFT_OUT)}
        parts |= {"obs": _table(root["obs"], pd.Index([]))} if "obs" in root else {}
        samples = parts["obs"].index if "obs" in parts else pd.Index([])
        with mudata.set_options(pull_on_update=False):
            mdata = MuData({name: _open_modality(root["mod"][name], samples) for name in names}, **parts)
    except (IndexError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder} is damaged: {error}") from error
    mdata.uns = dict(mdata.uns)
    for obs in (mdata.obs, *(adata.obs for adata in mdata.mod.values())):
        obs.index = without_table(obs.index)
    for name, rows in mdata.obsmap.items():  # views of larger arrays
        mdata.obsmap[name] = rows.copy()
    return_free_memory()
    return mdata


def _open_modality(group: Any, samples: pd.Index) -> AnnData:
    """A modality; of names that are among all ``samples`` it holds no copies, because these take most of the memory."""
    parts: dict[str, Any] = {key: read_elem(group[key]) for key in group if key not in ("obs", *VALUES, *LEFT_OUT)}
    parts["obs"] = _table(group["obs"], samples)
    n_obs = len(parts["obs"])
    if "X" in group:
        parts["X"] = _open_values(group["X"], n_obs)
    layers = group["layers"] if "layers" in group else {}
    return AnnData(**parts, layers={key: _open_values(layers[key], n_obs) for key in layers})


def _table(group: Any, known: pd.Index) -> pd.DataFrame:
    """A data frame whose names are read a piece at a time; those that are ``known`` already are taken from there.

    Read at once, they take several times the memory that they hold in the end, and leave gaps in it behind.
    """
    index = group.attrs.get("_index")
    if index is None or group[index].attrs.get("encoding-type") != "string-array":
        return read_elem(group)
    stored, known = group[index], known if known.is_unique else pd.Index([])
    names = np.empty(stored.shape[0], dtype=object)
    for start in range(0, len(names), max(stored.chunks[0], 1)):
        here = slice(start, start + stored.chunks[0])
        names[here] = _same_objects(np.asarray(stored[here], dtype=object), known)
    columns = list(group.attrs["column-order"])
    table = pd.DataFrame({name: read_elem(group[name]) for name in columns}, index=names, columns=columns or None)
    table.index.name = None if index == "_index" else index
    return table


def _same_objects(names: NDArray[np.object_], known: pd.Index) -> NDArray[np.object_]:
    """The names, as the objects of ``known`` where they are among them."""
    at = known.get_indexer(pd.Index(names, dtype=object))
    return np.where(at >= 0, known.to_numpy(dtype=object)[at], names) if len(known) else names


def _open_values(stored: Any, n_obs: int) -> object:
    """A matrix of ``n_obs`` rows, not read; ``None`` where the store says that there is none."""
    if stored.attrs.get("encoding-type") == "null":
        return None
    if isinstance(stored, zarr.Array):
        shape, values = stored.shape, stored
    elif stored.attrs.get("encoding-type") in ("csr_matrix", "csc_matrix"):
        values = sparse_dataset(stored)
        shape = values.shape
        _check_pointers(stored)
    else:
        return read_elem(stored)
    if shape[0] != n_obs:
        raise ValueError(f"{stored.name} has {shape[0]} rows for {n_obs} names")
    return values


def _check_pointers(stored: Any) -> None:
    """Raise a ValueError if a sparse matrix has lost values."""
    pointers = np.asarray(stored["indptr"])
    sizes = {stored["data"].shape[0], stored["indices"].shape[0], int(pointers[-1]) if len(pointers) else 0}
    if len(sizes) > 1 or (np.diff(pointers) < 0).any():
        raise ValueError(f"{stored.name} has lost values")


def matrix_bytes(folder: Path) -> dict[str, int]:
    """Matrix of a store -> bytes of the files that its values are in."""
    found = {}
    for place in sorted([*folder.glob("mod/*/X"), *folder.glob("mod/*/layers/*")]):
        files = [f for f in place.rglob("*") if f.is_file() and not f.name.startswith((".z", "zarr"))]
        found[place.relative_to(folder).as_posix()] = sum(f.stat().st_size for f in files)
    return found


def _check_bytes(root: Any, folder: Path) -> None:
    """Raise a ValueError if values of a store that says how many bytes it has are missing."""
    found = matrix_bytes(folder)
    for name, expected in dict(root.attrs.get(BYTES, {})).items():
        if found.get(name, 0) != expected:
            raise ValueError(
                f"{folder} is damaged: {name} has {found.get(name, 0)} of its {expected} bytes, and what is missing would "
                "be read as numbers. Copy it again, or write it anew with omicvae.data.write_shards."
            )
