"""Generated assays carry the class of what they were generated from, and nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from mudata import MuData

from omicvae.metrics import conditional_classification
from omicvae.model import ProbabilisticCCA

N = 240


@pytest.fixture(scope="module")
def model() -> ProbabilisticCCA:
    """Two classes that both assays tell apart, in 8 features of 20; counts whose library sizes vary; a quarter lacks an assay."""
    rng = np.random.default_rng(0)
    label = np.arange(N) % 2
    z = np.column_stack([2.5 * label - 1.25 + 0.5 * rng.normal(size=N), rng.normal(size=N)])
    a = z @ rng.normal(size=(2, 20)) + rng.normal(size=(N, 20))
    a[rng.random(a.shape) < 0.02] = np.nan
    rate = np.exp(3 + 0.5 * z @ rng.normal(size=(2, 20))) * rng.lognormal(0, 0.4, (N, 1))
    names = np.array([f"s{i:03d}" for i in range(N)])
    mods = {}
    for k, (m, x) in enumerate({"a": a, "b": rng.poisson(rate)}.items()):
        adata = AnnData(x.astype(np.float32), obs=pd.DataFrame(index=names))
        adata.var_names = [f"{m}{j}" for j in range(20)]
        here = (np.arange(N) // 2 + k) % 8 != 0
        mods[m] = adata[here].copy()
    mdata = MuData(mods)
    mdata.obs["type"] = pd.Series(np.where(label, "tumour", "normal"), index=names).reindex(mdata.obs_names)
    mdata.obs["noise"] = rng.permutation(mdata.obs["type"])
    scvi.settings.seed = 0
    ProbabilisticCCA.setup_mudata(mdata, likelihoods={"a": "normal", "b": "nb"})
    model = ProbabilisticCCA(mdata, n_factors=3)
    model.train(train_size=0.5, validation_size=0.1)
    return model


@pytest.mark.parametrize(("target", "source"), [("a", "b"), ("b", "a")])
def test_class_survives_generation(model, target, source):
    """Classes are apart by five standard deviations: both classifications are nearly perfect."""
    found = conditional_classification(model, target, "type", given=[source])
    assert found.generated.accuracy > 0.9 and found.measured.accuracy > 0.9
    cohort = model._cohort(None)
    tested = np.setdiff1d(np.arange(N), model._fitted_positions())
    column = {"a": 0, "b": 1}
    has_source = cohort.present[tested, column[source]]
    assert found.generated.n_samples == has_source.sum()
    assert found.measured.n_samples == (has_source & cohort.present[tested, column[target]]).sum()
    assert found.measured.n_samples < found.generated.n_samples


def test_labels_without_relation_are_not_found(model):
    """Chance within 4 standard errors of about 90 samples."""
    found = conditional_classification(model, "a", "noise")
    for one in found:
        assert abs(one.accuracy - 0.5) < 4 * 0.5 / np.sqrt(one.n_samples)


def test_draws_are_noisier_than_the_mean(model):
    mean = conditional_classification(model, "b", "type")
    drawn = conditional_classification(model, "b", "type", n_draws=3)
    assert drawn.measured == mean.measured and drawn.generated.n_samples == mean.generated.n_samples
    assert 0.8 < drawn.generated.accuracy <= 1


def test_the_targets_own_values_are_not_used(model):
    """Test samples' measured target replaced by nonsense: what is generated, and its classification, stay."""
    found = conditional_classification(model, "a", "type")
    other = model.adata.copy()
    tested = np.setdiff1d(np.arange(N), model._fitted_positions())
    spoiled = other["a"].obs_names.isin(other.obs_names[tested])
    other["a"].X[spoiled] = np.random.default_rng(1).normal(size=(spoiled.sum(), 20)).astype(np.float32)
    again = model.impute("a", mdata=other, indices=tested, level=None).X
    np.testing.assert_allclose(again, model.impute("a", indices=tested, level=None).X, rtol=1e-5)
    assert found.generated.accuracy > 0.9


def test_labels_as_a_series_and_gaps(model):
    labels = model.adata.obs["type"].astype(object).sample(frac=1, random_state=0)
    found = conditional_classification(model, "a", "type")
    assert conditional_classification(model, "a", labels) == found
    unknown = labels.drop(labels.index[:60])
    assert conditional_classification(model, "a", unknown).generated.n_samples < found.generated.n_samples


def test_mistakes(model):
    with pytest.raises(ValueError, match="mdata.obs has no column 'typ'"):
        conditional_classification(model, "a", "typ")
    with pytest.raises(ValueError, match="1 samples are in both train and test, first 's003'"):
        conditional_classification(model, "a", "type", train=["s001", "s003"], test=["s003"])
    with pytest.raises(ValueError, match="no labelled test sample has an assay to generate 'a' from"):
        conditional_classification(model, "a", "type", test=[])
    with pytest.raises(ValueError, match="given names 'a'"):
        conditional_classification(model, "a", "type", given=["a"])
    with pytest.raises(ValueError, match="not trained on a modality 'c'"):
        conditional_classification(model, "c", "type")
    with pytest.raises(ValueError, match="classes that no training sample has"):
        few = [i for i in model._fitted_positions() if model.adata.obs["type"].iloc[i] == "normal"]
        other = [i for i in model._fitted_positions() if i not in few][:4]
        labels = model.adata.obs["type"].astype(str)
        labels.iloc[other] = "third"
        tested = np.setdiff1d(np.arange(N), model._fitted_positions())
        conditional_classification(model, "a", labels, train=[*few, *other], test=tested)
    with pytest.warns(UserWarning, match="the model was fitted on 4 of the 4 test samples"):
        seen = model._fitted_positions()
        conditional_classification(model, "a", "type", train=seen[4:], test=seen[:4])
