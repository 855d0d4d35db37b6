from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._imputation import DRAWS
from omicvae.tl import complete, embed

Model = CoVAE | MMVAEPlusPlus
LAYERS = ("imputed", "imputed_sd", "imputed_lower", "imputed_upper")


def measured(mdata: MuData, modality: str) -> pd.DataFrame:
    """All samples by all features in the units of a completed modality; NaN where nothing was measured."""
    adata = mdata[modality]
    if modality == "meth":
        with np.errstate(invalid="ignore"):
            values = adata.layers["methylated"] / adata.layers["coverage"]
    else:
        values = adata.layers["log2"] if modality == "rna" else adata.X
    return pd.DataFrame(values, adata.obs_names, adata.var_names).reindex(mdata.obs_names)


@pytest.fixture(scope="module")
def completed(covae: CoVAE) -> MuData:
    return complete(covae.adata, covae)


def test_every_sample_has_every_modality_in_order(mdata: MuData, model: Model) -> None:
    result = complete(mdata, model)
    assert list(result.mod) == list(model.modalities)
    assert list(result.obs_names) == list(mdata.obs_names)
    for m, adata in result.mod.items():
        assert list(adata.obs_names) == list(mdata.obs_names)
        assert list(adata.var_names) == list(mdata[m].var_names)
        assert adata.X.dtype == np.float32
        assert np.isfinite(adata.X).all()
        assert {layer for layer in adata.layers if layer} == set(LAYERS)  # newer anndata lists X as None
        assert (adata.layers["imputed_sd"] > 0).all()
        assert (adata.layers["imputed_lower"] <= adata.layers["imputed_upper"]).all()


def test_measured_values_are_kept_and_only_the_others_are_predicted(mdata: MuData, model: Model) -> None:
    result = complete(mdata, model)
    for m in model.modalities:
        values = measured(mdata, m).to_numpy()
        known = np.isfinite(values)
        assert known.any()
        assert not known.all()
        np.testing.assert_allclose(result[m].X[known], values[known], rtol=1e-6)
        np.testing.assert_array_equal(result[m].X[~known], result[m].layers["imputed"][~known])
    assert (result["meth"].X >= 0).all()
    assert (result["meth"].X <= 1).all()


def test_source_says_who_was_measured(mdata: MuData, completed: MuData) -> None:
    for m, adata in completed.mod.items():
        present = completed.obs_names.isin(mdata[m].obs_names)
        np.testing.assert_array_equal(adata.obs["source"] == "observed", present)
        others = [k for k in completed.mod if k != m]
        has = {k: completed.obs_names.isin(mdata[k].obs_names) for k in others}
        nothing = ~np.stack(list(has.values())).any(0)
        np.testing.assert_array_equal(adata.obs["source"] == "prior", nothing & ~present)
        expected = ["+".join(k for k in others if has[k][i]) for i in range(len(present))]
        assert list(adata.obs["sources"]) == expected
        assert completed.uns["omicvae_complete"]["n_imputed"][m] == (~present).sum()


def test_a_sample_without_any_registered_assay_comes_from_the_prior(mdata: MuData, covae: CoVAE) -> None:
    other = AnnData(np.ones((1, 1), np.float32), obs=pd.DataFrame(index=["new"]))
    result = complete(MuData({**{m: a.copy() for m, a in mdata.mod.items()}, "other": other}), covae)
    assert "other" not in result.mod
    assert all(adata.obs.loc["new", "source"] == "prior" for adata in result.mod.values())
    assert all(adata.obs.loc["new", "sources"] == "" for adata in result.mod.values())


def test_a_prediction_does_not_depend_on_what_it_predicts(mdata: MuData, covae: CoVAE) -> None:
    torch.manual_seed(0)
    before = complete(mdata, covae, modalities=["mirna"])
    mdata["mirna"].X = mdata["mirna"].X * 7 + 3
    torch.manual_seed(0)
    after = complete(mdata, covae, modalities=["mirna"])
    for layer in LAYERS:
        np.testing.assert_array_equal(before["mirna"].layers[layer], after["mirna"].layers[layer])


def test_order_of_samples_rows_and_features_does_not_matter(
    mdata: MuData, completed: MuData, covae: CoVAE, shuffled: Callable[[MuData], MuData]
) -> None:
    result = complete(shuffled(mdata), covae)
    for m in covae.modalities:
        assert list(result[m].var_names) == list(completed[m].var_names)  # features are the registered ones
        here = pd.DataFrame(result[m].X, result.obs_names).loc[completed.obs_names]
        sd = completed[m].layers["imputed_sd"]
        # Both are measured, or means over DRAWS draws whose error is below sd / sqrt(DRAWS) each.
        assert (np.abs(here.to_numpy() - completed[m].X) < 6 * sd * np.sqrt(2 / DRAWS)).all()


def test_columns_of_the_user_are_carried_along(mdata: MuData, covae: CoVAE, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="omicvae"):
        result = complete(mdata, covae)
    assert "'source' of modality 'mirna' is kept as 'source_original'" in caplog.text
    obs, own = result["mirna"].obs, mdata["mirna"].obs
    for column, kept in {"passed": "passed", "lane": "lane", "site": "site", "source": "source_original"}.items():
        assert list(obs.loc[own.index, kept]) == list(own[column])
        assert obs[kept].drop(own.index).isna().all()
    assert list(result["mirna"].var["chromosome"]) == list(mdata["mirna"].var["chromosome"])
    assert list(result.obs["batch"]) == list(mdata.obs["batch"])


