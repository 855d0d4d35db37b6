"""Training through the model classes: history, early stopping, repeatability, and losses that are not numbers."""

from __future__ import annotations

import logging

import lightning.pytorch as pl
import mudata
import numpy as np
import pytest
import scvi
import torch
from scipy import sparse

import omicvae
from omicvae.train import MosaicPlan, clip_norm
from omicvae.train._plan import VALIDATION_SEED

QUIET = {"enable_progress_bar": False}


def cohort(seed: int = 0, **kwargs):
    """Two small continuous assays, each missing in a fifth of samples."""
    settings = {"n_obs": 150, "modalities": ("rna", "methylation"), "n_latent": 2, "n_vars": 12, "missing": 0.2}
    return omicvae.datasets.correlated_gaussian(**(settings | kwargs), seed=seed).mdata


def build(mdata, cls=omicvae.model.CoVAE, **kwargs):
    cls.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "normal"))
    return cls(mdata, **kwargs)


@pytest.mark.parametrize("cls", [omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus])
def test_history_has_scvi_names_and_one_curve_a_modality(cls):
    model = build(cohort(), cls)
    model.train(max_epochs=3, **QUIET)
    expected = {"train_loss", "validation_loss", "kl_weight"}
    for mode in ("train", "validation"):
        expected |= {f"{name}_{mode}" for name in ("elbo", "reconstruction_loss", "kl_local", "kl_global")}
        expected |= {f"reconstruction_loss_{m}_{mode}" for m in ("rna", "methylation")}
    assert expected == set(model.history)
    for name, frame in model.history.items():
        assert frame.shape == (3, 1), name
        assert np.isfinite(frame.to_numpy(dtype=float)).all(), name
    rec = model.history["reconstruction_loss_train"].iloc[:, 0].astype(float)
    kl = model.history["kl_local_train"].iloc[:, 0].astype(float)
    elbo = model.history["elbo_train"].iloc[:, 0].astype(float)
    np.testing.assert_allclose(elbo, rec + kl, rtol=1e-4)


@pytest.mark.parametrize("name", ["normal", "beta"])
@pytest.mark.parametrize("cls", [omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus, omicvae.model.MVAE])
def test_one_odd_validation_value_of_a_feature_that_training_samples_do_not_vary_in_decides_nothing(cls, name):
    """The noise of such a feature has no lower bound but the numerical one, and best epochs are chosen by validation loss."""

    def history(odd: float):
        mdata = cohort(missing=0.0)
        for adata in mdata.mod.values():
            adata.X = 1 / (1 + np.exp(-adata.X)) if name == "beta" else adata.X
            adata.X[:, 3] = 0.0
            adata.X[140, 3] = odd
        split = [np.arange(120), np.arange(120, 150), np.zeros(0, dtype=int)]
        scvi.settings.seed = 0
        cls.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, name))
        model = cls(mdata) if cls is omicvae.model.MVAE else cls(mdata, backbone="network")
        model.train(max_epochs=12, datasplitter_kwargs={"external_indexing": split}, **QUIET)
        return model.history["validation_loss"].iloc[:, 0].astype(float).to_numpy()

    np.testing.assert_allclose(history(0.9), history(0.0), rtol=1e-6)


def test_epoch_metrics_are_means_over_samples_not_batches():
    """Three batches of unequal size log the same validation metrics as one batch of all samples."""
    model = build(cohort())
    model.train(max_epochs=2, **QUIET)
    cohort_read, indices = model.adata_manager.cohort, model.validation_indices
    plan = MosaicPlan(model.module, total_steps=1)
    whole = model.module.objective(cohort_read.batch(indices))
    parts = [model.module.objective(cohort_read.batch(part)) for part in np.array_split(indices, [3, 10])]
    for part in parts:
        plan._add("validation", part.sums, part.counts)
    sums, counts = plan._sums["validation"]
    torch.testing.assert_close(counts, whole.counts)
    torch.testing.assert_close(sums[3], whole.sums[3], rtol=1e-4, atol=1e-3)  # the divergence has no random part


