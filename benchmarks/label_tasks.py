"""The data sets of `labels.py`: which samples, which features, which classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from mudata import MuData
from sklearn.model_selection import StratifiedKFold

import omicvae

FOLDS = 5
FEW = 400  # cells and tumours of the larger data sets, in a run at a reduced size


@dataclass(frozen=True)
class Selection:
    """Features of a modality by their correlation with the label on training samples: the highest, and the lowest."""

    related: dict[str, int]
    other: dict[str, int]


@dataclass(frozen=True)
class Task:
    """A cohort with classes to be found in shared latents."""

    name: str
    setting: str
    load: Callable[[Path], MuData]
    labels: tuple[str, ...]  # columns of obs; the first one is stratified by
    selection: Selection | None = None
    latents: tuple[int, int] | None = None  # shared and private, in the form of the paper
    likelihoods: dict[str, str] = field(default_factory=dict)

    def split(self, mdata: MuData, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Names of training and test samples: fold ``seed`` of 5; tests have every modality and the first label."""
        complete = np.logical_and.reduce([mdata.obs_names.isin(a.obs_names) for a in mdata.mod.values()])
        names = mdata.obs_names[complete & mdata.obs[self.labels[0]].notna().to_numpy()]
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed // FOLDS)
        test = list(folds.split(names, mdata.obs.loc[names, self.labels[0]].astype(str)))[seed % FOLDS][1]
        return np.asarray(mdata.obs_names[~mdata.obs_names.isin(names[test])]), np.asarray(names[test])

    def features(self, mdata: MuData, train: np.ndarray) -> tuple[MuData, dict[str, np.ndarray]]:
        """The cohort with the features of the selection, and which of these are related; everything without one."""
        if self.selection is None:
            return mdata, {}
        label = mdata.obs.loc[train, self.labels[0]].dropna()
        y = pd.get_dummies(label.astype(str)).iloc[:, 0].astype(float)
        kept, related = {}, {}
        for m, adata in mdata.mod.items():
            names = y.index[y.index.isin(adata.obs_names)]
            order = np.argsort(-np.abs(correlation(adata[names].X, y[names].to_numpy())), kind="stable")
            first = self.selection.related[m]
            chosen = np.concatenate([order[:first], order[first:][::-1][: self.selection.other[m]]])
            kept[m] = adata[:, chosen].copy()
            related[m] = np.asarray(kept[m].var_names[:first])
        found = MuData({m: anndata.AnnData(X=dense(a.X), obs=a.obs[[]], var=a.var[[]]) for m, a in kept.items()})
        found.obs[list(self.labels)] = mdata.obs.loc[found.obs_names, list(self.labels)]
        return found, related


def dense(values: np.ndarray | sp.spmatrix) -> np.ndarray:
    """(n, p) array."""
    return np.asarray(values.toarray() if sp.issparse(values) else values, dtype=np.float32)


def correlation(values: np.ndarray | sp.spmatrix, y: np.ndarray) -> np.ndarray:
    """(p,) Pearson correlation of every column with a vector; 0 for a constant column; gaps are left out."""
    y = (y - y.mean()) / y.std()
    if sp.issparse(values):
        mean = np.asarray(values.mean(0)).ravel()
        variance = np.asarray(values.multiply(values).mean(0)).ravel() - mean**2
        covariance = np.asarray(values.T @ y).ravel() / len(y)
    else:
        centred = values - np.nanmean(values, 0)
        variance, covariance = np.nanvar(values, 0), np.nanmean(centred * y[:, None], 0)
    return np.divide(covariance, np.sqrt(np.maximum(variance, 0)), out=np.zeros(len(variance)), where=variance > 1e-12)


def with_classes(mdata: MuData, source: MuData, labels: tuple[str, ...], drop: tuple[str, ...] = ()) -> MuData:
    """Classes of samples as categories; values to be dropped become missing."""
    for label in labels:
        found = source.obs[label].astype(object).reindex(mdata.obs_names)
        mdata.obs[label] = pd.Categorical(found.where(~found.isin(drop)))
    return mdata


def only(mdata: MuData, modalities: tuple[str, ...], common: bool = True) -> dict[str, anndata.AnnData]:
    """Some modalities, on the samples that have all of them."""
    names = mdata.obs_names
    for m in modalities:
        names = names[names.isin(mdata[m].obs_names)] if common else names
    return {m: mdata[m][mdata[m].obs_names.isin(names)].copy() for m in modalities}


def cll(folder: Path) -> MuData:
    """Drugs and mutations of the 184 patients who have both, without the label among the mutations."""
    source = mudata.read_h5mu(folder / "cll_drugs_mutations.h5mu")
    parts = only(source, ("drugs", "mutations"))
    parts["mutations"] = parts["mutations"][:, ~parts["mutations"].var_names.str.contains("IGHV")].copy()
    return with_classes(MuData(parts), source, ("IGHV",))


def cll_rna(folder: Path) -> MuData:
    """Expression and methylation: measured, if the csv files of MOFA are there; else drawn from a published model."""
    if (folder / "cll").is_dir():
        source = omicvae.datasets.read_cll(folder / "cll")
    else:
        source = mudata.read_h5mu(folder / "cll_semisynthetic.h5mu")
    found = with_classes(MuData(only(source, ("rna", "methylation"))), source, ("IGHV",))
    return found[found.obs["IGHV"].notna()].copy()


def brca(folder: Path) -> MuData:
    """Expression and methylation of the 348 tumours that have both."""
    source = mudata.read_h5mu(folder / "tcga_brca_4omics.h5mu")
    found = MuData(only(source, ("rna", "methylation")))
    return with_classes(found, source, ("ER_status", "PAM50"), drop=("indeterminate",))


