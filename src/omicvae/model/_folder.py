"""A model folder on disk: JSON and plain arrays, read without executing anything in them."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from omicvae.data._target import exchange
from omicvae.train._record_file import UNREADABLE, plain_arrays

FORMAT = 1
STATE, ARRAYS, DATA, CHECKSUMS = "model.json", "arrays.npz", "mdata.h5mu", "SHA256SUMS"


def check_target(target: Path, overwrite: bool) -> None:
    """Raise a FileExistsError if a model may not be written to ``target``."""
    if not target.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
    if not (target / STATE).exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(f"{target} exists and does not hold a saved model; it is left as it is")
    if target == Path.cwd():
        raise FileExistsError(f"{target} is the working directory and cannot be replaced; name a folder in it")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A new folder to write to; it takes the place of ``target`` once everything in the block has succeeded.

    Files in ``target`` that are not part of a saved model are moved into the new folder.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = target.with_name(f".{target.name}-{uuid4().hex}")
    folder.mkdir()
    try:
        yield folder
        _take_place(folder, target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _take_place(folder: Path, target: Path) -> None:
    if not target.exists():
        os.replace(folder, target)
        return
    old = folder.with_name(f"{folder.name}-old")
    exchange(folder, target, old)
    for file in old.iterdir():
        if file.name not in (STATE, ARRAYS, DATA, CHECKSUMS):
            os.replace(file, target / file.name)
    shutil.rmtree(old, ignore_errors=True)


def write_model(
    folder: Path, state: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], plain: Callable[[Any], Any]
) -> None:
    """Write state and arrays, and the checksums of both files (in the form that ``sha256sum -c`` reads).

    Parameters
    ----------
    folder
        Existing folder.
    state
        What goes into JSON.
    arrays
        name -> numeric or text array.
    plain
        Turns what JSON does not know into what it knows.
    """
    (folder / STATE).write_text(json.dumps({"format": FORMAT, **state}, default=plain))
    np.savez(folder / ARRAYS, **arrays)  # type: ignore[arg-type]
    sums = [f"{_digest((folder / name).read_bytes())}  {name}\n" for name in (STATE, ARRAYS)]
    (folder / CHECKSUMS).write_text("".join(sums))


def sign_data(folder: Path) -> None:
    """Add the checksum of the data that were saved beside a model."""
    with (folder / CHECKSUMS).open("a") as sums:
        sums.write(f"{_file_digest(folder / DATA)}  {DATA}\n")


def check_data(folder: Path) -> None:
    """Raise a ValueError if the data beside a model are not those that were saved with it."""
    if _checksums(folder).get(DATA, "") != _file_digest(folder / DATA):
        raise ValueError(
            f"{folder / DATA} is damaged: it is not the file that was saved (see {CHECKSUMS}). The model itself can be "
            "read with load(dir, mdata), or load(dir, adata=False)."
        )


def read_state(folder: Path) -> dict[str, Any]:
    """The JSON part of a saved model.

    Raises
    ------
    FileNotFoundError
        If there is no saved model.
    ValueError
        If it is damaged or of another format.
    """
    if not (folder / STATE).is_file():
        hint = " It holds a model.pt, which is a pickle and is not read." if (folder / "model.pt").exists() else ""
        for old in sorted(folder.absolute().parent.glob(f".{glob.escape(folder.absolute().name)}-*-old")):
            hint = f" A save that was interrupted left the model before it in {old}: rename that folder."
        raise FileNotFoundError(f"{folder} holds no saved omicvae model ({STATE} is missing).{hint}")
    text = (folder / STATE).read_bytes()
    try:
        state = json.loads(text)
        found = state["format"]
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / STATE} is damaged and cannot be read") from error
    if found != FORMAT:
        raise ValueError(f"{folder} was written in format {found}, this version of omicvae reads format {FORMAT}")
    _verify(folder, STATE, text)
    return state


def read_arrays(folder: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a saved model; a file that holds anything but plain arrays is a ValueError and is not read."""
    path = folder / ARRAYS
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing")
    content = path.read_bytes()
    _verify(folder, ARRAYS, content)
    try:
        return plain_arrays(content)
    except UNREADABLE as error:
        raise ValueError(f"{path} is damaged, or holds something other than plain arrays; it is not read") from error


def _checksums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / CHECKSUMS).read_text().splitlines()
        return {file: digest for digest, file in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is damaged: {CHECKSUMS} is missing or cannot be read") from error


def _verify(folder: Path, name: str, content: bytes) -> None:
    if _checksums(folder).get(name) != _digest(content):
        raise ValueError(f"{folder / name} is damaged: it is not the file that was saved (see {CHECKSUMS})")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
