"""Log densities summed a few rows at a time are those that are written out."""

import pytest
import torch
from torch import Tensor

from omicvae.nn.likelihoods import CROSS, OWN, Likelihood, Observed, make_likelihood
from omicvae.nn.likelihoods import _blockwise as blockwise

N, P = 23, 40
NAMES = ["bernoulli", "normal", "unit_normal", "beta", "nb", "dense nb"]
COUNTS = ["nb", "dense nb"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of a few rows, for small arrays too; the last one is cut short."""
    monkeypatch.setattr(blockwise, "LEAST", 0)
    monkeypatch.setattr(blockwise, "BLOCK", 5 * P // torch.get_num_threads())


def simulated(name: str, *, gaps: bool = False) -> Observed:
    """Values that vary, of which some were not measured."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(N, P, generator=generator)
    if name == "bernoulli":
        x = (x > 1).float()
    if name == "beta":
        x = x.sigmoid()
    if "nb" in name:
        share, mean = (1.0, 20 * x.exp()) if name == "dense nb" else (0.3, x.exp())
        x = torch.poisson(mean, generator=generator) * (torch.rand(N, P, generator=generator) < share)
        return Observed(x, x.sum(1).clamp_min(1) * 1.3, None)
    if name in ("normal", "beta"):
        x[:, 3] = 0.25  # constant: left out
    if gaps:
        x[torch.rand(N, P, generator=generator) < 0.2] = torch.nan
    return Observed(x, None, None)


def made(name: str, observed: Observed, **options: object) -> Likelihood:
    """Fitted, with noise that differs between features and between own and cross."""
    likelihood = make_likelihood(name.split()[-1], P, **options)
    likelihood.fit([observed])
    for parameter in likelihood.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return likelihood


def value_and_gradients(likelihood: Likelihood, eta: Tensor, observed: Observed, noise: Tensor, weight: Tensor) -> list:
    """Sums over features, and derivatives of their weighted sum in ``eta`` and the noise."""
    leaf = eta.clone().requires_grad_()
    found = likelihood.log_prob(leaf, observed, noise)
    return [found.detach(), *torch.autograd.grad((found * weight).sum(), [leaf, *likelihood.parameters()])]


@pytest.mark.parametrize(
    ("name", "options", "gaps"),
    [*((name, {}, False) for name in NAMES), *((name, {"size_is_factor": True}, False) for name in COUNTS)]
    + [(name, {}, True) for name in NAMES if name not in COUNTS],
)
@pytest.mark.parametrize(("leading", "noise"), [((3, 2), [[OWN], [CROSS]]), ((2,), [CROSS]), ((), OWN)])
def test_values_and_derivatives_are_those_of_double_precision(small, name, options, gaps, leading, noise):
    observed = simulated(name, gaps=gaps)
    likelihood = made(name, observed, **options)
    eta = torch.randn(*leading, N, 1, P, generator=torch.Generator().manual_seed(2))
    weight = torch.randn(*leading, N, generator=torch.Generator().manual_seed(3))
    assert blockwise.pays(eta, observed.x, torch.tensor(noise))
    blocked = value_and_gradients(likelihood, eta, observed, torch.tensor(noise), weight)
    exact = value_and_gradients(likelihood.double(), eta.double(), observed, torch.tensor(noise), weight)
    for one, other in zip(blocked, exact, strict=True):
        assert one.shape == other.shape
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_large_counts_are_not_much_less_accurate_than_written_out(small, share):
    """What depends on the mean and what does not are summed apart: they are large, and cancel, where dispersion is small."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.logspace(2, 7, P)
    x = torch.poisson(mean.expand(N, P), generator=generator) * (torch.rand(N, P, generator=generator) < share)
    observed = Observed(x, x.sum(1), None)
    likelihood = made("nb", observed)
    eta, noise = torch.zeros(1, N, 1, P), torch.tensor([OWN])
    blocked = likelihood.log_prob(eta, observed, noise)
    written = likelihood.log_prob_features(eta, observed, noise).sum(-1)
    exact = likelihood.double().log_prob(eta.double(), observed, noise)
    assert (blocked - exact).abs().max() < 10 * (written - exact).abs().max() + 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_derivatives_can_be_asked_for_twice(small, name):
    observed = simulated(name)
    likelihood = made(name, observed)
    eta = torch.randn(2, N, 1, P, generator=torch.Generator().manual_seed(2)).requires_grad_()
    total = likelihood.log_prob(eta, observed, torch.tensor([[OWN]])[0]).sum()
    first = torch.autograd.grad(total, eta, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(total, eta)[0])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_else_depends_on_the_size_of_blocks(monkeypatch, name):
    observed = simulated(name)
    likelihood = made(name, observed)
    eta = torch.randn(2, N, 1, P, generator=torch.Generator().manual_seed(2))
    weight, noise, found = torch.ones(2, N), torch.tensor([[OWN], [CROSS]])[0], []
    monkeypatch.setattr(blockwise, "LEAST", 0)
    for block in (1, 7 * P, 10**6):
        monkeypatch.setattr(blockwise, "BLOCK", block)
        found.append(value_and_gradients(likelihood, eta, observed, noise, weight))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_counted_in_single(small, name):
    observed = simulated(name)
    likelihood = made(name, observed)
    eta = torch.randn(2, N, 1, P, generator=torch.Generator().manual_seed(2)).bfloat16()
    noise = torch.tensor([OWN])
    found = likelihood.log_prob(eta, observed, noise)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, likelihood.log_prob(eta.float(), observed, noise))


@pytest.mark.parametrize("logit", [-120.0, 120.0])
@pytest.mark.parametrize(
    ("name", "options"),
    [("bernoulli", {}), ("beta", {}), *((name, o) for name in COUNTS for o in ({}, {"size_is_factor": True}))],
)
def test_extreme_outputs_stay_finite(small, name, options, logit):
    observed = simulated(name)
    likelihood = made(name, observed, **options)
    eta = torch.full((1, N, 1, P), logit)
    eta[..., ::2] = 0
    for found in value_and_gradients(likelihood, eta, observed, torch.tensor([OWN]), torch.ones(1, N)):
        assert found.isfinite().all()


@pytest.mark.parametrize("change", ["noise by row", "one row of values", "two heads", "double"])
def test_what_is_not_computed_in_blocks(small, change):
    x, noise, eta = torch.zeros(N, P), torch.tensor([[OWN]]), torch.zeros(2, N, 1, P)
    assert blockwise.pays(eta, x, noise)
    if change == "noise by row":
        noise = torch.zeros(1, N, dtype=torch.int64)
    elif change == "one row of values":
        x = x[:1]
    elif change == "two heads":
        eta = eta.expand(2, N, 2, P)
    else:
        eta = eta.double()
    assert not blockwise.pays(eta, x, noise)


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("name", NAMES)
def test_no_rows_and_one(small, name, n):
    observed = simulated(name)
    likelihood = made(name, observed)
    few = observed.take(torch.arange(n))
    eta = torch.zeros(2, n, 1, P)
    assert likelihood.log_prob(eta, few, torch.tensor([OWN])).shape == (2, n)
    gradients = value_and_gradients(likelihood, eta, few, torch.tensor([OWN]), torch.ones(2, n))
    assert all(g.isfinite().all() for g in gradients)
