from __future__ import annotations

import numpy as np
import pytest

from omicvae.stats.conformal import (
    FEATURE,
    LEAST_SCORES,
    N_RANKS,
    PATTERNS,
    POOLED,
    Conformal,
    central_scores,
    fit_conformal,
    residual_scores,
)


def exponential(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).exponential(size=shape).astype(np.float32)


def fitted(scores: np.ndarray, *others: np.ndarray) -> Conformal:
    found = fit_conformal(scores, others)
    assert found is not None
    return found


def true_coverage(bounds: np.ndarray) -> np.ndarray:
    """Probability that a new standard exponential score keeps a bound."""
    return 1 - np.exp(-bounds)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
@pytest.mark.parametrize("n", [60, 199, 500])
def test_coverage_of_a_new_score_is_the_level_within_one_rank(n, level):
    """Each column is one calibration set; the coverage of a new score is averaged over 4000 of them."""
    coverage = true_coverage(fitted(exponential(n, 4000)).quantile(level))
    # The coverage of the r-th of n scores is Beta(r, n + 1 - r); five standard errors of its mean over columns.
    error = 5 * np.sqrt(level * (1 - level) / (n + 2) / 4000)
    slack = 1 / (n + 1) + (1 / (min(n, N_RANKS) + 1) if min(n, N_RANKS) < n and level * (N_RANKS + 1) % 1 else 0)
    assert level - error <= coverage.mean() <= level + slack + error


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_coverage_from_twenty_samples_is_pooled_over_features(level):
    """All features of a sample share half of their log score, so that values are far from independent."""
    rng = np.random.default_rng(1)
    coverage, n, p = [], 20, 30
    for _ in range(300):
        scale = np.exp(rng.normal(size=(n + 1, 1)))
        scores = (scale * rng.exponential(size=(n + 1, p))).astype(np.float32)
        found = fitted(scores[:n])
        assert (found.basis == POOLED).all()
        coverage.append((scores[n] <= found.quantile(level)).mean())
    # standard error of a mean over 300 samples with a sd of at most .35: .02; 3.5 of them
    assert level - 0.07 <= np.mean(coverage) <= level + 1 / (n + 1) + 0.07


def test_pooled_bound_of_equal_features_is_that_of_one():
    """If all features of a sample have the same score, pooling over features brings nothing: rank (n + 1) level."""
    scores = exponential(20, 1)
    pooled = fitted(np.repeat(scores, 50, axis=1))
    ordered = np.sort(scores[:, 0])
    for level in (0.5, 0.8, 0.9, 0.95):
        np.testing.assert_array_equal(pooled.quantile(level), ordered[int(np.ceil(21 * level - 1e-9)) - 1])


def test_pooled_bound_holds_the_share_of_scores_that_a_new_sample_asks_for():
    """(n + 1) / n of the level, as if the new sample kept no bound (Dunn et al., JASA 118, 2023, on pooled groups)."""
    scores = exponential(20, 30)
    found = fitted(scores)
    for rank in found.ranks:
        inside = scores <= found.quantile(rank)
        assert rank * 21 / 20 - 1e-6 <= inside.mean() <= rank * 21 / 20 + 2 / 600


def test_bounds_grow_with_the_level_and_reach_beyond_the_scores():
    found = fitted(exponential(60, 3))
    bounds = np.stack([found.quantile(level) for level in (0.01, 0.5, 0.9, 0.98, 0.99, 0.999)])
    assert (np.diff(bounds, axis=0) >= 0).all()
    largest = exponential(60, 3).max(0)
    assert (bounds[3] <= largest).all()
    assert (bounds[4:] > largest).all()  # 60 scores cannot tell more than 60/61 = .984


@pytest.mark.parametrize("level", [0.0, 1.0, -0.1, 90])
def test_levels_outside_the_unit_interval(level):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fitted(exponential(60, 1)).quantile(level)


def test_what_a_feature_rests_on():
    scores, other = exponential(80, 3), exponential(80, 3, seed=1) * 5
    scores[LEAST_SCORES:, 0] = np.nan  # just enough
    scores[LEAST_SCORES - 1 :, 1] = np.nan  # one too few, but other patterns have it
    scores[5:, 2], other[:, 2] = np.nan, np.nan  # too few altogether
    found = fitted(scores, other)
    assert found.basis.tolist() == [FEATURE, PATTERNS, POOLED]
    np.testing.assert_array_equal(found.quantile(0.9)[0], np.sort(scores[:50, 0])[int(np.ceil(51 * 145 / 161)) - 1])
    together = np.concatenate([scores[:49, 1], other[:, 1]])
    # 160 rows tell ranks of 1/161 apart: the first at or above .9 is 145/161
    np.testing.assert_array_equal(found.quantile(0.9)[1], np.sort(together)[int(np.ceil(130 * 145 / 161)) - 1])
    everything = np.concatenate([scores, other])
    assert np.nanquantile(everything, 0.9) <= found.quantile(0.9)[2] <= np.nanmax(everything)


