"""The closed form of CoVAE and MMVAE++, beside their networks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.stats.baselines import RidgeBaseline

QUIET = {"enable_progress_bar": False}


def fit(mdata, likelihoods=None, setup=None, train=None, cls=CoVAE, **arguments):
    scvi.settings.seed = 0
    cls.setup_mudata(mdata, likelihoods=likelihoods, **(setup or {}))
    model = cls(mdata, **arguments)
    model.train(**QUIET, **(train or {}))
    return model


def linear(n_obs=300, n_vars=60, **kwargs):
    return correlated_gaussian(
        n_obs, modalities=("a", "b"), n_latent=4, n_vars=n_vars, rho=0.8, linear=True, noise=0.8, seed=1, **kwargs
    )


@pytest.mark.parametrize(("cls", "backbone"), [(CoVAE, "moments"), (CoVAE, "auto"), (MMVAEPlusPlus, "auto")])
def test_never_worse_than_ridge(cls, backbone):
    """Linear data, where ridge is at home: mean squared error of a hidden assay at most 2 % above ridge's."""
    mdata = linear(500).mdata
    train, test = mdata[mdata.obs_names[:300]].copy(), mdata[mdata.obs_names[300:]].copy()
    model = fit(train, cls=cls, backbone=backbone, train={"max_epochs": 30})
    ridge = RidgeBaseline().fit(train["a"].X, train["b"].X).predict(np.asarray(test["a"].X)).mean
    own = model.impute("b", mdata=MuData({"a": test["a"].copy()})).X
    errors = [((np.asarray(test["b"].X) - p) ** 2).mean() for p in (own, ridge)]
    assert errors[0] < 1.02 * errors[1]


def test_the_network_takes_over_where_it_is_better(monkeypatch):
    """A closed form that predicts the mean of everything: the network earns most of the weight, and coverage holds."""
    monkeypatch.setattr("omicvae.stats.moments.feature_gains", lambda truth, signal, n: np.zeros(truth.shape[1]))
    monkeypatch.setattr("omicvae.stats.stacked.shrunken_slopes", lambda left, other, n, **_: np.zeros(left.shape[1]))
    mdata = linear(1500).mdata
    model = fit(mdata[mdata.obs_names[:1000]].copy(), train={"max_epochs": 30})
    test = mdata[mdata.obs_names[1000:]].copy()
    assert model.summary().loc["b", "network_share"] > 0.5
    found, truth = model.impute("b", mdata=test, given=["a"]), np.asarray(test["b"].X)
    inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
    assert inside.mean() == pytest.approx(0.9, abs=0.03)
    assert 1 - ((truth - found.X) ** 2).mean() / truth.var(0).mean() > 0.15  # the mean alone has 0


def test_closed_form_needs_no_epoch_and_serves_the_whole_interface():
    mdata = linear(missing=0.2).mdata
    model = fit(mdata, backbone="moments")
    assert model.history == {} and model.is_trained
    assert np.isfinite(model.get_latent_representation().to_numpy()).all()
    assert np.isfinite(model.get_elbo()) and np.isfinite(model.get_marginal_ll(n_samples=10))
    assert model.summary()["network_share"].tolist() == [0.0, 0.0]
    both = mdata.obs_names[model.adata_manager.cohort.present.all(1)]
    hidden = model.impute("a")[both].layers["sd"]
    measured = model.get_denoised("a")[both].layers["sd"]
    assert np.median(hidden.mean(0) / measured.mean(0)) > 1, "less is known of an assay that was not measured"


def test_a_mosaic_in_which_no_sample_has_everything():
    """a-b, b-c and a-c are measured together, never all three: pairs are predicted, and sources are combined."""
    simulation = correlated_gaussian(
        600, modalities=("a", "b", "c"), n_latent=3, n_vars=25, rho=0.8, noise=0.4, linear=True, seed=2
    )
    full = simulation.mdata
    names = full.obs_names
    lacks = {"a": names[:200], "b": names[200:400], "c": names[400:]}
    mdata = MuData({m: full[m][~full[m].obs_names.isin(gone)].copy() for m, gone in lacks.items()})
    model = fit(mdata, backbone="moments")
    errors = {}
    truth = np.asarray(full["c"][lacks["c"]].X)
    for given in (["a"], ["b"], ["a", "b"]):
        found = model.impute("c", given=given)[lacks["c"]]
        assert (found.obs["sources"] == "+".join(given)).all()
        errors["+".join(given)] = ((found.X - truth) ** 2).mean()
        inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
        assert inside.mean() == pytest.approx(0.9, abs=0.04)
    assert errors["a+b"] < min(errors["a"], errors["b"])


def test_predictions_do_not_depend_on_the_order_of_anything():
    mdata = linear(missing=0.2).mdata
    rng = np.random.default_rng(0)
    other = MuData(
        {m: mdata[m][rng.permutation(mdata[m].n_obs)][:, rng.permutation(mdata[m].n_vars)].copy() for m in ("b", "a")}
    )
    model = fit(mdata, backbone="moments")
    query = model.impute("b", mdata=other)[mdata.obs_names]
    own = model.impute("b")
    known = (own.obs["source"] == "imputed").to_numpy()  # the others are drawn from the prior
    assert known.sum() > 200
    np.testing.assert_allclose(query.X[known], own.X[known], atol=1e-4)
    np.testing.assert_allclose(query.layers["lower"][known], own.layers["lower"][known], atol=1e-3)


