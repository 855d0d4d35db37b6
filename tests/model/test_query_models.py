"""A reference model on query data says what it says of them through ``mdata=``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from mudata import MuData

from omicvae import tl
from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA

MODALITIES = ("rna", "meth", "prot")


@pytest.fixture
def query(cohort: Callable[..., MuData], rearranged: Callable) -> MuData:
    """Other samples, without protein, features in another order, from a batch that nobody has seen."""
    moved = rearranged(cohort())
    mods = {m: moved[m].copy() for m in ("meth", "rna")}
    for adata in mods.values():
        adata.obs_names = "new_" + adata.obs_names
    mdata = MuData(mods)
    mdata.obs["batch"] = "elsewhere"
    return mdata


@pytest.mark.parametrize("saved", [False, True])
def test_all_getters_speak_of_the_query(model: Any, query: MuData, saved: bool, tmp_path: Path) -> None:
    if saved:
        model.save(tmp_path / "m")
    found = type(model).load_query_data(query, tmp_path / "m" if saved else model, accelerator="cpu")
    assert type(found) is type(model)
    assert found.adata is query
    assert found.modalities == MODALITIES
    pd.testing.assert_frame_equal(
        found.get_latent_representation(), model.get_latent_representation(query), rtol=1e-5, atol=1e-5
    )
    answers = []
    for asked in (lambda: found.impute("prot"), lambda: model.impute("prot", mdata=query)):
        scvi.settings.seed = 1
        answers.append(asked())
    np.testing.assert_allclose(answers[0].X, answers[1].X, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answers[0].layers["upper"], answers[1].layers["upper"], rtol=1e-4, atol=1e-4)
    assert list(answers[0].obs_names) == list(query.obs_names)
    pd.testing.assert_frame_equal(answers[0].obs, answers[1].obs)


def test_tools_take_it_for_what_it_is(covae: CoVAE, query: MuData) -> None:
    found = CoVAE.load_query_data(query, covae)
    complete = tl.complete(query, found, n_draws=20, level=0.5)
    assert complete["prot"].n_obs == query.n_obs
    assert (complete["prot"].obs["source"] == "imputed").all()
    pd.testing.assert_frame_equal(found.trust("rna"), covae.trust("rna"))  # the reference's, measured on its samples
    assert len(tl.variance_explained(found))


def test_it_shares_nothing_with_the_reference(trained_model: Callable, cohort: Callable, query: MuData) -> None:
    reference = trained_model("covae", cohort())
    own, before = reference.adata, reference.get_latent_representation()
    found = CoVAE.load_query_data(query, reference)
    expected = found.get_latent_representation()
    assert reference.adata is own
    pd.testing.assert_frame_equal(reference.get_latent_representation(), before)
    assert len(reference.train_indices) and not len(found.train_indices)
    with torch.no_grad():
        for parameter in reference.module.parameters():
            parameter += 1
    pd.testing.assert_frame_equal(found.get_latent_representation(), expected, rtol=1e-5, atol=1e-5)


def test_a_query_can_be_a_reference_and_be_saved(covae: CoVAE, query: MuData, tmp_path: Path) -> None:
    first = CoVAE.load_query_data(query, covae)
    first.save(tmp_path / "query")
    expected = first.get_latent_representation()
    for again in (CoVAE.load(tmp_path / "query", query), CoVAE.load_query_data(query.copy(), first)):
        pd.testing.assert_frame_equal(again.get_latent_representation(), expected, rtol=1e-5, atol=1e-5)


def test_its_weights_are_not_trained(model: Any, query: MuData) -> None:
    found = type(model).load_query_data(query, model)
    with pytest.raises(RuntimeError, match="train a new model on both cohorts"):
        found.train(max_epochs=1)


def test_probabilistic_cca(cohort: Callable, query: MuData) -> None:
    mdata = cohort()
    ProbabilisticCCA.setup_mudata(mdata, likelihoods={"rna": "nb", "meth": "beta"}, batch_key="batch")
    reference = ProbabilisticCCA(mdata, n_factors=3)
    reference.train(max_iter=5)
    found = ProbabilisticCCA.load_query_data(query, reference)
    pd.testing.assert_frame_equal(found.get_latent_representation(), reference.get_latent_representation(query))
    assert np.isfinite(found.impute("prot").X).all()
    with pytest.raises(RuntimeError, match="train a new model on both cohorts"):
        found.train()


def test_wrong_arguments_are_refused(covae: CoVAE, cohort: Callable, query: MuData, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="takes the query MuData first, got CoVAE"):
        CoVAE.load_query_data(covae, query)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a MMVAEPlusPlus or the folder of one, got CoVAE"):
        MMVAEPlusPlus.load_query_data(query, covae)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="holds no saved omicvae model"):
        CoVAE.load_query_data(query, tmp_path)
    mdata = cohort()
    CoVAE.setup_mudata(mdata, likelihoods={"rna": "nb", "meth": "beta"}, batch_key="batch")
    untrained = CoVAE(mdata)
    with pytest.raises(RuntimeError, match="has not been trained"):
        CoVAE.load_query_data(query, untrained)
    fewer = MuData({"rna": query["rna"][:, 2:].copy(), "meth": query["meth"].copy()})
    with pytest.raises(ValueError, match="'rna' lacks 2 of the 12 features"):
        CoVAE.load_query_data(fewer, covae)
    covae.get_latent_representation()  # still itself
