"""Probabilistic CCA has the interface of the other models, is exact, and is an honest opponent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import KFold, cross_val_predict

from omicvae.datasets import correlated_gaussian
from omicvae.model import ProbabilisticCCA
from omicvae.stats.scores import crps_normal

MODALITIES = ("rna", "meth", "prot")
LIKELIHOODS = {"rna": "nb", "meth": "beta", "prot": "normal"}


def fit(mdata: MuData, setup: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **arguments: Any):
    scvi.settings.seed = 0
    ProbabilisticCCA.setup_mudata(mdata, **(setup or {}))
    model = ProbabilisticCCA(mdata, **arguments)
    model.train(**(train or {}))
    return model


@pytest.fixture(scope="module")
def model(cohort) -> ProbabilisticCCA:
    """Counts, proportions with gaps and continuous values; every sample lacks something or nothing."""
    return fit(cohort(), {"likelihoods": LIKELIHOODS, "batch_key": "batch"}, n_factors=4)


def linear(n_obs: int = 400, **arguments: Any):
    return correlated_gaussian(
        n_obs, **{"modalities": ("a", "b"), "n_latent": 3, "n_vars": 25, "rho": 0.8, "noise": 0.4, "linear": True} | arguments
    )  # fmt: skip


# ---------------------------------------------------------------------- interface


def test_latents_are_named_and_apart(model):
    names = model.latent_names
    joint = model.get_latent_representation()
    assert list(joint.columns) == list(names["joint"]) == [f"factor_{k}" for k in range(model.module.n_factors)]
    mean, variance = model.get_latent_representation(kind="shared", return_dist=True)
    assert list(mean.columns) == list(names["shared"]) and len(names["shared"]) >= 1
    assert ((variance > 0) & (variance < 1 + 1e-5)).all(axis=None)
    for m in MODALITIES:
        private = model.get_latent_representation(kind="private", modality=m)
        assert list(private.columns) == list(names[f"private_{m}"])
        absent = ~model.adata.obs_names.isin(model.adata[m].obs_names)
        assert private.loc[absent].isna().all(axis=None) and private.loc[~absent].notna().all(axis=None)
    draws = model.get_latent_representation(n_samples=4000, indices=[0, 1])
    mean, variance = model.get_latent_representation(return_dist=True, indices=[0, 1], return_numpy=True)
    assert (np.abs(draws.mean(0) - mean) < 6 * np.sqrt(variance / 4000)).all()


def test_no_network_is_in_what_imputation_rests_on(model):
    found = model.summary()
    assert found.index.tolist() == list(MODALITIES) and (found["network_share"] == 0).all()
    assert found["likelihood"].to_dict() == LIKELIHOODS
    assert found["n_samples"].tolist() == [model.adata[m].n_obs for m in MODALITIES]


def test_nothing_depends_on_order_or_company(model, rearranged):
    query = rearranged(model.adata, 1)
    latents = model.get_latent_representation()
    found = model.get_latent_representation(query, batch_size=7)
    pd.testing.assert_frame_equal(found, latents.loc[found.index], rtol=1e-4, atol=1e-4)
    for m in MODALITIES:
        every, some = model.get_denoised(m, level=None), model.get_denoised(m, mdata=query, indices=[5, 2], level=None)
        here = every[some.obs_names, some.var_names]
        for layer in ("sd",) if m != "rna" else ():  # counts: other draws of unknown library sizes
            np.testing.assert_allclose(some.layers[layer], here.layers[layer], rtol=1e-3, atol=1e-4)
            np.testing.assert_allclose(some.X, here.X, rtol=1e-3, atol=1e-4)
    assert model.get_marginal_ll(query) == pytest.approx(model.get_marginal_ll(), rel=1e-5)


def test_the_bound_and_the_likelihood_are_exact(model):
    """Nothing is sampled: the same at every call, batch size and number of samples."""
    assert model.get_elbo() == model.get_elbo() == pytest.approx(model.get_elbo(batch_size=7), rel=1e-6)
    assert model.get_marginal_ll(n_samples=1) == pytest.approx(model.get_marginal_ll(batch_size=7), rel=1e-6)
    errors = model.get_reconstruction_error()
    assert set(errors) == set(MODALITIES) and np.isfinite(list(errors.values())).all()
    assert np.isnan(model.get_elbo(indices=[])) and np.isnan(model.get_marginal_ll(indices=[]))


def test_history_is_the_bound_and_falls_as_losses_do(model):
    elbo = model.history["elbo_train"]["elbo_train"]
    assert len(elbo) > 1 and (elbo.diff().dropna() <= 1e-9 * elbo.abs().max()).all()


@pytest.mark.parametrize("modality", MODALITIES)
def test_draws_have_the_mean_sd_and_latent_part_that_are_reported(model, modality, monkeypatch):
    """Rows of the samples' own batch; 3,000 draws: 6 standard errors on the mean, 10 % on sds of heavy tails."""
    monkeypatch.setattr(model, "_conformal", {})  # calibration moves draws, not moments
    some = [0, 1, 2, 3, 30]
    found = model.impute(modality, indices=some, n_draws=2000)
    draws = model.sample(modality, indices=some, n_samples=3000)
    assert (np.abs(draws.mean(0) - found.X) < 6 * np.sqrt(1 / 2000 + 1 / 3000) * found.layers["sd"] + 1e-5).all()
    assert np.abs(np.median(draws.std(0) / found.layers["sd"]) - 1) < 0.1
    parts = found.layers["sd_latent"] ** 2 + found.layers["sd_noise"] ** 2
    np.testing.assert_allclose(found.layers["sd"] ** 2, parts, rtol=1e-4)


