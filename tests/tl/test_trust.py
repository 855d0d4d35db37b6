from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import complete, embed

COLUMNS = ("imputable", "r2", "coverage90", "skill_vs_ridge")
LAYERS = ("imputed", "imputed_sd", "imputed_lower", "imputed_upper")
Tables = dict[str, pd.DataFrame]


@pytest.fixture
def tables(covae: CoVAE, monkeypatch: pytest.MonkeyPatch) -> Tables:
    """What the model will say of its features, for a test to change: most can be imputed, numbers tell them apart."""
    made = {}
    for m in covae.modalities:
        names = covae.schema[m].var_names
        rank = np.arange(len(names)) / len(names)
        made[m] = pd.DataFrame(
            {
                "r2": rank,
                "coverage90": 0.8 + rank / 10,
                "skill_vs_ridge": -rank,
                "skill_vs_mean": rank,  # 0 in the first feature
                "imputable": rank > 0,
            },
            index=pd.Index(names),
        )
    monkeypatch.setattr(covae, "trust", lambda modality: made[modality].copy())
    return made


def told(call: Callable[[], object]) -> list[str]:
    """Texts of the warnings of ours that a call gives."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(w.message) for w in caught if "cannot be told from their mean" in str(w.message)]


def test_columns_are_matched_by_name(
    mdata: MuData, covae: CoVAE, tables: Tables, shuffled: Callable[[MuData], MuData]
) -> None:
    query = shuffled(mdata)
    embed(query, covae)
    completed = complete(query, covae, features={"mirna": list(mdata["mirna"].var_names[[5, 0]])}, n_draws=20)
    for m in covae.modalities:
        for var in (query[m].var, completed[m].var):
            assert var["covae_imputable"].dtype == bool
            known = var.index.isin(tables[m].index)
            for column in COLUMNS:
                there = tables[m].loc[var.index[known], column]
                np.testing.assert_array_equal(var[f"covae_{column}"][known], there)
        unknown = query[m].var.loc[f"{m}_unregistered"]
        assert not unknown["covae_imputable"]
        assert unknown[[f"covae_{c}" for c in COLUMNS[1:]]].isna().all()


def test_what_is_written_is_what_the_model_measured(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    completed = complete(mdata, covae, n_draws=20, key_added="z")
    path = complete(mdata, covae, n_draws=20, key_added="z", out=tmp_path / "completed.h5mu")
    embed(mdata, covae, key_added="z")
    mdata.write_h5mu(tmp_path / "embedded.h5mu")
    read = mudata.read_h5mu(tmp_path / "embedded.h5mu")
    for m in covae.modalities:
        expected = covae.trust(m)
        assert expected["r2"].notna().any()
        for var in (completed[m].var, mdata[m].var, read[m].var, mudata.read_h5mu(path)[m].var):
            assert var["z_imputable"].dtype == bool
            for column in COLUMNS:
                np.testing.assert_array_equal(var[f"z_{column}"], expected[column])
            assert not any(c.startswith("covae_") for c in var)
            assert ("chromosome" in var) == (m == "mirna")


def test_a_loaded_model_without_data_says_the_same(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    covae.save(tmp_path / "model")
    embed(mdata, CoVAE.load(tmp_path / "model", adata=False))
    for m in covae.modalities:
        np.testing.assert_array_equal(mdata[m].var["covae_r2"], covae.trust(m)["r2"])


def test_nothing_is_claimed_where_nothing_was_held_out(mdata: MuData, uncalibrated: MMVAEPlusPlus) -> None:
    with pytest.raises(RuntimeError):
        uncalibrated.trust("rna")
    assert told(lambda: embed(mdata, uncalibrated)) == []
    completed = complete(mdata, uncalibrated, n_draws=20)
    for m in uncalibrated.modalities:
        for var in (mdata[m].var, completed[m].var):
            assert not var["mmvaepp_imputable"].any()
            assert var[[f"mmvaepp_{c}" for c in COLUMNS[1:]]].isna().all(axis=None)


def test_most_features_that_cannot_be_imputed_are_told_once_a_call(mdata: MuData, covae: CoVAE, tables: Tables) -> None:
    assert told(lambda: embed(mdata, covae)) == []
    tables["rna"].loc[tables["rna"].index[:6], "imputable"] = False  # half of twelve
    assert told(lambda: complete(mdata, covae, n_draws=20)) == []
    tables["rna"].loc[tables["rna"].index[:7], "imputable"] = False
    for call in (
        lambda: complete(mdata, covae, n_draws=20, batch_size=10),
        lambda: embed(mdata, covae),
        lambda: embed(mdata, covae),  # again, though Python shows equal warnings of one line only once
    ):
        (text,) = told(call)
        assert text.startswith("rna: 7 of 12 features cannot be told from their mean")
        assert "var['covae_imputable']" in text
    tables["meth"]["imputable"] = False
    assert [t.split(" features")[0] for t in told(lambda: embed(mdata, covae))] == ["rna: 7 of 12", "meth: 6 of 6"]


def test_the_warning_points_to_the_line_that_called(mdata: MuData, covae: CoVAE, tables: Tables) -> None:
    tables["meth"]["imputable"] = False
    for call in (lambda: embed(mdata, covae), lambda: complete(mdata, covae, n_draws=20)):
        with pytest.warns(UserWarning, match="meth: 6 of 6") as caught:
            call()
        assert [w.filename for w in caught if "meth: 6 of 6" in str(w.message)] == [__file__]


def test_features_that_could_not_be_measured_are_not_said_to_be_bad(
    mdata: MuData, covae: CoVAE, tables: Tables
) -> None:
    names = tables["rna"].index
    tables["rna"].loc[names[:9], ["skill_vs_mean", "r2"]] = np.nan
    tables["rna"].loc[names[:9], "imputable"] = False
    assert told(lambda: embed(mdata, covae)) == []
    tables["rna"].loc[names[9:11], "imputable"] = False
    assert [t.split(" features")[0] for t in told(lambda: embed(mdata, covae))] == ["rna: 2 of 3"]


def test_only_features_asked_for_are_counted(mdata: MuData, covae: CoVAE, tables: Tables) -> None:
    names = tables["rna"].index
    tables["rna"]["imputable"] = np.arange(len(names)) >= 10
    good, mixed = {"rna": list(names[9:])}, {"rna": list(names[8:11])}
    assert told(lambda: complete(mdata, covae, modalities=["rna"], features=good, n_draws=20)) == []
    assert told(lambda: complete(mdata, covae, modalities=["meth"], n_draws=20)) == []
    (text,) = told(lambda: complete(mdata, covae, modalities=["rna"], features=mixed, n_draws=20))
    assert text.startswith("rna: 2 of 3 features")


def test_features_without_skill_are_not_imputed(mdata: MuData, covae: CoVAE, tables: Tables) -> None:
    torch.manual_seed(0)
    all_of_them = complete(mdata, covae)
    torch.manual_seed(0)
    result = complete(mdata, covae, min_skill=0.5)
    for m, adata in result.mod.items():
        left_out = (tables[m]["skill_vs_mean"] < 0.5).to_numpy()
        assert 0 < left_out.sum() < len(left_out)
        assert result.uns["omicvae_complete"]["n_features_left_out"][m] == left_out.sum()
        for layer in LAYERS:
            assert np.isnan(adata.layers[layer][:, left_out]).all()
            np.testing.assert_array_equal(adata.layers[layer][:, ~left_out], all_of_them[m].layers[layer][:, ~left_out])
        imputed = (adata.obs["source"] != "observed").to_numpy()
        assert np.isnan(adata.X[np.ix_(imputed, left_out)]).all()
        np.testing.assert_array_equal(adata.X[:, ~left_out], all_of_them[m].X[:, ~left_out])
        # Measured values stay, and single elements that were not measured are imputed ones.
        from_others = all_of_them[m].X == all_of_them[m].layers["imputed"]
        measured = ~imputed[:, None] & ~from_others
        np.testing.assert_array_equal(adata.X[measured], all_of_them[m].X[measured])
        np.testing.assert_array_equal(np.isnan(adata.X), left_out & (from_others | imputed[:, None]))
    assert result.uns["omicvae_complete"]["min_skill"] == 0.5
    assert "min_skill" not in all_of_them.uns["omicvae_complete"]


def test_a_feature_at_the_threshold_stays_and_one_that_was_not_measured_goes(
    mdata: MuData, covae: CoVAE, tables: Tables
) -> None:
    names = tables["meth"].index
    tables["meth"]["skill_vs_mean"] = [np.nan, -0.1, 0.0, 0.1, 0.2, 1.0]
    for least, kept in {-1: 5, -0.1: 5, 0: 4, 0.15: 2, 1: 1}.items():
        meth = complete(mdata, covae, modalities=["meth"], min_skill=least, n_draws=20)["meth"]
        assert list(meth.var_names[~np.isnan(meth.layers["imputed"]).any(0)]) == list(names[len(names) - kept :])


def test_what_is_left_out_is_left_out_on_disk(mdata: MuData, covae: CoVAE, tables: Tables, tmp_path: Path) -> None:
    expected, out = complete(mdata, covae, min_skill=0.5, n_draws=20), tmp_path / "cohort.h5mu"
    found = mudata.read_h5mu(complete(mdata, covae, min_skill=0.5, n_draws=20, out=out))
    assert found.uns["omicvae_complete"] == expected.uns["omicvae_complete"]
    for m, adata in expected.mod.items():
        np.testing.assert_array_equal(np.isnan(found[m].X), np.isnan(adata.X))
        np.testing.assert_array_equal(np.isnan(found[m].layers["imputed_sd"]), np.isnan(adata.layers["imputed_sd"]))


def test_skill_that_was_not_measured_cannot_be_asked_for(
    mdata: MuData,
    covae: CoVAE,
    uncalibrated: MMVAEPlusPlus,
    tables: Tables,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    with pytest.raises(
        ValueError, match="min_skill=0 cannot be applied to 'rna', 'mirna', 'meth': .* no trust numbers"
    ):
        complete(mdata, uncalibrated, min_skill=0, out=tmp_path / "cohort.zarr")
    assert not list(tmp_path.iterdir())

    def partly(modality: str) -> pd.DataFrame:
        if modality == "rna":
            raise RuntimeError("nothing was held out")
        return tables[modality]

    monkeypatch.setattr(covae, "trust", partly)
    with pytest.raises(ValueError, match="cannot be applied to 'rna': the model has no trust numbers there"):
        complete(mdata, covae, min_skill=0)
    complete(mdata, covae, min_skill=0, modalities=["mirna", "meth"], n_draws=20)


def test_wrong_arguments_are_named(mdata: MuData, covae: CoVAE) -> None:
    for wrong in ("0.1", True, [0.1], {"rna": 0.1}):
        with pytest.raises(TypeError, match="min_skill must be a number such as 0.05"):
            complete(mdata, covae, min_skill=wrong)  # type: ignore[call-overload]
    for wrong in (np.nan, np.inf, -np.inf, 1.5):
        with pytest.raises(ValueError, match="min_skill must be at most 1"):
            complete(mdata, covae, min_skill=wrong)
    for tool in (complete, embed):
        with pytest.raises(TypeError, match="key_added must be text such as 'covae'"):
            tool(mdata, covae, key_added=3)  # type: ignore[operator]
        for wrong in ("", "a/b"):
            with pytest.raises(ValueError, match="cannot be part of a name in a file"):
                tool(mdata, covae, key_added=wrong)  # type: ignore[operator]
    assert not any(c.endswith("_imputable") for m in mdata.mod.values() for c in m.var)
