"""Loadings: exact for a linear model, derivatives for networks, averages over samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA
from omicvae.tl import loadings

Trained = CoVAE | MMVAEPlusPlus


@pytest.fixture(scope="module")
def pcca() -> ProbabilisticCCA:
    scvi.settings.seed = 0
    mdata = correlated_gaussian(
        120, modalities=["rna", "meth", "prot"], n_latent=3, n_vars=12, missing={"prot": 0.3}, n_batches=2,
        likelihoods={"rna": "nb", "meth": "beta"}, seed=1,
    ).mdata  # fmt: skip
    ProbabilisticCCA.setup_mudata(mdata, likelihoods={"rna": "nb", "meth": "beta"}, batch_key="batch")
    model = ProbabilisticCCA(mdata, n_factors=5)
    model.train(max_iter=20)
    return model


def test_joint_loadings_of_probabilistic_cca_are_its_loading_matrix(pcca: ProbabilisticCCA) -> None:
    for m in pcca.modalities:
        found = loadings(pcca, m, kind="joint", copy=True)
        np.testing.assert_allclose(found, pcca.module.loadings(m)[0], atol=1e-6)
        assert list(found) == list(pcca.latent_names["joint"])
        assert list(found.index) == list(pcca.adata[m].var_names)


def test_shared_and_private_ones_are_its_loadings_along_their_directions(pcca: ProbabilisticCCA) -> None:
    for m in pcca.modalities:
        directions = torch.cat([pcca.module.directions("shared"), pcca.module.directions("private", m)], 1)
        expected = pcca.module.loadings(m)[0].float() @ directions
        np.testing.assert_allclose(loadings(pcca, m, copy=True), expected, atol=1e-5)


def test_they_are_the_response_of_the_decoder_to_a_reported_latent(model: Trained) -> None:
    """Central differences of one sample's decoded mean, one prior standard deviation of a latent being the unit.

    The step is 0.01 in float32: rounding leaves 1e-7 / 0.01 of values of order 1, curvature 1e-4.
    """
    for m in model.modalities:
        cohort = model._cohort(None)
        sample = int(np.flatnonzero(cohort.present[:, model.modalities.index(m)])[3])
        batch = cohort.batch([sample])
        readout = model.module.readout("joint", None)
        found = loadings(model, m, kind="joint", indices=[sample], copy=True)
        with torch.no_grad():
            z = model.module.posterior(model.module.encode(batch), batch, batch.present).mean
            design = model.module.design(batch, m)
            for name in list(found)[:3]:
                k = list(model.latent_names["joint"]).index(name)
                unit = torch.zeros(readout.matrix.shape[1])
                unit[k] = 1  # joint latents have variance 1 a priori
                step = 0.01 * torch.linalg.solve(readout.matrix.mT, unit)
                ends = [model.module.standardised_mean(m, z + s * step, design) for s in (1, -1)]
                np.testing.assert_allclose(found[name], (ends[0] - ends[1])[0] / 0.02, atol=2e-3)


def test_one_column_a_shared_and_private_latent(model: Trained) -> None:
    for m in model.modalities:
        both = loadings(model, m, copy=True)
        shared, private = (loadings(model, m, kind=k, copy=True) for k in ("shared", "private"))
        pd.testing.assert_frame_equal(both, pd.concat([shared, private], axis=1), atol=1e-6)
        assert list(shared) == list(model.latent_names["shared"])
        assert list(private) == list(model.latent_names[f"private_{m}"])
        assert np.isfinite(both).all(axis=None)


def test_they_are_averages_over_samples_that_have_the_modality(model: Trained) -> None:
    m = "mirna"
    has = np.flatnonzero(model.adata.obs_names.isin(model.adata[m].obs_names))
    lacks = np.setdiff1d(np.arange(model.adata.n_obs), has)
    one, two = (loadings(model, m, indices=[i], copy=True) for i in has[:2])
    together = loadings(model, m, indices=[*has[:2], *lacks[:3]], copy=True)
    np.testing.assert_allclose(together, (one + two) / 2, atol=1e-5)
    with pytest.raises(ValueError, match="none of the samples has modality 'mirna'"):
        loadings(model, m, indices=lacks)


def test_they_do_not_depend_on_any_order(model: Trained, shuffled: Callable[[MuData], MuData]) -> None:
    query = shuffled(model.adata)
    for m in model.modalities:
        expected = loadings(model, m, copy=True)
        pd.testing.assert_frame_equal(loadings(model, m, mdata=query), expected, atol=1e-4)
        written = query[m].varm[f"{model.default_key}_loadings"]
        assert list(written.index) == list(query[m].var_names)
        pd.testing.assert_frame_equal(written.loc[expected.index], expected, atol=1e-4, check_names=False)
        assert written.loc[f"{m}_unregistered"].isna().all()


def test_every_kind_of_data_has_derivatives() -> None:
    """Also where the mean of a likelihood is built from several heads."""
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(50)]
    depth = np.exp(0.5 * rng.normal(size=(50, 1)))
    values = {
        "poisson": rng.poisson(9 * depth, (50, 6)),
        "zinb": rng.poisson(9 * depth, (50, 6)) * (rng.random((50, 6)) < 0.7),
        "bernoulli": rng.random((50, 6)) < depth / (1 + depth),
        "unit_normal": rng.normal(size=(50, 6)) + np.log(depth),
    }
    obs = pd.DataFrame(index=names)
    mods = {
        k: AnnData(x.astype(np.float32), obs=obs, var=pd.DataFrame(index=[f"{k}{j}" for j in range(6)]))
        for k, x in values.items()
    }
    mdata = MuData(mods)
    CoVAE.setup_mudata(mdata, likelihoods={k: k for k in values})
    model = CoVAE(mdata, n_latent=2, backbone="network")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    for k in values:
        found = loadings(model, k, kind="joint", copy=True)
        assert found.shape == (6, 2)
        assert np.isfinite(found).all(axis=None)
        assert found.abs().to_numpy().max() > 0.01


def test_they_are_written_on_request_and_survive_a_file(covae: CoVAE, mdata: MuData, tmp_path: Path) -> None:
    loadings(covae, "rna", mdata=mdata, copy=True)
    assert not mdata["rna"].varm.keys()
    table = loadings(covae, "rna", mdata=mdata, key_added="mine")
    assert list(mdata["rna"].varm) == ["mine_loadings"]
    mdata.write_h5mu(tmp_path / "with.h5mu")
    again = mudata.read_h5mu(tmp_path / "with.h5mu")["rna"].varm["mine_loadings"]
    pd.testing.assert_frame_equal(again, table, check_names=False)


def test_wrong_arguments_are_refused(covae: CoVAE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"not trained on a modality 'mirma'.*Did you mean 'mirna'"):
        loadings(covae, "mirma")
    with pytest.raises(ValueError, match="kind must be"):
        loadings(covae, "rna", kind="both")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects a MuData, got AnnData"):
        loadings(covae, "rna", mdata=covae.adata["rna"])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        loadings(CoVAE(covae.adata), "rna")
    covae.save(tmp_path / "model")
    alone = CoVAE.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="loaded without data"):
        loadings(alone, "rna")
    pd.testing.assert_frame_equal(
        loadings(alone, "rna", mdata=covae.adata, copy=True), loadings(covae, "rna", copy=True), atol=1e-5
    )
