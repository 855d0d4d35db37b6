"""Training on data larger than memory."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import scvi
from mudata import MuData
from scipy import sparse

import omicvae
from omicvae.data import PatternSplitter, ShardSplitter, open_zarr, write_shards
from omicvae.data._manager import registered_manager
from omicvae.model import _representative

QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def cohort(n_obs: int = 200, seed: int = 0) -> MuData:
    mdata = omicvae.datasets.simulated_cohort(n_obs=n_obs, seed=seed).mdata
    for adata in mdata.mod.values():
        adata.X = sparse.csr_matrix(adata.X) if (adata.X >= 0).all() else adata.X
    return mdata


@pytest.fixture
def shards(tmp_path: Path) -> MuData:
    """200 samples in shards of 20, registered."""
    mdata = cohort()
    omicvae.model.CoVAE.setup_mudata(mdata, batch_key="center")
    write_shards(mdata, tmp_path / "s.zarr", shard_rows=20)
    opened = open_zarr(tmp_path / "s.zarr")
    omicvae.model.CoVAE.setup_mudata(opened)
    return opened


def test_patterns_are_divided_alike_and_by_whole_shards(shards: MuData) -> None:
    """Every part has the share of every pattern that is asked for, up to a sample; few shards are cut in two."""
    scvi.settings.seed = 0
    splitter = ShardSplitter(shards, train_size=0.8, calibration_size=0.2)
    cohort = registered_manager(shards).cohort
    parts = [splitter.train_idx, splitter.val_idx, splitter.calibration_idx]
    assert sorted(np.concatenate(parts)) == list(range(len(cohort)))
    code = cohort.present @ (1 << np.arange(3))
    for pattern in np.unique(code):
        members = np.flatnonzero(code == pattern)
        for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
            assert abs(np.isin(members, part).sum() - share * len(members)) <= 2
        owner = np.select([np.isin(members, p) for p in parts], [0, 1, 2])
        whole = [set(owner[k : k + 20]) for k in range(0, len(members), 20)]
        assert sum(len(w) > 1 for w in whole) <= 2  # one cut between training and validation, one for calibration
    scvi.settings.seed = 1
    assert not np.array_equal(ShardSplitter(shards, train_size=0.8).val_idx, splitter.val_idx)


def test_shards_train_as_well_as_memory(tmp_path: Path) -> None:
    """The same samples in another order: the losses that training reaches differ as those of two seeds do."""
    mdata = cohort(400)
    omicvae.model.CoVAE.setup_mudata(mdata)
    write_shards(mdata, tmp_path / "s.zarr", shard_rows=50)
    opened = open_zarr(tmp_path / "s.zarr")
    omicvae.model.CoVAE.setup_mudata(opened)
    losses = []
    for source, seed in ((mdata, 0), (mdata, 1), (opened, 0)):
        scvi.settings.seed = seed
        model = omicvae.model.CoVAE(source, backbone="network")
        module = ShardSplitter(source, batch_size=64, buffer_shards=3, calibration_size=0.0, train_size=1.0)
        model.train(15, datamodule=module, **QUIET)
        losses.append(float(model.history["train_loss"].iloc[-1, 0]))
    memory, other, disk = losses
    assert abs(disk - memory) < max(3 * abs(other - memory), 0.02 * abs(memory))


def test_training_from_shards_is_repeatable_and_calibrates(shards: MuData, tmp_path: Path) -> None:
    """A seed fixes the history; what follows training works as with data in memory, saved and loaded too."""
    histories = []
    for _ in range(2):
        scvi.settings.seed = 3
        model = omicvae.model.CoVAE(shards)
        model.train(2, datamodule=ShardSplitter(shards, batch_size=32, buffer_shards=3, calibration_size=0.3), **QUIET)
        histories.append(model.history["validation_loss"].to_numpy(dtype=float))
    np.testing.assert_array_equal(*histories)
    assert model.training_.batch_size == 32
    assert len(model.calibration_indices) == 60
    assert set(model.calibration_report()["modality"]) == {"rna", "mirna", "rppa"}
    imputed = model.impute("rppa")
    assert imputed.obs_names.equals(shards.obs_names) and np.isfinite(imputed.X).all()
    model.save(tmp_path / "model")
    loaded = omicvae.model.CoVAE.load(tmp_path / "model", shards)
    one, other = (m.get_latent_representation(return_numpy=True) for m in (model, loaded))
    np.testing.assert_array_equal(one, other)


def test_latents_do_not_depend_on_where_values_are(shards: MuData) -> None:
    """Of a model trained from shards: by name, the same of the cohort in memory."""
    model = omicvae.model.CoVAE(shards, backbone="network")
    model.train(1, datamodule=ShardSplitter(shards, batch_size=64), **QUIET)
    stored, memory = model.get_latent_representation(), model.get_latent_representation(cohort())
    np.testing.assert_allclose(stored.loc[memory.index], memory, rtol=0, atol=1e-5)


def test_a_closed_form_takes_as_many_samples_as_memory_allows(shards: MuData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every pattern alike; the model trains, calibrates and is loaded with the same ones."""
    monkeypatch.setattr(_representative, "MOST_VALUES", 100 * 400)  # 100 samples of 400 features
    cohort = registered_manager(shards).cohort
    kept = _representative.representative(cohort, np.arange(200))
    assert len(kept) == 100 and (np.diff(kept) > 0).all()
    everything, chosen = (np.unique(cohort.present[i], axis=0, return_counts=True) for i in (np.arange(200), kept))
    np.testing.assert_array_equal(everything[0], chosen[0])
    assert (np.abs(everything[1] - 2 * chosen[1]) <= 3).all()
    model = omicvae.model.CoVAE(shards, backbone="moments")
    model.train(datamodule=ShardSplitter(shards, calibration_size=0.0), **QUIET)
    held_out = model.get_held_out_predictions("rna", given=["mirna"])
    assert set(held_out.obs_names) <= set(cohort.obs_names[kept])
    monkeypatch.setattr(_representative, "MOST_VALUES", 2**27)
    assert len(_representative.representative(cohort, np.arange(200))) == 200


