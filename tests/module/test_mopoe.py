"""MoPoE: its components on linear-Gaussian data, its random subsets, and its objective by hand."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from omicvae.module import MoPoEModule, Shape
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c")
P = 4
CONFIG = NetworkConfig(n_layers=0)


def subsets_of(members: list[int]) -> list[tuple[int, ...]]:
    return [s for size in range(1, len(members) + 1) for s in combinations(members, size)]


def build(make_schema, width: int = 0, **kwargs) -> MoPoEModule:
    torch.manual_seed(0)
    shape = Shape(2, dict.fromkeys(NAMES, width))
    return MoPoEModule(make_schema(dict.fromkeys(NAMES, P)), CONFIG.resolve(100), shape, **kwargs).eval()


@pytest.fixture
def mosaic(make_batch):
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(5, P, generator=g) for m in NAMES}
    present = torch.tensor([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    return x, make_batch(x, present)


def test_components_equal_the_closed_form(make_schema, make_batch):
    """Experts set to the likelihoods of ``x_m = W_m z + noise``: all 15 components of four assays are exact posteriors."""
    names, D, p = ("a", "b", "c", "d"), 2, 5
    g = torch.Generator().manual_seed(0)
    W = {m: torch.linalg.qr(torch.randn(p, D, generator=g))[0] * torch.tensor([0.7, 2.0]) for m in names}
    torch.manual_seed(0)
    module = MoPoEModule(make_schema(dict.fromkeys(names, p)), CONFIG.resolve(100), Shape(D, dict.fromkeys(names, 0)))
    with torch.no_grad():
        for m in names:
            precision, encoder = W[m].square().sum(0), module.shared_encoders.of(m)
            encoder.linear.weight.copy_(W[m].mT / precision[:, None])
            encoder.linear.bias.zero_()
            encoder.scale_bias.copy_(precision + torch.log(-torch.expm1(-precision)))
    x = {m: torch.randn(3, p, generator=g) for m in names}
    batch = make_batch(x, torch.ones(3, 4, dtype=torch.bool))
    q = module.posterior(module.encode(batch), batch, batch.present)
    assert len(module.subsets) == 15 and (q.weights == 1 / 15).all()
    for k, members in enumerate(module.subsets):
        load = torch.cat([W[m] for m, used in zip(names, members, strict=True) if used])
        stacked = torch.cat([x[m] for m, used in zip(names, members, strict=True) if used], 1)
        gain = load.mT @ torch.linalg.inv(load @ load.mT + torch.eye(len(load)))
        torch.testing.assert_close(q.shared.location[k], stacked @ gain.mT, atol=1e-4, rtol=1e-4)
        variance = torch.diagonal(torch.eye(D) - gain @ load)
        torch.testing.assert_close(q.shared.scale[k].square(), variance.expand(3, -1), atol=1e-4, rtol=1e-4)


def test_only_subsets_of_what_is_given_have_weight(make_schema, mosaic):
    """A sample with two assays has three components, and a hidden assay counts as one it does not have."""
    _, batch = mosaic
    module = build(make_schema)
    given = batch.present & torch.tensor([True, True, False])
    weights = module.posterior(module.encode(batch), batch, given).weights
    for i in range(5):
        for k, members in enumerate(module.subsets):
            inside = not (members & ~given[i]).any()
            assert (weights[i, k] > 0) == inside
    torch.testing.assert_close(weights.sum(1), torch.ones(5))


def test_every_sample_gets_a_subset_at_random(make_schema, make_batch):
    """Uniform over a sample's subsets, and anew in every step wherever it is (2000 draws, 5 standard errors)."""
    module = build(make_schema)
    patterns = torch.tensor([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0]], dtype=torch.bool)
    batch = make_batch({m: torch.randn(400, P) for m in NAMES}, patterns.repeat(100, 1))
    evidence = module.encode(batch)
    drawn = torch.stack([module.passes(evidence, batch, 0.5)[0].sources for _ in range(20)])
    hit = (drawn.unsqueeze(2) == module.subsets).all(-1).float().reshape(20, 100, 4, 7)
    counts = hit.sum((0, 1))
    for i, n in enumerate([7, 3, 1, 3]):
        allowed = (~module.subsets | patterns[i]).all(-1)
        assert int(allowed.sum()) == n and counts[i, ~allowed].sum() == 0
        error = 5 * (2000 * (1 / n) * (1 - 1 / n)) ** 0.5
        assert ((counts[i, allowed] - 2000 / n).abs() <= error).all()
    assert (hit[:, :, 0].sum(0).amax(1) < 20).all()  # no place in the batch keeps its subset


