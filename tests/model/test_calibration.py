"""Held-out predictions, calibrated intervals and trust: they hold on samples nobody has seen, and they are not leaked into."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.stats.baselines import RidgeBaseline
from omicvae.stats.scores import crps_normal

QUIET = {"enable_progress_bar": False}
LIKELIHOODS = {"a": "normal", "b": "nb", "c": "bernoulli"}


def simulate(n_obs: int = 500, missing=0.2, seed: int = 0, rho: float = 0.8):
    return correlated_gaussian(
        n_obs, modalities=("a", "b", "c"), n_latent=3, n_vars=20, rho=rho, likelihoods=LIKELIHOODS,
        missing=missing, seed=seed, library_sd=0.2,
    )  # fmt: skip


def fit(mdata, cls=CoVAE, likelihoods=LIKELIHOODS, train=None, **arguments):
    scvi.settings.seed = 0
    cls.setup_mudata(mdata, likelihoods=likelihoods)
    model = cls(mdata, **arguments)
    model.train(**QUIET, **(train or {}))
    return model


@pytest.fixture(scope="module")
def simulation():
    return simulate()


@pytest.fixture(scope="module")
def closed(simulation):
    return fit(simulation.mdata, backbone="moments")


@pytest.fixture(scope="module")
def network(simulation):
    mdata = simulation.mdata.copy()
    return fit(mdata, MMVAEPlusPlus, train={"max_epochs": 20, "calibration_size": 0.3}, n_shared=3, n_private=2)


def test_intervals_hold_what_they_promise_for_assays_that_were_never_measured():
    """1000 new samples, one assay hidden: coverage within .03 at four levels; 500 samples to fit, 20 features."""
    simulation = simulate(1500, missing=None)
    mdata = simulation.mdata
    model = fit(mdata[mdata.obs_names[:500]].copy(), backbone="moments")
    new = mdata[mdata.obs_names[500:]].copy()
    truth = np.asarray(new["a"].X)
    for given in (["b"], ["c"], ["b", "c"]):
        for level in (0.5, 0.8, 0.9, 0.95):
            found = model.impute("a", mdata=new, given=given, level=level)
            inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
            assert inside.mean() == pytest.approx(level, abs=0.03)


def test_intervals_of_a_network_are_made_true(network):
    """Barely trained, and calibrated on 150 samples: coverage on the folds that were not calibrated on."""
    known = network.calibration_report(modalities=["a"])
    known = known[known["n_samples"] >= 60]  # fewer scores give intervals that are wider than asked for
    assert len(known)
    assert (known["coverage90"] - 0.9).abs().max() < 4 * known["coverage90_se"].max() + 0.03


@pytest.mark.parametrize("which", ["closed", "network"])
def test_report(which, request):
    model = request.getfixturevalue(which)
    report = model.calibration_report()
    assert set(report["modality"]) == {"a", "b", "c"} and (report["group"] == "all").all()
    a = report[report["modality"] == "a"]
    assert (a["coverage50"] < a["coverage80"]).all() and (a["coverage80"] < a["coverage95"]).all()
    assert (report[report["modality"] == "b"]["pit_coverage90"] - 0.9).abs().max() < 0.06
    assert (report["crps"] > 0).all() and (report["width90"] > 0).any()
    weighted = np.average(report["skill_vs_mean"], weights=report["n_values"])
    assert weighted > 0, "other assays tell something: rho is .8"


def test_report_by_group(closed):
    groups = np.where(np.arange(closed.adata.n_obs) % 3 == 0, "x", "y").astype(object)
    groups[:5] = None
    closed.adata.obs["kind"] = pd.Categorical(groups)
    report = closed.calibration_report(groupby="kind", modalities=["a"])
    counts = report.pivot(index="sources", columns="group", values="n_samples")
    assert set(counts.columns) == {"all", "x", "y"}
    assert (counts["x"] + counts["y"] <= counts["all"]).all() and (counts["x"] < counts["y"]).all()
    with pytest.raises(ValueError, match="groupby='knd' is not a column of mdata.obs.*kind"):
        closed.calibration_report(groupby="knd")


def test_held_out_predictions_are_beside_the_truth_of_the_right_sample(closed):
    found = closed.get_held_out_predictions("a", given=["b"])
    mdata = closed.adata
    np.testing.assert_array_equal(found.X, np.asarray(mdata["a"][found.obs_names].X))
    assert (found.obs["sources"] == "b").all()
    assert found.obs_names.isin(mdata["b"].obs_names).all()
    assert np.corrcoef(found.X.ravel(), found.layers["imputed"].ravel())[0, 1] > 0.3
    pit = found.layers["pit"]
    assert 0 <= pit.min() and pit.max() <= 1
    assert np.abs(np.histogram(pit, 10, (0, 1))[0] / pit.size - 0.1).max() < 0.02  # 6000 values of 300 samples


def test_held_out_predictions_never_saw_their_own_truth():
    """Changing what was measured of a fold's samples does not change their own predictions by more than scales do."""
    mdata = simulate(200, missing=None).mdata
    before = fit(mdata.copy(), backbone="moments").get_held_out_predictions("a", given=["b"])
    changed = mdata.copy()
    model = fit(changed, backbone="moments")
    fold = model.backbone.closed.predictor.folds == 0
    rng = np.random.default_rng(0)
    x = np.array(changed["a"].X)
    x[fold] = x[fold][rng.permutation(fold.sum())]  # same values: no scale changes
    changed["a"].X = x
    after = fit(changed, backbone="moments").get_held_out_predictions("a", given=["b"])
    correlation = [
        np.corrcoef(before.layers["imputed"][fold, j], after.layers["imputed"][fold, j])[0, 1] for j in range(20)
    ]
    # Gates, gains and penalties are chosen on all folds, so predictions may move, but only in size.
    assert min(correlation) > 0.95