def test_draws_keep_the_correlation_between_features():
    """One factor behind 25 features, and no source: their mean varies as in the data, not as 25 independent ones would."""
    simulation = linear(400, n_latent=1, rho=0.5, noise=0.3, missing=0.2)
    model = fit(simulation.mdata)
    x = np.asarray(simulation.mdata["b"].X)
    signs = np.sign(np.linalg.svd(x - x.mean(0), full_matrices=False)[2][0])
    told = simulation.mdata.obs_names[model.adata_manager.cohort.present.all(1)][:50].tolist()
    draws, found = model.sample("b", indices=told, n_samples=400), model.impute("b", indices=told)
    spread = (draws @ signs).std(0).mean()
    alone = np.sqrt((found.layers["sd"] ** 2).sum(1)).mean()
    residual = ((x - x.mean(0)) @ signs).std()
    assert spread > 1.5 * alone
    assert spread < residual  # a source at rho .5 has told something
    assert np.mean(found.layers["sd_latent"]) > 0.3 * np.mean(found.layers["sd"])


def test_saved_and_loaded(model, tmp_path: Path, rearranged):
    model.save(tmp_path / "m")
    loaded = ProbabilisticCCA.load(tmp_path / "m", rearranged(model.adata))
    names = model.adata.obs_names
    pd.testing.assert_frame_equal(
        loaded.get_latent_representation().loc[names], model.get_latent_representation(), atol=1e-4
    )
    assert loaded.latent_names == model.latent_names
    for m in ("meth", "prot"):
        a, b = model.impute(m, level=None), loaded.impute(m, level=None)
        told = (a.obs["source"] == "imputed").to_numpy()  # the others are drawn from the batch alone
        np.testing.assert_allclose(b[a.obs_names, a.var_names].X[told], a.X[told], rtol=1e-3, atol=1e-3)
        a, b = model.get_denoised(m, level=None), loaded.get_denoised(m, level=None)
        known = (a.obs["source"] == "observed").to_numpy()
        np.testing.assert_allclose(b[a.obs_names, a.var_names].layers["sd"][known], a.layers["sd"][known], rtol=1e-3)
    pd.testing.assert_frame_equal(loaded.trust("prot"), model.trust("prot"))
    without = ProbabilisticCCA.load(tmp_path / "m", adata=False)
    assert without.impute("rna", mdata=model.adata).shape == (60, 12)


