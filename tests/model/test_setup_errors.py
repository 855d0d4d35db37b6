"""Every mistake in the arguments or the shape of the data is refused before training, with what to do about it."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus


def test_the_cohort_itself_is_fine(mdata: MuData, check: Any) -> None:
    assert check.accepted(mdata, batch_key="center").modalities == ("rna", "meth", "atac", "prot")


class TestModalities:
    def test_none_or_one(self, mdata: MuData, check: Any) -> None:
        check.refused(mdata, "at least two modalities", "got ['rna']", "scvi.model.SCVI", modalities=["rna"])
        check.refused(mdata, "at least two modalities", "got []", modalities=[])
        check.refused(MuData({"rna": mdata["rna"].copy()}), "at least two", "['rna']", likelihoods={"rna": "nb"})

    def test_unknown_or_repeated(self, mdata: MuData, check: Any) -> None:
        check.refused(mdata, "'rnaa' is not in the MuData", "Did you mean 'rna'?", modalities=["rnaa", "prot"])
        check.refused(mdata, "named twice", modalities=["rna", "rna"])

    def test_wrong_types(self, mdata: MuData, check: Any) -> None:
        check.refused(mdata["rna"], "AnnData", "mudata.MuData({", error=TypeError)
        check.refused({"rna": mdata["rna"]}, "got dict", error=TypeError)
        check.refused(mdata, "got the text 'rna'; write ['rna', ...]", error=TypeError, modalities="rna")
        with pytest.raises(TypeError, match=r"needs several modalities.*CoVAE.setup_mudata"):
            CoVAE.setup_anndata(mdata["rna"])
        with pytest.raises(TypeError, match="CoVAE takes a MuData, got AnnData"):
            CoVAE(mdata["rna"])

    def test_a_view(self, mdata: MuData, check: Any) -> None:
        assert "mdata = mdata.copy()" in check.refused(mdata[:10], "view")
        check.accepted(mdata[:10].copy())

    def test_a_modality_that_is_a_view(self, mdata: MuData, check: Any) -> None:
        mdata.mod["prot"] = mdata["prot"][:8]
        message = check.refused(mdata, "modality 'prot' is a view")
        check.follow(message, r"call (.*) first", mdata=mdata)
        check.accepted(mdata)

    def test_modalities_that_share_features_instead_of_samples(self, mdata: MuData, check: Any) -> None:
        parts = {"a": mdata["rna"][:6].copy(), "b": mdata["rna"][6:].copy()}
        check.refused(MuData(parts, axis=1), "must share observations (axis=0)", "axis=1", likelihoods=None)

    @pytest.mark.parametrize("n", [0, 1])
    def test_fewer_than_two_samples(self, mdata: MuData, check: Any, n: int) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"] = mods["prot"][:n].copy()
        check.refused(MuData(mods), "'prot'", f"has {n} samples", "at least 2", "Leave it out")

    def test_no_features(self, mdata: MuData, check: Any) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"] = mods["prot"][:, :0].copy()
        check.refused(MuData(mods), "'prot' has no features", "Leave it out")

    def test_a_modality_that_is_itself_a_mudata(self, mdata: MuData, check: Any) -> None:
        inner = MuData({m: mdata[m].copy() for m in ("meth", "prot")})
        outer = MuData({"rna": mdata["rna"].copy(), "other": inner})
        check.refused(outer, "modality 'other' is itself a MuData", "'meth', 'prot'", likelihoods=None)
        check.accepted(
            MuData({**outer.mod, **outer["other"].mod}), modalities=["rna", "meth", "prot"], likelihoods={"rna": "nb"}
        )

    def test_no_overlap_at_all(self, mdata: MuData, check: Any) -> None:
        apart = MuData({"rna": mdata["rna"].copy(), "prot": check.adata(np.zeros((5, 4)), "p", start=50)})
        check.refused(
            apart, "no sample has more than one", "['rna', 'prot']", "rna: 's00'", "prot: 's50'", "TCGA",
            likelihoods=None,
        )  # fmt: skip

    def test_a_modality_whose_names_match_no_other(self, mdata: MuData, check: Any) -> None:
        """The others overlap, so that nothing else would look wrong; its imputations would be empty of meaning."""
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["prot"].obs_names = [f"patient-{name}" for name in mods["prot"].obs_names]
        wrong = MuData(mods)
        check.refused(wrong, "nothing links", "['prot']", "prot: 'patient-s02'", "modalities=")
        check.accepted(wrong, modalities=["rna", "meth", "atac"], likelihoods={"rna": "nb"})

    def test_two_that_were_never_measured_together_are_only_warned_of(
        self, mdata: MuData, check: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        mods["meth"], mods["prot"] = mods["meth"][:5].copy(), mods["prot"][5:].copy()
        with caplog.at_level(logging.INFO, "omicvae"):
            check.accepted(MuData(mods))
        assert "never measured together" in caplog.text and "'meth/prot'" in caplog.text
        assert "samples by assays measured: rna+atac+prot: 5, rna+meth+atac: 5, rna+atac: 2" in caplog.text


class TestNames:
    @pytest.mark.parametrize("axis", ["obs", "var"])
    def test_that_repeat(self, mdata: MuData, check: Any, axis: str) -> None:
        mods = {m: a.copy() for m, a in mdata.mod.items()}
        names = list(getattr(mods["rna"], f"{axis}_names"))
        setattr(mods["rna"], f"{axis}_names", [names[2], names[1], names[2], *names[3:]])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # mudata warns as well
            wrong = MuData(mods)
        cure = f"mdata['rna'].{axis}_names_make_unique()"
        check.refused(wrong, f"{axis}_names", "not unique", "1 names repeat", f"'{names[2]}'")
        if axis == "var":
            check.refused(wrong, "modality 'rna'", cure)
            wrong["rna"].var_names_make_unique()
            wrong.update()
            check.accepted(wrong)

    def test_samples_unknown_to_the_mudata(self, mdata: MuData, check: Any) -> None:
        names = mdata["prot"].obs_names.to_list()
        mdata["prot"].obs_names = [*names[:7], "x1", "x2", "x3"]
        check.refused(mdata, "3 samples of modality 'prot'", "'x1', 'x2', 'x3'", "call mdata.update()")
        mdata.update()
        check.accepted(mdata)


class TestMappings:
    def test_unknown_names_propose_the_nearest(self, mdata: MuData, check: Any) -> None:
        mdata["rna"].layers["counts"] = mdata["rna"].X.copy()
        mdata["rna"].obs["depth"] = 1.0
        check.refused(mdata, "modality 'rna'", "no layer 'count'", "Did you mean 'counts'?", layers={"rna": "count"})
        check.refused(mdata, "no layer 'count'", "Did you mean 'counts'?", coverage_layers={"rna": "count"})
        check.refused(mdata, "modality 'rna'", "'nbb'", "Did you mean 'nb'?", likelihoods={"rna": "nbb"})
        check.refused(mdata, "'Normal'", "Did you mean 'normal'?", likelihoods={"prot": "Normal"})
        for argument in ("likelihoods", "layers", "coverage_layers", "size_factor_keys", "batch_key"):
            check.refused(mdata, argument, "'rnaa'", "Did you mean 'rna'?", **{argument: {"rnaa": "x"}})
        check.refused(
            mdata, "size_factor_keys='dept'", "mdata['rna'].obs", "'depth'?", size_factor_keys={"rna": "dept"}
        )

    @pytest.mark.parametrize("argument", ["likelihoods", "layers", "coverage_layers", "size_factor_keys"])
    @pytest.mark.parametrize("value", ["nb", ["nb"], 3])
    def test_wrong_types(self, mdata: MuData, check: Any, argument: str, value: Any) -> None:
        check.refused(mdata, argument, "must be a mapping", "{'rna': ...}", error=TypeError, **{argument: value})

    def test_a_likelihood_that_is_not_a_name(self, mdata: MuData, check: Any) -> None:
        check.refused(mdata, "'rna'", "got ['nb']", error=TypeError, likelihoods={"rna": ["nb"]})

    def test_none_means_the_default(self, mdata: MuData, check: Any) -> None:
        model = check.accepted(mdata, layers={"rna": None}, likelihoods={"rna": "nb", "prot": None})
        assert model.registry["setup_args"]["layers"] == {}
        assert model.registry["setup_args"]["likelihoods"]["prot"] == "normal"

    @pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
    def test_size_factors(self, mdata: MuData, check: Any, wrong: float) -> None:
        depth = np.ones(12)
        mdata["rna"].obs["depth"] = depth
        check.accepted(mdata, size_factor_keys={"rna": "depth"})
        depth[3] = wrong
        mdata["rna"].obs["depth"] = depth
        check.refused(mdata, "size factor 'depth'", "'rna'", "'s03'", size_factor_keys={"rna": "depth"})

    def test_size_factors_that_are_not_used(self, mdata: MuData, check: Any) -> None:
        mdata["prot"].obs["depth"] = 1.0
        check.refused(
            mdata, "size_factor_keys names modality 'prot'", "'normal' does not use it",
            size_factor_keys={"prot": "depth"},
        )  # fmt: skip


class TestCovariates:
    ARGUMENTS = ("batch_key", "labels_key", "categorical_covariate_keys", "continuous_covariate_keys")

    def named(self, argument: str, column: str) -> dict[str, Any]:
        return {argument: [column] if argument.endswith("covariate_keys") else column}

    @pytest.mark.parametrize("argument", ARGUMENTS)
    def test_unknown_columns_propose_the_nearest(self, mdata: MuData, check: Any, argument: str) -> None:
        check.refused(
            mdata, f"{argument}='cente'", "not in mdata.obs", "Did you mean 'center'?", **self.named(argument, "cente")
        )

    @pytest.mark.parametrize("argument", ARGUMENTS)
    @pytest.mark.parametrize("holders", [["rna"], ["rna", "prot"], ["rna", "meth", "atac", "prot"]])
    def test_columns_of_modalities_are_found_and_the_cure_works(
        self, mdata: MuData, check: Any, argument: str, holders: list[str]
    ) -> None:
        for m in holders:
            mdata[m].obs["run"] = [int(s[1:]) % 3 for s in mdata[m].obs_names]
        message = check.refused(
            mdata, f"{argument}='run'", "not in mdata.obs but in", repr(holders[0]), **self.named(argument, "run")
        )
        assert ("batch_key={'rna': 'run'}" in message) == (argument == "batch_key")
        check.follow(message, r"Call (.*) first", mdata=mdata)
        registry = check.accepted(mdata, **self.named(argument, "run")).registry
        if argument != "continuous_covariate_keys":
            (found,) = (
                field["state_registry"]["categorical_mapping"]
                for field in registry["field_registries"].values()
                if "categorical_mapping" in field["state_registry"]
            )
            assert list(found) == ["0", "1", "2"]

    def test_a_batch_of_one_modality(self, mdata: MuData, check: Any) -> None:
        mdata["prot"].obs["run"] = "a"
        check.accepted(mdata, batch_key={"prot": "run"})
        check.refused(mdata, "batch_key='ran'", "mdata['prot'].obs", "Did you mean 'run'?", batch_key={"prot": "ran"})

    @pytest.mark.parametrize("argument", ARGUMENTS[:2])
    def test_wrong_types_of_names(self, mdata: MuData, check: Any, argument: str) -> None:
        check.refused(mdata, argument, "name of a column", "['center']", error=TypeError, **{argument: ["center"]})

    @pytest.mark.parametrize("argument", ARGUMENTS[2:])
    @pytest.mark.parametrize("value", ["center", {"rna": "center"}, 3])
    def test_wrong_types_of_lists(self, mdata: MuData, check: Any, argument: str, value: Any) -> None:
        check.refused(mdata, argument, "must be a list of columns", repr(value), error=TypeError, **{argument: value})

    @pytest.mark.parametrize("make", [list, tuple, np.array, pd.Index])
    def test_any_sequence_of_names_is_a_list(self, mdata: MuData, check: Any, make: Callable) -> None:
        model = check.accepted(
            mdata, categorical_covariate_keys=make(["center"]), continuous_covariate_keys=make(["age"])
        )
        assert model.registry["setup_args"]["categorical_covariate_keys"] == ["center"]
        assert model.registry["setup_args"]["continuous_covariate_keys"] == ["age"]
        check.refused(
            mdata, "categorical_covariate_keys", "'center' more than once", categorical_covariate_keys=["center"] * 2
        )

    @pytest.mark.parametrize("argument", ARGUMENTS)
    def test_columns_without_any_value(self, mdata: MuData, check: Any, argument: str) -> None:
        mdata.obs["empty"] = np.nan
        check.refused(mdata, "'empty'", "missing in all 12 samples", "Leave it out", **self.named(argument, "empty"))

    def test_continuous_columns_that_are_not(self, mdata: MuData, check: Any) -> None:
        check.refused(
            mdata, "'center'", "values; convert", "categorical_covariate_keys", continuous_covariate_keys=["center"]
        )
        mdata.obs.loc[["s01", "s04"], "age"] = np.inf
        check.refused(mdata, "'age' is infinite in 2 samples", "'s01', 's04'", "NaN", continuous_covariate_keys=["age"])


class TestSetupOfADifferentModel:
    def test_before_any_setup(self, mdata: MuData) -> None:
        with pytest.raises(ValueError, match="set up"):
            CoVAE(mdata)

    def test_of_another_class(self, mdata: MuData) -> None:
        MMVAEPlusPlus.setup_mudata(mdata)
        with pytest.raises(ValueError, match="set up"):
            CoVAE(mdata)
