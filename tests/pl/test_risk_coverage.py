"""Errors of the most certain values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from anndata import AnnData

from omicvae import pl
from omicvae.model import CoVAE
from omicvae.pl._risk_coverage import SHARES, standardised_risk


def held_out(truth: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> AnnData:
    return AnnData(truth, layers={"imputed": np.asarray(mean), "imputed_sd": np.broadcast_to(sd, truth.shape).copy()})


def heteroscedastic(claimed: float = 1.0) -> AnnData:
    """Errors whose sd differs from sample to sample and feature to feature, as does the scale of the features."""
    rng = np.random.default_rng(0)
    mean, sd = rng.normal(size=(400, 30)), np.exp(rng.normal(size=(400, 1)) * 0.6) * rng.uniform(0.3, 1, 30)
    scale = 10.0 ** rng.integers(-3, 4, 30)
    truth = mean + sd * rng.normal(size=mean.shape)
    truth[rng.random(truth.shape) < 0.2] = np.nan
    return held_out(scale * truth, scale * mean, scale * claimed * sd)


@pytest.fixture
def serve(model: CoVAE, monkeypatch: pytest.MonkeyPatch) -> Callable[[AnnData], CoVAE]:
    """A model whose held-out predictions of every modality are those given."""

    def install(predictions: AnnData) -> CoVAE:
        monkeypatch.setattr(model, "get_held_out_predictions", lambda modality, **_: predictions)
        return model

    return install


class TestCurves:
    @pytest.mark.parametrize("claimed", [0.5, 1.0])
    def test_errors_are_what_a_true_sd_promises_and_twice_that_of_one_half_too_small(self, claimed: float) -> None:
        """The smallest share is of 480 values: standard error of an RMSE 1 / sqrt(2 * 480) = 3 %."""
        curves = standardised_risk(heteroscedastic(claimed))
        np.testing.assert_allclose(claimed * curves.error, curves.promised, rtol=0.1)
        assert (np.diff(curves.error) > 0).all()
        assert curves.error[0] < 0.4 * curves.error[-1]

    def test_the_right_end_is_the_unexplained_share_of_variance(self) -> None:
        adata = heteroscedastic()
        error = (adata.X - adata.layers["imputed"]) / np.nanstd(adata.X, axis=0)
        assert standardised_risk(adata).error[-1] == pytest.approx(np.sqrt(np.nanmean(error**2)))

    def test_the_mean_of_the_feature_has_error_one(self) -> None:
        truth = np.random.default_rng(0).poisson(0.3, (50, 20)).astype(float)
        adata = held_out(truth, np.broadcast_to(truth.mean(0), truth.shape), truth.std(0))
        curves = standardised_risk(adata)
        assert curves.error[-1] == pytest.approx(1)
        np.testing.assert_allclose(curves.promised, 1)

    def test_units_of_features_do_not_matter(self) -> None:
        adata = heteroscedastic()
        factor = 10.0 ** np.random.default_rng(1).integers(-2, 3, adata.n_vars)
        other = held_out(adata.X * factor, adata.layers["imputed"] * factor, adata.layers["imputed_sd"] * factor)
        np.testing.assert_allclose(standardised_risk(other), standardised_risk(adata))

    def test_features_that_do_not_vary_are_left_out(self) -> None:
        adata = heteroscedastic()
        constant = np.full((adata.n_obs, 2), 0.1)
        constant[:, 1] = np.nan
        more = held_out(
            np.hstack([adata.X, constant]), np.hstack([adata.layers["imputed"], constant]),
            np.hstack([adata.layers["imputed_sd"], 0 * constant]),
        )  # fmt: skip
        np.testing.assert_allclose(standardised_risk(more), standardised_risk(adata))

    def test_a_share_of_few_values_is_not_shown(self) -> None:
        rng = np.random.default_rng(0)
        curves = standardised_risk(held_out(rng.normal(size=(40, 1)), np.zeros((40, 1)), np.ones(1)))
        np.testing.assert_array_equal(np.isnan(curves.error), SHARES < 0.49)


def test_each_modality_has_a_curve_and_what_was_promised(serve: Callable[[AnnData], CoVAE]) -> None:
    adata = heteroscedastic()
    ax = pl.risk_coverage(serve(adata), modality=["mirna", "rna"])
    lines = [line for line in ax.lines if len(line.get_xdata()) == len(SHARES)]
    assert len(lines) == 4
    for i in (0, 2):
        for line, values in zip(lines[i : i + 2], standardised_risk(adata), strict=True):
            np.testing.assert_allclose(line.get_ydata(), values)
        assert lines[i].get_color() == lines[i + 1].get_color()
    assert lines[0].get_color() != lines[2].get_color()
    assert [t.get_text() for t in ax.get_legend().get_texts()][:2] == ["mirna", "rna"]
    assert ax.get_ylim()[0] == 0


def test_nothing_to_rank_is_an_error(serve: Callable[[AnnData], CoVAE]) -> None:
    with pytest.raises(RuntimeError, match="fewer than 20 values .* held out of rna: nothing to rank"):
        pl.risk_coverage(serve(held_out(np.ones((50, 3)), np.ones((50, 3)), np.ones(3))), modality="rna")
    with pytest.raises(RuntimeError, match="no value of 'rna' was measured"):
        pl.risk_coverage(serve(held_out(np.full((5, 3), np.nan), np.ones((5, 3)), np.ones(3))), modality="rna")


def test_a_trained_model_is_drawn(model: CoVAE) -> None:
    labels = [t.get_text() for t in pl.risk_coverage(model).get_legend().get_texts()]
    assert labels[: len(model.modalities)] == list(model.modalities)