@pytest.mark.parametrize("private", ["prior", "zero"])
@pytest.mark.parametrize("width", [0, 2], ids=["plain", "structured"])
def test_objective_equals_a_direct_computation(make_schema, mosaic, monkeypatch, width, private):
    """One given subset a row decodes every target; divergences of all subsets; noise of all draws fixed."""
    noise = torch.tensor([0.7, -0.4, 1.1, 0.2, -0.9, 0.5, 1.3, -0.1])
    monkeypatch.setattr(torch, "randn_like", lambda t: (noise[:2] if t.shape[-1] == 2 else noise[2:]).expand_as(t))
    if not width:
        monkeypatch.setattr(torch, "randn_like", lambda t: noise[: t.shape[-1]].expand_as(t))
    x, batch = mosaic
    module = build(make_schema, width, private=private)
    with torch.no_grad():
        for m in NAMES:
            module.likelihoods.of(m).raw_noise[1] = 0.4  # cross noise, so that the route matters
    chosen = [(0, 2), (1,), (0, 1), (1,), (2,)]
    index = [next(k for k, s in enumerate(module.subsets) if s.nonzero().flatten().tolist() == list(c)) for c in chosen]
    monkeypatch.setattr("omicvae.module._mopoe.stratified_components", lambda weights, n: torch.tensor([index]))
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)

    def product(i: int, members: tuple[int, ...]) -> Normal:
        total, weighted = torch.ones(2), torch.zeros(2)
        for k in members:
            encoder = module.shared_encoders.of(NAMES[k])
            precision = F.softplus(encoder.scale_bias)
            total, weighted = total + precision, weighted + precision * encoder.linear(x[NAMES[k]][i])
        return Normal(weighted / total, total.rsqrt())

    def own(i: int, k: int) -> Normal:
        encoder = module.private_encoders.of(NAMES[k])
        precision = F.softplus(encoder.scale_bias)
        return Normal(encoder.linear(x[NAMES[k]][i]) * precision / (1 + precision), (1 + precision).rsqrt())

    unit, expected, reported = Normal(0.0, 1.0), [], []
    for i in range(5):
        members = torch.nonzero(batch.present[i]).squeeze(-1).tolist()
        every = subsets_of(members)
        kl = sum(kl_divergence(product(i, s), unit).sum() for s in every) / len(every)
        if width:
            kl = kl + sum(kl_divergence(own(i, k), unit).sum() for s in every for k in s) / len(every)
        q, fit = product(i, chosen[i]), torch.zeros(())
        for k in members:
            z = q.mean + q.stddev * noise[:2]
            if width:
                eps = noise[2 + 2 * k : 4 + 2 * k]
                prior = eps if private == "prior" else torch.zeros(2)
                z = torch.cat([z, own(i, k).mean + own(i, k).stddev * eps if k in chosen[i] else prior])
            sd = 1.0 if k in chosen[i] else torch.tensor(0.4).exp()
            fit = fit + Normal(module.decoders.of(NAMES[k]).linear(z), sd).log_prob(x[NAMES[k]][i]).sum()
        expected.append(fit - 0.3 * kl)
        reported.append(fit - kl)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-5)
    rec, divergence = module.elbo(batch)
    torch.testing.assert_close(
        torch.stack(list(rec.values())).sum(0) - divergence, torch.stack(reported), atol=1e-4, rtol=1e-5
    )


def test_noise_is_own_inside_the_subset_and_cross_outside(make_schema, mosaic):
    """A row's targets in its subset train the own noise; the others train the cross noise."""
    _, batch = mosaic
    module = build(make_schema)
    passes = module.passes(module.encode(batch), batch, 0.5)
    for i, m in enumerate(NAMES):
        inside, outside = (one.weights[m] for one in passes)
        torch.testing.assert_close(inside, passes[0].sources[:, i].float())
        torch.testing.assert_close(inside + outside, batch.present[:, i].float())
    assert [one.route["a"] for one in passes] == ["own", "cross"]


def test_too_many_modalities_are_refused(make_schema):
    names = tuple(f"assay{i}" for i in range(11))
    with pytest.raises(ValueError, match="11 modalities; use MVAE or MMVAE"):
        MoPoEModule(make_schema(dict.fromkeys(names, P)), CONFIG.resolve(100), Shape(2, dict.fromkeys(names, 0)))