def test_without_a_datamodule_a_word_is_said(shards: MuData, caplog: pytest.LogCaptureFixture) -> None:
    model = omicvae.model.CoVAE(shards, backbone="network")
    with caplog.at_level(logging.WARNING, logger="omicvae"):
        model.train(1, calibration_size=0.0, **QUIET)
    assert "pass datamodule=omicvae.data.ShardSplitter(mdata)" in caplog.text


def test_something_that_is_no_datamodule_is_refused(shards: MuData) -> None:
    for cls in (omicvae.model.CoVAE, omicvae.model.ProbabilisticCCA):
        cls.setup_mudata(shards)
        with pytest.raises(TypeError, match="datamodule must be an omicvae.data.ShardSplitter"):
            cls(shards).train(datamodule=object(), enable_progress_bar=False)


def test_a_datamodule_of_other_data_is_refused(shards: MuData) -> None:
    other = cohort()
    omicvae.model.CoVAE.setup_mudata(other)
    model = omicvae.model.CoVAE(shards)
    with pytest.raises(ValueError, match="the ShardSplitter reads another MuData than the model"):
        model.train(1, datamodule=ShardSplitter(other), **QUIET)
    with pytest.raises(ValueError, match="the PatternSplitter reads another MuData"):
        model.train(1, datamodule=PatternSplitter(registered_manager(other)), **QUIET)


def test_several_processes_are_refused(shards: MuData) -> None:
    model = omicvae.model.CoVAE(shards)
    with pytest.raises(ValueError, match="shards are read by one process, not 2: train with devices=1"):
        model.train(1, datamodule=ShardSplitter(shards), strategy="ddp", devices=2, **QUIET)


def test_pre_training_in_memory_is_refused(shards: MuData) -> None:
    model = omicvae.model.CoVAE(shards, posterior="joint_encoder")
    with pytest.raises(ValueError, match="use posterior='potentials', or leave datamodule out"):
        model.train(1, datamodule=ShardSplitter(shards), **QUIET)
