"""The calls of the documentation on real cohorts, with each cohort's own names, through scanpy and muon and a file."""

from __future__ import annotations

import anndata
import matplotlib.pyplot as plt
import mudata
import muon as mu
import numpy as np
import pytest
import scanpy as sc
import torch

import omicvae

pytestmark = pytest.mark.realdata
QUIET = {"enable_progress_bar": False}


def walk_through(mdata, model, colour: str, target: str, source: str, tmp_path) -> mudata.MuData:
    """Latents, one imputation, embed, complete, neighbours, UMAP, plots, files, save and load."""
    mdata.obsm["X_covae"] = model.get_latent_representation()
    imputed = model.impute(target, given=[source])
    assert isinstance(imputed, anndata.AnnData) and imputed.n_obs == mdata.n_obs
    assert np.isfinite(imputed.X).all() and (imputed.layers["sd"] > 0).all()
    omicvae.tl.embed(mdata, model)
    sc.pp.neighbors(mdata, use_rep="X_covae")
    sc.tl.umap(mdata)
    torch.set_num_threads(1)  # numba's threading, which neighbours start, sets torch's number of threads back
    axes = sc.pl.umap(mdata, color=[colour, f"covae_{target}_source"], show=False)
    assert len(axes) == 2
    mu.pl.embedding(mdata, basis="X_umap", color=colour, show=False)
    for plot in (omicvae.pl.history, omicvae.pl.cross_correlation, omicvae.pl.calibration):
        plot(model, show=False)
    omicvae.pl.missingness(mdata, show=False)
    plt.close("all")
    complete = omicvae.tl.complete(mdata, model, modalities=[target])
    for name, written in (("cohort", mdata), ("complete", complete)):
        written.write_h5mu(tmp_path / f"{name}.h5mu")
    back = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    np.testing.assert_allclose(back.obsm["X_covae"], mdata.obsm["X_covae"])
    model.save(tmp_path / "model")
    again = type(model).load(tmp_path / "model", back)
    np.testing.assert_allclose(
        again.get_latent_representation(return_numpy=True),
        model.get_latent_representation(return_numpy=True),
        atol=1e-5,
    )
    return complete


def test_breast_cancer_with_four_data_types(data_dir, tmp_path):
    """802 samples, 347 with all four: log ratios, beta values, counts, protein, as proposed; coloured by PAM50.

    Every eighth feature, for speed.
    """
    full = mudata.read_h5mu(data_dir / "tcga_brca_4omics.h5mu")
    mdata = mudata.MuData({m: a[:, ::8].copy() for m, a in full.mod.items()})
    mdata.obs["PAM50"] = full.obs["PAM50"].reindex(mdata.obs_names)
    before = {m: a.X.copy() for m, a in mdata.mod.items()}
    omicvae.model.CoVAE.setup_mudata(mdata)
    model = omicvae.model.CoVAE(mdata)
    proposed = {m.name: m.likelihood for m in model.schema.modalities}
    assert proposed == {"rna": "normal", "methylation": "beta", "mirna": "nb", "rppa": "normal"}
    model.train(max_epochs=3, **QUIET)
    complete = walk_through(mdata, model, "PAM50", "rppa", "rna", tmp_path)
    assert complete["rppa"].n_obs == 802 and np.isfinite(complete["rppa"].X).all()
    measured = (complete["rppa"].obs["source"] == "observed").to_numpy()
    assert measured.sum() == 402
    names = complete.obs_names[measured]
    original = np.asarray(mdata["rppa"][names].X)
    known = ~np.isnan(original)
    np.testing.assert_allclose(complete["rppa"].X[measured][known], original[known], rtol=1e-5)
    for m, x in before.items():
        now = mdata[m].X
        assert (now != x).nnz == 0 if hasattr(x, "nnz") else np.array_equal(now, x, equal_nan=True)


def test_single_cell_counts_with_batches(data_dir, tmp_path):
    """RNA and ATAC counts of 400 cells in batches, 500 + 1000 features, a third of the cells without ATAC."""
    full = mudata.read_h5mu(data_dir / "snareseq_mouse_cortex.h5mu")
    cells = np.flatnonzero(full.obs["cell_type"].astype(str) != "Mis")
    full = full[np.random.default_rng(0).permutation(cells)[:400]].copy()
    rna, atac = full["rna"][:, :500].copy(), full["atac"][:, :1000].copy()
    mdata = mudata.MuData({"rna": rna, "atac": atac[: len(atac) * 2 // 3].copy()})
    for column in ("cell_type", "batch"):
        mdata.obs[column] = full.obs[column].reindex(mdata.obs_names).astype(str)
    omicvae.model.CoVAE.setup_mudata(mdata, batch_key="batch")
    model = omicvae.model.CoVAE(mdata)
    assert {m.likelihood for m in model.schema.modalities} == {"nb"}
    model.train(max_epochs=3, **QUIET)
    complete = walk_through(mdata, model, "cell_type", "atac", "rna", tmp_path)
    assert (complete["atac"].obs["source"] == "imputed").sum() == len(full) - len(mdata["atac"])
    other = mdata.obs["batch"].unique()[1]
    moved = model.impute("rna", indices=np.arange(50), transform_batch=other, scale="normalized")
    assert np.isfinite(moved.X).all()


def test_element_wise_missing_values_at_tiny_n(data_dir):
    """81 cells, methylation rates with three quarters NaN: every imputed number is finite."""
    mdata = mudata.read_h5mu(data_dir / "scmt_mesc_mofa.h5mu")
    mdata = mudata.MuData({m: a[:, :300].copy() for m, a in mdata.mod.items()})
    omicvae.model.MMVAEPlusPlus.setup_mudata(mdata)
    model = omicvae.model.MMVAEPlusPlus(mdata)
    model.train(max_epochs=5, **QUIET)
    for modality in model.modalities:
        found = model.impute(modality)
        assert np.isfinite(found.X).all() and np.isfinite(found.layers["upper"]).all(), modality
