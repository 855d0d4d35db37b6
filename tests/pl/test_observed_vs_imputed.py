"""Measured values of features beside what was imputed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from omicvae import pl
from omicvae.model import CoVAE
from omicvae.pl._figure import COLORS
from omicvae.stats.scores import r2

Serve = Callable[..., CoVAE]


def held_out(n: int = 40, p: int = 6, seed: int = 0) -> AnnData:
    """Continuous values predicted with an error that falls from feature to feature, and true 90 % intervals."""
    rng = np.random.default_rng(seed)
    mean, sd = rng.normal(size=(n, p)), np.broadcast_to(np.linspace(2, 0.2, p), (n, p))
    return _anndata(mean + sd * rng.normal(size=(n, p)), mean, 1.645 * sd)


def counts(mean_count: float, n: int = 60) -> AnnData:
    rng = np.random.default_rng(0)
    rate = mean_count * np.exp(rng.normal(size=(n, 2)))
    return _anndata(rng.poisson(rate).astype(float), rate, 2 * np.sqrt(rate))


def _anndata(truth: np.ndarray, mean: np.ndarray, half: np.ndarray) -> AnnData:
    var = pd.DataFrame(index=[f"gene{j}" for j in range(truth.shape[1])])
    lower = np.maximum(mean - half, 0) if (mean > 0).all() else mean - half
    return AnnData(truth, var=var, layers={"imputed": mean, "imputed_lower": lower, "imputed_upper": mean + half})


@pytest.fixture
def serve(model: CoVAE, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A model with these held-out predictions, whose trust is the R2 of features in them."""

    def install(predictions: AnnData, likelihood: str = "normal", imputable: bool | np.ndarray = True) -> CoVAE:
        trust = pd.DataFrame({"r2": r2(predictions.X, predictions.layers["imputed"])}, index=predictions.var_names)
        registered = tuple(dataclasses.replace(m, likelihood=likelihood) for m in model.schema.modalities)
        monkeypatch.setattr(model, "get_held_out_predictions", lambda modality, **_: predictions)
        monkeypatch.setattr(model, "trust", lambda modality: trust.assign(imputable=imputable))
        monkeypatch.setattr(model, "schema", dataclasses.replace(model.schema, modalities=registered))
        return model

    return install


def shown(ax: Axes) -> list[str]:
    return [panel.get_title().split("\n")[0] for panel in ax.figure.axes]


