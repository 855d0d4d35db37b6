"""MMVAE+: its objective by hand, its auxiliary priors, its posterior's components, and a likelihood of all modalities."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Laplace, MultivariateNormal, Normal
from torch.nn import functional as F

from omicvae.module import MMVAEModule, MMVAEPlusModule, Shape
from omicvae.module._bounds import importance_weighted
from omicvae.nn import NetworkConfig
from omicvae.stats.location_scale import FAMILIES, Family

NAMES = ("a", "b", "c")
P, D, WIDTH = 4, 2, 2
LINEAR = NetworkConfig(n_layers=0)
NOISE = torch.tensor([[0.7, -0.4, 1.1, 0.2], [-0.9, 0.5, 0.3, -1.2], [0.1, 1.4, -0.6, 0.8]])  # (K, coordinates)
PRESENT = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
RAW = {"a": torch.tensor([0.9, -0.2]), "b": torch.tensor([-1.0, 0.3]), "c": torch.tensor([0.1, 0.4])}


def fixed_noise(like: torch.Tensor) -> torch.Tensor:
    """The same draws for every row: they depend on the sample's number and the coordinate."""
    return NOISE[: like.shape[0], None, : like.shape[-1]].expand_as(like)


def build(make_schema, config: NetworkConfig = LINEAR, cls=MMVAEPlusModule, **kwargs):
    torch.manual_seed(0)
    module = cls(
        make_schema(dict.fromkeys(NAMES, P)), config.resolve(100), Shape(D, dict.fromkeys(NAMES, WIDTH)), **kwargs
    )
    with torch.no_grad():
        for i, m in enumerate(NAMES):
            module.likelihoods.of(m).raw_noise[1] = 0.4  # cross noise, so that the route matters
            if cls is MMVAEPlusModule:
                module.raw_scales[i].copy_(RAW[m])
    return module.eval()


@pytest.fixture
def mosaic(make_batch):
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    return x, make_batch(x, PRESENT)


@pytest.fixture
def same_draws(monkeypatch):
    for name, family in list(FAMILIES.items()):
        monkeypatch.setitem(FAMILIES, name, Family(family.standard_log_density, fixed_noise))


def losses(module, batch, beta: float = 0.3) -> torch.Tensor:
    passes = module.passes(module.encode(batch), batch, 0.5)
    return module.reduce(passes, module.log_likelihoods(passes, batch), beta)


class ByHand:
    """The objective of the linear module, from torch.distributions alone."""

    def __init__(self, module: MMVAEPlusModule, x: dict[str, torch.Tensor], family: str, K: int) -> None:
        self.module, self.x, self.K = module, x, K
        self.law = (lambda mean, sd: Normal(mean, sd)) if family == "normal" else self.laplace
        self.unit = self.law(torch.zeros(()), torch.ones(()))

    @staticmethod
    def laplace(mean: torch.Tensor, sd: torch.Tensor) -> Laplace:
        return Laplace(mean, sd / math.sqrt(2))

    def expert(self, encoders, m: str, i: int):
        encoder = encoders.of(m)
        return self.law(encoder.linear(self.x[m][i]), F.softplus(encoder.scale_bias) + 1e-3)

    def auxiliary(self, t: str) -> torch.Tensor:
        """Scales proportional to exp(raw), of mean 1, times the fixed draws."""
        weight = self.module.raw_scales[NAMES.index(t)].exp()
        return weight / weight.mean() * NOISE[: self.K, :WIDTH]

    def stratum(self, i: int, source: str, has: list[str], beta: float) -> torch.Tensor:
        """``(K,)`` log weights of a source."""
        shared = {m: self.expert(self.module.shared_encoders, m, i) for m in has}
        private = self.expert(self.module.private_encoders, source, i)
        u = shared[source].mean + shared[source].stddev * NOISE[: self.K, :D]
        w = private.mean + private.stddev * NOISE[: self.K, D : D + WIDTH]
        mixture = torch.logsumexp(torch.stack([q.log_prob(u).sum(-1) for q in shared.values()]), 0) - math.log(len(has))
        ratio = mixture - self.unit.log_prob(u).sum(-1) + (private.log_prob(w) - self.unit.log_prob(w)).sum(-1)
        total = -beta * ratio
        for t in has:
            z = torch.cat([u, w if t == source else self.auxiliary(t)], -1)
            sd = 1.0 if t == source else math.exp(0.4)
            total = total + Normal(self.module.decoders.of(t).linear(z), sd).log_prob(self.x[t][i]).sum(-1)
        return total

    def objective(self, beta: float) -> torch.Tensor:
        values = []
        for i in range(len(PRESENT)):
            has = [m for m, p in zip(NAMES, PRESENT[i], strict=True) if p]
            bounds = [torch.logsumexp(self.stratum(i, m, has, beta), 0) - math.log(self.K) for m in has]
            values.append(torch.stack(bounds).mean())
        return torch.stack(values)


