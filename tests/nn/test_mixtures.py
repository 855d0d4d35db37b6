from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.distributions import Normal, Poisson

from omicvae.nn import FeatureMixture, TransformedResiduals
from omicvae.nn._mixtures import ByFeature

GRID = 41


def normal_quantiles(n_columns: int = 1) -> Tensor:
    """Of a standard normal distribution, the outermost such that the tail has its mean."""
    inner = stats.norm.ppf(np.linspace(0, 1, GRID)[1:-1])
    tail = stats.norm.pdf(inner[-1]) * (GRID - 1)
    end = 2 * tail - inner[-1]
    return torch.tensor(np.concatenate([[-end], inner, [end]]), dtype=torch.float32)[:, None].repeat(1, n_columns)


def residuals(location: Tensor, deviation: Tensor, *, n_draws: int = 1, back=lambda v: v, size=None, discrete=False):
    return TransformedResiduals(
        location, deviation, normal_quantiles(), back=back, size=size, discrete=discrete, n_draws=n_draws
    )


def test_residuals_on_the_scale_of_the_data_are_the_normal_distribution_they_were_taken_from():
    location, deviation = torch.tensor([[[0.0, 2.0], [5.0, -1.0]]]), torch.tensor([0.5, 3.0])
    d = residuals(location, deviation, n_draws=4)
    torch.testing.assert_close(d.mean, location.expand(4, 2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(d.stddev, deviation.expand(4, 2, 2), rtol=0.01, atol=0)  # 41 quantiles
    drawn = d.sample((20_000,))
    # 80,000 draws: a Kolmogorov distance of .007 is exceeded once in a thousand; straight lines between quantiles .002
    for i, j in ((0, 0), (1, 1)):
        expected = stats.norm(location[0, i, j].item(), deviation[j].item())
        assert stats.kstest(drawn[:, :, i, j].reshape(-1).numpy(), expected.cdf).statistic < 0.009


@pytest.mark.parametrize("sd", [0.2, 0.5])
@pytest.mark.parametrize("sized", [False, True])
def test_moments_of_curved_maps_are_those_of_log_normal_values(sd, sized):
    size = torch.tensor([[3.0], [0.5]]) if sized else None
    d = residuals(torch.full((1, 1, 3), 2.0), torch.full((3,), sd), back=torch.exp, size=size, n_draws=2)
    mean, deviation = np.exp(2 + sd**2 / 2), np.exp(2 + sd**2 / 2) * np.sqrt(np.expm1(sd**2))
    factor = torch.ones(2, 1) if size is None else size
    torch.testing.assert_close(d.mean, (factor * mean)[..., None].expand(2, 1, 3), rtol=0.005, atol=0)
    torch.testing.assert_close(d.stddev, (factor * deviation)[..., None].expand(2, 1, 3), rtol=0.03, atol=0)


@pytest.mark.parametrize("n_locations", [1, 5])
@pytest.mark.parametrize("columns", [1, 3])
def test_draws_have_the_moments_that_are_reported(n_locations, columns):
    """Skew quantiles of each feature's own, another location and size for every component."""
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(GRID, columns, generator=generator).exp().sort(0).values - 1.5
    location, size = torch.randn(n_locations, 2, 3, generator=generator), torch.rand(5, 2, generator=generator) + 0.5
    deviation = torch.tensor([0.1, 0.5, 1.0])
    d = TransformedResiduals(
        location, deviation, table, back=torch.nn.functional.softplus, size=size, discrete=False, n_draws=5
    )
    assert d.batch_shape == d.mean.shape == d.variance.shape == d.sample().shape == (5, 2, 3)
    drawn = d.sample((40_000,))
    assert drawn.shape == (40_000, 5, 2, 3)
    # standard errors of a mean: sd / 200; of a sd: 1 % or so with these tails; midpoints instead of lines: 2 %
    assert ((drawn.mean(0) - d.mean).abs() < 0.025 * d.stddev).all()
    torch.testing.assert_close(drawn.std(0), d.stddev, rtol=0.05, atol=0)


def test_whole_numbers():
    d = residuals(
        torch.full((1, 4, 2), 3.0), torch.ones(2), back=torch.exp, size=torch.ones(6, 4), discrete=True, n_draws=6
    )
    drawn = d.sample()
    assert torch.equal(drawn, drawn.round())
    assert d.support.is_discrete
    assert not residuals(torch.zeros(1, 1, 1), torch.ones(1)).support.is_discrete


def test_draws_of_different_samples_and_features_are_independent():
    drawn = residuals(torch.zeros(1, 2, 2), torch.ones(2)).sample((20_000,))[:, 0].reshape(-1, 4)
    off_diagonal = np.corrcoef(drawn.numpy().T) - np.eye(4)
    assert np.abs(off_diagonal).max() < 0.036  # five standard errors


def test_nothing_to_predict():
    d = residuals(torch.zeros(1, 0, 3), torch.ones(3), n_draws=2)
    assert d.mean.shape == d.variance.shape == d.sample().shape == (2, 0, 3)


# ---------------------------------------------------------------------- features of different kinds


def test_features_keep_their_own_distribution_and_place():
    columns = torch.tensor([2, 0]), torch.tensor([1])
    parts = Normal(torch.tensor([[[20.0, 0.0]]]), torch.tensor([2.0, 1.0])), Poisson(torch.tensor([[[10.0]]]))
    d = ByFeature(parts, columns)
    assert d.batch_shape == (1, 1, 3)
    assert d.mean.flatten().tolist() == [0, 10, 20]
    assert d.variance.flatten().tolist() == [1, 10, 4]
    drawn = d.sample((4000,)).reshape(4000, 3)
    assert torch.equal(drawn[:, 1], drawn[:, 1].round())
    torch.testing.assert_close(drawn.mean(0), d.mean.flatten(), atol=0.25, rtol=0)  # five standard errors


# ---------------------------------------------------------------------- mixtures


def two_normals(weights: Tensor, k: int = 1, n: int = 1) -> FeatureMixture:
    p = weights.shape[1]
    components = [Normal(torch.full((k, n, p), m), torch.full((k, n, p), s)) for m, s in ((-3.0, 0.5), (5.0, 1.0))]
    return FeatureMixture(components, weights)


def test_moments_are_those_of_a_mixture():
    w = torch.tensor([[1.0, 0.7, 0.25, 0.0], [0.0, 0.3, 0.75, 1.0]])
    d = two_normals(w, 2, 3)
    mean = -3 * w[0] + 5 * w[1]
    second = w[0] * (9 + 0.25) + w[1] * (25 + 1)
    torch.testing.assert_close(d.mean, mean.expand(2, 3, 4))
    torch.testing.assert_close(d.variance, (second - mean.square()).expand(2, 3, 4))
    drawn = d.sample((20_000,)).flatten(0, 2)
    # 120,000 draws of a sd of at most 4.2: five standard errors
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close((drawn > 0).double().mean(0), w[1].double(), atol=0.03, rtol=0)


def test_three_components():
    weights = torch.tensor([[0.5, 0.2], [0.0, 0.3], [0.5, 0.5]])
    components = [Normal(torch.full((1, 1, 2), m), torch.full((1, 1, 2), 0.1)) for m in (0.0, 10.0, 20.0)]
    d = FeatureMixture(components, weights)
    torch.testing.assert_close(d.mean.flatten(), torch.tensor([10.0, 13.0]))
    share = torch.stack([((d.sample((20_000,)) - m).abs() < 1).double().mean(0).flatten() for m in (0, 10, 20)])
    torch.testing.assert_close(share, weights.double(), atol=0.02, rtol=0)  # five standard errors


def test_features_of_equal_weight_come_from_the_same_component():
    drawn = two_normals(torch.tensor([[0.6, 0.6, 0.3], [0.4, 0.4, 0.7]])).sample((5000,)).reshape(-1, 3)
    second = drawn > 0
    assert torch.equal(second[:, 0], second[:, 1])
    assert (second[:, 2] | ~second[:, 0]).all()  # with a larger weight, whenever those with a smaller one do
    samples = two_normals(torch.full((2, 1), 0.5), n=2).sample((5000,)).reshape(-1, 2) > 0
    assert abs(np.corrcoef(samples.numpy().T)[0, 1]) < 0.08  # but every sample for itself


def test_a_component_without_weight_is_not_drawn_from():
    broken = Normal(torch.full((1, 1, 2), torch.nan), torch.ones(1, 1, 2), validate_args=False)
    good = Normal(torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    d = FeatureMixture([good, broken], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
    assert len(d.components) == 1
    assert torch.isfinite(d.sample((50,))).all()
    assert torch.equal(d.mean, good.mean)
    assert torch.equal(d.variance, good.variance)


def test_a_mixture_of_counts_is_discrete():
    rate = torch.full((3, 2, 4), 2.0)
    d = FeatureMixture([Poisson(rate), Poisson(10 * rate)], torch.full((2, 4), 0.5))
    assert d.support.is_discrete
    assert d.batch_shape == (3, 2, 4)
    assert (d.sample().frac() == 0).all()
