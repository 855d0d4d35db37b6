"""What tools write is where scanpy and muon look for it, and scvi-tools' settings are obeyed."""

from __future__ import annotations

import gc
import logging
import weakref

import muon
import numpy as np
import pytest
import scanpy as sc
import scvi
from matplotlib import pyplot as plt
from mudata import MuData

from omicvae import pl, tl
from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE


@pytest.fixture(scope="module")
def model() -> CoVAE:
    scvi.settings.seed = 0
    mdata = correlated_gaussian(60, modalities=["rna", "prot"], n_latent=3, n_vars=8, missing=0.3, seed=5).mdata
    CoVAE.setup_mudata(mdata)
    found = CoVAE(mdata)
    found.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return found


@pytest.fixture(scope="module")
def mdata(model: CoVAE) -> MuData:
    """With latents and a map, here of two of them (``scanpy.tl.umap`` takes long to compile)."""
    mdata = model.adata.copy()
    tl.embed(mdata, model)
    mdata.obsm["X_umap"] = mdata.obsm["X_covae"][:, :2].copy()
    return mdata


def test_scanpy_plots_what_embed_wrote(mdata: MuData) -> None:
    axes = sc.pl.umap(mdata, color=["covae_rna_source", "covae_latent_sd"], show=False)
    assert len(axes) == 2
    points = axes[1].collections[0]
    np.testing.assert_allclose(np.sort(points.get_array()), np.sort(mdata.obs["covae_latent_sd"]), rtol=1e-5)
    plt.close("all")


def test_muon_plots_latents_features_and_denoised_values(mdata: MuData) -> None:
    feature = mdata["rna"].var_names[0]
    for arguments in (
        {"basis": "X_covae", "color": [f"rna:{feature}" if f"rna:{feature}" in mdata.var_names else feature]},
        {"basis": "X_umap", "color": "covae_latent_sd"},
    ):
        muon.pl.embedding(mdata, show=False, **arguments)
        assert any(c.get_array() is not None for ax in plt.gcf().axes for c in ax.collections)
        plt.close("all")


def test_the_map_goes_with_completed_data_to_scanpy_and_to_our_plot(mdata: MuData, model: CoVAE) -> None:
    complete = tl.complete(mdata, model, n_draws=20, level=0.5)
    ax = pl.uncertainty(complete, "prot")
    assert sum(len(c.get_offsets()) for c in ax.collections if c.get_array() is not None) >= mdata.n_obs
    prot = complete["prot"].copy()
    prot.obsm["X_umap"] = complete.obsm["X_umap"]
    axes = sc.pl.umap(prot, color=prot.var_names[0], layer="imputed_sd", show=False)
    np.testing.assert_allclose(
        np.sort(axes.collections[0].get_array()), np.sort(prot.layers["imputed_sd"][:, 0]), rtol=1e-5
    )
    plt.close("all")


def test_scanpy_ranks_features_by_loadings(mdata: MuData, model: CoVAE) -> None:
    """scanpy's plot of loadings reads ``varm["PCs"]``: columns of ours can be put there."""
    table = tl.loadings(model, "rna", mdata=mdata)
    rna = mdata["rna"].copy()
    rna.varm["PCs"] = rna.varm["covae_loadings"].to_numpy()
    sc.pl.pca_loadings(rna, components="1,2", show=False, n_points=4)
    shown = {t.get_text() for ax in plt.gcf().axes for t in ax.texts}
    assert set(table.iloc[:, :2].idxmax()) <= shown
    plt.close("all")


class TestSettings:
    def test_the_seed_decides_what_is_drawn_and_learned(self, model: CoVAE) -> None:
        found = []
        for seed in (1, 1, 2):
            scvi.settings.seed = seed
            other = CoVAE(model.adata, backbone="network")
            other.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
            found.append(other.get_latent_representation(return_numpy=True))
        np.testing.assert_allclose(found[0], found[1], atol=1e-6)
        assert np.abs(found[0] - found[2]).max() > 1e-4

    def test_the_batch_size_is_the_default_of_getters(self, model: CoVAE, monkeypatch: pytest.MonkeyPatch) -> None:
        sizes = []
        encode = model.module.encode
        monkeypatch.setattr(model.module, "encode", lambda batch: (sizes.append(batch.n_samples), encode(batch))[1])
        monkeypatch.setattr(scvi.settings, "_batch_size", 7)
        model.get_latent_representation()
        assert max(sizes) == 7

    def test_verbosity_and_progress_bar(self, model: CoVAE, capsys: pytest.CaptureFixture[str]) -> None:
        before = scvi.settings.verbosity
        try:
            scvi.settings.verbosity = logging.ERROR
            other = CoVAE(model.adata, backbone="network")
            other.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        finally:
            scvi.settings.verbosity = before
        assert "Epoch" not in capsys.readouterr().out


def test_a_cohort_that_is_deregistered_leaves_memory() -> None:
    """scvi-tools keeps all others for as long as the program runs."""
    mdata = correlated_gaussian(30, modalities=["rna", "prot"], n_latent=2, n_vars=4, seed=0).mdata
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata, backbone="network")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    gone = weakref.ref(mdata)
    model.deregister_manager(mdata)
    del mdata, model
    gc.collect()
    assert gone() is None
