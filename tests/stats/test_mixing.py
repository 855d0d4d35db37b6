from __future__ import annotations

import numpy as np
import pytest

from omicvae.stats.mixing import LEAST_WEIGHT, mixture_terms, mixture_weights


def mixture_crps(truth: float, first: np.ndarray, second: np.ndarray, w: float) -> float:
    """E|X - y| - E|X - X'| / 2 of the mixture, every expectation by its definition and without a draw meeting itself."""
    between = lambda a, b: np.abs(a[:, None] - b)
    within = lambda a: between(a, a).sum() / (len(a) * (len(a) - 1))
    error = (1 - w) * np.abs(first - truth).mean() + w * np.abs(second - truth).mean()
    spread = (1 - w) ** 2 * within(first) + w**2 * within(second) + 2 * w * (1 - w) * between(first, second).mean()
    return float(error - spread / 2)


def test_terms_are_the_crps_of_the_mixture():
    rng = np.random.default_rng(0)
    truth, first, second = rng.normal(size=(3, 2)), rng.normal(size=(9, 3, 2)), rng.normal(1, 2, size=(9, 3, 2))
    terms = mixture_terms(truth, first, second)
    for w in (0.0, 0.3, 1.0):
        expected = [[mixture_crps(truth[i, j], first[:, i, j], second[:, i, j], w) for j in (0, 1)] for i in range(3)]
        np.testing.assert_allclose(terms.constant + terms.linear * w + terms.quadratic * w**2, expected, atol=1e-5)
        np.testing.assert_allclose(terms.at(np.full(2, w)), terms.constant - np.array(expected), atol=1e-5)


def test_terms_are_unbiased_for_normal_distributions():
    """CRPS of N(0, 1) at y = 0 is (sqrt(2) - 1) / sqrt(pi); 20,000 repetitions of 5 draws have a standard error .003."""
    rng = np.random.default_rng(0)
    draws = rng.normal(size=(2, 5, 20_000, 1))
    terms = mixture_terms(np.zeros((20_000, 1)), *draws)
    closed_form = (np.sqrt(2) - 1) / np.sqrt(np.pi)
    for w in (0.0, 0.5, 1.0):
        assert (terms.constant + terms.linear * w + terms.quadratic * w**2).mean() == pytest.approx(
            closed_form, abs=0.012
        )


def test_terms_of_values_that_were_not_measured_are_nan():
    draws = np.random.default_rng(0).normal(size=(2, 5, 2, 2))
    terms = mixture_terms(np.array([[np.nan, 0.0], [0.0, 0.0]]), *draws)
    for term in (terms.constant, terms.linear):
        assert np.isnan(term).tolist() == [[True, False], [False, False]]
    assert np.isnan(terms.at(np.ones(2))).tolist() == [[True, False], [False, False]]


def normal_terms(n: int, p: int, *, first: float, second: float, true_weight: float, seed: int = 0, draws: int = 30):
    """Truth from a mixture of two normal distributions around these means, the predictions their components."""
    rng = np.random.default_rng(seed)
    mean = np.where(rng.random((n, p)) < true_weight, second, first)
    truth = mean + rng.normal(size=(n, p))
    predictions = [m + rng.normal(size=(draws, n, p)) for m in (first, second)]
    return mixture_terms(truth, *predictions)


def test_the_component_that_data_come_from_gets_all_weight():
    right = mixture_weights(normal_terms(300, 4, first=2.0, second=0.0, true_weight=1.0))
    assert (right > 0.9).all()
    assert (mixture_weights(normal_terms(300, 4, first=0.0, second=2.0, true_weight=0.0)) == 0).all()


@pytest.mark.parametrize("true_weight", [0.3, 0.7])
def test_weights_of_a_mixture_are_found(true_weight):
    weights = mixture_weights(normal_terms(2000, 5, first=-2.0, second=2.0, true_weight=true_weight))
    # 2000 values tell a share to .01; the overlap of the components doubles that, five times it are allowed
    np.testing.assert_allclose(weights, true_weight, atol=0.1)


