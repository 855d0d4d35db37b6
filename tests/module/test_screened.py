"""Screened MMVAE++: both stages by hand, what gradients reach, and what a prediction rests on."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from omicvae.module import ScreenedModule, Shape
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import CROSS, OWN

NAMES, P, D = ("a", "b"), 4, 2
OPEN = {"a": torch.tensor([0.5, 0.0, 1.0, 0.0]), "b": torch.tensor([0.0, 0.8, 0.8, 0.8])}


@pytest.fixture
def module(make_schema) -> ScreenedModule:
    torch.manual_seed(0)
    found = ScreenedModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_layers=0).resolve(100), Shape(D, {"a": 1, "b": 2})
    )
    found.set_gates(OPEN)
    for baseline in found.baselines:
        torch.nn.init.normal_(baseline.bias)
    return found.train()


@pytest.fixture
def batch(make_batch):
    g = torch.Generator().manual_seed(1)
    present = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 1], [1, 1]], dtype=torch.bool)
    return make_batch({m: torch.randn(5, P, generator=g) for m in NAMES}, present)


def constant_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))


def by_hand(module: ScreenedModule, batch, stage: int) -> torch.Tensor:
    """The objective of a sample at a time, from the equations."""
    total = torch.zeros(batch.n_samples)
    gates = {m: OPEN[m] / OPEN[m][OPEN[m] > 0].square().mean().sqrt() for m in NAMES}
    x = {m: torch.zeros(batch.n_samples, P).index_copy(0, batch.rows[m], batch.x[m]) for m in NAMES}

    def posterior(encoder, values):
        location, raw = encoder(values[None], None)
        return Normal(location[0], torch.nn.functional.softplus(raw[0]) + 1e-3)

    for i in range(batch.n_samples):
        for s_index, s in enumerate(NAMES):
            if not batch.present[i, s_index]:
                continue
            q = posterior(module.shared_encoders.of(s), x[s][i] * gates[s])
            z = q.mean + 0.6 * q.stddev
            value = -kl_divergence(q, Normal(0.0, 1.0)).sum()
            own = posterior(module.private_encoders.of(s), x[s][i])
            if stage == 2:
                value = value - kl_divergence(own, Normal(0.0, 1.0)).sum()
            for t_index, t in enumerate(NAMES):
                if not batch.present[i, t_index]:
                    continue
                mean = torch.where(gates[t] > 0, module.decoders.of(t)(z, None)[0], module.baselines.of(t).bias[0])
                if stage == 2 and s == t:
                    effect = module.private_decoders.of(t)
                    w = own.mean + 0.6 * own.stddev
                    centre = effect(getattr(module, f"draws_{t_index}"), None).mean(0)[0]
                    mean = mean + effect(w, None)[0] - centre
                route = torch.tensor(OWN if s == t else CROSS)
                observed = module.observed(batch, t)
                row = int((batch.rows[t] == i).nonzero())
                likelihood = module.likelihoods.of(t)
                density = likelihood.log_prob_features(
                    mean[None, None], type(observed)(observed.x[row : row + 1], None, None), route
                )[0]
                value = value + (density * (gates[t] > 0) if stage == 1 else density).sum()
            total[i] = total[i] + value
    return total.mean()


@pytest.mark.parametrize("stage", [1, 2])
def test_objective_equals_the_equations(module, batch, monkeypatch, stage) -> None:
    constant_noise(monkeypatch)
    module.first_stage = stage == 1
    torch.testing.assert_close(module.objective(batch).loss, -by_hand(module, batch, stage), rtol=1e-5, atol=1e-5)


def test_first_stage_trains_what_is_shared_and_the_second_what_is_left(module, batch) -> None:
    module.first_stage = True
    module.objective(batch).loss.backward()
    for networks in (module.private_encoders, module.private_decoders, module.baselines):
        assert all(p.grad is None or not p.grad.any() for p in networks.parameters())
    closed = OPEN["a"] == 0
    assert not module.decoders.of("a").linear.weight.grad[closed].any()
    assert not module.shared_encoders.of("a").linear.weight.grad[:, closed].any()
    assert module.shared_encoders.of("a").linear.weight.grad[:, ~closed].any()
    module.zero_grad()
    module.begin_second_stage()
    module.objective(batch).loss.backward()
    assert all(p.grad is None for p in module.shared_encoders.parameters())
    for networks in (module.decoders, module.private_encoders, module.private_decoders, module.baselines):
        assert all(p.grad is not None and p.grad.any() for p in networks.parameters() if p.requires_grad)
    biases = [module.private_decoders.of(m).linear.bias for m in module.private_decoders.names]
    assert not any(b.requires_grad for b in biases)  # centring leaves nothing of them


def test_predictions_do_not_depend_on_private_latents(module) -> None:
    z = torch.randn(6, 3, D + 1)
    other = torch.cat([z[..., :D], torch.randn(6, 3, 1)], -1)
    cross = [module.decode("a", v, None, torch.tensor(CROSS)) for v in (z, other)]
    torch.testing.assert_close(*cross)
    own = [module.decode("a", v, None, torch.tensor(OWN)) for v in (z, other)]
    assert (own[0] - own[1]).abs().max() > 1e-4
    closed = OPEN["a"] == 0
    torch.testing.assert_close(cross[0][..., closed], module.baselines.of("a").bias[:, closed].expand(6, 3, -1, -1))


@pytest.mark.parametrize("routes", [(OWN, CROSS), (CROSS, OWN), (CROSS, CROSS), (OWN,)])
def test_training_decodes_the_effect_of_the_own_pass_alone(module, routes) -> None:
    module.begin_second_stage()
    z, route = torch.randn(4, len(routes), 5, D + 1), torch.tensor(routes)[:, None]
    found = [module.train(mode).decode("a", z, None, route) for mode in (True, False)]
    torch.testing.assert_close(*found)


def test_private_effects_have_mean_zero_under_their_prior(module) -> None:
    """Averaged over the draws that centre it, the own decoding is the cross one."""
    draws = module.draws_1
    z = torch.cat([torch.ones(len(draws), D) * 0.3, draws], -1)
    own, cross = (module.decode("b", z, None, torch.tensor(r)).mean(0) for r in (OWN, CROSS))
    torch.testing.assert_close(own, cross, atol=1e-6, rtol=1e-5)


def test_a_screen_that_nothing_passes_opens_every_gate(module) -> None:
    module.set_gates({"a": torch.zeros(P)})
    torch.testing.assert_close(module.gate("a"), torch.ones(P))


def test_cross_modal_loss_is_of_pairs_only(module, batch, make_batch) -> None:
    """Three of five samples have both assays: six predictions; samples with one assay change nothing."""
    module.first_stage = True
    module.eval()
    loss, n = module.cross_modal_loss(batch)
    assert n == 6
    keep = batch.present.all(1)
    x = {m: torch.zeros(5, P).index_copy(0, batch.rows[m], batch.x[m])[keep] for m in NAMES}
    alone, m = module.cross_modal_loss(make_batch(x, torch.ones(3, 2, dtype=torch.bool)))
    assert m == 6
    torch.testing.assert_close(loss, alone, rtol=1e-3, atol=1e-3)


def test_loaded_weights_bring_their_open_gates(module, make_schema):
    other = ScreenedModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_layers=0).resolve(100), Shape(D, {"a": 1, "b": 2})
    )
    assert other.passed("a") is None
    other.load_state_dict(module.state_dict())
    assert other.passed("a").tolist() == [0, 2] and other.passed("b").tolist() == [1, 2, 3]
