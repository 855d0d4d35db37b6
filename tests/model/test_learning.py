"""Models learn what simulated assays tell about one another, and know how much that is."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import omicvae
from omicvae.stats.canonical import canonical_correlations

QUIET = {"enable_progress_bar": False}
NAMES = ("rna", "mirna", "methylation")


def r2(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Median over features of the variance explained beyond the mean."""
    return float(np.median(1 - ((truth - predicted) ** 2).sum(0) / ((truth - truth.mean(0)) ** 2).sum(0)))


def hidden(simulation, modality: str, indices: np.ndarray) -> np.ndarray:
    """True values of samples, measured or not."""
    return simulation.truth.complete[modality].loc[simulation.mdata.obs_names[indices]].to_numpy()


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_covae_recovers_the_correlation_and_its_intervals_hold(rho):
    """n = 1500 with a fifth of each assay missing: correlation within .1, coverage of hidden values within .03 of .90."""
    simulation = omicvae.datasets.correlated_gaussian(
        2000, modalities=("a", "b"), n_latent=5, n_vars=40, rho=rho, noise=0.3, missing=0.2, seed=4
    )
    mdata, test = simulation.mdata, np.arange(1500, 2000)
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    model = omicvae.model.CoVAE(mdata, n_latent=5)
    split = [np.arange(1350), np.arange(1350, 1500), test]
    model.train(max_epochs=40, datasplitter_kwargs={"external_indexing": split}, **QUIET)
    both = test[model.adata_manager.cohort.present[test].all(1)]
    for given in (None, ["a"], ["b"]):
        z = torch.tensor(model.get_latent_representation(indices=both, n_samples=1, given=given)[0])
        # 300 samples and 5 + 5 dimensions bias sample correlations by about .03
        assert canonical_correlations(z[:, :5], z[:, 5:]).mean().item() == pytest.approx(rho, abs=0.1)
    for target, other in (("a", "b"), ("b", "a")):
        has = test[model.adata_manager.cohort.present[test][:, model.modalities.index(other)]]
        found, truth = model.impute(target, indices=has), hidden(simulation, target, has)
        inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
        assert inside.mean() == pytest.approx(0.9, abs=0.03)
        assert (found.obs["sources"] == other).all()


@pytest.mark.parametrize(
    ("cls", "likelihoods"),
    [
        (omicvae.model.CoVAE, ("normal", "normal", "normal")),
        (omicvae.model.CoVAE, ("nb", "poisson", "beta")),
        (omicvae.model.CoVAE, ("normal", "bernoulli", "nb")),
        (omicvae.model.MMVAEPlusPlus, ("nb", "poisson", "beta")),
        (omicvae.model.MMVAEPlusPlus, ("normal", "bernoulli", "nb")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else value.__name__,
)
def test_every_modality_is_predicted_better_than_by_its_mean(cls, likelihoods):
    """Three assays of any type, a quarter of each missing: held-out samples, each modality from the others."""
    simulation = omicvae.datasets.correlated_gaussian(
        700, modalities=NAMES, n_latent=3, n_vars=30, rho=0.9, likelihoods=dict(zip(NAMES, likelihoods, strict=True)),
        missing=0.25, seed=5,
    )  # fmt: skip
    mdata, test = simulation.mdata, np.arange(600, 700)
    cls.setup_mudata(mdata, likelihoods=dict(zip(NAMES, likelihoods, strict=True)))
    model = cls(mdata)
    split = [np.arange(540), np.arange(540, 600), test]
    model.train(max_epochs=60, datasplitter_kwargs={"external_indexing": split}, **QUIET)
    for modality, likelihood in zip(NAMES, likelihoods, strict=True):
        found = model.impute(modality, indices=test)
        known = (found.obs["source"] == "imputed").to_numpy()
        expected = simulation.truth.expected[modality][test][known]
        predicted = found.X[known]
        if likelihood in ("nb", "poisson"):
            expected, predicted = np.log1p(expected), np.log1p(predicted)
        assert r2(expected, predicted) > 0.15, modality
        assert np.isfinite(found.X).all() and (found.layers["lower"] <= found.layers["upper"]).all()


def test_unmeasured_library_sizes_widen_counts():
    """A hidden count assay is less certain in counts than at a fixed library size, and its own size is not used."""
    simulation = omicvae.datasets.correlated_gaussian(
        300, modalities=("rna", "protein"), n_latent=2, n_vars=20, likelihoods={"rna": "nb", "protein": "normal"},
        library_sd=0.8, seed=6,
    )  # fmt: skip
    mdata = simulation.mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"rna": "nb", "protein": "normal"})
    model = omicvae.model.CoVAE(mdata, n_latent=2)
    model.train(max_epochs=20, **QUIET)
    counts, fixed = model.impute("rna"), model.impute("rna", scale="normalized")
    relative = lambda a: float(np.median(a.layers["sd_latent"] / a.X))
    assert relative(counts) > relative(fixed) + 0.3  # the library alone has a coefficient of variation of about .9
    totals = np.asarray(mdata["rna"].X).sum(1)
    correlation = np.corrcoef(np.log(totals), np.log(counts.X.sum(1)))[0, 1]
    assert abs(correlation) < 0.5, "the hidden sample's own library size must not be known"
    own = model.get_denoised("rna")
    assert np.corrcoef(np.log(totals), np.log(own.X.sum(1)))[0, 1] > 0.95


