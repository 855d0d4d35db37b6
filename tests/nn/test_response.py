from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from omicvae.nn import Response
from omicvae.nn._response import GRID, quantile_table
from omicvae.nn.likelihoods import Likelihood, Observed, make_likelihood

P = 5
FAMILIES = ("normal", "high counts", "low counts", "0/1", "beta", "reads")


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.float32)


class Data(NamedTuple):
    likelihood: Likelihood
    prediction: Tensor
    """(n, P) on the encoders' scale."""
    observed: Observed

    def rows(self, part: slice | Tensor) -> tuple[Tensor, Observed]:
        every = torch.arange(len(self.prediction))[part]
        return self.prediction[every], self.observed.take(every)


def simulate(family: str, n: int = 1600, seed: int = 0) -> Data:
    """Values around a known expectation, and the prediction that knows it."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, P)) * np.linspace(0.5, 1.5, P)
    size = coverage = None
    if family == "normal":
        raw = 10 + 3 * z
        x = raw + np.linspace(0.5, 3, P) * rng.standard_t(5, size=(n, P))
    elif family == "high counts":
        size = rng.lognormal(0, 0.4, n) * 5000
        raw = 6 + 0.5 * z
        x = rng.poisson(size[:, None] / 5000 * np.exp(raw + 0.6 * rng.normal(size=(n, P))))
    elif family == "low counts":
        size = rng.lognormal(0, 0.4, n) * 5000
        rate = np.exp(-1.5 + 0.8 * z)
        raw = np.log1p(rate)
        x = rng.poisson(size[:, None] / 5000 * rate * rng.gamma(2, 1 / 2, size=(n, P)))
    elif family == "0/1":
        raw = special.expit(-0.5 + z)
        x = rng.random((n, P)) < raw
    elif family == "beta":
        raw = z - 1
        x = special.expit(raw + 0.5 * rng.normal(size=(n, P)))
    else:
        coverage = rng.poisson(12, size=(n, P)).astype(float)
        level = special.expit(z)
        raw = 0.8 * z + 0.3  # as if it were shrunk and shifted, which the response must undo
        x = rng.binomial(coverage.astype(int), rng.beta(8 * level, 8 * (1 - level)))
    name = {"high counts": "nb", "low counts": "nb", "0/1": "bernoulli", "reads": "betabinomial"}.get(family, family)
    observed = Observed(
        tensor(x), None if size is None else tensor(size), None if coverage is None else tensor(coverage)
    )
    likelihood = make_likelihood(name, P)
    likelihood.fit([observed])
    if size is not None:  # to the size at which predictions are made
        shift = np.log(likelihood.reference_size.item() / 5000)
        raw = np.log1p(np.exp(raw + shift)) if family == "high counts" else np.log1p(np.expm1(raw) * np.exp(shift))
    standardised = (tensor(raw) - likelihood.input_mean) / likelihood.input_scale
    return Data(likelihood, standardised, observed)


def fitted(data: Data, part: slice = slice(0, 800)) -> Response:
    return Response(data.likelihood).fit(*data.rows(part))


def distribution(response: Response, prediction: Tensor, observed: Observed, n_draws: int = 2):
    size = None if observed.size is None else observed.size.expand(n_draws, -1)
    return response(prediction[None], size, n_draws)


def as_measured(draws: Tensor, observed: Observed) -> Tensor:
    """Methylated reads out of the coverage, for levels."""
    if observed.coverage is None:
        return draws
    return torch.binomial(observed.coverage.expand_as(draws).contiguous(), draws)


# ---------------------------------------------------------------------- calibration


@pytest.mark.parametrize("family", FAMILIES)
def test_transforms_of_new_values_are_uniform(family):
    data = simulate(family)
    prediction, observed = data.rows(slice(800, None))
    draws = as_measured(distribution(fitted(data), prediction, observed, 199).sample(), observed)
    below, at = (draws < observed.x).sum(0), (draws == observed.x).sum(0) + 1
    u = (below + torch.rand(observed.x.shape) * at) / 200
    # 800 values a feature: a distance of .069 is exceeded once in a thousand; 4000 together: .031, and .01 for the fit
    assert stats.kstest(u.flatten().numpy(), "uniform").statistic < 0.041
    for j in range(P):
        assert stats.kstest(u[:, j].numpy(), "uniform").statistic < 0.08


@pytest.mark.parametrize("family", FAMILIES)
def test_moments_are_those_of_new_values(family):
    data = simulate(family)
    prediction, observed = data.rows(slice(800, None))
    d = distribution(fitted(data), prediction, observed)
    truth = observed.x if observed.coverage is None else observed.x / observed.coverage.clamp_min(1)
    variance = d.variance[0]
    if observed.coverage is not None:
        reads = observed.coverage.clamp_min(1)
        variance = variance + (d.mean[0] * (1 - d.mean[0]) - variance) / reads
    score = (truth - d.mean[0]) / variance.sqrt()
    # 800 standardised values tell a mean to .035 and a mean square to .05, or to .12 where tails are log-normal; 4000
    # to less than half of that. Held-out fit and test values double the variance.
    assert score.mean(0).abs().max() < 0.15
    assert ((score.square().mean(0) - 1).abs() < 0.5).all()
    assert score.square().mean().item() == pytest.approx(1, abs=0.25)


@pytest.mark.parametrize("family", FAMILIES)
def test_draws_have_the_moments_that_are_reported(family):
    data = simulate(family)
    prediction, observed = data.rows(slice(0, 20))
    d = distribution(fitted(data), prediction, observed, 1)
    drawn = d.sample((20_000,))[:, 0]
    assert d.batch_shape == (1, 20, P)
    error = (drawn.mean(0) - d.mean[0]).abs() / d.stddev[0]
    # the mean of 20,000 draws has a standard error of .007 sd; rounding high counts, and lines between quantiles, .02
    assert error.max() < 0.055
    torch.testing.assert_close(drawn.std(0), d.stddev[0], rtol=0.12, atol=1e-3)


def test_normal_response_is_normal_regression():
    """Normal errors: moments are the prediction in the data's units and the residual sd."""
    rng = np.random.default_rng(0)
    raw = rng.normal(5, 2, size=(1500, P))
    observed = Observed(tensor(raw + 0.7 * rng.normal(size=raw.shape)), None, None)
    likelihood = make_likelihood("normal", P)
    likelihood.fit([observed])
    prediction = (tensor(raw) - likelihood.input_mean) / likelihood.input_scale
    response = Response(likelihood, constant_scale=True).fit(prediction, observed)
    d = response(prediction[None, :50], None, 3)
    torch.testing.assert_close(d.mean, tensor(raw[:50]).expand(3, -1, -1), atol=0.07, rtol=0)
    torch.testing.assert_close(d.stddev, torch.full((3, 50, P), 0.7), atol=0.05, rtol=0)


