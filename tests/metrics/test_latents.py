"""Prior, decoder inputs and uncertainties of latents where they are known."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
import torch

from omicvae.metrics import decoder_input_correlation, latent_sd, participation_ratio, prior_covariance
from omicvae.model import CoVAE

RHO = 0.6


@contextmanager
def prior(model: CoVAE, covariance: torch.Tensor):
    """The model with another prior."""
    before = model.module.prior_covariance.clone(), model.module.prior_mean.clone()
    model.module.set_prior(covariance)
    try:
        yield
    finally:
        model.module.set_prior(*before)


def correlated(rho: float, d: int = 2, M: int = 3) -> torch.Tensor:
    """Blocks ``rho I`` between all assays."""
    return torch.kron((1 - rho) * torch.eye(M) + rho * torch.ones(M, M), torch.eye(d)).double()


class TestParticipationRatio:
    def test_known_values(self):
        assert participation_ratio(3 * np.eye(7)) == pytest.approx(7)
        assert participation_ratio(np.outer([1, 2, 3], [1, 2, 3])) == pytest.approx(1)
        assert participation_ratio(np.diag([1, 1, 1, 0])) == pytest.approx(3)

    def test_it_is_that_of_the_eigenvalues(self):
        factor = np.random.default_rng(0).normal(size=(6, 6))
        values = np.linalg.eigvalsh(factor @ factor.T)
        assert participation_ratio(factor @ factor.T) == pytest.approx(values.sum() ** 2 / (values**2).sum())

    def test_two_assays_with_ten_latents_each(self):
        """Appendix C of CoVAE: close to 11 at a correlation of .9; in general 2 d / (1 + rho^2)."""
        assert participation_ratio(correlated(0.9, d=10, M=2)) == pytest.approx(20 / 1.81)

    def test_mistakes(self):
        with pytest.raises(ValueError, match=r"shape \(D, D\), got \(2, 3\)"):
            participation_ratio(np.zeros((2, 3)))
        with pytest.raises(ValueError, match="not symmetric"):
            participation_ratio([[1, 0.5], [0, 1]])
        with pytest.raises(ValueError, match="1 entries of the covariance are not finite"):
            participation_ratio([[np.nan, 0], [0, 1]])
        for bad in (np.zeros((2, 2)), -np.eye(2)):
            with pytest.raises(ValueError, match="variances on its diagonal"):
                participation_ratio(bad)
        with pytest.raises(ValueError, match=r"got \(0, 0\)"):
            participation_ratio(np.zeros((0, 0)))
        with pytest.raises(
            TypeError, match=r"such as prior_covariance\(model\), must be an array of numbers, got object"
        ):
            participation_ratio(object())


def test_prior_covariance_is_that_of_reported_latents(covae):
    """Unit blocks, the correlation where it was put, the latents' names, whatever the scale of the module's latents."""
    scale = torch.tensor([2.0, 0.5, 1.0, 3.0, 1.0, 1.0]).double()
    with prior(covae, torch.diag(scale) @ correlated(RHO) @ torch.diag(scale)):
        sigma = prior_covariance(covae)
    np.testing.assert_allclose(sigma, correlated(RHO), atol=1e-6)
    assert list(sigma.index) == list(sigma.columns) == list(covae.latent_names["joint"])


def test_other_models_have_independent_latents(linear_model):
    sigma = prior_covariance(linear_model)
    assert list(sigma.index) == list(linear_model.latent_names["joint"])
    if not isinstance(linear_model, CoVAE):
        np.testing.assert_array_equal(sigma, np.eye(len(sigma)))
        assert participation_ratio(sigma) == pytest.approx(len(sigma))


class TestDecoderInputCorrelation:
    @pytest.mark.parametrize("rho", [0.0, RHO])
    def test_draws_from_the_prior_have_its_correlation(self, covae, rho):
        """4000 draws given nothing: rho within 4 standard errors, and the bias that ``null`` shows."""
        many = np.repeat(np.arange(40), 100)
        with prior(covae, correlated(rho)):
            found = decoder_input_correlation(covae, given=[], indices=many)
        assert len(found) == 3 and (found["n_samples"] == 4000).all() and (found["n_dimensions"] == 2).all()
        assert (found["null"] < 0.04).all()
        np.testing.assert_allclose(found["correlation"], max(rho, found["null"].mean()), atol=4 / 4000**0.5)

    def test_decoders_that_share_latents_have_correlation_one(self, jmvae, pcca):
        for model in (jmvae, pcca):
            np.testing.assert_allclose(decoder_input_correlation(model, given=["a"])["correlation"], 1, atol=1e-6)

    def test_shared_and_private_latents(self, dmvae):
        """Two shared dimensions and an independent one each: 2/3 and the bias of the third."""
        found = decoder_input_correlation(dmvae, given=[], indices=np.repeat(np.arange(40), 100))
        np.testing.assert_allclose(found["correlation"], 2 / 3, atol=0.03)

    def test_samples_that_count(self, covae):
        """Both assays of a pair, or all that is conditioned on."""
        present = covae._cohort(None).present
        joint = decoder_input_correlation(covae)
        assert joint["n_samples"].tolist() == [int(present[:, list(p)].all(1).sum()) for p in ((0, 1), (0, 2), (1, 2))]
        given = decoder_input_correlation(covae, given=["a", "b"])
        assert (given["n_samples"] == present[:, :2].all(1).sum()).all()
        few = decoder_input_correlation(covae, indices=[0, 5, 6])
        assert few["correlation"].isna().all() and few["null"].isna().all()
        assert decoder_input_correlation(covae, indices=[])["n_samples"].tolist() == [0, 0, 0]

    def test_mistakes(self, covae):
        with pytest.raises(TypeError, match="given must be a list"):
            decoder_input_correlation(covae, given="a")
        with pytest.raises(ValueError, match="n_draws must be a whole number"):
            decoder_input_correlation(covae, n_draws=0)
        with pytest.raises(TypeError, match="expects a model"):
            decoder_input_correlation(None)


class TestLatentSd:
    def test_it_is_that_of_reported_latents(self, linear_model):
        """Another path through the code: variances of the joint latents given what is asked for."""
        table = latent_sd(linear_model, batch_size=7)
        present = linear_model._cohort(None).present
        for i, m in enumerate(linear_model.modalities):
            usable = np.flatnonzero(present[:, i] & (present.sum(1) > 1))
            own = table[table["modality"] == m]
            assert (own["n_samples"] == len(usable)).all()
            others = [o for o in linear_model.modalities if o != m]
            for column, given in (("sd_observed", None), ("sd_alone", [m]), ("sd_missing", others)):
                _, variance = linear_model.get_latent_representation(return_dist=True, given=given, indices=usable)
                expected = np.sqrt(variance[own["dimension"].tolist()].mean())
                np.testing.assert_allclose(own[column], expected, rtol=1e-4)

    def test_nothing_known_is_one(self, covae):
        """Independent assays: a hidden one is as uncertain as the prior; a measured one is less."""
        with prior(covae, correlated(0.0)):
            table = latent_sd(covae)
        np.testing.assert_allclose(table["sd_missing"], 1, atol=1e-5)
        assert (table["sd_observed"] < 1).all()
        np.testing.assert_allclose(table["sd_alone"], table["sd_observed"], rtol=1e-5)

    def test_correlation_tells_about_a_hidden_assay(self, covae):
        sd = {}
        for rho in (0.1, 0.6, 0.9):
            with prior(covae, correlated(rho)):
                sd[rho] = latent_sd(covae)["sd_missing"].to_numpy()
        assert (sd[0.1] > sd[0.6]).all() and (sd[0.6] > sd[0.9]).all()

    def test_without_samples(self, covae):
        table = latent_sd(covae, indices=[])
        assert len(table) == 6 and table[["sd_observed", "sd_alone", "sd_missing"]].isna().all(axis=None)
        pd.testing.assert_series_equal(table["n_samples"], pd.Series(0, index=table.index, name="n_samples"))