def test_batch_effects_are_taken_out_of_latents_and_put_into_predictions():
    """Decoders know the batch: predictions follow it, and ``transform_batch`` moves them."""
    simulation = omicvae.datasets.correlated_gaussian(
        400, modalities=("a", "b"), n_latent=2, n_vars=20, rho=0.8, n_batches=2, seed=7
    )
    mdata = simulation.mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"}, batch_key="batch")
    model = omicvae.model.CoVAE(mdata, n_latent=4)
    model.train(max_epochs=40, **QUIET)
    batch = mdata.obs["batch"].astype(str).to_numpy()
    first, second = sorted(set(batch))
    x = np.asarray(mdata["a"].X)
    effect = x[batch == second].mean(0) - x[batch == first].mean(0)
    moved = model.impute("a", transform_batch=second).X - model.impute("a", transform_batch=first).X
    assert np.corrcoef(moved.mean(0), effect)[0, 1] > 0.8
    with pytest.raises(ValueError, match="not one of the batches"):
        model.impute("a", transform_batch="nowhere")


def test_supervised_labels_shape_the_shared_latent():
    """With labels the shared latent separates classes that assays alone hardly show; gaps in labels are allowed."""
    from sklearn.linear_model import LogisticRegression

    simulation = omicvae.datasets.correlated_gaussian(
        300, modalities=("a", "b"), n_latent=3, n_vars=20, rho=0.9, seed=8
    )
    mdata = simulation.mdata
    truth = simulation.truth.latents["a"][:, 2] > 0
    labels = np.where(truth, "pos", "neg").astype(object)
    labels[::10] = None
    mdata.obs["status"] = labels
    omicvae.model.MMVAEPlusPlus.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"}, labels_key="status")
    scores = {}
    for weight in (None, "auto"):
        model = omicvae.model.MMVAEPlusPlus(mdata, n_shared=2, n_private=3, label_weight=weight)
        model.train(max_epochs=30, **QUIET)
        z = model.get_latent_representation(kind="shared", return_numpy=True)
        train, held = model.train_indices, model.validation_indices
        scores[weight] = LogisticRegression().fit(z[train], truth[train]).score(z[held], truth[held])
    assert scores["auto"] >= scores[None] and scores["auto"] > 0.7


def test_assays_never_measured_together_are_linked_through_a_third():
    """a and b share no sample, c is always there: adding a to c as a source must not make b worse, nor overconfident."""
    n = 800
    missing = np.zeros((n, 3), dtype=bool)
    missing[: n // 2, 0] = missing[n // 2 :, 1] = True
    simulation = omicvae.datasets.correlated_gaussian(
        n, modalities=("a", "b", "c"), n_latent=3, n_vars=30, rho=0.9, missing=missing, seed=1
    )
    mdata = simulation.mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys("abc", "normal"))
    model = omicvae.model.CoVAE(mdata, n_latent=3)
    model.train(max_epochs=40, **QUIET)
    never = np.flatnonzero(~simulation.truth.present["b"].to_numpy())
    truth, score = hidden(simulation, "b", never), {}
    for given in (("a",), ("c",), ("a", "c")):
        found = model.impute("b", given=list(given), indices=never)
        score[given] = r2(truth, found.X)
        inside = (truth >= found.layers["lower"]) & (truth <= found.layers["upper"])
        assert inside.mean() > 0.85, given
    assert score[("a",)] > 0.4
    assert score[("a", "c")] > score[("c",)] - 0.05


def test_large_cohorts_are_not_read_through_for_a_covariance(monkeypatch):
    """The prior after training comes from as many samples as it takes: of 800, from 400 of them much the same."""
    mdata = omicvae.datasets.correlated_gaussian(
        800, modalities=("a", "b"), n_latent=3, n_vars=20, rho=0.7, noise=0.3, seed=1
    ).mdata
    omicvae.model.CoVAE.setup_mudata(mdata)
    model = omicvae.model.CoVAE(mdata, n_latent=3, backbone="network")
    model.train(max_epochs=10, **QUIET)
    cohort, learned = model.adata_manager.cohort, model.module.prior_covariance.clone()
    found, read = [], []

    def batches():
        for start in range(0, 800, 100):
            read[-1] += 100
            yield cohort.batch(np.arange(start, start + 100))

    for most in (10_000, 400):
        monkeypatch.setattr("omicvae.module._covae.RECALIBRATION_SAMPLES", most)
        read.append(0)
        model.module.set_prior(learned)
        model.module.end_training(batches)
        found.append(model.module.prior_covariance.clone())
    assert read == [5 * 800, 5 * 400]
    torch.testing.assert_close(found[1], found[0], atol=0.15, rtol=0)


def test_statistics_of_large_cohorts_are_those_of_some_samples(monkeypatch):
    """Means and scales of 2,000 samples, from 500 of them: read no further, and much the same."""
    mdata = omicvae.datasets.correlated_gaussian(
        2000, modalities=("a", "b"), n_latent=3, n_vars=20, rho=0.7, noise=0.3, seed=1
    ).mdata
    mdata["b"].X = np.round(np.exp(np.asarray(mdata["b"].X))).astype(np.float32)
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "nb"})
    model = omicvae.model.CoVAE(mdata, n_latent=3, backbone="network")
    cohort, read = model.adata_manager.cohort, []

    def batches():
        read.append(0)
        for start in range(0, 2000, 100):
            read[-1] += 100
            yield cohort.batch(np.arange(start, start + 100))

    monkeypatch.setattr("omicvae.module._base.STATISTICS_SAMPLES", 500)
    model.module.fit_statistics(batches)
    assert max(read) == 500
    x = np.asarray(mdata["a"].X)
    likelihood = model.module.likelihoods.of("a")
    np.testing.assert_allclose(likelihood.input_mean.numpy(), x.mean(0), atol=4 * x.std() / 500**0.5)
    np.testing.assert_allclose(likelihood.input_scale.numpy(), x.std(0), rtol=0.15)