def brca_m_values(folder: Path) -> MuData:
    """The same with methylation as M-values, for which the paper's normal likelihood is meant."""
    found = brca(folder)
    beta = np.clip(dense(found["methylation"].X), 1e-3, 1 - 1e-3)
    found["methylation"].X = np.log2(beta / (1 - beta))
    return found


def brca_mosaic(folder: Path) -> MuData:
    """All 802 tumours with whatever they have of four assays."""
    source = mudata.read_h5mu(folder / "tcga_brca_4omics.h5mu")
    found = MuData(only(source, ("rna", "methylation", "mirna", "rppa"), common=False))
    return with_classes(found, source, ("ER_status", "PAM50"), drop=("indeterminate",))


def pancan6(folder: Path) -> MuData:
    """Expression and microRNA of the 315 tumours of six types that have both."""
    source = mudata.read_h5mu(folder / "tcga_pancan6_rnaseq.h5mu")
    return with_classes(MuData(only(source, ("rna", "mirna"))), source, ("cancer_type",))


def citeseq(folder: Path) -> MuData:
    """Counts of blood cells."""
    source = mudata.read_h5mu(folder / "citeseq_pbmc10k.h5mu")
    return with_classes(MuData(only(source, ("rna", "protein"))), source, ("cell_type",))


def snare(folder: Path) -> MuData:
    """Counts of cells of known type; of the peaks, those seen in at least 100 cells."""
    source = mudata.read_h5mu(folder / "snareseq_mouse_cortex.h5mu")
    known = source.obs_names[(source.obs["cell_type"] != "Mis").to_numpy()]
    parts = {m: source[m][known].copy() for m in ("rna", "atac")}
    seen = np.asarray((parts["atac"].X > 0).sum(0)).ravel()
    parts["atac"] = parts["atac"][:, seen >= 100].copy()
    return with_classes(MuData(parts), source, ("cell_type",))


def multiome(folder: Path) -> tuple[MuData, str, str]:
    """Log values of a multiome, its column of classes and the class of interest: the paper's blood cells if there."""
    if (folder / "multiome").is_dir():
        cells = next(p for p in sorted((folder / "multiome").iterdir()) if p.suffix in (".csv", ".tsv", ".txt"))
        source = omicvae.datasets.read_multiome(next((folder / "multiome").glob("*.h5")), cells)
        column = next(c for c in source.obs if "type" in c.lower())
        return source, column, next(c for c in source.obs[column].cat.categories if "CD8" in c and "naive" in c.lower())
    source = mudata.read_h5mu(folder / "snareseq_mouse_cortex.h5mu")
    return source[source.obs["cell_type"] != "Mis"].copy(), "cell_type", "L6"


def one_class(folder: Path) -> MuData:
    """Log-normalised expression and log accessibility; a cell is of the class of interest or of the rest."""
    source, column, wanted = multiome(folder)
    source.obs["class"] = np.where(source.obs[column] == wanted, wanted, "rest")
    parts = {}
    for m in ("rna", "atac"):
        counts = sp.csr_matrix(source[m].X, dtype=np.float32)
        if m == "rna":
            counts = sp.csr_matrix(sp.diags(1e3 / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)) @ counts)
        counts.data = np.log1p(counts.data)
        parts[m] = anndata.AnnData(counts, obs=source[m].obs[[]], var=source[m].var[[]])
    return with_classes(MuData(parts), source, ("class",))


def some_of(load: Callable[[Path], MuData], small: bool) -> Callable[[Path], MuData]:
    """All samples, or a few at random."""

    def few(folder: Path) -> MuData:
        mdata = load(folder)
        chosen = np.random.default_rng(0).permutation(mdata.n_obs)[:FEW]
        return mdata[np.sort(chosen)].copy()

    return few if small else load


def tasks(folder: Path, small: bool) -> Iterator[Task]:
    """Every data set and setting, cheap ones first; a stand-in has another name than the paper's own data."""
    cohort = "CLL constructed" + ("" if (folder / "cll").is_dir() else ", semi-synthetic")
    tissue = "RNA + ATAC constructed" + ("" if (folder / "multiome").is_dir() else ", mouse cortex")
    yield Task("CLL", "drugs and mutations", cll, ("IGHV",))
    yield Task("BRCA", "rna and methylation", brca, ("ER_status", "PAM50"))
    yield Task("pancan6", "rna and mirna", pancan6, ("cancer_type",))
    yield Task("CITE-seq", "counts", some_of(citeseq, small), ("cell_type",))
    yield Task("BRCA mosaic", "four assays", some_of(brca_mosaic, small), ("ER_status", "PAM50"))
    for q in (50,) if small else (50, 250, 500, 1000):
        chosen = Selection({"rna": 10, "methylation": 10}, {"rna": q, "methylation": 100})
        normal = {"rna": "normal", "methylation": "normal"}
        yield Task(cohort, f"{q} other genes", cll_rna, ("IGHV",), chosen, (2, 2), normal)
    for d in (2,) if small else (2, 3, 4):
        chosen = Selection({"rna": 20, "methylation": 20}, {"rna": 10, "methylation": 500})
        normal = {"rna": "normal", "methylation": "normal"}
        yield Task("BRCA constructed", f"{d}+{d}+{d}", brca_m_values, ("ER_status",), chosen, (d, d), normal)
    for q in (10,) if small else (10, 100, 1000):
        chosen = Selection({"rna": 10, "atac": 10}, {"rna": q, "atac": 500 if small else 5000})
        normal = {"rna": "normal", "atac": "normal"}
        yield Task(tissue, f"{q} other genes", some_of(one_class, small), ("class",), chosen, (2, 2), normal)
    yield Task("RNA + ATAC", "counts", some_of(snare, small), ("cell_type",))
