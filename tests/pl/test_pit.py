"""Histograms of probability integral transforms."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from omicvae import pl
from omicvae.model import CoVAE
from omicvae.pl._pit import N_BINS, pit_density

Serve = Callable[[Mapping[str, AnnData]], CoVAE]


def held_out(u: np.ndarray) -> AnnData:
    """Predictions in which these are the PIT values, NaN where not measured."""
    obs = pd.DataFrame({"sources": "mirna"}, index=[f"s{i}" for i in range(len(u))])
    return AnnData(np.where(np.isnan(u), np.nan, 1.0), obs=obs, layers={"pit": u})


@pytest.fixture
def serve(model: CoVAE, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A model whose held-out predictions are those given; of other modalities no sample was held out."""

    def install(predictions: Mapping[str, AnnData]) -> CoVAE:
        def predict(modality: str, *, given: Sequence[str] | None = None, level: float = 0.9) -> AnnData:
            if modality not in predictions:
                raise RuntimeError(f"no sample that has {modality!r} was held out")
            return predictions[modality]

        monkeypatch.setattr(model, "get_held_out_predictions", predict)
        return model

    return install


class TestDensity:
    def test_is_that_of_numpy_on_measured_values(self) -> None:
        rng = np.random.default_rng(0)
        u = rng.beta(2, 3, (40, 9))
        u[rng.random(u.shape) < 0.3] = np.nan
        u[0, :2] = 0, 1  # both ends belong to a bin
        expected, _ = np.histogram(u[~np.isnan(u)], bins=N_BINS, range=(0, 1), density=True)
        np.testing.assert_allclose(pit_density(u)[0], expected)

    @pytest.mark.parametrize("shared", [0.0, 0.9])
    def test_error_is_that_of_repetition_whether_or_not_values_of_a_sample_are_independent(self, shared: float) -> None:
        """Spread over 300 cohorts of 50 samples (known to 4 %) against the mean reported; an estimate from few samples
        is a little too small, so that 15 % are allowed."""
        from scipy.stats import norm

        rng = np.random.default_rng(1)
        z = np.sqrt(shared) * rng.normal(size=(300, 50, 1)) + np.sqrt(1 - shared) * rng.normal(size=(300, 50, 20))
        density, error = (np.stack(v) for v in zip(*(pit_density(u) for u in norm.cdf(z)), strict=True))
        np.testing.assert_allclose(density.mean(0), 1, atol=4 * density.std(0).max() / np.sqrt(300))
        np.testing.assert_allclose(error.mean(0).mean(), density.std(0).mean(), rtol=0.15)
        if shared:
            assert error.mean() > 2 * pit_density(rng.random((50, 20)))[1].mean()

    def test_an_empty_bin_has_an_error_and_one_sample_has_none(self) -> None:
        assert (pit_density(np.full((5, 2), 0.05))[1][1:] > 0).all()
        density, error = pit_density(np.array([[0.05, 0.15, np.nan]]))
        np.testing.assert_allclose(density[:3], [5, 5, 0])
        assert np.isnan(error).all()

    def test_samples_without_a_measured_value_change_nothing(self) -> None:
        u = np.random.default_rng(2).random((30, 4))
        more = np.concatenate([u, np.full((7, 4), np.nan)])
        np.testing.assert_allclose(pit_density(more), pit_density(u))


def steps(ax) -> list[np.ndarray]:
    return [patch.get_data().values for patch in ax.patches]


def test_each_modality_is_a_histogram_with_its_errors(serve: Serve) -> None:
    rng = np.random.default_rng(0)
    predictions = {"rna": held_out(rng.random((30, 8))), "rppa": held_out(rng.beta(0.5, 0.5, (20, 8)))}
    ax = pl.pit(serve(predictions), modality=["rppa", "rna"])
    for drawn, name in zip(steps(ax), ("rppa", "rna"), strict=True):
        np.testing.assert_allclose(drawn, pit_density(predictions[name].layers["pit"])[0])
    at = [np.asarray(c.lines[0].get_xdata()) for c in ax.containers]
    for x in at:  # each error stands in its own bin, beside that of the other modality
        np.testing.assert_array_equal((x * N_BINS).astype(int), np.arange(N_BINS))
    assert (at[0] < at[1]).all()
    (segment,) = [s for s in ax.containers[0].lines[2][0].get_segments() if s[0, 0] < 1 / N_BINS]
    density, error = pit_density(predictions["rppa"].layers["pit"])
    np.testing.assert_allclose(segment[:, 1], density[0] + np.array([-2, 2]) * error[0])
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels[1:3] == ["rppa (20 samples)", "rna (30 samples)"]


def test_modalities_that_were_not_held_out_are_left_out_and_named(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    nothing = held_out(np.full((3, 2), np.nan))
    model = serve({"rna": held_out(np.random.default_rng(0).random((9, 2))), "mirna": nothing})
    with caplog.at_level(logging.WARNING, logger="omicvae"):
        assert len(steps(pl.pit(model))) == 1
    assert "no value of 'mirna' was measured" in caplog.text
    assert "no sample that has 'rppa' was held out" in caplog.text
    for modality in ("mirna", "rppa"):
        with pytest.raises(RuntimeError, match=f"{modality}.*held"):
            pl.pit(model, modality=modality)
    with pytest.raises(RuntimeError, match="rna.*mirna.*rppa"):
        pl.pit(serve({"mirna": nothing}))


def test_one_sample_is_drawn(serve: Serve) -> None:
    ax = pl.pit(serve({"rna": held_out(np.array([[0.2, 0.7]]))}), modality="rna")
    ax.figure.canvas.draw()
    assert steps(ax)[0].sum() == pytest.approx(N_BINS)


def test_modalities_that_are_given_are_not_predicted(model: CoVAE) -> None:
    labels = [t.get_text() for t in pl.pit(model, given=["rna"]).get_legend().get_texts()]
    assert [label.split()[0] for label in labels[1:-1]] == ["mirna", "rppa"]
    with pytest.raises(RuntimeError, match="leaves no modality"):
        pl.pit(model, given=list(model.modalities))


@pytest.mark.parametrize("plot", [pl.pit, pl.risk_coverage])
def test_wrong_arguments_are_named(plot: Callable[..., object], model: CoVAE) -> None:
    with pytest.raises(ValueError, match="not trained on a modality 'mirma'.*Did you mean 'mirna'"):
        plot(model, modality="mirma")
    with pytest.raises(ValueError, match="modality is empty"):
        plot(model, modality=[])
    with pytest.raises(ValueError, match="given names 'rna'"):
        plot(model, modality="rna", given=["rna"])
    with pytest.raises(ValueError, match="Did you mean 'rna'"):
        plot(model, given=["rnaa"])
    with pytest.raises(TypeError, match="expects a model of omicvae.model, got MuData"):
        plot(model.adata)
    with pytest.raises(RuntimeError, match="has not been trained"):
        plot(CoVAE(model.adata))
