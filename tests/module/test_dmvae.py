"""DMVAE: exact posteriors on linear-Gaussian data, its objective by hand, and one posterior in training and in use."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence
from torch.nn import functional as F

from omicvae.module import DMVAEModule, Shape
from omicvae.module._bounds import importance_weighted
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import CROSS, OWN

NAMES = ("a", "b", "c", "d")
D, WIDTH, P = 2, 1, 5
LINEAR = NetworkConfig(n_layers=0)
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]


def build(make_schema, names=NAMES, config: NetworkConfig = LINEAR) -> DMVAEModule:
    torch.manual_seed(0)
    shape = Shape(D, dict.fromkeys(names, WIDTH))
    return DMVAEModule(make_schema(dict.fromkeys(names, P)), config.resolve(100), shape).eval()


def losses(module: DMVAEModule, batch, beta: float = 0.3) -> torch.Tensor:
    passes = module.passes(module.encode(batch), batch, 0.5)
    return module.reduce(passes, module.log_likelihoods(passes, batch), beta)


def presence(n: int, observed: tuple[int, ...]) -> torch.Tensor:
    present = torch.zeros(n, 4, dtype=torch.bool)
    present[:, list(observed)] = True
    return present


class LinearWorld:
    """``x_m = U_m u + V_m w_m + noise`` of unit variance, where ``[U_m, V_m]`` has orthogonal columns."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        strength = torch.tensor([0.6, 1.3, 2.0], dtype=torch.float64)
        self.load = {
            m: torch.linalg.qr(torch.randn(P, D + WIDTH, generator=g, dtype=torch.float64))[0]
            * strength[torch.randperm(3, generator=g)]
            for m in NAMES
        }

    def stacked(self, observed: tuple[int, ...]) -> torch.Tensor:
        """``(|O| P, D + 4 WIDTH)`` map from all latents to what is observed."""
        rows = []
        for i in observed:
            load, wide = self.load[NAMES[i]], torch.zeros(P, 4 * WIDTH, dtype=torch.float64)
            wide[:, i * WIDTH : (i + 1) * WIDTH] = load[:, D:]
            rows.append(torch.cat([load[:, :D], wide], 1))
        return torch.cat(rows)

    def posterior(self, x: dict[str, torch.Tensor], observed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Condition the joint Gaussian of (z, x_O) on x_O."""
        load = self.stacked(observed)
        gain = load.mT @ torch.linalg.inv(load @ load.mT + torch.eye(len(load)))
        return torch.cat([x[NAMES[i]] for i in observed], 1) @ gain.mT, torch.eye(load.shape[1]) - gain @ load

    def log_evidence(self, x: dict[str, torch.Tensor], observed: tuple[int, ...]) -> torch.Tensor:
        load = self.stacked(observed)
        law = MultivariateNormal(torch.zeros(len(load)).double(), load @ load.mT + torch.eye(len(load)))
        return law.log_prob(torch.cat([x[NAMES[i]] for i in observed], 1))


@pytest.fixture(scope="module")
def world() -> LinearWorld:
    return LinearWorld()


@pytest.fixture
def exact(world, make_schema) -> DMVAEModule:
    """Potentials that are the likelihoods of the linear model, and its decoders."""
    module = build(make_schema)
    with torch.no_grad():
        for m in NAMES:
            precision = world.load[m].square().sum(0)
            module.decoders.of(m).linear.weight.copy_(world.load[m])
            for encoders, block in ((module.shared_encoders, slice(0, D)), (module.private_encoders, slice(D, None))):
                encoder, own = encoders.of(m), precision[block]
                encoder.linear.weight.copy_(world.load[m].mT[block] / own[:, None])
                encoder.linear.bias.zero_()
                encoder.scale_bias.copy_(own + torch.log(-torch.expm1(-own)))
    return module


@pytest.fixture
def values() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(5, P, generator=g, dtype=torch.float64) for m in NAMES}


@pytest.mark.parametrize("observed", SUBSETS, ids=lambda s: "".join(NAMES[i] for i in s))
def test_posterior_equals_the_closed_form(exact, world, values, make_batch, observed):
    """Shared and private latents given all 15 subsets of four modalities: mean and covariance, in float32."""
    batch = make_batch({m: v.float() for m, v in values.items()}, presence(5, observed))
    found = exact.posterior(exact.encode(batch), batch, batch.present)
    mean, covariance = world.posterior(values, observed)
    torch.testing.assert_close(found.mean.double(), mean, atol=1e-4, rtol=1e-4)
    direction = torch.randn(len(covariance), 4, generator=torch.Generator().manual_seed(2))
    variance = found.project(direction)[1].double()
    expected = torch.einsum("dr,de,er->r", direction.double(), covariance, direction.double())
    torch.testing.assert_close(variance, expected.expand(5, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("observed", [(1,), (0, 3), (0, 1, 2, 3)])
def test_importance_weighted_bound_equals_the_evidence(exact, world, values, make_batch, observed):
    """With the exact posterior as proposal every importance weight is p(x); nothing is carried from sample to sample."""
    batch = make_batch({m: v.float() for m, v in values.items()}, presence(5, observed))
    found = importance_weighted(exact, batch, 2).log_likelihood
    torch.testing.assert_close(found.double(), world.log_evidence(values, observed), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("observed", [(2,), (0, 1, 3)])
def test_every_pass_bounds_the_evidence(exact, world, values, make_batch, observed):
    """4000 copies of a sample, equal noise: joint pass exact, single passes below, within 4 standard errors."""
    copies = make_batch({m: v[:1].float().expand(4000, -1) for m, v in values.items()}, presence(4000, observed))
    evidence = world.log_evidence(values, observed)[0]
    passes = exact.passes(exact.encode(copies), copies, 1.0)
    for one, found in zip(passes, exact.log_likelihoods(passes, copies), strict=True):
        bound = exact.reduce([one], [found], 1.0).detach().double()
        error = 4 * bound.std() / 4000**0.5 + 1e-3
        if one.name == "joint" or (one.name,) == tuple(NAMES[i] for i in observed):
            assert (bound.mean() - evidence).abs() < error
        elif NAMES.index(one.name) in observed:
            assert bound.mean() < evidence + error
        else:
            assert (bound == 0).all()


def test_objective_equals_a_direct_computation(make_schema, make_batch, monkeypatch):
    """Joint and single passes of samples with one to three assays, each target with its own private latents."""
    names = ("a", "b", "c")
    noise = torch.tensor([0.7, -0.4, 1.1, 0.2, -0.9])
    monkeypatch.setattr(torch, "randn_like", lambda t: noise.expand_as(t))
    module = build(make_schema, names)
    with torch.no_grad():
        for m in names:
            module.likelihoods.of(m).raw_noise[CROSS] = 0.4  # so that the route matters
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(4, P, generator=g) for m in names}
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    batch = make_batch(x, present)
    unit = Normal(0.0, 1.0)

    def shared(i: int, members: list[int]) -> Normal:
        total, weighted = torch.ones(D), torch.zeros(D)
        for k in members:
            encoder = module.shared_encoders.of(names[k])
            precision = F.softplus(encoder.scale_bias)
            total, weighted = total + precision, weighted + precision * encoder.linear(x[names[k]][i])
        return Normal(weighted / total, total.rsqrt())

    def private(i: int, k: int) -> Normal:
        encoder = module.private_encoders.of(names[k])
        precision = F.softplus(encoder.scale_bias)
        return Normal(encoder.linear(x[names[k]][i]) * precision / (1 + precision), (1 + precision).rsqrt())

    def bound(i: int, has: list[int], members: list[int], beta: float) -> torch.Tensor:
        q = shared(i, members)
        value = -beta * kl_divergence(q, unit).sum()
        for k in has:
            own = private(i, k)
            w = own.mean + own.stddev * noise[D + k]
            z = torch.cat([q.mean + q.stddev * noise[:D], w])
            sd = 1.0 if k in members else math.exp(0.4)
            fit = Normal(module.decoders.of(names[k]).linear(z), sd).log_prob(x[names[k]][i]).sum()
            value = value + fit - beta * kl_divergence(own, unit).sum()
        return value

    expected, joint = [], []
    for i in range(4):
        has = torch.nonzero(present[i]).squeeze(-1).tolist()
        expected.append(bound(i, has, has, 0.3) + sum(bound(i, has, [k], 0.3) for k in has))
        joint.append(bound(i, has, has, 1.0))
    torch.testing.assert_close(losses(module, batch), torch.stack(expected), atol=1e-4, rtol=1e-5)
    rec, kl = module.elbo(batch)
    torch.testing.assert_close(torch.stack(list(rec.values())).sum(0) - kl, torch.stack(joint), atol=1e-4, rtol=1e-5)


def test_what_is_trained_is_what_is_used(make_schema, make_batch, values, monkeypatch):
    """Shared latents of every pass are draws from the posterior that the model gives for the same sources."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, config=NetworkConfig(n_hidden=8))
    batch = make_batch({m: v.float() for m, v in values.items()}, presence(5, (0, 1, 3)))
    evidence = module.encode(batch)
    passes = module.passes(evidence, batch, 1.0)
    for one in (p for p in passes if p.sources.any()):
        used = module.posterior(evidence, batch, one.sources)
        mean, variance = used.project(torch.eye(D + 4 * WIDTH)[:, :D])
        torch.testing.assert_close(one.latents["a"][0, :, :D], mean + 0.6 * variance.sqrt())


def test_targets_are_decoded_with_their_own_private_latents(make_schema, make_batch, values):
    """Source ``m`` and target ``t``: gradients reach shared encoder ``m`` and private encoder ``t``, and no other."""
    module = build(make_schema, config=NetworkConfig(n_hidden=8))
    batch = make_batch({m: v.float() for m, v in values.items()}, presence(5, (0, 1, 2, 3)))
    passes = module.passes(module.encode(batch), batch, 0.5)
    for one, found in list(zip(passes, module.log_likelihoods(passes, batch), strict=True))[1:]:
        for t in NAMES:
            for encoders, reached in ((module.shared_encoders, one.name), (module.private_encoders, t)):
                for m in NAMES:
                    slopes = torch.autograd.grad(found[t].sum(), list(encoders.of(m).parameters()), retain_graph=True)
                    assert (max(float(s.abs().max()) for s in slopes) > 0) == (m == reached)


def test_noise_is_own_with_the_target_among_the_sources(make_schema, make_batch, values):
    """Otherwise it is the cross noise, which is also that of predictions."""
    module = build(make_schema)
    batch = make_batch({m: v.float() for m, v in values.items()}, presence(5, (0, 1)))
    passes = {one.name: one for one in module.passes(module.encode(batch), batch, 0.5)}
    assert set(passes["joint"].route.values()) == {"own"}
    assert passes["b"].route == {"a": "cross", "b": "own", "c": "cross", "d": "cross"}
    assert module.predictive_route(True) == OWN and module.predictive_route(False) == CROSS


def test_rows_and_company_do_not_matter(make_schema, make_batch, values, monkeypatch):
    """A row's loss and latents are the same in any order and in any part of the batch, alone as well."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, config=NetworkConfig(n_hidden=8))
    x = {m: v.float() for m, v in values.items()}
    present = torch.tensor([[1, 1, 1, 1], [0, 1, 0, 1], [0, 0, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]], dtype=torch.bool)
    batch = make_batch(x, present)
    loss, mean = losses(module, batch), module.posterior(module.encode(batch), batch, present).mean
    for rows in ([4, 2, 0, 1, 3], [2], [1, 3]):
        part = make_batch({m: v[rows] for m, v in x.items()}, present[rows])
        torch.testing.assert_close(losses(module, part), loss[rows], atol=1e-4, rtol=1e-5)
        found = module.posterior(module.encode(part), part, present[rows]).mean
        torch.testing.assert_close(found, mean[rows], atol=1e-5, rtol=1e-5)


def test_one_modality_counts_its_bound_twice(make_schema, make_batch, monkeypatch):
    """Joint and single pass are then the same, also with a sample alone and a value missing."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, ("a",), NetworkConfig(n_hidden=8))
    x = torch.randn(3, P, generator=torch.Generator().manual_seed(5))
    x[1, 2] = torch.nan
    for rows in ([0, 1, 2], [1]):
        batch = make_batch({"a": x[rows]}, torch.ones(len(rows), 1, dtype=torch.bool))
        rec, kl = module.elbo(batch)
        found = losses(module, batch, 1.0)
        torch.testing.assert_close(found, 2 * (rec["a"] - kl))
        slopes = torch.autograd.grad(found.sum(), list(module.shared_encoders.parameters()))
        assert all(torch.isfinite(s).all() for s in slopes)