def test_skill_over_ridge_agrees_with_an_independent_computation():
    """The same folds, sources and scale: ridge and its Gaussian intervals computed here; equal to a hundredth."""
    mdata = simulate(260, missing=None, seed=3).mdata
    model = fit(mdata, backbone="moments", likelihoods={"a": "normal", "b": "nb", "c": "bernoulli"})
    module, cohort = model.module, model.adata_manager.cohort
    batch = cohort.batch(np.arange(260))
    x = {m: module.likelihoods.of(m).encode_transform(module.observed(batch, m)).numpy() for m in "abc"}
    folds = model.backbone.closed.predictor.folds
    ridge = np.zeros_like(x["a"])
    sources = np.concatenate([x["b"], x["c"]], 1)
    for fold in range(5):
        test = folds == fold
        fitted = RidgeBaseline().fit(sources[~test], x["a"][~test]).predict(sources[test])
        ridge[test] = crps_normal(x["a"][test], fitted.mean, fitted.sd)
    own = model.get_held_out_predictions("a").layers["crps"]
    expected = 1 - own.sum(0) / ridge.sum(0)
    assert np.abs(model.trust("a")["skill_vs_ridge"] - expected).max() < 0.01
    report = model.calibration_report(modalities=["a"])
    assert report["skill_vs_ridge"].item() == pytest.approx(1 - own.sum() / ridge.sum(), abs=0.005)


def test_trust_tells_signal_from_noise():
    """Half the features of an assay are replaced by noise: those are not imputable (5 % by chance), the others are."""
    mdata = simulate(500, missing=None).mdata
    x = np.array(mdata["a"].X)
    x[:, 10:] = np.random.default_rng(0).normal(size=(500, 10))
    mdata["a"].X = x
    trust = fit(mdata, backbone="moments").trust("a")
    assert trust["imputable"][:10].all() and trust["imputable"][10:].sum() <= 2
    assert (trust["r2"][:10] > 0.1).all() and (trust["r2"][10:].abs() < 0.05).all()
    assert trust["coverage90"].between(0.8, 0.97).all()
    assert trust.index.tolist() == mdata["a"].var_names.tolist()


def test_saved_and_loaded(closed, network, tmp_path):
    for i, model in enumerate((closed, network)):
        model.save(tmp_path / str(i))
        loaded = type(model).load(tmp_path / str(i), model.adata)
        for name in ("a", "b", "c"):
            pd.testing.assert_frame_equal(loaded.trust(name), model.trust(name))
        for field in ("imputed", "pit", "imputed_lower"):
            left, right = (m.get_held_out_predictions("a").layers[field] for m in (model, loaded))
            np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3)
        given = {"given": ["b"], "level": 0.8}
        left, right = model.impute("a", **given), loaded.impute("a", **given)
        if i == 0:  # no draws are made for continuous values
            for layer in ("lower", "upper", "sd"):
                known = (left.obs["source"] == "imputed").to_numpy()  # the others are drawn from the prior
                np.testing.assert_allclose(left.layers[layer][known], right.layers[layer][known], rtol=1e-3, atol=1e-4)
        bare = type(model).load(tmp_path / str(i), False)
        pd.testing.assert_frame_equal(bare.trust("a"), model.trust("a"))
        assert bare.impute("a", mdata=model.adata).shape == left.shape
        with pytest.raises(ValueError, match="loaded without data"):
            bare.calibration_report()


def test_other_data_are_refused_for_held_out_predictions(closed, tmp_path):
    closed.save(tmp_path / "model")
    part = closed.adata[closed.adata.obs_names[:100]].copy()
    loaded = CoVAE.load(tmp_path / "model", part)
    with pytest.raises(RuntimeError, match="samples the model was fitted on are not in the attached data"):
        loaded.get_held_out_predictions("a")


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.trust("d"), ValueError, "not trained on a modality 'd'"),
        (lambda m: m.get_held_out_predictions("d"), ValueError, "not trained on a modality 'd'"),
        (lambda m: m.get_held_out_predictions("a", given=["a"]), ValueError, "given names 'a'"),
        (lambda m: m.get_held_out_predictions("a", level=2), ValueError, "level must lie between 0 and 1"),
        (lambda m: m.calibration_report(by="row"), ValueError, "by must be 'pattern' or 'feature'"),
        (lambda m: m.calibration_report(modalities=["z"]), ValueError, "not trained on a modality 'z'"),
    ],
    ids=["trust", "unknown modality", "its own source", "level", "by", "unknown modalities"],
)
def test_hostile_arguments(closed, call, error, message):
    with pytest.raises(error, match=message):
        call(closed)


def test_untrained_and_uncalibrated_models_say_so(simulation):
    mdata = simulation.mdata.copy()
    MMVAEPlusPlus.setup_mudata(mdata, likelihoods=LIKELIHOODS)
    model = MMVAEPlusPlus(mdata, backbone="network")
    with pytest.raises(RuntimeError, match="has not been trained"):
        model.calibration_report()
    model.train(max_epochs=1, calibration_size=0.0, **QUIET)
    with pytest.raises(RuntimeError, match="was not measured"):
        model.trust("a")
    assert np.isfinite(model.impute("a").layers["upper"]).all()
    for size in (-0.1, 1.0, "some", True):
        with pytest.raises(ValueError, match="calibration_size must be 'auto' or lie in"):
            model.train(max_epochs=1, calibration_size=size, **QUIET)
