"""Reader of MLOmics, the pan-cancer data of the CoVAE paper."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd

from omicvae.datasets._features_by_samples import assemble, existing_folder, read_features_by_samples

if TYPE_CHECKING:
    from mudata import MuData

_NAMES = {"rna": "mRNA", "mirna": "miRNA", "cnv": "CNV", "methylation": "Methy"}
_UNITS = {
    "rna": "gene expression, as processed by MLOmics",
    "mirna": "miRNA expression, as processed by MLOmics",
    "cnv": "copy number by gene, as processed by MLOmics",
    "methylation": "promoter methylation by gene, as processed by MLOmics",
}
_SUFFIX = {"Original": "", "Top": "_top", "Aligned": "_aligned"}
_PAN_CANCER = "Pan-cancer"


def read_mlomics(
    folder: str | os.PathLike[str],
    dataset: str = _PAN_CANCER,
    *,
    version: Literal["Original", "Top", "Aligned"] = "Original",
    modalities: Sequence[str] | None = None,
) -> MuData:
    """Cohorts of TCGA from a local copy of MLOmics :cite:p:`yang2025mlomics`.

    Section 3.2 of :cite:t:`caretti2026covae` is ``read_mlomics(folder, modalities=["rna", "mirna"])``: 8314 tumours of 32
    types, 3217 genes and 383 miRNAs.

    Parameters
    ----------
    folder
        ``Main_Dataset`` as published, the folder above it, or the one that holds the csv files themselves.
    dataset
        Such as ``"Pan-cancer"``, ``"GS-BRCA"``, ``"ACC"`` or ``"Imp-BRCA"``.
    version
        Selection of features; ``"Pan-cancer"`` has ``"Original"`` alone, and of imputation cohorts there is one.
    modalities
        Among ``rna``, ``mirna``, ``cnv`` and ``methylation``; by default those whose file is there.

    Returns
    -------
    MuData with the modalities asked for, features named ``rna:TP53`` and so on. ``obs["label"]`` is the class, as text of
    the published number, where the cohort has one.

    Raises
    ------
    ValueError
        If the folder or a file that is asked for is missing, or a file does not have the published layout; naming it.

    References
    ----------
    Layout: the loader ``utils/data_loader.py`` of https://github.com/chenzRG/Cancer-Multi-Omics-Benchmark.
    """
    if version not in _SUFFIX:
        raise ValueError(f"version must be one of {list(_SUFFIX)}, got {version!r}")
    unknown = [m for m in modalities or () if m not in _NAMES]
    if unknown:
        raise ValueError(f"modalities: MLOmics has {list(_NAMES)}, not {unknown[0]!r}")
    place = _place(existing_folder(folder), dataset, version)
    wanted = _files(place, dataset, version)
    chosen = list(modalities) if modalities is not None else [m for m, path in wanted.items() if path.is_file()]
    missing = [wanted[m] for m in chosen if not wanted[m].is_file()]
    if missing or not chosen:
        raise ValueError(
            f"{missing[0] if missing else wanted['rna']} is not there: {place} is not a copy of {dataset}."
        )
    tables = {m: read_features_by_samples(wanted[m]) for m in chosen}
    mdata = assemble(tables, _UNITS)
    labels = _labels(place, dataset, wanted["rna"] if wanted["rna"].is_file() else wanted[chosen[0]])
    if labels is not None:
        mdata.obs["label"] = pd.Categorical(labels.reindex(mdata.obs_names))
    mdata.uns["provenance"] = {
        "source": f"MLOmics, {dataset}, {version}",
        "url": "https://huggingface.co/datasets/AIBIC/MLOmics",
        "licence": "CC BY 4.0; measurements: The Cancer Genome Atlas",
        "files": ", ".join(wanted[m].name for m in chosen),
    }
    return mdata


def _place(folder: Path, dataset: str, version: str) -> Path:
    """Folder of the files of a cohort: below the one given, or that itself."""
    if dataset == _PAN_CANCER or dataset.startswith("GS-"):
        group = "Classification_datasets"
    else:
        group = "Imputation_datasets" if dataset.startswith("Imp-") else "Clustering_datasets"
    below = Path(group, dataset, _only_version(dataset) or version)
    places = [root / below for root in (folder, folder / "Main_Dataset", folder.parent)]
    return next((p for p in places if p.is_dir()), folder)


def _only_version(dataset: str) -> str | None:
    """The version of a cohort that has no other."""
    return "Original" if dataset == _PAN_CANCER else "Top" if dataset.startswith("Imp-") else None


def _files(place: Path, dataset: str, version: str) -> dict[str, Path]:
    stem = dataset.removeprefix("GS-").removeprefix("Imp-")
    suffix = "" if _only_version(dataset) else _SUFFIX[version]
    return {m: place / f"{stem}_{name}{suffix}.csv" for m, name in _NAMES.items()}


def _labels(place: Path, dataset: str, reference: Path) -> pd.Series | None:
    """Class of each sample; the file has no names, its rows are in the order of the columns of the omics files."""
    name = f"{dataset.removeprefix('GS-').removeprefix('Imp-')}_label_num.csv"
    path = next((p for p in (place / name, place.parent / "Original" / name) if p.is_file()), None)
    if path is None:
        return None
    samples = pd.read_csv(reference, index_col=0, nrows=0).columns.astype(str)
    numbers = pd.read_csv(path).iloc[:, 0]
    if len(numbers) != len(samples):
        raise ValueError(
            f"{path} has {len(numbers)} rows below its header, {reference.name} has {len(samples)} samples."
        )
    whole = np.asarray(numbers, dtype=float)
    text = [str(int(n)) if np.isfinite(n) else None for n in whole]
    return pd.Series(text, index=samples, dtype=object)
