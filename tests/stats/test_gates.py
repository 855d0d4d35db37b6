from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from omicvae.stats.gates import GAIN_RANGE, feature_gains, gained_error, gated_error, isotonic_gates


def sums(k: int, seed: int, n: int = 30) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sums of squares and products of codes and predictions that explain less and less of them, some badly scaled."""
    rng = np.random.default_rng(seed)
    prediction = rng.normal(size=(n, k)) * rng.uniform(0.2, 2, k)
    truth = prediction * rng.uniform(-0.3, 1.6, k) + rng.normal(size=(n, k))
    return (truth**2).sum(0), (truth * prediction).sum(0), (prediction**2).sum(0)


def squared_error(gates: np.ndarray, products: np.ndarray, squares: np.ndarray) -> float:
    return float((gates**2 * squares - 2 * gates * products).sum())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_gates_solve_the_quadratic_program(k, seed):
    _, products, squares = sums(k, seed)
    falling = {"type": "ineq", "fun": lambda c: c[:-1] - c[1:]} if k > 1 else ()
    found = minimize(
        squared_error, np.full(k, 0.5), args=(products, squares), bounds=[(0, 1)] * k, constraints=falling,
        method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    gates = isotonic_gates(products, squares)
    assert ((gates >= 0) & (gates <= 1)).all()
    assert (np.diff(gates) <= 0).all()
    assert squared_error(gates, products, squares) <= found.fun + 1e-6 * abs(found.fun)
    np.testing.assert_allclose(gates, found.x, atol=1e-4)


def test_falling_regressions_are_their_own_gates():
    squares = np.array([4.0, 1.0, 9.0, 2.0])
    wanted = np.array([0.9, 0.5, 0.5, 0.1])
    np.testing.assert_allclose(isotonic_gates(wanted * squares, squares), wanted)


def test_useless_overconfident_and_absent_predictions():
    assert isotonic_gates(np.array([-3.0, -1.0]), np.array([2.0, 2.0])).tolist() == [0, 0]
    assert isotonic_gates(np.array([5.0, 4.0]), np.array([2.0, 2.0])).tolist() == [1, 1]
    assert isotonic_gates(np.zeros(3), np.zeros(3)).tolist() == [0, 0, 0]
    assert isotonic_gates(np.zeros(0), np.zeros(0)).shape == (0,)
    # a component without predictions has no say in its neighbours' gates
    np.testing.assert_allclose(isotonic_gates(np.array([0.0, 2.0, 0.0]), np.array([0.0, 4.0, 0.0]))[:2], 0.5)


@pytest.mark.parametrize("seed", range(4))
def test_gated_error_is_what_the_best_gates_leave(seed):
    total, products, squares = sums(6, seed)
    least = gated_error(total, products, squares, np.ones(6))
    rng = np.random.default_rng(seed)
    for _ in range(200):
        gates = np.sort(rng.random(6))[::-1]
        assert least <= (total + gates**2 * squares - 2 * gates * products).sum() + 1e-9
    assert 0 <= least <= total.sum()


def test_gated_error_counts_components_by_what_they_explain():
    total, products, squares = sums(2, seed=0)
    apart = [gated_error(total, products, squares, w) for w in np.eye(2)]
    assert gated_error(total, products, squares, np.array([3.0, 0.5])) == pytest.approx(3 * apart[0] + 0.5 * apart[1])


def test_gains_of_many_samples_are_their_regressions_within_their_range():
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=(400, 5))
    truth = prediction * [0.0, 0.4, 1.0, 2.0, -1.0] + 0.1 * rng.normal(size=(400, 5))
    gains = feature_gains(truth, prediction, np.full(5, 400.0))
    # 400 samples with an error of .1 give a slope to .005: next to factors this different there is nothing to shrink
    np.testing.assert_allclose(gains, [0, 0.4, 1, GAIN_RANGE[1], GAIN_RANGE[0]], atol=0.02)


@pytest.mark.parametrize("n", [30, 100])
def test_gains_of_few_samples_are_nearer_to_the_truth_than_regressions(n):
    """Shrinkage of many noisy slopes has less error than the slopes themselves (Efron and Morris, 1973)."""
    rng = np.random.default_rng(n)
    slopes = np.clip(rng.normal(0.8, 0.1, 300), *GAIN_RANGE)
    prediction = 0.5 * rng.normal(size=(n, 300))
    truth = slopes * prediction + rng.normal(size=(n, 300))
    plain = ((truth * prediction).sum(0) / (prediction**2).sum(0)).clip(*GAIN_RANGE)
    error = [((found - slopes) ** 2).mean() for found in (feature_gains(truth, prediction, np.full(300, n)), plain)]
    assert error[0] < 0.5 * error[1]


def test_gains_of_predictions_that_are_mostly_noise_are_smaller():
    rng = np.random.default_rng(0)
    signal, noise = np.repeat([0.6, 0.0], 100), np.repeat([0.2, 0.1], 100)
    true = signal * rng.normal(size=(60, 200))
    prediction = true + noise * rng.normal(size=(60, 200))
    gains = feature_gains(true + rng.normal(size=(60, 200)), prediction, np.full(200, 60.0))
    assert gains[:100].mean() == pytest.approx(0.9, abs=0.1)  # .36 / (.36 + .04)
    assert gains[100:].mean() < 0.35


def test_exact_predictions_keep_a_gain_of_one():
    prediction = np.random.default_rng(0).normal(size=(20, 4))
    np.testing.assert_allclose(feature_gains(prediction, prediction, np.full(4, 20.0)), 1)


def test_a_feature_without_values_or_predictions_keeps_a_gain_of_one():
    np.testing.assert_allclose(feature_gains(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(2)), 1)
    np.testing.assert_allclose(feature_gains(np.ones((9, 1)), np.zeros((9, 1)), np.full(1, 9.0)), 1)


def test_gains_see_measured_values_only():
    """Values and samples that were not measured, zero in both, change nothing."""
    rng = np.random.default_rng(0)
    truth, prediction = rng.normal(size=(60, 3)), rng.normal(size=(60, 3))
    alone = feature_gains(truth, prediction, np.full(3, 60.0))
    padded = [np.concatenate([v, np.zeros((25, 3))]) for v in (truth, prediction)]
    np.testing.assert_allclose(feature_gains(padded[0], padded[1], np.full(3, 60.0)), alone)


def test_gained_error_is_what_the_best_factors_leave():
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=(50, 4))
    truth = prediction * np.array([0.0, 0.5, 1.0, -2.0]) + rng.normal(size=(50, 4))
    sums = (truth**2).sum(0), (truth * prediction).sum(0), (prediction**2).sum(0)
    factors = np.linspace(*GAIN_RANGE, 2001)
    least = ((truth[None] - factors[:, None, None] * prediction) ** 2).sum(1).min(0)
    assert gained_error(*sums) == pytest.approx(least.sum(), rel=1e-5)
    assert least[3] == pytest.approx((truth[:, 3] ** 2).sum())  # a prediction of the wrong sign is worth nothing
