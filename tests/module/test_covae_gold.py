"""CoVAE on linear-Gaussian data, where every posterior has a closed form."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from omicvae.module import CoVAEModule
from omicvae.nn import NetworkConfig
from omicvae.stats.gaussian import standardise_blocks

D, P, M = 3, 6, 4
NAMES = ("a", "b", "c", "d")
SUBSETS = [subset for size in range(1, M + 1) for subset in combinations(range(M), size)]


class LinearWorld:
    """``x_m = W_m z_m + noise`` with diagonal noise and correlated ``z``, everything in float64."""

    def __init__(self) -> None:
        g = torch.Generator().manual_seed(0)
        factor = torch.randn(M * D, M * D, generator=g, dtype=torch.float64)
        self.sigma = standardise_blocks(factor @ factor.mT + 4 * torch.eye(M * D), [D] * M)
        self.W, self.psi = {}, {}
        for m in NAMES:
            psi = 0.2 + torch.rand(P, generator=g, dtype=torch.float64)
            raw = torch.randn(P, D, generator=g, dtype=torch.float64)
            # the basis of z_m in which W' Psi^-1 W is diagonal: diagonal potentials are then exact
            Q, _ = torch.linalg.qr(raw / psi.sqrt()[:, None])
            self.W[m] = psi.sqrt()[:, None] * Q * torch.tensor([0.6, 1.3, 2.5], dtype=torch.float64)
            self.psi[m] = psi

    def closed_form(self, x: dict[str, torch.Tensor], observed: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """Condition the joint Gaussian of (z, x_O) on x_O: no potentials, no precision matrices of z."""
        load = torch.zeros(P * len(observed), M * D, dtype=torch.float64)
        for k, i in enumerate(observed):
            load[k * P : (k + 1) * P, i * D : (i + 1) * D] = self.W[NAMES[i]]
        noise = torch.cat([self.psi[NAMES[i]] for i in observed])
        S_xx = load @ self.sigma @ load.mT + torch.diag(noise)
        gain = self.sigma @ load.mT @ torch.linalg.inv(S_xx)
        stacked = torch.cat([x[NAMES[i]] for i in observed], 1)
        return stacked @ gain.mT, self.sigma - gain @ load @ self.sigma


@pytest.fixture(scope="module")
def world() -> LinearWorld:
    return LinearWorld()


def set_weights(module: CoVAEModule, world: LinearWorld) -> None:
    """Encoders whose potentials are the likelihoods of the linear model."""
    with torch.no_grad():
        for m in NAMES:
            precision = (world.W[m].mT / world.psi[m] * world.W[m].mT).sum(1)
            weight = (world.W[m].mT / world.psi[m]) / precision[:, None]
            encoder = module.encoders.of(m)
            encoder.linear.weight.copy_(weight)
            encoder.linear.bias.zero_()
            raw = precision - 1e-4  # the module adds the least precision
            encoder.scale_bias.copy_(raw + torch.log(-torch.expm1(-raw)))
        module.set_prior(world.sigma)


@pytest.fixture
def module(world, make_schema) -> CoVAEModule:
    made = CoVAEModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_layers=0).resolve(100), dict.fromkeys(NAMES, D)
    )
    set_weights(made, world)
    return made.eval()


@pytest.mark.parametrize("observed", SUBSETS, ids=lambda s: "".join(NAMES[i] for i in s))
def test_posterior_equals_the_closed_form(module, world, make_batch, observed):
    """All 15 subsets of four modalities: posterior mean and covariance, to 1e-4 in float32."""
    g = torch.Generator().manual_seed(1)
    x = {m: torch.randn(5, P, generator=g, dtype=torch.float64) for m in NAMES}
    present = torch.zeros(5, M, dtype=torch.bool)
    present[:, list(observed)] = True
    batch = make_batch({m: v.float() for m, v in x.items()}, present)
    found = module.posterior(module.encode(batch), batch, present).gaussian
    mean, covariance = world.closed_form(x, observed)
    torch.testing.assert_close(found.mean.double(), mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.covariance().double(), covariance.expand(5, -1, -1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("observed", [(0,), (1, 3), (0, 1, 2, 3)])
def test_given_equals_not_having(module, make_batch, observed):
    """Conditioning on a subset of what is there equals a sample that has only that subset."""
    g = torch.Generator().manual_seed(2)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    everything = torch.ones(4, M, dtype=torch.bool)
    part = torch.zeros_like(everything)
    part[:, list(observed)] = True
    full, packed = make_batch(x, everything), make_batch(x, part)
    given = module.posterior(module.encode(full), full, part).gaussian
    alone = module.posterior(module.encode(packed), packed, part).gaussian
    torch.testing.assert_close(given.mean, alone.mean)
    torch.testing.assert_close(given.precision_tril, alone.precision_tril)


def test_joint_divergence_equals_torch(module, make_batch):
    """The KL of the joint pass equals torch's between two full Gaussians."""
    g = torch.Generator().manual_seed(3)
    x = {m: torch.randn(4, P, generator=g) for m in NAMES}
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 1]], dtype=torch.bool)
    batch = make_batch(x, present)
    joint = module.passes(module.encode(batch), batch, 1.0)[0]
    q = module.posterior(module.encode(batch), batch, present).gaussian
    reference = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.mean.double(), covariance_matrix=q.covariance().double()),
        torch.distributions.MultivariateNormal(torch.zeros(M * D).double(), covariance_matrix=module.prior_covariance),
    )
    torch.testing.assert_close(joint.kl["joint"][0].double(), reference, atol=1e-3, rtol=1e-4)


