"""Scores against their definitions, other implementations and simulation."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from sklearn.metrics import mean_absolute_error, r2_score, roc_auc_score

from omicvae.stats import scores

Array = np.ndarray[Any, Any]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def with_gaps(values: Array, rng: np.random.Generator, share: float = 0.3) -> Array:
    return np.where(rng.random(values.shape) < share, np.nan, values)


class TestNormal:
    @pytest.mark.parametrize(("y", "mean", "sd"), [(0.3, 0, 1), (-4, 1, 0.5), (2, 2, 3), (30, 0, 1)])
    def test_crps_is_the_integral_that_defines_it(self, y: float, mean: float, sd: float) -> None:
        normal = stats.norm(mean, sd)
        below, _ = quad(lambda x: normal.cdf(x) ** 2, mean - 40 * sd, y, limit=200, points=[mean])
        above, _ = quad(lambda x: normal.sf(x) ** 2, y, mean + 40 * sd, limit=200)
        assert scores.crps_normal(y, mean, sd) == pytest.approx(below + above, rel=1e-6)

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_a_point_prediction_scores_its_absolute_error(self, dtype: type) -> None:
        y, mean = np.array([3, -2, 1e30, 5], dtype), np.array([1, 2, 0, 5], dtype)
        found = scores.crps_normal(y, mean, np.zeros(4, dtype))
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, np.abs(y - mean))

    def test_crps_is_proper(self) -> None:
        """Its expectation over N(0, 1) truths, here over their quantiles, is least for the prediction N(0, 1)."""
        y = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
        truthful = scores.crps_normal(y, 0, 1).mean()
        assert truthful == pytest.approx(1 / np.sqrt(np.pi), abs=1e-3)
        for mean, sd in [(0.1, 1), (-0.1, 1), (0, 0.9), (0, 1.1)]:
            assert scores.crps_normal(y, mean, sd).mean() > truthful + 1e-4

    def test_pit_is_the_distribution_function(self, rng: np.random.Generator) -> None:
        y, mean, sd = rng.normal(size=(3, 5, 4))
        np.testing.assert_allclose(scores.pit_normal(y, mean, sd**2), stats.norm.cdf(y, mean, sd**2))
        np.testing.assert_array_equal(scores.pit_normal([1, 2, 3], 2, 0), [0, 0.5, 1])

    @pytest.mark.parametrize("score", [scores.crps_normal, scores.pit_normal])
    def test_only_what_was_not_measured_or_predicted_is_nan(self, score: Callable[..., Array]) -> None:
        found = score(np.array([np.nan, 0, 1]), np.array([0, np.nan, 0]), 1)
        np.testing.assert_array_equal(np.isnan(found), [True, True, False])

    @pytest.mark.parametrize("score", [scores.crps_normal, scores.pit_normal])
    def test_a_negative_sd_is_refused(self, score: Callable[..., Array]) -> None:
        with pytest.raises(ValueError, match="1 standard deviations are negative"):
            score(0, 0, np.array([1, -1]))


class TestCrpsOfDraws:
    @pytest.mark.parametrize("K", [2, 3, 40])
    def test_is_its_definition(self, K: int, rng: np.random.Generator) -> None:
        y, draws = rng.poisson(2, (6, 5)).astype(float), rng.poisson(2, (K, 6, 5)).astype(float)  # with ties
        pairs = np.abs(draws[:, None] - draws[None]).sum((0, 1))
        expected = np.abs(draws - y).mean(0) - pairs / (2 * K * (K - 1))
        np.testing.assert_allclose(scores.crps_sample(y, draws), expected, atol=1e-12)

    def test_is_fair_whatever_the_number_of_draws(self, rng: np.random.Generator) -> None:
        """With 3 draws its mean is that of the normal distribution they are from; with K**2 for K(K-1) .19 too large."""
        y = np.full((40_000, 1), 0.5)
        found = scores.crps_sample(y, rng.normal(size=(3, *y.shape)))
        error = found.std() / np.sqrt(len(y))
        assert error < 0.003
        assert found.mean() == pytest.approx(scores.crps_normal(0.5, 0, 1), abs=4 * error)

    def test_float32_is_accurate_far_from_zero(self, rng: np.random.Generator) -> None:
        y = (1e5 + rng.integers(0, 8, (30, 4))).astype(np.float32)
        draws = (1e5 + rng.integers(0, 8, (50, 30, 4))).astype(np.float32)
        found = scores.crps_sample(y, draws)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, scores.crps_sample(y - 1e5, draws - 1e5), rtol=1e-5, atol=1e-6)

    def test_parts_give_the_same_as_the_whole(self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        y, draws = rng.normal(size=(7, 5)), rng.normal(size=(9, 7, 5))
        whole = scores.crps_sample(y, draws)
        monkeypatch.setattr("omicvae.stats.scores._arrays.HELD", 27)
        np.testing.assert_allclose(scores.crps_sample(y, draws), whole)

    def test_takes_less_memory_than_the_draws(self, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("omicvae.stats.scores._arrays.HELD", 2**16)
        y, draws = np.zeros((500, 200), np.float32), rng.random((40, 500, 200), dtype=np.float32)
        tracemalloc.start()
        scores.crps_sample(y, draws)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.3 * draws.nbytes

    def test_values_that_were_not_measured_are_nan(self, rng: np.random.Generator) -> None:
        y, draws = rng.normal(size=(2, 3)), rng.normal(size=(5, 2, 3))
        y[0, 1] = np.nan
        assert np.argwhere(np.isnan(scores.crps_sample(y, draws))).tolist() == [[0, 1]]
        assert scores.crps_sample(y[:0], draws[:, :0]).shape == (0, 3)

    def test_what_cannot_be_scored_is_refused(self) -> None:
        with pytest.raises(ValueError, match="at least 2 are needed"):
            scores.crps_sample(np.zeros((2, 3)), np.zeros((1, 2, 3)))
        with pytest.raises(ValueError, match=r"shape \(K, 2, 3\), got \(4, 3, 2\)"):
            scores.crps_sample(np.zeros((2, 3)), np.zeros((4, 3, 2)))


class TestRandomisedPit:
    @pytest.mark.parametrize("mean", [0.05, 3.0, None])
    @pytest.mark.parametrize("K", [1, 19])
    def test_is_uniform_where_truth_and_draws_are_exchangeable(
        self, mean: float | None, K: int, rng: np.random.Generator
    ) -> None:
        """Kolmogorov-Smirnov: 20000 independent values stay within 1.95 / sqrt(20000) with probability .999."""
        both = rng.normal(size=(K + 1, 20_000, 1)) if mean is None else rng.poisson(mean, (K + 1, 20_000, 1))
        u = scores.randomised_pit(both[0], both[1:], rng)
        assert stats.kstest(u[:, 0], "uniform").statistic < 1.95 / np.sqrt(u.size)

    def test_says_on_which_side_a_prediction_is_wrong(self, rng: np.random.Generator) -> None:
        draws = np.arange(99.0)[:, None, None]
        u = scores.randomised_pit(np.array([[-1.0]]), draws, rng), scores.randomised_pit([[1e3]], draws, rng)
        assert u[0] < 0.01
        assert u[1] > 0.99

    def test_values_that_were_not_measured_are_nan(self, rng: np.random.Generator) -> None:
        u = scores.randomised_pit(np.array([[np.nan, 1.0]]), np.zeros((3, 1, 2)), rng)
        assert np.isnan(u).tolist() == [[True, False]]

    def test_no_draw_is_refused(self, rng: np.random.Generator) -> None:
        with pytest.raises(ValueError, match="no draws"):
            scores.randomised_pit(np.zeros((1, 2)), np.zeros((0, 1, 2)), rng)


def test_coverage_counts_measured_values_and_both_limits() -> None:
    y = np.array([[0.0, 5, np.nan], [1, 2, np.nan]])
    lower, upper = np.zeros_like(y), np.array([[0.0, 4, 4], [1, 4, 4]])
    np.testing.assert_array_equal(scores.coverage(y, lower, upper, axis=0), [1, 0.5, np.nan])
    np.testing.assert_array_equal(scores.coverage(y, lower, upper, axis=1), [0.5, 1])
    assert scores.coverage(y, lower, upper) == 0.75
    upper[0, 0] = np.nan
    assert np.isnan(scores.coverage(y, lower, upper, axis=0)).tolist() == [True, False, True]
    assert np.isnan(scores.coverage(y[:0], lower[:0], upper[:0]))


class TestAgreement:
    """Per-feature scores, each feature against scikit-learn or scipy on what was measured of it."""

    @pytest.mark.parametrize(
        ("score", "reference"),
        [
            (scores.r2, r2_score),
            (scores.mae, mean_absolute_error),
            (scores.spearman, lambda a, b: stats.spearmanr(a, b).statistic),
        ],
    )
    @pytest.mark.parametrize("discrete", [False, True])
    def test_is_the_reference_on_measured_values(
        self,
        score: Callable[..., Array],
        reference: Callable[..., float],
        discrete: bool,
        rng: np.random.Generator,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("omicvae.stats.scores._arrays.HELD", 3 * 40)  # three features at a time
        truth = rng.poisson(1.5, (40, 7)).astype(float) if discrete else rng.normal(size=(40, 7))
        prediction = np.round(0.5 * truth + rng.normal(size=truth.shape), 0 if discrete else 9)
        truth = with_gaps(truth, rng)
        expected = [reference(a[m], b[m]) for a, b in zip(truth.T, prediction.T, strict=True) if (m := ~np.isnan(a)).any()]  # fmt: skip
        np.testing.assert_allclose(score(truth, prediction), expected, rtol=1e-9)
        prediction[np.isnan(truth)] = np.nan  # nothing is asked of a prediction there
        np.testing.assert_allclose(score(truth, prediction), expected, rtol=1e-9)

    def test_area_under_the_curve_is_that_of_sklearn(self, rng: np.random.Generator) -> None:
        truth = with_gaps((rng.random((60, 8)) < 0.2).astype(float), rng)
        given = np.round(rng.normal(size=truth.shape) + np.nan_to_num(truth), 1)  # with ties
        expected = [roc_auc_score(a[m], b[m]) for a, b in zip(truth.T, given.T, strict=True) if (m := ~np.isnan(a)).any()]  # fmt: skip
        np.testing.assert_allclose(scores.auroc(truth, given), expected)

    @pytest.mark.parametrize("score", [scores.r2, scores.spearman])
    def test_is_unknown_for_constant_or_hardly_measured_features(self, score: Callable[..., Array]) -> None:
        nan = np.nan
        truth = np.array([[0.1, 1, nan, 1], [0.1, 2, nan, 2], [0.1, nan, nan, 4], [0.1, nan, nan, 5]], np.float32)
        found = score(truth, np.arange(16.0, dtype=np.float32).reshape(4, 4))
        assert np.isnan(found).tolist() == [True, True, True, False]
        assert score(truth[:1], truth[:1]).shape == (4,)
        assert np.isnan(score(truth[:0], truth[:0])).all()
        assert score(truth[:, :0], truth[:, :0]).shape == (0,)

    def test_a_constant_prediction_has_no_rank_correlation_but_explains_nothing(self) -> None:
        truth = np.arange(5.0)[:, None]
        assert np.isnan(scores.spearman(truth, np.full_like(truth, 2)))
        assert scores.r2(truth, np.full_like(truth, 2)) == 0

    @pytest.mark.parametrize("score", [scores.r2, scores.spearman, scores.mae, scores.auroc])
    def test_a_measured_value_without_prediction_makes_its_feature_unknown(self, score: Callable[..., Array]) -> None:
        truth = np.array([[0.0, 1], [1, 0], [1, 1], [0, 0]])
        prediction = truth + 0.1
        prediction[2, 0] = np.nan
        assert np.isnan(score(truth, prediction)).tolist() == [True, False]

    def test_area_under_the_curve_needs_both_classes(self) -> None:
        truth = np.array([[1.0, 0, np.nan, 1], [1, 0, np.nan, 0]])
        np.testing.assert_array_equal(scores.auroc(truth, truth), [np.nan, np.nan, np.nan, 1])
        with pytest.raises(ValueError, match="2 values are neither 0 nor 1, the first is 0.5"):
            scores.auroc(np.array([[0.5, 2, np.nan]]), np.zeros((1, 3)))

    @pytest.mark.parametrize("score", [scores.r2, scores.spearman, scores.mae, scores.auroc])
    def test_order_of_samples_does_not_matter(self, score: Callable[..., Array], rng: np.random.Generator) -> None:
        truth, prediction = with_gaps(rng.integers(0, 2, (30, 4)).astype(float), rng), rng.normal(size=(30, 4))
        order = rng.permutation(30)
        np.testing.assert_allclose(score(truth[order], prediction[order]), score(truth, prediction))

    @pytest.mark.parametrize("score", [scores.r2, scores.spearman, scores.mae, scores.auroc, scores.skill])
    def test_shapes_that_differ_are_refused(self, score: Callable[..., Array]) -> None:
        with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(3, 2\)"):
            score(np.zeros((2, 3)), np.zeros((3, 2)))

    def test_one_feature_is_a_column(self) -> None:
        with pytest.raises(ValueError, match=r"\(samples, features\), got \(3,\)"):
            scores.r2(np.zeros(3), np.zeros(3))


def test_skill_compares_sums_over_values_that_both_scored() -> None:
    score = np.array([[1.0, np.nan, 0], [1, 1, 2], [7, 0, 2]])
    reference = np.array([[2.0, 5, 2], [2, 4, 2], [np.nan, 0, 0]])
    np.testing.assert_array_equal(scores.skill(score, reference), [0.5, 0.75, 0])
    assert scores.skill(score, reference, axis=None) == pytest.approx(1 - 7 / 12)
    assert np.isnan(scores.skill([[1.0]], [[0.0]]))
    assert np.isnan(scores.skill(score[:0], reference[:0])).all()


class TestRiskCoverage:
    def test_an_informative_sd_puts_small_errors_first(self, rng: np.random.Generator) -> None:
        """Errors N(0, sd): the mean absolute error of the most certain is sqrt(2 / pi) times their mean sd."""
        sd = rng.uniform(0.2, 2, (2000, 20))
        error, shares = sd * rng.normal(size=sd.shape), np.array([0.1, 0.5, 1])
        found = scores.risk_coverage(error, sd, shares)
        ordered = np.sort(sd, axis=None)
        expected = [np.sqrt(2 / np.pi) * ordered[: int(s * sd.size)].mean() for s in shares]
        np.testing.assert_allclose(found, expected, rtol=0.05)  # 4000 values: standard error .012, relative
        assert scores.rank_correlation(error, sd) > 0.4
        assert abs(scores.rank_correlation(error, rng.permutation(sd, axis=0))) < 0.02  # standard error .005

    def test_shares_are_of_measured_values_and_one_at_least(self) -> None:
        error, sd = np.array([[1.0, -2, np.nan], [np.nan, 3, 4]]), np.array([[2.0, 1, 0], [0, 4, 3]])
        np.testing.assert_array_equal(scores.risk_coverage(error, sd, [0.01, 0.5, 0.75, 1]), [2, 1.5, 7 / 3, 2.5])
        assert np.isnan(scores.risk_coverage(error[:0], sd[:0], [0.5])).all()
        assert scores.rank_correlation(error, sd) == pytest.approx(stats.spearmanr([1, 2, 3, 4], [2, 1, 4, 3])[0])

    @pytest.mark.parametrize("share", [0, 1.5, np.nan])
    def test_a_share_outside_its_range_is_refused(self, share: float) -> None:
        with pytest.raises(ValueError, match="shares must lie in"):
            scores.risk_coverage(np.ones(3), np.ones(3), [share])
