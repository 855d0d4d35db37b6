"""Every mistake in the values is refused before training, with what to do about it; nothing is changed."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata._io.specs.registry import IORegistryError
from mudata import MuData
from scipy import sparse

from omicvae.model import CoVAE

LIKELIHOODS = {"rna": "nb", "meth": "beta", "atac": "bernoulli", "prot": "normal"}


class TestValues:
    @pytest.mark.parametrize("likelihood", ["nb", "zinb", "poisson"])
    @pytest.mark.parametrize(("wrong", "word"), [(-1.0, "negative"), (0.5, "fractional")])
    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
    def test_of_counts(self, mdata: MuData, check: Any, likelihood: str, wrong: float, word: str, to: Callable) -> None:
        mdata["rna"].X[3, 5] = mdata["rna"].X[4, 2] = wrong
        mdata["rna"].X = to(mdata["rna"].X)
        message = check.refused(
            mdata, "modality 'rna'", "2 values are", word, "g2, g5", "layers={'rna': 'counts'}", f"The {likelihood} ",
            likelihoods=LIKELIHOODS | {"rna": likelihood},
        )  # fmt: skip
        assert "likelihoods={'rna': 'normal'}" in message
        check.accepted(mdata, likelihoods=LIKELIHOODS | {"rna": "normal"})

    def test_of_counts_that_are_missing(self, mdata: MuData, check: Any) -> None:
        mdata["rna"].X[1, 3] = np.nan
        check.refused(mdata, "modality 'rna'", "1 value is NaN", "g3", "drop them from mdata['rna']")

    def test_of_proportions(self, mdata: MuData, check: Any) -> None:
        mdata["meth"].X[0, 1], mdata["meth"].X[2, 4], mdata["meth"].X[5, 4] = -0.01, 1.5, 3.0
        check.refused(
            mdata, "modality 'meth'", "3 values are outside [0, 1]", "cg1, cg4", "likelihoods={'meth': 'normal'}"
        )

    def test_of_proportions_that_are_exactly_0_or_1_are_squeezed(
        self, mdata: MuData, check: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        mdata["meth"].X[0, :2] = 0, 1
        mdata["meth"].X[1, 3] = np.nan
        with caplog.at_level(logging.INFO, "omicvae"):
            check.accepted(mdata)
        assert "modality 'meth': 2 values are exactly 0 or 1 and are squeezed to 0.0001" in caplog.text

    def test_of_a_bernoulli(self, mdata: MuData, check: Any) -> None:
        mdata["atac"].X[0, 2] = 4
        message = check.refused(
            mdata, "modality 'atac'", "1 value is neither 0 nor 1", "peak2", "layers={'atac': 'binary'}"
        )
        check.follow(message, r"(mdata\['atac'\]\.layers\['binary'\] = .*?\)\.astype\('float32'\))", mdata=mdata)
        check.accepted(mdata, layers={"atac": "binary"})

    @pytest.mark.parametrize("modality", list(LIKELIHOODS))
    def test_that_are_infinite(self, mdata: MuData, check: Any, modality: str) -> None:
        mdata[modality].X[2, 1] = -np.inf
        feature = mdata[modality].var_names[1]
        check.refused(mdata, f"modality {modality!r}", "1 value is infinite", feature, "NaN")

    def test_constant_and_empty_features_are_warned_of_and_listed(
        self, mdata: MuData, check: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        mdata["prot"].X[:, 1], mdata["prot"].X[:, 2] = 3.0, np.nan
        mdata["rna"].X[:, [0, 4]] = 7
        with caplog.at_level(logging.WARNING, "omicvae"):
            check.accepted(mdata)
        assert "modality 'prot': 1 feature is without any value (p2)" in caplog.text
        assert "modality 'prot': 1 feature is constant (p1)" in caplog.text
        assert "modality 'rna': 2 features are constant (g0, g4)" in caplog.text

    def test_that_are_not_numbers(self, mdata: MuData, check: Any) -> None:
        mdata["prot"].X = mdata["prot"].X.astype(object)
        check.refused(mdata, "modality 'prot'", "dtype object", "astype('float32')", error=TypeError)

    def test_that_are_not_there(self, mdata: MuData, check: Any) -> None:
        mdata["prot"].layers["z"] = mdata["prot"].X
        mdata["prot"].X = None
        check.refused(mdata, "modality 'prot' has no .X", "layers={'prot': ...}")
        check.accepted(mdata, layers={"prot": "z"})

    @pytest.mark.parametrize("layer", [None, "z"])
    def test_samples_padded_with_nan_are_not_measured(self, mdata: MuData, check: Any, layer: str | None) -> None:
        """The encoder would take them for samples at the mean of every feature, and be sure of it."""
        mdata["prot"].X[[1, 4]] = np.nan
        mdata["prot"].X[0, 0] = np.nan
        if layer is not None:
            mdata["prot"].layers[layer], mdata["prot"].X = mdata["prot"].X.copy(), np.zeros_like(mdata["prot"].X)
        layers = {"prot": layer}
        message = check.refused(
            mdata, "modality 'prot'", "2 samples have no value at all", "'s03', 's06'", layers=layers
        )
        check.follow(message, r"with (mdata\.mod.*mdata\.update\(\))\.", mdata=mdata)
        check.accepted(mdata, layers=layers)
        assert mdata["prot"].n_obs == 8 and mdata.n_obs == 12

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
    @pytest.mark.parametrize("modality", ["rna", "atac"])
    def test_samples_padded_with_zeros_are_warned_of(
        self, mdata: MuData, check: Any, caplog: pytest.LogCaptureFixture, to: Callable, modality: str
    ) -> None:
        mdata[modality].X[[2, 7]] = 0
        mdata[modality].X[:2, :] = 1
        mdata["prot"].X[3] = 0  # an ordinary value of a continuous assay
        mdata[modality].X = to(mdata[modality].X)
        with caplog.at_level(logging.WARNING, "omicvae"):
            check.accepted(mdata)
        (warned,) = (r.getMessage() for r in caplog.records if "nothing but zeros" in r.getMessage())
        assert f"modality {modality!r}: 2 samples hold nothing but zeros ('s02', 's07')" in warned

    def test_only_the_first_of_many_are_listed(self, mdata: MuData, check: Any) -> None:
        mdata["rna"].X[:] = -1
        assert "g5" not in check.refused(mdata, "96 values are negative", "g0, g1, g2, g3, g4")


class TestMethylatedReads:
    @pytest.fixture
    def reads(self, mdata: MuData) -> MuData:
        rng = np.random.default_rng(1)
        coverage = rng.poisson(10, (12, 6)).astype(np.float32)
        mdata["meth"].X = rng.binomial(coverage.astype(int), 0.4).astype(np.float32)
        mdata["meth"].layers["coverage"] = coverage
        return mdata

    ARGUMENTS = {"likelihoods": LIKELIHOODS | {"meth": "betabinomial"}, "coverage_layers": {"meth": "coverage"}}

    def test_are_fine_with_their_coverage_and_refused_without(self, reads: MuData, check: Any) -> None:
        check.accepted(reads, **self.ARGUMENTS)
        likelihoods = {m: name for m, name in LIKELIHOODS.items() if m != "meth"}
        registry = check.accepted(reads, likelihoods=likelihoods, coverage_layers={"meth": "coverage"}).registry
        assert registry["setup_args"]["likelihoods"]["meth"] == "betabinomial"
        check.refused(
            reads, "'meth'", "needs the coverage", "coverage_layers={'meth': 'coverage'}",
            likelihoods=self.ARGUMENTS["likelihoods"],
        )  # fmt: skip

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix])
    def test_more_than_their_coverage_in_a_single_place(self, reads: MuData, check: Any, to: Callable) -> None:
        reads["meth"].layers["coverage"][4, 3] = 2
        reads["meth"].X[4, 3] = 3
        reads["meth"].X = to(reads["meth"].X)
        check.refused(
            reads, "modality 'meth'", "1 value is larger than their coverage", "cg3", "exchanged", **self.ARGUMENTS
        )

    @pytest.mark.parametrize("to", [np.asarray, sparse.csr_matrix])
    def test_samples_without_a_single_read(self, reads: MuData, check: Any, to: Callable) -> None:
        meth = reads["meth"]
        meth.X[5] = meth.layers["coverage"][5] = 0
        meth.X, meth.layers["coverage"] = to(meth.X), to(meth.layers["coverage"])
        message = check.refused(reads, "'meth': 1 samples have no value at all", "'s05'", **self.ARGUMENTS)
        check.follow(message, r"with (mdata\.mod.*mdata\.update\(\))\.", mdata=reads)
        check.accepted(reads, **self.ARGUMENTS)
        assert reads["meth"].n_obs == 11

    def test_fractions_of_reads(self, reads: MuData, check: Any) -> None:
        reads["meth"].X = reads["meth"].X / 20
        check.refused(reads, "modality 'meth'", "fractional", **self.ARGUMENTS)

    def test_a_coverage_that_is_not_used(self, mdata: MuData, check: Any) -> None:
        mdata["rna"].layers["n"] = mdata["rna"].X.copy()
        check.refused(
            mdata, "coverage_layers names modality 'rna'", "'nb' does not use it", "leave it out",
            coverage_layers={"rna": "n"},
        )  # fmt: skip


class TestSideEffects:
    @pytest.mark.parametrize("to", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix])
    def test_only_identifiers_in_uns_are_written(self, mdata: MuData, check: Any, to: Callable) -> None:
        for m, a in mdata.mod.items():
            a.X = to(a.X)
            a.layers["copy"] = a.X.copy()
            a.uns["units"] = "x"
            a.obs["run"] = pd.Categorical(["b", "a"] * (a.n_obs // 2))
            mdata.uns[m] = 1
        mdata.obs["center"] = mdata.obs["center"].astype("category")
        before, obs, stored = mdata.copy(), mdata.obs.copy(), {m: a.X for m, a in mdata.mod.items()}
        check.accepted(
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

    def test_a_refused_setup_writes_nothing(self, mdata: MuData, check: Any) -> None:
        mdata["rna"].X[0, 0] = -1
        check.refused(mdata, "negative")
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
        try:
            mdata = mudata.read_h5mu(path, backed="r" if backed else None)
        except (TypeError, IORegistryError) as error:
            pytest.skip(f"this version of mudata cannot read {file}: {type(error).__name__}")
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