def deterministic_loss(module: CoVAEModule, batch, monkeypatch) -> torch.Tensor:
    """Per-sample objective with every random draw replaced by zero, so that values can be compared exactly."""
    monkeypatch.setattr(
        torch, "randn", lambda *s, **k: torch.zeros(*(s[0] if len(s) == 1 and not isinstance(s[0], int) else s))
    )
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    passes = module.passes(module.encode(batch), batch, 0.2)
    return module.reduce(passes, module.log_likelihoods(passes, batch), 0.7)


def test_loss_of_a_sample_does_not_depend_on_its_company(module, make_batch, monkeypatch):
    """Row order, batch size and unrelated samples leave every sample's objective as it was."""
    g = torch.Generator().manual_seed(4)
    x = {m: torch.randn(8, P, generator=g) for m in NAMES}
    present = torch.rand(8, M, generator=g) < 0.6
    present[:, 0] |= ~present.any(1)
    whole = deterministic_loss(module, make_batch(x, present), monkeypatch)
    order = torch.randperm(8, generator=g)
    shuffled = deterministic_loss(module, make_batch({m: v[order] for m, v in x.items()}, present[order]), monkeypatch)
    torch.testing.assert_close(shuffled, whole[order], atol=1e-4, rtol=1e-5)
    for i in range(8):
        alone = deterministic_loss(
            module, make_batch({m: v[i : i + 1] for m, v in x.items()}, present[i : i + 1]), monkeypatch
        )
        torch.testing.assert_close(alone, whole[i : i + 1], atol=1e-4, rtol=1e-5)


def test_modality_order_is_immaterial(world, make_schema, make_batch, monkeypatch):
    """The same model with its modalities registered in another order has the same objective and posterior."""
    g = torch.Generator().manual_seed(5)
    x = {m: torch.randn(6, P, generator=g) for m in NAMES}
    present = torch.ones(6, M, dtype=torch.bool)
    present[0, 1] = present[3, 2] = False
    order = [2, 0, 3, 1]
    config = NetworkConfig(n_layers=0).resolve(100)
    first = CoVAEModule(make_schema(dict.fromkeys(NAMES, P)), config, dict.fromkeys(NAMES, D)).eval()
    set_weights(first, world)
    names = [NAMES[i] for i in order]
    second = CoVAEModule(make_schema(dict.fromkeys(names, P)), config, dict.fromkeys(names, D)).eval()
    for group in ("encoders", "decoders"):
        for m in NAMES:
            getattr(second, group).of(m).load_state_dict(getattr(first, group).of(m).state_dict())
    take = torch.cat([torch.arange(i * D, (i + 1) * D) for i in order])
    second.set_prior(world.sigma[take][:, take])
    one, two = make_batch(x, present), make_batch({m: x[m] for m in names}, present[:, order])
    a = first.posterior(first.encode(one), one, one.present).gaussian
    b = second.posterior(second.encode(two), two, two.present).gaussian
    torch.testing.assert_close(b.mean, a.mean[:, take], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        deterministic_loss(second, two, monkeypatch), deterministic_loss(first, one, monkeypatch), atol=1e-3, rtol=1e-5
    )


def test_importance_weighted_bound_equals_the_marginal_likelihood(world, make_schema, make_batch):
    """In the linear model the proposal is the exact posterior, so the bound is the likelihood, whatever the batch."""
    from omicvae.module._bounds import importance_weighted

    config = NetworkConfig(n_layers=0).resolve(100)
    module = CoVAEModule(make_schema(dict.fromkeys(NAMES, P)), config, dict.fromkeys(NAMES, D)).eval()
    set_weights(module, world)
    with torch.no_grad():
        for m in NAMES:
            module.decoders.of(m).linear.weight.copy_(world.W[m])
            module.decoders.of(m).linear.bias.zero_()
            module.likelihoods.of(m).raw_noise.copy_(0.5 * world.psi[m].log().expand(2, -1))
    g = torch.Generator().manual_seed(6)
    x = {m: torch.randn(3, P, generator=g, dtype=torch.float64) for m in NAMES}
    present = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=torch.bool)
    batch = make_batch({m: v.float() for m, v in x.items()}, present)
    with torch.no_grad():
        found = importance_weighted(module, batch, 50).log_likelihood
    for i in range(3):
        seen = [k for k in range(M) if present[i, k]]
        load = torch.block_diag(*(world.W[NAMES[k]] for k in seen))
        at = torch.cat([torch.arange(k * D, (k + 1) * D) for k in seen])
        covariance = load @ world.sigma[at][:, at] @ load.mT + torch.diag(
            torch.cat([world.psi[NAMES[k]] for k in seen])
        )
        exact = torch.distributions.MultivariateNormal(
            torch.zeros(P * len(seen)).double(), covariance_matrix=covariance
        ).log_prob(torch.cat([x[NAMES[k]][i] for k in seen]))
        # float32 sums over 24 features; every importance weight is the same number up to rounding
        assert found[i].item() == pytest.approx(exact.item(), abs=5e-3)
