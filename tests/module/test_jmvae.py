"""JMVAE: posteriors of subsets on linear-Gaussian data, and its objective by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F

from omicvae.data import CategorySchema
from omicvae.module import JMVAEModule, Shape
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c", "d")
D, P = 2, 5
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]
PRESENT = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)


def inverse_softplus(x: torch.Tensor) -> torch.Tensor:
    return x + torch.log(-torch.expm1(-x))


def build(make_schema, names: tuple[str, ...] = NAMES[:3], n_layers: int = 0, **kwargs) -> JMVAEModule:
    torch.manual_seed(0)
    config = NetworkConfig(n_layers=n_layers, n_hidden=8, dropout=0.0).resolve(100)
    return JMVAEModule(make_schema(dict.fromkeys(names, P)), config, Shape(D, dict.fromkeys(names, 0)), **kwargs).eval()


@pytest.fixture
def values() -> dict[str, torch.Tensor]:
    """One element was not measured."""
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(5, P, generator=g) for m in NAMES[:3]}
    x["a"][0, 1] = torch.nan
    return x


class LinearWorld:
    """``x_m = W_m z + noise`` of unit variance, in the basis of z in which every ``W_m' W_m`` is diagonal."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        self.W = {
            m: torch.linalg.qr(torch.randn(P, D, generator=g))[0] * torch.tensor([0.7, 2.0])[torch.randperm(D)]
            for m in NAMES
        }

    def posterior(self, observed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Map ``(D, |O| P)`` from what is observed to the mean, and ``(D,)`` variances."""
        load = torch.cat([self.W[NAMES[i]] for i in observed])
        gain = load.mT @ torch.linalg.inv(load @ load.mT + torch.eye(len(load)))
        return gain, torch.diagonal(torch.eye(D) - gain @ load)

    def install(self, module: JMVAEModule) -> JMVAEModule:
        """Unimodal posteriors that are exact, and a joint encoder that is so for complete samples."""
        with torch.no_grad():
            for m in NAMES:
                precision, encoder = self.W[m].square().sum(0), module.shared_encoders.of(m)
                encoder.linear.weight.copy_(self.W[m].mT / precision[:, None])
                encoder.linear.bias.zero_()
                encoder.scale_bias.copy_(inverse_softplus(precision))
            gain, variance = self.posterior((0, 1, 2, 3))
            module.joint_encoder.linear.weight.copy_(torch.cat([gain, torch.zeros(D, 4)], 1))
            module.joint_encoder.linear.bias.zero_()
            module.joint_encoder.scale_bias.copy_(inverse_softplus(variance.sqrt() - 1e-3))
        return module


@pytest.mark.parametrize("observed", SUBSETS, ids=lambda s: "".join(NAMES[i] for i in s))
@pytest.mark.parametrize("hidden", [False, True], ids=["absent", "hidden"])
def test_posterior_equals_the_closed_form(make_schema, make_batch, observed, hidden):
    """All 15 subsets: the prior counts once, and it does not matter why the other assays are not used."""
    world = LinearWorld()
    module = world.install(build(make_schema, NAMES))
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    given = torch.zeros(4, 4, dtype=torch.bool)
    given[:, list(observed)] = True
    batch = make_batch(x, torch.ones_like(given) if hidden else given)
    q = module.posterior(module.encode(batch), batch, given)
    gain, variance = world.posterior(observed)
    expected = torch.cat([x[NAMES[i]] for i in observed], 1) @ gain.mT
    torch.testing.assert_close(q.mean, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q.project(torch.eye(D))[1], variance.expand(4, -1), atol=1e-4, rtol=1e-4)


def test_nothing_given_is_the_prior(make_schema, make_batch, values):
    module = build(make_schema)
    batch = make_batch(values, PRESENT)
    q = module.posterior(module.encode(batch), batch, torch.zeros_like(PRESENT))
    assert q.mean.abs().max() == 0
    torch.testing.assert_close(q.project(torch.eye(D))[1], torch.ones(5, D))


@pytest.mark.parametrize("alpha", [0.1, 1.5])
def test_objective_equals_a_direct_computation(make_schema, make_batch, values, monkeypatch, alpha):
    """Joint encoder with zeros and mask; three, two, one and no assays; one missing element; noise fixed."""
    noise = torch.tensor([0.7, -0.4])
    monkeypatch.setattr(torch, "randn_like", lambda t: noise.expand_as(t))
    module, batch = build(make_schema, alpha=alpha), make_batch(values, PRESENT)
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)
    unit, expected, reported = Normal(0.0, 1.0), [], []
    for i in range(5):
        has = [m for m, p in zip(NAMES, PRESENT[i], strict=False) if p]
        seen = [values[m][i].nan_to_num(0.0) if m in has else torch.zeros(P) for m in NAMES[:3]]
        encoder = module.joint_encoder
        q = Normal(encoder.linear(torch.cat([*seen, PRESENT[i].float()])), F.softplus(encoder.scale_bias) + 1e-3)
        fit, away = torch.zeros(()), torch.zeros(())
        for m in has:
            encoder, x = module.shared_encoders.of(m), values[m][i]
            precision = F.softplus(encoder.scale_bias)  # of the evidence, which meets the prior
            mean = precision * encoder.linear(x.nan_to_num(0.0)) / (1 + precision)
            away = away + kl_divergence(q, Normal(mean, (1 + precision).rsqrt())).sum()
            decoded = Normal(module.decoders.of(m).linear(q.mean + q.stddev * noise), 1.0)
            fit = fit + decoded.log_prob(x.nan_to_num(0.0))[~x.isnan()].sum()
        kl = kl_divergence(q, unit).sum() if has else torch.zeros(())
        expected.append(fit - 0.3 * (kl + alpha * away))
        reported.append(fit - kl)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=1e-5)
    rec, divergence = module.elbo(batch)
    total = torch.stack(list(rec.values())).sum(0) - divergence
    torch.testing.assert_close(total, torch.stack(reported), atol=1e-4, rtol=1e-5)


def test_unimodal_encoders_learn_by_alpha_alone(make_schema, make_batch, values):
    """Their gradient is proportional to alpha; decoders do not see it."""
    batch, gradients = make_batch(values, PRESENT), {}
    for alpha in (0.1, 0.4):
        module = build(make_schema, n_layers=1, alpha=alpha)
        torch.manual_seed(1)
        module.objective(batch).loss.backward()
        gradients[alpha] = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    names = [n for n in gradients[0.1] if n.startswith(("shared_encoders", "decoders"))]
    assert {n.split(".")[0] for n in names} == {"shared_encoders", "decoders"}
    for n in names:
        factor = 4.0 if n.startswith("shared_encoders") else 1.0
        torch.testing.assert_close(gradients[0.4][n], factor * gradients[0.1][n], rtol=1e-4, atol=1e-6)


def test_hidden_assays_do_not_leak(make_schema, make_batch, values):
    """Neither the joint encoder nor the product sees what is not given."""
    module = build(make_schema, n_layers=1)
    other = values | {"c": values["c"] + 100.0}
    given = PRESENT & torch.tensor([True, True, False])
    found = []
    for x in (values, other):
        batch = make_batch(x, PRESENT)
        q = module.posterior(module.encode(batch), batch, given)
        found.append([q.mean, q.project(torch.eye(D))[1], module.joint_posterior(batch, given).location])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_without_complete_training_samples_complete_sets_have_the_product(make_schema, make_batch, values):
    """The joint encoder has then never met the full mask; a loaded module remembers."""
    module, batch = build(make_schema), make_batch(values, PRESENT)
    module.begin_training(lambda: [make_batch({m: x[1:] for m, x in values.items()}, PRESENT[1:])])
    other = build(make_schema)
    other.load_state_dict(module.state_dict())
    for one in (module, other):
        q = one.posterior(one.encode(batch), batch, PRESENT)
        evidence = one.shared_evidence(one.encode(batch), batch)
        precision = 1 + evidence.scale[0].sum(0)
        torch.testing.assert_close(q.mean[0], (evidence.scale[0] * evidence.location[0]).sum(0) / precision)
    module.begin_training(lambda: [batch])
    joint = module.joint_posterior(batch, PRESENT).location[0]
    torch.testing.assert_close(module.posterior(module.encode(batch), batch, PRESENT).mean[0], joint)


def test_a_sample_does_not_depend_on_others(make_schema, make_batch, values, monkeypatch):
    """Objective and posterior: rows in another order, and alone in the batch."""
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))
    module = build(make_schema, n_layers=1)

    def results(rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = make_batch({m: x[rows] for m, x in values.items()}, PRESENT[rows])
        passes = module.passes(module.encode(batch), batch, 0.5)
        value = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)
        return value, module.posterior(module.encode(batch), batch, batch.present).mean

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


def test_only_the_own_noise_is_trained_and_used(make_schema, make_batch, values):
    module = build(make_schema)
    module.objective(make_batch(values, PRESENT)).loss.backward()
    noise = module.likelihoods.of("a").raw_noise.grad
    assert noise[0].abs().min() > 0 and noise[1].abs().max() == 0
    assert module.predictive_route(False) == module.predictive_route(True) == 0


def test_labels_count_once(make_schema, make_batch, values):
    """Cross-entropy at the joint latents, for samples with a known class and any assay."""
    schema = replace(make_schema(dict.fromkeys(NAMES[:3], P)), labels=CategorySchema("labels", "er", ("neg", "pos")))
    module = JMVAEModule(
        schema, NetworkConfig(n_layers=0).resolve(100), Shape(D, dict.fromkeys(NAMES[:3], 0)), label_weight=2.0
    )
    labels = torch.tensor([0, 1, -1, 1, 0])
    batch = make_batch(values, PRESENT, labels)
    passes = module.passes(module.encode(batch), batch, 0.5)
    logits = module.classifier(passes[0].latents["a"][0]).log_softmax(-1)
    expected = [2.0 * logits[0, 0], 2.0 * logits[1, 1], torch.zeros(()), 2.0 * logits[3, 1], torch.zeros(())]
    torch.testing.assert_close(module.label_term(passes, batch), torch.stack(expected))
