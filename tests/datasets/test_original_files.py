"""Readers of published files, on small files of the same layout."""

from __future__ import annotations

import warnings
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import omicvae
from omicvae.datasets import read_cll, read_mlomics, read_multiome

SAMPLES = ["TCGA-A-01", "TCGA-B-01", "TCGA-C-01"]


def table(rows: list[str], columns: list[str], first: float = 0.0) -> pd.DataFrame:
    """Features x samples of distinct numbers."""
    values = first + np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), len(columns))
    return pd.DataFrame(values, index=rows, columns=columns)


@pytest.fixture
def mlomics(tmp_path: Path) -> Path:
    folder = tmp_path / "Main_Dataset" / "Classification_datasets" / "Pan-cancer" / "Original"
    folder.mkdir(parents=True)
    table(["TP53", "ESR1"], SAMPLES).to_csv(folder / "Pan-cancer_mRNA.csv")
    table(["hsa-mir-1"], SAMPLES[::-1], 10).to_csv(folder / "Pan-cancer_miRNA.csv")
    table(["TP53"], SAMPLES, 20).to_csv(folder / "Pan-cancer_CNV.csv")
    table(["TP53"], SAMPLES, 30).to_csv(folder / "Pan-cancer_Methy.csv")
    pd.DataFrame({"Label": [4, 0, 31]}).to_csv(folder / "Pan-cancer_label_num.csv", index=False)
    return folder


def test_mlomics_rows_are_matched_by_sample_and_labels_follow_the_expression_file(mlomics: Path) -> None:
    mdata = read_mlomics(mlomics.parents[2])
    assert {m: a.shape for m, a in mdata.mod.items()} == {
        "rna": (3, 2),
        "mirna": (3, 1),
        "cnv": (3, 1),
        "methylation": (3, 1),
    }
    np.testing.assert_array_equal(mdata["rna"]["TCGA-B-01"].X, [[1, 4]])
    np.testing.assert_array_equal(mdata["mirna"]["TCGA-C-01"].X, [[10]])  # first column of its own file
    assert dict(mdata.obs["label"].astype(str)) == dict(zip(SAMPLES, ["4", "0", "31"], strict=True))
    assert mdata.var_names.is_unique and list(mdata["cnv"].var["feature"]) == ["TP53"]


@pytest.mark.parametrize("up", [0, 2, 3])
def test_mlomics_is_found_from_any_folder_above(mlomics: Path, up: int) -> None:
    folder = [mlomics, *mlomics.parents][up + (up > 0)]
    assert list(read_mlomics(folder, modalities=["rna", "mirna"]).mod) == ["rna", "mirna"]


def test_mlomics_versions_have_their_own_folder_and_suffix(tmp_path: Path) -> None:
    folder = tmp_path / "Classification_datasets" / "GS-BRCA"
    for version, suffix in (("Original", ""), ("Top", "_top")):
        (folder / version).mkdir(parents=True)
        table(["a"] * len(suffix or "x"), SAMPLES).to_csv(folder / version / f"BRCA_mRNA{suffix}.csv")
        table(["b"], SAMPLES).to_csv(folder / version / f"BRCA_miRNA{suffix}.csv")
    pd.DataFrame({"Label": [0, 1, np.nan]}).to_csv(folder / "Original" / "BRCA_label_num.csv", index=False)
    mdata = read_mlomics(tmp_path, "GS-BRCA", version="Top")
    assert mdata["rna"].n_vars == 4 and mdata["rna"].var_names.is_unique
    assert mdata.obs["label"].isna().tolist() == [False, False, True]
    assert read_mlomics(tmp_path, "GS-BRCA")["rna"].n_vars == 1


def test_mlomics_without_labels_or_with_a_sample_that_lacks_an_assay(tmp_path: Path) -> None:
    table(["a"], SAMPLES).to_csv(tmp_path / "ACC_mRNA.csv")
    table(["b"], SAMPLES).assign(**{SAMPLES[1]: np.nan}).to_csv(tmp_path / "ACC_miRNA.csv")
    mdata = read_mlomics(tmp_path, "ACC")
    assert mdata["mirna"].n_obs == 2 and mdata.n_obs == 3
    assert "label" not in mdata.obs