def test_batches_are_taken_out_of_sources_and_put_into_targets():
    """A source whose batch shift is unlike the target's: predictions for new samples carry the target's own shift."""
    simulation = linear(600, n_batches=1)
    mdata = simulation.mdata
    batch = np.where(np.arange(600) % 2 == 0, "p", "q")
    mdata.obs["batch"] = batch
    mdata["a"].X = np.asarray(mdata["a"].X) + np.where(batch == "p", 4.0, 0.0)[:, None].astype(np.float32)
    mdata["b"].X = np.asarray(mdata["b"].X) - np.where(batch == "p", 2.0, 0.0)[:, None].astype(np.float32)
    mdata.update()
    model = fit(mdata[mdata.obs_names[:400]].copy(), setup={"batch_key": "batch"}, backbone="moments")
    test = mdata[mdata.obs_names[400:]].copy()
    own, moved = (model.impute("b", mdata=test, given=["a"], transform_batch=b).X for b in (None, "p"))
    truth = np.asarray(test["b"].X)
    assert 1 - ((truth - own) ** 2).mean() / truth.var(0).mean() > 0.3
    q = (test.obs["batch"] == "q").to_numpy()
    assert (moved - own)[q].mean() == pytest.approx(-2.0, abs=0.15)
    np.testing.assert_allclose(moved[~q], own[~q], atol=1e-5)


def test_library_sizes_of_hidden_counts_follow_those_of_the_sources():
    """Cells that differ in depth alone, by which both assays are deep or both are not; the profiles tell nothing."""
    rng = np.random.default_rng(0)
    n = 400
    depth = np.linalg.cholesky([[1, 0.9], [0.9, 1]]) @ rng.normal(size=(2, n)) * 0.7
    parts = {}
    for name, p, d in zip("ab", (30, 20), depth, strict=True):
        x = rng.poisson(20 * np.exp(d)[:, None] * rng.lognormal(0, 0.5, p)).astype(np.float32)
        parts[name] = AnnData(x, obs=pd.DataFrame(index=[f"cell_{i}" for i in range(n)]))
    mdata = MuData(parts)
    mdata["b"].var_names = [f"b{v}" for v in mdata["b"].var_names]
    mdata.update()
    model = fit(mdata[mdata.obs_names[:300]].copy(), backbone="moments")
    test = mdata[mdata.obs_names[300:]].copy()
    found = model.impute("b", mdata=MuData({"a": test["a"].copy()}))
    log_size = np.log(np.asarray(test["b"].X).sum(1))
    assert np.corrcoef(np.log(found.X.sum(1)), log_size)[0, 1] > 0.8  # .45 where the depth of "a" is not read
    inside = (np.asarray(test["b"].X) >= found.layers["lower"]) & (np.asarray(test["b"].X) <= found.layers["upper"])
    assert inside.mean() == pytest.approx(0.9, abs=0.05)


def test_mmvae_plus_plus_leaves_the_closed_form_out_where_it_is_told_to(tmp_path):
    """The network alone if asked, and always as published; saved and loaded, with or without."""
    mdata = linear(150, n_vars=12, missing=0.2).mdata
    found = {}
    for name, arguments in (("auto", {}), ("network", {"backbone": "network"}), ("published", {"screening": False})):
        model = fit(mdata, cls=MMVAEPlusPlus, train={"max_epochs": 3}, **arguments)
        assert (model.backbone is not None) == (name == "auto")
        assert (model.summary()["network_share"] == 1.0).all() == (name != "auto")
        model.save(tmp_path / name)
        loaded = MMVAEPlusPlus.load(tmp_path / name, mdata)
        scvi.settings.seed = 1
        found[name] = model.impute("b").X
        scvi.settings.seed = 1
        np.testing.assert_allclose(loaded.impute("b").X, found[name], atol=1e-4)
    assert np.abs(found["auto"] - found["network"]).max() > 1e-3
    with pytest.raises(ValueError, match="backbone must be one of"):
        MMVAEPlusPlus(mdata, backbone="moments")


def test_arguments():
    mdata = linear(60).mdata
    CoVAE.setup_mudata(mdata)
    with pytest.raises(ValueError, match="backbone must be one of"):
        CoVAE(mdata, backbone="ridge")
    with pytest.raises(ValueError, match="trained by gradient"):
        CoVAE(mdata, backbone="moments", posterior="joint_encoder")


@pytest.mark.parametrize("n_obs", [4, 12, 25])
def test_very_few_samples(n_obs):
    """Too few to fit or to calibrate anything: it still imputes, and the numbers are finite."""
    for backbone in ("moments", "auto"):
        model = fit(linear(n_obs, n_vars=7).mdata, backbone=backbone, train={"max_epochs": 2})
        found = model.impute("b")
        assert all(np.isfinite(v).all() for v in (found.X, *found.layers.values()))
        assert (found.layers["lower"] <= found.layers["upper"]).all()
