from __future__ import annotations

import numpy as np
import pytest
import torch

from omicvae.stats.quantiles import draws_needed, predictive_quantiles


@pytest.mark.parametrize("n_draws", [19, 20, 57, 100])
def test_equals_weibull_quantiles_of_numpy(n_draws):
    draws = torch.randn(n_draws, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    probabilities = (0.05, 0.1, 0.5, 0.731, 0.95)
    expected = np.quantile(draws.numpy(), probabilities, axis=0, method="weibull")
    np.testing.assert_allclose(predictive_quantiles(draws, probabilities), expected, rtol=1e-12)


@pytest.mark.parametrize(("level", "n_draws"), [(0.9, 19), (0.9, 39), (0.8, 9), (0.5, 3)])
def test_interval_holds_a_new_draw_with_its_nominal_probability(level, n_draws):
    # Exact for any continuous distribution; 200,000 trials have a standard error of at most 0.0011, five are allowed.
    draws = torch.randn(n_draws + 1, 200_000, generator=torch.Generator().manual_seed(1)).exp()
    low, high = predictive_quantiles(draws[1:], ((1 - level) / 2, 1 - (1 - level) / 2))
    assert ((draws[0] >= low) & (draws[0] <= high)).double().mean().item() == pytest.approx(level, abs=0.0056)


def test_order_of_draws_and_monotone_maps_do_not_matter():
    generator = torch.Generator().manual_seed(2)
    draws = torch.randn(39, 5, generator=generator)
    low_high = predictive_quantiles(draws, (0.025, 0.975))
    shuffled = draws[torch.randperm(39, generator=generator)]
    torch.testing.assert_close(predictive_quantiles(shuffled, (0.025, 0.975)), low_high)
    torch.testing.assert_close(predictive_quantiles(draws.exp(), (0.025, 0.975)), low_high.exp())


def test_integer_draws():
    assert predictive_quantiles(torch.arange(1, 4)[:, None], (0.25, 0.375)).flatten().tolist() == [1.0, 1.5]


@pytest.mark.parametrize("level", [0.5, 0.8, 0.85, 0.9, 0.95, 0.975, 0.99, 0.999])
def test_draws_needed_is_the_least_number_that_works(level):
    needed = draws_needed(level)
    probabilities = ((1 - level) / 2, 1 - (1 - level) / 2)
    assert predictive_quantiles(torch.rand(needed, 2), probabilities).shape == (2, 2)
    with pytest.raises(ValueError, match=f"{needed - 1} draws .* at least {needed} are needed"):
        predictive_quantiles(torch.rand(needed - 1, 2), probabilities)


def test_draws_needed_of_common_levels():
    assert [draws_needed(level) for level in (0.8, 0.9, 0.95, 0.99)] == [9, 19, 39, 199]


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, 2.0])
def test_probabilities_outside_the_open_unit_interval(bad):
    with pytest.raises(ValueError, match="between 0 and 1"):
        predictive_quantiles(torch.rand(10, 1), (bad,))
    with pytest.raises(ValueError, match="between 0 and 1"):
        draws_needed(bad)