def test_own_scores_are_not_mixed_with_those_of_other_patterns():
    scores = exponential(70, 4)
    alone, beside = fitted(scores), fitted(scores, exponential(300, 4, seed=1) * 100)
    np.testing.assert_array_equal(beside.quantile(0.9), alone.quantile(0.9))


def test_nan_scores_are_as_if_their_samples_were_not_there():
    scores = exponential(120, 2)
    scores[::3] = np.nan
    kept = fitted(scores[~np.isnan(scores).any(1)])
    for found, expected in zip(fitted(scores), kept, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_feature_with_few_scores_does_not_coarsen_the_others():
    scores = exponential(1000, 2)
    scores[60:, 1] = np.nan
    found = fitted(scores)
    np.testing.assert_array_equal(found.quantile(0.99)[0], np.sort(scores[:, 0])[int(np.ceil(1001 * 0.99)) - 1])
    assert found.quantile(0.99)[1] > np.nanmax(scores[:, 1]) >= found.quantile(0.98)[1]


def test_order_of_samples_and_of_features_does_not_matter():
    scores = exponential(70, 4)
    scores[:30, 2] = np.nan
    found, mixed = fitted(scores), fitted(scores[::-1][:, [2, 0, 3, 1]])
    np.testing.assert_array_equal(mixed.quantile(0.8), found.quantile(0.8)[[2, 0, 3, 1]])


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (0, 0), (5, 0)])
def test_nothing_was_scored(shape):
    assert fit_conformal(np.full(shape, np.nan, np.float32)) is None


def test_one_score():
    found = fitted(np.array([[np.nan, 2.0]], np.float32))
    np.testing.assert_array_equal(found.quantile(0.5), [2.0, 2.0])
    assert (found.quantile(0.9) > 2).all()


@pytest.mark.parametrize("n", [20, 60, 400])
def test_level_is_the_inverse_of_quantile(n):
    found, new = fitted(exponential(n, 3)), exponential(200, 3, seed=1)
    levels = found.level(new)
    for rank in found.ranks:
        np.testing.assert_array_equal(levels <= rank + 1e-6, new <= found.quantile(rank))


@pytest.mark.parametrize("kept", [60, 150])
def test_levels_of_new_scores_are_uniform(kept):
    """Averaged over 2000 calibration sets, whether or not a feature has all the scores that set the ranks."""
    scores = exponential(151, 2000)
    scores[kept:150, :1000] = np.nan
    levels = fitted(scores[:150]).level(scores[150:])[0, :1000]
    # 1000 independent levels: the largest distance of their distribution function exceeds .062 once in a thousand
    grid = (np.arange(1000) + 0.5) / 1000
    assert np.abs(np.sort(levels) - grid).max() < 0.062


def test_levels_of_tied_scores_are_uniform():
    """Three values, equally often: ranks cannot tell more, but levels must be spread over all of [0, 1]."""
    scores = np.random.default_rng(0).integers(0, 3, size=(300, 1)).astype(np.float32)
    levels = np.sort(fitted(scores).level(np.repeat(scores, 10, axis=0))[:, 0])
    assert np.abs(levels - (np.arange(3000) + 0.5) / 3000).max() < 0.03


def test_levels_of_the_extremes_and_of_no_score():
    found = fitted(exponential(60, 3))
    levels = found.level(np.array([[1e9, 0.0, np.nan]], np.float32))[0]
    assert found.ranks[-1] <= levels[0] <= 1
    assert 0 <= levels[1] <= found.ranks[0]
    assert np.isnan(levels[2])
    np.testing.assert_array_equal(found.level(exponential(9, 3, seed=2)), found.level(exponential(9, 3, seed=2)))


def test_scores_of_continuous_values_and_of_probability_transforms():
    truth, mean = np.array([[1.0, np.nan, 4.0]]), np.array([[0.0, 0.0, 6.0]])
    np.testing.assert_array_equal(residual_scores(truth, mean, np.array([[2.0, 1.0, 0.5]])), [[0.5, np.nan, 4.0]])
    assert np.isfinite(residual_scores(truth[:, :1], mean[:, :1], np.zeros((1, 1)))).all()
    np.testing.assert_allclose(central_scores(np.array([[0.5, 0.05, 0.95, 1.0]])), [[0, 0.9, 0.9, 1]], atol=1e-6)


def test_central_scores_of_uniform_transforms_are_uniform():
    u = (np.arange(1000) + 0.5) / 1000
    np.testing.assert_allclose(np.sort(central_scores(u[:, None])[:, 0]), u, atol=1e-3)
