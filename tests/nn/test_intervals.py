from __future__ import annotations

import pytest
import torch
from scipy import stats

from omicvae.nn.likelihoods import CROSS, OWN, Likelihood, make_likelihood

P = 5


def uncertain(name: str) -> Likelihood:
    """A likelihood around any mean, with a noise that differs between features."""
    torch.manual_seed(11)
    likelihood = make_likelihood(name, P)
    if name not in ("poisson", "bernoulli"):
        with torch.no_grad():
            likelihood.raw_noise.copy_(torch.linspace(-0.5, 3.0, 2 * P).reshape(2, P))
    return likelihood


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_bernoulli_interval_is_the_exact_quantile_of_the_mixture(level):
    likelihood = make_likelihood("bernoulli", 40)
    logits = torch.linspace(-8, 8, 40) + torch.randn(7, 3, 40, generator=torch.Generator().manual_seed(0))
    distribution = likelihood(logits[..., None, :], noise=torch.tensor([OWN]))
    lower, upper = likelihood.interval(distribution, level)
    p = distribution.probs.double().mean(0).numpy()
    assert torch.equal(lower, torch.tensor(stats.bernoulli.ppf((1 - level) / 2, p)).to(lower))
    assert torch.equal(upper, torch.tensor(stats.bernoulli.ppf(1 - (1 - level) / 2, p)).to(upper))


@pytest.mark.parametrize("name", ["beta", "betabinomial", "nb", "normal", "poisson", "zinb"])
def test_interval_of_a_mixture_covers_a_new_value(name):
    likelihood = uncertain(name)
    # 30 * 0.05 is no whole number: quantiles of counts are interpolated, and must be rounded outwards.
    n, K, size = 4000, 29 if likelihood.discrete else 39, torch.tensor(3000.0)
    eta = torch.randn(K + 1, n, likelihood.n_heads, P)
    coverage = torch.full((P,), 40.0) if name == "betabinomial" else None
    draw = lambda e: likelihood(e, noise=torch.tensor([CROSS]), size=size, coverage=coverage)
    lower, upper = likelihood.interval(draw(eta[:K]), 0.9)
    new = draw(eta[K]).sample()
    covered = ((new >= lower) & (new <= upper)).double().mean().item()
    # 20,000 values: the standard error is 0.002. Ties can only raise the coverage of discrete values.
    assert lower.shape == upper.shape == (n, P)
    assert 0.89 < covered < (0.94 if likelihood.discrete else 0.91)
    if likelihood.discrete:
        assert torch.equal(lower, lower.round()) and torch.equal(upper, upper.round())


def test_interval_of_the_methylation_level_where_coverage_is_unknown():
    likelihood = uncertain("betabinomial")
    distribution = likelihood(torch.randn(39, 6, 1, P), noise=torch.tensor([CROSS]))
    lower, upper = likelihood.interval(distribution, 0.9)
    assert ((lower > 0) & (lower < upper) & (upper < 1)).all()


@pytest.mark.parametrize("name", ["normal", "nb"])
def test_interval_from_too_few_components(name):
    likelihood = uncertain(name)
    distribution = likelihood(torch.randn(18, 2, 1, P), noise=torch.tensor([OWN]), size=torch.tensor(100.0))
    with pytest.raises(ValueError, match="at least 19"):
        likelihood.interval(distribution, 0.9)
