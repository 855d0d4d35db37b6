"""Reader of the leukaemia cohort distributed with MOFA."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from omicvae.datasets._features_by_samples import assemble, existing_folder, read_features_by_samples

if TYPE_CHECKING:
    from mudata import MuData

_MODALITIES = {"drugs": "drugs", "methylation": "methylation", "mrna": "rna", "mutations": "mutations"}
_UNITS = {
    "drugs": "viability relative to control, 62 drugs at 5 concentrations",
    "methylation": "M-values of the most variable CpG sites",
    "rna": "variance-stabilised expression of the most variable genes",
    "mutations": "0/1, with gaps: mutations and copy-number aberrations",
}
_METADATA = ("sample_metadata", "metadata", "covariates")
_TEXT = {"IGHV": {"0": "U", "1": "M"}, "trisomy12": {"0": "no", "1": "yes"}}
_FORMATS = (".csv", ".tsv", ".txt")


def read_cll(folder: str | os.PathLike[str]) -> MuData:
    """The chronic lymphocytic leukaemia cohort of :cite:t:`dietrich2018drug`, from the csv files of MOFA.

    Section 4.2 of :cite:t:`martens2024disentangling` uses its modalities ``rna`` and ``methylation``. In R,
    ``write.csv(CLL_data$mRNA, "mRNA.csv")`` and so on writes the files from the package MOFAdata.

    Parameters
    ----------
    folder
        Holds at least two of ``drugs.csv``, ``methylation.csv``, ``mRNA.csv`` and ``mutations.csv``, features in rows and
        patients in columns, and may hold ``sample_metadata.txt`` (or ``metadata.txt``), a row a patient. Names may begin
        with ``cll_``; upper and lower case are not distinguished.

    Returns
    -------
    MuData with the modalities found (``mRNA`` becomes ``rna``), each with the patients that have a value in it.
    ``obs["IGHV"]`` is U or M and ``obs["trisomy12"]`` no or yes, from the metadata or, without these, from the mutations;
    the other columns of the metadata are kept as they are. The two labels are also features of ``mutations``: drop those
    before predicting them.

    Raises
    ------
    ValueError
        If the folder is missing, holds fewer than two of the files, or a file does not have this layout; naming it.
    """
    place = existing_folder(folder)
    files = {p.stem.lower().removeprefix("cll_"): p for p in sorted(place.iterdir()) if p.suffix in _FORMATS}
    tables = {_MODALITIES[stem]: read_features_by_samples(p) for stem, p in files.items() if stem in _MODALITIES}
    if len(tables) < 2:
        raise ValueError(
            f"{place} holds {len(tables)} of drugs.csv, methylation.csv, mRNA.csv and mutations.csv; at least two are needed."
        )
    mdata = assemble(tables, _UNITS)
    described = next((files[stem] for stem in _METADATA if stem in files), None)
    clinical = pd.DataFrame() if described is None else _metadata(described)
    columns = {str(name): clinical[name] for name in clinical}
    for label, codes in _TEXT.items():
        found = columns.get(label, tables.get("mutations", pd.DataFrame()).get(label))
        if found is not None:
            columns[label] = _coded(found, codes)
    for name, values in columns.items():
        mdata.obs[name] = values.reindex(mdata.obs_names)
    mdata.uns["provenance"] = {
        "source": "MOFAdata, CLL_data",
        "url": "https://bioconductor.org/packages/MOFAdata",
        "licence": "LGPL-3; measurements: Dietrich et al. (2018)",
        "files": ", ".join(p.name for stem, p in files.items() if stem in _MODALITIES),
    }
    return mdata


def _metadata(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="," if path.suffix == ".csv" else "\t")
    column = next((str(c) for c in table if str(c).lower() == "sample"), None)
    if column is None:
        raise ValueError(f"{path} has no column 'sample', but {list(table.columns)}.")
    return table.assign(**{column: table[column].astype(str)}).drop_duplicates(column).set_index(column)


def _coded(values: pd.Series, codes: dict[str, str]) -> pd.Series:
    """Text categories of 0/1, whole or not, or of the text itself."""
    text = values.map(lambda v: None if pd.isna(v) else str(int(v)) if isinstance(v, int | float) else str(v))
    return text.map(lambda v: codes.get(v, v)).astype("category")
