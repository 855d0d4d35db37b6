"""Reader of RNA and open chromatin of the same cells, as Cell Ranger ARC writes them."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mudata import MuData

_TYPES = {"rna": "Gene Expression", "atac": "Peaks"}
_UNITS = {"rna": "UMI counts", "atac": "cut sites a peak"}


def read_multiome(path: str | os.PathLike[str], metadata: str | os.PathLike[str] | None = None) -> MuData:
    """A 10x multiome: gene expression and chromatin accessibility of the same cells.

    Section 4.4 of :cite:t:`martens2024disentangling` is the public data set of 10,032 blood cells, with the cell types of
    the MOFA2 tutorial as ``metadata``.

    Parameters
    ----------
    path
        ``filtered_feature_bc_matrix.h5``.
    metadata
        Comma- or tab-separated table whose first column is the barcode; its other columns go to ``obs``, for example cell
        types. Cells that it does not name are kept, with missing values.

    Returns
    -------
    MuData with the modalities ``rna`` and ``atac``, sparse counts. Genes of the same name are numbered.

    Raises
    ------
    ValueError
        If a file is missing, the matrix lacks genes or peaks, or no barcode of the metadata is in it.
    """
    # Only here: scanpy takes seconds to import.
    import scanpy as sc
    from mudata import MuData

    path = Path(path).expanduser()
    if not path.is_file():
        raise ValueError(f"path: {str(path)!r} is not a file.")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Variable names are not unique")
        whole = sc.read_10x_h5(path, gex_only=False)
        whole.var_names_make_unique()
    kinds = whole.var["feature_types"].astype(str)
    absent = [kind for kind in _TYPES.values() if not (kinds == kind).any()]
    if absent:
        raise ValueError(f"{path} holds {sorted(kinds.unique())}, but no feature of type {absent[0]!r}.")
    modalities = {}
    for name, kind in _TYPES.items():
        modalities[name] = whole[:, (kinds == kind).to_numpy()].copy()
        modalities[name].uns["units"] = _UNITS[name]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pull", category=FutureWarning)
        mdata = MuData(modalities)
    if metadata is not None:
        for column, values in _cells(Path(metadata).expanduser(), mdata.obs_names).items():
            mdata.obs[column] = values
    mdata.uns["provenance"] = {"source": path.name, "files": path.name, "licence": "see its publisher"}
    return mdata


def _cells(path: Path, barcodes: pd.Index) -> pd.DataFrame:
    if not path.is_file():
        raise ValueError(f"metadata: {str(path)!r} is not a file.")
    table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t", index_col=0)
    table.index = table.index.astype(str)
    known = table.index.isin(barcodes)
    if not known.any():
        first = table.index[0] if len(table) else "none"
        raise ValueError(
            f"{path}: none of its {len(table)} barcodes (first {first!r}) is in the matrix ({barcodes[0]!r})."
        )
    found = table[known & ~table.index.duplicated()].reindex(barcodes)
    text = found.columns[[not pd.api.types.is_numeric_dtype(found[c]) for c in found]]
    return found.astype(dict.fromkeys(text, "category"))
