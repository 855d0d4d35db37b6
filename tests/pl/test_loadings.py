from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from omicvae import pl, tl
from omicvae.model import CoVAE


@pytest.fixture
def table() -> pd.DataFrame:
    values = np.random.default_rng(0).normal(size=(50, 3))
    found = pd.DataFrame(values, [f"g{i}" for i in range(50)], ["shared_0", "shared_1", "rna_private_0"])
    found.iloc[7, 1], found.iloc[9] = -9.0, np.nan  # the largest, and a feature that was not registered
    return found


def test_the_largest_are_on_top_whatever_their_sign(table: pd.DataFrame) -> None:
    ax = pl.loadings(table, dimension="shared_1", n_features=12)
    widths = np.array([p.get_width() for p in ax.patches])
    names = [t.get_text() for t in ax.get_yticklabels()]
    expected = table["shared_1"].abs().sort_values(ascending=False).index[:12]
    assert names == list(expected)
    np.testing.assert_allclose(widths, table.loc[expected, "shared_1"])
    assert names[0] == "g7"
    low, high = ax.get_ylim()
    assert low > high  # the first row is the upper one
    colors = {tuple(p.get_facecolor()) for p, w in zip(ax.patches, widths, strict=True) if w > 0}
    assert len(colors) == 1
    assert ax.patches[0].get_facecolor() not in colors


def test_a_latent_is_chosen_by_name_or_position(table: pd.DataFrame) -> None:
    by_name, by_position = (pl.loadings(table, dimension=d) for d in ("rna_private_0", -1))
    assert by_name.get_title() == by_position.get_title() == "rna_private_0"
    assert [p.get_width() for p in by_name.patches] == [p.get_width() for p in by_position.patches]


def test_a_model_is_read_and_its_data_are_left_alone(model: CoVAE) -> None:
    ax = pl.loadings(model, "rppa", "shared_0", n_features=3)
    column = tl.loadings(model, "rppa", copy=True)["shared_0"]
    np.testing.assert_allclose(
        sorted(abs(p.get_width()) for p in ax.patches), sorted(column.abs())[-3:], rtol=1e-4, atol=1e-6
    )
    assert ax.get_title() == "rppa: shared_0"
    assert not model.adata["rppa"].varm.keys()


def test_wrong_arguments_are_named(table: pd.DataFrame, model: CoVAE) -> None:
    with pytest.raises(ValueError, match=r"no latent 'shared_2'.*Did you mean"):
        pl.loadings(table, dimension="shared_2")
    with pytest.raises(ValueError, match=r"dimension must lie in 0\.\.2, got 3"):
        pl.loadings(table, dimension=3)
    with pytest.raises(ValueError, match="n_features must be at least 1"):
        pl.loadings(table, n_features=0)
    with pytest.raises(ValueError, match=r"name a modality of \['rna', 'mirna', 'rppa'\]"):
        pl.loadings(model)
    with pytest.raises(ValueError, match="is empty"):
        pl.loadings(table.iloc[:0])
    with pytest.raises(TypeError, match="expected a model or a DataFrame, got MuData"):
        pl.loadings(model.adata)
