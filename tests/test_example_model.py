"""The model that the developer guide prints, and a tutorial trains, is a complete one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from omicvae import tl
from omicvae.datasets import correlated_gaussian

FILE = Path(__file__).resolve().parents[1] / "docs" / "developer" / "example_model.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example_model", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["example_model"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model(example: ModuleType):
    mdata = correlated_gaussian(
        60, modalities=["rna", "mirna", "rppa"], n_vars=6, likelihoods={"mirna": "nb"}, missing=0.3, seed=1
    ).mdata
    example.ProductOfExperts.setup_mudata(mdata)
    fitted = example.ProductOfExperts(mdata, n_latent=3)
    fitted.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return fitted


def test_every_assay_narrows_the_posterior_and_none_leaves_the_prior(model):
    def variance(given: list[str]) -> np.ndarray:
        found = model.get_latent_representation(given=given, return_dist=True, return_numpy=True)
        return np.asarray(found[1])

    before = variance([])
    np.testing.assert_allclose(before, 1.0, rtol=1e-6)
    for given in (["rna"], ["rna", "mirna"], ["rna", "mirna", "rppa"]):
        after = variance(given)
        present = np.isin(model.adata.obs_names, model.adata[given[-1]].obs_names)
        assert (after[present] < before[present]).all()
        np.testing.assert_allclose(after[~present], before[~present], rtol=1e-5)
        before = after


def test_it_imputes_completes_saves_and_loads(example: ModuleType, model, tmp_path: Path):
    found = model.impute("rppa", level=None)
    assert np.isfinite(found.X).all()
    complete = tl.complete(model.adata, model)
    assert all(adata.n_obs == model.adata.n_obs for adata in complete.mod.values())
    model.save(tmp_path / "model")
    loaded = example.ProductOfExperts.load(tmp_path / "model", model.adata, accelerator="cpu")
    latent = (m.get_latent_representation(return_numpy=True) for m in (model, loaded))
    np.testing.assert_allclose(*latent, rtol=1e-5, atol=1e-6)
