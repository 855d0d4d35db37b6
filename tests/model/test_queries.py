"""What a model says about a sample depends on that sample alone, whatever it comes with and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
from mudata import MuData

from omicvae.model import CoVAE
from omicvae.module import JointEncoderModule

MODALITIES = ("rna", "meth", "prot")
DRAWS = 400


def assert_same_latents(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Float32 sums in another order: 1e-5 of values of order 1."""
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-5, atol=1e-5)


def assert_same_prediction(found: Any, expected: Any, n_draws: int) -> None:
    """Means of independent draws: six standard errors of their difference, among about a thousand values."""
    expected = expected[found.obs_names, found.var_names]
    error = np.sqrt((found.layers["sd_latent"] ** 2 + expected.layers["sd_latent"] ** 2) / n_draws)
    assert (np.abs(found.X - expected.X) <= 6 * error + 1e-5 * (1 + np.abs(expected.X))).all()


def has(mdata: MuData, modality: str, names: pd.Index) -> np.ndarray:
    return names.isin(mdata[modality].obs_names)


class TestLatents:
    @pytest.mark.parametrize("kind", ["joint", "shared", "private"])
    def test_do_not_depend_on_any_order(self, model: Any, rearranged: Callable, kind: str) -> None:
        asked = {"kind": kind, "modality": "meth" if kind == "private" else None, "return_dist": True}
        mean, variance = model.get_latent_representation(**asked)
        for seed in range(3):
            query = rearranged(model.adata, seed)
            found, spread = model.get_latent_representation(query, **asked)
            assert list(found.index) == list(query.obs_names)
            assert_same_latents(found, mean)
            assert_same_latents(spread, variance)

    @pytest.mark.parametrize("batch_size", [1, 7, 60, 1000])
    def test_do_not_depend_on_the_batch_size(self, model: Any, batch_size: int) -> None:
        assert_same_latents(
            model.get_latent_representation(batch_size=batch_size), model.get_latent_representation(batch_size=20)
        )

    def test_do_not_depend_on_other_samples(self, model: Any, rearranged: Callable) -> None:
        chosen = model.adata.obs_names[[50, 3, 8, 21, 22]]
        everything = model.get_latent_representation()
        assert_same_latents(model.get_latent_representation(rearranged(model.adata, samples=chosen)), everything)
        assert_same_latents(model.get_latent_representation(model.adata[chosen]), everything)
        assert_same_latents(model.get_latent_representation(model.adata[chosen].copy()), everything)

    def test_samples_are_chosen_by_position_name_or_mask(self, model: Any) -> None:
        everything = model.get_latent_representation()
        names, at = everything.index, [41, 2, 2, -1]
        assert_rows = lambda found, expected: (assert_same_latents(found, everything), found.index.equals(expected))[1]
        assert assert_rows(model.get_latent_representation(indices=at[:2] + [59]), names[[41, 2, 59]])
        assert assert_rows(model.get_latent_representation(indices=names[[41, 2]]), names[[41, 2]])
        assert assert_rows(model.get_latent_representation(indices=list(names[[41, 2]])), names[[41, 2]])
        mask = np.arange(60) % 7 == 0
        assert assert_rows(model.get_latent_representation(indices=mask), names[mask])
        repeated = model.get_latent_representation(indices=at, return_numpy=True)
        np.testing.assert_allclose(repeated, everything.to_numpy()[[41, 2, 2, 59]], rtol=1e-5, atol=1e-5)
        assert model.get_latent_representation(indices=[]).shape == (0, everything.shape[1])

    @pytest.mark.parametrize(
        ("indices", "error", "message"),
        [
            ([0, 60], ValueError, r"must lie in 0\.\.59"),
            (["nobody"], ValueError, "1 samples are not in the data, first .*'nobody'"),
            ([True, False], ValueError, "the mask has 2 entries for 60 samples"),
            ([0.5], TypeError, "positions, names or a mask"),
        ],
    )
    def test_samples_that_are_not_there(self, model: Any, indices: Any, error: type, message: str) -> None:
        with pytest.raises(error, match=message):
            model.get_latent_representation(indices=indices)

    @pytest.mark.parametrize("given", [["rna"], ["prot", "meth"], []])
    def test_given_hides_the_rest(self, model: Any, given: list[str]) -> None:
        """Conditioning on some assays is the same as never having measured the others."""
        hidden = model.get_latent_representation(given=given)
        if given:
            mods = {m: model.adata[m].copy() for m in given}
            query = MuData(mods)
            query.obs["batch"] = model.adata.obs["batch"].reindex(query.obs_names)
            assert_same_latents(model.get_latent_representation(query), hidden)
        else:
            assert np.allclose(hidden, hidden.iloc[0], atol=1e-6)  # nobody's assays: the prior, for all alike

    def test_private_latents_are_missing_where_the_assay_is(self, model: Any) -> None:
        for m in MODALITIES:
            private = model.get_latent_representation(kind="private", modality=m)
            measured = has(model.adata, m, private.index)
            assert private[measured].notna().all(axis=None) and private[~measured].isna().all(axis=None)
            unseen = model.get_latent_representation(
                kind="private", modality=m, given=[k for k in MODALITIES if k != m]
            )
            assert unseen.isna().all(axis=None)
            assert not model.get_latent_representation(kind="shared").isna().any(axis=None)

    @pytest.mark.parametrize("n_samples", [1, 3])
    def test_draws_have_a_leading_axis(self, model: Any, n_samples: int) -> None:
        for kind, m in (("joint", None), ("shared", None), ("private", "rna")):
            width = model.get_latent_representation(kind=kind, modality=m).shape[1]
            for indices in ([4, 5, 6, 7], []):
                draws = model.get_latent_representation(kind=kind, modality=m, n_samples=n_samples, indices=indices)
                assert draws.shape == (n_samples, len(indices), width)

    def test_draws_have_the_moments_of_the_posterior(self, model: Any) -> None:
        mean, variance = model.get_latent_representation(return_dist=True, indices=range(20), return_numpy=True)
        draws = model.get_latent_representation(n_samples=4000, indices=range(20))
        error = np.sqrt(variance / 4000)
        assert (np.abs(draws.mean(0) - mean) < 6 * error + 1e-5).all()
        # the sd of a sample variance is sqrt(2 / n) of it for a Gaussian, and more for a mixture
        assert (np.abs(draws.var(0) / variance - 1) < 0.25).all()

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"kind": "local"}, r"kind must be one of \('joint', 'shared', 'private'\), got 'local'"),
            ({"kind": "private"}, "kind='private' needs modality="),
            ({"modality": "rna"}, "only kind='private' takes one"),
            ({"kind": "private", "modality": "rnaa"}, r"not trained on a modality 'rnaa'; .* Did you mean 'rna'\?"),
            ({"given": ["atac"]}, "not trained on a modality 'atac'"),
            ({"n_samples": 3, "return_dist": True}, "either n_samples or return_dist"),
        ],
    )
    def test_impossible_requests(self, model: Any, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            model.get_latent_representation(**arguments)
        with pytest.raises(TypeError, match=r"write given=\['rna'\]"):
            model.get_latent_representation(given="rna")


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
        some = [0, 1, 2, 3, 30]
        found = model.impute(modality, indices=some, n_draws=2000)
        draws = model.sample(modality, indices=some, n_samples=2000)
        assert draws.shape == (2000, *found.shape)
        sd = found.layers["sd"]
        assert (np.abs(draws.mean(0) - found.X) < 6 * np.sqrt(2 / 2000) * sd + 1e-5).all()
        assert np.abs(np.median(draws.std(0) / sd) - 1) < 0.1
        inside = (draws >= found.layers["lower"]) & (draws <= found.layers["upper"])
        assert 0.87 < inside.mean() < (0.99 if modality == "rna" else 0.93)  # whole numbers cover more than asked
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
        as_batch = [
            model.impute("prot", indices=some, transform_batch=b, n_draws=draws) for b in ("batch_1", "batch_2")
        ]
        expected = sum(f * a.X for f, a in zip(frequency, as_batch, strict=True))
        for value in ("batch_9", np.nan, None):
            query = model.adata.copy()
            if value is None:
                del query.obs["batch"]
            else:
                query.obs["batch"] = value
            found = model.impute("prot", mdata=query, indices=model.adata.obs_names[some], n_draws=draws)
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
            ({"n_draws": 0}, ValueError, "n_draws=0 cannot resolve"),
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
        with pytest.raises(ValueError, match="n_samples must be at least 1, got 0"):
            model.sample("rna", n_samples=0)
        with pytest.raises(ValueError, match=r"not trained on a modality 'mrna'.*Did you mean 'rna'\?"):
            model.impute("mrna")

    def test_more_draws_are_taken_where_the_level_needs_them(self, model: Any) -> None:
        found = model.impute("prot", level=0.998, indices=range(3))
        assert np.isfinite(found.layers["upper"]).all()


class TestBounds:
    """Estimates with draws: compared between batch sizes within the Monte-Carlo error of 16 repetitions."""

    def repeated(self, estimate: Callable[[], float]) -> tuple[float, float]:
        values = np.array([estimate() for _ in range(16)])
        return values.mean(), values.std(ddof=1) / np.sqrt(16)

    def test_do_not_depend_on_the_batch_size_or_any_order(self, model: Any, rearranged: Callable) -> None:
        query = rearranged(model.adata)
        for name, options in (("get_elbo", {}), ("get_marginal_ll", {"n_samples": 5})):
            getter = getattr(model, name)
            mean, error = self.repeated(lambda getter=getter, options=options: getter(batch_size=60, **options))
            for mdata, batch_size in ((None, 7), (query, 25)):
                other, other_error = self.repeated(
                    lambda getter=getter, options=options, m=mdata, b=batch_size: getter(m, batch_size=b, **options)
                )
                assert np.isfinite(other)
                # 6: an error estimated from 16 values is itself uncertain by a fifth
                assert abs(mean - other) < 6 * np.hypot(error, other_error) + 1e-4 * abs(mean)

    def test_reconstruction_is_a_mean_over_samples_that_have_the_assay(self, model: Any) -> None:
        found = model.get_reconstruction_error(batch_size=13)
        assert set(found) == set(MODALITIES) and np.isfinite(list(found.values())).all()
        without = MuData({m: model.adata[m].copy() for m in ("rna", "meth")})
        assert np.isnan(model.get_reconstruction_error(without)["prot"])


class TestQueries:
    def test_with_an_absent_modality(self, model: Any) -> None:
        query = MuData({m: model.adata[m].copy() for m in ("prot", "rna")})
        query.obs["batch"] = model.adata.obs["batch"].reindex(query.obs_names)
        found = model.impute("meth", mdata=query)
        assert found.shape == (query.n_obs, 9)
        assert set(found.obs["sources"]) <= {"rna", "prot", "rna+prot"}

    def test_that_do_not_fit(self, model: Any) -> None:
        fewer = model.adata.copy()
        fewer.mod["meth"] = fewer["meth"][:, 3:].copy()
        missing = re.escape(", ".join(model.schema["meth"].var_names[:3]))
        with pytest.raises(ValueError, match=f"'meth' lacks 3 of the 9 features .*: {missing}"):
            model.get_latent_representation(fewer)
        with pytest.raises(TypeError, match="expected a MuData, got AnnData"):
            model.get_latent_representation(model.adata["rna"])

    def test_leave_the_model_and_the_query_as_they_are(self, model: Any, rearranged: Callable) -> None:
        query = rearranged(model.adata)
        obs, values = query.obs.copy(), {m: query[m].X.copy() for m in MODALITIES}
        before = {k: v.clone() for k, v in model.module.state_dict().items()}
        model.impute("rna", mdata=query)
        model.get_latent_representation(query)
        model.get_elbo(query)
        assert query.uns == {} and not set(query.obsm) - set(MODALITIES)
        pd.testing.assert_frame_equal(query.obs, obs)
        for m in MODALITIES:
            np.testing.assert_array_equal(query[m].X, values[m])
            assert not query[m].layers.keys() - model.adata[m].layers.keys()
        assert all((model.module.state_dict()[k] == v).all() for k, v in before.items())
        assert not model.module.training

    @pytest.mark.parametrize("kind", ["covae", "mmvaepp"])
    def test_own_data_changed_after_training_are_matched_by_name(
        self, cohort: Callable, trained_model: Callable, kind: str
    ) -> None:
        model = trained_model(kind, cohort())
        expected = model.get_latent_representation()
        rng = np.random.default_rng(0)
        for m in MODALITIES:
            model.adata.mod[m]._inplace_subset_obs(rng.permutation(model.adata[m].n_obs))
            model.adata.mod[m]._inplace_subset_var(rng.permutation(model.adata[m].n_vars))
        assert_same_latents(model.get_latent_representation(), expected)

    def test_a_second_setup_of_the_same_data_does_not_change_the_first_model(
        self, cohort: Callable, trained_model: Callable
    ) -> None:
        model = trained_model("covae", cohort())
        expected = model.get_latent_representation()
        CoVAE.setup_mudata(model.adata, modalities=["prot", "rna"], likelihoods={"rna": "normal"})
        other = CoVAE(model.adata)
        assert other.modalities == ("prot", "rna") and model.modalities == MODALITIES
        assert_same_latents(model.get_latent_representation(), expected)
        model.view_anndata_setup()


def test_an_untrained_model_says_so(cohort: Callable) -> None:
    mdata = cohort()
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata)
    for ask in (
        lambda: model.get_latent_representation(),
        lambda: model.impute("rna"),
        lambda: model.get_denoised("rna"),
        lambda: model.sample("rna"),
        lambda: model.get_elbo(),
        lambda: model.get_marginal_ll(),
        lambda: model.get_reconstruction_error(),
    ):
        with pytest.raises(RuntimeError, match=r"this CoVAE has not been trained: call model.train\(\)"):
            ask()