@pytest.mark.parametrize("K", [1, 3])
@pytest.mark.parametrize("family", ["normal", "laplace"])
def test_objective_equals_a_direct_computation(make_schema, mosaic, same_draws, K, family):
    """All sources and targets, samples with one to three assays, scales of auxiliary priors far from 1."""
    x, batch = mosaic
    module = build(make_schema, family=family, n_samples=K)
    by_hand = ByHand(module, x, family, K)
    torch.testing.assert_close(losses(module, batch), by_hand.objective(0.3), atol=1e-4, rtol=1e-5)
    if K == 1:
        rec, kl = module.elbo(batch)
        reported = torch.stack(list(rec.values())).sum(0) - kl
        torch.testing.assert_close(reported, by_hand.objective(1.0), atol=1e-4, rtol=1e-5)


def test_gradients_are_those_of_the_objective(make_schema, mosaic, same_draws):
    """K = 1: of every parameter, scales of auxiliary priors included, with the mixture in the denominator."""
    x, batch = mosaic
    module = build(make_schema)
    parameters = [p for n, p in module.named_parameters() if "raw_noise" not in n]
    found = torch.autograd.grad(losses(module, batch, 0.7).sum(), parameters)
    expected = torch.autograd.grad(ByHand(module, x, "normal", 1).objective(0.7).sum(), parameters)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_scales_of_auxiliary_priors_get_the_bounds_own_gradient(make_schema, mosaic, same_draws):
    """K = 3: DReG changes the gradients of encoders, but not those of what targets draw from."""
    x, batch = mosaic
    module = build(make_schema, n_samples=3)
    found = torch.autograd.grad(losses(module, batch, 0.7).sum(), list(module.raw_scales))
    expected = torch.autograd.grad(ByHand(module, x, "normal", 3).objective(0.7).sum(), list(module.raw_scales))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("K", [1, 3])
def test_with_equal_scales_it_is_mmvae(make_schema, mosaic, same_draws, K):
    """Scales of mean 1 that are equal are 1: the base version with draws from the prior."""
    _, batch = mosaic
    module = build(make_schema, NetworkConfig(n_hidden=8), n_samples=K)
    base = build(make_schema, NetworkConfig(n_hidden=8), MMVAEModule, n_samples=K)
    base.load_state_dict(module.state_dict(), strict=False)
    assert (losses(module, batch) - losses(base, batch))[[0, 1, 3]].abs().min() > 1e-3  # samples with several assays
    with torch.no_grad():
        for raw in module.raw_scales:
            raw.fill_(-1.7)
    torch.testing.assert_close(losses(module, batch), losses(base, batch))


def test_only_predictions_draw_from_auxiliary_priors(make_schema, mosaic):
    """Likelihoods of a target given other sources depend on its scales; own reconstruction and divergences do not."""
    _, batch = mosaic
    module = build(make_schema, NetworkConfig(n_hidden=8))
    passes = module.passes(module.encode(batch), batch, 0.5)

    def slope(value: torch.Tensor, i: int) -> float:
        found = torch.autograd.grad(value.sum(), module.raw_scales[i], retain_graph=True, allow_unused=True)[0]
        return 0.0 if found is None else float(found.abs().max())

    for one, values in zip(passes, module.log_likelihoods(passes, batch), strict=True):
        for i, t in enumerate(NAMES):
            assert (slope(one.weights[t] * values[t], i) == 0) == (t == one.name)
            assert slope(one.kl[one.name], i) == 0
    for m in NAMES:
        torch.testing.assert_close(module.auxiliary_scale(m).mean(), torch.tensor(1.0))


def test_predictions_draw_private_latents_from_the_prior(make_schema, mosaic):
    """20000 draws of an absent assay's private latents: variance 1 within 5 %, whatever the auxiliary scales are."""
    _, batch = mosaic
    module = build(make_schema)
    given = PRESENT & torch.tensor([True, False, True])
    z = module.posterior(module.encode(batch), batch, given).sample(20_000).detach()
    drawn = module.block(z, "b")
    torch.testing.assert_close(drawn.var(0), torch.ones(4, WIDTH), rtol=0.05, atol=0)
    assert drawn.mean(0).abs().max() < 5 / 20_000**0.5


