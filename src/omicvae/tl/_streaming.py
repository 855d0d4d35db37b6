"""A cohort written to disk a block of samples at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import mudata
import numpy as np
import zarr
from anndata.io import write_elem
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data._target import is_zarr

CHUNK = 2**18  # numbers a chunk, 1 MiB of float32


class Block(NamedTuple):
    """Consecutive samples of a modality."""

    rows: slice
    """Their positions in the cohort."""
    values: Mapping[str, NDArray[np.float32]]
    """``"X"`` or the name of a layer -> ``(n, n_vars)``."""


def check_target(out: str | os.PathLike[str], overwrite: bool, mdata: MuData) -> Path:
    """Where to write.

    Raises
    ------
    TypeError
        If ``out`` is not a path or ``overwrite`` not a bool.
    ValueError
        If ``out`` does not end in ``.zarr`` or ``.h5mu``, or is the file from which ``mdata`` are read.
    FileNotFoundError
        If there is no folder to write it in.
    FileExistsError
        If it exists and is not to be overwritten, or is not what it would be replaced by.
    """
    if not isinstance(out, str | os.PathLike):
        raise TypeError(f"out must be a path such as 'cohort.zarr', got {out!r}")
    if not isinstance(overwrite, bool):
        raise TypeError(f"overwrite must be True or False, got {overwrite!r}")
    target = Path(out).resolve()
    if target.suffix not in (".zarr", ".h5mu"):
        raise ValueError(f"out must end in '.zarr' or '.h5mu', which says how to write it; got {str(out)!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"out={str(out)!r}: {target.parent} is not a folder; make it first")
    if mdata.isbacked and target == Path(mdata.filename).resolve():
        raise ValueError(f"out={str(out)!r} is the file the data are read from; name another")
    if target.exists():
        if not overwrite:
            raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
        if not _replaceable(target):
            what = "zarr store" if target.suffix == ".zarr" else "file"
            raise FileExistsError(f"{target} exists and is not a {what}; it is left as it is")
    return target


def _replaceable(target: Path) -> bool:
    """Whether what is there is of the kind that is to be written: no other folder is ever removed."""
    return target.is_file() if target.suffix == ".h5mu" else is_zarr(target)


def stream(
    path: Path,
    bare: MuData,
    layers: Iterable[str],
    blocks: Mapping[str, Iterable[Block]],
    chunk_rows: Mapping[str, int],
) -> None:
    """Write a MuData whose values arrive block by block; one block is in memory at a time.

    Parameters
    ----------
    path
        Does not exist yet; ends in ``.zarr`` or ``.h5mu``.
    bare
        All but the values: names, columns, ``obsm``, ``uns``. Its modalities have neither ``X`` nor layers.
    layers
        Their names; ``X`` is written in any case.
    blocks
        modality -> blocks, which together hold every sample once.
    chunk_rows
        modality -> rows a chunk; those of a block, so that no chunk is written twice.
    """
    names = ["X", *layers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pull", category=FutureWarning)
        (mudata.write_zarr if path.suffix == ".zarr" else mudata.write_h5mu)(path, bare)
    with _opened(path) as file:
        for modality, adata in bare.mod.items():
            group = file["mod"][modality]
            if "X" in group:
                del group["X"]  # which says that there is none
            places = {name: group if name == "X" else group["layers"] for name in names}
            arrays = {k: _array(place, k, adata.shape, chunk_rows[modality]) for k, place in places.items()}
            for block in blocks[modality]:
                for name, values in block.values.items():
                    arrays[name][block.rows] = values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The root of a file that exists."""
    if path.suffix == ".zarr":
        yield zarr.open_group(str(path), mode="r+")
    else:
        with h5py.File(path, "r+") as file:
            yield file


def _array(group: Any, name: str, shape: tuple[int, int], chunk_rows: int) -> Any:
    """A float32 array on disk, not yet filled.

    It is begun without rows by anndata, which knows how arrays are marked in its format, and then made longer.
    """
    n_obs, n_vars = shape
    rows = max(1, min(chunk_rows, n_obs))
    options: dict[str, Any] = {"chunks": (rows, max(1, min(n_vars, CHUNK // rows)))}
    if isinstance(group, h5py.Group):
        options["maxshape"] = (None, n_vars)
    write_elem(group, name, np.zeros((0, n_vars), np.float32), dataset_kwargs=options)
    array = group[name]
    array.resize(shape)
    return array
