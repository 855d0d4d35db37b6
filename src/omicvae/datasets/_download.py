"""Files of public data sets: from a folder, from the cache, or downloaded once; always verified by checksum."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

DATA_VARIABLE = "OMICVAE_DATA"
"""Environment variable naming a folder of data files."""

_TIMEOUT_SECONDS = 10


class DatasetUnavailableError(OSError):
    """A public data set is neither in a local folder nor in the cache, and could not be downloaded."""


class RemoteFile(NamedTuple):
    """A file of fixed content."""

    name: str  # file name
    url: str  # where it is published, at a fixed revision
    sha256: str  # hexadecimal


def locate(file: RemoteFile, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Path of a verified local copy of a file.

    Looks into ``data_dir`` or, if that is None, the folder named by the environment variable OMICVAE_DATA (there in
    ``raw/``, then directly), then into pooch's cache, then downloads into that cache.

    Parameters
    ----------
    file
        What is wanted.
    data_dir
        Existing folder.

    Returns
    -------
    Path to the file.

    Raises
    ------
    ValueError
        If ``data_dir`` is not a folder, or a file of that name in the folder has other content.
    DatasetUnavailableError
        If there is no copy and the download failed. Gives up after 10 seconds of silence.
    """
    folder = _folder(data_dir)
    if folder is not None:
        for path in (folder / "raw" / file.name, folder / file.name):
            if path.is_file():
                _verify(path, file)
                return path
    return _download(file, folder)


def _folder(data_dir: str | os.PathLike[str] | None) -> Path | None:
    if data_dir is not None:
        folder = Path(data_dir).expanduser()
        if not folder.is_dir():
            raise ValueError(f"data_dir: {str(folder)!r} is not a folder.")
        return folder
    named = os.environ.get(DATA_VARIABLE)
    return Path(named).expanduser() if named else None


def _verify(path: Path, file: RemoteFile) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != file.sha256:
        raise ValueError(
            f"{path} is not the published {file.name}: its SHA-256 is {found}, expected {file.sha256}. "
            "Remove or replace it."
        )


def _download(file: RemoteFile, folder: Path | None) -> Path:
    # Only here: pooch brings requests along, which importing the package should not wait for.
    import pooch

    try:
        return Path(
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=pooch.os_cache("omicvae"),
                downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_SECONDS),
            )
        )
    except (OSError, ValueError) as error:  # no connection or no room; content other than published
        looked = f"not in {folder}, " if folder is not None else ""
        raise DatasetUnavailableError(
            f"{file.name} is {looked}not in the cache, and could not be downloaded from {file.url} ({error}). "
            f"Either download it elsewhere and set the environment variable {DATA_VARIABLE} to its folder, or use "
            "simulated data: omicvae.datasets.simulated_cohort().mdata."
        ) from error
