"""MMVAE++: where gradients stop, what private latents do, and its mixture posterior."""

from __future__ import annotations

import pytest
import torch

from omicvae.module import MMVAEPlusPlusModule, Shape
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c")
P, SHARED, PRIVATE = 5, 3, 2


def build(make_schema, **kwargs) -> MMVAEPlusPlusModule:
    torch.manual_seed(0)
    shape = Shape(SHARED, dict.fromkeys(NAMES, PRIVATE))
    return MMVAEPlusPlusModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_hidden=8).resolve(5000), shape, **kwargs
    )


@pytest.fixture
def complete(make_batch):
    g = torch.Generator().manual_seed(1)
    return make_batch({m: torch.randn(7, P, generator=g) for m in NAMES}, torch.ones(7, 3, dtype=torch.bool))


def gradient(value: torch.Tensor, module: torch.nn.Module) -> float:
    """Largest absolute gradient of ``value`` with respect to a submodule."""
    found = torch.autograd.grad(value, list(module.parameters()), retain_graph=True, allow_unused=True)
    return max((0.0 if g is None else float(g.abs().max())) for g in found)


def test_own_reconstruction_does_not_reach_shared_encoders(make_schema, complete):
    """The self term's gradient on shared-encoder parameters is exactly zero; the cross term's and the KL's are not."""
    module = build(make_schema)
    passes = module.passes(module.encode(complete), complete, 0.5)
    found = module.log_likelihoods(passes, complete)
    for one, values in zip(passes, found, strict=True):
        encoder = module.shared_encoders.of(one.name)
        assert gradient(values[one.name].sum(), encoder) == 0.0
        assert gradient(values[one.name].sum(), module.private_encoders.of(one.name)) > 0
        for target in set(NAMES) - {one.name}:
            assert gradient(values[target].sum(), encoder) > 0
            assert gradient(values[target].sum(), module.private_encoders.of(one.name)) == 0.0
        assert gradient(one.kl[one.name].sum(), encoder) > 0


def test_own_and_cross_noise_are_separate(make_schema, complete):
    """Own passes train the own noise only, cross passes the cross noise only."""
    module = build(make_schema)
    passes = module.passes(module.encode(complete), complete, 0.5)
    found = module.log_likelihoods(passes, complete)
    noise = module.likelihoods.of("b").raw_noise
    (own,) = torch.autograd.grad(found[1]["b"].sum(), noise, retain_graph=True)
    (cross,) = torch.autograd.grad(found[0]["b"].sum(), noise, retain_graph=True)
    assert own[0].abs().min() > 0 and own[1].abs().max() == 0
    assert cross[1].abs().min() > 0 and cross[0].abs().max() == 0


@pytest.mark.parametrize("private", ["prior", "zero"])
def test_private_latent_of_a_predicted_target(make_schema, complete, private):
    """Drawn anew from the prior for every row, or exactly zero."""
    module = build(make_schema, private=private)
    first = module.passes(module.encode(complete), complete, 0.5)[0]
    drawn = first.latents["b"][0, :, SHARED:]
    if private == "zero":
        assert drawn.abs().max() == 0
    else:
        assert drawn.std() > 0.3 and len(drawn.unique()) == drawn.numel()


def test_no_parameter_is_shared_between_shared_and_private_encoders(make_schema):
    """Their parameters are disjoint, and together with decoders and noise they are all there is."""
    module = build(make_schema)
    shared = {id(p) for p in module.shared_encoders.parameters()}
    private = {id(p) for p in module.private_encoders.parameters()}
    assert shared and private and not shared & private


