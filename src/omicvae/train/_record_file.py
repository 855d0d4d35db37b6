"""A nested record of tensors and plain values as one file, written whole or not at all, and read as data alone."""

from __future__ import annotations

import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray

UNREADABLE = (
    *(AttributeError, EOFError, KeyError, MemoryError, OSError, RuntimeError, TypeError, ValueError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
"""What numpy raises on files that are not archives of plain arrays."""

_TREE = "record"


def plain_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays of an ``.npz`` file; anything but plain arrays raises one of :data:`UNREADABLE` and is not read."""
    stored = np.load(io.BytesIO(content), allow_pickle=False)
    arrays = {name: stored[name] for name in stored.files}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
        raise TypeError("numpy gives the bytes of what is not an array")
    return arrays


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record under a temporary name and rename it, so that ``path`` never holds half a file.

    Parameters
    ----------
    path
        File to make or to replace.
    record
        Dicts, lists and tuples of tensors, arrays, numbers, text and ``None``.

    Raises
    ------
    OSError
        If it cannot be written; what was at ``path`` stays.
    TypeError
        If the record holds something else.
    """
    arrays: dict[str, NDArray[Any]] = {}
    tree = _flattened(record, arrays)
    arrays[_TREE] = np.frombuffer(json.dumps(tree).encode(), dtype=np.uint8)
    temporary = path.with_name(f".{path.name}-{uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_record(path: Path) -> dict[str, Any]:
    """What :func:`write_record` wrote. Nothing in the file is executed.

    Raises
    ------
    ValueError
        If it is damaged, or was not written by :func:`write_record`.
    """
    try:
        arrays = plain_arrays(path.read_bytes())
        record = _rebuilt(json.loads(arrays[_TREE].tobytes()), arrays)
        if not isinstance(record, dict):
            raise TypeError("not a record")
        return record
    except (IndexError, RecursionError, *UNREADABLE) as error:
        raise ValueError(
            f"{path} is damaged, or is not a checkpoint of omicvae; delete it to start training again"
        ) from error


def _flattened(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """``value`` as JSON, its tensors and arrays moved to ``arrays``; containers are ``[kind, content]``."""
    if isinstance(value, torch.Tensor):
        name = str(len(arrays))
        arrays[name] = value.detach().cpu().numpy()
        return ["tensor", name]
    if isinstance(value, np.ndarray):
        name = str(len(arrays))
        arrays[name] = value
        return ["array", name]
    if isinstance(value, Mapping):
        return ["dict", [[_flattened(k, arrays), _flattened(v, arrays)] for k, v in value.items()]]
    if isinstance(value, list | tuple):
        return ["tuple" if isinstance(value, tuple) else "list", [_flattened(v, arrays) for v in value]]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}, only numbers, text, arrays and tensors")


def _rebuilt(tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    if not isinstance(tree, list):
        return tree
    kind, content = tree
    if kind in ("tensor", "array"):
        return torch.from_numpy(arrays[content]) if kind == "tensor" else arrays[content]
    if kind == "dict":
        return {_rebuilt(k, arrays): _rebuilt(v, arrays) for k, v in content}
    if kind not in ("list", "tuple"):
        raise ValueError(f"a record holds no {kind!r}")
    items = [_rebuilt(v, arrays) for v in content]
    return tuple(items) if kind == "tuple" else items
