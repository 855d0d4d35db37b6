from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from mudata import MuData

from omicvae import pl, tl
from omicvae.model import CoVAE
from omicvae.pl._uncertainty import relative_sd


@pytest.fixture
def complete() -> MuData:
    """Two modalities as omicvae.tl.complete returns them; of ``rppa`` the last ten of 30 samples are imputed."""
    rng = np.random.default_rng(0)
    names = [f"s{i}" for i in range(30)]
    mods = {}
    for m, p in (("rna", 5), ("rppa", 4)):
        source = np.array(["observed"] * (20 if m == "rppa" else 30) + ["imputed"] * (10 if m == "rppa" else 0))
        mods[m] = AnnData(
            10.0 ** np.arange(p) * rng.normal(size=(30, p)),
            obs=pd.DataFrame({"source": source}, index=names),
            var=pd.DataFrame(index=[f"{m}{j}" for j in range(p)]),
            layers={"imputed_sd": 10.0 ** np.arange(p) * rng.uniform(0.5, 0.9, (30, p))},
        )
    found = MuData(mods)
    found.obsm["X_umap"] = rng.normal(size=(30, 2))
    return found


def colours(ax) -> tuple[np.ndarray, np.ndarray]:
    """Places and colours of all points."""
    return (
        np.concatenate([c.get_offsets() for c in ax.collections if len(c.get_offsets())]),
        np.concatenate([c.get_array() for c in ax.collections if len(c.get_offsets())]),
    )


def test_the_colour_is_the_root_mean_square_in_units_of_each_feature(complete: MuData) -> None:
    rppa = complete["rppa"]
    ratio = rppa.layers["imputed_sd"] / rppa.X[:20].std(0)
    expected = np.sqrt((ratio**2).mean(1))
    places, found = colours(pl.uncertainty(complete, "rppa"))
    np.testing.assert_allclose(places, complete.obsm["X_umap"])
    np.testing.assert_allclose(found, expected)
    one = colours(pl.uncertainty(complete, "rppa", features="rppa2"))[1]
    np.testing.assert_allclose(one, ratio[:, 2])


def test_imputed_and_measured_samples_are_told_apart(complete: MuData) -> None:
    ax = pl.uncertainty(complete, "rppa")
    assert [len(c.get_offsets()) for c in ax.collections[:2]] == [20, 10]
    markers = [c.get_paths()[0].vertices.shape for c in ax.collections[:2]]
    assert markers[0] != markers[1]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["measured (20)", "imputed (10)"]
    assert [t.get_text() for t in pl.uncertainty(complete, "rna").get_legend().get_texts()] == ["measured (30)"]


def test_samples_are_placed_by_name_and_a_modality_may_have_a_map_of_its_own(complete: MuData) -> None:
    expected = colours(pl.uncertainty(complete, "rppa", features="rppa0"))
    order = np.random.default_rng(1).permutation(30)
    complete.mod["rppa"] = complete["rppa"][order].copy()
    again = colours(pl.uncertainty(complete, "rppa", features="rppa0"))
    alone = complete["rppa"].copy()
    alone.obsm["X_pca"] = complete.obsm["X_umap"][complete.obs_names.get_indexer(alone.obs_names)]
    own = colours(pl.uncertainty(alone, features="rppa0", basis="X_pca"))
    for places, found in (again, own):
        pd.testing.assert_frame_equal(as_table(places, found), as_table(*expected))


def as_table(places: np.ndarray, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"x": places[:, 0], "y": places[:, 1], "c": values}).sort_values("x", ignore_index=True)


def test_features_that_cannot_be_judged_are_left_out(complete: MuData) -> None:
    rppa = complete["rppa"]
    expected = relative_sd(rppa[:, :2], None)
    rppa.X[:, 2] = 1.0  # constant
    rppa.layers["imputed_sd"][:, 3] = np.nan  # left out by min_skill
    rppa.X[20:, 3] = np.nan
    np.testing.assert_allclose(relative_sd(rppa, None), expected)
    rppa.X[20:, 0] = np.nan  # what was imputed does not enter the spread
    np.testing.assert_allclose(relative_sd(rppa, None), expected)
    with pytest.raises(ValueError, match="no feature has measured values that vary"):
        pl.uncertainty(complete, "rppa", features="rppa2")
    with pytest.raises(ValueError, match="no sample has both"):
        pl.uncertainty(complete, "rppa", features="rppa3")


def test_what_complete_returns_is_drawn(model: CoVAE) -> None:
    model.adata.obsm["X_umap"] = np.random.default_rng(0).normal(size=(model.adata.n_obs, 2))
    try:
        found = tl.complete(model.adata, model, n_draws=20, level=0.5)
    finally:
        del model.adata.obsm["X_umap"]
    places, sd = colours(pl.uncertainty(found, "rppa"))
    assert len(places) == found.n_obs
    assert ((sd > 0) & (sd < 3)).all()


def test_wrong_arguments_are_named(complete: MuData, model: CoVAE) -> None:
    with pytest.raises(TypeError, match="expects a MuData or AnnData, got CoVAE"):
        pl.uncertainty(model)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="name a modality of"):
        pl.uncertainty(complete)
    with pytest.raises(ValueError, match=r"'rpap' is not in the MuData.*Did you mean 'rppa'"):
        pl.uncertainty(complete, "rpap")
    with pytest.raises(ValueError, match=r"obsm has no 'X_tsne'. Run scanpy.pp.neighbors"):
        pl.uncertainty(complete, "rppa", basis="X_tsne")
    with pytest.raises(ValueError, match=r"no features 'rppa9' in the data"):
        pl.uncertainty(complete, "rppa", features=["rppa1", "rppa9"])
    with pytest.raises(ValueError, match="features is empty"):
        pl.uncertainty(complete, "rppa", features=[])
    model.adata.obsm["X_umap"] = np.zeros((model.adata.n_obs, 2))
    try:
        with pytest.raises(ValueError, match="pass what omicvae.tl.complete returned"):
            pl.uncertainty(model.adata, "rppa")
    finally:
        del model.adata.obsm["X_umap"]
