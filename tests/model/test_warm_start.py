"""CoVAE that starts from the factors of probabilistic CCA."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

from omicvae.datasets import correlated_gaussian, simulated_cohort
from omicvae.model import CoVAE, ProbabilisticCCA


def factors_of(mdata, **kwargs) -> ProbabilisticCCA:
    ProbabilisticCCA.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "normal"))
    model = ProbabilisticCCA(mdata, **kwargs)
    model.train()
    return model


@pytest.fixture(scope="module")
def factors() -> ProbabilisticCCA:
    scvi.settings.seed = 0
    simulation = correlated_gaussian(
        300, modalities=("a", "b", "c"), n_latent=3, n_vars=15, rho=0.8, noise=0.4, linear=True, missing=0.2, seed=3
    )
    return factors_of(simulation.mdata)


def means(model, given: list[str]) -> np.ndarray:
    """Posterior means in the module's own coordinates."""
    used = torch.tensor([m in given for m in model.modalities])
    batch = model._own_cohort().batch(np.arange(model.adata.n_obs))
    with torch.no_grad():
        q = model.module.posterior(model.module.encode(batch), batch, batch.present & used)
    return q.gaussian.mean.double().numpy()


def test_the_start_says_what_the_factors_say(factors: ProbabilisticCCA) -> None:
    """CoVAE's posterior of an assay's latents is that of the factors, seen from the assay, given any assays."""
    model = CoVAE.from_probabilistic_cca(factors, n_latent=3, backbone="moments")
    model.train()
    for given in (["a"], ["b", "c"], ["a", "b", "c"]):
        own, common = means(model, given), means(factors, given)
        for m, block in model.module.blocks.items():
            seen = common @ model.module.start[m].rotation.numpy()
            # not equal: three latents an assay leave out its weakest directions
            for k in range(3):
                assert np.corrcoef(own[:, block][:, k], seen[:, k])[0, 1] > 0.95
            assert np.abs(own[:, block] - seen).mean() < 0.2


def test_training_starts_there_and_everything_works(factors: ProbabilisticCCA, tmp_path) -> None:
    scvi.settings.seed = 0
    model = CoVAE.from_probabilistic_cca(factors)
    model.train(max_epochs=3, enable_progress_bar=False)
    imputed = model.impute("a", given=["b"])
    assert np.isfinite(imputed.X).all()
    model.save(tmp_path / "model")
    again = CoVAE.load(tmp_path / "model", adata=factors.adata)
    rows = imputed.obs_names.isin(factors.adata["b"].obs_names)  # others are averages of draws from the prior
    np.testing.assert_allclose(again.impute("a", given=["b"]).X[rows], imputed.X[rows], atol=1e-4)


def test_fewer_factors_than_latents_and_covariates() -> None:
    mdata = simulated_cohort(n_obs=90).mdata
    ProbabilisticCCA.setup_mudata(mdata, batch_key="center")
    few = ProbabilisticCCA(mdata, n_factors=2)
    few.train()
    model = CoVAE.from_probabilistic_cca(few, n_latent=5)
    named = ("modalities", "likelihoods", "layers", "batch_key", "coverage_layers")
    assert all(model.registry["setup_args"][k] == few.registry["setup_args"][k] for k in named)
    model.train(max_epochs=2, enable_progress_bar=False)
    assert np.isfinite(model.get_latent_representation().to_numpy()).all()
    assert torch.linalg.eigvalsh(model.module.prior_covariance).min() > 0


def test_what_cannot_be_started_from(factors: ProbabilisticCCA) -> None:
    with pytest.raises(TypeError, match="must be a trained ProbabilisticCCA, got CoVAE"):
        CoVAE.from_probabilistic_cca(CoVAE.from_probabilistic_cca(factors))
    with pytest.raises(ValueError, match="joint_encoder"):
        CoVAE.from_probabilistic_cca(factors, posterior="joint_encoder")
    ProbabilisticCCA.setup_mudata(factors.adata)
    with pytest.raises(RuntimeError, match="train"):
        CoVAE.from_probabilistic_cca(ProbabilisticCCA(factors.adata))