def test_held_out_predictions_after_loading_are_those_of_before(model, tmp_path: Path):
    """Folds are fitted again, without gradients and without chance."""
    model.save(tmp_path / "m")
    loaded = ProbabilisticCCA.load(tmp_path / "m", model.adata.copy())
    a, b = model.get_held_out_predictions("prot"), loaded.get_held_out_predictions("prot")
    assert (a.obs_names == b.obs_names).all()
    np.testing.assert_allclose(b.layers["imputed"], a.layers["imputed"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"n_factors": 0}, "n_factors must be a whole number of at least 1"),
        ({"n_factors": "many"}, "n_factors must be a whole number"),
        ({"n_private": {"protein": 2}}, "n_private names modality 'protein'.*not registered"),
        ({"n_private": -1}, "n_private must be 'auto' or positive"),
    ],
)
def test_hostile_sizes(cohort, arguments, message):
    mdata = cohort()
    ProbabilisticCCA.setup_mudata(mdata, likelihoods=LIKELIHOODS)
    with pytest.raises(ValueError, match=message):
        ProbabilisticCCA(mdata, **arguments)


def test_arguments_of_training(cohort):
    mdata = cohort()
    ProbabilisticCCA.setup_mudata(mdata, likelihoods=LIKELIHOODS)
    model = ProbabilisticCCA(mdata, n_factors=3)
    with pytest.raises(RuntimeError, match="has not been trained"):
        model.impute("rna")
    with pytest.raises(TypeError, match="no argument 'max_iters'.*max_iter"):
        model.train(max_iters=3)
    with pytest.raises(ValueError, match="max_iter must be a whole number"):
        model.train(max_iter=0)
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)  # as any other model
    assert len(model.history["elbo_train"]) <= 3
    split = [np.arange(40), np.arange(40, 50), np.arange(50, 60)]
    model.train(max_iter=2, datasplitter_kwargs={"external_indexing": split})
    assert model.train_indices.tolist() == list(range(40)) and model.test_indices.tolist() == list(range(50, 60))
    model.train(max_iter=2, train_size=1.0)
    assert np.isfinite(model.get_elbo())


def test_private_factors_of_one_assay(cohort):
    model = fit(cohort(), {"likelihoods": LIKELIHOODS}, {"max_iter": 10}, n_factors=2, n_private={"rna": 2})
    used = {m: ~np.isinf(model.module.weights(m).precision.numpy()) for m in MODALITIES}
    assert used["rna"].sum() == 4 and used["meth"].sum() == used["prot"].sum() == 2


def test_assays_without_any_parameter_of_their_own():
    """Counts and 0/1 values alone: a module without parameters still knows where it is."""
    simulation = linear(120, n_vars=10, likelihoods={"a": "poisson", "b": "bernoulli"}, linear=False)
    model = fit(simulation.mdata, {"likelihoods": {"a": "poisson", "b": "bernoulli"}}, n_factors=3)
    found = model.impute("b", given=["a"])
    assert ((found.X > 0) & (found.X < 1)).all()
    assert set(np.unique(model.sample("b", n_samples=2))) <= {0.0, 1.0}
    counts = model.sample("a", n_samples=2)
    np.testing.assert_array_equal(counts, np.round(counts))


@pytest.mark.parametrize("n_obs", [4, 12, 25])
def test_very_few_samples(n_obs):
    """Too few to calibrate anything: it still imputes, and the numbers are finite."""
    model = fit(linear(n_obs, n_vars=7).mdata)
    for found in (model.impute("b"), model.get_denoised("b"), model.impute("b", given=[])):
        assert all(np.isfinite(v).all() for v in (found.X, *found.layers.values()))
        assert (found.layers["lower"] <= found.layers["upper"]).all()


# ---------------------------------------------------------------------- what it learns


def test_hidden_assays_are_predicted_and_intervals_hold():
    """1,000 new samples of a linear simulation: coverage within .03, and 70 % of what the truth itself would explain."""
    simulation = linear(1400, missing=None, seed=3)
    mdata = simulation.mdata
    model = fit(mdata[mdata.obs_names[:400]].copy())
    new = mdata[mdata.obs_names[400:]].copy()
    truth, a = np.asarray(new["b"].X), np.asarray(new["a"].X)
    for level in (0.5, 0.9):
        found = model.impute("b", mdata=new, given=["a"], level=level)
        inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
        assert inside.mean() == pytest.approx(level, abs=0.03)
    oracle = RidgeCV(np.logspace(-2, 4, 13)).fit(a[:500], truth[:500])  # fitted on new samples themselves
    rest = slice(500, None)
    best = 1 - ((truth[rest] - oracle.predict(a[rest])) ** 2).mean() / truth[rest].var(0).mean()
    reached = 1 - ((truth[rest] - found.X[rest]) ** 2).mean() / truth[rest].var(0).mean()
    assert reached > 0.9 * best


