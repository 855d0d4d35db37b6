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

MODALITIES = ("rna", "meth", "prot")


def assert_same_latents(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Float32 sums in another order: 1e-5 of values of order 1."""
    pd.testing.assert_frame_equal(found, expected.loc[found.index], rtol=1e-5, atol=1e-5)


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
        names = everything.index
        mask = np.arange(60) % 7 == 0
        for indices, expected in (
            ([41, 2, -1], names[[41, 2, 59]]),
            (np.array([41, 2]), names[[41, 2]]),
            (names[[41, 2]], names[[41, 2]]),
            (list(names[[41, 2]]), names[[41, 2]]),
            (mask, names[mask]),
        ):
            found = model.get_latent_representation(indices=indices)
            assert list(found.index) == list(expected)
            assert_same_latents(found, everything)
        repeated = model.get_latent_representation(indices=[41, 2, 2], return_numpy=True)
        np.testing.assert_allclose(repeated, everything.to_numpy()[[41, 2, 2]], rtol=1e-5, atol=1e-5)
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
    def test_a_batch_of_one_modality_shifts_that_modality_alone(
        self, cohort: Callable, trained_model: Callable, kind: str
    ) -> None:
        mdata = cohort()
        mdata["prot"].obs["run"] = ["ab"[int(s[-1]) % 2] for s in mdata["prot"].obs_names]
        model = trained_model(kind, mdata, batch_key={"prot": "run"})
        scvi.settings.seed = 1
        a = model.impute("prot", transform_batch="a", indices=range(20))
        scvi.settings.seed = 1
        b = model.impute("prot", transform_batch="b", indices=range(20))
        assert np.ptp(b.X - a.X, axis=1).min() > 0
        with pytest.raises(ValueError, match="'rna' was set up without a batch_key"):
            model.impute("rna", transform_batch="a")
        # a sample without protein has no run, and is imputed all the same
        absent = ~mdata.obs_names.isin(mdata["prot"].obs_names)
        assert np.isfinite(model.impute("prot", indices=absent).X).all()

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