# ---------------------------------------------------------------------- the rate form


def rate_data(family: str, a: np.ndarray, b: np.ndarray, n: int = 2000) -> Data:
    """Values from the generalised linear model with these intercepts and slopes, overdispersed fivefold."""
    rng = np.random.default_rng(1)
    v = rng.normal(-0.5, 1, size=(n, P))
    eta, size, coverage = a + b * v, None, None
    if family == "nb":
        size = np.full(n, 1000.0)
        x, raw = rng.poisson(np.exp(eta) * rng.gamma(5, 1 / 5, size=v.shape)), np.log1p(np.exp(v))
    elif family == "bernoulli":
        x, raw = rng.random(v.shape) < special.expit(eta), special.expit(v)
    else:
        p, coverage, raw = special.expit(eta), rng.poisson(10, size=v.shape).astype(float), v
        x = rng.binomial(coverage.astype(int), rng.beta(5 * p, 5 * (1 - p)))
    observed = Observed(
        tensor(x), None if size is None else tensor(size), None if coverage is None else tensor(coverage)
    )
    likelihood = make_likelihood(family, P)
    likelihood.fit([observed])
    return Data(likelihood, (tensor(raw) - likelihood.input_mean) / likelihood.input_scale, observed)


@pytest.mark.parametrize("family", ["nb", "bernoulli", "betabinomial"])
def test_intercepts_slopes_and_dispersion_are_found(family):
    a, b = np.array([0.0, -0.5, 0.3, 0.0, -1.0]), np.array([1.0, 0.5, 1.5, 0.2, 1.0])
    response = Response((data := rate_data(family, a, b)).likelihood).fit(data.prediction, data.observed)
    # 2000 values tell a slope to .03-.07 and an intercept to .03-.06; bounds on the link cut its extremes
    np.testing.assert_allclose(response.slope, b, atol=0.2)
    np.testing.assert_allclose(response.intercept, a, atol=0.2)
    if family != "bernoulli":  # counts of .3 on average tell 1/theta to .2 only
        np.testing.assert_allclose((-response.log_theta).exp(), 0.2, atol=0.06 if family == "betabinomial" else 0.5)


def test_counts_that_vary_like_a_poisson_have_hardly_any_dispersion():
    rng = np.random.default_rng(0)
    z = rng.normal(0, 0.5, size=(1500, P))
    observed = Observed(tensor(rng.poisson(np.exp(z))), tensor(np.full(1500, 100.0)), None)
    for name in ("nb", "poisson"):
        likelihood = make_likelihood(name, P)
        likelihood.fit([observed])
        prediction = (tensor(np.log1p(np.exp(z))) - likelihood.input_mean) / likelihood.input_scale
        response = Response(likelihood).fit(prediction, observed)
        assert (response.log_theta > np.log(8)).all()  # 1/theta is known to .04 or so


