"""Text tables with a feature a row and a sample a column, as cohorts are often published."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata.utils import make_index_unique

from omicvae.datasets._record import build_mudata

if TYPE_CHECKING:
    from mudata import MuData


_POINTER = b"version https://git-lfs"


def existing_folder(folder: str | os.PathLike[str]) -> Path:
    """The folder, which must exist.

    Raises
    ------
    ValueError
        If it does not.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise ValueError(f"folder: {str(path)!r} is not a folder.")
    return path


def read_features_by_samples(path: Path) -> pd.DataFrame:
    """Samples x features of a comma-separated file that holds features x samples, names in its first row and column.

    Parameters
    ----------
    path
        The file; may be compressed.

    Returns
    -------
    (n_samples, n_features) float32; empty fields and NA are NaN. A sample without any value is left out; features of the
    same name are numbered.

    Raises
    ------
    ValueError
        If a value is not a number or there is no value at all, naming the file.
    """
    with path.open("rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the data: fetch it with 'git lfs pull'.")
    try:
        table = pd.read_csv(path, index_col=0, low_memory=False)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty.") from None
    text = [column for column in table if not pd.api.types.is_numeric_dtype(table[column])]
    if text:
        raise ValueError(f"{path}: column {text[0]!r} holds values that are not numbers.")
    table.index = make_index_unique(table.index.astype(str))
    samples = table.T.astype(np.float32).dropna(how="all")
    if samples.empty:
        raise ValueError(f"{path} holds no value.")
    samples.index = samples.index.astype(str)
    return samples


def assemble(tables: Mapping[str, pd.DataFrame], units: Mapping[str, str]) -> MuData:
    """MuData of tables that may have different samples; features are named ``modality:feature``.

    Parameters
    ----------
    tables
        Modality to samples x features.
    units
        Modality to the unit of its values, kept in ``uns["units"]``.

    Returns
    -------
    MuData in which a sample lacks the modalities whose table lacks it; ``var["feature"]`` has the names of the file.
    """
    samples = pd.Index(list(dict.fromkeys(name for table in tables.values() for name in table.index)))
    present = pd.DataFrame({m: samples.isin(table.index) for m, table in tables.items()}, index=samples)
    named = {m: table.add_prefix(f"{m}:").reindex(samples) for m, table in tables.items()}
    mdata = build_mudata(named, present)
    for m, adata in mdata.mod.items():
        adata.var["feature"] = tables[m].columns.to_numpy()
        adata.uns["units"] = units[m]
    return mdata
