"""Per-feature scores against scipy and scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from omicvae.metrics import feature_scores


@pytest.fixture
def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(0)
    index, columns = [f"s{i}" for i in range(30)], ["p", "q", "r"]
    truth = pd.DataFrame(rng.normal(size=(30, 3)).round(1), index=index, columns=columns)  # ties
    prediction = 0.5 * truth + 0.3 * rng.normal(size=(30, 3))
    return truth.mask(rng.random((30, 3)) < 0.2), prediction


def test_scores_are_those_of_scipy_and_scikit_learn(tables):
    truth, prediction = tables
    found = feature_scores(truth, prediction)
    for name in truth:
        seen = truth[name].notna()
        x, y = truth.loc[seen, name], prediction.loc[seen, name]
        expected = [spearmanr(x, y)[0], r2_score(x, y), mean_absolute_error(x, y), seen.sum()]
        np.testing.assert_allclose(found.loc[name, ["spearman", "r2", "mae", "n_samples"]].astype(float), expected)


def test_tables_are_matched_by_name(tables):
    truth, prediction = tables
    found = feature_scores(truth, prediction)
    mixed = prediction.sample(frac=1, random_state=0)[["r", "p"]]
    pd.testing.assert_frame_equal(feature_scores(truth, mixed), found.loc[["r", "p"]])
    extra = pd.concat([prediction, pd.DataFrame(9.0, index=["new"], columns=prediction.columns)])
    pd.testing.assert_frame_equal(feature_scores(truth, extra), found)  # a sample that was not measured
    np.testing.assert_array_equal(feature_scores(truth.to_numpy(), prediction.to_numpy()), found)


def test_undefined_scores_are_nan(tables):
    truth, prediction = tables[0].copy(), tables[1].copy()
    truth["p"], prediction["q"] = np.nan, 1.0
    truth.iloc[2:, 2] = np.nan
    found = feature_scores(truth, prediction)
    assert found.loc["p", ["spearman", "r2", "mae"]].isna().all() and found.loc["p", "n_samples"] == 0
    assert np.isnan(found.loc["q", "spearman"]) and found.loc["q", "r2"] <= 0
    assert found.loc["r", ["spearman", "r2"]].isna().all() and found.loc["r", "mae"] > 0


def test_mistakes(tables):
    truth, prediction = tables
    with pytest.raises(ValueError, match="the truth lacks 1 of the predicted features: 'new'"):
        feature_scores(truth, prediction.assign(new=1.0))
    with pytest.raises(ValueError, match="no sample has both"):
        feature_scores(truth, prediction.rename(index=lambda s: f"other_{s}"))
    with pytest.raises(ValueError, match="names of samples or features of the prediction are not unique"):
        feature_scores(truth, pd.concat([prediction, prediction]))
    with pytest.raises(ValueError, match="same shape"):
        feature_scores(truth.to_numpy(), prediction.to_numpy()[:, :2])
    with pytest.raises(TypeError, match="the prediction must be an array of numbers, got dict"):
        feature_scores(truth, {"a": 1})