def test_top_level_latents_are_carried_along(mdata: MuData, covae: CoVAE) -> None:
    embed(mdata, covae)
    result = complete(mdata, covae, modalities=["meth"])
    np.testing.assert_array_equal(result.obsm["X_covae"], mdata.obsm["X_covae"])
    assert "rna" not in result.obsm  # which marks the samples of a modality that is not there


def test_modalities_and_features_can_be_chosen(mdata: MuData, covae: CoVAE, completed: MuData) -> None:
    chosen = list(mdata["rna"].var_names[[7, 2]])
    result = complete(mdata, covae, modalities=["meth", "rna"], features={"rna": chosen})
    assert list(result.mod) == ["meth", "rna"]
    assert list(result["rna"].var_names) == chosen
    assert result["meth"].n_vars == mdata["meth"].n_vars
    values = measured(mdata, "rna")[chosen].to_numpy()
    known = np.isfinite(values)
    np.testing.assert_allclose(result["rna"].X[known], values[known], rtol=1e-6)
    unknown = completed[:, chosen]["rna"].X[~known]
    # Features are ten units apart, so that a mistaken column would be seen.
    assert np.abs(result["rna"].X[~known] - unknown).max() < 2


def test_a_modality_that_a_query_lacks_is_imputed(mdata: MuData, covae: CoVAE) -> None:
    query = MuData({m: mdata[m].copy() for m in ("rna", "meth")})
    result = complete(query, covae)
    assert (result["mirna"].obs["source"] == "imputed").all()
    np.testing.assert_array_equal(result["mirna"].X, result["mirna"].layers["imputed"])
    assert list(result["mirna"].var["chromosome"]) == list(mdata["mirna"].var["chromosome"])


def test_wider_intervals_for_higher_levels(mdata: MuData, covae: CoVAE) -> None:
    widths = []
    for level in (0.5, 0.95):
        rna = complete(mdata, covae, modalities=["rna"], level=level)["rna"]
        widths.append(np.mean(rna.layers["imputed_upper"] - rna.layers["imputed_lower"]))
    assert widths[0] < widths[1]


def test_the_data_are_not_changed(mdata: MuData, covae: CoVAE) -> None:
    before = mdata.copy()
    complete(mdata, covae)
    pd.testing.assert_frame_equal(mdata.obs, before.obs)
    assert set(mdata.obsm) == set(before.obsm)
    for m, adata in mdata.mod.items():
        np.testing.assert_array_equal(adata.X, before[m].X)
        pd.testing.assert_frame_equal(adata.obs, before[m].obs)
        assert set(adata.layers) == set(before[m].layers)


def test_everything_survives_a_file(completed: MuData, tmp_path: Path) -> None:
    completed.write_h5mu(tmp_path / "completed.h5mu")
    read = mudata.read_h5mu(tmp_path / "completed.h5mu")
    assert list(read.obs_names) == list(completed.obs_names)
    assert read.uns["omicvae_complete"] == completed.uns["omicvae_complete"]
    assert read.uns["omicvae_complete"]["X"]["rna"] == "in the units of layer 'log2'"
    assert read.uns["omicvae_complete"]["X"]["meth"] == "layer 'methylated' divided by layer 'coverage'"
    for m, adata in completed.mod.items():
        np.testing.assert_array_equal(read[m].X, adata.X)
        for layer in LAYERS:
            np.testing.assert_array_equal(read[m].layers[layer], adata.layers[layer])
        for column in adata.obs:
            there, here = read[m].obs[column], adata.obs[column]
            np.testing.assert_array_equal(there.isna(), here.isna())
            assert list(there.dropna()) == list(here.dropna())


def test_wrong_arguments_are_named(mdata: MuData, covae: CoVAE) -> None:
    with pytest.raises(TypeError, match="write \\['rna'\\]"):
        complete(mdata, covae, modalities="rna")
    with pytest.raises(ValueError, match="not trained on a modality 'rma'.*Did you mean 'rna'"):
        complete(mdata, covae, modalities=["rma"])
    with pytest.raises(ValueError, match="modalities is empty"):
        complete(mdata, covae, modalities=[])
    with pytest.raises(TypeError, match="features must be a mapping"):
        complete(mdata, covae, features=["rna_0001"])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a list of names"):
        complete(mdata, covae, features={"rna": "rna_0001"})
    with pytest.raises(ValueError, match="features of 'rna' is empty"):
        complete(mdata, covae, features={"rna": []})
    with pytest.raises(TypeError, match="modalities must be a list of names, got 3"):
        complete(mdata, covae, modalities=3)  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="features of 'rna' must be a list of names, got None"):
        complete(mdata, covae, features={"rna": None})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="features of 'rna' names .* twice"):
        complete(mdata, covae, features={"rna": [mdata["rna"].var_names[0]] * 2})
    with pytest.raises(ValueError, match="not among those to complete"):
        complete(mdata, covae, modalities=["meth"], features={"rna": ["rna_0001"]})
    with pytest.raises(ValueError, match="has no features 'nonsense'"):
        complete(mdata, covae, features={"rna": ["nonsense"]})
    with pytest.raises(ValueError, match="level"):
        complete(mdata, covae, level=90)
    with pytest.raises(TypeError, match="complete expects a model"):
        complete(mdata, "covae")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        complete(mdata, CoVAE(covae.adata))
