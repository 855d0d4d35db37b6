"""A saved model is data: it comes back as it was, whole or not at all, and nothing in its folder is executed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.nn import NetworkConfig

MODALITIES = ("rna", "meth", "prot")


def latents(model: Any, mdata: MuData | None = None) -> pd.DataFrame:
    return model.get_latent_representation(mdata)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert len(found)
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-5, atol=1e-5)


def names_of(model: Any, part: str) -> set[str]:
    return set(model.adata.obs_names[getattr(model, f"{part}_indices")])


class TestForms:
    def test_with_the_data_saved_beside_it(self, model: Any, tmp_path: Path) -> None:
        model.save(tmp_path / "m", save_anndata=True)
        loaded = type(model).load(tmp_path / "m")
        assert loaded.is_trained and loaded.modalities == MODALITIES
        assert_same(latents(loaded), latents(model))
        assert loaded.adata is not model.adata
        for a, b in zip(loaded.module.state_dict().values(), model.module.state_dict().values(), strict=True):
            assert torch.equal(a, b) and a.dtype == b.dtype

    def test_with_data_in_another_order(self, model: Any, tmp_path: Path, rearranged: Callable) -> None:
        model.save(tmp_path / "m")
        mdata = rearranged(model.adata)
        loaded = type(model).load(tmp_path / "m", mdata)
        assert loaded.adata is mdata
        assert_same(latents(loaded), latents(model))
        for part in ("train", "validation", "test"):
            assert names_of(loaded, part) == names_of(model, part)
        assert names_of(loaded, "train")

    def test_with_data_that_lack_a_modality_and_samples(self, model: Any, tmp_path: Path) -> None:
        model.save(tmp_path / "m")
        kept = model.adata.obs_names[5:40]
        mods = {m: model.adata[m][model.adata[m].obs_names.isin(kept)].copy() for m in ("prot", "rna")}
        mdata = MuData(mods)
        mdata.obs["batch"] = model.adata.obs["batch"].reindex(mdata.obs_names)
        loaded = type(model).load(tmp_path / "m", mdata)
        assert_same(latents(loaded), model.get_latent_representation(given=["rna", "prot"]))
        assert names_of(loaded, "train") == names_of(model, "train") & set(mdata.obs_names)
        assert loaded.impute("meth", n_draws=19).shape == (mdata.n_obs, 9)

    def test_without_data(self, model: Any, tmp_path: Path, rearranged: Callable) -> None:
        model.save(tmp_path / "m")
        loaded = type(model).load(tmp_path / "m", adata=False)
        assert loaded.adata is None
        with pytest.raises(ValueError, match="loaded without data: pass mdata="):
            latents(loaded)
        mdata = rearranged(model.adata)
        assert_same(latents(loaded, mdata), latents(model))
        assert loaded.impute("rna", mdata=mdata, n_draws=19).shape == (60, 12)
        assert mdata.uns == {}
        with pytest.raises(ValueError, match="no data to train on"):
            loaded.train(max_epochs=1)
        with pytest.raises(ValueError, match="none to save"):
            loaded.save(tmp_path / "n", save_anndata=True)
        assert not (tmp_path / "n").exists()

    def test_saved_again_without_data_it_still_knows_its_training_samples(
        self, model: Any, tmp_path: Path, rearranged: Callable
    ) -> None:
        model.save(tmp_path / "a")
        type(model).load(tmp_path / "a", adata=False).save(tmp_path / "b")
        loaded = type(model).load(tmp_path / "b", rearranged(model.adata))
        assert_same(latents(loaded), latents(model))
        for part in ("train", "validation"):
            assert names_of(loaded, part) == names_of(model, part)

    def test_saved_again_from_a_subset_it_still_knows_all_its_training_samples(
        self, model: Any, tmp_path: Path, rearranged: Callable
    ) -> None:
        """A sample that was trained on must not come back as held out."""
        model.save(tmp_path / "a")
        subset = rearranged(model.adata, samples=model.adata.obs_names[:20])
        type(model).load(tmp_path / "a", subset).save(tmp_path / "b")
        loaded = type(model).load(tmp_path / "b", model.adata.copy())
        assert names_of(loaded, "train") == names_of(model, "train")

    def test_view_of_the_setup_works_in_all_forms(
        self, covae: CoVAE, saved: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for model in (covae, CoVAE.load(saved, covae.adata.copy()), CoVAE.load(saved, adata=False)):
            model.view_anndata_setup()
            printed = capsys.readouterr().out
            for word in ("'likelihoods'", "X_rna", "batch State Registry", "batch_2"):
                assert word in printed
        CoVAE.view_setup_args(saved)
        assert "'batch_key': 'batch'" in capsys.readouterr().out
        assert CoVAE.load_registry(saved)["setup_args"] == covae.registry["setup_args"]

    def test_a_view_can_be_attached(self, covae: CoVAE, saved: Path) -> None:
        assert_same(latents(CoVAE.load(saved, covae.adata[7:20])), latents(covae))

    def test_training_goes_on_after_loading(self, covae: CoVAE, saved: Path) -> None:
        loaded = CoVAE.load(saved, covae.adata.copy())
        loaded.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        assert np.isfinite(latents(loaded)).all(axis=None)

    def test_a_model_loaded_for_the_same_data_leaves_the_first_one_alone(self, covae: CoVAE, saved: Path) -> None:
        expected = latents(covae)
        other = CoVAE.load(saved, covae.adata)
        assert_same(latents(covae), expected)
        assert_same(latents(other), expected)


class TestWhatComesBack:
    def test_history(self, covae: CoVAE, saved: Path) -> None:
        loaded = CoVAE.load(saved, adata=False)
        assert loaded.best_epoch_ == covae.best_epoch_ is not None
        assert set(loaded.history) == set(covae.history) >= {"elbo_train", "elbo_validation"}
        for key, curve in covae.history.items():
            found = loaded.history[key]
            assert list(found.columns) == list(curve.columns) and found.index.name == curve.index.name
            np.testing.assert_array_equal(found.index, curve.index)
            np.testing.assert_array_equal(found.to_numpy(float), curve.to_numpy(float))

    def test_constructor_arguments(self, cohort: Callable, tmp_path: Path) -> None:
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        network = NetworkConfig(n_hidden=8, n_layers=2, dropout=0.1, encode_covariates=True)
        CoVAE(mdata, n_latent={"rna": 2, "prot": 4}, network=network).save(tmp_path / "c")
        loaded = CoVAE.load(tmp_path / "c", mdata)
        assert loaded.module.sizes[0] == 2 and loaded.module.sizes[2] == 4
        assert loaded.module.network == network
        MMVAEPlusPlus.setup_mudata(mdata, labels_key="batch")
        MMVAEPlusPlus(mdata, screening=False, private="zero", label_weight=2.5, n_private=3).save(tmp_path / "m")
        loaded = MMVAEPlusPlus.load(tmp_path / "m", mdata)
        assert loaded.init_params_["non_kwargs"]["label_weight"] == 2.5 and loaded.module.private == "zero"
        assert loaded.module.shape.private == dict.fromkeys(MODALITIES, 3)

    def test_an_untrained_model_is_untrained(self, cohort: Callable, tmp_path: Path) -> None:
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        CoVAE(mdata).save(tmp_path / "m")
        loaded = CoVAE.load(tmp_path / "m", mdata)
        assert not loaded.is_trained and loaded.train_indices is None
        with pytest.raises(RuntimeError, match="has not been trained"):
            latents(loaded)

    @pytest.mark.parametrize("names", [("my rna.seq", "my rna%2Eseq", "Ωmega/β")])
    def test_any_names(self, cohort: Callable, tmp_path: Path, names: tuple[str, ...]) -> None:
        """Of modalities, features, samples, columns and categories."""
        plain = cohort()
        mods = {new: plain[old].copy() for new, old in zip(names, MODALITIES, strict=True)}
        for a in mods.values():
            a.obs_names = [f"паціент.{s}" for s in a.obs_names]
            a.var_names = [f"{v}/é.%" for v in a.var_names]
        mdata = MuData(mods)
        mdata.obs["tumour.type"] = ["ß.1", "ß 2"] * 30
        mdata.obs["age.%"] = 1.0 * np.arange(60)
        CoVAE.setup_mudata(
            mdata, categorical_covariate_keys=["tumour.type"], continuous_covariate_keys=["age.%"],
            batch_key="tumour.type",
        )  # fmt: skip
        model = CoVAE(mdata, n_latent=2, network={"n_hidden": 8, "n_layers": 1})
        model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
        model.view_anndata_setup()
        model.save(tmp_path / "mødel 1", save_anndata="/" not in "".join(names))  # HDF5 takes "/" for a group
        loaded = CoVAE.load(tmp_path / "mødel 1", mdata.copy())
        assert_same(latents(loaded), latents(model))
        assert list(loaded.impute(names[0], n_draws=19).var_names) == list(mods[names[0]].var_names)
        assert names_of(loaded, "train") == names_of(model, "train")

    def test_samples_follow_their_names_when_the_data_change_under_the_model(
        self, trained_model: Callable, cohort: Callable, tmp_path: Path
    ) -> None:
        model = trained_model("covae", cohort())
        trained_on, held_out = names_of(model, "train"), names_of(model, "validation")
        assert trained_on and held_out and not trained_on & held_out
        kept = sorted(model.adata.obs_names)[::-2]
        for m in MODALITIES:
            model.adata.mod[m]._inplace_subset_obs([s for s in kept if s in model.adata[m].obs_names])
        model.adata.update()
        assert list(model.adata.obs_names) != sorted(model.adata.obs_names) and model.adata.n_obs == 30
        assert names_of(model, "train") == trained_on & set(kept)
        assert names_of(model, "validation") == held_out & set(kept)
        model.save(tmp_path / "m")
        loaded = CoVAE.load(tmp_path / "m", cohort())
        assert names_of(loaded, "train") == trained_on and names_of(loaded, "validation") == held_out


class TestReplay:
    """What was resolved at setup stands; it is never proposed again from a query."""

    @pytest.fixture
    def binary(self, covae: CoVAE) -> MuData:
        """Counts that would be proposed as Bernoulli, proportions that would be too, and only one batch."""
        mdata = covae.adata.copy()
        mdata["rna"].X = (mdata["rna"].X > 3).astype(np.float32)
        mdata["meth"].X = np.where(np.isnan(mdata["meth"].X), np.nan, mdata["meth"].X > 0.5).astype(np.float32)
        mdata.obs["batch"] = "batch_2"
        return mdata

    def test_likelihoods_and_categories(self, covae: CoVAE, saved: Path, binary: MuData) -> None:
        fresh = binary.copy()
        CoVAE.setup_mudata(fresh)
        assert CoVAE(fresh).registry["setup_args"]["likelihoods"]["rna"] == "bernoulli"
        loaded = CoVAE.load(saved, binary)
        assert loaded.registry["setup_args"] == covae.registry["setup_args"]
        assert loaded.registry["setup_args"]["likelihoods"] == {"rna": "nb", "meth": "beta", "prot": "normal"}
        assert loaded.schema == covae.schema
        assert (loaded.adata_manager.cohort.batch([0, 1]).codes["batch"] == 1).all()
        assert_same(latents(loaded), latents(covae, binary))

    def test_proposals_are_recorded_as_if_they_had_been_named(self, cohort: Callable) -> None:
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        arguments = CoVAE(mdata).registry["setup_args"]
        assert arguments["modalities"] == list(MODALITIES)
        assert arguments["likelihoods"] == {"rna": "nb", "meth": "beta", "prot": "normal"}

    def test_scvis_own_way_of_replaying_a_setup(self, covae: CoVAE, binary: MuData) -> None:
        CoVAE.setup_mudata(binary, source_registry=covae.registry, **covae.registry["setup_args"])
        assert CoVAE(binary).schema == covae.schema

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (np.log1p, "modality 'rna': .* values are fractional .* raw counts"),
            (np.negative, "modality 'rna': .* values are negative"),
            (lambda x: np.where(x == x.max(), np.nan, x), "modality 'rna': .* NaN"),
        ],
    )
    def test_values_that_cannot_come_from_the_likelihoods(
        self, covae: CoVAE, saved: Path, change: Callable, message: str
    ) -> None:
        mdata = covae.adata.copy()
        mdata["rna"].X = change(mdata["rna"].X).astype(np.float32)
        with pytest.raises(ValueError, match=message):
            CoVAE.load(saved, mdata)

    def test_features_that_are_not_registered_may_hold_anything(self, covae: CoVAE, saved: Path) -> None:
        mdata = covae.adata.copy()
        rna = mdata["rna"]
        wider = np.concatenate([np.full((rna.n_obs, 2), -0.5, np.float32), rna.X], 1)
        var = pd.DataFrame(index=["other_1", "other_2", *rna.var_names])
        query = MuData({"rna": AnnData(wider, obs=rna.obs, var=var), "prot": mdata["prot"], "meth": mdata["meth"]})
        query.obs["batch"] = mdata.obs["batch"].reindex(query.obs_names)
        assert_same(latents(CoVAE.load(saved, query)), latents(covae))
