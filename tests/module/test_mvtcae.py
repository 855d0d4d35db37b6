"""MVTCAE: products of posteriors on linear-Gaussian data, and its objective by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from omicvae.data import CategorySchema
from omicvae.module import MVTCAEModule, Shape
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c", "d")
D, P = 2, 5
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]
PRESENT = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)


def inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    return x + torch.log(-torch.expm1(-x))


def build(make_schema, names: tuple[str, ...] = NAMES[:3], n_layers: int = 0, **kwargs) -> MVTCAEModule:
    torch.manual_seed(0)
    config = NetworkConfig(n_layers=n_layers, n_hidden=8, dropout=0.0).resolve(100)
    shape = Shape(D, dict.fromkeys(names, 0))
    return MVTCAEModule(make_schema(dict.fromkeys(names, P)), config, shape, **kwargs).eval()


@pytest.fixture
def values() -> dict[str, torch.Tensor]:
    """One element was not measured."""
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(5, P, generator=g) for m in NAMES[:3]}
    x["a"][0, 1] = torch.nan
    return x


def objective(module: MVTCAEModule, batch, kl_weight: float) -> torch.Tensor:
    passes = module.passes(module.encode(batch), batch, 0.5)
    return module.reduce(passes, module.log_likelihoods(passes, batch), kl_weight)


@pytest.mark.parametrize("observed", SUBSETS, ids=lambda s: "".join(NAMES[i] for i in s))
def test_posterior_equals_the_closed_form(make_schema, make_batch, observed):
    """Experts with a quarter of the prior each: exact for complete samples, as under the prior N(0, 4/|S|) for others."""
    g = torch.Generator().manual_seed(0)
    W = {m: torch.linalg.qr(torch.randn(P, D, generator=g))[0] * torch.tensor([0.7, 2.0]) for m in NAMES}
    module = build(make_schema, NAMES)
    with torch.no_grad():
        for m in NAMES:
            precision, encoder = W[m].square().sum(0) + 1 / 4, module.shared_encoders.of(m)
            encoder.linear.weight.copy_(W[m].mT / precision[:, None])
            encoder.linear.bias.zero_()
            encoder.scale_bias.copy_(inverse_softplus(precision.rsqrt() - 1e-3))
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    given = torch.zeros(4, 4, dtype=torch.bool)
    given[:, list(observed)] = True
    batch = make_batch(x, torch.ones_like(given))
    q = module.posterior(module.encode(batch), batch, given)
    prior = 4 / len(observed)
    load = torch.cat([W[NAMES[i]] for i in observed])
    gain = prior * load.mT @ torch.linalg.inv(prior * load @ load.mT + torch.eye(len(load)))
    expected = torch.cat([x[NAMES[i]] for i in observed], 1) @ gain.mT
    variance = torch.diagonal(prior * (torch.eye(D) - gain @ load))
    torch.testing.assert_close(q.mean, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q.project(torch.eye(D))[1], variance.expand(4, -1), atol=1e-4, rtol=1e-4)


def test_nothing_given_is_the_prior(make_schema, make_batch, values):
    module, batch = build(make_schema), make_batch(values, PRESENT)
    q = module.posterior(module.encode(batch), batch, torch.zeros_like(PRESENT))
    assert q.mean.abs().max() == 0
    torch.testing.assert_close(q.project(torch.eye(D))[1], torch.ones(5, D))


@pytest.mark.parametrize("alpha", [None, 0.0, 0.9, 1.0])
def test_objective_equals_a_direct_computation(make_schema, make_batch, values, monkeypatch, alpha):
    """Three, two, one and no assays with weights from their own number; one missing element; noise fixed."""
    noise = torch.tensor([0.7, -0.4])
    monkeypatch.setattr(torch, "randn_like", lambda t: noise.expand_as(t))
    module, batch = build(make_schema, alpha=alpha), make_batch(values, PRESENT)
    found = objective(module, batch, 0.3)
    unit, expected, reported = Normal(0.0, 1.0), [], []
    for i in range(5):
        has = [m for m, p in zip(NAMES, PRESENT[i], strict=False) if p]
        if not has:
            expected.append(torch.zeros(()))
            reported.append(torch.zeros(()))
            continue
        experts = []
        for m in has:
            encoder = module.shared_encoders.of(m)
            mean = encoder.linear(values[m][i].nan_to_num(0.0))
            experts.append(Normal(mean, F.softplus(encoder.scale_bias) + 1e-3))
        total = torch.stack([e.variance.reciprocal() for e in experts]).sum(0)
        q = Normal(torch.stack([e.mean / e.variance for e in experts]).sum(0) / total, total.rsqrt())
        fit = torch.zeros(())
        for m in has:
            x = values[m][i]
            decoded = Normal(module.decoders.of(m).linear(q.mean + q.stddev * noise), 1.0)
            fit = fit + decoded.log_prob(x.nan_to_num(0.0))[~x.isnan()].sum()
        vib = kl_divergence(q, unit).sum()
        cvib = torch.stack([kl_divergence(q, e).sum() for e in experts]).sum()
        M = len(has)
        a = M / (M + 1) if alpha is None else alpha
        expected.append((M - a) / M * fit - 0.3 * ((1 - a) * vib + a / M * cvib))
        reported.append(fit - vib)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-5)
    rec, divergence = module.elbo(batch)
    elbo = torch.stack(list(rec.values())).sum(0) - divergence
    torch.testing.assert_close(elbo, torch.stack(reported), atol=1e-4, rtol=1e-5)


def test_weights_of_the_default(make_schema, make_batch, values, monkeypatch):
    """The prior and each of M posteriors weigh 1/(M+1): all divergences sum to the expectation's share over M."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    module, batch = build(make_schema), make_batch(values, PRESENT)
    joint, conditional = module.passes(module.encode(batch), batch, 0.5)
    fit = torch.stack(list(module.log_likelihoods([joint], batch)[0].values())).sum((0, 1))
    divergence = torch.stack([joint.kl["joint"], *conditional.kl.values()]).sum((0, 1))
    M = PRESENT.sum(1)
    torch.testing.assert_close(objective(module, batch, 1.0), (M * fit - divergence) / (M + 1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("alpha", [None, 0.3])
def test_one_modality_has_its_elbo_times_the_weight_of_the_prior(make_schema, make_batch, values, monkeypatch, alpha):
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, n_layers=1, alpha=alpha)
    present = torch.zeros_like(PRESENT)
    present[:, 1] = True
    batch = make_batch(values, present)
    rec, kl = module.elbo(batch)
    share = 0.5 if alpha is None else 1 - alpha
    torch.testing.assert_close(objective(module, batch, 1.0), share * (rec["b"] - kl), atol=1e-4, rtol=1e-5)


def test_a_modality_that_a_sample_lacks_does_not_change_its_objective(make_schema, make_batch, values, monkeypatch):
    """M is the sample's own: a cohort with a third assay treats samples with two as a cohort of two does."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    large, small = build(make_schema, n_layers=1), build(make_schema, NAMES[:2], n_layers=1)
    for part in ("shared_encoders", "decoders"):
        for m in NAMES[:2]:
            getattr(small, part).of(m).load_state_dict(getattr(large, part).of(m).state_dict())
    present = PRESENT & torch.tensor([True, True, False])
    found = objective(large, make_batch(values, present), 0.7)
    expected = objective(small, make_batch({m: values[m] for m in NAMES[:2]}, present[:, :2]), 0.7)
    torch.testing.assert_close(found, expected)


def test_a_sample_does_not_depend_on_others(make_schema, make_batch, values, monkeypatch):
    """Objective and posterior: rows in another order, and alone in the batch."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, n_layers=1)

    def results(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = make_batch({m: x[rows] for m, x in values.items()}, PRESENT[rows])
        mean = module.posterior(module.encode(batch), batch, batch.present).mean
        return objective(module, batch, 0.3), mean

    reference = results([0, 1, 2, 3, 4])
    for rows in ([3, 0, 4, 2, 1], [2], [0]):
        for found, expected in zip(results(rows), reference, strict=True):
            torch.testing.assert_close(found, expected[rows], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_any_number_of_modalities(make_schema, make_batch, n):
    """Finite losses and gradients, also for samples without any assay and for an empty batch."""
    names = tuple(f"assay.{i}" for i in range(n))
    module = build(make_schema, names, n_layers=1)
    g = torch.Generator().manual_seed(0)
    for B in (8, 0):
        present = torch.rand(B, n, generator=g) > 0.4
        batch = make_batch({m: torch.randn(B, P, generator=g) for m in names}, present)
        step = module.objective(batch)
        assert torch.isfinite(step.sums).all()
        assert module.posterior(module.encode(batch), batch, present).sample(3).shape == (3, B, D)
        if B:
            step.loss.backward()
            assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


def test_an_absent_assay_trains_nothing_of_its_own(make_schema, make_batch, values):
    """Neither its encoder nor its decoder; and the cross noise of a measured one is never trained."""
    module = build(make_schema, n_layers=1)
    present = PRESENT & torch.tensor([True, True, False])
    module.objective(make_batch(values, present)).loss.backward()
    for part in (module.shared_encoders, module.decoders):
        assert all(p.grad is None or p.grad.abs().max() == 0 for p in part.of("c").parameters())
        assert any(p.grad.abs().max() > 0 for p in part.of("a").parameters())
    noise = module.likelihoods.of("a").raw_noise.grad
    assert noise[0].abs().min() > 0 and noise[1].abs().max() == 0
    assert module.predictive_route(False) == module.predictive_route(True) == 0


def test_labels_count_once(make_schema, make_batch, values):
    """Cross-entropy at the joint latents, for samples with a known class and any assay."""
    schema = replace(make_schema(dict.fromkeys(NAMES[:3], P)), labels=CategorySchema("labels", "er", ("neg", "pos")))
    module = MVTCAEModule(
        schema, NetworkConfig(n_layers=0).resolve(100), Shape(D, dict.fromkeys(NAMES[:3], 0)), label_weight=2.0
    )
    labels = torch.tensor([0, 1, -1, 1, 0])
    batch = make_batch(values, PRESENT, labels)
    passes = module.passes(module.encode(batch), batch, 0.5)
    logits = module.classifier(passes[0].latents["a"][0]).log_softmax(-1)
    expected = [2.0 * logits[0, 0], 2.0 * logits[1, 1], torch.zeros(()), 2.0 * logits[3, 1], torch.zeros(())]
    torch.testing.assert_close(module.label_term(passes, batch), torch.stack(expected))
