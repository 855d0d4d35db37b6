"""The simulated cohort has the structure that tutorials and the demo rely on."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import cross_val_predict, cross_val_score

from omicvae.datasets import CohortTruth, Simulation, simulated_cohort


@pytest.fixture(scope="module")
def cohort() -> Simulation[CohortTruth]:
    return simulated_cohort()


def standardised(table: pd.DataFrame, counts: bool = False) -> np.ndarray:
    x = table.to_numpy(dtype=float)
    x = np.log1p(x / x.sum(axis=1, keepdims=True) * 1e4) if counts else x
    return (x - x.mean(axis=0)) / x.std(axis=0)


def test_assays_and_their_gaps(cohort: Simulation[CohortTruth]) -> None:
    assert {m: a.shape for m, a in cohort.mdata.mod.items()} == {
        "rna": (300, 200),
        "mirna": (270, 120),
        "rppa": (200, 80),
    }
    for m, adata in cohort.mdata.mod.items():
        np.testing.assert_array_equal(cohort.mdata.obsm[m].ravel(), cohort.truth.present[m])
        np.testing.assert_array_equal(adata.X, cohort.truth.complete[m].loc[adata.obs_names])
    counts = cohort.mdata["mirna"].X
    assert counts.min() >= 0 and (counts == np.round(counts)).all()


def test_labels_are_complete_and_aligned(cohort) -> None:
    obs = cohort.mdata.obs
    assert set(obs["subtype"]) == {"LumA", "LumB", "Her2", "Basal"}
    assert set(obs["center"]) == {"center_A", "center_B"}
    assert not obs.isna().any().any()
    # Centroids are 1.6 apart with a spread of .6 around them: latents must stand nearest to their own subtype's mean.
    z = cohort.truth.shared[:, :3]
    means = pd.DataFrame(z).groupby(obs["subtype"].to_numpy(), observed=True).mean()
    nearest = means.index[((z[:, None] - means.to_numpy()[None]) ** 2).sum(axis=-1).argmin(axis=1)]
    assert (nearest == obs["subtype"].to_numpy()).mean() > 0.85


@pytest.mark.parametrize("assay", ["rna", "mirna", "rppa"])
def test_every_assay_tells_the_subtype(cohort, assay: str) -> None:
    x = standardised(cohort.truth.complete[assay], counts=assay == "mirna")
    classifier = LogisticRegression(C=0.01, max_iter=500)
    score = cross_val_score(classifier, x, cohort.mdata.obs["subtype"].astype(str), cv=3, scoring="balanced_accuracy")
    assert score.mean() > 0.6  # chance is .25


@pytest.mark.parametrize("assay", ["mirna", "rppa"])
def test_shared_features_are_predicted_by_rna_and_private_ones_are_not(cohort, assay: str) -> None:
    x, y = (standardised(cohort.truth.complete[m], counts=m == "mirna") for m in ("rna", assay))
    r2 = 1 - ((y - cross_val_predict(Ridge(300.0), x, y, cv=3)) ** 2).mean(axis=0)
    shared = cohort.mdata[assay].var["shared"].to_numpy()
    assert np.median(r2[shared]) > 0.25
    assert np.median(r2[~shared]) < 0.05


def test_the_centers_differ_in_single_features_and_not_in_latents(cohort) -> None:
    center = cohort.mdata.obs["center"].to_numpy() == "center_A"
    x = standardised(cohort.truth.complete["rna"])
    error = np.sqrt(1 / center.sum() + 1 / (~center).sum())
    assert (np.abs(x[center].mean(axis=0) - x[~center].mean(axis=0)) > 4 * error).mean() > 0.2
    z = cohort.truth.shared
    assert (np.abs(z[center].mean(axis=0) - z[~center].mean(axis=0)) < 4 * error).all()


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = (simulated_cohort(40, seed=s) for s in (3, 3, 4))
    for m in first.mdata.mod:
        np.testing.assert_array_equal(first.mdata[m].X, again.mdata[m].X)
        assert not first.truth.complete[m].sort_index().equals(other.truth.complete[m].sort_index())


def test_survives_a_file(cohort, tmp_path) -> None:
    cohort.mdata.write_h5mu(tmp_path / "cohort.h5mu")
    read = mudata.read_h5mu(tmp_path / "cohort.h5mu")
    for column in ("subtype", "center"):
        assert list(read.obs[column].astype(str)) == list(cohort.mdata.obs[column].astype(str))
    assert read["rna"].uns["units"] == "log2 expression"
    assert read.uns["provenance"]["source"].startswith("simulated")


@pytest.mark.parametrize(
    ("argument", "settings"), [("n_obs", {"n_obs": 0}), ("n_obs", {"n_obs": 19}), ("seed", {"seed": -1})]
)
def test_impossible_arguments_are_named(argument: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=argument):
        simulated_cohort(**settings)
