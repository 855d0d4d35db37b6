"""The benchmark is fair, leaks nothing, and survives what fails."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from mudata import MuData

import omicvae.model
from omicvae.data import Cohort, Schema
from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.nn.likelihoods import Observed
from omicvae.stats.baselines import RidgeBaseline
from omicvae.stats.patterns import assign_folds
from omicvae.tl import _benchmark, benchmark
from omicvae.tl._benchmark_arguments import registered_setup
from omicvae.tl._benchmark_methods import BASELINES, resolve_names
from omicvae.tl._benchmark_split import Split, Values, as_measured
from omicvae.tl._contenders import BaselineContender, GroupMeanContender, ModelContender, quietly

REGRESSIONS = ["mean", "group_mean", "ridge", "ridge_per_feature", "pca_ridge", "pls", "knn"]
SETUP: dict[str, Any] = {
    "likelihoods": {"rna": "normal", "mirna": "nb", "meth": "betabinomial"},
    "layers": {"meth": "methylated"},
    "coverage_layers": {"meth": "coverage"},
    "batch_key": "batch",
}


def build(n_obs: int = 120, *, missing: float = 0.25) -> MuData:
    """Three assays of three kinds, each missing in some samples, with single NaN and batches."""
    mdata = correlated_gaussian(
        n_obs,
        modalities=["rna", "mirna", "meth"],
        n_latent=3,
        n_vars={"rna": 12, "mirna": 10, "meth": 8},
        likelihoods={"mirna": "nb", "meth": "betabinomial"},
        missing={"rna": missing, "mirna": missing, "meth": missing},
        nan_fraction={"rna": 0.05},
        library_sd=0.4,
        n_batches=2,
        rho=0.8,
        seed=3,
    ).mdata
    mdata.obs["subtype"] = np.where(np.arange(mdata.n_obs) % 3 == 0, "A", "B")
    return mdata


def prepared(mdata: MuData) -> MuData:
    CoVAE.setup_mudata(mdata, **SETUP)
    return mdata


@pytest.fixture(scope="module")
def cohort() -> MuData:
    return prepared(build())


@pytest.fixture(scope="module")
def table(cohort: MuData) -> pd.DataFrame:
    return benchmark(cohort, REGRESSIONS, n_splits=3, groupby="subtype")


def split_of(mdata: MuData, given: tuple[str, ...] | None = None) -> Split:
    registry = registered_setup(mdata)
    values = Values(mdata, Cohort(mdata, Schema.from_registry(registry)))
    folds = assign_folds(values.cohort.present, 3, 0)
    positions = np.flatnonzero(folds != 0), np.flatnonzero(folds == 0)
    return Split(values, *positions, given or values.schema.names)


# ---------------------------------------------------------------------- the table


def test_every_split_target_and_model_has_a_row(table: pd.DataFrame) -> None:
    assert list(table.columns) == list(_benchmark.COLUMNS)
    assert len(table) == 3 * 3 * len(REGRESSIONS)
    assert not table.duplicated(["split", "target", "model"]).any()
    assert list(dict.fromkeys(table["model"])) == REGRESSIONS
    assert table.drop(columns="spearman").notna().all().all()
    assert (table["seconds"] > 0).all()


def test_test_samples_are_all_that_can_be_scored_once(cohort: MuData, table: pd.DataFrame) -> None:
    present = pd.DataFrame({m: cohort.obs_names.isin(cohort[m].obs_names) for m in cohort.mod})
    for target, part in table[table["model"] == "ridge"].groupby("target"):
        usable = int((present[target] & (present.sum(axis=1) > 1)).sum())
        assert part["n_test"].sum() == usable
        np.testing.assert_array_equal(part["n_train"], usable - part["n_test"])


def test_scores_are_relative_to_ridge(table: pd.DataFrame) -> None:
    ridge = table[table["model"] == "ridge"]
    np.testing.assert_array_equal(ridge["crps_relative_to_ridge"], 1.0)
    joined = table.merge(ridge[["split", "target", "crps"]], on=["split", "target"], suffixes=("", "_ridge"))
    np.testing.assert_allclose(joined["crps_relative_to_ridge"], joined["crps"] / joined["crps_ridge"])


def test_regressions_beat_the_mean_where_assays_share_signal(table: pd.DataFrame) -> None:
    found = table.groupby(["target", "model"])["crps"].mean().unstack()
    assert (found["ridge"] < 0.97 * found["mean"]).all()  # the shared latents explain a good part of every assay
    r2 = table.groupby(["target", "model"])["r2"].mean().unstack()
    assert (r2["ridge"] > 0.1).all()


def test_intervals_cover_about_ninety_percent(table: pd.DataFrame) -> None:
    # Some sets of sources have 25 training samples, whose conformal quantile is that of .94; and 30 test samples a split
    # and target are a standard error of .03 if features of a sample were one.
    by_model = table.groupby("model")["coverage90"].mean()
    assert by_model.between(0.86, 0.96).all()
    assert (table["width90"] > 0).all()


def test_equal_seeds_give_equal_tables(cohort: MuData, table: pd.DataFrame) -> None:
    again = benchmark(cohort, REGRESSIONS, n_splits=3, groupby="subtype")
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    other = benchmark(cohort, ["ridge"], n_splits=3, seed=1)
    assert not np.allclose(other["crps"], table.loc[table["model"] == "ridge", "crps"])


def test_order_of_rows_and_modalities_does_not_matter() -> None:
    mdata = build()
    rng = np.random.default_rng(0)
    mods = {m: mdata[m][rng.permutation(mdata[m].n_obs)].copy() for m in mdata.mod}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = MuData(mods)
    other.obs["batch"] = mdata.obs["batch"].reindex(other.obs_names)
    a, b = split_of(prepared(mdata)), split_of(prepared(other))
    at = pd.Index(a.values.cohort.obs_names).get_indexer(b.values.cohort.obs_names)
    train, test = (np.flatnonzero(np.isin(at, part)) for part in (a.train, a.test))
    b = Split(b.values, train, test, b.given)
    ours, theirs = a.usable(a.test, "rna"), b.usable(b.test, "rna")
    order = pd.Index(b.names(theirs)).get_indexer(a.names(ours))
    contender = BaselineContender(RidgeBaseline)
    np.testing.assert_allclose(
        contender.predict(a, "rna", ours).mean, contender.predict(b, "rna", theirs).mean[order], rtol=1e-3, atol=1e-3
    )


# ---------------------------------------------------------------------- nothing leaks


def poisoned(mdata: MuData, samples: np.ndarray, target: str) -> MuData:
    """The same data with nonsense in a target of some samples."""
    other = mdata.copy()
    other.uns.clear()  # a copy has the identity of what it was made from, which setting it up would take away
    rows = other[target].obs_names.isin(samples)
    shape, rng = (rows.sum(), other[target].n_vars), np.random.default_rng(9)
    other[target].X[rows] = rng.normal(50, 9, shape) if target == "rna" else rng.integers(0, 500, shape)
    return prepared(other)


@pytest.mark.parametrize("target", ["rna", "mirna"])
def test_hidden_values_change_no_prediction(cohort: MuData, target: str) -> None:
    a = split_of(cohort)
    samples = a.usable(a.test, target)
    b = split_of(poisoned(cohort, a.names(samples), target))
    assert not np.allclose(np.nan_to_num(a.truth(target, samples)), np.nan_to_num(b.truth(target, samples)))
    for name, build_one in BASELINES.items():
        x, y = (BaselineContender(build_one).predict(s, target, samples) for s in (a, b))
        for field in ("mean", "lower", "upper"):
            np.testing.assert_array_equal(getattr(x, field), getattr(y, field), err_msg=name)
    labels = cohort.obs["subtype"]
    x, y = (GroupMeanContender(labels).predict(s, target, samples) for s in (a, b))
    np.testing.assert_array_equal(x.mean, y.mean)


class Spy:
    """Notes what it is given; predicts nothing."""

    seen: dict[str, Any] = {}
    _setup_adata_manager_store: dict[str, Any] = {}

    def __init__(self, mdata: MuData, **arguments: Any) -> None:
        self.mdata = mdata
        self.seen["train"], self.seen["arguments"] = mdata, arguments

    @classmethod
    def setup_mudata(cls, mdata: MuData, **arguments: Any) -> None:
        mdata.uns["_scvi_uuid"] = "spy"
        cls.seen["setup"] = arguments

    def train(self, max_epochs: int = 1, enable_progress_bar: bool = True) -> None:
        self.seen["trained"] = (max_epochs, enable_progress_bar)

    def sample(self, modality: str, *, n_samples: int, mdata: MuData, indices: list[str], scale: str) -> np.ndarray:
        self.seen["test"] = mdata
        return np.zeros((n_samples, len(indices), 8), np.float32)

    def impute(self, modality: str, *, mdata: MuData, indices: list[str], level: float) -> AnnData:
        zeros = np.zeros((len(indices), 8), np.float32)
        return AnnData(zeros, layers={"lower": zeros, "upper": zeros})


def test_models_see_training_samples_and_then_test_samples_without_the_target(cohort: MuData) -> None:
    split = split_of(cohort)
    samples = split.usable(split.test, "meth")
    contender = ModelContender(Spy, SETUP, {"n_latent": 3}, {"max_epochs": 7, "not_taken": 1}, {}, 0)  # type: ignore[arg-type]
    contender.fit(split)
    contender.predict(split, "meth", samples)
    train, test = Spy.seen["train"], Spy.seen["test"]
    assert set(train.mod) == {"rna", "mirna", "meth"}
    assert set(train.obs_names) == set(split.names(split.train[split.present[split.train].any(1)]))
    assert set(test.mod) == {"rna", "mirna"}
    assert set(test.obs_names) == set(split.names(samples))
    assert not set(train.obs_names) & set(test.obs_names)
    pd.testing.assert_series_equal(train.obs["batch"], cohort.obs["batch"].loc[train.obs_names], check_names=False)
    assert Spy.seen["arguments"] == {"n_latent": 3}
    assert Spy.seen["trained"] == (7, False)
    for m in test.mod:
        np.testing.assert_array_equal(test[m].X, cohort[m][test[m].obs_names].X)


def test_given_limits_what_is_predicted_from(cohort: MuData) -> None:
    split = split_of(cohort, ("rna", "mirna"))
    assert split.sources("meth") == ("rna", "mirna")
    assert split.sources("rna") == ("mirna",)
    samples = split.usable(split.test, "rna")
    assert split.present[samples][:, [0, 1]].all()
    table = benchmark(cohort, ["ridge"], n_splits=2, given=["rna"])
    assert set(table["target"]) == {"mirna", "meth"}  # rna has nothing left to be predicted from


# ---------------------------------------------------------------------- fairness


class FromRidge(Spy):
    """A model whose predictive distribution is that of ridge regression."""

    split: Split
    target = "rna"

    def _found(self, mdata: MuData, indices: list[str]) -> tuple[np.ndarray, ...]:
        split, names = self.split, pd.Index(self.split.values.cohort.obs_names)
        at = names.get_indexer(pd.Index(indices))
        forecast = BaselineContender(RidgeBaseline).predict(split, self.target, at)
        sd = (forecast.upper - forecast.mean)[0] / 1.645
        scale, centre = (v.numpy() for v in (self.likelihood.input_scale, self.likelihood.input_mean))
        return tuple(v * scale + centre for v in (forecast.mean, forecast.lower, forecast.upper)) + (sd * scale,)

    @property
    def likelihood(self) -> Any:
        return self.split.likelihoods[self.target]

    def sample(self, modality: str, *, n_samples: int, mdata: MuData, indices: list[str], scale: str) -> np.ndarray:
        mean, _, _, sd = self._found(mdata, indices)
        return (mean + sd * np.random.default_rng(0).normal(size=(n_samples, *mean.shape))).astype(np.float32)

    def impute(self, modality: str, *, mdata: MuData, indices: list[str], level: float) -> AnnData:
        mean, lower, upper, _ = self._found(mdata, indices)
        return AnnData(mean, layers={"lower": lower, "upper": upper})


def test_a_model_that_predicts_what_ridge_predicts_has_its_scores() -> None:
    split = split_of(prepared(build(missing=0.0)))  # complete, so that one sd serves all rows
    FromRidge.split = split
    samples = split.usable(split.test, "rna")
    model = ModelContender(FromRidge, SETUP, {}, {}, {}, 0)  # type: ignore[arg-type]
    model.fit(split)
    ours = _benchmark._score(model.predict(split, "rna", samples), split, "rna", samples)
    ridge = BaselineContender(RidgeBaseline).predict(split, "rna", samples)
    theirs = _benchmark._score(ridge, split, "rna", samples)
    for name in ("r2", "spearman", "mae", "coverage90", "width90"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name
    # 400 draws, 40 x 12 values; the normal sd differs a little from the interval's
    assert ours["crps"] == pytest.approx(theirs["crps"], rel=0.02)


class Oracle(Spy):
    """Knows the hidden counts up to their library size, which it doubles."""

    truth: MuData
    target = "mirna"

    def sample(self, modality: str, *, n_samples: int, mdata: MuData, indices: list[str], scale: str) -> np.ndarray:
        return np.repeat(2 * self.truth[self.target][indices].X[None], n_samples, axis=0).astype(np.float32)

    def impute(self, modality: str, *, mdata: MuData, indices: list[str], level: float) -> AnnData:
        x = np.asarray(self.truth[self.target][indices].X, dtype=np.float32)
        return AnnData(x, layers={"lower": x, "upper": x + 1})


def test_counts_are_compared_apart_from_their_library_size(cohort: MuData) -> None:
    split = split_of(cohort)
    Oracle.truth = cohort
    samples = split.usable(split.test, "mirna")
    model = ModelContender(Oracle, SETUP, {}, {}, {}, 0)  # type: ignore[arg-type]
    model.fit(split)
    forecast = model.predict(split, "mirna", samples)
    np.testing.assert_allclose(forecast.mean, split.truth("mirna", samples), atol=1e-4)
    np.testing.assert_allclose(forecast.crps, 0, atol=1e-4)
    found = _benchmark._score(forecast, split, "mirna", samples)
    assert found["coverage90"] == 1.0
    assert found["r2"] == pytest.approx(1.0)


def test_methylation_levels_are_read_as_often_as_training_samples(cohort: MuData) -> None:
    # Logits of a level of one half read n times have a variance of 4 / n.
    split = split_of(cohort)
    likelihood = split.likelihoods["meth"]
    n = 400.0
    training = Observed(torch.zeros(5, 8), None, torch.full((5, 8), n))
    draws = as_measured(likelihood, torch.full((2000, 1, 8), 0.5), training, at_median=False, seed=0)
    logits = draws * likelihood.input_scale.numpy() + likelihood.input_mean.numpy()
    np.testing.assert_allclose(logits.var(), 4 / n, rtol=0.05)
    np.testing.assert_allclose(logits.mean(), 0, atol=0.01)


# ---------------------------------------------------------------------- missing sources


def test_samples_are_predicted_from_what_they_have(cohort: MuData) -> None:
    split = split_of(cohort)
    samples = split.usable(split.test, "rna")
    found = BaselineContender(RidgeBaseline).predict(split, "rna", samples).mean
    for rows, sources in split.by_sources(samples, "rna"):
        train = split.having(split.train, [*sources, "rna"])
        direct = RidgeBaseline().fit(split.concatenated(sources, train), split.features("rna", train))
        expected = direct.predict(split.concatenated(sources, samples[rows])).mean + split.fixed("rna", samples[rows])
        np.testing.assert_allclose(found[rows], expected, rtol=1e-5, atol=1e-6)


def test_too_few_training_samples_fall_back_to_fewer_sources_and_to_the_mean(
    cohort: MuData, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, contender = split_of(cohort), BaselineContender(RidgeBaseline)
    both, single = (len(split.having(split.train, [*s, "rna"])) for s in (("mirna", "meth"), ("mirna",)))
    assert both < single
    for least, expected in ((both, {"mirna", "meth"}), (both + 1, None), (10**6, set())):
        monkeypatch.setattr("omicvae.tl._contenders.LEAST_ROWS", least)
        found = set(contender._sources(split, "rna", ("mirna", "meth")))
        assert found == expected if expected is not None else len(found) == 1
    samples = split.usable(split.test, "rna")
    mean = contender.predict(split, "rna", samples).mean
    np.testing.assert_allclose(mean, split.fixed("rna", samples), atol=0.05)  # the mean of residuals is about 0


def test_batch_effects_are_known_to_regressions() -> None:
    mdata = build()
    shift = np.where(
        mdata["rna"].obs_names.isin(mdata.obs_names[mdata.obs["batch"] == mdata.obs["batch"].iloc[0]]), 8, 0
    )
    mdata["rna"].X = mdata["rna"].X + shift[:, None]
    with_batch = benchmark(prepared(mdata), ["mean"], targets=["rna"], n_splits=3)
    CoVAE.setup_mudata(mdata, **{**SETUP, "batch_key": None})
    without = benchmark(mdata, ["mean"], targets=["rna"], n_splits=3)
    of_mean = [t.loc[t["model"] == "mean", "r2"].mean() for t in (with_batch, without)]
    assert of_mean[0] > 0.7  # the shift is most of the variance
    assert of_mean[1] < 0.1


# ---------------------------------------------------------------------- models, failures


def test_a_model_is_trained_and_scored_beside_ridge(cohort: MuData) -> None:
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), scvi.settings.seed
    registered = set(MMVAEPlusPlus._setup_adata_manager_store)
    table = benchmark(
        cohort,
        ["MMVAEPlusPlus"],
        targets=["mirna", "meth"],
        n_splits=2,
        model_kwargs={"MMVAEPlusPlus": {"n_shared": 2, "network": {"n_hidden": 8, "n_layers": 1}}},
        train_kwargs={"max_epochs": 2, "accelerator": "cpu"},
    )
    assert list(dict.fromkeys(table["model"])) == ["ridge", "MMVAEPlusPlus"]  # the reference was added
    assert table.drop(columns="spearman").notna().all().all()
    assert (table["crps"] < 2).all()
    assert torch.equal(state[0], torch.get_rng_state())
    np.testing.assert_array_equal(state[1], np.random.get_state()[1])
    assert scvi.settings.seed == state[2]
    assert set(MMVAEPlusPlus._setup_adata_manager_store) <= registered  # the parts of the splits are forgotten


def test_covae_is_not_worse_than_ridge_on_linear_data() -> None:
    mdata = correlated_gaussian(150, modalities=["a", "b"], n_latent=4, n_vars=25, rho=0.8, seed=0).mdata
    CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    table = benchmark(mdata, ["CoVAE"], n_splits=2, targets=["a"], model_kwargs={"CoVAE": {"backbone": "moments"}})
    covae = table[table["model"] == "CoVAE"]
    assert covae["crps_relative_to_ridge"].mean() < 1.05
    assert covae["coverage90"].mean() == pytest.approx(0.9, abs=0.06)


def test_a_failure_is_a_row_of_nan_and_a_warning(cohort: MuData) -> None:
    with pytest.warns(UserWarning, match="MMVAEPlusPlus could not be fitted in split 1: ValueError: n_shared must be"):
        table = benchmark(
            cohort, ["knn", "MMVAEPlusPlus"], n_splits=2, model_kwargs={"MMVAEPlusPlus": {"n_shared": -1}}
        )
    failed = table["model"] == "MMVAEPlusPlus"
    assert table.loc[failed, ["crps", "crps_relative_to_ridge", "coverage90", "seconds"]].isna().all().all()
    assert table.loc[failed, "n_test"].gt(0).all()
    assert table.loc[~failed, "crps"].notna().all()


def test_a_baseline_that_fails_fails_alone(cohort: MuData, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise MemoryError("too large")

    monkeypatch.setitem(BASELINES, "knn", broken)
    with pytest.warns(UserWarning, match="knn could not predict 'rna' in split 0: MemoryError: too large"):
        table = benchmark(cohort, ["knn"], n_splits=2, targets=["rna"])
    assert table.set_index("model")["crps"].isna().to_dict() == {"ridge": False, "knn": True}


def test_a_target_nobody_can_be_scored_on_has_nan() -> None:
    mdata = build(40, missing=0.0)
    only = mdata.obs_names[:3]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        other = MuData({"rna": mdata["rna"].copy(), "mirna": mdata["mirna"][only].copy(), "meth": mdata["meth"].copy()})
    other.obs["batch"] = mdata.obs["batch"].reindex(other.obs_names)
    table = benchmark(prepared(other), ["mean", "ridge"], n_splits=5, targets=["mirna"])
    empty = table["n_test"] == 0
    assert empty.any()
    assert table.loc[empty, "crps"].isna().all()
    assert table.loc[~empty, "crps"].notna().all()


@pytest.fixture
def without_mofa(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def missing(*_: Any, **__: Any) -> Any:
        raise ImportError("MOFA+ needs the package mofapy2: pip install mofapy2")

    monkeypatch.setattr("omicvae.tl._benchmark_methods.find_spec", lambda name: None)
    monkeypatch.setattr("omicvae.stats.baselines._mofa._entry_point", missing)
    yield


def test_the_default_list_holds_what_is_there(cohort: MuData, without_mofa: None) -> None:
    names = resolve_names(None, with_groups=True)
    classes = [n for n in ("ProbabilisticCCA", "CoVAE", "MMVAEPlusPlus") if n in omicvae.model.__all__]
    assert names == [*REGRESSIONS, *classes]
    assert "group_mean" not in resolve_names(None, with_groups=False)
    with pytest.raises(ImportError, match="pip install mofapy2"):
        benchmark(cohort, ["mofa"])


@pytest.mark.slow
def test_mofa_takes_part_where_it_is_installed(cohort: MuData) -> None:
    pytest.importorskip("mofapy2")
    table = benchmark(cohort, ["mofa"], n_splits=2, targets=["rna"])
    assert (table.loc[table["model"] == "mofa", "crps_relative_to_ridge"] < 1.3).all()


def test_wrong_arguments_are_named(cohort: MuData) -> None:
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (ValueError, "there is no 'rigde'.* Did you mean 'ridge'", {"models": ["rigde"]}),
        (TypeError, r"models must be a list.*write models=\['ridge'\]", {"models": "ridge"}),
        (ValueError, "'group_mean' needs groups: .*groupby=", {"models": ["group_mean"]}),
        (ValueError, "groupby='subtyp' .* Did you mean 'subtype'", {"groupby": "subtyp"}),
        (ValueError, "targets names 'protein', which is not registered", {"targets": ["protein"]}),
        (TypeError, "given must be a list of modalities", {"given": "rna"}),
        (ValueError, "given is empty", {"given": []}),
        (ValueError, "'rna' would be predicted from itself alone", {"targets": ["rna"], "given": ["rna"]}),
        (ValueError, "n_splits", {"n_splits": 1}),
        (ValueError, "model_kwargs names 'Covae'", {"models": ["CoVAE"], "model_kwargs": {"Covae": {}}}),
        (TypeError, "train_kwargs must be a mapping", {"models": ["CoVAE"], "train_kwargs": [1]}),
    ]
    for error, message, arguments in cases:
        with pytest.raises(error, match=message):
            benchmark(cohort, **arguments)
    with pytest.raises(TypeError, match="expects a MuData, got AnnData"):
        benchmark(cohort["rna"])
    with pytest.raises(ValueError, match=r"not registered.*setup_mudata"):
        benchmark(build(40))
    with pytest.raises(ValueError, match="a copy has to be registered again"):
        benchmark(cohort.copy())


def test_the_most_recent_setup_counts() -> None:
    mdata = build(40)
    CoVAE.setup_mudata(mdata, **SETUP)
    MMVAEPlusPlus.setup_mudata(mdata, modalities=["rna", "mirna"], likelihoods={"rna": "normal", "mirna": "poisson"})
    assert registered_setup(mdata)["setup_args"]["modalities"] == ["rna", "mirna"]
    CoVAE.setup_mudata(mdata, **SETUP)
    assert registered_setup(mdata)["setup_args"]["modalities"] == ["rna", "mirna", "meth"]


def test_the_data_are_left_as_they_are(cohort: MuData, table: pd.DataFrame) -> None:
    fresh = build()
    for m in fresh.mod:
        np.testing.assert_array_equal(cohort[m].X, fresh[m].X)
        pd.testing.assert_frame_equal(cohort[m].obs, fresh[m].obs)
    assert set(cohort.obs.columns) == set(fresh.obs.columns)


def test_random_states_come_back_after_an_error() -> None:
    before = torch.get_rng_state()
    with pytest.raises(KeyError), quietly(3):
        torch.rand(3)
        raise KeyError
    assert torch.equal(before, torch.get_rng_state())