def test_same_seed_repeats_exactly_and_another_does_not():
    def run(seed: int):
        scvi.settings.seed = seed
        model = build(cohort())
        model.train(max_epochs=3, **QUIET)
        return model.history["validation_loss"].to_numpy(dtype=float), model.get_latent_representation(
            return_numpy=True
        )

    (first, z1), (second, z2), (other, _) = run(1), run(1), run(2)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(z1, z2)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("cls", [omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus, omicvae.model.MVAE])
@pytest.mark.parametrize("storage", [np.asarray, sparse.csr_matrix])
def test_data_on_disk_train_as_data_in_memory(tmp_path, cls, storage):
    """Bit for bit: same history, latents and imputations of a backed MuData and of a zarr store that was opened."""
    mdata = cohort(n_obs=80)
    for adata in mdata.mod.values():
        adata.X = storage(adata.X)
    mdata.write_h5mu(tmp_path / "m.h5mu")
    mdata.write_zarr(tmp_path / "m.zarr")
    found = []
    backed = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r"), omicvae.data.open_zarr(tmp_path / "m.zarr")
    for source in (mdata, *backed):
        scvi.settings.seed = 5
        model = build(source, cls)
        model.train(max_epochs=2, batch_size=32, **QUIET)
        history = {k: v.to_numpy(dtype=float) for k, v in model.history.items()}
        scvi.settings.seed = 6
        found.append((history, model.get_latent_representation(return_numpy=True), model.impute("rna")))
    (history, latents, imputed), *others = found
    for other_history, other_latents, other_imputed in others:
        assert history.keys() == other_history.keys()
        for name, values in history.items():
            np.testing.assert_array_equal(other_history[name], values, err_msg=name)
        np.testing.assert_array_equal(other_latents, latents)
        np.testing.assert_array_equal(other_imputed.X, imputed.X)
        np.testing.assert_array_equal(other_imputed.layers["upper"], imputed.layers["upper"])


def test_weights_of_the_best_epoch_are_kept():
    """The validation loss of the final weights, computed anew, is the least in the history and not the last."""
    scvi.settings.seed = 3
    model = build(cohort(), omicvae.model.MMVAEPlusPlus)  # nothing is changed after its last epoch
    model.train(max_epochs=60, plan_kwargs={"lr": 0.05, "lr_schedule": "constant"}, **QUIET)
    losses = model.history["validation_loss"].iloc[:, 0].astype(float)
    assert losses.min() < losses.iloc[-1], "the run must overfit for this test to say anything"
    torch.manual_seed(VALIDATION_SEED)
    with torch.no_grad():
        found = model.module.objective(model.adata_manager.cohort.batch(model.validation_indices))
    assert float(found.loss) == pytest.approx(losses.min(), rel=1e-5)
    assert model.best_epoch_ == int(losses.to_numpy().argmin())


def test_early_stopping_ends_a_run_that_no_longer_improves():
    model = build(cohort())
    model.train(max_epochs=60, early_stopping_patience=3, early_stopping_warmup_epochs=0,
                plan_kwargs={"lr": 0.05, "lr_schedule": "constant"}, **QUIET)  # fmt: skip
    assert len(model.history["train_loss"]) < 60


def test_without_validation_samples_it_trains():
    model = build(cohort())
    model.train(max_epochs=2, train_size=1.0, **QUIET)
    assert "validation_loss" not in model.history and model.is_trained