def dots(ax: Axes) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the dots inside and outside their intervals."""
    _, inside, outside = ax.collections
    assert [to_rgb(c) for c in COLORS[:2]] == [tuple(part.get_facecolor()[0][:3]) for part in (inside, outside)]
    return np.asarray(inside.get_offsets()), np.asarray(outside.get_offsets())


def test_dots_are_values_and_lines_are_intervals(serve: Serve) -> None:
    adata = held_out()
    adata.X[3, 2] = np.nan
    ax = pl.observed_vs_imputed(serve(adata), "rna", "gene2")
    truth, mean, low, high = (np.delete(v[:, 2], 3) for v in (adata.X, *adata.layers.values()))
    np.testing.assert_allclose([s[:, 0] for s in ax.collections[0].get_segments()], np.stack([mean, mean], 1))
    np.testing.assert_allclose([s[:, 1] for s in ax.collections[0].get_segments()], np.stack([low, high], 1))
    kept = (low <= truth) & (truth <= high)
    assert 0 < kept.sum() < len(truth)
    inside, outside = dots(ax)
    np.testing.assert_allclose(inside, np.stack([mean, truth], 1)[kept])
    np.testing.assert_allclose(outside, np.stack([mean, truth], 1)[~kept])
    expected = r2(truth[:, None], mean[:, None])[0]
    assert ax.get_title() == f"gene2\nR² {expected:.2f}, {100 * kept.mean():.0f} % inside"
    (diagonal,) = ax.lines
    np.testing.assert_array_equal(*diagonal.get_data())
    assert ax.get_xlim() == ax.get_ylim()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Imputed rna", "Measured rna")


def test_by_default_the_features_that_can_be_trusted_most(serve: Serve) -> None:
    ax = pl.observed_vs_imputed(serve(held_out()), "rna")
    assert shown(ax) == ["gene5", "gene4", "gene3", "gene2"]
    assert ax is ax.figure.axes[0]
    imputable = np.array([True, True, False, True, False, False])
    assert shown(pl.observed_vs_imputed(serve(held_out(), imputable=imputable), "rna"))[:2] == ["gene3", "gene1"]
    adata = held_out()
    adata.X[:, 5] = np.nan
    assert shown(pl.observed_vs_imputed(serve(adata), "rna"))[0] == "gene4"
    assert len(shown(pl.observed_vs_imputed(serve(held_out(p=2)), "rna"))) == 2


def test_features_are_shown_in_the_order_asked(serve: Serve) -> None:
    names = ["gene4", "gene0", "gene1", "gene3", "gene2"]
    ax = pl.observed_vs_imputed(serve(held_out()), "rna", names)
    assert shown(ax) == names
    assert [bool(panel.get_ylabel()) for panel in ax.figure.axes] == [True, False, False, False, True]
    assert [bool(panel.get_xlabel()) for panel in ax.figure.axes] == [False, True, True, True, True]


def test_one_ax_has_one_feature(serve: Serve) -> None:
    _, given = plt.subplots()
    assert pl.observed_vs_imputed(serve(held_out()), "rna", ax=given) is given
    assert shown(given) == ["gene5"]
    with pytest.raises(ValueError, match="one ax has room for one feature, not 2"):
        pl.observed_vs_imputed(serve(held_out()), "rna", ["gene0", "gene1"], ax=given)


def test_large_counts_are_on_logarithmic_axes_and_scored_so(serve: Serve) -> None:
    adata = counts(300)
    ax = pl.observed_vs_imputed(serve(adata, "nb"), "rna", "gene0")
    assert ax.get_xscale() == ax.get_yscale() == "symlog"
    expected = r2(np.log1p(adata.X[:, :1]), np.log1p(adata.layers["imputed"][:, :1]))[0]
    assert f"R² {expected:.2f} (log)" in ax.get_title()
    assert pl.observed_vs_imputed(serve(counts(0.2), "nb"), "rna", "gene0").get_xscale() == "linear"
    assert pl.observed_vs_imputed(serve(adata, "normal"), "rna", "gene0").get_xscale() == "linear"


@pytest.mark.parametrize("n", [1, 2])
def test_hardly_measured_features_are_drawn_without_r2(serve: Serve, n: int) -> None:
    adata = held_out()
    adata.X[n:, 0] = np.nan
    ax = pl.observed_vs_imputed(serve(adata), "rna", "gene0")
    ax.figure.canvas.draw()
    assert "R² undefined" in ax.get_title()
    assert sum(map(len, dots(ax))) == n


def test_of_very_many_samples_some_are_drawn_and_all_are_scored(serve: Serve) -> None:
    adata = held_out(n=5000, p=1)
    ax = pl.observed_vs_imputed(serve(adata), "rna")
    assert sum(map(len, dots(ax))) == 1000
    assert f"R² {r2(adata.X, adata.layers['imputed'])[0]:.2f}" in ax.get_title()


def test_a_constant_feature_that_is_predicted_exactly_is_drawn(serve: Serve) -> None:
    zero = np.zeros((5, 1))
    ax = pl.observed_vs_imputed(serve(_anndata(zero, zero, zero), "nb"), "rna", "gene0")
    ax.figure.canvas.draw()
    assert "100 % inside" in ax.get_title()


def test_wrong_arguments_are_named(serve: Serve, model: CoVAE) -> None:
    adata = held_out(p=20)
    adata.X[:, 7] = np.nan
    served = serve(adata)
    with pytest.raises(ValueError, match="modality 'rna' has no feature 'genes3'. Did you mean 'gene"):
        pl.observed_vs_imputed(served, "rna", "genes3")
    with pytest.raises(ValueError, match="'gene7' of modality 'rna' was not measured in any held-out sample"):
        pl.observed_vs_imputed(served, "rna", ["gene1", "gene7"])
    with pytest.raises(ValueError, match="features is empty"):
        pl.observed_vs_imputed(served, "rna", [])
    with pytest.raises(ValueError, match="20 features are too many"):
        pl.observed_vs_imputed(served, "rna", list(adata.var_names))
    with pytest.raises(ValueError, match="not trained on a modality 'rppe'.*Did you mean 'rppa'"):
        pl.observed_vs_imputed(served, "rppe")
    with pytest.raises(TypeError, match="expects a model"):
        pl.observed_vs_imputed(model.adata, "rna")
    with pytest.raises(RuntimeError, match="has not been trained"):
        pl.observed_vs_imputed(CoVAE(model.adata), "rna")
    adata.X[:] = np.nan
    with pytest.raises(RuntimeError, match="no value of 'rna' was measured in a held-out sample"):
        pl.observed_vs_imputed(served, "rna")
    assert plt.get_fignums() == []


def test_a_trained_model_is_drawn_at_the_level_and_from_the_sources_asked(model: CoVAE) -> None:
    share = {}
    for level in (0.5, 0.95):
        ax = pl.observed_vs_imputed(model, "mirna", model.schema["mirna"].var_names[0], given=["rna"], level=level)
        assert ax.get_legend().get_texts()[0].get_text() == f"{100 * level:g} % interval"
        segments = ax.collections[0].get_segments()
        share[level] = np.mean([np.ptp(s[:, 1]) for s in segments])
    assert share[0.5] < share[0.95]
