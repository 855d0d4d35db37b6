"""Every mistake that can be seen in the data is refused before training, in a sentence that says what to do."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from omicvae.model import CoVAE, MMVAEPlusPlus

LIKELIHOODS = {"rna": "nb", "meth": "beta", "atac": "bernoulli", "prot": "normal"}
N = 12


def adata(x: np.ndarray, name: str, start: int = 0) -> AnnData:
    obs = pd.DataFrame(index=[f"s{i + start:02d}" for i in range(len(x))])
    return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"{name}{j}" for j in range(x.shape[1])]))


@pytest.fixture
def mdata() -> MuData:
    """Four assays of about twelve samples; protein lacks the first two."""
    rng = np.random.default_rng(0)
    mdata = MuData(
        {
            "rna": adata(rng.poisson(5, (N, 8)), "g"),
            "meth": adata(rng.uniform(0.05, 0.95, (N, 6)), "cg"),
            "atac": adata(rng.integers(0, 2, (N, 5)), "peak"),
            "prot": adata(rng.normal(size=(N - 2, 4)), "p", start=2),
        }
    )
    mdata["atac"].X[0], mdata["atac"].X[1:, 0] = [1, 0, 1, 0, 1], 0  # no peak is constant, no sample empty
    mdata["atac"].X[1:, 1] = 1
    mdata.obs["center"] = list("AABBAABBAABB")
    mdata.obs["age"] = np.linspace(40, 70, N)
    return mdata


def refused(mdata: Any, *words: str, error: type[Exception] = ValueError, **arguments: Any) -> str:
    """Set up and read the message: one paragraph that holds all of ``words``."""
    arguments = {"likelihoods": LIKELIHOODS} | arguments
    with pytest.raises(error) as caught:
        CoVAE.setup_mudata(mdata, **arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 500
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"
    return message


def follow(message: str, pattern: str, mdata: MuData) -> None:
    """Do what the message says: run the code that it proposes."""
    cure = re.search(pattern, message)
    assert cure is not None, message
    exec(cure.group(1), {"mdata": mdata, "np": np, "pd": pd})


def accepted(mdata: MuData, **arguments: Any) -> CoVAE:
    CoVAE.setup_mudata(mdata, **{"likelihoods": LIKELIHOODS} | arguments)
    return CoVAE(mdata)


def test_the_cohort_itself_is_fine(mdata: MuData) -> None:
    assert accepted(mdata, batch_key="center").modalities == ("rna", "meth", "atac", "prot")


class TestModalities:
    def test_none_or_one(self, mdata: MuData) -> None:
        refused(mdata, "at least two modalities", "got ['rna']", "scvi.model.SCVI", modalities=["rna"])
        refused(mdata, "at least two modalities", "got []", modalities=[])
        refused(MuData({"rna": mdata["rna"].copy()}), "at least two", "['rna']", likelihoods={"rna": "nb"})

    def test_unknown_or_repeated(self, mdata: MuData) -> None:
        refused(mdata, "'rnaa' is not in the MuData", "Did you mean 'rna'?", modalities=["rnaa", "prot"])
        refused(mdata, "named twice", modalities=["rna", "rna"])

    def test_wrong_types(self, mdata: MuData) -> None:
        refused(mdata["rna"], "AnnData", "mudata.MuData({", error=TypeError)
        refused({"rna": mdata["rna"]}, "got dict", error=TypeError)
        refused(mdata, "got the text 'rna'; write ['rna', ...]", error=TypeError, modalities="rna")
        with pytest.raises(TypeError, match=r"needs several modalities.*CoVAE.setup_mudata"):
            CoVAE.setup_anndata(mdata["rna"])
        with pytest.raises(TypeError, match="CoVAE takes a MuData, got AnnData"):
            CoVAE(mdata["rna"])

    def test_a_view(self, mdata: MuData) -> None:
        assert "mdata = mdata.copy()" in refused(mdata[:10], "view")
        accepted(mdata[:10].copy())

    def test_modalities_that_share_features_instead_of_samples(self, mdata: MuData) -> None:
        parts = {"a": mdata["rna"][:6].copy(), "b": mdata["rna"][6:].copy()}
        refused(MuData(parts, axis=1), "must share observations (axis=0)", "axis=1", likelihoods=None)

    @pytest.mark.parametrize("n", [0, 1])
    def test_fewer_than_two_samples(self, mdata: MuData, n: int) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"] = mods["prot"][:n].copy()
        refused(MuData(mods), "'prot'", f"has {n} samples", "at least 2", "Leave it out")

    def test_no_features(self, mdata: MuData) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"] = mods["prot"][:, :0].copy()
        refused(MuData(mods), "'prot' has no features", "Leave it out")

    def test_no_overlap_at_all(self, mdata: MuData) -> None:
        apart = MuData({"rna": mdata["rna"].copy(), "prot": adata(np.zeros((5, 4)), "p", start=50)})
        refused(
            apart, "no sample has more than one", "['rna', 'prot']", "rna: 's00'", "prot: 's50'", "TCGA",
            likelihoods=None,
        )  # fmt: skip

    def test_a_modality_whose_names_match_no_other(self, mdata: MuData) -> None:
        """The others overlap, so that nothing else would look wrong; its imputations would be empty of meaning."""
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"].obs_names = [f"patient-{name}" for name in mods["prot"].obs_names]
        wrong = MuData(mods)
        refused(wrong, "nothing links", "['prot']", "prot: 'patient-s02'", "modalities=")
        accepted(wrong, modalities=["rna", "meth", "atac"], likelihoods={"rna": "nb"})

    def test_two_that_were_never_measured_together_are_only_warned_of(
        self, mdata: MuData, caplog: pytest.LogCaptureFixture
    ) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["meth"], mods["prot"] = mods["meth"][:5].copy(), mods["prot"][5:].copy()
        with caplog.at_level(logging.INFO, "omicvae"):
            accepted(MuData(mods))
        assert "never measured together" in caplog.text and "'meth/prot'" in caplog.text
        assert "samples by assays measured: rna+atac+prot: 5, rna+meth+atac: 5, rna+atac: 2" in caplog.text


class TestNames:
    @pytest.mark.parametrize("axis", ["obs", "var"])
    def test_that_repeat(self, mdata: MuData, axis: str) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        names = list(getattr(mods["rna"], f"{axis}_names"))
        setattr(mods["rna"], f"{axis}_names", [names[2], names[1], names[2], *names[3:]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # mudata warns as well
            wrong = MuData(mods)
        cure = f"mdata['rna'].{axis}_names_make_unique()"
        refused(wrong, f"{axis}_names", "not unique", "1 names repeat", f"'{names[2]}'")
        if axis == "var":
            refused(wrong, "modality 'rna'", cure)
            wrong["rna"].var_names_make_unique()
            wrong.update()
            accepted(wrong)

    def test_samples_unknown_to_the_mudata(self, mdata: MuData) -> None:
        names = mdata["prot"].obs_names.to_list()
        mdata["prot"].obs_names = [*names[:7], "x1", "x2", "x3"]
        refused(mdata, "3 samples of modality 'prot'", "'x1', 'x2', 'x3'", "call mdata.update()")
        mdata.update()
        accepted(mdata)


class TestValues:
    @pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
    @pytest.mark.parametrize(("wrong", "word"), [(-1.0, "negative"), (0.5, "fractional")])
    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
    def test_of_counts(self, mdata: MuData, likelihood: str, wrong: float, word: str, to: Callable) -> None:
        mdata["rna"].X[3, 5] = mdata["rna"].X[4, 2] = wrong
        mdata["rna"].X = to(mdata["rna"].X)
        message = refused(
            mdata, "modality 'rna'", "2 values are", word, "g2, g5", "layers={'rna': 'counts'}", f"The {likelihood} ",
            likelihoods=LIKELIHOODS | {"rna": likelihood},
        )  # fmt: skip
        assert "likelihoods={'rna': 'normal'}" in message
        accepted(mdata, likelihoods=LIKELIHOODS | {"rna": "normal"})

    def test_of_counts_that_are_missing(self, mdata: MuData) -> None:
        mdata["rna"].X[1, 3] = np.nan
        refused(mdata, "modality 'rna'", "1 value is NaN", "g3", "drop them from mdata['rna']")

    def test_of_proportions(self, mdata: MuData) -> None:
        mdata["meth"].X[0, 1], mdata["meth"].X[2, 4], mdata["meth"].X[5, 4] = -0.01, 1.5, 3.0
        refused(mdata, "modality 'meth'", "3 values are outside [0, 1]", "cg1, cg4", "likelihoods={'meth': 'normal'}")

    def test_of_proportions_that_are_exactly_0_or_1_are_squeezed(
        self, mdata: MuData, caplog: pytest.LogCaptureFixture
    ) -> None:
        mdata["meth"].X[0, :2] = 0, 1
        mdata["meth"].X[1, 3] = np.nan
        with caplog.at_level(logging.INFO, "omicvae"):
            accepted(mdata)
        assert "modality 'meth': 2 values are exactly 0 or 1 and are squeezed to 0.0001" in caplog.text

    def test_of_a_bernoulli(self, mdata: MuData) -> None:
        mdata["atac"].X[0, 2] = 4
        message = refused(mdata, "modality 'atac'", "1 value is neither 0 nor 1", "peak2", "layers={'atac': 'binary'}")
        follow(message, r"(mdata\['atac'\]\.layers\['binary'\] = .*?\)\.astype\('float32'\))", mdata=mdata)
        accepted(mdata, layers={"atac": "binary"})

    @pytest.mark.parametrize("modality", list(LIKELIHOODS))
    def test_that_are_infinite(self, mdata: MuData, modality: str) -> None:
        mdata[modality].X[2, 1] = -np.inf
        feature = mdata[modality].var_names[1]
        refused(mdata, f"modality {modality!r}", "1 value is infinite", feature, "NaN")

    def test_constant_and_empty_features_are_warned_of_and_listed(
        self, mdata: MuData, caplog: pytest.LogCaptureFixture
    ) -> None:
        mdata["prot"].X[:, 1], mdata["prot"].X[:, 2] = 3.0, np.nan
        mdata["rna"].X[:, [0, 4]] = 7
        with caplog.at_level(logging.WARNING, "omicvae"):
            accepted(mdata)
        assert "modality 'prot': 1 feature is without any value (p2)" in caplog.text
        assert "modality 'prot': 1 feature is constant (p1)" in caplog.text
        assert "modality 'rna': 2 features are constant (g0, g4)" in caplog.text

    def test_that_are_not_numbers(self, mdata: MuData) -> None:
        mdata["prot"].X = mdata["prot"].X.astype(object)
        refused(mdata, "modality 'prot'", "dtype object", "astype('float32')", error=TypeError)

    def test_that_are_not_there(self, mdata: MuData) -> None:
        mdata["prot"].layers["z"] = mdata["prot"].X
        mdata["prot"].X = None
        refused(mdata, "modality 'prot' has no .X", "layers={'prot': ...}")
        accepted(mdata, layers={"prot": "z"})

    @pytest.mark.parametrize("layer", [None, "z"])
    def test_samples_padded_with_nan_are_not_measured(self, mdata: MuData, layer: str | None) -> None:
        """The encoder would take them for samples at the mean of every feature, and be sure of it."""
        mdata["prot"].X[[1, 4]] = np.nan
        mdata["prot"].X[0, 0] = np.nan
        if layer is not None:
            mdata["prot"].layers[layer], mdata["prot"].X = mdata["prot"].X.copy(), np.zeros_like(mdata["prot"].X)
        layers = {"prot": layer}
        message = refused(mdata, "modality 'prot'", "2 samples have no value at all", "'s03', 's06'", layers=layers)
        follow(message, r"with (mdata\.mod.*mdata\.update\(\))\.", mdata=mdata)
        accepted(mdata, layers=layers)
        assert mdata["prot"].n_obs == 8 and mdata.n_obs == 12

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
    @pytest.mark.parametrize("modality", ["rna", "atac"])
    def test_samples_padded_with_zeros_are_warned_of(
        self, mdata: MuData, caplog: pytest.LogCaptureFixture, to: Callable, modality: str
    ) -> None:
        mdata[modality].X[[2, 7]] = 0
        mdata[modality].X[:2, :] = 1
        mdata["prot"].X[3] = 0  # an ordinary value of a continuous assay
        mdata[modality].X = to(mdata[modality].X)
        with caplog.at_level(logging.WARNING, "omicvae"):
            accepted(mdata)
        (warned,) = (r.getMessage() for r in caplog.records if "nothing but zeros" in r.getMessage())
        assert f"modality {modality!r}: 2 samples hold nothing but zeros ('s02', 's07')" in warned

    def test_only_the_first_of_many_are_listed(self, mdata: MuData) -> None:
        mdata["rna"].X[:] = -1
        assert "g5" not in refused(mdata, "96 values are negative", "g0, g1, g2, g3, g4")


class TestMethylatedReads:
    @pytest.fixture
    def reads(self, mdata: MuData) -> MuData:
        rng = np.random.default_rng(1)
        coverage = rng.poisson(10, (N, 6)).astype(np.float32)
        mdata["meth"].X = rng.binomial(coverage.astype(int), 0.4).astype(np.float32)
        mdata["meth"].layers["coverage"] = coverage
        return mdata

    ARGUMENTS = {"likelihoods": LIKELIHOODS | {"meth": "betabinomial"}, "coverage_layers": {"meth": "coverage"}}

    def test_are_fine_with_their_coverage_and_refused_without(self, reads: MuData) -> None:
        accepted(reads, **self.ARGUMENTS)
        likelihoods = {m: name for m, name in LIKELIHOODS.items() if m != "meth"}
        registry = accepted(reads, likelihoods=likelihoods, coverage_layers={"meth": "coverage"}).registry
        assert registry["setup_args"]["likelihoods"]["meth"] == "betabinomial"
        refused(
            reads, "'meth'", "needs the coverage", "coverage_layers={'meth': 'coverage'}",
            likelihoods=self.ARGUMENTS["likelihoods"],
        )  # fmt: skip

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix])
    def test_more_than_their_coverage_in_a_single_place(self, reads: MuData, to: Callable) -> None:
        reads["meth"].layers["coverage"][4, 3] = 2
        reads["meth"].X[4, 3] = 3
        reads["meth"].X = to(reads["meth"].X)
        refused(reads, "modality 'meth'", "1 value is larger than their coverage", "cg3", "exchanged", **self.ARGUMENTS)

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix])
    def test_samples_without_a_single_read(self, reads: MuData, to: Callable) -> None:
        meth = reads["meth"]
        meth.X[5] = meth.layers["coverage"][5] = 0
        meth.X, meth.layers["coverage"] = to(meth.X), to(meth.layers["coverage"])
        message = refused(reads, "'meth': 1 samples have no value at all", "'s05'", **self.ARGUMENTS)
        follow(message, r"with (mdata\.mod.*mdata\.update\(\))\.", mdata=reads)
        accepted(reads, **self.ARGUMENTS)
        assert reads["meth"].n_obs == N - 1

    def test_fractions_of_reads(self, reads: MuData) -> None:
        reads["meth"].X = reads["meth"].X / 20
        refused(reads, "modality 'meth'", "fractional", **self.ARGUMENTS)

    def test_a_coverage_that_is_not_used(self, mdata: MuData) -> None:
        mdata["rna"].layers["n"] = mdata["rna"].X.copy()
        refused(
            mdata, "coverage_layers names modality 'rna'", "'nb' does not use it", "leave it out",
            coverage_layers={"rna": "n"},
        )  # fmt: skip


class TestMappings:
    def test_unknown_names_propose_the_nearest(self, mdata: MuData) -> None:
        mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
        mdata["rna"].obs["depth"] = 1.0
        refused(mdata, "modality 'rna'", "no layer 'count'", "Did you mean 'counts'?", layers={"rna": "count"})
        refused(mdata, "no layer 'count'", "Did you mean 'counts'?", coverage_layers={"rna": "count"})
        refused(mdata, "modality 'rna'", "'nbb'", "Did you mean 'nb'?", likelihoods={"rna": "nbb"})
        refused(mdata, "'Normal'", "Did you mean 'normal'?", likelihoods={"prot": "Normal"})
        for argument in ("likelihoods", "layers", "coverage_layers", "size_factor_keys", "batch_key"):
            refused(mdata, argument, "'rnaa'", "Did you mean 'rna'?", **{argument: {"rnaa": "x"}})
        refused(mdata, "size_factor_keys='dept'", "mdata['rna'].obs", "'depth'?", size_factor_keys={"rna": "dept"})

    @pytest.mark.parametrize("argument", ["likelihoods", "layers", "coverage_layers", "size_factor_keys"])
    @pytest.mark.parametrize("value", ["nb", ["nb"], 3])
    def test_wrong_types(self, mdata: MuData, argument: str, value: Any) -> None:
        refused(mdata, argument, "must be a mapping", "{'rna': ...}", error=TypeError, **{argument: value})

    def test_a_likelihood_that_is_not_a_name(self, mdata: MuData) -> None:
        refused(mdata, "'rna'", "got ['nb']", error=TypeError, likelihoods={"rna": ["nb"]})

    def test_none_means_the_default(self, mdata: MuData) -> None:
        model = accepted(mdata, layers={"rna": None}, likelihoods=LIKELIHOODS | {"prot": None})
        assert model.registry["setup_args"]["layers"] == {}
        assert model.registry["setup_args"]["likelihoods"]["prot"] == "normal"

    @pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
    def test_size_factors(self, mdata: MuData, wrong: float) -> None:
        depth = np.ones(N)
        mdata["rna"].obs["depth"] = depth
        accepted(mdata, size_factor_keys={"rna": "depth"})
        depth[3] = wrong
        mdata["rna"].obs["depth"] = depth
        refused(mdata, "size factor 'depth'", "'rna'", "'s03'", size_factor_keys={"rna": "depth"})

    def test_size_factors_that_are_not_used(self, mdata: MuData) -> None:
        mdata["prot"].obs["depth"] = 1.0
        refused(
            mdata, "size_factor_keys names modality 'prot'", "'normal' does not use it",
            size_factor_keys={"prot": "depth"},
        )  # fmt: skip


class TestCovariates:
    ARGUMENTS = ("batch_key", "labels_key", "categorical_covariate_keys", "continuous_covariate_keys")

    def named(self, argument: str, column: str) -> dict[str, Any]:
        return {argument: [column] if argument.endswith("covariate_keys") else column}

    @pytest.mark.parametrize("argument", ARGUMENTS)
    def test_unknown_columns_propose_the_nearest(self, mdata: MuData, argument: str) -> None:
        refused(
            mdata, f"{argument}='cente'", "not in mdata.obs", "Did you mean 'center'?", **self.named(argument, "cente")
        )

    @pytest.mark.parametrize("argument", ARGUMENTS)
    @pytest.mark.parametrize("holders", [["rna"], ["rna", "prot"], list(LIKELIHOODS)])
    def test_columns_of_modalities_are_found_and_the_cure_works(
        self, mdata: MuData, argument: str, holders: list[str]
    ) -> None:
        for m in holders:
            mdata[m].obs["run"] = [int(s[1:]) % 3 for s in mdata[m].obs_names]
        message = refused(
            mdata, f"{argument}='run'", "not in mdata.obs but in", repr(holders[0]), **self.named(argument, "run")
        )
        assert ("batch_key={'rna': 'run'}" in message) == (argument == "batch_key")
        follow(message, r"Call (.*) first", mdata=mdata)
        registry = accepted(mdata, **self.named(argument, "run")).registry
        if argument != "continuous_covariate_keys":
            (found,) = (
                field["state_registry"]["categorical_mapping"]
                for field in registry["field_registries"].values()
                if "categorical_mapping" in field["state_registry"]
            )
            assert list(found) == ["0", "1", "2"]

    def test_a_batch_of_one_modality(self, mdata: MuData) -> None:
        mdata["prot"].obs["run"] = "a"
        accepted(mdata, batch_key={"prot": "run"})
        refused(mdata, "batch_key='ran'", "mdata['prot'].obs", "Did you mean 'run'?", batch_key={"prot": "ran"})

    @pytest.mark.parametrize("argument", ARGUMENTS[:2])
    def test_wrong_types_of_names(self, mdata: MuData, argument: str) -> None:
        refused(mdata, argument, "name of a column", "['center']", error=TypeError, **{argument: ["center"]})

    @pytest.mark.parametrize("argument", ARGUMENTS[2:])
    @pytest.mark.parametrize("value", ["center", {"rna": "center"}, 3])
    def test_wrong_types_of_lists(self, mdata: MuData, argument: str, value: Any) -> None:
        refused(mdata, argument, "must be a list of columns", repr(value), error=TypeError, **{argument: value})

    @pytest.mark.parametrize("make", [list, tuple, np.array, pd.Index])
    def test_any_sequence_of_names_is_a_list(self, mdata: MuData, make: Callable) -> None:
        model = accepted(mdata, categorical_covariate_keys=make(["center"]), continuous_covariate_keys=make(["age"]))
        assert model.registry["setup_args"]["categorical_covariate_keys"] == ["center"]
        assert model.registry["setup_args"]["continuous_covariate_keys"] == ["age"]
        refused(
            mdata, "categorical_covariate_keys", "'center' more than once", categorical_covariate_keys=["center"] * 2
        )

    @pytest.mark.parametrize("argument", ARGUMENTS)
    def test_columns_without_any_value(self, mdata: MuData, argument: str) -> None:
        mdata.obs["empty"] = np.nan
        refused(mdata, "'empty'", "missing in all 12 samples", "Leave it out", **self.named(argument, "empty"))

    def test_continuous_columns_that_are_not(self, mdata: MuData) -> None:
        refused(mdata, "'center'", "object", "categorical_covariate_keys", continuous_covariate_keys=["center"])
        mdata.obs.loc[["s01", "s04"], "age"] = np.inf
        refused(mdata, "'age' is infinite in 2 samples", "'s01', 's04'", "NaN", continuous_covariate_keys=["age"])


class TestSetupOfADifferentModel:
    def test_before_any_setup(self, mdata: MuData) -> None:
        with pytest.raises(ValueError, match="set up"):
            CoVAE(mdata)

    def test_of_another_class(self, mdata: MuData) -> None:
        MMVAEPlusPlus.setup_mudata(mdata, likelihoods=LIKELIHOODS)
        with pytest.raises(ValueError, match="set up"):
            CoVAE(mdata)


class TestSideEffects:
    @pytest.mark.parametrize("to", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix])
    def test_only_identifiers_in_uns_are_written(self, mdata: MuData, to: Callable) -> None:
        for m, a in mdata.mod.items():
            a.X = to(a.X)
            a.layers["copy"] = a.X.copy()
            a.uns["units"] = "x"
            a.obs["run"] = pd.Categorical(["b", "a"] * (a.n_obs // 2))
            mdata.uns[m] = 1
        mdata.obs["center"] = mdata.obs["center"].astype("category")
        before, obs, stored = mdata.copy(), mdata.obs.copy(), {m: a.X for m, a in mdata.mod.items()}
        accepted(
            mdata, batch_key={"rna": "run"}, labels_key="center", categorical_covariate_keys=["center"],
            continuous_covariate_keys=["age"],
        )  # fmt: skip
        added = set(mdata.uns) - set(before.uns)
        assert added == {"_scvi_uuid", "_scvi_manager_uuid"}
        pd.testing.assert_frame_equal(mdata.obs, obs)
        assert set(mdata.obsm) == set(before.obsm) and set(mdata.obsmap) == set(before.obsmap)
        for m, a in mdata.mod.items():
            assert a.X is stored[m] and a.X.dtype == np.float32
            pd.testing.assert_frame_equal(a.obs, before[m].obs)
            pd.testing.assert_frame_equal(a.var, before[m].var)
            assert dict(a.uns) == {"units": "x"} and not a.obsm.keys()
            for now, then in ((a.X, before[m].X), (a.layers["copy"], before[m].layers["copy"])):
                assert type(now) is type(then)
                dense = [v.toarray() if sparse.issparse(v) else v for v in (now, then)]
                np.testing.assert_array_equal(*dense)

    def test_a_refused_setup_writes_nothing(self, mdata: MuData) -> None:
        mdata["rna"].X[0, 0] = -1
        refused(mdata, "negative")
        assert mdata.uns == {}

    def test_the_users_arguments_are_left_alone(self, mdata: MuData) -> None:
        likelihoods, layers = {"rna": "nb"}, {"rna": None}
        CoVAE.setup_mudata(mdata, likelihoods=likelihoods, layers=layers)
        assert likelihoods == {"rna": "nb"} and layers == {"rna": None}


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("file", "outcome"),
    [
        ("mudata_v0.1.2_mdata_axis0", ["nb", "normal"]),
        ("mudata_v0.2.4_mdata_axis0", ["nb", "normal"]),
        ("mudata_v0.3.10_mdata_axis0", ["nb", "normal"]),
        ("mudata_v0.4.1_mdata_axis0", ["nb", "normal"]),
        ("muon_test_rna_atac_2020", ["nb", "nb"]),
        ("mudataR_0.99.0_miniacc", "no sample has more than one of the modalities"),
    ],
)
@pytest.mark.parametrize("backed", [False, True])
def test_files_of_other_programs_are_read_or_refused_in_a_sentence(
    data_dir: Path, file: str, outcome: list[str] | str, backed: bool
) -> None:
    path = data_dir / "io" / f"{file}.h5mu"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # mudata says that it did not write the file
        mdata = mudata.read_h5mu(path, backed="r" if backed else None)
    if isinstance(outcome, str):
        with pytest.raises(ValueError, match=outcome):
            CoVAE.setup_mudata(mdata)
        # its obs_names are barcodes of aliquots, which differ between assays: the message shows them
        patients = MuData({m: a[~a.obs_names.str[:12].duplicated()].to_memory() for m, a in mdata.mod.items()})
        for a in patients.mod.values():
            a.obs_names = a.obs_names.str[:12]
        CoVAE.setup_mudata(MuData(dict(patients.mod)))
        return
    CoVAE.setup_mudata(mdata)
    assert list(CoVAE(mdata).registry["setup_args"]["likelihoods"].values()) == outcome
