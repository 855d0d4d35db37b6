"""Continuous covariates without any batch: every way to predict an assay takes them, with gaps or without."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA
from omicvae.model._base import MultimodalModel

N, EFFECT = 200, 3.0
WAYS: dict[str, tuple[type[MultimodalModel], dict[str, Any]]] = {
    "closed form": (CoVAE, {"backbone": "moments"}),
    "closed form and network": (CoVAE, {"n_latent": 2}),
    "network": (CoVAE, {"n_latent": 2, "backbone": "network"}),
    "mmvaepp": (MMVAEPlusPlus, {"n_shared": 2, "n_private": 1}),
    "pcca": (ProbabilisticCCA, {"n_factors": 4}),
}


def cohort(gaps: bool, seed: int = 0) -> MuData:
    """Counts that know nothing of the age, and proteins that rise with it; 40 samples lack proteins."""
    rng = np.random.default_rng(seed)
    names = pd.Index([f"s{i}" for i in range(N)])
    age = rng.normal(60, 10, N)
    protein = (EFFECT * (age - 60) / 10)[:, None] + rng.normal(size=(N, 6))
    mdata = MuData(
        {
            "rna": AnnData(rng.poisson(5.0, (N, 8)).astype(np.float32), obs=pd.DataFrame(index=names)),
            "prot": AnnData(protein[:160].astype(np.float32), obs=pd.DataFrame(index=names[:160])),
        }
    )
    if gaps:
        age[::5] = np.nan
    mdata.obs["age"] = pd.Series(age, index=names)
    return mdata


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("way", WAYS)
def test_every_assay_is_imputed(way: str, gaps: bool) -> None:
    mdata, (cls, arguments) = cohort(gaps), WAYS[way]
    cls.setup_mudata(mdata, likelihoods={"rna": "nb", "prot": "normal"}, continuous_covariate_keys=["age"])
    model = cls(mdata, **arguments)
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False)
    for modality in model.modalities:
        found = model.impute(modality, n_draws=20)
        assert found.shape == (N, model.schema[modality].n_vars)
        assert np.isfinite(found.X).all() and (found.layers["lower"] <= found.layers["upper"]).all()
        assert model.sample(modality, n_samples=2).shape[:2] == (2, N)
    assert np.isfinite(model.calibration_report()["crps"]).all()


@pytest.mark.parametrize("way", ["closed form", "pcca"])
def test_the_effect_of_a_covariate_is_in_the_prediction(way: str) -> None:
    mdata, (cls, arguments) = cohort(gaps=True), WAYS[way]
    cls.setup_mudata(mdata, likelihoods={"rna": "nb", "prot": "normal"}, continuous_covariate_keys=["age"])
    model = cls(mdata, **arguments)
    model.train(enable_progress_bar=False)
    unmeasured = model.impute("prot")[160:]
    age = mdata.obs["age"][160:].to_numpy()
    known = ~np.isnan(age)
    expected = EFFECT * (age[known] - 60) / 10
    error = unmeasured.X[known].mean(1) - expected
    assert (error**2).mean() < 0.05 * expected.var()
    centre = mdata["prot"].X.mean()
    assert np.abs(unmeasured.X[~known] - centre).max() < EFFECT / 3  # at the average age
