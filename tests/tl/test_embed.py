from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._imputation import DRAWS
from omicvae.tl import embed

Model = CoVAE | MMVAEPlusPlus


def stored(mdata: MuData) -> dict[str, np.ndarray]:
    """All numbers a user put into the modalities."""
    return {
        f"{name}/{layer}": np.array(adata.layers[layer] if layer != "X" else adata.X)
        for name, adata in mdata.mod.items()
        for layer in ("X", "log2", "methylated", "coverage")
        if layer == "X" or layer in adata.layers
    }


def test_what_is_written_is_what_the_getters_return(mdata: MuData, model: Model) -> None:
    before = stored(mdata)
    assert embed(mdata, model) is None
    key = model.default_key
    for name, arguments in {"": {}, "_shared": {"kind": "shared"}}.items():
        written = mdata.obsm[f"X_{key}{name}"]
        assert written.dtype == np.float32
        np.testing.assert_array_equal(written, model.get_latent_representation(mdata, **arguments, return_numpy=True))
    for m in model.modalities:
        private = mdata.obsm[f"X_{key}_private_{m}"]
        absent = ~mdata.obs_names.isin(mdata[m].obs_names)
        assert private.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(private).any(1), absent)
        np.testing.assert_array_equal(np.isnan(private).all(1), absent)
        np.testing.assert_array_equal(mdata.obs[f"{key}_{m}_source"] == "imputed", absent)
        assert mdata[m].layers[key].shape == mdata[m].layers[f"{key}_sd"].shape == mdata[m].shape
        assert np.isfinite(mdata[m].layers[key]).all()
        assert (mdata[m].layers[f"{key}_sd"] > 0).all()
    assert (mdata.obs[f"{key}_latent_sd"] > 0).all()
    for name, values in stored(mdata).items():
        np.testing.assert_array_equal(values, before[name])


def test_denoised_values_are_near_the_measured_ones_of_the_registered_layer(mdata: MuData, covae: CoVAE) -> None:
    embed(mdata, covae)
    rna = mdata["rna"]
    # Features are ten units apart and vary by about one: any other feature's values would be far away.
    assert np.nanmax(np.abs(rna.layers["covae"] - rna.layers["log2"])) < 5
    assert (mdata["meth"].layers["covae"] > 0).all()
    assert (mdata["meth"].layers["covae"] < 1).all()


def test_a_copy_is_changed_and_the_original_is_not(mdata: MuData, covae: CoVAE) -> None:
    keys = set(mdata.obsm), set(mdata.obs), set(mdata.uns)
    embedded = embed(mdata, covae, copy=True)
    assert isinstance(embedded, MuData)
    assert "X_covae" in embedded.obsm
    assert (set(mdata.obsm), set(mdata.obs), set(mdata.uns)) == keys
    assert all("covae" not in adata.layers for adata in mdata.mod.values())


def test_order_of_samples_rows_features_and_modalities_does_not_matter(
    mdata: MuData, model: Model, shuffled: Callable[[MuData], MuData]
) -> None:
    query = shuffled(mdata)
    embed(mdata, model, key_added="z")
    embed(query, model, key_added="z")
    order = mdata.obs_names.get_indexer(query.obs_names)
    for key in ("X_z", "X_z_shared", *(f"X_z_private_{m}" for m in model.modalities)):
        np.testing.assert_allclose(query.obsm[key], mdata.obsm[key][order], atol=1e-4)
    np.testing.assert_allclose(query.obs["z_latent_sd"], mdata.obs["z_latent_sd"].iloc[order], rtol=1e-4)
    for m in model.modalities:
        rows = mdata[m].obs_names.get_indexer(query[m].obs_names)
        columns = mdata[m].var_names.get_indexer(query[m].var_names)
        there, here = mdata[m].layers["z"][rows][:, columns], query[m].layers["z"]
        sd = mdata[m].layers["z_sd"][rows][:, columns]
        unregistered = columns < 0
        assert unregistered.sum() == 1
        assert np.isnan(here[:, unregistered]).all()
        # Both are means over DRAWS draws, whose error is below sd / sqrt(DRAWS) each.
        assert (np.abs(here - there) < 6 * sd * np.sqrt(2 / DRAWS))[:, ~unregistered].all()


def test_less_evidence_never_lowers_the_latent_sd(mdata: MuData, covae: CoVAE) -> None:
    # The posterior precision of CoVAE is the prior's plus a non-negative term for each assay.
    embed(mdata, covae)
    poorer = MuData({m: mdata[m].copy() for m in ("rna", "meth")})
    poorer.obs["batch"] = mdata.obs["batch"].reindex(poorer.obs_names)
    embed(poorer, covae)
    full = mdata.obs["covae_latent_sd"].reindex(poorer.obs_names)
    lost = poorer.obs_names.isin(mdata["mirna"].obs_names)
    assert (poorer.obs["covae_latent_sd"] >= full - 1e-5)[lost].all()
    np.testing.assert_allclose(poorer.obs["covae_latent_sd"][~lost], full[~lost], rtol=1e-4)


def test_a_modality_that_a_query_lacks_is_imputed_in_all_samples(mdata: MuData, covae: CoVAE) -> None:
    query = MuData({m: mdata[m].copy() for m in ("rna", "meth")})
    embed(query, covae)
    assert (query.obs["covae_mirna_source"] == "imputed").all()
    assert np.isnan(query.obsm["X_covae_private_mirna"]).all()
    assert list(query.uns["covae"]["given"]) == ["rna", "meth"]