def test_mlomics_mistakes_are_named(mlomics: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        read_mlomics(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="BRCA_mRNA_top.csv"):
        read_mlomics(tmp_path, "GS-BRCA", version="Top")
    with pytest.raises(ValueError, match="version"):
        read_mlomics(mlomics, version="top")
    with pytest.raises(ValueError, match="'mRNA'"):
        read_mlomics(mlomics, modalities=["mRNA"])
    pd.DataFrame({"4": [0, 31]}).to_csv(mlomics / "Pan-cancer_label_num.csv", index=False)
    with pytest.raises(ValueError, match="2 rows below its header.*3 samples"):
        read_mlomics(mlomics)
    (mlomics / "Pan-cancer_CNV.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match="git lfs pull"):
        read_mlomics(mlomics)
    (mlomics / "Pan-cancer_CNV.csv").write_text("")
    with pytest.raises(ValueError, match="empty"):
        read_mlomics(mlomics)
    (mlomics / "Pan-cancer_CNV.csv").write_text(",A,B\nTP53,1,high\n")
    with pytest.raises(ValueError, match="'B' holds values that are not numbers"):
        read_mlomics(mlomics)


@pytest.fixture
def cll(tmp_path: Path) -> Path:
    patients = ["H045", "H109", "H024"]
    table(["ENSG1", "ENSG2"], patients).assign(H109=np.nan).to_csv(tmp_path / "mRNA.csv")
    table(["cg1"], patients, 10).to_csv(tmp_path / "methylation.csv")
    drugs = table(["D_001_1"], patients, 20)
    drugs.to_csv(tmp_path / "drugs.csv")
    mutations = pd.DataFrame([[1, 0, np.nan], [0, 0, 1]], index=["IGHV", "trisomy12"], columns=patients)
    mutations.to_csv(tmp_path / "mutations.csv")
    return tmp_path


def test_cll_reads_labels_from_the_metadata_and_drops_who_was_not_measured(cll: Path) -> None:
    pd.DataFrame(
        {"sample": ["H024", "H045", "H109"], "age": [70, 80, 90], "IGHV": [0, np.nan, 1], "trisomy12": [1, 0, 0]}
    ).to_csv(cll / "sample_metadata.txt", sep="\t", index=False)
    mdata = read_cll(cll)
    assert {m: a.shape for m, a in mdata.mod.items()} == {
        "drugs": (3, 1),
        "rna": (2, 2),
        "methylation": (3, 1),
        "mutations": (3, 2),
    }
    assert "H109" not in mdata["rna"].obs_names
    np.testing.assert_array_equal(mdata["rna"]["H024"].X, [[2, 5]])
    obs = mdata.obs.loc[["H024", "H045", "H109"]]
    assert obs["IGHV"].astype(object).where(obs["IGHV"].notna(), "none").tolist() == ["U", "none", "M"]
    assert obs["trisomy12"].tolist() == ["yes", "no", "no"] and obs["age"].tolist() == [70, 80, 90]
    assert np.isnan(mdata["mutations"]["H024"].X[0, 0])


def test_cll_without_metadata_takes_labels_from_the_mutations(cll: Path) -> None:
    for name in ("mRNA", "methylation", "drugs", "mutations"):
        (cll / f"{name}.csv").rename(cll / f"cll_{name.lower()}.csv")
    mdata = read_cll(cll)
    assert mdata.obs.loc["H045", "IGHV"] == "M" and mdata.obs.loc["H109", "IGHV"] == "U"
    assert mdata.obs["IGHV"].isna().sum() == 1


def test_cll_metadata_as_text_with_gaps_and_repeated_patients(cll: Path) -> None:
    (cll / "cll_metadata.csv").write_text("Sample,IGHV\nH045,U\nH045,M\nH000,M\nH024,\n")
    mdata = read_cll(cll)
    assert mdata.obs.loc["H045", "IGHV"] == "U" and mdata.obs["IGHV"].notna().sum() == 1
    assert mdata.n_obs == 3


def test_cll_mistakes_are_named(cll: Path) -> None:
    (cll / "metadata.txt").write_text("patient\tIGHV\nH045\t1\n")
    with pytest.raises(ValueError, match="no column 'sample'"):
        read_cll(cll)
    for name in ("mRNA", "methylation", "mutations"):
        (cll / f"{name}.csv").unlink()
    with pytest.raises(ValueError, match="at least two"):
        read_cll(cll)


def write_10x(path: Path, counts: np.ndarray, features: list[tuple[str, str, str]]) -> None:
    """``(n_cells, n_features)`` counts in the layout of Cell Ranger ARC."""
    matrix = sp.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        group["barcodes"] = np.array([f"AAC{i}-1" for i in range(len(counts))], dtype="S")
        group["data"], group["indices"], group["indptr"] = matrix.data.astype("i4"), matrix.indices, matrix.indptr
        group["shape"] = np.array(matrix.shape)
        described = group.create_group("features")
        for key, column in zip(("id", "name", "feature_type"), zip(*features, strict=True), strict=True):
            described[key] = np.array(column, dtype="S")
        described["genome"] = np.array(["GRCh38"] * len(features), dtype="S")
        described["_all_tag_keys"] = np.array(["genome"], dtype="S")


@pytest.fixture
def multiome(tmp_path: Path) -> Path:
    features = [
        ("ENSG1", "CD8A", "Gene Expression"),
        ("chr1:1-2", "chr1:1-2", "Peaks"),
        ("ENSG2", "CD8A", "Gene Expression"),
        ("chr1:3-4", "chr1:3-4", "Peaks"),
    ]
    write_10x(tmp_path / "matrix.h5", np.arange(12).reshape(3, 4), features)
    return tmp_path / "matrix.h5"


def test_multiome_is_split_by_feature_type_and_takes_cell_types(multiome: Path) -> None:
    cells = multiome.with_name("cells.tsv")
    cells.write_text("barcode\tcelltype\tn\nAAC2-1\tnaive CD8\t5\nother-1\tB\t1\nAAC0-1\tB\t2\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        mdata = read_multiome(multiome, cells)
    np.testing.assert_array_equal(mdata["rna"].X.toarray(), [[0, 2], [4, 6], [8, 10]])
    np.testing.assert_array_equal(mdata["atac"].X.toarray(), [[1, 3], [5, 7], [9, 11]])
    assert mdata["rna"].var_names.is_unique
    assert mdata.obs["celltype"].isna().tolist() == [False, True, False]
    assert mdata.obs.loc["AAC2-1", "celltype"] == "naive CD8" and mdata.obs.loc["AAC0-1", "n"] == 2


def test_multiome_mistakes_are_named(multiome: Path) -> None:
    with pytest.raises(ValueError, match="'nowhere.h5' is not a file"):
        read_multiome("nowhere.h5")
    with pytest.raises(ValueError, match="metadata"):
        read_multiome(multiome, multiome.with_name("nowhere.csv"))
    multiome.with_name("cells.csv").write_text("barcode,type\nTTT-1,B\n")
    with pytest.raises(ValueError, match="none of its 1 barcodes.*'TTT-1'"):
        read_multiome(multiome, multiome.with_name("cells.csv"))
    write_10x(multiome.with_name("rna.h5"), np.ones((2, 1)), [("ENSG1", "CD8A", "Gene Expression")])
    with pytest.raises(ValueError, match="'Peaks'"):
        read_multiome(multiome.with_name("rna.h5"))


@pytest.mark.parametrize("model", ["CoVAE", "ProbabilisticCCA"])
def test_what_is_read_can_be_registered(cll: Path, model: str) -> None:
    getattr(omicvae.model, model).setup_mudata(read_cll(cll), modalities=["drugs", "methylation"])
