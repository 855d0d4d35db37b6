from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scvi

MODALITIES = ("rna", "meth", "prot")


def test_it_is_the_denoised_mean_at_the_median_library(model: Any) -> None:
    for m in MODALITIES:
        scvi.settings.seed = 2
        expected = model.get_denoised(m, scale="normalized", level=None, n_draws=20).to_df()
        scvi.settings.seed = 2
        found = model.get_normalized_expression(modality=m, n_draws=20)
        np.testing.assert_array_equal(found, expected)
        assert list(found.index) == list(model.adata.obs_names)
        assert list(found.columns) == list(model.schema[m].var_names)


def test_all_modalities_have_all_samples(model: Any) -> None:
    tables = model.get_normalized_expression(n_draws=5)
    arrays = model.get_normalized_expression(n_draws=5, indices=[3, 1], return_numpy=True)
    assert tuple(tables) == tuple(arrays) == MODALITIES
    for m in MODALITIES:
        assert tables[m].shape == (60, len(model.schema[m].var_names))
        assert np.isfinite(tables[m]).all(axis=None)
        assert isinstance(arrays[m], np.ndarray) and len(arrays[m]) == 2


def test_sums_of_counts_are_the_median_library_of_training_samples(covae: Any) -> None:
    """Rates of a negative binomial are shares of the library, whatever was sequenced."""
    rna = covae.adata["rna"]
    libraries = pd.Series(np.asarray(rna.X).sum(1), index=rna.obs_names)
    median = libraries.reindex(covae.adata.obs_names[covae.train_indices]).median()
    sums = covae.get_normalized_expression(modality="rna", n_draws=20).loc[rna.obs_names].sum(axis=1)
    np.testing.assert_allclose(sums, median, rtol=1e-4)
    assert libraries.std() > 0.1 * median


def test_features_and_batches(covae: Any) -> None:
    chosen = [covae.schema["rna"].var_names[i] for i in (4, 1)]
    assert list(covae.get_normalized_expression(modality="rna", features=chosen, n_draws=5)) == chosen
    values = []
    for batch in covae.schema.covariates_of("rna")[0].categories:
        scvi.settings.seed = 3
        values.append(covae.get_normalized_expression(modality="rna", transform_batch=batch, return_numpy=True))
    assert np.abs(values[0] - values[1]).max() > 1e-3
    with pytest.raises(ValueError, match="name it with modality="):
        covae.get_normalized_expression(features=chosen)
    with pytest.raises(ValueError, match="not trained on a modality 'atac'"):
        covae.get_normalized_expression(modality="atac")
    with pytest.raises(TypeError, match="expected a MuData, got AnnData"):
        covae.get_normalized_expression(covae.adata["rna"])
