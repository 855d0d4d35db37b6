from __future__ import annotations

import pytest
import torch

from omicvae.stats.quantiles import central_interval, predictive_quantiles


def draws(n_draws: int, *shape: int) -> torch.Tensor:
    return torch.randn(n_draws, *shape, generator=torch.Generator().manual_seed(0)).exp()


@pytest.mark.parametrize("n_draws", [19, 50, 100])
def test_limits_are_predictive_quantiles_at_each_features_level(n_draws):
    levels, x = (0.9, 0.5, 0.777, 0.8), draws(n_draws, 3, 4)
    lower, upper = central_interval(x, torch.tensor(levels))
    for j, level in enumerate(levels):
        expected = predictive_quantiles(x[..., j], ((1 - level) / 2, (1 + level) / 2))
        torch.testing.assert_close(torch.stack([lower[:, j], upper[:, j]]), expected, rtol=1e-4, atol=1e-5)


def test_levels_that_draws_cannot_resolve_give_their_range():
    x = draws(20, 2, 3)
    lower, upper = central_interval(x, torch.tensor([0.99, 1.0, 1.3]))
    torch.testing.assert_close(lower, x.amin(0))
    torch.testing.assert_close(upper, x.amax(0))


def test_level_zero_is_the_median():
    x = draws(21, 2, 2)
    for limit in central_interval(x, torch.tensor([0.0, -0.2])):
        torch.testing.assert_close(limit, x.median(0).values)


def test_intervals_of_larger_levels_hold_those_of_smaller_ones():
    x = draws(37, 50, 1).expand(-1, -1, 20)
    lower, upper = central_interval(x, torch.linspace(0, 1, 20))
    assert (lower.diff(dim=1) <= 0).all()
    assert (upper.diff(dim=1) >= 0).all()


def test_order_of_draws_does_not_matter_and_input_is_left_alone():
    x = draws(40, 2, 3)
    before, level = x.clone(), torch.tensor([0.9, 0.5, 0.2])
    first = central_interval(x, level)
    torch.testing.assert_close(x, before, rtol=0, atol=0)
    torch.testing.assert_close(central_interval(x.flip(0), level), first)


def test_one_draw_and_whole_numbers():
    one = torch.tensor([[[3, 7]]])
    for limit in central_interval(one, torch.tensor([0.9, 0.1])):
        assert limit.tolist() == [[3.0, 7.0]]
    lower, upper = central_interval(torch.arange(1, 4)[:, None, None], torch.tensor([0.25]))
    assert (lower.item(), upper.item()) == (1.5, 2.5)


def test_no_samples():
    lower, upper = central_interval(torch.zeros(10, 0, 3), torch.full((3,), 0.9))
    assert lower.shape == upper.shape == (0, 3)
