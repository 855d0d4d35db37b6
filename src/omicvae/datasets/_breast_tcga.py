"""The breast-cancer cohort distributed with mixOmics."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from omicvae.datasets._download import RemoteFile, locate
from omicvae.datasets._record import build_mudata

if TYPE_CHECKING:
    from mudata import MuData

_COMMIT = "d732983ad52fdd7fb2496a7ca8ac1bec501a63ab"
_FILE = RemoteFile(
    name="breast.TCGA.rda",
    url=f"https://raw.githubusercontent.com/mixOmicsTeam/mixOmics/{_COMMIT}/data/breast.TCGA.rda",
    sha256="0812db063ceee018470b59249a27289e8231909b9ec858c9b3e8fc9ead67af48",
)
_BLOCKS = {"rna": "mrna", "mirna": "mirna", "rppa": "protein"}
_UNITS = {
    "rna": "log2 RNA-seq expression, as processed by mixOmics",
    "mirna": "log2 miRNA-seq expression, as processed by mixOmics",
    "rppa": "reverse-phase protein array, normalised",
}
_PROVENANCE = {
    "source": f"mixOmicsTeam/mixOmics@{_COMMIT}:data/breast.TCGA.rda",
    "url": _FILE.url,
    "sha256": _FILE.sha256,
    "licence": "GPL (>= 2), mixOmics; measurements: The Cancer Genome Atlas, BRCA",
    "processing": "training and test samples stacked; proteins were not measured in the test samples",
    "note": "the two splits were normalised apart: rna and mirna shift between them",
}


def breast_tcga(data_dir: str | os.PathLike[str] | None = None) -> MuData:
    """Breast tumours of TCGA with three assays, one of them missing in a third of the samples.

    The ``breast.TCGA`` data of the R package mixOmics: 220 tumours with mRNA (200 genes) and miRNA (184), 150 of
    them (the training split) also with proteins (142). The two splits were normalised apart, so ``split`` acts as a
    batch.

    Parameters
    ----------
    data_dir
        Folder that holds ``breast.TCGA.rda`` or ``raw/breast.TCGA.rda``. None: the folder named by the environment
        variable OMICVAE_DATA. Without the file there, it is taken from the cache or downloaded (0.7 MB).

    Returns
    -------
    MuData with modalities ``rna`` (220 x 200), ``mirna`` (220 x 184) and ``rppa`` (150 x 142), on a log2 scale
    (units in ``uns["units"]`` of each); ``obs["subtype"]`` is the PAM50 class (Basal, Her2, LumA), ``obs["split"]``
    train or test; ``uns["provenance"]`` says where it comes from and under which licence.

    Raises
    ------
    ValueError
        If ``data_dir`` is not a folder, or the file in it is not the published one.
    DatasetUnavailableError
        If there is no local copy and it cannot be downloaded.

    References
    ----------
    Cancer Genome Atlas Network (2012), Comprehensive molecular portraits of human breast tumours, Nature 490, 61-70.
    Rohart, Gautier, Singh, Le Cao (2017), mixOmics, PLOS Computational Biology 13, e1005752.
    """
    # Only here: nothing else in the package reads R files.
    import rdata

    return _assemble(rdata.read_rda(locate(_FILE, data_dir))["breast.TCGA"])


def _assemble(splits: Mapping[str, Mapping[str, Any]]) -> MuData:
    """MuData of ``data.train`` and ``data.test``, each a mapping from block name to a labelled matrix and subtypes."""
    blocks = {"train": splits["data.train"], "test": splits["data.test"]}
    tables = {
        modality: pd.concat([_table(block[source]) for block in blocks.values() if source in block])
        for modality, source in _BLOCKS.items()
    }
    samples = tables["rna"].index
    present = pd.DataFrame({m: samples.isin(table.index) for m, table in tables.items()}, index=samples)
    mdata = build_mudata({m: table.reindex(samples) for m, table in tables.items()}, present)
    subtype = np.concatenate([np.asarray(block["subtype"]).astype(str) for block in blocks.values()])
    split = np.concatenate([np.repeat(name, len(block["subtype"])) for name, block in blocks.items()])
    obs = pd.DataFrame(
        {"subtype": pd.Categorical(subtype), "split": pd.Categorical(split, categories=list(blocks))}, index=samples
    )
    for column in obs:
        mdata.obs[column] = obs[column].reindex(mdata.obs_names)
    for m, adata in mdata.mod.items():
        adata.uns["units"] = _UNITS[m]
    mdata.uns["provenance"] = dict(_PROVENANCE)
    return mdata


def _table(block: Any) -> pd.DataFrame:
    """Samples x features with TCGA barcodes, of a matrix with dimnames."""
    rows, columns = (np.asarray(block.coords[dim]).astype(str) for dim in block.dims)
    return pd.DataFrame(np.asarray(block), index=[f"TCGA-{row}" for row in rows], columns=columns)
