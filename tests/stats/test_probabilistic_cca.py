"""Probabilistic CCA with known weights is conditioning of one Gaussian over everything."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from omicvae.stats.probabilistic_cca import (
    Posterior,
    Weights,
    evidence,
    expected_log_likelihood,
    find_gaps,
    known_weights,
    posterior,
    predict,
)

K, WIDTHS, N = 5, (7, 4, 6, 3), 9
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def weights() -> list[Weights]:
    """Four modalities; each has shared factors 0 and 1 and lacks some of the others."""
    found = []
    for m, p in enumerate(WIDTHS):
        mean = randn(p, K, seed=m)
        mean[:, 2 + m % 3] = 0
        found.append(known_weights(mean, 0.2 + randn(p, seed=10 + m).square(), randn(p, seed=20 + m)))
    return found


@pytest.fixture(scope="module")
def x() -> list[Tensor]:
    return [randn(N, p, seed=30 + m) for m, p in enumerate(WIDTHS)]


def stacked(weights: list[Weights], modalities: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, intercepts and noise variances of some modalities side by side."""
    return tuple(torch.cat([getattr(weights[m], f) for m in modalities]) for f in ("mean", "intercept", "noise"))  # type: ignore[return-value]


def condition(W: Tensor, mu: Tensor, psi: Tensor, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and covariance of ``z`` given ``x``, and its log density, from the joint covariance of both."""
    cov_x = W @ W.mT + torch.diag(psi)
    gain = torch.linalg.solve(cov_x, W).mT
    log_density = torch.distributions.MultivariateNormal(mu, cov_x).log_prob(x)
    return (x - mu) @ gain.mT, torch.eye(W.shape[1], dtype=W.dtype) - gain @ W, log_density


@pytest.mark.parametrize("given", SUBSETS)
def test_the_posterior_of_every_subset_is_conditioning(weights, x, given):
    every = torch.arange(N)
    q = posterior([evidence(weights[m], x[m]) for m in given], [every] * len(given), N, K)
    mean, covariance, log_density = condition(*stacked(weights, given), torch.cat([x[m] for m in given], 1))
    torch.testing.assert_close(q.mean, mean, atol=1e-9, rtol=0)
    torch.testing.assert_close(q.covariance[q.pattern], covariance.expand(N, -1, -1), atol=1e-9, rtol=0)
    torch.testing.assert_close(q.log_evidence, log_density, atol=1e-9, rtol=0)
    torch.testing.assert_close(q.gaussian().covariance(), covariance.expand(N, -1, -1), atol=1e-9, rtol=0)


def test_samples_that_lack_modalities_and_single_values_are_each_conditioned_on_what_they_have(weights, x):
    here = torch.rand(N, 4, generator=torch.Generator().manual_seed(1)) < 0.6
    here[0] = False  # nothing measured at all
    masks = [torch.rand(N, p, generator=torch.Generator().manual_seed(m)) < 0.7 for m, p in enumerate(WIDTHS)]
    rows = [torch.nonzero(here[:, m]).squeeze(1) for m in range(4)]
    found = [
        evidence(weights[m], torch.where(masks[m], x[m], 99.0)[rows[m]], find_gaps(masks[m][rows[m]])) for m in range(4)
    ]
    q = posterior(found, rows, N, K)
    W, mu, psi = stacked(weights, (0, 1, 2, 3))
    for i in range(N):
        seen = torch.cat([masks[m][i] & here[i, m] for m in range(4)])
        if not seen.any():
            torch.testing.assert_close(q.mean[i], torch.zeros(K, dtype=torch.float64))
            assert q.log_evidence[i] == 0
            continue
        values = torch.cat([m[i] for m in x])[seen]
        mean, covariance, log_density = condition(W[seen], mu[seen], psi[seen], values)
        torch.testing.assert_close(q.mean[i], mean, atol=1e-9, rtol=0)
        torch.testing.assert_close(q.covariance[q.pattern[i]], covariance, atol=1e-9, rtol=0)
        torch.testing.assert_close(q.log_evidence[i], log_density, atol=1e-9, rtol=0)


def test_a_prediction_is_the_conditional_distribution_of_the_missing_modality(weights, x):
    q = posterior([evidence(weights[m], x[m]) for m in (0, 2)], [torch.arange(N)] * 2, N, K)
    mean, variance = predict(weights[3], q)
    W, mu, psi = stacked(weights, (0, 2, 3))
    cov = W @ W.mT + torch.diag(psi)
    given = WIDTHS[0] + WIDTHS[2]
    gain = torch.linalg.solve(cov[:given, :given], cov[:given, given:]).mT
    torch.testing.assert_close(mean, mu[given:] + (torch.cat([x[0], x[2]], 1) - mu[:given]) @ gain.mT)
    left = torch.diagonal(cov[given:, given:] - gain @ cov[:given, given:])
    torch.testing.assert_close(variance, left.expand(N, -1))


def test_expected_log_likelihood_minus_divergence_is_the_marginal_likelihood(weights, x):
    """The bound is tight, because the posterior is exact."""
    masks = [torch.rand(N, p, generator=torch.Generator().manual_seed(m)) < 0.7 for m, p in enumerate(WIDTHS)]
    found = [evidence(w, v, find_gaps(mask)) for w, v, mask in zip(weights, x, masks, strict=True)]
    every = torch.arange(N)
    q = posterior(found, [every] * 4, N, K)
    expected = sum(expected_log_likelihood(e, every, q) for e in found)
    torch.testing.assert_close(expected - q.divergence(), q.log_evidence)


@pytest.fixture(scope="module")
def uncertain() -> Weights:
    """A modality with estimated weights whose covariance is small against the mean."""
    p = 40
    plain = known_weights(randn(p, K, seed=1), 0.5 + randn(p, seed=2).square())
    center = 0.3 * randn(K, seed=4)
    spread, basis = 0.05 * randn(p, K, seed=3).square(), torch.linalg.qr(randn(K, K)).Q
    shift = ((center @ basis) * spread) @ basis.mT
    return plain._replace(spread=spread, basis=basis, shift=shift, intercept_variance=0.01 + shift @ center)


def test_uncertain_weights_give_the_mean_evidence_of_their_draws(uncertain):
    """Evidence is linear in E ww' and E w mu, so it is the average over draws of the weights; 4,000 draws of 40 features."""
    x, draws = randn(3, 40, seed=9), 4000
    found = evidence(uncertain, x)
    root = torch.linalg.cholesky((uncertain.basis * uncertain.spread[:, None, :]) @ uncertain.basis.mT)
    center = torch.linalg.solve(root[0] @ root[0].mT, uncertain.shift[0])
    w = uncertain.mean + torch.einsum("pkl,spl->spk", root, randn(draws, 40, K, seed=5))
    mu = -torch.einsum("spk,k->sp", w - uncertain.mean, center) + 0.1 * randn(draws, 40, seed=6)
    noise = uncertain.noise
    precision = torch.einsum("spk,spl->kl", w, w / noise[:, None]) / draws
    information = torch.einsum("spk,snp->nk", w / noise[:, None], x - mu[:, None]) / draws
    torch.testing.assert_close(found.precision[0], precision, rtol=0.02, atol=0.5)
    torch.testing.assert_close(found.information, information, rtol=0.02, atol=0.5)
    z = randn(3, K, seed=7)
    density = torch.distributions.Normal(mu[:, None] + torch.einsum("spk,nk->snp", w, z), noise.sqrt())
    expected = density.log_prob(x).sum(2).mean(0)
    bound = found.constant + (found.information * z).sum(1) - 0.5 * ((z @ found.precision[0]) * z).sum(1)
    torch.testing.assert_close(bound, expected, rtol=0.005, atol=0)


def test_uncertain_weights_widen_predictions_by_what_their_draws_vary(uncertain):
    z = randn(1, K, seed=7)
    q = Posterior(
        z, torch.eye(K).expand(1, -1, -1), torch.zeros(1, K, K).double(), torch.zeros(1).long(), torch.zeros(1)
    )
    _, variance = predict(uncertain, q)
    C = (uncertain.basis * uncertain.spread[:, None, :]) @ uncertain.basis.mT
    expected = torch.einsum("k,pkl,l->p", z[0], C, z[0]) - 2 * uncertain.shift @ z[0] + uncertain.intercept_variance
    torch.testing.assert_close(variance[0], uncertain.noise + expected)
    known, plain = evidence(uncertain.plug_in(), z @ uncertain.mean.mT), evidence(uncertain, z @ uncertain.mean.mT)
    assert torch.linalg.eigvalsh(plain.precision[0] - known.precision[0])[0] > 0


def test_gaps_are_what_is_missing_grouped_by_row():
    assert find_gaps(None) is None and find_gaps(torch.ones(3, 2, dtype=torch.bool)) is None
    observed = torch.tensor([[True, True, False], [True, True, True], [True, True, False]])
    gaps = find_gaps(observed)
    assert gaps is not None and gaps.columns.tolist() == [2] and gaps.observed.squeeze(1).tolist() == [0, 1, 0]
    assert len(gaps.missing) == 2


def test_no_samples_give_no_posterior(weights):
    nobody = torch.zeros(0, dtype=torch.int64)
    q = posterior([evidence(weights[0], torch.zeros(0, WIDTHS[0], dtype=torch.float64))], [nobody], 0, K)
    assert q.mean.shape == (0, K) and predict(weights[1], q)[0].shape == (0, WIDTHS[1])
