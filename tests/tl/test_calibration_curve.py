from __future__ import annotations

import numpy as np
import pytest
from anndata import AnnData

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import calibration_curve
from omicvae.tl._held_out import HeldOut

Model = CoVAE | MMVAEPlusPlus


def test_one_row_a_modality_and_level(model: Model) -> None:
    table = calibration_curve(model, levels=[0.5, 0.9])
    assert list(table) == ["modality", "level", "coverage", "n_values"]
    assert list(table["modality"]) == [m for m in model.modalities for _ in range(2)]
    assert list(table["level"]) == [0.5, 0.9] * len(model.modalities)
    assert table["coverage"].between(0, 1).all()
    assert (table["coverage"][1::2].to_numpy() >= table["coverage"][::2].to_numpy()).all()


def test_every_measured_element_of_held_out_predictions_is_counted_once(covae: CoVAE) -> None:
    counted = calibration_curve(covae, levels=[0.9]).set_index("modality")["n_values"]
    for m in covae.modalities:
        found = covae.get_held_out_predictions(m)
        names = found.obs_names
        assert names.is_unique and names.isin(covae.adata[m].obs_names).all()
        assert counted[m] == np.isfinite(found.X).sum()


@pytest.mark.parametrize(("low", "high", "expected"), [(-np.inf, np.inf, 1.0), (np.inf, np.inf, 0.0), (0.0, 1.0, None)])
def test_coverage_is_the_share_of_values_in_their_interval(
    covae: CoVAE, monkeypatch: pytest.MonkeyPatch, low: float, high: float, expected: float | None
) -> None:
    def constant(modality: str, *, indices: np.ndarray, level: float) -> AnnData:
        shape = (len(indices), covae.schema[modality].n_vars)
        limits = {"lower": np.full(shape, low), "upper": np.full(shape, high)}
        return AnnData(np.zeros(shape), layers=limits)

    monkeypatch.setattr(covae, "impute", constant)
    everyone = np.arange(covae.adata.n_obs)
    table = calibration_curve(covae, levels=[0.9], indices=everyone).set_index("modality")
    if expected is None:
        assert table.loc["meth", "coverage"] == 1.0  # methylation is compared as a level, not as a number of reads
        assert table.loc["rna", "coverage"] < 0.5  # NaN is never inside
    else:
        assert (table["coverage"] == expected).all()


def test_a_modality_that_cannot_be_hidden_has_no_coverage(covae: CoVAE) -> None:
    without = np.flatnonzero(~covae.adata.obs_names.isin(covae.adata["mirna"].obs_names))
    table = calibration_curve(covae, levels=[0.9], indices=without.tolist()).set_index("modality")
    assert np.isnan(table.loc["mirna", "coverage"])
    assert table.loc["mirna", "n_values"] == 0
    assert table.loc["rna", "n_values"] > 0


def test_validation_and_test_samples_are_held_out(covae: CoVAE) -> None:
    model = CoVAE(covae.adata)
    model.train(max_epochs=1, train_size=0.6, validation_size=0.2, accelerator="cpu", enable_progress_bar=False)
    held_out = HeldOut(model)
    assert not held_out.trained_on
    assert len(model.test_indices)
    np.testing.assert_array_equal(held_out.positions, np.setdiff1d(np.arange(model.adata.n_obs), model.train_indices))


def test_training_samples_are_used_with_a_warning_where_there_are_no_others(covae: CoVAE) -> None:
    model = CoVAE(covae.adata, backbone="network")
    model.train(max_epochs=1, train_size=1.0, calibration_size=0, accelerator="cpu", enable_progress_bar=False)
    with pytest.warns(UserWarning, match="coverage of intervals measured on training samples"):
        table = calibration_curve(model, levels=[0.9])
    assert (table["n_values"] > 0).all()


def test_wrong_arguments_are_named(covae: CoVAE) -> None:
    with pytest.raises(TypeError, match=r"write levels=\[0.9\]"):
        calibration_curve(covae, levels=0.9)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"between 0 and 1, got \[90\]"):
        calibration_curve(covae, levels=[0.5, 90])
    with pytest.raises(ValueError, match="got none"):
        calibration_curve(covae, levels=[])
    with pytest.raises(ValueError, match="samples are not in the data"):
        calibration_curve(covae, indices=["nobody"])
    with pytest.raises(TypeError, match="expects a model"):
        calibration_curve(covae.adata)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        calibration_curve(CoVAE(covae.adata))
