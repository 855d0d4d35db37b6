"""MVAE: products of experts on linear-Gaussian data, and its objective by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.nn import functional as F

from omicvae.module import MVAEModule, Shape
from omicvae.module._bounds import importance_weighted
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c", "d")
D, P = 3, 6
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]


def inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    return x + torch.log(-torch.expm1(-x))


class LinearWorld:
    """``x_m = W_m z + noise`` of unit variance, in the basis of z in which every ``W_m' W_m`` is diagonal."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        strength = torch.tensor([0.6, 1.3, 2.5], dtype=torch.float64)
        self.W = {
            m: torch.linalg.qr(torch.randn(P, D, generator=g, dtype=torch.float64))[0]
            * strength[torch.randperm(D, generator=g)]
            for m in NAMES
        }

    def stacked(self, observed: tuple[int, ...]) -> torch.Tensor:
        return torch.cat([self.W[NAMES[i]] for i in observed])

    def posterior(self, x: dict[str, torch.Tensor], observed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Condition the joint Gaussian of (z, x_O) on x_O."""
        load = self.stacked(observed)
        gain = load.mT @ torch.linalg.inv(load @ load.mT + torch.eye(len(load)))
        return torch.cat([x[NAMES[i]] for i in observed], 1) @ gain.mT, torch.eye(D) - gain @ load

    def log_evidence(self, x: dict[str, torch.Tensor], observed: tuple[int, ...]) -> torch.Tensor:
        load = self.stacked(observed)
        law = MultivariateNormal(torch.zeros(len(load)).double(), load @ load.mT + torch.eye(len(load)))
        return law.log_prob(torch.cat([x[NAMES[i]] for i in observed], 1))


@pytest.fixture(scope="module")
def world() -> LinearWorld:
    return LinearWorld()


@pytest.fixture
def exact(world, make_schema) -> MVAEModule:
    """Experts that are the likelihoods of the linear model, and its decoders."""
    shape = Shape(D, dict.fromkeys(NAMES, 0))
    module = MVAEModule(make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_layers=0).resolve(100), shape)
    with torch.no_grad():
        for m in NAMES:
            precision = world.W[m].square().sum(0)
            encoder, decoder = module.shared_encoders.of(m), module.decoders.of(m)
            encoder.linear.weight.copy_(world.W[m].mT / precision[:, None])
            encoder.linear.bias.zero_()
            encoder.scale_bias.copy_(inverse_softplus(precision))
            decoder.linear.weight.copy_(world.W[m])
    return module.eval()


@pytest.fixture
def observe(make_batch):
    def made(observed: tuple[int, ...]):
        g = torch.Generator().manual_seed(1)
        x = {m: torch.randn(5, P, generator=g, dtype=torch.float64) for m in NAMES}
        present = torch.zeros(5, 4, dtype=torch.bool)
        present[:, list(observed)] = True
        return x, make_batch({m: v.float() for m, v in x.items()}, present)

    return made


@pytest.mark.parametrize("observed", SUBSETS, ids=lambda s: "".join(NAMES[i] for i in s))
def test_posterior_equals_the_closed_form(exact, world, observe, observed):
    """All 15 subsets of four modalities: mean and covariance, to 1e-4 in float32."""
    x, batch = observe(observed)
    found = exact.posterior(exact.encode(batch), batch, batch.present)
    mean, covariance = world.posterior(x, observed)
    torch.testing.assert_close(found.mean.double(), mean, atol=1e-4, rtol=1e-4)
    g = torch.Generator().manual_seed(2)
    direction = torch.randn(D, 4, generator=g)
    variance = found.project(direction)[1].double()
    expected = torch.einsum("dr,de,er->r", direction.double(), covariance, direction.double())
    torch.testing.assert_close(variance, expected.expand(5, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("observed", [(1,), (0, 3), (0, 1, 2, 3)])
def test_importance_weighted_bound_equals_the_evidence(exact, world, observe, observed):
    """With the exact posterior as proposal every importance weight is p(x), whatever is drawn."""
    x, batch = observe(observed)
    found = importance_weighted(exact, batch, 2).log_likelihood
    torch.testing.assert_close(found.double(), world.log_evidence(x, observed), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("observed", [(2,), (0, 1, 2, 3)])
def test_expected_elbo_of_the_exact_model_is_the_evidence(exact, world, observe, make_batch, observed):
    """4000 copies of a sample: within 4 standard errors."""
    x, _ = observe(observed)
    present = torch.zeros(4000, 4, dtype=torch.bool)
    present[:, list(observed)] = True
    batch = make_batch({m: v[:1].float().expand(4000, -1) for m, v in x.items()}, present)
    rec, kl = exact.elbo(batch)
    found = (torch.stack(list(rec.values())).sum(0) - kl).detach().double()
    error = 4 * found.std() / 4000**0.5 + 1e-3
    assert (found.mean() - world.log_evidence(x, observed)[0]).abs() < error


@pytest.mark.parametrize("private", [0, 2], ids=["plain", "structured"])
@pytest.mark.parametrize("n_subsets", [0, 1])
def test_objective_equals_a_direct_computation(make_schema, make_batch, monkeypatch, private, n_subsets):
    """Sum of ELBOs over the full set, each single, and a given subset, row by row, with the noise of all draws fixed."""
    names, p = ("a", "b", "c"), 4
    noise = torch.tensor([0.7, -0.4, 1.1, 0.2, -0.9, 0.5, 1.3, -0.1])[: 2 + 3 * private]
    third = torch.tensor([[1, 0, 1], [0, 1, 1], [0] * 3, [0] * 3, [0] * 3], dtype=torch.bool)
    monkeypatch.setattr(torch, "randn_like", lambda t: noise.expand_as(t))
    monkeypatch.setattr("omicvae.module._mvae.random_subset", lambda present: third)
    torch.manual_seed(0)
    shape = Shape(2, dict.fromkeys(names, private))
    config = NetworkConfig(n_layers=0).resolve(100)
    module = MVAEModule(make_schema(dict.fromkeys(names, p)), config, shape, n_subsets=n_subsets).eval()
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(5, p, generator=g) for m in names}
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    batch = make_batch(x, present)
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)

    def expert(kind, m, row):
        encoder = (module.shared_encoders if kind == "shared" else module.private_encoders).of(m)
        return encoder.linear(row), F.softplus(encoder.scale_bias)

    def elbo(i: int, members: list[int]) -> torch.Tensor:
        total, weighted = torch.ones(2), torch.zeros(2)
        for k in members:
            location, precision = expert("shared", names[k], x[names[k]][i])
            total, weighted = total + precision, weighted + precision * location
        q = Normal(weighted / total, total.rsqrt())
        value = -0.3 * torch.distributions.kl_divergence(q, Normal(0.0, 1.0)).sum()
        for k in members:
            z = q.mean + q.stddev * noise[:2]
            if private:
                location, precision = expert("private", names[k], x[names[k]][i])
                w = Normal(location * precision / (1 + precision), (1 + precision).rsqrt())
                value = value - 0.3 * torch.distributions.kl_divergence(w, Normal(0.0, 1.0)).sum()
                z = torch.cat([z, w.mean + w.stddev * noise[2 + 2 * k : 4 + 2 * k]])
            decoder = module.decoders.of(names[k]).linear
            value = value + Normal(decoder(z), 1.0).log_prob(x[names[k]][i]).sum()
        return value

    for i in range(5):
        has = torch.nonzero(present[i]).squeeze(-1).tolist()
        expected = elbo(i, has) + sum(elbo(i, [k]) for k in has)
        if n_subsets and third[i].any():
            expected = expected + elbo(i, torch.nonzero(third[i]).squeeze(-1).tolist())
        torch.testing.assert_close(found[i], expected, atol=1e-4, rtol=1e-5)
    rec, kl = module.elbo(batch)
    reported = torch.stack(list(rec.values())).sum(0) - 0.3 * kl
    direct = torch.stack([elbo(i, torch.nonzero(present[i]).squeeze(-1).tolist()) for i in range(5)])
    torch.testing.assert_close(reported, direct, atol=1e-4, rtol=1e-5)


def test_targets_are_sources(make_schema, make_batch):
    """An assay alone does not train another's decoder, and the cross noise is never trained."""
    torch.manual_seed(0)
    module = MVAEModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_hidden=8).resolve(5000), Shape(D, dict.fromkeys(NAMES, 1))
    )
    present = torch.zeros(6, 4, dtype=torch.bool)
    present[:, 0] = True
    batch = make_batch({m: torch.randn(6, P) for m in NAMES}, present)
    module.objective(batch).loss.backward()
    assert all(p.grad is None or p.grad.abs().max() == 0 for p in module.decoders.of("b").parameters())
    assert any(p.grad.abs().max() > 0 for p in module.decoders.of("a").parameters())
    noise = module.likelihoods.of("a").raw_noise.grad
    assert noise[0].abs().min() > 0 and noise[1].abs().max() == 0
    assert module.predictive_route(False) == module.predictive_route(True) == 0
