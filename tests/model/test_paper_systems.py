"""The systems of the papers: what all of their classes do, from setup to disk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scvi
import torch
from mudata import MuData

import omicvae
from omicvae.model import MMVAE, MVAE, MoPoE
from omicvae.model._shared_private import SharedPrivateModel

N_VARS = {"rna": 12, "meth": 9, "prot": 7}
LIKELIHOODS = {"rna": "nb", "meth": "beta", "prot": "normal"}
SYSTEMS: dict[str, tuple[type[SharedPrivateModel], dict[str, Any]]] = {
    "mvae": (MVAE, {"n_latent": 3}),
    "mvae structured": (MVAE, {"n_latent": 3, "structured": True, "n_private": 2}),
    "mmvae": (MMVAE, {"n_latent": 3}),
    "mmvae structured": (MMVAE, {"n_latent": 3, "structured": True, "n_private": {"rna": 3, "meth": 1, "prot": 2}}),
    "mmvae laplace": (MMVAE, {"n_latent": 3, "distribution": "laplace", "n_samples": 2}),
    "mmvae plus": (omicvae.model.MMVAEPlus, {"n_shared": 3, "n_private": {"rna": 3, "meth": 1, "prot": 2}}),
    "mmvae plus laplace": (omicvae.model.MMVAEPlus, {"n_shared": 3, "distribution": "laplace", "n_samples": 2}),
    "dmvae": (omicvae.model.DMVAE, {"n_shared": 3, "n_private": 2}),
    "jmvae": (omicvae.model.JMVAE, {"n_latent": 3}),
    "mvtcae": (omicvae.model.MVTCAE, {"n_latent": 3}),
    "mopoe": (MoPoE, {"n_latent": 3}),
    "mopoe structured": (MoPoE, {"n_latent": 3, "structured": True, "n_private": 2, "private": "zero"}),
}
QUIET = {"accelerator": "cpu", "enable_progress_bar": False}


def cohort() -> MuData:
    """Counts, proportions with gaps, continuous values; samples lack whole assays; classes with gaps."""
    mdata = omicvae.datasets.correlated_gaussian(
        60,
        modalities=list(N_VARS),
        n_latent=3,
        n_vars=N_VARS,
        likelihoods={"rna": "nb", "meth": "beta"},
        missing={"rna": 0.2, "meth": 0.3, "prot": 0.3},
        nan_fraction={"meth": 0.1},
        library_sd=0.3,
        n_batches=2,
        seed=4,
    ).mdata
    mdata.obs["grade"] = np.resize(["low", "high", None], mdata.n_obs)
    return mdata


def train(name: str, mdata: MuData, epochs: int = 1, **arguments: Any) -> SharedPrivateModel:
    cls, defaults = SYSTEMS[name]
    scvi.settings.seed = 0
    cls.setup_mudata(mdata, likelihoods=LIKELIHOODS, batch_key="batch", labels_key="grade")
    model = cls(mdata, network={"n_hidden": 8, "n_layers": 1}, **(defaults | arguments))
    model.train(max_epochs=epochs, **QUIET)
    return model


@pytest.fixture(scope="module", params=list(SYSTEMS))
def system(request: pytest.FixtureRequest) -> SharedPrivateModel:
    return train(request.param, cohort(), label_weight=3.0)


def test_latents(system: SharedPrivateModel):
    """Named, finite, NaN where a private assay is absent; private blocks are empty in plain systems."""
    mdata, shape = system.adata, system.module.shape
    joint = system.get_latent_representation()
    shared = system.get_latent_representation(kind="shared")
    total = shape.shared + sum(shape.private.values())
    assert joint.shape == (60, total) and shared.shape == (60, 3)
    assert np.isfinite(joint.to_numpy()).all() and len(set(joint.columns)) == total
    np.testing.assert_array_equal(joint[shared.columns], shared)
    for m in N_VARS:
        private = system.get_latent_representation(kind="private", modality=m)
        assert private.shape == (60, shape.private[m])
        absent = ~mdata.obs_names.isin(mdata[m].obs_names)
        np.testing.assert_array_equal(private.isna().all(axis=1)[absent], True)
        assert np.isfinite(private[~absent].to_numpy()).all()
    mean, variance = system.get_latent_representation(return_dist=True)
    np.testing.assert_array_equal(mean, joint)
    assert (variance.to_numpy() >= 0).all()
    draws = system.get_latent_representation(n_samples=4)
    assert draws.shape == (4, 60, total) and np.isfinite(draws).all()


def test_predictions(system: SharedPrivateModel):
    """Every assay of every sample, from its other assays or from its batch alone."""
    for m, p in N_VARS.items():
        for found in (system.impute(m, level=None), system.get_denoised(m, level=None)):
            assert found.shape == (60, p)
            assert np.isfinite(found.X).all() and (found.layers["sd"] > 0).all()
        assert np.isfinite(system.impute(m, given=[], level=None, indices=[0, 5]).X).all()
        assert np.isfinite(system.sample(m, n_samples=2, indices=[3, 4])).all()
        assert system.impute(m, indices=[], level=None).shape == (0, p)
    found = system.impute("prot", indices=[1, 2, 3])
    assert (found.layers["lower"] <= found.layers["upper"]).all()


def test_bounds(system: SharedPrivateModel):
    """Finite; the importance-weighted bound does not depend on the batch size by more than its own noise."""
    assert np.isfinite(system.get_elbo())
    assert all(np.isfinite(v) for v in system.get_reconstruction_error().values())
    values = [system.get_marginal_ll(n_samples=200, batch_size=size) for size in (7, 60)]
    repeated = [system.get_marginal_ll(n_samples=200) for _ in range(4)]
    assert abs(values[0] - values[1]) < 6 * np.std(repeated, ddof=1) + 0.5
    assert np.isfinite(values).all()


def test_saved_and_loaded(system: SharedPrivateModel, tmp_path):
    """The same class, arguments, latents and bounds; on data without one of the assays, too."""
    system.save(tmp_path / "model")
    loaded = type(system).load(tmp_path / "model", system.adata)
    np.testing.assert_array_equal(loaded.get_latent_representation(), system.get_latent_representation())
    assert loaded.module.shape == system.module.shape
    for seed in (1,):
        values = []
        for model in (system, loaded):
            torch.manual_seed(seed)
            values.append(model.get_elbo())
        assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_embedded(system: SharedPrivateModel):
    mdata = system.adata.copy()
    omicvae.tl.embed(mdata, system)
    key = system.default_key
    np.testing.assert_array_equal(mdata.obsm[f"X_{key}"], system.get_latent_representation(return_numpy=True))
    assert mdata.obsm[f"X_{key}_shared"].shape == (60, 3)
    assert mdata["prot"].layers[key].shape == mdata["prot"].shape


def test_history_is_recorded(system: SharedPrivateModel):
    for name in ("train_loss", "elbo_train", "kl_local_train", "reconstruction_loss_rna_train"):
        assert np.isfinite(system.history[name].to_numpy(dtype=float)).all()


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (MVAE, {"n_latent": 0}, "n_latent must be a whole number of at least 1, got 0"),
        (MVAE, {"n_latent": 2.5}, "n_latent must be a whole number"),
        (MVAE, {"n_latent": True}, "n_latent must be a whole number"),
        (MVAE, {"n_subsets": -1}, "n_subsets must be a whole number of at least 0, got -1"),
        (MVAE, {"n_private": 3}, "n_private=3 needs structured=True"),
        (MVAE, {"structured": True, "n_private": {"rn": 3}}, "n_private names modality 'rn'"),
        (MVAE, {"structured": True, "n_private": 0}, "positive whole numbers, got 0 for"),
        (MMVAE, {"distribution": "cauchy"}, "distribution must be 'normal' or 'laplace', got 'cauchy'"),
        (MMVAE, {"n_samples": 0}, "n_samples must be a whole number of at least 1, got 0"),
        (MMVAE, {"private": "zero"}, "private='zero' needs structured=True"),
        (MMVAE, {"structured": True, "private": "mean"}, "private must be 'prior' or 'zero', got 'mean'"),
        (omicvae.model.MMVAEPlus, {"n_shared": 0}, "n_shared must be a whole number of at least 1, got 0"),
        (omicvae.model.MMVAEPlus, {"distribution": "t"}, "distribution must be 'normal' or 'laplace', got 't'"),
        (omicvae.model.MMVAEPlus, {"n_samples": 1.5}, "n_samples must be a whole number of at least 1, got 1.5"),
        (omicvae.model.MMVAEPlus, {"n_private": {"rn": 3}}, "n_private names modality 'rn'"),
        (omicvae.model.DMVAE, {"n_shared": "many"}, "n_shared must be a whole number of at least 1, got 'many'"),
        (omicvae.model.DMVAE, {"n_private": -1}, "positive whole numbers, got -1 for"),
        (omicvae.model.DMVAE, {"label_weight": 0}, "label_weight must be 'auto', None or a positive number, got 0"),
        (omicvae.model.JMVAE, {"n_latent": 0}, "n_latent must be a whole number of at least 1, got 0"),
        (omicvae.model.JMVAE, {"alpha": 0}, "alpha must be a positive number, got 0"),
        (omicvae.model.JMVAE, {"alpha": float("nan")}, "alpha must be a positive number, got nan"),
        (omicvae.model.JMVAE, {"alpha": "auto"}, "alpha must be a positive number, got 'auto'"),
        (omicvae.model.MVTCAE, {"alpha": 1.5}, "alpha must be 'auto' or a number from 0 to 1, got 1.5"),
        (omicvae.model.MVTCAE, {"alpha": float("nan")}, "alpha must be 'auto' or a number from 0 to 1, got nan"),
        (omicvae.model.MVTCAE, {"alpha": True}, "alpha must be 'auto' or a number from 0 to 1, got True"),
        (MoPoE, {"private": "none", "structured": True}, "private must be 'prior' or 'zero', got 'none'"),
        (MoPoE, {"label_weight": -1.0}, "label_weight must be 'auto', None or a positive number, got -1.0"),
        (MoPoE, {"label_weight": float("nan")}, "label_weight must be 'auto', None or a positive number"),
        (MoPoE, {"label_weight": "automatic"}, "label_weight must be 'auto', None or a positive number"),
    ],
)
def test_arguments_are_checked(cls: type[SharedPrivateModel], arguments: dict[str, Any], message: str):
    mdata = cohort()
    cls.setup_mudata(mdata, likelihoods=LIKELIHOODS, labels_key="grade")
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        cls(mdata, **arguments)


@pytest.mark.parametrize("cls", [MVAE, MMVAE, MoPoE])
def test_more_is_refused(cls: type[SharedPrivateModel]):
    """Labels that were not registered, a flag that is none, private latents that are not there."""
    mdata = cohort()
    cls.setup_mudata(mdata, likelihoods=LIKELIHOODS)
    with pytest.raises(ValueError, match="labels_key"):
        cls(mdata, label_weight="auto")
    with pytest.raises(TypeError, match="structured must be True or False, got 'yes'"):
        cls(mdata, structured="yes")


@pytest.mark.parametrize("cls", [MVAE, MMVAE, MoPoE])
def test_default_sizes(cls: type[SharedPrivateModel]):
    """Few samples: 10 latents; structured: 8 shared, 4 private each, never more than features."""
    mdata = cohort()
    cls.setup_mudata(mdata, likelihoods=LIKELIHOODS, labels_key="grade")
    assert cls(mdata).module.shape == (10, {"rna": 0, "meth": 0, "prot": 0})
    structured = cls(mdata, structured=True, label_weight="auto")
    assert structured.module.shape == (8, {"rna": 4, "meth": 4, "prot": 4})
    assert structured.module.label_weight == 12.0


LEARNING = [
    "mvae",
    "mvae structured",
    "mmvae",
    "mmvae structured",
    "mmvae laplace",
    "mmvae plus",
    "dmvae",
    "jmvae",
    "mvtcae",
    "mopoe",
    "mopoe structured",
]


@pytest.mark.parametrize("name", LEARNING)
def test_an_assay_is_predicted_from_another(name: str):
    """Linear, correlation .9, noise .3: attainable R2 of a hidden assay is about .75; better than the mean by far."""
    cls, arguments = SYSTEMS[name]
    simulation = omicvae.datasets.correlated_gaussian(
        400, modalities=("a", "b"), n_latent=2, n_vars=10, rho=0.9, noise=0.3, missing=0.1, linear=True, seed=3
    )
    mdata, test = simulation.mdata, np.arange(320, 400)
    cls.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    arguments = {k: v for k, v in arguments.items() if k != "n_private"} | {"network": {"n_hidden": 16, "n_layers": 1}}
    if arguments.get("structured"):
        arguments["n_private"] = 2
    model = cls(mdata, **arguments)
    split = [np.arange(320), np.array([], dtype=int), test]
    model.train(
        max_epochs=30,
        batch_size=64,
        datasplitter_kwargs={"external_indexing": split},
        plan_kwargs={"lr": 1e-2},
        **QUIET,
    )
    for target in ("a", "b"):
        found = model.impute(target, indices=test, level=None)
        known = (found.obs["source"] == "imputed").to_numpy()
        truth = simulation.truth.complete[target].to_numpy()[test][known]
        spread = ((truth - truth.mean(0)) ** 2).sum(0)
        r2 = np.median(1 - ((truth - found.X[known]) ** 2).sum(0) / spread)
        assert r2 > 0.3, (target, r2)


@pytest.mark.parametrize("cls", [MVAE, MMVAE, MoPoE])
def test_labels_shape_the_shared_latents(cls: type[SharedPrivateModel]):
    """A class that one feature of twenty shows: two latents follow the others, unless the label term asks for it."""
    rng = np.random.default_rng(0)
    mdata = omicvae.datasets.correlated_gaussian(
        200, modalities=("a", "b"), n_latent=4, n_vars=20, rho=0.9, noise=0.3, linear=True, seed=6
    ).mdata
    y = rng.integers(0, 2, 200)
    for m in ("a", "b"):
        mdata[m].X[:, 0] = 2 * y - 1 + 0.3 * rng.normal(size=200)
    mdata.obs["class"] = np.where(y == 1, "yes", "no")
    cls.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"}, labels_key="class")
    accuracy = {}
    for weight in (None, 100.0):
        scvi.settings.seed = 0
        model = cls(mdata, n_latent=2, structured=True, n_private=2, label_weight=weight, network={"n_hidden": 16})
        model.train(max_epochs=20, batch_size=64, early_stopping=False, plan_kwargs={"lr": 1e-2}, **QUIET)
        z = torch.tensor(model.get_latent_representation(kind="shared", return_numpy=True))
        design = torch.cat([z, torch.ones(len(z), 1)], 1)
        fitted = design @ torch.linalg.lstsq(design, torch.tensor(2.0 * y[:, None] - 1).float()).solution
        accuracy[weight] = ((fitted[:, 0] > 0).numpy() == y).mean()
    assert accuracy[100.0] > 0.9 and accuracy[100.0] > accuracy[None] + 0.1, accuracy
