"""Predictions depend on a sample's own other assays, whatever it comes with, and say how sure they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
from mudata import MuData

from omicvae.module import JointEncoderModule

MODALITIES = ("rna", "meth", "prot")
DRAWS = 400


def assert_same_prediction(found: Any, expected: Any, n_draws: int) -> None:
    """Means of independent draws: six standard errors of their difference, among about a thousand values."""
    expected = expected[found.obs_names, found.var_names]
    error = np.sqrt((found.layers["sd_latent"] ** 2 + expected.layers["sd_latent"] ** 2) / n_draws)
    assert (np.abs(found.X - expected.X) <= 6 * error + 1e-5 * (1 + np.abs(expected.X))).all()


def has(mdata: MuData, modality: str, names: pd.Index) -> np.ndarray:
    return names.isin(mdata[modality].obs_names)


class TestImputation:
    @pytest.mark.parametrize("modality", MODALITIES)
    def test_does_not_depend_on_any_order_or_company(self, model: Any, rearranged: Callable, modality: str) -> None:
        expected = model.impute(modality, n_draws=DRAWS)
        assert list(expected.obs_names) == list(model.adata.obs_names)
        assert list(expected.var_names) == list(model.schema[modality].var_names)
        query = rearranged(model.adata, 1)
        some = model.adata.obs_names[[9, 0, 33]]
        for found in (
            model.impute(modality, mdata=query, n_draws=DRAWS, batch_size=7),
            model.impute(modality, mdata=rearranged(model.adata, 2, some), n_draws=DRAWS),
            model.impute(modality, indices=[50, 1], features=expected.var_names[[4, 2]], n_draws=DRAWS),
        ):
            assert_same_prediction(found, expected, DRAWS)
            columns = ["source", "sources"]
            pd.testing.assert_frame_equal(
                found.obs[columns].astype(str), expected.obs.loc[found.obs_names, columns].astype(str)
            )
        assert found.shape == (2, 2) and list(found.var_names) == list(expected.var_names[[4, 2]])

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_never_sees_its_own_target(self, model: Any, modality: str) -> None:
        """Not even the library size: the same draws whatever was measured, or if it was not measured at all."""
        changed = model.adata.copy()
        values = changed[modality].X
        changed[modality].X = {"rna": values * 10, "meth": 1 - values, "prot": values + 100}[modality]
        absent = MuData({m: model.adata[m].copy() for m in MODALITIES if m != modality})
        absent.obs["batch"] = model.adata.obs["batch"].reindex(absent.obs_names)
        found = []
        for mdata in (model.adata, changed, absent):
            scvi.settings.seed = 3
            found.append(model.impute(modality, mdata=mdata, indices=absent.obs_names, n_draws=50, batch_size=1000))
        for other in found[1:]:
            for values, expected in (
                (other.X, found[0].X),
                *((other.layers[k], found[0].layers[k]) for k in other.layers),
            ):
                np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_parts_of_the_uncertainty_add_up_and_the_interval_holds_the_mean(self, model: Any, modality: str) -> None:
        found = model.impute(modality)
        layers = found.layers
        np.testing.assert_allclose(layers["sd"] ** 2, layers["sd_latent"] ** 2 + layers["sd_noise"] ** 2, rtol=1e-4)
        assert all((layers[k] >= 0).all() for k in ("sd", "sd_latent", "sd_noise"))
        assert (layers["lower"] <= layers["upper"]).all()
        inside = (layers["lower"] <= found.X) & (found.X <= layers["upper"])
        assert inside.mean() > 0.99
        wide, narrow = (model.impute(modality, level=level).layers for level in (0.98, 0.5))
        assert np.mean(wide["upper"] - wide["lower"]) > 1.5 * np.mean(narrow["upper"] - narrow["lower"])

    @pytest.mark.parametrize("modality", MODALITIES)
    def test_draws_are_of_the_same_distribution(self, model: Any, modality: str) -> None:
        """Calibrated draws have the calibrated intervals; where nothing is calibrated, all else is the same too.

        Wider or narrower by rank, a skewed count distribution has another mean than before: that of counts is not
        compared where intervals are calibrated.
        """
        some, n = [0, 1, 2, 3, 30], 2000
        for given, calibrated in ((None, True), ([], False)):
            arguments = {"given": given, "indices": some}
            found = model.impute(modality, n_draws=n, **arguments)
            draws = model.sample(modality, n_samples=n, **arguments)
            assert draws.shape == (n, *found.shape)
            sd = found.layers["sd"]
            if modality != "rna" or not calibrated:
                assert (np.abs(draws.mean(0) - found.X) < 6 * np.sqrt(2 / n) * sd + 1e-5).all()
            assert np.abs(np.median(draws.std(0) / sd) - 1) < 0.1
            inside = (draws >= found.layers["lower"]) & (draws <= found.layers["upper"])
            # Limits are calibrated on held-out samples: with few samples they are a little wide.
            assert 0.8 < inside.mean() < 0.995
            for level in (0.5, 0.8, 0.95):
                limits = model.impute(modality, n_draws=n, level=level, **arguments).layers
                share = ((draws >= limits["lower"]) & (draws <= limits["upper"])).mean()
                assert -0.01 < share - level < 0.025, (given, level)  # those of counts hold a little more
        assert model.sample(modality, indices=[], n_samples=3).shape == (3, 0, found.n_vars)
        assert model.sample(modality, indices=some).shape == (1, 5, found.n_vars)

    def test_provenance(self, model: Any) -> None:
        """Sources are what a sample has of what may be used, without the target; without any, it is the prior."""
        names = model.adata.obs_names
        measured = {m: has(model.adata, m, names) for m in MODALITIES}
        for given in (None, ["meth"], ["meth", "rna"], []):
            found = model.impute("prot", given=given)
            used = [m for m in MODALITIES if m != "prot" and (given is None or m in given)]
            expected = ["+".join(m for m in used if measured[m][i]) for i in range(60)]
            assert found.obs["sources"].tolist() == expected
            assert found.obs["source"].tolist() == ["imputed" if e else "prior" for e in expected]
        assert "prior" in set(model.impute("prot").obs["source"])
        denoised = model.get_denoised("prot").obs
        assert (denoised["source"] == "observed").tolist() == measured["prot"].tolist()

    def test_prior_rows_of_a_batch_are_alike_and_less_certain(self, model: Any) -> None:
        prior = model.impute("prot", given=[], n_draws=2000)
        for batch in ("batch_1", "batch_2"):
            rows = (model.adata.obs["batch"] == batch).to_numpy()
            spread = prior.X[rows].std(0) / prior.layers["sd_latent"][rows].mean(0)
            assert (spread < 5 / np.sqrt(2000)).all()
        if not isinstance(model.module, JointEncoderModule):  # whose posterior need not be narrower than its prior
            informed = model.impute("prot", given=["rna"], n_draws=2000)
            here = has(model.adata, "rna", informed.obs_names)
            assert np.mean(informed.layers["sd_latent"][here]) < np.mean(prior.layers["sd_latent"][here])

    def test_a_batch_that_is_missing_or_unseen_is_the_average_over_training_batches(self, model: Any) -> None:
        some, draws = list(range(12)), 3000
        frequency = model.module.designs.of("prot").frequency("batch").numpy()
        for value in ("batch_9", np.nan, None):
            query = model.adata.copy()
            if value is None:
                del query.obs["batch"]
            else:
                query.obs["batch"] = value
            names = model.adata.obs_names[some]
            found = model.impute("prot", mdata=query, indices=names, n_draws=draws)
            as_batch = [
                model.impute("prot", mdata=query, indices=names, transform_batch=b, n_draws=draws)
                for b in ("batch_1", "batch_2")
            ]
            expected = sum(f * a.X for f, a in zip(frequency, as_batch, strict=True))
            error = np.sqrt(2 / draws) * found.layers["sd_latent"]
            assert (np.abs(found.X - expected) < 6 * error + 1e-4).all()

    @pytest.mark.parametrize(
        ("arguments", "error", "message"),
        [
            ({"given": ["rna"]}, ValueError, "given names 'rna', the modality to impute; leave it out"),
            ({"given": ["atac"]}, ValueError, "not trained on a modality 'atac'"),
            ({"given": "prot"}, TypeError, r"write given=\['prot'\]"),
            ({"level": 0}, ValueError, "level must lie between 0 and 1"),
            ({"level": 1}, ValueError, "level must lie between 0 and 1"),
            ({"level": 90}, ValueError, "level must lie between 0 and 1, got 90"),
            ({"level": float("nan")}, ValueError, "level must lie between 0 and 1"),
            ({"n_draws": 5}, ValueError, "n_draws=5 cannot resolve a 90% interval; at least 19 can"),
            ({"n_draws": 0}, ValueError, "n_draws must be a whole number of at least 2, got 0"),
            ({"n_draws": 50, "level": 0.99}, ValueError, "n_draws=50 cannot resolve a 99% interval; at least 199 can"),
            ({"scale": "log"}, ValueError, r"scale must be one of \['input', 'normalized'\], got 'log'"),
            ({"features": ["rna_0001", "nope", "no"]}, ValueError, "'rna' has no features 'nope', 'no'"),
            ({"features": "rna_0001"}, TypeError, "features must be a list of names"),
            ({"transform_batch": "Z"}, ValueError, r"transform_batch='Z' is not one of the batches \['batch_1'"),
        ],
    )
    def test_impossible_requests(self, model: Any, arguments: dict, error: type, message: str) -> None:
        with pytest.raises(error, match=message):
            model.impute("rna", **arguments)

    def test_impossible_samples(self, model: Any) -> None:
        with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1, got 0"):
            model.sample("rna", n_samples=0)
        with pytest.raises(ValueError, match=r"not trained on a modality 'mrna'.*Did you mean 'rna'\?"):
            model.impute("mrna")

    def test_without_a_level_there_is_no_interval(self, model: Any) -> None:
        found, expected = model.impute("prot", level=None, n_draws=DRAWS), model.impute("prot", n_draws=DRAWS)
        assert set(found.layers) - {None} == {"sd", "sd_latent", "sd_noise"}  # anndata 0.13 lists X as None
        assert_same_prediction(found, expected, DRAWS)

    def test_more_draws_are_taken_where_the_level_needs_them(self, model: Any) -> None:
        found = model.impute("prot", level=0.998, indices=range(3))
        assert np.isfinite(found.layers["upper"]).all()