@pytest.mark.parametrize(("family", "by_rate"), [("low counts", True), ("high counts", False)])
def test_the_form_follows_the_counts(family, by_rate):
    assert (fitted(simulate(family)).by_rate == by_rate).all()


def test_features_of_both_forms_stand_side_by_side():
    low, high = simulate("low counts"), simulate("high counts")
    x = torch.cat([low.observed.x[:, :2], high.observed.x[:, 2:]], dim=1)
    observed = Observed(x, low.observed.size, None)
    likelihood = make_likelihood("nb", P)
    likelihood.fit([observed])
    expected = [d.likelihood.decode_transform(d.prediction) for d in (low, high)]
    expected = torch.cat([expected[0][:, :2], expected[1][:, 2:]], dim=1)
    prediction = likelihood.encode_transform(Observed(expected, likelihood.reference_size.expand(1600), None))
    response = Response(likelihood).fit(prediction, observed)
    assert response.by_rate.tolist() == [True, True, False, False, False]
    d = response(prediction[None, :7], observed.size[:7].expand(4, -1), 4)
    assert d.mean.shape == d.variance.shape == d.sample().shape == d.batch_shape == (4, 7, P)
    assert d.support.is_discrete
    drawn = d.sample((3,))
    assert torch.equal(drawn, drawn.round())
    assert drawn.shape == (3, 4, 7, P)
    assert (d.mean[..., 2:] > 20).all()
    assert (d.mean[..., :2] < 20).all()


# ---------------------------------------------------------------------- size, shape


@pytest.mark.parametrize("family", ["low counts", "high counts"])
def test_counts_are_proportional_to_size(family):
    data = simulate(family)
    prediction, observed = data.rows(slice(0, 10))
    response = fitted(data)
    sizes = torch.tensor([1.0, 2.0, 10.0])[:, None] * data.likelihood.reference_size.expand(3, 10)
    d = response(prediction[None], sizes, 3)
    torch.testing.assert_close(
        d.mean / sizes[..., None], d.mean[:1].expand(3, -1, -1) / sizes[:1, :, None], rtol=1e-4, atol=0
    )
    assert (d.variance[1] > 1.9 * d.variance[0]).all()


@pytest.mark.parametrize("n_locations", [1, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_and_one_location_for_all_draws(family, n_locations):
    data = simulate(family, n=400)
    prediction, observed = data.rows(slice(0, 6))
    size = None if observed.size is None else observed.size.expand(4, -1)
    response = fitted(data)
    d = response(prediction.expand(n_locations, -1, -1), size, 4)
    assert d.batch_shape == d.mean.shape == d.variance.shape == d.sample().shape == (4, 6, P)
    assert d.sample((2, 3)).shape == (2, 3, 4, 6, P)
    torch.testing.assert_close(d.mean, response(prediction[None], size, 4).mean)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_does_not_depend_on_the_others_in_its_batch(family):
    data = simulate(family, n=400)
    prediction, observed = data.rows(slice(0, 8))
    prediction[4:] *= 3
    response = fitted(data)
    together, alone = (
        distribution(response, prediction[rows], observed.take(torch.arange(8)[rows]))
        for rows in (slice(0, 8), slice(0, 1))
    )
    torch.testing.assert_close(together.mean[:, :1], alone.mean)
    torch.testing.assert_close(together.variance[:, :1], alone.variance)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded(family):
    data = simulate(family, n=400)
    response = fitted(data)
    other = Response(data.likelihood).restore({k: v.clone() for k, v in response.state_dict().items()})
    prediction, observed = data.rows(slice(0, 5))
    a, b = (distribution(r, prediction, observed) for r in (response, other))
    torch.testing.assert_close(a.mean, b.mean)
    torch.testing.assert_close(a.variance, b.variance)


# ---------------------------------------------------------------------- residual quantiles


def test_quantiles_are_those_of_the_values_and_tails_keep_their_mean():
    values = torch.tensor(np.random.default_rng(0).standard_t(4, size=(3000, 2)), dtype=torch.float64)
    values[1000:, 1] = torch.nan
    table = quantile_table(values)
    assert table.shape == (GRID, 2)
    for j, n in ((0, 3000), (1, 1000)):
        x = np.sort(values[:n, j].numpy())
        np.testing.assert_allclose(table[1:-1, j], np.quantile(x, np.linspace(0, 1, GRID))[1:-1], atol=1e-5)
        share = n // (GRID - 1)
        np.testing.assert_allclose((table[0, j] + table[1, j]) / 2, x[:share].mean(), rtol=0.03)
        np.testing.assert_allclose((table[-1, j] + table[-2, j]) / 2, x[-share:].mean(), rtol=0.03)
        assert x[0] < table[0, j]
        assert table[-1, j] < x[-1]


def test_variance_of_many_pooled_residuals_is_kept():
    """Values between quantiles are drawn uniformly: up to the most extreme of 200,000, that would double the variance."""
    values = torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0))
    table = quantile_table(values)[:, 0]
    low, high = table[:-1], table[1:]
    assert ((low**2 + low * high + high**2) / 3).mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("n", [1, 2, 41, 50])
