"""Tiny models, trained for two epochs on a simulated cohort whose samples lack whole assays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import scvi
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._base import MultimodalModel

N_VARS = {"rna": 12, "meth": 9, "prot": 7}
LIKELIHOODS = {"rna": "nb", "meth": "beta", "prot": "normal"}
KINDS: Mapping[str, tuple[type[MultimodalModel], dict[str, Any]]] = {
    "covae": (CoVAE, {"n_latent": 3}),
    "joint_encoder": (CoVAE, {"n_latent": 3, "posterior": "joint_encoder"}),
    "mmvaepp": (MMVAEPlusPlus, {"n_shared": 3, "n_private": 2}),
}


def make_mdata(n_obs: int = 60) -> MuData:
    """Counts, proportions with single missing values, and continuous values; every sample lacks something or nothing."""
    simulation = correlated_gaussian(
        n_obs,
        modalities=list(N_VARS),
        n_latent=3,
        n_vars=N_VARS,
        likelihoods={"rna": "nb", "meth": "beta"},
        missing={"rna": 0.2, "meth": 0.3, "prot": 0.3},
        nan_fraction={"meth": 0.1},
        library_sd=0.3,
        n_batches=2,
        seed=4,
    )
    return simulation.mdata


def rearrange(mdata: MuData, seed: int = 0, samples: Sequence[str] | None = None) -> MuData:
    """The same measurements with samples, features and modalities in another order; optionally of some samples."""
    rng = np.random.default_rng(seed)
    mods = {}
    for m in reversed(list(mdata.mod)):
        a = mdata[m]
        kept = np.flatnonzero(a.obs_names.isin(mdata.obs_names if samples is None else samples))
        mods[m] = a[rng.permutation(kept)][:, rng.permutation(a.n_vars)].copy()
    other = MuData(mods)
    other.obs = mdata.obs.loc[other.obs_names]
    return other


def train(kind: str, mdata: MuData, **setup: Any) -> MultimodalModel:
    cls, arguments = KINDS[kind]
    scvi.settings.seed = 0
    cls.setup_mudata(mdata, **{"likelihoods": LIKELIHOODS, "batch_key": "batch"} | setup)
    model = cls(mdata, network={"n_hidden": 16, "n_layers": 1}, **arguments)  # type: ignore[call-arg]
    model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="session")
def cohort() -> Callable[..., MuData]:
    return make_mdata


@pytest.fixture(scope="session")
def rearranged() -> Callable[..., MuData]:
    return rearrange


@pytest.fixture(scope="session")
def trained_model() -> Callable[..., MultimodalModel]:
    """A new model for tests that change it or its data."""
    return train


@pytest.fixture(scope="session", params=list(KINDS))
def model(request: pytest.FixtureRequest) -> MultimodalModel:
    """A model of every kind, which tests leave as it is."""
    return train(request.param, make_mdata())
