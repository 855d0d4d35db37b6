"""MMVAE: its objective by hand, importance weights, and DReG gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Laplace, Normal
from torch.nn import functional as F

from omicvae.module import MMVAEModule, Shape
from omicvae.module._importance import WeightedPass, importance_weighted_bound
from omicvae.nn import NetworkConfig

NAMES = ("a", "b", "c")
P, D = 4, 2
NOISE = torch.tensor([[0.7, -0.4, 1.1, 0.2], [-0.9, 0.5, 0.3, -1.2], [0.1, 1.4, -0.6, 0.8]])  # (K, coordinates)
PRESENT = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)


def fixed_noise(like: torch.Tensor) -> torch.Tensor:
    """The same draws for every row: they depend on the sample's number and the coordinate."""
    return NOISE[: like.shape[0], None, : like.shape[-1]].expand_as(like)


def build(make_schema, width: int = 0, **kwargs) -> MMVAEModule:
    torch.manual_seed(0)
    shape = Shape(D, dict.fromkeys(NAMES, width))
    schema = make_schema(dict.fromkeys(NAMES, P))
    module = MMVAEModule(schema, NetworkConfig(n_layers=0).resolve(100), shape, **kwargs).eval()
    with torch.no_grad():
        for m in NAMES:
            module.likelihoods.of(m).raw_noise[1] = 0.4  # cross noise, so that the route matters
    return module


@pytest.fixture
def mosaic(make_batch):
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    return x, make_batch(x, PRESENT)


def law(family: str, location: torch.Tensor, sd: torch.Tensor):
    return Normal(location, sd) if family == "normal" else Laplace(location, sd / math.sqrt(2))


class ByHand:
    """The objective of one sample, from torch.distributions alone."""

    def __init__(self, module: MMVAEModule, x: dict[str, torch.Tensor], family: str, K: int) -> None:
        self.module, self.x, self.family, self.K = module, x, family, K
        self.unit = law(family, torch.zeros(()), torch.ones(()))

    def expert(self, encoders, m: str, i: int):
        encoder = encoders.of(m)
        return law(self.family, encoder.linear(self.x[m][i]), F.softplus(encoder.scale_bias) + 1e-3)

    def stratum(self, i: int, source: str, has: list[str], beta: float) -> torch.Tensor:
        """``(K,)`` log weights of a source."""
        module = self.module
        shared = {m: self.expert(module.shared_encoders, m, i) for m in has}
        u = shared[source].mean + shared[source].stddev * NOISE[: self.K, :D]
        mixture = torch.logsumexp(torch.stack([q.log_prob(u).sum(-1) for q in shared.values()]), 0) - math.log(len(has))
        ratio = mixture - self.unit.log_prob(u).sum(-1)
        width, w = module.shape.private[source], torch.zeros(self.K, 0)
        if width:
            q = self.expert(module.private_encoders, source, i)
            w = q.mean + q.stddev * NOISE[: self.K, D : D + width]
            ratio = ratio + (q.log_prob(w) - self.unit.log_prob(w)).sum(-1)
        fit = torch.zeros(self.K)
        for t in has:
            other = NOISE[: self.K, :width] if module.private == "prior" else torch.zeros(self.K, width)
            z = torch.cat([u, w if t == source else other], -1)
            sd = 1.0 if t == source else math.exp(0.4)
            fit = fit + Normal(module.decoders.of(t).linear(z), sd).log_prob(self.x[t][i]).sum(-1)
        return fit - beta * ratio

    def objective(self, beta: float) -> torch.Tensor:
        values = []
        for i in range(len(PRESENT)):
            has = [m for m, p in zip(NAMES, PRESENT[i], strict=True) if p]
            bounds = [torch.logsumexp(self.stratum(i, m, has, beta), 0) - math.log(self.K) for m in has]
            values.append(torch.stack(bounds).mean())
        return torch.stack(values)


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("family", ["normal", "laplace"])
@pytest.mark.parametrize(("width", "private"), [(0, "prior"), (2, "prior"), (2, "zero")])
def test_objective_equals_a_direct_computation(make_schema, mosaic, monkeypatch, K, family, width, private):
    """Mixture density in the denominator, all sources and targets, samples with one to three assays, noise fixed."""
    from omicvae.stats.location_scale import FAMILIES, Family

    patched = Family(FAMILIES[family].standard_log_density, fixed_noise)
    monkeypatch.setitem(FAMILIES, family, patched)
    x, batch = mosaic
    module = build(make_schema, width, private=private, family=family, n_samples=K)
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = module.reduce(passes, module.log_likelihoods(passes, batch), 0.3)
    torch.testing.assert_close(found, ByHand(module, x, family, K).objective(0.3), atol=1e-4, rtol=1e-5)
    if K == 1:
        rec, kl = module.elbo(batch)
        reported = torch.stack(list(rec.values())).sum(0) - kl
        torch.testing.assert_close(reported, ByHand(module, x, family, K).objective(1.0), atol=1e-4, rtol=1e-5)


