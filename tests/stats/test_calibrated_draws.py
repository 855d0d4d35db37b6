"""Draws after calibration have the intervals that held-out values ask for, in the order they had."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from omicvae.stats.calibrated_draws import conformal_scores, moved_by_rank, moved_by_residual
from omicvae.stats.conformal import central_scores, fit_conformal, residual_scores

K, N, P = 199, 300, 4
STRETCH = np.array([0.5, 1.0, 2.0, 3.0])
"""How much wider the truth is than the predictive distribution, feature by feature."""


def continuous(seed: int) -> tuple[np.ndarray, torch.Tensor]:
    """Values, and draws of predictive distributions around means that differ."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(N, P))
    truth = centre + STRETCH * rng.normal(size=(N, P))
    return truth, torch.tensor(centre + rng.normal(size=(K, N, P)))


def counts(seed: int, size: float = 30.0) -> tuple[np.ndarray, torch.Tensor]:
    """Poisson counts predicted by negative binomials that are too wide."""
    rng = np.random.default_rng(seed)
    rate = size * np.exp(0.3 * rng.normal(size=(N, P)))
    return rng.poisson(rate), torch.tensor(rng.poisson(rate * rng.gamma(5, 1 / 5, size=(K, N, P))), dtype=torch.float32)


def transforms(truth: np.ndarray, draws: np.ndarray, seed: int) -> np.ndarray:
    below, at = (draws < truth).sum(0), (draws <= truth).sum(0) + 1
    return (below + np.random.default_rng(seed).random(truth.shape) * (at - below)) / (len(draws) + 1)


def test_continuous_draws_get_the_width_of_held_out_values():
    truth, draws = continuous(0)
    conformal = fit_conformal(residual_scores(truth, draws.mean(0).numpy(), draws.std(0).numpy()))
    truth, draws = continuous(1)
    moved = moved_by_residual(draws, conformal, draws.mean(0), draws.std(0))
    for j in range(P):
        before = stats.kstest(transforms(truth, draws.numpy(), 2)[:, j], "uniform").statistic
        after = stats.kstest(transforms(truth, moved.numpy(), 2)[:, j], "uniform").statistic
        assert after < 0.13  # exceeded once in ten thousand by 300 values, and as much again for the fit
        if STRETCH[j] != 1:
            assert after < 0.7 * before


@pytest.mark.parametrize("size", [30.0, 1.0])
def test_draws_of_counts_get_uniform_transforms(size):
    truth, draws = counts(0, size)
    conformal = fit_conformal(central_scores(transforms(truth, draws.numpy(), 2)))
    truth, draws = counts(1, size)
    moved = moved_by_rank(draws, conformal, discrete=True)
    central = [np.abs(2 * transforms(truth, d.numpy(), 3) - 1) for d in (draws, moved)]
    share = [(c < 0.8).mean() for c in central]
    # 1200 values tell a share of .8 to .012, the fit as much again
    assert share[1] == pytest.approx(0.8, abs=0.04)
    if size == 30:
        assert share[0] > 0.9
    assert set(moved.unique().tolist()) <= set(draws.unique().tolist())


def test_a_true_distribution_stays_as_it_is():
    truth, draws = continuous(0)
    rng = np.random.default_rng(5)
    conformal = fit_conformal(np.abs(rng.normal(size=(20_000, P))))
    moved = moved_by_residual(draws, conformal, draws.mean(0), draws.std(0))
    assert (moved - draws).abs().mean() < 0.06  # ranks among 199 draws are known to about that


def test_the_order_of_draws_stays():
    truth, draws = continuous(0)
    conformal = fit_conformal(residual_scores(truth, draws.mean(0).numpy(), draws.std(0).numpy()))
    moved = moved_by_residual(draws, conformal, draws.mean(0), draws.std(0))
    for i, j in ((0, 0), (5, 3)):
        assert stats.spearmanr(draws[:, i, j], moved[:, i, j]).statistic > 0.99
    scores = central_scores(transforms(truth, draws.numpy(), 2))
    ranked = moved_by_rank(draws, fit_conformal(scores), discrete=False)
    assert (torch.diff(ranked.gather(0, draws.argsort(0)), dim=0) >= 0).all()


def test_scores_are_the_quantiles_of_the_conformal_fit():
    conformal = fit_conformal(np.random.default_rng(0).exponential(size=(80, P)))
    for rank in (1, 40, 80):
        level = rank / 81
        found = conformal_scores(torch.full((1, 1, P), level, dtype=torch.float64), conformal)[0, 0]
        np.testing.assert_allclose(found, conformal.quantile(level), rtol=1e-5)


def test_equal_and_few_draws():
    conformal = fit_conformal(np.random.default_rng(0).random((80, P)))
    same = torch.zeros(K, 3, P)
    assert torch.equal(moved_by_rank(same, conformal, discrete=True), same)
    one = torch.ones(1, 3, P)
    assert torch.equal(moved_by_rank(one, conformal, discrete=False), one)
    constant = moved_by_residual(same, conformal, torch.zeros(3, P), torch.zeros(3, P))
    assert torch.equal(constant, same)
    assert moved_by_rank(torch.zeros(K, 0, P), conformal, discrete=True).shape == (K, 0, P)