class LinearWorld:
    """``x_m = U_m u + V_m w_m + noise`` of unit variance, ``[U_m, V_m]`` with orthogonal columns: encoders are exact."""

    def __init__(self, module: MMVAEPlusModule) -> None:
        g = torch.Generator().manual_seed(0)
        self.load = {
            m: torch.linalg.qr(torch.randn(P, D + WIDTH, generator=g))[0] * torch.tensor([0.8, 1.3, 1.5, 0.6])
            for m in NAMES
        }
        with torch.no_grad():
            for m in NAMES:
                module.decoders.of(m).linear.weight.copy_(self.load[m])
                module.likelihoods.of(m).raw_noise.zero_()
                precision = 1 + self.load[m].square().sum(0)
                for encoders, block in (
                    (module.shared_encoders, slice(0, D)),
                    (module.private_encoders, slice(D, None)),
                ):
                    encoder, sd = encoders.of(m), precision[block].rsqrt() - 1e-3
                    encoder.linear.weight.copy_(self.load[m].mT[block] / precision[block, None])
                    encoder.linear.bias.zero_()
                    encoder.scale_bias.copy_(sd + torch.log(-torch.expm1(-sd)))

    def log_evidence(self, x: dict[str, torch.Tensor], i: int, has: list[str]) -> torch.Tensor:
        shared = torch.cat([self.load[m][:, :D] for m in has])
        private = torch.block_diag(*(self.load[m][:, D:] for m in has))
        covariance = shared @ shared.mT + private @ private.mT + torch.eye(len(shared))
        return MultivariateNormal(torch.zeros(len(shared)), covariance).log_prob(torch.cat([x[m][i] for m in has]))


def test_components_equal_the_closed_form(make_schema, mosaic):
    """Each source's component is the exact posterior given that assay alone; sources that a sample lacks have no weight."""
    x, batch = mosaic
    module = build(make_schema)
    world = LinearWorld(module)
    q = module.posterior(module.encode(batch), batch, batch.present)
    torch.testing.assert_close(q.weights, PRESENT / PRESENT.sum(1, keepdim=True))
    for k, m in enumerate(NAMES):
        load = world.load[m]
        gain = load.mT @ torch.linalg.inv(load @ load.mT + torch.eye(P))
        mean, variance = x[m] @ gain.mT, torch.diagonal(torch.eye(D + WIDTH) - gain @ load)
        for i in torch.nonzero(PRESENT[:, k]).squeeze(-1).tolist():
            block = module.private_blocks[m]
            location = torch.cat([q.shared.location[k, i], q.private.location[i, block]])
            scale = torch.cat([q.shared.scale[k, i], q.private.scale[i, block]])
            torch.testing.assert_close(location, mean[i], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(scale.square(), variance, atol=1e-4, rtol=1e-4)


def test_likelihood_is_that_of_every_measured_modality(make_schema, mosaic):
    """Equal to the closed form, up to the error of 20000 importance samples, in samples with one to three assays."""
    x, batch = mosaic
    module = build(make_schema)
    world = LinearWorld(module)
    with torch.no_grad():
        found = importance_weighted(module, batch, 20_000).log_likelihood
    for i in range(4):
        has = [m for m, p in zip(NAMES, PRESENT[i], strict=True) if p]
        assert float(found[i] - world.log_evidence(x, i, has)) == pytest.approx(0, abs=0.05)


def test_rows_and_company_do_not_matter(make_schema, make_batch, mosaic, same_draws):
    """A row's loss and latents are the same in any order and in any part of the batch, alone as well."""
    x, batch = mosaic
    module = build(make_schema, NetworkConfig(n_hidden=8))
    loss, mean = losses(module, batch), module.posterior(module.encode(batch), batch, PRESENT).mean
    for rows in ([3, 1, 0, 2], [2], [1, 3]):
        part = make_batch({m: v[rows] for m, v in x.items()}, PRESENT[rows])
        torch.testing.assert_close(losses(module, part), loss[rows], atol=1e-4, rtol=1e-5)
        found = module.posterior(module.encode(part), part, PRESENT[rows]).mean
        torch.testing.assert_close(found, mean[rows], atol=1e-5, rtol=1e-5)


def test_one_modality_is_an_ordinary_vae(make_schema, make_batch, same_draws):
    """Without other modalities nothing is predicted: objective and gradients are those of its own reconstruction."""
    module = MMVAEPlusModule(make_schema({"a": P}), LINEAR.resolve(100), Shape(D, {"a": WIDTH})).eval()
    x = torch.randn(3, P, generator=torch.Generator().manual_seed(5))
    batch = make_batch({"a": x}, torch.ones(3, 1, dtype=torch.bool))
    found = losses(module, batch, 1.0)
    for i in range(3):
        e = module.encode(batch)["a"]
        q = Normal(e.location[i], e.scale[i])
        z = q.mean + q.stddev * NOISE[0]
        fit = Normal(module.decoders.of("a").linear(z), 1.0).log_prob(x[i]).sum()
        torch.testing.assert_close(found[i], fit + (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum())
    assert torch.isfinite(torch.autograd.grad(found.sum(), list(module.shared_encoders.parameters()))[0]).all()


@pytest.mark.parametrize("rows", [[0], [2], [0, 1, 2, 3]])
def test_single_missing_values_are_left_out(make_schema, make_batch, mosaic, rows):
    """NaN elements and batches of one sample: loss and gradients stay numbers."""
    x, _ = mosaic
    holed = {m: v[rows].clone() for m, v in x.items()}
    holed["b"][0, 1] = torch.nan
    module = build(make_schema, NetworkConfig(n_hidden=8), n_samples=3).train()
    loss = module.objective(make_batch(holed, PRESENT[rows])).loss
    loss.backward()
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters())