def beside(*parts):
    """The features of all parts."""
    return type(parts[0])(*(np.concatenate(t, axis=1) for t in zip(*parts, strict=True)))


def test_each_feature_has_a_weight_of_its_own():
    good = normal_terms(400, 1, first=2.0, second=0.0, true_weight=1.0)
    bad = normal_terms(400, 1, first=0.0, second=2.0, true_weight=0.0, seed=1)
    both = beside(good, bad)
    weights = mixture_weights(both)
    assert weights[0] > 0.9
    assert weights[1] < 0.1
    np.testing.assert_array_equal(mixture_weights(type(good)(*(t[:, ::-1] for t in both))), weights[::-1])


def test_ten_features_that_gain_are_not_hidden_by_thousands_that_lose():
    """In 80 samples, where 3,000 features lose more together than ten gain."""
    good = normal_terms(80, 10, first=1.2, second=0.0, true_weight=1.0)
    worse = normal_terms(80, 3000, first=0.0, second=0.2, true_weight=0.0, seed=1)
    one_by_one = mixture_weights(beside(good, worse))
    assert (one_by_one[:10] > 0.5).all()
    assert (one_by_one[10:] == 0).all()
    # some values are missing, and a feature that both predict alike has nothing to gain
    alike = normal_terms(80, 1, first=0.0, second=0.0, true_weight=0.0)._replace(
        linear=np.zeros((80, 1)), quadratic=np.zeros((80, 1))
    )
    gaps = beside(good, worse, alike)
    for term in gaps:
        term[:40, 3] = np.nan
    weights = mixture_weights(gaps)
    assert (weights[[0, 1, 2, *range(4, 10)]] > 0.5).all() and weights[-1] == 0


def test_hardly_any_single_feature_is_given_weight_by_chance():
    found = [
        (mixture_weights(normal_terms(n, 200, first=0.0, second=0.3, true_weight=0.0, seed=s)) > 0).sum()
        for s in range(10)
        for n in (10, 80)
    ]
    assert sum(found) <= 3, found


def test_a_distribution_of_no_use_is_seldom_given_weight():
    """Both predict equally well: only luck can make the mixture better, by more than a standard error one time in six."""
    given = [
        bool(mixture_weights(normal_terms(100, 3, first=1.0, second=1.0, true_weight=0.5, seed=s, draws=10)).any())
        for s in range(60)
    ]
    assert np.mean(given) <= 0.4


def test_weights_are_zero_or_worth_having():
    weights = mixture_weights(normal_terms(300, 20, first=0.0, second=0.6, true_weight=0.15))
    assert ((weights == 0) | ((weights >= LEAST_WEIGHT) & (weights <= 1))).all()


@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_samples_for_any_weight(n):
    assert mixture_weights(normal_terms(n, 4, first=5.0, second=0.0, true_weight=1.0)).tolist() == [0] * 4


def test_values_that_were_not_measured_count_for_nothing():
    terms = normal_terms(300, 3, first=2.0, second=0.0, true_weight=1.0)
    hidden = type(terms)(*(t.copy() for t in terms))
    for t in hidden:
        t[50:, 1] = np.nan
        t[:, 2] = np.nan
    weights = mixture_weights(hidden)
    assert np.isfinite(weights).all()
    assert weights[0] > 0.9
    assert weights[2] > 0.9  # what all features tell
    assert mixture_weights(type(terms)(*(np.full_like(t, np.nan) for t in terms))).tolist() == [0, 0, 0]


def test_together_one_of_the_two_predicts_all_features() -> None:
    """The second is better in sum, although not in every feature; then the other way round."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 4))
    first = truth + rng.normal(size=(30, 60, 4)) * np.array([0.5, 1.0, 1.0, 1.0])
    second = truth + rng.normal(size=(30, 60, 4)) * np.array([1.0, 0.3, 0.3, 0.3])
    apart = mixture_weights(mixture_terms(truth, first, second))
    assert apart[0] < 0.5 < apart[1:].min()
    assert (mixture_weights(mixture_terms(truth, first, second), together=True) == 1).all()
    assert (mixture_weights(mixture_terms(truth, second, first), together=True) == 0).all()