def test_statistics_come_from_training_samples_only():
    """A validation sample with absurd values changes no statistic of the likelihoods."""
    mdata = cohort(missing=None)
    indices = [np.arange(100), np.arange(100, 149), np.array([149])]
    kwargs = {"max_epochs": 1, "datasplitter_kwargs": {"external_indexing": indices}, **QUIET}
    scvi.settings.seed = 0
    plain = build(mdata)
    plain.train(**kwargs)
    changed = mdata.copy()
    for name in ("rna", "methylation"):
        changed.mod[name].X[100:] = 1e6
    scvi.settings.seed = 0
    model = build(changed)
    model.train(**kwargs)
    for name in ("rna", "methylation"):
        a, b = plain.module.likelihoods.of(name), model.module.likelihoods.of(name)
        torch.testing.assert_close(a.input_mean, b.input_mean)
        torch.testing.assert_close(a.input_scale, b.input_scale)
    torch.testing.assert_close(plain.module.prior_covariance, model.module.prior_covariance)


@pytest.mark.parametrize("train_size", [0.9, 1.0])
def test_a_loss_that_is_not_finite_stops_names_the_modality_and_restores(caplog, monkeypatch, train_size):
    """With validation samples and without; the epoch named is that in which it happened."""
    model = build(cohort())
    monkeypatch.setattr(logging.getLogger("omicvae"), "propagate", True)
    likelihood = model.module.likelihoods.of("methylation")
    original, epochs = likelihood.log_prob, []

    class Watch(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            epochs.append(trainer.current_epoch)

    def breaks(eta, observed, noise):
        value = original(eta, observed, noise)
        return value * torch.nan if len(epochs) > 4 else value  # in epoch 4, the fifth

    monkeypatch.setattr(likelihood, "log_prob", breaks)
    with caplog.at_level(logging.ERROR, logger="omicvae"):
        model.train(max_epochs=30, batch_size=64, train_size=train_size, callbacks=[Watch()], **QUIET)
    message = caplog.text
    assert "methylation" in message and "epoch 4" in message and "restored" in message
    assert epochs == [0, 1, 2, 3, 4] and model.best_epoch_ < 4
    assert all(torch.isfinite(p).all() for p in model.module.parameters())
    assert np.isfinite(model.get_latent_representation(return_numpy=True)).all()


def test_a_loss_that_is_never_finite_raises(monkeypatch):
    model = build(cohort())
    likelihood = model.module.likelihoods.of("rna")
    original = likelihood.log_prob
    monkeypatch.setattr(likelihood, "log_prob", lambda *a: original(*a) * torch.nan)
    with pytest.raises(FloatingPointError, match=r"'rna'.*epoch 0.*lower the learning rate"):
        model.train(max_epochs=3, **QUIET)


def test_kl_weight_rises_over_the_first_third():
    plan = MosaicPlan(build(cohort()).module, total_steps=100)
    assert plan.n_steps_kl_warmup == 30 and plan.eps == 1e-8


def test_optimiser_is_fused_and_noise_learns_faster():
    plan = MosaicPlan(build(cohort()).module, total_steps=10, lr=1e-3)
    optimizer = plan.configure_optimizers()["optimizer"]
    weights, noise = optimizer.param_groups
    assert weights["fused"] and weights["eps"] == 1e-8
    assert noise["initial_lr"] == pytest.approx(5 * weights["initial_lr"]) and noise["weight_decay"] == 0


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [("max_epochs", 0, "max_epochs"), ("batch_size", "large", "batch_size"), ("train_size", 1.5, "train_size"),
     ("plan_kwargs", {"lr_schedule": "cosine"}, "lr_schedule")],
)  # fmt: skip
def test_wrong_arguments_are_named(argument, value, message):
    with pytest.raises(ValueError, match=message):
        build(cohort()).train(**{argument: value}, **QUIET)


def test_training_twice_goes_on():
    """A second call starts from unit blocks again and ends with a calibrated prior."""
    model = build(cohort())
    model.train(max_epochs=2, **QUIET)
    model.train(max_epochs=2, **QUIET)
    assert np.isfinite(model.get_elbo())


def test_clip_norm_grows_with_features():
    assert clip_norm(400) == pytest.approx(2 * clip_norm(100))