def test_a_batch_shift_is_taken_out_of_sources_and_put_into_targets():
    mdata = linear(600).mdata
    batch = np.where(np.arange(600) % 2 == 0, "p", "q")
    mdata.obs["batch"] = batch
    for m, shift in (("a", 4.0), ("b", -2.0)):
        mdata[m].X = np.asarray(mdata[m].X) + np.where(batch == "p", shift, 0.0)[:, None].astype(np.float32)
    model = fit(mdata[mdata.obs_names[:400]].copy(), {"batch_key": "batch"})
    test = mdata[mdata.obs_names[400:]].copy()
    own, moved = (model.impute("b", mdata=test, given=["a"], transform_batch=b).X for b in (None, "p"))
    truth, q = np.asarray(test["b"].X), (test.obs["batch"] == "q").to_numpy()
    assert 1 - ((truth - own) ** 2).mean() / truth.var(0).mean() > 0.3
    assert (moved - own)[q].mean() == pytest.approx(-2.0, abs=0.15)
    z = model.get_latent_representation(test, return_numpy=True)
    gap = np.abs(z[q].mean(0) - z[~q].mean(0))
    assert (gap < 5 * np.sqrt(2 / 100) * z.std(0)).all()


def test_a_mosaic_in_which_no_sample_has_everything():
    """a-b, b-c and a-c are measured together, never all three: two sources are better than one, and intervals hold."""
    full = linear(600, modalities=("a", "b", "c"), seed=2).mdata
    names = full.obs_names
    lacks = {"a": names[:200], "b": names[200:400], "c": names[400:]}
    mdata = MuData({m: full[m][~full[m].obs_names.isin(gone)].copy() for m, gone in lacks.items()})
    model = fit(mdata)
    truth, errors = np.asarray(full["c"][lacks["c"]].X), {}
    for given in (["a"], ["b"], ["a", "b"]):
        found = model.impute("c", given=given)[lacks["c"]]
        errors["+".join(given)] = ((found.X - truth) ** 2).mean()
        inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
        assert inside.mean() == pytest.approx(0.9, abs=0.05)
    assert errors["a+b"] < min(errors["a"], errors["b"])


@pytest.mark.realdata
@pytest.mark.slow
def test_breast_cancer_expression_from_methylation_is_predicted_better_than_by_ridge(data_dir: Path):
    """CRPS of z-scored expression on a fifth of 348 tumours against ridge with held-out residuals."""
    cohort = mudata.read_h5mu(data_dir / "tcga_brca_4omics.h5mu")
    both = cohort["rna"].obs_names.intersection(cohort["methylation"].obs_names).sort_values()
    x, y = (np.asarray(cohort[m][both].X, dtype=np.float64) for m in ("methylation", "rna"))
    order = np.random.default_rng(0).permutation(len(both))
    test, train = order[: len(both) // 5], order[len(both) // 5 :]
    x, y = ((v - v[train].mean(0)) / v[train].std(0) for v in (x, y))

    def assay(values: np.ndarray, rows: np.ndarray, stem: str) -> AnnData:
        var = pd.DataFrame(index=[f"{stem}{j}" for j in range(values.shape[1])])
        return AnnData(values[rows].astype(np.float32), obs=pd.DataFrame(index=both[rows]), var=var)

    model = fit(MuData({"meth": assay(x, train, "m"), "rna": assay(y, train, "g")}),
                {"likelihoods": {"meth": "normal", "rna": "normal"}})  # fmt: skip
    new = MuData({"meth": assay(x, test, "m")})
    found = model.impute("rna", mdata=new)[both[test]]
    ridge = RidgeCV(np.logspace(0, 5, 21))
    left = y[train] - cross_val_predict(ridge, x[train], y[train], cv=KFold(5, shuffle=True, random_state=0))
    reference = crps_normal(y[test], ridge.fit(x[train], y[train]).predict(x[test]), left.std(0))
    assert crps_normal(y[test], found.X, found.layers["sd"]).mean() < reference.mean()
    inside = (y[test] >= found.layers["lower"]) & (y[test] <= found.layers["upper"])
    assert 0.87 < inside.mean() < 0.94
