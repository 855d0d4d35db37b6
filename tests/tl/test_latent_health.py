"""What latents know, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
from mudata import MuData

from omicvae import tl
from omicvae.datasets import correlated_gaussian, simulated_cohort
from omicvae.model import MVAE, CoVAE, ProbabilisticCCA


@pytest.fixture(scope="module")
def mvae() -> MVAE:
    scvi.settings.seed = 0
    mdata = correlated_gaussian(80, modalities=["a", "b"], n_latent=2, n_vars=6, missing={"b": 0.3}, seed=1).mdata
    MVAE.setup_mudata(mdata)
    model = MVAE(mdata)
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    return model


def test_information_is_the_divergence_of_gaussians(mvae: MVAE) -> None:
    table = tl.information(mvae, n_draws=400).set_index("given")
    for given in (["a"], ["b"], None):
        present = mvae._cohort(None).present
        columns = [mvae.modalities.index(m) for m in given or mvae.modalities]
        rows = np.flatnonzero(present[:, columns].any(1))
        mean, variance = mvae.get_latent_representation(given=given, indices=rows, return_dist=True, return_numpy=True)
        exact = 0.5 * (variance + mean**2 - 1 - np.log(variance)).sum(1).mean()
        name = "all measured" if given is None else given[0]
        assert table.loc[name, "n_samples"] == len(rows)
        # 400 draws of at least 50 samples; the log ratio of one draw varies by about the square root of its mean.
        assert table.loc[name, "kl"] == pytest.approx(exact, rel=0.05, abs=0.02)


def test_information_does_not_depend_on_the_batch_size_beyond_its_draws(mvae: MVAE) -> None:
    one, other = (tl.information(mvae, n_draws=400, batch_size=size)["kl"] for size in (7, 200))
    np.testing.assert_allclose(one, other, rtol=0.05, atol=0.02)
    assert tl.information(mvae)["kl"].tolist() == tl.information(mvae)["kl"].tolist()


def test_the_aggregated_variance_is_that_of_draws(mvae: MVAE) -> None:
    table = tl.aggregated_posterior(mvae)
    draws = mvae.get_latent_representation(n_samples=2000)
    np.testing.assert_allclose(table["aggregated"], draws.var(axis=(0, 1)), rtol=0.03)  # 2,000 draws of 80 samples
    assert (table["active"] == (table["means"] > 0.01)).all()
    assert list(table["dimension"]) == list(mvae.latent_names["joint"])


def test_features_without_shared_signal_are_not_among_the_best() -> None:
    """60 % of features carry shared signal; if ranks said nothing, 40 % of the best would not."""
    scvi.settings.seed = 0
    mdata = simulated_cohort(200, seed=1).mdata
    ProbabilisticCCA.setup_mudata(mdata, batch_key="center")
    model = ProbabilisticCCA(mdata, n_factors=8)
    model.train()
    table = tl.shared_features(model, n=10)
    truly = [mdata[m].var.loc[f, "shared"] for m, f in table[["modality", "feature"]].itertuples(index=False)]
    assert len(table) > 15
    assert np.mean(truly) > 0.9
    for _, part in table.groupby("modality"):
        assert part["skill_vs_mean"].is_monotonic_decreasing
    assert table["correlation"].abs().max() > 0.3
    assert set(table["dimension"].dropna()) <= set(model.latent_names["shared"])


def test_there_are_no_shared_features_where_nothing_was_held_out() -> None:
    mdata = correlated_gaussian(20, modalities=["a", "b"], n_latent=2, n_vars=4, seed=1).mdata
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata, backbone="network")
    model.train(max_epochs=1, train_size=1.0, calibration_size=0.0, accelerator="cpu", enable_progress_bar=False)
    assert tl.shared_features(model).empty


@pytest.mark.parametrize("function", [tl.information, tl.aggregated_posterior, tl.shared_features])
def test_untrained_models_models_without_data_and_other_things(function, mvae: MVAE, tmp_path) -> None:
    with pytest.raises(TypeError, match="expects a model"):
        function(MuData({}))
    mdata = correlated_gaussian(20, modalities=["a", "b"], n_latent=2, n_vars=4, seed=1).mdata
    MVAE.setup_mudata(mdata)
    with pytest.raises(RuntimeError, match="not been trained"):
        function(MVAE(mdata))
    mvae.save(tmp_path / "model", overwrite=True)
    with pytest.raises(ValueError, match="without data"):
        function(MVAE.load(tmp_path / "model", adata=False))


def test_impossible_numbers_are_refused(mvae: MVAE) -> None:
    with pytest.raises(ValueError, match="n_draws"):
        tl.information(mvae, n_draws=0)
    with pytest.raises(ValueError, match="n must|n "):
        tl.shared_features(mvae, n=0)
