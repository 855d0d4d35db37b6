"""A small cohort with every difficulty, and models trained on it for a few epochs."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus

EPOCHS = 3
N_OBS = 60


def build_cohort() -> MuData:
    """Three assays of which two are often missing, with single NaN, reads without coverage, and obs columns."""
    mdata = correlated_gaussian(
        N_OBS,
        modalities=["rna", "mirna", "meth"],
        n_latent=3,
        n_vars={"rna": 12, "mirna": 8, "meth": 6},
        likelihoods={"mirna": "nb", "meth": "betabinomial"},
        missing={"mirna": 0.3, "meth": 0.3},
        nan_fraction={"rna": 0.1},
        n_batches=2,
        seed=1,
    ).mdata
    rna = mdata["rna"]
    rna.layers["log2"] = rna.X + 10 * np.arange(rna.n_vars, dtype=np.float32)  # a level by which a feature is known
    rna.X = np.full(rna.shape, -1, dtype=np.float32)  # not what is registered
    meth = mdata["meth"]
    for layer in ("methylated", "coverage"):
        meth.layers[layer][:3, 0] = 0  # no reads at all: not measured
    mirna = mdata["mirna"]
    mirna.obs["passed"] = np.arange(mirna.n_obs) % 2 == 0
    mirna.obs["lane"] = np.arange(mirna.n_obs)
    mirna.obs["site"] = [f"site {i % 3}" for i in range(mirna.n_obs)]
    mirna.obs["source"] = "a column of the user"
    mirna.var["chromosome"] = [f"chr{i}" for i in range(mirna.n_vars)]
    return mdata


def fit(cls: type, mdata: MuData, backbone: str = "auto", **kwargs: object) -> CoVAE | MMVAEPlusPlus:
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    cls.setup_mudata(
        mdata,
        likelihoods={"mirna": "nb", "meth": "betabinomial"},
        layers={"rna": "log2", "meth": "methylated"},
        coverage_layers={"meth": "coverage"},
        batch_key="batch",
    )
    model = cls(mdata, backbone=backbone)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(max_epochs=EPOCHS, accelerator="cpu", enable_progress_bar=False, **{"train_size": 0.7, **kwargs})
    return model


@pytest.fixture(scope="session")
def covae() -> CoVAE:
    """Trained; tests must not change its data."""
    return fit(CoVAE, build_cohort())


@pytest.fixture(scope="session")
def mmvaepp() -> MMVAEPlusPlus:
    """Trained; tests must not change its data."""
    return fit(MMVAEPlusPlus, build_cohort())


@pytest.fixture(scope="session")
def uncalibrated() -> MMVAEPlusPlus:
    """A network alone, for which too few samples were held out; tests must not change its data."""
    return fit(MMVAEPlusPlus, build_cohort(), backbone="network")


@pytest.fixture(params=["covae", "mmvaepp"])
def model(request: pytest.FixtureRequest) -> CoVAE | MMVAEPlusPlus:
    """Each of the models in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def mdata(covae: CoVAE) -> MuData:
    """The cohort, for a test to change."""
    return covae.adata.copy()


@pytest.fixture
def shuffled() -> Callable[[MuData], MuData]:
    """A MuData with samples, rows of each modality and features in another order, and features nobody registered."""

    def shuffle(mdata: MuData) -> MuData:
        rng = np.random.default_rng(0)
        modalities = {}
        for name, adata in mdata.mod.items():
            moved = adata[rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)].copy()
            layers = [layer for layer in moved.layers if layer]  # newer anndata lists X as None
            extra = AnnData(
                np.zeros((moved.n_obs, 1), np.float32),
                obs=pd.DataFrame(index=moved.obs_names),
                var=pd.DataFrame(index=[f"{name}_unregistered"]),
                layers={layer: np.ones((moved.n_obs, 1), np.float32) for layer in layers},
            )
            joined = AnnData(
                np.hstack([extra.X, moved.X]),
                obs=pd.DataFrame(index=moved.obs_names),
                var=pd.DataFrame(index=[*extra.var_names, *moved.var_names]),
                layers={layer: np.hstack([extra.layers[layer], moved.layers[layer]]) for layer in layers},
            )
            modalities[name] = joined
        order = rng.permutation(len(modalities))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            moved = MuData({list(modalities)[i]: modalities[list(modalities)[i]] for i in order})
        moved.obs["batch"] = mdata.obs["batch"].reindex(moved.obs_names)
        return moved

    return shuffle
