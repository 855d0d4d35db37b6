"""Shares of variance: the formula, its invariances, and a decomposition that is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA
from omicvae.tl import loadings, variance_explained

Trained = CoVAE | MMVAEPlusPlus
N_VARS, N_SHARED, N_PRIVATE = {"a": 40, "b": 30, "c": 30}, 3, {"a": 2, "b": 3, "c": 2}


def linear_gaussian(n_obs: int = 400, shift: float = 0.0) -> tuple[MuData, pd.DataFrame]:
    """``x_m = s A_m + t_m B_m + noise``, a fifth of the assays and of single values of ``a`` missing; true shares."""
    rng = np.random.default_rng(0)
    shared, batch = rng.normal(size=(n_obs, N_SHARED)), np.arange(n_obs) % 2
    names = np.array([f"s{i}" for i in range(n_obs)])
    mods, truth = {}, {}
    for m, p in N_VARS.items():
        common = shared @ rng.normal(size=(N_SHARED, p))
        own = rng.normal(size=(n_obs, N_PRIVATE[m])) @ rng.normal(size=(N_PRIVATE[m], p))
        x = common + own + 0.7 * rng.normal(size=(n_obs, p))
        variance = x.var(0)
        truth[m] = {"shared": (common.var(0) / variance).mean(), "private": (own.var(0) / variance).mean()}
        x += (
            shift * batch[:, None] * x.std(0)
        )  # the same for all features in their own units, so that their weights stay
        if m == "a":
            x[rng.random(x.shape) < 0.2] = np.nan
        kept = rng.random(n_obs) > 0.2
        obs, var = pd.DataFrame(index=names[kept]), pd.DataFrame(index=[f"{m}{j}" for j in range(p)])
        mods[m] = AnnData(x[kept].astype(np.float32), obs=obs, var=var)
    mdata = MuData(mods)
    mdata.obs["batch"] = pd.Series([f"batch{b}" for b in batch], index=names).reindex(mdata.obs_names)
    return mdata, pd.DataFrame(truth).T


def factors(mdata: MuData, **setup: object) -> ProbabilisticCCA:
    scvi.settings.seed = 0
    ProbabilisticCCA.setup_mudata(mdata, likelihoods=dict.fromkeys(N_VARS, "normal"), **setup)  # type: ignore[arg-type]
    model = ProbabilisticCCA(mdata, n_factors=10)
    model.train(max_iter=60)
    return model


@pytest.fixture(scope="session")
def pcca() -> ProbabilisticCCA:
    return factors(linear_gaussian()[0])


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Modalities by shared, private and total."""
    together = table[table["dimension"] == "all"]
    return together.pivot(index="modality", columns="latents", values="variance_explained")


def everyone(model: Trained | ProbabilisticCCA) -> pd.DataFrame:
    return variance_explained(model, indices=range(model.adata.n_obs))


def test_it_is_the_formula_of_mofa_where_decoders_are_linear(pcca: ProbabilisticCCA) -> None:
    """Written out with numpy from weights and factors, over measured values."""
    table = everyone(pcca)
    for m in N_VARS:
        values = pcca.adata[m].X.astype(float)
        values = (values - np.nanmean(values, 0)) / np.nanstd(values, 0)
        names = pcca.adata[m].obs_names
        for kind, dimensions in (("joint", None), ("shared", ["shared_0"]), ("private", [f"{m}_private_0"])):
            latent = pcca.get_latent_representation(kind=kind, modality=m if kind == "private" else None).loc[names]
            weights = loadings(pcca, m, kind=kind, copy=True)
            chosen = list(weights) if dimensions is None else dimensions
            residual = values - latent[chosen].to_numpy() @ weights[chosen].to_numpy().T
            residual -= np.nanmean(residual, 0)
            expected = 1 - np.nansum(residual**2) / np.nansum(values**2)
            dimension = "all" if dimensions is None else dimensions[0]
            chosen_rows = (table["modality"] == m) & (table["dimension"] == dimension)
            found = table.loc[chosen_rows, "variance_explained"].iloc[0]  # of "all" the total comes first
            # weights are fitted to standardised training values, which differ from these in the tenth that is held out
            assert found == pytest.approx(expected, abs=0.005), (m, kind)