def test_quantiles_of_few_values_stay_among_them(n):
    values = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    table = quantile_table(values)
    assert (table.diff(dim=0) >= -1e-6).all()
    assert ((table >= values.amin(0) - 1e-6) & (table <= values.amax(0) + 1e-6)).all()
    assert torch.equal(quantile_table(torch.ones(n, 1)), torch.ones(GRID, 1))


def residual_shape(response: Response, feature: int) -> Tensor:
    return response.quantiles[:, min(feature, response.quantiles.shape[1] - 1)]


@pytest.mark.parametrize("n", [100, 600])
def test_features_without_values_or_variation_do_not_shape_the_residuals_of_others(n):
    rng = np.random.default_rng(0)
    clean = tensor(rng.normal(size=(n, 4)))
    spoilt = torch.cat([clean, torch.full((n, 1), torch.nan), torch.full((n, 20), 2.0)], dim=1)
    found = []
    for x in (clean, spoilt):
        likelihood = make_likelihood("normal", x.shape[1])
        likelihood.fit([Observed(x, None, None)])
        response = Response(likelihood).fit(torch.zeros(x.shape), Observed(x, None, None))
        found.append(torch.stack([residual_shape(response, j) for j in range(4)]))
        assert torch.isfinite(response(torch.zeros(1, 3, x.shape[1]), None, 2).sample()).all()
    torch.testing.assert_close(*found)


# ---------------------------------------------------------------------- little or no data


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_few_held_out_values(family, n):
    data = simulate(family, n=200)
    response = fitted(data, slice(0, n))
    prediction, observed = data.rows(slice(100, 105))
    d = distribution(response, prediction, observed, 7)
    for values in (d.mean, d.variance, d.sample()):
        assert torch.isfinite(values).all()
    assert (d.variance > 0).all()


@pytest.mark.parametrize("family", ["normal", "beta", "reads", "0/1"])
def test_a_feature_that_was_never_measured(family):
    data = simulate(family, n=300)
    observed = data.observed._replace(x=data.observed.x.clone())
    observed.x[:, 2] = torch.nan
    likelihood = make_likelihood(data.likelihood.name, P)
    likelihood.fit([observed])
    hidden = Response(likelihood).fit(data.prediction, observed)
    d = hidden(data.prediction[None, :5], None, 3)
    assert torch.isfinite(d.mean).all()
    assert torch.isfinite(d.variance).all()
    assert torch.isfinite(d.sample()).all()
    others = [0, 1, 3, 4]
    whole = Response(data.likelihood).fit(data.prediction, data.observed)(data.prediction[None, :5], None, 3)
    torch.testing.assert_close(d.mean[..., others], whole.mean[..., others], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(d.variance[..., others], whole.variance[..., others], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_constant_features_and_absurd_predictions_stay_finite(family):
    data = simulate(family, n=300)
    x = data.observed.x.clone()
    x[:, 1] = {"normal": 3.0, "beta": 0.5}.get(family, 0.0)
    observed = data.observed._replace(x=x)
    likelihood = make_likelihood(data.likelihood.name, P)
    likelihood.fit([observed])
    response = Response(likelihood).fit(data.prediction, observed)
    for factor in (1.0, 1e3, -1e3):
        d = distribution(response, factor * data.prediction[:20], observed.take(torch.arange(20)))
        for values in (d.mean, d.variance, d.sample()):
            assert torch.isfinite(values).all()


def test_a_prediction_without_information_keeps_the_mean():
    """The slope cannot be told and stays at 1; the intercept makes up for a prediction that is off."""
    rng = np.random.default_rng(0)
    observed = Observed(tensor(rng.poisson(0.7, size=(800, P))), tensor(np.full(800, 100.0)), None)
    likelihood = make_likelihood("nb", P)
    likelihood.fit([observed])
    response = Response(likelihood).fit(torch.full((800, P), 0.4), observed)
    torch.testing.assert_close(response.slope, torch.ones(P), atol=0.05, rtol=0)
    d = response(torch.full((1, 1, P), 0.4), observed.size[:1].expand(2, -1), 2)
    torch.testing.assert_close(d.mean[0, 0], observed.x.mean(0), rtol=0.02, atol=0)
