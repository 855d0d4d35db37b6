from __future__ import annotations

from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import impute

Model = CoVAE | MMVAEPlusPlus


def test_what_is_written_is_what_the_model_imputes(mdata: MuData, model: Model) -> None:
    features = list(mdata["mirna"].var_names[[5, 0]])
    torch.manual_seed(0)
    assert impute(mdata, model, "mirna", features=features, given=["rna"]) is None
    torch.manual_seed(0)
    expected = model.impute("mirna", mdata=mdata, features=features, given=["rna"])
    for key, values in {"mirna_imputed": expected.X, "mirna_imputed_sd": expected.layers["sd"]}.items():
        frame = mdata.obsm[key]
        assert isinstance(frame, pd.DataFrame)
        assert list(frame.columns) == features
        assert list(frame.index) == list(mdata.obs_names)  # those without the assay included
        np.testing.assert_array_equal(frame.to_numpy(), values)


def test_all_features_by_default_under_a_name_of_ones_own(mdata: MuData, covae: CoVAE) -> None:
    keys = set(mdata.obsm)
    result = impute(mdata, covae, "meth", key_added="levels", copy=True)
    assert isinstance(result, MuData)
    assert set(mdata.obsm) == keys
    assert list(result.obsm["levels"].columns) == list(mdata["meth"].var_names)
    assert "levels_sd" in result.obsm
    assert "meth_imputed" not in result.obsm


def test_it_survives_a_file(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    impute(mdata, covae, "mirna")
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    read = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    for key in ("mirna_imputed", "mirna_imputed_sd"):
        np.testing.assert_array_equal(read.obsm[key].to_numpy(), mdata.obsm[key].to_numpy())
        assert list(read.obsm[key].columns) == list(mdata.obsm[key].columns)
        assert list(read.obsm[key].index) == list(mdata.obs_names)


def test_wrong_arguments_are_named(mdata: MuData, covae: CoVAE) -> None:
    with pytest.raises(ValueError, match="not trained on a modality 'mrna'"):
        impute(mdata, covae, "mrna")
    with pytest.raises(ValueError, match="'rna' in mdata.obsm is where MuData marks"):
        impute(mdata, covae, "mirna", key_added="rna")
    with pytest.raises(ValueError, match="has no features 'nonsense'"):
        impute(mdata, covae, "mirna", features=["nonsense"])
    with pytest.raises(TypeError, match="features must be a list"):
        impute(mdata, covae, "mirna", features="mirna_0001")
    with pytest.raises(ValueError, match="given names 'mirna'"):
        impute(mdata, covae, "mirna", given=["mirna"])
    with pytest.raises(TypeError, match="impute expects a MuData, got AnnData"):
        impute(mdata["rna"], covae, "mirna")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        impute(mdata, CoVAE(covae.adata), "mirna")
    assert "mirna_imputed" not in mdata.obsm