def test_a_sample_without_any_registered_assay_is_marked(mdata: MuData, covae: CoVAE) -> None:
    other = AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=["new", mdata.obs_names[0]]))
    query = MuData({**{m: a.copy() for m, a in mdata.mod.items()}, "other": other})
    embed(query, covae)
    assert (query.obs.loc["new", [f"covae_{m}_source" for m in covae.modalities]] == "prior").all()
    assert "prior" not in query.obs["covae_rna_source"].drop("new").array


def test_everything_survives_a_file(mdata: MuData, model: Model, tmp_path: Path) -> None:
    embed(mdata, model)
    key = model.default_key
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    read = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    for name in [k for k in mdata.obsm if k.startswith("X_")]:
        np.testing.assert_array_equal(read.obsm[name], mdata.obsm[name])
    for column in [c for c in mdata.obs if c.startswith(key)]:
        assert list(read.obs[column]) == list(mdata.obs[column])
    for m in model.modalities:
        source = read.obs[f"{key}_{m}_source"]
        assert list(source.cat.categories) == ["observed", "imputed"]
        np.testing.assert_array_equal(read[m].layers[f"{key}_sd"], mdata[m].layers[f"{key}_sd"])
    written, found = mdata.uns[key], read.uns[key]
    assert found["model"] == type(model).__name__
    assert found["likelihoods"] == {"rna": "normal", "mirna": "nb", "meth": "betabinomial"}
    assert found["layers"] == {"rna": "log2", "meth": "methylated"}
    assert found["n_shared"] == mdata.obsm[f"X_{key}_shared"].shape[1]
    assert set(found) == set(written)
    for column, values in written["cross_correlation"].items():
        np.testing.assert_array_equal(found["cross_correlation"][column], values)


def test_arguments_are_plain_values(covae: CoVAE) -> None:
    arguments = embed(covae.adata, covae, copy=True).uns["covae"]["arguments"]
    assert json.loads(json.dumps(arguments)) == arguments
    assert arguments["posterior"] == "potentials"


def test_a_second_call_replaces_the_first(mdata: MuData, covae: CoVAE, mmvaepp: MMVAEPlusPlus) -> None:
    embed(mdata, covae, key_added="z")
    embed(mdata, mmvaepp, key_added="z")
    np.testing.assert_array_equal(mdata.obsm["X_z"], mmvaepp.get_latent_representation(mdata, return_numpy=True))
    assert mdata.uns["z"]["model"] == "MMVAEPlusPlus"


def test_two_models_stand_side_by_side(mdata: MuData, covae: CoVAE, mmvaepp: MMVAEPlusPlus) -> None:
    embed(mdata, covae)
    first = mdata.obsm["X_covae"].copy()
    embed(mdata, mmvaepp)
    np.testing.assert_array_equal(mdata.obsm["X_covae"], first)
    assert "X_mmvaepp" in mdata.obsm


def test_a_view_is_written_to_and_its_parent_is_not(mdata: MuData, covae: CoVAE) -> None:
    view = mdata[mdata.obs_names[5:25]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # AnnData and MuData say that the view becomes data of its own
        embed(view, covae)
    assert view.obsm["X_covae"].shape[0] == 20
    assert all("covae" in adata.layers for adata in view.mod.values())
    assert "X_covae" not in mdata.obsm
    assert all("covae" not in adata.layers for adata in mdata.mod.values())


def test_a_model_loaded_without_data_embeds_others(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    covae.save(tmp_path / "model")
    embed(mdata, CoVAE.load(tmp_path / "model", adata=False))
    np.testing.assert_allclose(
        mdata.obsm["X_covae"], covae.get_latent_representation(mdata, return_numpy=True), atol=1e-5
    )
    assert "cross_correlation" not in mdata.uns["covae"]  # there are no held-out samples to measure it on


def test_names_that_hold_data_are_refused_before_anything_is_written(mdata: MuData, covae: CoVAE) -> None:
    with pytest.raises(ValueError, match="'log2' of modality 'rna' is what the model was set up with"):
        embed(mdata, covae, key_added="log2")
    assert "X_log2" not in mdata.obsm
    taken = AnnData(np.ones((2, 1), np.float32), obs=pd.DataFrame(index=mdata.obs_names[:2]))
    query = MuData({**{m: a.copy() for m, a in mdata.mod.items()}, "X_covae": taken})
    with pytest.raises(ValueError, match="'X_covae' in mdata.obsm is where MuData marks"):
        embed(query, covae)


def test_wrong_arguments_are_named(mdata: MuData, covae: CoVAE) -> None:
    with pytest.raises(TypeError, match=r"embed expects a model of omicvae.model, got MuData"):
        embed(covae, mdata)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data first and the model second"):
        embed(covae, covae)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects a MuData, got AnnData"):
        embed(mdata["rna"], covae)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"none of the model's modalities"):
        embed(MuData({"other": mdata["rna"].copy()}), covae)
    with pytest.raises(ValueError, match="lacks 1 of the 12 features"):
        embed(MuData({"rna": mdata["rna"][:, 1:].copy(), "mirna": mdata["mirna"].copy()}), covae)
    with pytest.raises(RuntimeError, match=r"call model.train\(\)"):
        embed(mdata, CoVAE(covae.adata))
