from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from omicvae import pl, tl
from omicvae.model import CoVAE


@pytest.fixture
def table() -> pd.DataFrame:
    """Three modalities; in the third the private latents make things worse."""
    shares = {"rna": (0.7, 0.4, 0.3), "mirna": (0.5, 0.45, 0.05), "rppa": (0.2, 0.25, -0.04)}
    rows = []
    for m, values in shares.items():
        for kind, share in zip(("total", "shared", "private"), values, strict=True):
            rows.append((m, kind, "all", share, 50))
        rows += [(m, "shared", f"shared_{k}", 0.1 * k, 50) for k in range(2)]
        rows += [(m, "private", f"{m}_private_0", shares[m][2], 50)]
    return pd.DataFrame(rows, columns=["modality", "latents", "dimension", "variance_explained", "n_samples"])


def test_bars_are_shares_and_lines_totals(table: pd.DataFrame) -> None:
    ax = pl.variance_explained(table)
    bars = [p.get_height() for p in ax.patches if isinstance(p, Rectangle)]
    np.testing.assert_allclose(bars, [0.4, 0.45, 0.25, 0.3, 0.05, -0.04])
    (lines,) = ax.collections
    np.testing.assert_allclose([s[0, 1] for s in lines.get_segments()], [0.7, 0.5, 0.2])
    assert [t.get_text() for t in ax.get_xticklabels()] == ["rna", "mirna", "rppa"]
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["shared latents", "private latents", "all latents"]


def test_a_bar_stands_at_its_modality(table: pd.DataFrame) -> None:
    ax = pl.variance_explained(table)
    centres = np.array([p.get_x() + p.get_width() / 2 for p in ax.patches])
    np.testing.assert_array_equal(np.round(centres), [0, 1, 2, 0, 1, 2])
    assert (centres[:3] < centres[3:]).all()


def test_fields_are_shares_of_single_latents(table: pd.DataFrame) -> None:
    ax = pl.variance_explained(table, by="dimension")
    (image,) = ax.images
    expected = [[0, 0, 0], [0.1] * 3, [0.3, np.nan, np.nan], [np.nan, 0.05, np.nan], [np.nan, np.nan, -0.04]]
    np.testing.assert_allclose(image.get_array().filled(np.nan), expected)
    rows = [t.get_text() for t in ax.get_yticklabels()]
    assert rows == ["shared_0", "shared_1", "rna_private_0", "mirna_private_0", "rppa_private_0"]
    assert [t.get_text() for t in ax.texts] == ["0.0"] * 3 + ["10.0"] * 3 + ["30.0", "5.0", "-4.0"]


def test_a_model_is_measured(model: CoVAE) -> None:
    shares = tl.variance_explained(model)
    together = shares[(shares["dimension"] == "all") & (shares["latents"] == "shared")]
    bars = [p.get_height() for p in pl.variance_explained(model).patches][: len(together)]
    np.testing.assert_allclose(bars, together["variance_explained"])


def test_models_without_private_latents_have_no_bars_for_them(table: pd.DataFrame) -> None:
    table.loc[table["latents"] == "private", "variance_explained"] = 0.0
    assert len(pl.variance_explained(table).patches) == 3


def test_wrong_arguments_are_named(table: pd.DataFrame, model: CoVAE) -> None:
    with pytest.raises(ValueError, match="by must be 'kind' or 'dimension', got 'factor'"):
        pl.variance_explained(table, by="factor")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lacks the columns.*pass what omicvae.tl.variance_explained returned"):
        pl.variance_explained(table.drop(columns="latents"))
    with pytest.raises(ValueError, match="no single dimensions"):
        pl.variance_explained(table[table["dimension"] == "all"], by="dimension")
    with pytest.raises(TypeError, match="expected a model or a DataFrame, got MuData"):
        pl.variance_explained(model.adata)
