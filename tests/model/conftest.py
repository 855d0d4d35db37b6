"""Tiny models, trained for two epochs on a simulated cohort whose samples lack whole assays."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.model import DMVAE, JMVAE, MVTCAE, CoVAE, MMVAEPlus, MMVAEPlusPlus
from omicvae.model._base import MultimodalModel

N_VARS = {"rna": 12, "meth": 9, "prot": 7}
LIKELIHOODS = {"rna": "nb", "meth": "beta", "prot": "normal"}
KINDS: Mapping[str, tuple[type[MultimodalModel], dict[str, Any]]] = {
    "covae": (CoVAE, {"n_latent": 3}),
    "joint_encoder": (CoVAE, {"n_latent": 3, "posterior": "joint_encoder"}),
    "mmvaepp": (MMVAEPlusPlus, {"n_shared": 3, "n_private": 2}),
    "mmvaepp_published": (MMVAEPlusPlus, {"n_shared": 3, "n_private": 2, "screening": False}),
    "mmvaeplus": (MMVAEPlus, {"n_shared": 3, "n_private": 2}),
    "dmvae": (DMVAE, {"n_shared": 3, "n_private": 2}),
    "jmvae": (JMVAE, {"n_latent": 3}),
    "mvtcae": (MVTCAE, {"n_latent": 3}),
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


@pytest.fixture(scope="session")
def covae() -> CoVAE:
    return train("covae", make_mdata())  # type: ignore[return-value]


@pytest.fixture(scope="session")
def saved(covae: CoVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Read by tests, not written."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    covae.save(folder)
    return folder


class SetupCheck:
    """Set up data, and read the message where they are refused."""

    likelihoods = {"rna": "nb", "meth": "beta", "atac": "bernoulli", "prot": "normal"}

    def adata(self, x: np.ndarray, name: str, start: int = 0) -> AnnData:
        obs = pd.DataFrame(index=[f"s{i + start:02d}" for i in range(len(x))])
        return AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"{name}{j}" for j in range(x.shape[1])]))

    def accepted(self, mdata: MuData, **arguments: Any) -> CoVAE:
        CoVAE.setup_mudata(mdata, **{"likelihoods": self.likelihoods} | arguments)
        return CoVAE(mdata)

    def refused(self, mdata: Any, *words: str, error: type[Exception] = ValueError, **arguments: Any) -> str:
        """The message: one paragraph that holds all of ``words``."""
        with pytest.raises(error) as caught:
            CoVAE.setup_mudata(mdata, **{"likelihoods": self.likelihoods} | arguments)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 500
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"
        return message

    def follow(self, message: str, pattern: str, mdata: MuData) -> None:
        """Do what the message says: run the code that it proposes."""
        cure = re.search(pattern, message)
        assert cure is not None, message
        exec(cure.group(1), {"mdata": mdata, "np": np, "pd": pd})


@pytest.fixture(scope="session")
def check() -> SetupCheck:
    return SetupCheck()


@pytest.fixture
def mdata(check: SetupCheck) -> MuData:
    """Four assays of twelve samples ``s00``, ``s01``, ...; protein lacks the first two."""
    rng = np.random.default_rng(0)
    mdata = MuData(
        {
            "rna": check.adata(rng.poisson(5, (12, 8)), "g"),
            "meth": check.adata(rng.uniform(0.05, 0.95, (12, 6)), "cg"),
            "atac": check.adata(rng.integers(0, 2, (12, 5)), "peak"),
            "prot": check.adata(rng.normal(size=(10, 4)), "p", start=2),
        }
    )
    mdata["atac"].X[0], mdata["atac"].X[1:, 0] = [1, 0, 1, 0, 1], 0  # no peak is constant, no sample empty
    mdata["atac"].X[1:, 1] = 1
    mdata.obs["center"] = list("AABBAABBAABB")
    mdata.obs["age"] = np.linspace(40, 70, 12)
    return mdata
