"""Generated samples: shapes and units for every kind of model, and the moments of the data they are to look like."""

from __future__ import annotations

import numpy as np
import pytest
import scvi

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA

QUIET = {"enable_progress_bar": False, "accelerator": "cpu"}


@pytest.fixture(scope="module")
def covae() -> CoVAE:
    mdata = correlated_gaussian(
        400, modalities=("a", "b"), n_latent=2, n_vars=12, rho=0.9, noise=0.5, linear=True, missing=0.2, seed=0
    ).mdata
    CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    scvi.settings.seed = 0
    model = CoVAE(mdata, n_latent=2, backbone="moments")
    model.train(**QUIET)
    return model


@pytest.fixture(scope="module")
def factors(covae: CoVAE) -> ProbabilisticCCA:
    ProbabilisticCCA.setup_mudata(covae.adata, likelihoods={"a": "normal", "b": "normal"})
    model = ProbabilisticCCA(covae.adata, n_factors=8)
    model.train()
    return model


@pytest.mark.parametrize("name", ["covae", "factors"])
@pytest.mark.parametrize("from_", ["prior", "mixture"])
def test_moments_are_those_of_the_data(name: str, from_: str, request: pytest.FixtureRequest) -> None:
    """On linear-Gaussian data covariances within and between assays come back: 4000 draws, correlations to about .05."""
    scvi.settings.seed = 1
    model = request.getfixturevalue(name)
    made = model.generate(4000, from_=from_)
    full = model.adata
    both = full["a"].obs_names.intersection(full["b"].obs_names)
    truth = np.concatenate([np.asarray(full[m][both].X) for m in ("a", "b")], 1)
    found = np.concatenate([made[m].X for m in ("a", "b")], 1)
    np.testing.assert_allclose(found.mean(0), truth.mean(0), atol=0.2)
    difference = np.corrcoef(found.T) - np.corrcoef(truth.T)
    assert np.abs(difference).mean() < 0.07
    assert np.corrcoef(found.T)[:12, 12:].ravel() @ np.corrcoef(truth.T)[:12, 12:].ravel() > 0


def test_a_mixture_follows_clusters_that_the_prior_does_not() -> None:
    rng = np.random.default_rng(0)
    mdata = correlated_gaussian(300, modalities=("a", "b"), n_latent=2, n_vars=8, rho=0.9, linear=True, seed=0).mdata
    shift = np.where(rng.random(mdata.n_obs) < 0.5, -6.0, 6.0)
    for m in ("a", "b"):
        rows = mdata.obs_names.get_indexer(mdata[m].obs_names)
        mdata[m].X = np.asarray(mdata[m].X) + shift[rows, None]
    CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    scvi.settings.seed = 0
    model = CoVAE(mdata, n_latent=2, backbone="moments")
    model.train(**QUIET)
    near = [(np.abs(model.generate(2000, from_=f)["a"].X.mean(1)) < 2).mean() for f in ("prior", "mixture")]
    assert near[0] > 0.15 and near[1] < 0.08


@pytest.mark.parametrize("from_", ["prior", "mixture"])
def test_every_model_generates_values_of_its_likelihoods(model, from_: str) -> None:
    made = model.generate(7, from_=from_, batch_size=3)
    assert list(made.mod) == list(model.modalities)
    for m in model.modalities:
        assert made[m].shape == (7, len(model.get_var_names()[m]))
        assert made[m].var_names.tolist() == model.get_var_names()[m].tolist()
        assert np.isfinite(made[m].X).all()
    rna = made["rna"].X
    assert (rna >= 0).all() and (rna == np.round(rna)).all()
    assert ((made["meth"].X > 0) & (made["meth"].X < 1)).all()
    assert made.obs["covariates_of"].isin(model.adata.obs_names).all()


def test_equal_seeds_give_equal_samples(covae: CoVAE) -> None:
    def drawn() -> np.ndarray:
        scvi.settings.seed = 5
        return np.asarray(covae.generate(20, from_="mixture")["a"].X)

    np.testing.assert_array_equal(drawn(), drawn())


def test_what_cannot_be_generated(covae: CoVAE) -> None:
    with pytest.raises(ValueError, match="from_ must be"):
        covae.generate(3, from_="posterior")
    with pytest.raises(ValueError, match="n_samples"):
        covae.generate(0)
    MMVAEPlusPlus.setup_mudata(covae.adata)
    with pytest.raises(RuntimeError, match="train"):
        MMVAEPlusPlus(covae.adata).generate(3)
