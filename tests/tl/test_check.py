"""``tl.check`` says what set-up would do, without doing it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from omicvae import tl
from omicvae.model import CoVAE

Spoil = Callable[[MuData], MuData]


def adata(x: np.ndarray, stem: str, start: int = 0) -> AnnData:
    obs = pd.DataFrame(index=[f"s{i + start:02d}" for i in range(x.shape[0])])
    return AnnData(x, obs=obs, var=pd.DataFrame(index=[f"{stem}{j}" for j in range(x.shape[1])]))


def cohort() -> MuData:
    """Counts (sparse), proportions, 0/1 and real values of twelve samples; protein lacks two and has two of its own."""
    rng = np.random.default_rng(0)
    meth = rng.uniform(0.05, 0.95, (12, 6)).astype(np.float32)
    meth[2, 3] = np.nan
    atac = rng.integers(0, 2, (12, 5)).astype(np.float32)
    atac[0], atac[1] = 0, 1
    atac[0, 0], atac[1, 0] = 1, 0
    return MuData(
        {
            "rna": adata(sparse.csr_matrix(rng.poisson(5, (12, 8)).astype(np.int64)), "g"),
            "meth": adata(meth, "cg"),
            "atac": adata(atac, "peak"),
            "prot": adata(rng.normal(size=(12, 4)).astype(np.float32), "p", start=2),
        }
    )


def test_what_is_found_is_what_was_put_there() -> None:
    found = tl.check(cohort())
    assert found.usable and found.n_obs == 14
    table = found.modalities
    assert list(table.index) == ["rna", "meth", "atac", "prot"]
    assert list(table["values"]) == ["whole numbers", "proportions", "0 and 1", "real numbers"]
    assert list(table["likelihood"]) == ["nb", "beta", "bernoulli", "normal"]
    assert list(table["storage"]) == ["sparse", "dense", "dense", "dense"]
    assert (table["samples"] == 12).all() and (table["missing"] == 2).all()
    assert table["nan"].tolist() == [0, 1 / 72, 0, 0]
    assert table.loc["prot", "minimum"] == pytest.approx(cohort()["prot"].X.min())
    patterns = dict(zip(found.patterns["assays"], found.patterns["samples"], strict=True))
    assert patterns == {("rna", "meth", "atac", "prot"): 10, ("rna", "meth", "atac"): 2, ("prot",): 2}


def test_the_proposal_is_what_setup_registers() -> None:
    mdata = cohort()
    found = tl.check(mdata)
    CoVAE.setup_mudata(mdata)
    registered = {m.name: m.likelihood for m in CoVAE(mdata).schema.modalities}
    assert found.modalities["likelihood"].to_dict() == registered


def test_the_data_are_left_as_they_are() -> None:
    mdata, fresh = cohort(), cohort()
    logger = logging.getLogger("omicvae")
    before = list(logger.handlers), logger.propagate
    tl.check(mdata)
    assert (list(logger.handlers), logger.propagate) == before
    assert not mdata.uns
    for m in mdata.mod:
        x, y = mdata[m].X, fresh[m].X
        same = (x != y).nnz == 0 if sparse.issparse(x) else np.array_equal(x, y, equal_nan=True)
        assert same


def negative_counts(mdata: MuData) -> MuData:
    mdata["rna"].layers["raw"] = -mdata["rna"].X
    return mdata


def infinite(mdata: MuData) -> MuData:
    mdata["prot"].X[0, 0] = np.inf
    return mdata


def nothing_links(mdata: MuData) -> MuData:
    return MuData({"rna": mdata["rna"].copy(), "prot": adata(np.ones((3, 2)) * [[1], [2], [3]], "p", start=50)})


def no_value_at_all(mdata: MuData) -> MuData:
    mdata["prot"].X[1] = np.nan
    return mdata


def one_modality(mdata: MuData) -> MuData:
    return MuData({"rna": mdata["rna"].copy()})


def one_sample(mdata: MuData) -> MuData:
    return MuData({"rna": mdata["rna"].copy(), "prot": mdata["prot"][:1].copy()})


def view(mdata: MuData) -> MuData:
    return mdata[:8]


def same_features(mdata: MuData) -> MuData:
    mdata["meth"].var_names = ["cg"] * 6
    return mdata


@pytest.mark.parametrize(
    "spoil", [infinite, nothing_links, no_value_at_all, one_modality, one_sample, view, same_features]
)
def test_what_setup_refuses_is_a_problem_in_the_same_words(spoil: Spoil) -> None:
    mdata = spoil(cohort())
    found = tl.check(mdata)
    assert not found.usable
    with pytest.raises(ValueError) as refused:
        CoVAE.setup_mudata(mdata)
    assert str(refused.value) in found.problems


def test_every_problem_is_told_at_once() -> None:
    mdata = no_value_at_all(infinite(cohort()))
    mdata["meth"].X[0, 0] = np.inf
    named = {"atac": "nb", "rna": "beta"}
    found = tl.check(mdata, likelihoods=named)
    told = " ".join(found.problems)
    for name in ("'meth'", "'prot'", "'rna'"):
        assert name in told
    assert found.modalities.loc["atac", "likelihood"] == "nb"
    assert found.modalities.loc["atac", "reason"] == "named"


def test_a_layer_is_read_instead_of_x() -> None:
    found = tl.check(negative_counts(cohort()), layers={"rna": "raw"}, likelihoods={"rna": "nb"})
    assert found.modalities.loc["rna", "maximum"] <= 0
    assert len(found.problems) == 1 and "negative" in found.problems[0]
    found = tl.check(cohort(), layers={"rna": "raws"})
    assert not found.usable and "'raws'" in found.problems[0]


def test_values_that_are_not_numbers_are_a_problem() -> None:
    mdata = cohort()
    mdata.mod["prot"] = AnnData(np.full((12, 4), "a", dtype=object), obs=mdata["prot"].obs, var=mdata["prot"].var)
    found = tl.check(mdata)
    assert len(found.problems) == 1 and "'prot'" in found.problems[0]


def test_warnings_are_kept_and_do_not_make_data_unusable() -> None:
    mdata = cohort()
    mdata["prot"].X[:, 1] = 3.0
    found = tl.check(mdata)
    assert found.usable
    assert len(found.warnings) == 1 and "constant" in found.warnings[0] and "p1" in found.warnings[0]


def test_a_modality_may_be_called_samples() -> None:
    mdata = cohort()
    renamed = MuData({"samples": mdata["rna"].copy(), "assays": mdata["prot"].copy()})
    found = tl.check(renamed)
    assert found.usable
    assert set(found.patterns["assays"]) == {("samples", "assays"), ("samples",), ("assays",)}


def test_the_order_of_samples_and_modalities_does_not_matter() -> None:
    mdata = cohort()
    rng = np.random.default_rng(1)
    mods = {m: mdata[m][rng.permutation(12)].copy() for m in reversed(list(mdata.mod))}
    one, other = tl.check(mdata), tl.check(MuData(mods))
    pd.testing.assert_frame_equal(one.modalities, other.modalities.loc[one.modalities.index])


def test_anything_but_a_mudata_is_refused() -> None:
    with pytest.raises(TypeError, match="expects a MuData"):
        tl.check(cohort()["rna"])  # type: ignore[arg-type]
