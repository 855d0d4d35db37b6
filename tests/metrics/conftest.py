"""Models of every kind with linear decoders, on continuous data: their likelihoods have a closed form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from omicvae.model import (
    DMVAE,
    JMVAE,
    MMVAE,
    MVAE,
    MVTCAE,
    CoVAE,
    MMVAEPlus,
    MMVAEPlusPlus,
    MoPoE,
    ProbabilisticCCA,
)
from omicvae.model._model import Model

N_VARS = {"a": 5, "b": 4, "c": 3}
STRUCTURED = {"n_shared": 2, "n_private": 1}
KINDS: Mapping[str, tuple[type[Model], dict[str, Any]]] = {
    "covae": (CoVAE, {"n_latent": 2, "backbone": "network"}),
    "covae_moments": (CoVAE, {"n_latent": 2, "backbone": "moments"}),
    "covae_published": (CoVAE, {"n_latent": 2, "posterior": "joint_encoder"}),
    "mmvaepp": (MMVAEPlusPlus, STRUCTURED),
    "mmvaepp_published": (MMVAEPlusPlus, STRUCTURED | {"screening": False}),
    "mmvaepp_zero": (MMVAEPlusPlus, STRUCTURED | {"screening": False, "private": "zero"}),
    "mvae": (MVAE, {"n_latent": 2}),
    "mmvae": (MMVAE, {"n_latent": 2}),
    "mopoe": (MoPoE, {"n_latent": 2}),
    "mmvaeplus": (MMVAEPlus, STRUCTURED),
    "dmvae": (DMVAE, STRUCTURED),
    "jmvae": (JMVAE, {"n_latent": 2}),
    "mvtcae": (MVTCAE, {"n_latent": 2}),
}


def linear_mdata(n_obs: int = 40, seed: int = 0) -> MuData:
    """Linear functions of two common factors and one of each assay; samples in every pattern of missing assays."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(n_obs, 2))
    names = np.array([f"s{i:03d}" for i in range(n_obs)])
    mods = {}
    for k, (m, p) in enumerate(N_VARS.items()):
        z = np.concatenate([common, rng.normal(size=(n_obs, 1))], 1)
        x = z @ rng.normal(size=(3, p)) + 0.7 * rng.normal(size=(n_obs, p))
        x[rng.random(x.shape) < 0.05] = np.nan
        here = (np.arange(n_obs) + k) % 4 != 0  # each assay lacks other samples, some have only one left
        here[1:4] = np.eye(3, dtype=bool)[:, k]
        adata = AnnData(x.astype(np.float32), var=pd.DataFrame(index=[f"{m}{j}" for j in range(p)]))
        adata.obs_names = names
        mods[m] = adata[here].copy()
    return MuData(mods)


def train(kind: str) -> Model:
    cls, arguments = KINDS[kind]
    scvi.settings.seed = 0
    mdata = linear_mdata()
    cls.setup_mudata(mdata, likelihoods=dict.fromkeys(N_VARS, "normal"))
    model = cls(mdata, network={"n_layers": 0}, **arguments)  # type: ignore[call-arg]
    model.train(max_epochs=3, accelerator="cpu", enable_progress_bar=False, calibration_size=0.0)
    return model


@pytest.fixture(scope="session")
def trained() -> dict[str, Model]:
    """Filled as models are asked for; tests leave them as they are."""
    return {}


@pytest.fixture(scope="session", params=list(KINDS))
def linear_model(request: pytest.FixtureRequest, trained: dict[str, Model]) -> Model:
    trained.setdefault(request.param, train(request.param))
    return trained[request.param]


@pytest.fixture(scope="session")
def covae(trained: dict[str, Model]) -> CoVAE:
    trained.setdefault("covae", train("covae"))
    return trained["covae"]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def jmvae(trained: dict[str, Model]) -> JMVAE:
    trained.setdefault("jmvae", train("jmvae"))
    return trained["jmvae"]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def dmvae(trained: dict[str, Model]) -> DMVAE:
    trained.setdefault("dmvae", train("dmvae"))
    return trained["dmvae"]  # type: ignore[return-value]


@pytest.fixture(scope="session")
def pcca() -> ProbabilisticCCA:
    mdata = linear_mdata()
    ProbabilisticCCA.setup_mudata(mdata, likelihoods=dict.fromkeys(N_VARS, "normal"))
    model = ProbabilisticCCA(mdata, n_factors=3)
    model.train()
    return model
