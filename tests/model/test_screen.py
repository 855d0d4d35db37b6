"""What MMVAE++ finds out about features before it is trained, and what it does with it."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
from mudata import MuData

import omicvae
from omicvae.model import MMVAEPlusPlus
from omicvae.model._mmvae_plus_plus import _weights
from omicvae.stats.screening import Screen
from omicvae.train import training_budget

QUIET = {"enable_progress_bar": False}


def trained(mdata: MuData, epochs: int = 40, **arguments) -> MMVAEPlusPlus:
    MMVAEPlusPlus.setup_mudata(mdata, likelihoods={"x1": "normal", "x2": "normal"})
    scvi.settings.seed = 0
    model = MMVAEPlusPlus(mdata, **arguments)
    model.train(max_epochs=epochs, **QUIET)
    return model


@pytest.fixture(scope="module")
def rotated():
    """A hundred samples are held back."""
    simulation = omicvae.datasets.gp_features((30, 30), n_obs=500, n_latent=(2, 1, 2), rotate=True, seed=0)
    mdata = simulation.mdata
    return simulation, trained(mdata[mdata.obs_names[:400]].copy())


def test_directions_are_read_where_all_features_are_mixed(rotated):
    """Of 10 shared signals, after the mixture is undone; screened features reach an R2 below .3 here."""
    simulation, model = rotated
    assert all(n >= 2 for n in model.n_directions.values())
    names = simulation.mdata.obs_names[400:]
    for target, source in (("x1", "x2"), ("x2", "x1")):
        found = model.impute(target, mdata=MuData({source: simulation.mdata[source][names].copy()}), level=None)
        rotation = simulation.truth.rotations[target]
        truth = simulation.mdata[target][names].X @ rotation.T
        error = ((truth - found[names].X @ rotation.T)[:, :10] ** 2).mean(0) / truth[:, :10].var(0)
        assert np.median(1 - error) > 0.7


def test_a_saved_model_reads_the_same_directions(rotated, tmp_path):
    simulation, model = rotated
    model.save(tmp_path / "model", save_anndata=True)
    loaded = MMVAEPlusPlus.load(tmp_path / "model")
    assert loaded.n_directions == model.n_directions
    np.testing.assert_array_equal(loaded.get_screen("x1"), model.get_screen("x1"))
    shared = [m.get_latent_representation(kind="shared", return_numpy=True) for m in (model, loaded)]
    np.testing.assert_array_equal(*shared)


def test_the_weights_of_features_are_those_of_the_shared_ones():
    """The true shared features are the first ten; one of the others may pass."""
    mdata = omicvae.datasets.gp_features((30, 30), n_obs=400, n_latent=(2, 2, 2), seed=1).mdata
    model = trained(mdata, 2)
    assert model.n_directions == {"x1": 0, "x2": 0}
    omicvae.tl.embed(mdata, model)
    for m in ("x1", "x2"):
        weight, shared = mdata[m].var["mmvaepp_shared_weight"].to_numpy(), mdata[m].var["shared"].to_numpy(dtype=bool)
        assert (weight[shared] > 0).mean() >= 0.9 and (weight[~shared] > 0).sum() <= 1
        screen = model.get_screen(m)
        np.testing.assert_array_equal(screen["passed"], weight > 0)
        np.testing.assert_allclose(screen["score"].to_numpy()[weight > 0], weight[weight > 0] ** 2, rtol=1e-5)


def test_in_small_cohorts_the_network_predicts_shared_features_that_the_closed_form_does_not():
    """150 training samples, 10 of 80 features shared: the closed form alone has R2 of .74 and .58 here."""
    mdata = omicvae.datasets.gp_features((70, 70), n_obs=250, n_latent=(2, 2, 2), seed=1).mdata
    model, names = trained(mdata[mdata.obs_names[:150]].copy()), mdata.obs_names[150:]
    for target, source, least in (("x1", "x2", 0.78), ("x2", "x1", 0.65)):
        found = model.impute(target, mdata=MuData({source: mdata[source][names].copy()}), level=None)
        truth = mdata[target][names].X
        error = ((truth - found[names].X)[:, :10] ** 2).mean(0) / truth[:, :10].var(0)
        assert np.median(1 - error) > least
        assert model.summary().loc[target, "network_share"] > 0


def test_hardly_anything_passes_between_unrelated_assays():
    """The threshold is exceeded by .5 % of permuted features: of 80, more than two in 1 % of data sets."""
    mdata = omicvae.datasets.gp_features((30, 30), n_obs=300, n_latent=(2, 2, 2), seed=0).mdata
    order = np.random.default_rng(0).permutation(mdata.n_obs)
    x2 = mdata["x2"].copy()
    x2.X = x2.X[order]
    model = trained(MuData({"x1": mdata["x1"], "x2": x2}), 1)
    assert model.n_directions == {"x1": 0, "x2": 0}
    assert sum(model.get_screen(m)["passed"].sum() for m in ("x1", "x2")) <= 2


def test_a_screen_that_is_not_there_is_refused():
    mdata = omicvae.datasets.gp_features((5, 5), n_obs=60, seed=0).mdata
    MMVAEPlusPlus.setup_mudata(mdata, likelihoods={"x1": "normal", "x2": "normal"})
    with pytest.raises(RuntimeError, match="train"):
        MMVAEPlusPlus(mdata).get_screen("x1")
    with pytest.raises(ValueError, match="rna"):
        MMVAEPlusPlus(mdata).get_screen("rna")
    with pytest.raises(ValueError, match="screening=False"):
        MMVAEPlusPlus(mdata, screening=False).get_screen("x1")
    assert MMVAEPlusPlus(mdata, screening=False).n_directions == {"x1": 0, "x2": 0}


def test_where_most_features_pass_the_others_take_part_with_little_weight():
    score = np.array([0.5, 0.4, 0.3, np.nan, -0.1])
    most, few = Screen(score, 0.02), Screen(score, 0.35)
    assert _weights(most).tolist() == pytest.approx([0.5**0.5, 0.4**0.5, 0.3**0.5, 0.1, 0.1])
    assert _weights(few).tolist() == few.gate.tolist()
    assert few.passed.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("n_train", "share", "lr"), [(120, 0.5, 5e-4), (300, 0.35, 1e-3), (650, 0.25, 2e-3), (6000, 0.5, 2e-3)]
)
def test_the_second_stage_is_shorter_than_training_as_published_and_no_slower(n_train, share, lr):
    mdata = omicvae.datasets.gp_features((3, 3), n_obs=40, seed=0).mdata
    omicvae.model.MMVAEPlusPlus.setup_mudata(mdata)
    batch_size = training_budget(n_train).batch_size
    published, screened = (
        omicvae.model.MMVAEPlusPlus(mdata, screening=on)._budget(n_train, batch_size) for on in (False, True)
    )
    assert published == training_budget(n_train)
    assert screened.lr == pytest.approx(lr)
    assert screened.max_epochs == pytest.approx(share * published.max_epochs, rel=0.03)
