"""Folders and files that take the place of others once they are complete."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


def is_zarr(target: Path) -> bool:
    """Whether a folder is a zarr store."""
    return any((target / name).is_file() for name in ("zarr.json", ".zgroup"))


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write to, in the same folder; it takes the place of ``target`` once all in the block has succeeded.

    If anything fails, what was written is removed and ``target`` is as it was.
    """
    folder = target.with_name(f".{target.name}-{uuid4().hex}")
    folder.mkdir()
    try:
        yield folder / target.name
        if target.is_dir():
            exchange(folder / target.name, target, folder / "old")
        else:
            os.replace(folder / target.name, target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exchange(new: Path, target: Path, old: Path) -> None:
    """Put a folder in the place of another, which becomes ``old``; folders cannot be replaced in one step, unlike files."""
    os.replace(target, old)
    try:
        os.replace(new, target)
    except BaseException:
        os.replace(old, target)
        raise