def test_objective_equals_a_direct_computation(make_schema, make_batch, monkeypatch):
    """Sum over sources and targets, by hand, in a mosaic with all draws replaced by zero."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    monkeypatch.setattr(
        torch, "randn", lambda *s, **k: torch.zeros(s[0]) if not isinstance(s[0], int) else torch.zeros(*s)
    )
    module = build(make_schema).eval()
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(6, P, generator=g) for m in NAMES}
    present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1]], dtype=torch.bool)
    batch = make_batch(x, present)
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)

    expected = torch.zeros(6)
    for i in range(6):
        for s, source in enumerate(NAMES):
            if not present[i, s]:
                continue
            row = x[source][i : i + 1]
            mean, raw = module.shared_encoders.of(source)(row, None)
            sd = torch.nn.functional.softplus(raw) + 1e-3
            p_mean, p_raw = module.private_encoders.of(source)(row, None)
            p_sd = torch.nn.functional.softplus(p_raw) + 1e-3
            for t, target in enumerate(NAMES):
                if present[i, t]:
                    private = p_mean if t == s else torch.zeros_like(p_mean)
                    eta = module.decoders.of(target)(torch.cat([mean, private], -1), None)
                    location = eta[0, 0]  # likelihoods were not fitted: training mean 0, sd 1, noise sd 1
                    expected[i] += torch.distributions.Normal(location, 1.0).log_prob(x[target][i]).sum()
            q = torch.distributions.Normal(torch.cat([mean, p_mean], -1), torch.cat([sd, p_sd], -1))
            expected[i] -= 0.3 * torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


def test_labels_add_a_weighted_cross_entropy_that_reaches_the_encoders(make_schema, make_batch):
    """Doubling the label weight doubles the term; unknown labels contribute nothing."""
    from dataclasses import replace

    from omicvae.data import CategorySchema

    schema = replace(make_schema(dict.fromkeys(NAMES, P)), labels=CategorySchema("labels", "er", ("neg", "pos")))
    shape, config = Shape(SHARED, dict.fromkeys(NAMES, PRIVATE)), NetworkConfig(n_hidden=8).resolve(5000)
    g = torch.Generator().manual_seed(3)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    labels = torch.tensor([0, 1, -1, 1])
    batch = make_batch(x, torch.ones(4, 3, dtype=torch.bool), labels)
    module = MMVAEPlusPlusModule(schema, config, shape, label_weight=2.0)
    passes = module.passes(module.encode(batch), batch, 0.5)
    term = module.label_term(passes, batch)
    expected = torch.zeros(4)
    for i, one in enumerate(passes):
        z = one.latents[NAMES[(i + 1) % 3]][0, :, :SHARED]
        logits = module.classifier(z)
        for row in (0, 1, 3):
            expected[row] += 2.0 * logits[row].log_softmax(-1)[labels[row]]
    torch.testing.assert_close(term, expected)
    assert gradient(term.sum(), module.shared_encoders.of("a")) > 0
    with pytest.raises(ValueError, match="labels_key"):
        MMVAEPlusPlusModule(make_schema(dict.fromkeys(NAMES, P)), config, shape, label_weight=1.0)


class TestMixturePosterior:
    """The shared posterior is a mixture over the sources that are used."""

    def test_mean_is_the_mean_of_means(self, make_schema, complete):
        module = build(make_schema)
        evidence = module.encode(complete)
        used = torch.tensor([[1, 0, 1]] * 7, dtype=torch.bool)
        q = module.posterior(evidence, complete, used)
        expected = (evidence["a"].location[:, :SHARED] + evidence["c"].location[:, :SHARED]) / 2
        torch.testing.assert_close(q.mean[:, :SHARED], expected)
        torch.testing.assert_close(q.mean[:, SHARED + PRIVATE : SHARED + 2 * PRIVATE], torch.zeros(7, PRIVATE))

    def test_moments_of_draws(self, make_schema, complete):
        """Draws have the mean and variance that are reported (20000 draws: 4 standard errors)."""
        module = build(make_schema)
        q = module.posterior(module.encode(complete), complete, torch.tensor([[1, 1, 0]] * 7, dtype=torch.bool))
        z = q.sample(20_000)
        mean, variance = q.project(torch.eye(z.shape[-1]))
        error = 4 * (variance / 20_000).sqrt()
        assert ((z.mean(0) - mean).abs() < error + 1e-4).all()
        torch.testing.assert_close(z.var(0), variance, rtol=0.08, atol=1e-3)

    def test_density_integrates_and_matches_components(self, make_schema, complete):
        """log_prob equals torch's mixture of the sources times the private posterior."""
        module = build(make_schema)
        evidence = module.encode(complete)
        used = torch.tensor([[1, 1, 0]] * 7, dtype=torch.bool)
        q = module.posterior(evidence, complete, used)
        z = q.sample(4)
        parts = []
        for m in ("a", "b"):
            e = evidence[m]
            parts.append(
                torch.distributions.Normal(e.location[:, :SHARED], e.scale[:, :SHARED])
                .log_prob(z[..., :SHARED])
                .sum(-1)
            )
        expected = torch.logsumexp(torch.stack(parts), 0) - torch.log(torch.tensor(2.0))
        for k, m in enumerate(NAMES):
            block = z[..., SHARED + k * PRIVATE : SHARED + (k + 1) * PRIVATE]
            e = evidence[m]
            own = torch.distributions.Normal(e.location[:, SHARED:], e.scale[:, SHARED:])
            law = own if m != "c" else torch.distributions.Normal(0.0, 1.0)
            expected = expected + law.log_prob(block).sum(-1)
        torch.testing.assert_close(q.log_prob(z), expected, atol=1e-4, rtol=1e-4)

    def test_without_sources_it_is_the_prior(self, make_schema, complete):
        module = build(make_schema)
        q = module.posterior(module.encode(complete), complete, torch.zeros(7, 3, dtype=torch.bool))
        z = q.sample(5)
        torch.testing.assert_close(q.log_prob(z), module.prior_log_prob(z), atol=1e-4, rtol=1e-4)
