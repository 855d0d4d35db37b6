from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._model import Model
from omicvae.tl import cross_correlation
from omicvae.tl._held_out import HeldOut

Trained = CoVAE | MMVAEPlusPlus


def test_one_row_a_pair_and_dimension(model: Trained) -> None:
    table = cross_correlation(model)
    assert list(table) == ["modality_a", "modality_b", "dimension", "correlation", "null", "lower", "upper", "prior"]
    parts = dict(list(table.groupby(["modality_a", "modality_b"], sort=False)))
    assert list(parts) == list(combinations(model.modalities, 2))
    for part in parts.values():
        assert list(part["dimension"]) == list(range(len(part)))
    assert table["correlation"].between(-1, 1).all()
    assert table["null"].between(-1, 1).all()
    assert table["lower"].between(-1, table["correlation"]).all()
    assert table["upper"].between(table["correlation"], 1).all()
    assert table["prior"].between(-1, 1 + 1e-9).all()


def test_the_prior_is_the_canonical_spectrum_of_sigma(covae: CoVAE) -> None:
    by_dimension = cross_correlation(covae).groupby("dimension")["prior"].mean()
    np.testing.assert_allclose(by_dimension, covae.module.frame().correlations.numpy(), atol=1e-8)


def test_it_does_not_depend_on_the_order_of_samples(model: Trained) -> None:
    held_out = HeldOut(model).positions
    once, again = (cross_correlation(model, indices=list(order)) for order in (held_out, held_out[::-1]))
    np.testing.assert_allclose(once["correlation"], again["correlation"], atol=1e-5)
    np.testing.assert_allclose(once["correlation"], cross_correlation(model)["correlation"], atol=1e-5)


def test_a_modality_never_enters_the_others_coordinates(covae: CoVAE) -> None:
    pair = "modality_a == 'rna' and modality_b == 'meth'"
    before = cross_correlation(covae).query(pair)
    changed = covae.adata["mirna"].X.copy()
    try:
        covae.adata["mirna"].X = changed[::-1].copy()
        covae.adata_manager._cohort = None
        after = cross_correlation(covae).query(pair)
    finally:
        covae.adata["mirna"].X = changed
        covae.adata_manager._cohort = None
    np.testing.assert_allclose(before["correlation"], after["correlation"], atol=1e-6)


def test_names_and_masks_are_taken_as_indices(covae: CoVAE) -> None:
    names = covae.adata.obs_names[:20]
    by_name = cross_correlation(covae, indices=list(names))
    by_mask = cross_correlation(covae, indices=list(covae.adata.obs_names.isin(names)))
    np.testing.assert_allclose(by_name["correlation"], by_mask["correlation"], atol=1e-5)


def test_too_few_samples_give_no_correlation(covae: CoVAE) -> None:
    table = cross_correlation(covae, indices=[0, 1])
    assert table["correlation"].isna().all()
    assert table[["lower", "upper", "null"]].isna().all(axis=None)
    assert table["prior"].notna().all()


def test_a_higher_level_is_wider_and_the_same_call_gives_the_same_interval(covae: CoVAE) -> None:
    low, high, again = (cross_correlation(covae, level=level) for level in (0.5, 0.9, 0.9))
    pd.testing.assert_frame_equal(high, again)
    pd.testing.assert_frame_equal(cross_correlation(covae), high)
    assert (high["lower"] < low["lower"]).all()
    assert (low["upper"] < high["upper"]).all()
    pd.testing.assert_series_equal(low["correlation"], high["correlation"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_bootstrap": 5}, "n_bootstrap must be a whole number of at least 20, got 5"),
        ({"level": 90}, "level must lie"),
    ],
)
def test_impossible_intervals_are_refused(covae: CoVAE, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cross_correlation(covae, **arguments)


def test_shared_dimensions_stand_out_and_private_ones_do_not() -> None:
    scvi.settings.seed = 0
    shared, private = 2, 3
    width = shared + private
    sigma = np.eye(2 * width)
    sigma[np.arange(shared), width + np.arange(shared)] = sigma[width + np.arange(shared), np.arange(shared)] = 0.95
    mdata = correlated_gaussian(
        500, modalities=["a", "b"], n_latent=width, n_vars=30, sigma=sigma, noise=0.2, linear=True, seed=3
    ).mdata
    torch.set_num_threads(1)
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata, n_latent=width)
    model.train(max_epochs=30, train_size=0.7, accelerator="cpu", enable_progress_bar=False)
    table = cross_correlation(model)
    # 150 held-out samples: the 95 % point of chance is near 1.65 / sqrt(150) = 0.13, true correlations are near 0.9.
    assert (table["correlation"][:shared] > 0.6).all()
    assert (np.abs(table["correlation"][shared:]) < 0.4).all()
    assert table["null"].between(0.05, 0.25).all()
    # Gaussian data: the standard error of 150 samples is 0.016 at a correlation of 0.9 and 0.08 at 0; 90 % is 3.3 of
    # them wide. Fourth moments of 150 samples move it by a fifth.
    width = table["upper"] - table["lower"]
    assert width[:shared].between(0.02, 0.15).all()
    assert width[shared:].between(0.13, 0.4).all()


def test_training_samples_are_used_with_a_warning_where_there_are_no_others(covae: CoVAE) -> None:
    model = CoVAE(covae.adata)
    model.train(max_epochs=1, train_size=1.0, calibration_size=0, accelerator="cpu", enable_progress_bar=False)
    with pytest.warns(UserWarning, match="no held-out samples"):
        table = cross_correlation(model)
    assert table["correlation"].notna().all()


def test_other_models_and_models_without_data_are_refused(covae: CoVAE, tmp_path: Path) -> None:
    class Other(Model):
        latent_names = {}

    other = object.__new__(Other)
    other.is_trained_ = True
    with pytest.raises(TypeError, match="shared dimensions of their own.*got Other"):
        cross_correlation(other)
    with pytest.raises(TypeError, match="expects a model"):
        cross_correlation(covae.adata)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        cross_correlation(CoVAE(covae.adata))
    covae.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load\(dir, mdata\)"):
        cross_correlation(CoVAE.load(tmp_path / "model", adata=False))