def test_a_known_decomposition_is_recovered(pcca: ProbabilisticCCA) -> None:
    """0.07 is for factors, which are known up to their noise, and the directions they are split along."""
    truth = linear_gaussian()[1]
    found = shares(everyone(pcca))
    np.testing.assert_allclose(found[["shared", "private"]], truth[["shared", "private"]], atol=0.07)
    np.testing.assert_allclose(found["total"], truth.sum(axis=1), atol=0.05)


@pytest.mark.slow
def test_networks_recover_it_too() -> None:
    """The linear start of CoVAE; 0.15, because its shared coordinates agree between assays only up to noise."""
    mdata, truth = linear_gaussian()
    scvi.settings.seed = 0
    CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(N_VARS, "normal"))
    model = CoVAE(mdata, n_latent={m: N_SHARED + N_PRIVATE[m] for m in N_VARS}, backbone="moments")
    model.train()
    found = shares(everyone(model))
    np.testing.assert_allclose(found[["shared", "private"]], truth[["shared", "private"]], atol=0.15)
    np.testing.assert_allclose(found["total"], truth.sum(axis=1), atol=0.05)


def test_what_batches_explain_is_not_counted(pcca: ProbabilisticCCA) -> None:
    """A shift of four standard deviations that the model is told of: three quarters of the variance, and none of the share.

    The total alone is compared: which directions the model counts as shared depends on how large signals are beside the
    variance that features are standardised by, the batch's included.
    """
    shifted = factors(linear_gaussian(shift=4.0)[0], batch_key="batch")
    np.testing.assert_allclose(shares(everyone(shifted))["total"], shares(everyone(pcca))["total"], atol=0.04)


def test_every_dimension_and_set_has_a_row(model: Trained) -> None:
    table = variance_explained(model)
    assert list(table) == ["modality", "latents", "dimension", "variance_explained", "n_samples"]
    for m, part in table.groupby("modality"):
        shared, private = (list(model.latent_names[k]) for k in ("shared", f"private_{m}"))
        assert list(part["dimension"]) == ["all", "all", *shared, "all", *private]
        assert list(part["latents"]) == ["total"] + ["shared"] * (1 + len(shared)) + ["private"] * (1 + len(private))
    assert (table["variance_explained"] <= 1).all()


def test_held_out_samples_are_the_default(model: Trained) -> None:
    held = np.concatenate([model.validation_indices, model.calibration_indices, model.test_indices])
    pd.testing.assert_frame_equal(variance_explained(model), variance_explained(model, indices=np.sort(held)))


def test_it_depends_on_no_order_nor_on_the_batch_size(model: Trained, shuffled: Callable[[MuData], MuData]) -> None:
    expected = everyone(model)
    for found in (variance_explained(model, shuffled(model.adata)), everyone_in_batches(model, 7)):
        pd.testing.assert_frame_equal(found, expected, rtol=1e-3, atol=1e-4)


def everyone_in_batches(model: Trained, batch_size: int) -> pd.DataFrame:
    return variance_explained(model, indices=range(model.adata.n_obs), batch_size=batch_size)


def test_a_modality_that_nobody_has_is_nan(model: Trained) -> None:
    names = list(model.modalities)
    query = MuData({names[0]: model.adata[names[0]].copy(), names[1]: model.adata[names[1]].copy()})
    query.obs["batch"] = model.adata.obs["batch"].reindex(query.obs_names)
    table = variance_explained(model, query).set_index("modality")
    assert table.loc[names[2], "variance_explained"].isna().all()
    assert (table.loc[names[2], "n_samples"] == 0).all()
    assert table.loc[names[0], "variance_explained"].notna().all()
    assert variance_explained(model, indices=[0])["variance_explained"].isna().all()


def test_wrong_arguments_are_refused(covae: CoVAE, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="expects a model"):
        variance_explained(covae.adata, covae)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects a MuData, got AnnData"):
        variance_explained(covae, covae.adata["rna"])  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        variance_explained(CoVAE(covae.adata))
    covae.save(tmp_path / "model")
    alone = CoVAE.load(tmp_path / "model", adata=False)
    with pytest.raises(ValueError, match="loaded without data"):
        variance_explained(alone)
    assert len(variance_explained(alone, covae.adata)) == len(variance_explained(covae))