def test_one_sample_has_ordinary_gradients(make_schema, mosaic, monkeypatch):
    """With K = 1, every parameter's gradient is that of the bound written out by hand, the mixture density included."""
    from omicvae.stats.location_scale import FAMILIES, Family

    monkeypatch.setitem(FAMILIES, "normal", Family(FAMILIES["normal"].standard_log_density, fixed_noise))
    x, batch = mosaic
    module = build(make_schema, 2)
    parameters = [p for n, p in module.named_parameters() if "raw_noise" not in n]
    passes = module.passes(module.encode(batch), batch, 0.5)
    found = torch.autograd.grad(module.reduce(passes, module.log_likelihoods(passes, batch), 0.7).sum(), parameters)
    expected = torch.autograd.grad(ByHand(module, x, "normal", 1).objective(0.7).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


class TestDReG:
    """``x ~ N(theta z, 1)``, ``z ~ N(0, 1)``, ``q = N(phi, .8)`` in one dimension."""

    def one(self, phi: torch.Tensor, theta: torch.Tensor, noise: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(B,)`` bound and ``(K, B)`` latents."""
        z = phi + 0.8 * noise.unsqueeze(-1)
        ratio = Normal(phi.detach(), 0.8).log_prob(z) - Normal(0.0, 1.0).log_prob(z)
        weight = torch.ones(noise.shape[1])
        step = WeightedPass(
            name="a", sources=weight[:, None].bool(), latents={"a": z}, weights={"a": weight}, route={"a": "own"},
            kl={"a": ratio.squeeze(-1)}, draws=z,
        )  # fmt: skip
        fit = Normal(theta * z, 1.0).log_prob(torch.tensor(1.5)).squeeze(-1)
        return importance_weighted_bound(step, {"a": fit}, 1.0), z

    def plain(self, phi: torch.Tensor, theta: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        z = phi + 0.8 * noise
        log_w = Normal(theta * z, 1.0).log_prob(torch.tensor(1.5)) + Normal(0.0, 1.0).log_prob(z)
        return torch.logsumexp(log_w - Normal(phi, 0.8).log_prob(z), 0) - math.log(len(noise))

    def test_gradients_are_the_formula(self):
        """Squared normalised weights for the encoder, normalised weights for the decoder."""
        phi, theta = torch.tensor(0.3, requires_grad=True), torch.tensor(0.9, requires_grad=True)
        noise = torch.tensor([0.5, -1.2, 0.1])[:, None]
        value, z = self.one(phi, theta, noise)
        g_phi, g_theta = torch.autograd.grad(value.sum(), [phi, theta])
        z = z.detach().reshape(-1)
        log_w = (
            Normal(0.9 * z, 1.0).log_prob(torch.tensor(1.5)) + Normal(0.0, 1.0).log_prob(z)
            - Normal(0.3, 0.8).log_prob(z)
        )  # fmt: skip
        share = log_w.softmax(0)
        slope = 0.9 * (1.5 - 0.9 * z) - z + (z - 0.3) / 0.8**2
        torch.testing.assert_close(g_phi, (share.square() * slope).sum())
        torch.testing.assert_close(g_theta, (share * (1.5 - 0.9 * z) * z).sum())
        torch.testing.assert_close(value[0], log_w.logsumexp(0) - math.log(3))

    def test_expected_gradient_is_that_of_the_bound(self):
        """200000 replicates of K = 3: both estimators agree within 4 standard errors, and DReG's varies less."""
        B = 200_000
        theta, noise = torch.tensor(0.9), torch.randn(3, B)
        phi = torch.full((B, 1), 0.3, requires_grad=True)
        value, _ = self.one(phi, theta, noise)
        (dreg,) = torch.autograd.grad(value.sum(), phi)
        flat = torch.full((B,), 0.3, requires_grad=True)
        (plain,) = torch.autograd.grad(self.plain(flat, theta, noise).sum(), flat)
        difference = dreg[:, 0] - plain
        assert difference.mean().abs() < 4 * difference.std() / B**0.5
        assert dreg.var() < plain.var()


def test_encoders_get_no_gradient_through_densities_if_weighted(make_schema, mosaic):
    """K > 1: the log ratio depends on encoders through the draws alone."""
    _, batch = mosaic
    module = build(make_schema, n_samples=3)
    evidence = module.encode(batch)
    for one in module.passes(evidence, batch, 0.5):
        z = one.draws
        (through,) = torch.autograd.grad(one.kl[one.name].sum(), z, retain_graph=True)
        encoder = list(module.shared_encoders.of(one.name).parameters())
        direct = torch.autograd.grad(one.kl[one.name].sum(), encoder, retain_graph=True)
        chained = torch.autograd.grad(z, encoder, grad_outputs=through, retain_graph=True)
        for a, b in zip(direct, chained, strict=True):
            torch.testing.assert_close(a, b)


def test_bound_tightens_with_more_samples(make_schema, make_batch):
    """Burda et al., theorem 1: expected bounds rise with K (1000 copies of each of four samples)."""
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(4, P, generator=g).repeat(1000, 1) for m in NAMES}
    batch = make_batch(x, PRESENT.repeat(1000, 1))
    with torch.no_grad():
        bounds = [-build(make_schema, n_samples=K).objective(batch).loss for K in (1, 3, 20)]
    assert bounds[0] < bounds[1] < bounds[2]
