"""A saved model is data: it comes back as it was, whole or not at all, and nothing in its folder is executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import stat
import subprocess
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
FILES = ("model.json", "arrays.npz", "SHA256SUMS")


def latents(model: Any, mdata: MuData | None = None) -> pd.DataFrame:
    return model.get_latent_representation(mdata)


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert len(found)
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-5, atol=1e-5)


def names_of(model: Any, part: str) -> set[str]:
    return set(model.adata.obs_names[getattr(model, f"{part}_indices")])


@pytest.fixture(scope="session")
def covae(trained_model: Callable, cohort: Callable) -> CoVAE:
    return trained_model("covae", cohort())


@pytest.fixture(scope="session")
def saved(covae: CoVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by tests, not written."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    covae.save(folder)
    return folder


@pytest.fixture
def folder(covae: CoVAE, tmp_path: Path) -> Path:
    """A saved model for tests that damage it."""
    covae.save(tmp_path / "model")
    return tmp_path / "model"


def sign(folder: Path) -> None:
    """Checksums that fit, so that what is tested is what lies behind them."""
    lines = [f"{hashlib.sha256((folder / f).read_bytes()).hexdigest()}  {f}\n" for f in FILES[:2]]
    (folder / "SHA256SUMS").write_text("".join(lines))


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
        MMVAEPlusPlus(mdata, private="zero", label_weight=2.5, n_private=3).save(tmp_path / "m")
        loaded = MMVAEPlusPlus.load(tmp_path / "m", mdata)
        assert loaded.init_params_["non_kwargs"]["label_weight"] == 2.5
        assert loaded.module.shape.private == dict.fromkeys(MODALITIES, 3)

    def test_an_untrained_model_is_untrained(self, cohort: Callable, tmp_path: Path) -> None:
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        CoVAE(mdata).save(tmp_path / "m")
        loaded = CoVAE.load(tmp_path / "m", mdata)
        assert not loaded.is_trained and loaded.train_indices is None
        with pytest.raises(RuntimeError, match="has not been trained"):
            latents(loaded)

    @pytest.mark.parametrize("names", [("my rna.seq", "Ωmega/β", "%2E")])
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


class TestRefused:
    """Each in one sentence, as a ValueError or FileNotFoundError."""

    def refused(self, folder: Path, *words: str, error: type[Exception] = ValueError, cls: Any = CoVAE) -> None:
        with pytest.raises(error) as caught:
            cls.load(folder, adata=False)
        message = str(caught.value)
        assert "\n" not in message and str(folder) in message and len(message) < 600
        for word in words:
            assert word in message, message

    def test_another_class(self, saved: Path) -> None:
        self.refused(saved, "holds a CoVAE, not a MMVAEPlusPlus", "use omicvae.model.CoVAE.load", cls=MMVAEPlusPlus)

    def test_another_format(self, folder: Path) -> None:
        state = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(state | {"format": 2}))
        self.refused(folder, "written in format 2", "reads format 1")

    def test_no_folder_or_no_model(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "nowhere", "no saved omicvae model", error=FileNotFoundError)
        self.refused(tmp_path, "no saved omicvae model", "model.json is missing", error=FileNotFoundError)
        (tmp_path / "model.pt").write_bytes(b"")
        self.refused(tmp_path, "model.pt, which is a pickle and is not read", error=FileNotFoundError)

    @pytest.mark.parametrize("file", FILES)
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        self.refused(folder, file, error=ValueError if file == "SHA256SUMS" else FileNotFoundError)

    @pytest.mark.parametrize("file", FILES)
    @pytest.mark.parametrize("share", [0, 0.3, 0.99])
    def test_a_truncated_file(self, folder: Path, file: str, share: float) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content)) - (share > 0.9)])
        self.refused(folder, "damaged")

    def test_a_single_flipped_bit_anywhere(self, covae: CoVAE, folder: Path) -> None:
        rng = np.random.default_rng(0)
        for file in FILES:
            content = (folder / file).read_bytes()
            for at in rng.integers(0, 8 * (len(content) - 1), 120):  # the last byte of the sums is a line break
                flipped = bytearray(content)
                flipped[at // 8] ^= 1 << (at % 8)
                (folder / file).write_bytes(flipped)
                with pytest.raises(ValueError, match=r"damaged|written in format"):
                    CoVAE.load(folder, adata=False)
            (folder / file).write_bytes(content)
        assert_same(latents(CoVAE.load(folder, adata=False), covae.adata), latents(covae))

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 200_000, b"PK\x03\x04"])
    def test_files_of_other_programs(self, folder: Path, content: bytes) -> None:
        original = (folder / "model.json").read_bytes()
        (folder / "model.json").write_bytes(content)
        sign(folder)
        self.refused(folder, "model.json is damaged")
        (folder / "model.json").write_bytes(original)
        (folder / "arrays.npz").write_bytes(content)
        sign(folder)
        self.refused(folder, "arrays.npz is damaged")

    def test_arrays_of_another_kind(self, folder: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        (folder / "arrays.npz").write_bytes(buffer.getvalue())
        sign(folder)
        self.refused(folder, "arrays.npz is damaged, or holds something other than plain arrays")

    @pytest.mark.parametrize("key", ["class", "arguments", "registry", "history"])
    @pytest.mark.parametrize("value", [None, 3, [], {}, "x", {"x": 1}])
    def test_a_state_that_is_not_one(self, folder: Path, key: str, value: Any) -> None:
        state = json.loads((folder / "model.json").read_text())
        if value is None:
            del state[key]
        else:
            state[key] = value
        (folder / "model.json").write_text(json.dumps(state))
        sign(folder)
        if (key, value) == ("history", {}):
            assert CoVAE.load(folder, adata=False).history == {}
        else:
            self.refused(folder)

    @pytest.mark.parametrize("change", ["drop", "add", "reshape", "text"])
    def test_arrays_that_do_not_fit_the_model(self, folder: Path, change: str) -> None:
        arrays = dict(np.load(folder / "arrays.npz"))
        key = next(k for k in arrays if k.startswith("module/") and arrays[k].ndim == 2)
        if change == "drop":
            del arrays[key]
        elif change == "add":
            arrays["module/more"] = np.zeros(2)
        else:
            arrays[key] = arrays[key][1:] if change == "reshape" else arrays[key].astype(str)
        np.savez(folder / "arrays.npz", **arrays)
        sign(folder)
        self.refused(folder, "damaged", "not a model")

    def test_data_that_do_not_fit_or_are_not_there(self, covae: CoVAE, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"saved without its data: .*load\(dir, mdata\).*load\(dir, adata=False\)"):
            CoVAE.load(saved)
        with pytest.raises(TypeError, match="adata must be a MuData, None or False, got AnnData"):
            CoVAE.load(saved, covae.adata["rna"])
        with pytest.raises(TypeError, match="got bool"):
            CoVAE.load(saved, True)
        mdata = covae.adata.copy()
        mdata.mod["prot"] = mdata["prot"][:, 1:].copy()
        with pytest.raises(ValueError, match="'prot' lacks 1 of the 7 features"):
            CoVAE.load(saved, mdata)

    def test_checksums_are_those_of_coreutils(self, saved: Path) -> None:
        try:
            checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=saved, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no sha256sum here")
        assert checked.returncode == 0, checked.stderr


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


class TestNothingIsExecuted:
    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        path = tmp_path / "canary"
        pickle.loads(pickle.dumps(Canary(path)))
        assert path.exists()  # it would sing
        path.unlink()
        return path

    def attempts(self, folder: Path, mdata: MuData) -> None:
        for attempt in (
            lambda: CoVAE.load(folder, adata=False),
            lambda: CoVAE.load(folder),
            lambda: CoVAE.load(folder, mdata.copy()),
            lambda: CoVAE.load_registry(folder),
            lambda: CoVAE.view_setup_args(folder),
            lambda: CoVAE.convert_legacy_save(folder, folder / "converted"),
        ):
            with pytest.raises((ValueError, FileNotFoundError, NotImplementedError)):
                attempt()

    def test_a_folder_of_scvi_tools(self, covae: CoVAE, canary: Path, tmp_path: Path) -> None:
        folder = tmp_path / "stranger"
        folder.mkdir()
        torch.save({"model_state_dict": Canary(canary), "attr_dict": {}, "var_names": []}, folder / "model.pt")
        for legacy in ("attr.pkl", "var_names.csv", "model_params.pt"):
            (folder / legacy).write_bytes(pickle.dumps(Canary(canary)))
        self.attempts(folder, covae.adata)
        assert not canary.exists()

    @pytest.mark.parametrize("kind", ["object array", "object scalar", "pickle", "npy of objects", "torch file"])
    def test_arrays(self, covae: CoVAE, canary: Path, folder: Path, kind: str) -> None:
        path, song = folder / "arrays.npz", Canary(canary)
        arrays: dict[str, Any] = dict(np.load(path))
        if kind == "object array":
            np.savez(path, **arrays, extra=np.array([song], dtype=object))
        elif kind == "object scalar":
            key = next(iter(arrays))
            np.savez(path, **arrays | {key: np.array(song, dtype=object)})
        elif kind == "pickle":
            path.write_bytes(pickle.dumps(song))
        elif kind == "npy of objects":
            buffer = io.BytesIO()
            np.save(buffer, np.array([song], dtype=object), allow_pickle=True)
            path.write_bytes(buffer.getvalue())
        else:
            torch.save(song, path)
        sign(folder)
        (folder / "model.pt").write_bytes(pickle.dumps(song))
        with pytest.raises(ValueError, match=r"arrays.npz is damaged, or holds something other than plain arrays"):
            CoVAE.load(folder, covae.adata.copy())
        assert not canary.exists()

    def test_state(self, covae: CoVAE, canary: Path, folder: Path) -> None:
        (folder / "model.json").write_bytes(pickle.dumps(Canary(canary)))
        sign(folder)
        self.attempts(folder, covae.adata)
        assert not canary.exists()


class TestWriting:
    def test_an_existing_folder_is_kept_unless_asked(self, covae: CoVAE, folder: Path) -> None:
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            covae.save(folder)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before

    def test_what_is_not_a_model_is_never_overwritten(self, covae: CoVAE, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis.txt").write_text("years of work")
        (tmp_path / "file").write_text("x")
        for name in ("home", "file"):
            with pytest.raises(FileExistsError, match="does not hold a saved model"):
                covae.save(tmp_path / name, overwrite=True)
        assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
        assert (tmp_path / "file").read_text() == "x"

    def test_overwriting_replaces_the_model_and_keeps_other_files(
        self, covae: CoVAE, folder: Path, cohort: Callable
    ) -> None:
        (folder / "report.html").write_text("mine")
        (folder / "figures").mkdir()
        (folder / "figures" / "a.png").write_bytes(b"png")
        covae.save(folder, overwrite=True, save_anndata=True)
        assert (folder / "mdata.h5mu").exists()
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        CoVAE(mdata).save(folder, overwrite=True)
        assert not CoVAE.load(folder, adata=False).is_trained
        assert not (folder / "mdata.h5mu").exists()  # it belonged to the other model
        assert (folder / "report.html").read_text() == "mine" and (folder / "figures" / "a.png").exists()
        assert [f.name for f in folder.parent.iterdir()] == [folder.name]

    @pytest.mark.parametrize("fails", ["savez", "first replace", "second replace", "interrupt", "data"])
    def test_a_failure_leaves_the_old_model_whole(
        self, covae: CoVAE, folder: Path, monkeypatch: pytest.MonkeyPatch, cohort: Callable, fails: str
    ) -> None:
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        new, calls, replace = CoVAE(mdata), [], os.replace

        def broken(*args: Any, **kwargs: Any) -> None:
            calls.append(args)
            if fails == "interrupt" and len(calls) == 2:
                raise KeyboardInterrupt
            if fails == "second replace" and len(calls) != 2 or fails == "interrupt":
                replace(*args)
                return
            raise OSError(28, "No space left on device")

        if fails == "savez":
            monkeypatch.setattr(np, "savez", broken)
        elif fails == "data":
            monkeypatch.setattr(MuData, "write", broken)
        else:
            monkeypatch.setattr(os, "replace", broken)
        with pytest.raises(KeyboardInterrupt if fails == "interrupt" else OSError):
            new.save(folder, overwrite=True, save_anndata=True)
        monkeypatch.undo()
        assert calls
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
        assert [f.name for f in folder.parent.iterdir()] == [folder.name]
        assert_same(latents(CoVAE.load(folder, covae.adata.copy())), latents(covae))

    def test_a_new_folder_has_the_permissions_of_any_other(self, covae: CoVAE, tmp_path: Path) -> None:
        """A temporary folder would be closed to everyone else."""
        (tmp_path / "other").mkdir()
        covae.save(tmp_path / "deep" / "er" / "model")
        modes = [stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("other", "deep/er/model")]
        assert modes[0] == modes[1]

    def test_relative_paths_links_and_the_working_directory(
        self, covae: CoVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        covae.save("relative")
        assert_same(latents(CoVAE.load("relative", covae.adata.copy())), latents(covae))
        (tmp_path / "link").symlink_to("relative", target_is_directory=True)
        covae.save("link", overwrite=True)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "relative" / "model.json").is_file()
        monkeypatch.chdir(tmp_path / "relative")
        with pytest.raises(FileExistsError, match="working directory"):
            covae.save(".", overwrite=True)
