"""Modalities that shared latents read and predict along directions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from omicvae.module import ScreenedModule, Shape
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import CROSS, OWN, Observed
from omicvae.stats.shared_directions import Directions

P, K = 6, 2


def directions(seed: int = 0) -> Directions:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(P, K)))[0].astype(np.float32)
    return Directions(basis / 2, 2 * basis.T, np.array([0.9, 0.4]), np.full(P, 0.3))


@pytest.fixture
def module(make_schema) -> ScreenedModule:
    torch.manual_seed(0)
    network = NetworkConfig(n_layers=1, n_hidden=8, dropout=0.0).resolve(100)
    found = ScreenedModule(make_schema({"a": P, "b": P}), network, Shape(2, {"a": 1, "b": 1}))
    for baseline in found.baselines:
        torch.nn.init.normal_(baseline.bias)
    found.set_directions({"a": directions(), "b": None})
    found.begin_first_stage()
    return found


def test_the_shared_part_moves_within_the_directions(module):
    z = torch.randn(1, 7, 3)
    eta = module.decode("a", z, None, torch.full((7,), CROSS))[0, :, 0]
    moved = (eta - module.baselines.of("a").bias[0]).detach()
    into, back = (torch.from_numpy(np.asarray(x)) for x in directions()[:2])
    torch.testing.assert_close(moved @ into @ back, moved)
    assert torch.linalg.matrix_rank(moved) == K
    beside = module.decode("b", z, None, torch.full((7,), CROSS))[0, :, 0].detach()
    assert torch.linalg.matrix_rank(beside - beside.mean(0)) > K


def test_shared_encoders_read_weighted_coordinates(module):
    values = torch.randn(5, P)
    weight = torch.tensor([0.9, 0.4]).sqrt() / 0.65**0.5  # mean square 1
    module.eval()
    inputs = torch.zeros(5, P)
    inputs[:, :K] = values @ torch.from_numpy(directions().into) * weight
    expected = module.shared_encoders.of("a")(inputs, None)
    for found, wanted in zip(module.encode_shared("a", values, None), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_first_stage_scores_coordinates(module):
    with torch.no_grad():
        module.turns.of("a").raw_noise.copy_(torch.linspace(-1, 1, 2 * P).reshape(2, P))
    x, eta, route = torch.randn(5, P), torch.randn(1, 2, 5, 1, P), torch.tensor([[OWN], [CROSS]])
    found = module.log_prob("a", eta, Observed(x, None, None), route)
    into = torch.from_numpy(directions().into)
    likelihood = module.likelihoods.of("a")
    truth = likelihood.encode_transform(Observed(x, None, None)) @ into
    for i, r in enumerate((OWN, CROSS)):
        noise = module.turns.of("a").raw_noise[r, :K].exp()
        expected = Normal(eta[0, i, :, 0] @ into, noise).log_prob(truth).sum(-1)
        torch.testing.assert_close(found[0, i], expected)


def test_values_that_were_not_measured_count_nowhere(module):
    x = torch.randn(4, P)
    gaps = x.clone()
    gaps[:, 0] = torch.nan
    eta, route = torch.randn(1, 1, 4, 1, P), torch.tensor([[OWN]])
    found = module.log_prob("a", eta, Observed(gaps, None, None), route)
    other = eta.clone()
    other[..., 0] += 3.0
    torch.testing.assert_close(module.log_prob("a", other, Observed(gaps, None, None), route), found)
    assert not torch.allclose(
        module.log_prob("a", other, Observed(x, None, None), route),
        module.log_prob("a", eta, Observed(x, None, None), route),
    )


def test_their_noise_is_trained_in_the_first_stage_alone(module):
    assert module.turns.of("a").raw_noise.requires_grad
    module.begin_second_stage()
    assert not module.turns.of("a").raw_noise.requires_grad


def test_loaded_weights_bring_their_directions(module, make_schema):
    network = NetworkConfig(n_layers=1, n_hidden=8, dropout=0.0).resolve(100)
    other = ScreenedModule(make_schema({"a": P, "b": P}), network, Shape(2, {"a": 1, "b": 1}))
    assert other.turned("a") is None
    other.load_state_dict(module.state_dict())
    assert other.turned("a").n == K and other.turned("b") is None
    module.set_directions({})
    assert module.turned("a") is None
