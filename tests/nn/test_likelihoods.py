from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import special, stats
from torch import Tensor

from omicvae.nn.likelihoods import (
    CROSS,
    LIKELIHOODS,
    OWN,
    Likelihood,
    NegativeBinomialCounts,
    Observed,
    make_likelihood,
)
from omicvae.nn.likelihoods._base import LINK_SCALE_RANGE
from omicvae.nn.likelihoods._beta import SQUEEZE
from omicvae.nn.likelihoods._negative_binomial import _by_inversion
from omicvae.nn.likelihoods._stirling import log_beta, stirling_error, stirling_slope

NAMES = sorted(LIKELIHOODS)
NOISY = ["beta", "betabinomial", "nb", "normal", "zinb"]
COUNTS = ["nb", "poisson", "zinb"]
WITH_OPTIONS = [*((name, {}) for name in NAMES), *((name, {"size_is_factor": True}) for name in COUNTS)]
N, P = 60, 5


def simulate(name: str, n: int = N, seed: int = 0) -> Observed:
    """Data of the kind a likelihood is for, in float32."""
    rng = np.random.default_rng(seed)
    level = rng.beta([2, 5, 1, 8, 3], [3, 5, 4, 2, 3], size=(n, P))
    size = coverage = None
    if name == "normal":
        x = rng.normal([0, 5, -3, 100, 1], [1, 0.1, 10, 30, 2], size=(n, P))
    elif name == "bernoulli":
        x = rng.random((n, P)) < level
    elif name == "beta":
        x = level
    elif name == "betabinomial":
        coverage = rng.poisson(12, size=(n, P)).astype(float)
        coverage[:3, :3] = 0
        x = rng.binomial(coverage.astype(int), level)
    else:
        rate = rng.gamma(2.0, np.array([1, 10, 50, 200, 3]), size=(n, P))
        x = rng.poisson(rate * rng.lognormal(0, 0.5, size=(n, 1))) + np.eye(1, P, 3)
        size = torch.tensor(x.sum(1), dtype=torch.float32)
    to_tensor = lambda v: torch.tensor(np.asarray(v), dtype=torch.float32)
    return Observed(to_tensor(x), size, None if coverage is None else to_tensor(coverage))


def fitted(name: str, observed: Observed | None = None, **options: object) -> Likelihood:
    likelihood = make_likelihood(name, P, **options)
    likelihood.fit([simulate(name) if observed is None else observed])
    return likelihood


def random_eta(likelihood: Likelihood, *leading: int, seed: int = 3) -> Tensor:
    return torch.randn(*leading, likelihood.n_heads, P, generator=torch.Generator().manual_seed(seed))


def spread_noise(likelihood: Likelihood) -> np.ndarray:
    """Set a different noise for every feature and row; its natural scale as ``(2, p)``."""
    raw = torch.linspace(-1.0, 2.0, 2 * P).reshape(2, P)
    with torch.no_grad():
        likelihood.raw_noise.copy_(raw)
    return raw.double().exp().numpy()


def every_other(n: int) -> Tensor:
    return torch.arange(n) % 2


def share_and_scale(observed: Observed) -> tuple[np.ndarray, np.ndarray]:
    x, size = observed.x.double().numpy(), observed.size.double().numpy()[:, None]
    return (x / size).mean(0), np.log1p(x / size * np.median(size)).std(0).clip(0.1, 2)


def share_rate(observed: Observed, eta: np.ndarray) -> np.ndarray:
    share, scale = share_and_scale(observed)
    return observed.size.double().numpy()[:, None] * special.softmax(np.log(share) + scale * eta[..., 0, :], axis=-1)


def normal_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    x = o.x.double().numpy()
    return stats.norm.logpdf(x, x.mean(0) + x.std(0) * eta[..., 0, :], x.std(0) * noise)


def nb_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    rate = share_rate(o, eta)
    return stats.nbinom.logpmf(o.x.numpy(), noise, noise / (noise + rate))


def zinb_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    lost, counts = special.expit(eta[..., 1, :] - 3), nb_reference(o, eta, noise)
    return np.log(lost * (o.x.numpy() == 0) + (1 - lost) * np.exp(counts))


def poisson_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    return stats.poisson.logpmf(o.x.numpy(), share_rate(o, eta))


def bernoulli_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    x = o.x.double().numpy()
    p = x.mean(0)
    scale = special.logit((x + p) / 2).std(0)
    return stats.bernoulli.logpmf(x, special.expit(special.logit(p) + scale * eta[..., 0, :]))


def beta_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    x = o.x.double().numpy()
    mean = special.expit(special.logit(x.mean(0)) + special.logit(x).std(0) * eta[..., 0, :])
    return stats.beta.logpdf(x, noise * mean, noise * (1 - mean))


def betabinomial_reference(o: Observed, eta: np.ndarray, noise: np.ndarray) -> np.ndarray:
    x, n = o.x.double().numpy(), o.coverage.double().numpy()
    scale = np.nanstd(np.where(n > 0, special.logit((x + 0.5) / (n + 1)), np.nan), axis=0)
    mean = special.expit(special.logit((x.sum(0) + 0.5) / (n.sum(0) + 1)) + scale * eta[..., 0, :])
    return np.where(n > 0, stats.betabinom.logpmf(x, n, noise * mean, noise * (1 - mean)), 0.0)


REFERENCES: dict[str, Callable[[Observed, np.ndarray, np.ndarray], np.ndarray]] = {
    "normal": normal_reference,
    "unit_normal": normal_reference,  # its noise is one training sd in both rows
    "nb": nb_reference,
    "zinb": zinb_reference,
    "poisson": poisson_reference,
    "bernoulli": bernoulli_reference,
    "beta": beta_reference,
    "betabinomial": betabinomial_reference,
}


@pytest.mark.parametrize("name", NAMES)
def test_log_prob_equals_scipy_with_parameters_computed_by_hand(name):
    observed, likelihood = simulate(name), fitted(name)
    scale = spread_noise(likelihood) if name in NOISY else np.ones((2, P))
    eta, noise = random_eta(likelihood, 4, N), every_other(N)
    expected = REFERENCES[name](observed, eta.double().numpy(), scale[noise.numpy()])
    # float32: terms up to a few hundred nats, of relative error 1e-7, differ by 1e-3 at most.
    actual = likelihood.log_prob_features(eta, observed, noise)
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=2e-5, atol=2e-3)
    total = likelihood.log_prob(eta, observed, noise)
    assert total.shape == (4, N)
    np.testing.assert_allclose(total.detach().numpy(), expected.sum(-1), rtol=2e-5, atol=5e-3)


@pytest.mark.parametrize("name", NAMES)
def test_distribution_agrees_with_log_prob(name):
    observed, likelihood = simulate(name), fitted(name)
    eta, noise = random_eta(likelihood, 4, N), every_other(N)
    distribution = likelihood(eta, noise=noise, size=observed.size, coverage=observed.coverage)
    assert distribution.batch_shape == (4, N, P)
    value = observed.x.clamp(SQUEEZE, 1 - SQUEEZE) if name == "beta" else observed.x
    expected = distribution.log_prob(value)
    actual = likelihood.log_prob_features(eta, observed, noise)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=2e-3)


@pytest.mark.parametrize("name", NAMES)
def test_samples_have_the_mean_and_variance_of_the_distribution(name):
    observed, likelihood = simulate(name, n=2), fitted(name)
    torch.manual_seed(5)
    distribution = likelihood(
        random_eta(likelihood, 2) / 2, noise=every_other(2), size=observed.size, coverage=torch.full((2, P), 9.0)
    )
    draws = distribution.sample((20_000,))
    assert draws.dtype == torch.float32 and draws.shape == (20_000, 2, P)
    assert not draws.requires_grad and not draws.is_inference()
    error = (distribution.variance / 20_000).sqrt()
    assert ((draws.mean(0) - distribution.mean).abs() < 5 * error).all()
    # The variance of heavy-tailed counts is itself uncertain by several per cent.
    torch.testing.assert_close(draws.var(0), distribution.variance, rtol=0.15, atol=1e-4)


@pytest.mark.parametrize(("a", "b"), [(1e-6, 1e-6), (1e-3, 1e7), (0.7, 0.2), (3.0, 40.0), (1e4, 1e6), (50.0, 1e7)])
def test_log_beta(a, b):
    x, y = torch.tensor(a, requires_grad=True), torch.tensor(b, requires_grad=True)
    value = log_beta(x, y)
    exact_a, exact_b = x.item(), y.item()
    assert value.item() == pytest.approx(special.betaln(exact_a, exact_b), rel=1e-6)
    value.backward()
    expected = special.digamma([exact_a, exact_b]) - special.digamma(exact_a + exact_b)
    # Relative to 1 / a, the size of the derivative with respect to log a that parameters are learned by.
    np.testing.assert_allclose([x.grad.item(), y.grad.item()], expected, rtol=1e-5, atol=1e-6)


def test_the_error_of_stirlings_formula_and_its_slope():
    """Beside their definitions in double precision, with and without derivatives being recorded."""
    z = np.logspace(-3, 7, 200)
    error = special.gammaln(z) - (z - 0.5) * np.log(z) + z - 0.5 * np.log(2 * np.pi)
    slope = special.psi(z) - np.log(z) + 0.5 / z
    wanted = torch.tensor(z, dtype=torch.float32)
    recorded = stirling_error(leaf := wanted.clone().requires_grad_())
    np.testing.assert_allclose(stirling_error(wanted), error, rtol=1e-5, atol=3e-7)
    torch.testing.assert_close(recorded.detach(), stirling_error(wanted), rtol=1e-6, atol=2e-7)
    np.testing.assert_allclose(stirling_slope(wanted), slope, rtol=1e-4, atol=3e-7)
    np.testing.assert_allclose(torch.autograd.grad(recorded.sum(), leaf)[0], slope, rtol=1e-4, atol=3e-7)


@pytest.mark.parametrize("mu", [9e5, 1e6, 1.2e6])
@pytest.mark.parametrize("theta", [0.5, 30.0, 5e3])
def test_counts_of_a_million_are_accurate_in_float32(mu, theta):
    # lgamma(1e6) alone is off by up to 1 nat in float32.
    likelihood = make_likelihood("nb", 1, size_is_factor=True)
    with torch.no_grad():
        likelihood.raw_noise.fill_(np.log(theta))
    observed = Observed(torch.tensor([[1e6]]), torch.tensor([mu]), None)
    actual = likelihood.log_prob(torch.zeros(1, 1, 1), observed, torch.zeros(1, dtype=torch.long))
    assert actual.item() == pytest.approx(stats.nbinom.logpmf(1e6, theta, theta / (theta + mu)), abs=2e-2)
    poisson = make_likelihood("poisson", 1, size_is_factor=True)
    actual = poisson.log_prob(torch.zeros(1, 1, 1), observed, torch.zeros(1, dtype=torch.long))
    assert actual.item() == pytest.approx(stats.poisson.logpmf(1e6, mu), rel=2e-5, abs=1e-2)


def test_beta_density_is_symmetric_up_to_its_bounds():
    likelihood, eta = make_likelihood("beta", 4), torch.tensor([0.3, 4.0, 9.0, 20.0])
    x = torch.tensor([0.5, 0.25, 0.75, 0.5])
    logp = [
        likelihood.log_prob_features(sign * eta[None], Observed(value[None], None, None), torch.tensor(OWN))
        for sign, value in ((1, x), (-1, 1 - x))
    ]
    torch.testing.assert_close(*logp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_value_is_the_same_as_leaving_its_term_out(name):
    complete, likelihood = simulate(name), fitted(name)
    eta, noise = random_eta(likelihood, N).requires_grad_(), every_other(N)
    x = complete.x.clone()
    x[::2, 1], x[:, 4] = torch.nan, torch.nan
    hole = Observed(x, complete.size, complete.coverage)
    kept = likelihood.log_prob_features(eta, complete, noise) * ~x.isnan()
    expected = torch.autograd.grad(kept.sum(), eta, retain_graph=True)[0]
    total = likelihood.log_prob(eta, hole, noise)
    torch.testing.assert_close(total, kept.sum(-1))
    torch.testing.assert_close(torch.autograd.grad(total.sum(), eta)[0], expected)
    for encoded in (likelihood.encode_transform(hole), likelihood.linear_target(hole)):
        assert encoded.dtype == torch.float32
        assert (encoded[x.isnan()] == 0).all() and encoded.isfinite().all()


def test_reads_without_coverage_are_missing():
    observed, likelihood = simulate("betabinomial"), fitted("betabinomial")
    uncovered = observed.coverage == 0
    assert uncovered.sum() >= 9
    logp = likelihood.log_prob_features(random_eta(likelihood, N), observed, every_other(N))
    assert (logp[uncovered] == 0).all() and (logp[~uncovered] < 0).any()
    assert (likelihood.encode_transform(observed)[uncovered] == 0).all()
    unknown = observed._replace(coverage=torch.where(uncovered, torch.nan, observed.coverage))
    torch.testing.assert_close(likelihood.log_prob_features(random_eta(likelihood, N), unknown, every_other(N)), logp)


def extreme(name: str) -> Observed:
    if name in COUNTS:
        return Observed(torch.tensor([[0.0, 1.0, 1e3, 1e7, 12.0]] * 4), torch.tensor([1.0, 1e3, 1e7, 1e9]), None)
    if name == "betabinomial":
        return Observed(torch.tensor([[0.0, 0, 1, 1e4, 1e5]] * 4), None, torch.tensor([[0.0, 9, 1, 1e4, 1e7]] * 4))
    wide = [-1e6, 0, 1, 1e4, 1e6]
    values = {"normal": wide, "unit_normal": wide, "beta": [0, 1e-9, 0.5, 1 - 1e-7, 1], "bernoulli": [0, 1, 0, 1, 1]}
    return Observed(torch.tensor([values[name]] * 4, dtype=torch.float32), None, None)


@pytest.mark.parametrize("means", [(0.02, 0.2, 0.9), (0.02, 3.0, 40.0), (2.0, 3.0, 40.0)])
def test_drawn_counts_follow_the_negative_binomial(means):
    """Small means are drawn by inversion, others by gamma and Poisson draws, both in one tensor."""
    mu = torch.tensor(means)[:, None].expand(3, 3)
    theta = torch.tensor([0.15, 1.0, 30.0])
    drawn = NegativeBinomialCounts(mu=mu, theta=theta.expand(3, 3)).sample((40_000,)).numpy()
    for i, j in itertools.product(range(3), range(3)):
        expected = stats.nbinom(theta[j].item(), theta[j].item() / (theta[j] + mu[i, j]).item())
        # bins of at least 1 % each: the last is all that is beyond
        edges = np.unique([-1, *expected.ppf(np.linspace(0.05, 0.99, 20))]).astype(int)
        share = np.append(np.diff(expected.cdf(edges)), expected.sf(edges[-1]))
        found = np.histogram(drawn[:, i, j], [*(edges + 0.5), np.inf])[0]
        assert stats.chisquare(found, share * found.sum()).pvalue > 1e-5


def test_the_largest_count_by_inversion_is_a_quantile():
    """The least uniform draw there is; rounding must not leave it a probability to look for in vain."""

    class Least:
        def random(self, shape, dtype):
            return np.zeros(shape, dtype)

    mu, theta = (a.astype(np.float32) for a in np.meshgrid(np.geomspace(1e-3, 1, 40), np.geomspace(0.1, 100, 40)))
    drawn = _by_inversion(Least(), mu, theta)
    expected = stats.nbinom.isf(2.0**-25, theta.astype(float), theta / (theta.astype(float) + mu))
    np.testing.assert_allclose(drawn, expected, atol=1, rtol=0.01)  # float32 odds move far tails


@pytest.mark.parametrize(("name", "options"), WITH_OPTIONS)
def test_values_gradients_and_samples_are_finite_at_extremes(name, options):
    likelihood, observed = fitted(name, **options), extreme(name)
    if name not in ("normal", "unit_normal"):
        likelihood.link_scale.fill_(LINK_SCALE_RANGE[1])
    for noise_level in (-100.0, 0.0, 100.0) if name in NOISY else (0.0,):
        if name in NOISY:
            with torch.no_grad():
                likelihood.raw_noise.fill_(noise_level)
        for value in (-50.0, -20.0, 0.0, 20.0, 50.0):
            alternating = torch.tensor([1.0, -1.0, 1.0, -1.0, 0.0]) * value
            eta = alternating.expand(4, likelihood.n_heads, P).clone().requires_grad_()
            total = likelihood.log_prob(eta, observed, every_other(4))
            gradients = torch.autograd.grad(total.sum(), [eta, *likelihood.parameters()])
            assert total.isfinite().all() and all(g.isfinite().all() for g in gradients)
            with torch.no_grad():
                distribution = likelihood(eta, noise=every_other(4), size=observed.size, coverage=observed.coverage)
            assert distribution.sample().isfinite().all() and distribution.mean.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_fit_does_not_depend_on_blocks_and_takes_an_iterator(name):
    observed = simulate(name)
    blocks = [Observed(*(None if v is None else v[i : i + 7] for v in observed)) for i in range(0, N, 7)]
    whole, cut, streamed = fitted(name), make_likelihood(name, P), make_likelihood(name, P)
    cut.fit(blocks)
    streamed.fit(block for block in blocks)
    for key, value in whole.state_dict().items():
        torch.testing.assert_close(cut.state_dict()[key], value)
        torch.testing.assert_close(streamed.state_dict()[key], value)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("rows", [0, 1, 2, N])
def test_fit_takes_empty_constant_and_few(name, rows):
    observed = Observed(*(None if v is None else v[:rows].clone() for v in simulate(name)))
    observed.x[:, 1], observed.x[:, 2] = torch.nan, 0.0
    likelihood = fitted(name, observed)
    assert all(value.isfinite().all() for value in likelihood.state_dict().values())
    later = simulate(name, seed=1)
    assert likelihood.encode_transform(later).isfinite().all() and likelihood.linear_target(later).isfinite().all()
    assert likelihood.log_prob(random_eta(likelihood, N), later, every_other(N)).isfinite().all()


@pytest.mark.parametrize("name", ["beta", "normal"])
def test_what_is_constant_in_training_samples_is_predicted_as_that_and_weighs_nothing(name):
    observed, later = simulate(name), simulate(name, seed=1)
    observed.x[:, 1], later.x[:, 1] = 0.25, 0.9
    likelihood, eta = fitted(name, observed), random_eta(make_likelihood(name, P), N)
    density = likelihood.log_prob_features(eta, later, every_other(N))
    assert (density[:, 1] == 0).all() and (density[:, [0, 2, 3, 4]] != 0).all()
    density.sum().backward()
    assert (likelihood.raw_noise.grad[:, 1] == 0).all() and (likelihood.raw_noise.grad[:, 0] != 0).all()
    predicted = likelihood(eta, noise=every_other(N))
    torch.testing.assert_close(predicted.mean[:, 1], torch.full((N,), 0.25), rtol=1e-4, atol=1e-6)
    assert (predicted.stddev[:, 1] < 0.01).all()


@pytest.mark.parametrize("rows", [0, 1])
def test_of_a_feature_seen_once_nothing_is_known_to_be_constant(rows):
    observed = simulate("normal")
    observed.x[rows:, 1] = torch.nan
    likelihood = fitted("normal", observed)
    assert likelihood.varies.all() and (likelihood.raw_noise[:, 1] == 0).all()


@pytest.mark.parametrize(("name", "options"), WITH_OPTIONS)
def test_eta_0_is_the_training_mean(name, options):
    observed = simulate(name)
    likelihood = fitted(name, **options)
    eta = torch.zeros(N, likelihood.n_heads, P)
    mean = likelihood(eta, noise=every_other(N), size=observed.size).mean
    if name in COUNTS:
        expected = observed.size[:, None] * (observed.x / observed.size[:, None]).mean(0)
        expected = expected * (1 - special.expit(-3.0) if name == "zinb" else 1)
    elif name == "betabinomial":
        expected = ((observed.x.sum(0) + 0.5) / (observed.coverage.sum(0) + 1)).expand(N, P)
    else:
        expected = observed.x.mean(0).expand(N, P)
    torch.testing.assert_close(mean, expected, rtol=1e-4, atol=1e-5)


def test_library_that_counts_more_than_the_registered_features():
    observed = simulate("nb")
    likelihood = fitted("nb", observed._replace(size=observed.size * 3))
    mean = likelihood(torch.zeros(1, 1, P), noise=torch.tensor([OWN]), size=torch.tensor([300.0])).mean
    assert mean.sum().item() == pytest.approx(100, rel=1e-4)


def test_noise_starts_at_the_noise_that_data_were_drawn_with():
    rng = np.random.default_rng(8)
    n, theta, phi = 20_000, np.array([0.5, 2.0, 20.0]), np.array([1.5, 5.0, 15.0])
    size = rng.uniform(500, 2000, n)
    x = rng.poisson(size[:, None] * rng.gamma(theta, [0.02, 0.02, 0.01] / theta, (n, 3)))
    level = rng.beta(0.3 * phi, 0.7 * phi, (n, 3))
    coverage = rng.poisson(4, (n, 3))
    to_tensor = lambda v: torch.tensor(v, dtype=torch.float32)
    cases = {
        "nb": (Observed(to_tensor(x), to_tensor(size), None), theta),
        "beta": (Observed(to_tensor(level), None, None), phi),
        "betabinomial": (Observed(to_tensor(rng.binomial(coverage, level)), None, to_tensor(coverage)), phi),
    }
    for name, (observed, truth) in cases.items():
        likelihood = make_likelihood(name, 3)
        likelihood.fit([observed])
        start = likelihood.raw_noise.exp().detach().numpy()
        # 20,000 samples: the standard error is 6 % for the largest, hard to tell from sampling noise.
        # Without the sampling part of the variance, estimates are wrong by a factor.
        np.testing.assert_allclose(start, np.stack([truth, truth]), rtol=0.15)


@pytest.mark.parametrize("name", NAMES)
def test_encoder_input_is_standardised_on_training_samples(name):
    observed, likelihood = simulate(name), fitted(name)
    encoded = likelihood.encode_transform(observed)
    seen = torch.where(likelihood.measured(observed), encoded, torch.nan).numpy()
    assert encoded.dtype == torch.float32
    np.testing.assert_allclose(np.nanmean(seen, 0), 0, atol=1e-5)
    np.testing.assert_allclose(np.nanvar(seen, 0), 1, atol=1e-4)


@pytest.mark.parametrize("name", ["bernoulli", "beta", "betabinomial", "normal", "nb", "poisson"])
def test_linear_target_decodes_to_the_shrunk_observation(name):
    observed = simulate(name)
    likelihood = fitted(name, **({"size_is_factor": True} if name in COUNTS else {}))
    eta = likelihood.linear_target(observed)[:, None, :]
    mean = likelihood(eta, noise=every_other(N), size=observed.size).mean
    x = observed.x
    if name in COUNTS:
        mu, theta = observed.size[:, None] * (x / observed.size[:, None]).mean(0), likelihood.dispersion_start
        x = mu * (x + theta) / (mu + theta)
    elif name == "bernoulli":
        x = (x + x.mean(0)) / 2
    elif name == "betabinomial":
        x = torch.where(observed.coverage > 0, (x + 0.5) / (observed.coverage + 1), likelihood.logit_mean.sigmoid())
    torch.testing.assert_close(mean, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_every_row_takes_its_own_noise(name):
    observed, likelihood = simulate(name), fitted(name)
    if name in NOISY:
        spread_noise(likelihood)
    eta, noise = random_eta(likelihood, N), every_other(N)
    mixed = likelihood.log_prob(eta, observed, noise)
    own, cross = (likelihood.log_prob(eta, observed, torch.full((N,), row)) for row in (OWN, CROSS))
    torch.testing.assert_close(mixed, torch.where(noise == OWN, own, cross))
    assert torch.equal(own, cross) == (name not in NOISY)
    per_draw = likelihood.log_prob(torch.stack([eta, eta]), observed, torch.tensor([[OWN], [CROSS]]).expand(2, N))
    torch.testing.assert_close(per_draw, torch.stack([own, cross]))


@pytest.mark.parametrize("name", NOISY)
def test_gradient_reaches_only_the_noise_that_was_used(name):
    observed, likelihood = simulate(name), fitted(name)
    likelihood.log_prob(random_eta(likelihood, N), observed, torch.full((N,), CROSS)).sum().backward()
    assert (likelihood.raw_noise.grad[OWN] == 0).all() and (likelihood.raw_noise.grad[CROSS] != 0).all()


def test_unit_noise_has_no_parameter_and_is_one_training_deviation():
    observed, likelihood = simulate("normal"), fitted("normal", scale="unit")
    assert not list(likelihood.parameters())
    distribution = likelihood(random_eta(likelihood, 2, N), noise=every_other(N))
    assert distribution.batch_shape == (2, N, P)
    torch.testing.assert_close(distribution.stddev, observed.x.std(0, correction=0).expand(2, N, P))
    with pytest.raises(ValueError, match="'feature' or 'unit'"):
        make_likelihood("normal", P, scale="sample")


def test_missing_arguments_are_named():
    with pytest.raises(ValueError, match="library size"):
        fitted("nb", simulate("nb")._replace(size=None))
    with pytest.raises(ValueError, match="observed.coverage"):
        fitted("betabinomial", simulate("betabinomial")._replace(coverage=None))
    with pytest.raises(ValueError, match=r"\(\.\.\., 2, p\)"):
        fitted("zinb").log_prob(torch.zeros(N, 1, P), simulate("zinb"), every_other(N))


@pytest.mark.parametrize("share", [0.05, 0.2])
@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_sparse_counts_give_the_same_value_and_gradients(name: str, share: float) -> None:
    """Few nonzero counts are picked out on a CPU: the sum over features and its gradients stay what they were."""
    generator = torch.Generator().manual_seed(0)
    x = torch.poisson(torch.full((6, 40), 3.0), generator) * (torch.rand(6, 40, generator=generator) < share)
    observed = Observed(x, x.sum(1).clamp_min(1.0) * 1.3, None)
    likelihood = make_likelihood(name, 40)
    likelihood.fit([observed])
    noise = torch.tensor([[0], [1]])
    results = []
    for value in (likelihood.log_prob, lambda *a: likelihood.log_prob_features(*a).sum(-1)):
        eta = torch.randn(3, 2, 6, likelihood.n_heads, 40, generator=torch.Generator().manual_seed(1)).requires_grad_()
        found = value(eta, observed, noise)
        gradients = torch.autograd.grad(found.sum(), [eta, likelihood.raw_noise])
        results.append((found, *gradients))
    for sparse, dense in zip(*results, strict=True):
        torch.testing.assert_close(sparse, dense, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------------- back from the encoders' scale


def at_reference(likelihood: Likelihood, observed: Observed) -> Observed:
    """The same values in samples of the size at which counts are decoded."""
    if observed.size is None:
        return observed
    return observed._replace(size=likelihood.reference_size.expand(len(observed.x)))


@pytest.mark.parametrize(("name", "options"), WITH_OPTIONS)
def test_decode_transform_is_the_inverse_of_encode_transform(name, options):
    observed = simulate(name)
    likelihood = fitted(name, observed, **options)
    decoded = likelihood.decode_transform(likelihood.encode_transform(at_reference(likelihood, observed)))
    expected = observed.x
    if name == "betabinomial":  # the level of half a read more of each kind
        expected = (observed.x + 0.5) / (observed.coverage + 1)
    measured = likelihood.measured(observed)
    # float32: a count of e^6 decoded from its logarithm is off by 1e-6 of it, and no better than 1e-6 near 0
    torch.testing.assert_close(decoded[measured], expected[measured], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "options"), WITH_OPTIONS)
def test_encode_transform_is_the_inverse_of_decode_transform(name, options):
    """Within what the data can be: counts from 0, proportions within the squeeze."""
    likelihood = fitted(name, **options)
    standardised = torch.linspace(-0.5, 2, 20)[:, None].expand(20, P)
    decoded = likelihood.decode_transform(standardised)
    coverage = torch.full((20, P), 1e5) if name == "betabinomial" else None  # so many reads that halves do not matter
    x = decoded if coverage is None else decoded * coverage
    size = likelihood.reference_size.expand(20) if likelihood.uses_size else None
    inside = torch.ones(20, P, dtype=torch.bool) if name not in COUNTS else decoded > 0
    found = likelihood.encode_transform(Observed(x, size, coverage))
    torch.testing.assert_close(found[inside], standardised[inside], atol=2e-3, rtol=1e-3)
    if name in COUNTS:
        assert (decoded >= 0).all()


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_decoded_at_the_median_training_size(name):
    observed = simulate(name)
    likelihood = fitted(name, observed)
    assert likelihood.reference_size.item() == pytest.approx(np.median(observed.size.numpy()))
    decoded = likelihood.decode_transform(likelihood.encode_transform(observed))
    scaled = observed.x / observed.size[:, None] * likelihood.reference_size
    torch.testing.assert_close(decoded, scaled, rtol=1e-4, atol=2e-5)
    extreme = likelihood.decode_transform(torch.tensor([[-1e3], [1e3]]).expand(2, P))
    assert (extreme[0] == 0).all()
    assert torch.isfinite(extreme[1]).all()


@pytest.mark.parametrize("name", NAMES)
def test_decoding_some_features_and_more_dimensions(name):
    likelihood, values = fitted(name), torch.randn(3, 4, P)
    whole = likelihood.decode_transform(values)
    assert whole.shape == (3, 4, P)
    torch.testing.assert_close(whole[1], likelihood.decode_transform(values[1]))
    columns = torch.tensor([3, 0])
    torch.testing.assert_close(likelihood.decode_transform(values[..., columns], columns), whole[..., columns])


@pytest.mark.parametrize("name", NAMES)
def test_missing_values_decode_to_the_training_mean_of_the_transformed(name):
    observed = simulate(name)
    likelihood = fitted(name, observed)
    blank = Observed(torch.full((1, P), torch.nan), at_reference(likelihood, observed.take(torch.tensor([0]))).size,
                     None if observed.coverage is None else torch.zeros(1, P))  # fmt: skip
    decoded = likelihood.decode_transform(likelihood.encode_transform(blank))
    torch.testing.assert_close(decoded, likelihood.decode_transform(torch.zeros(1, P)))


def test_clip_moves_values_into_the_support():
    values = torch.tensor([[-0.2, 0.0, 0.5, 1.0, 1.3]])
    assert fitted("beta").clip(values).tolist() == [[0.0, 0.0, 0.5, 1.0, 1.0]]
    torch.testing.assert_close(fitted("normal").clip(values), values)


@pytest.mark.parametrize("name", ["normal", "nb", "betabinomial"])
def test_rows_are_taken_of_all_parts(name):
    observed = simulate(name)
    by_position = observed.take(torch.tensor([5, 2]))
    mask = torch.zeros(N, dtype=torch.bool)
    mask[[2, 5]] = True
    by_mask = observed.take(mask)
    for whole, position, masked in zip(observed, by_position, by_mask, strict=True):
        if whole is None:
            assert position is None
            assert masked is None
        else:
            torch.testing.assert_close(position, whole[[5, 2]])
            torch.testing.assert_close(masked, whole[[2, 5]])
    assert observed.take(torch.zeros(0, dtype=torch.int64)).x.shape == (0, P)


# ---------------------------------------------------------------------- some features


@pytest.mark.parametrize(("name", "options"), WITH_OPTIONS)
def test_a_likelihood_of_some_features_is_the_whole_one_there(name, options):
    """Same densities, and gradients that reach the parameters of these features alone; not where rates have a sum."""
    observed = simulate(name)
    likelihood = fitted(name, observed, **options)
    columns = torch.tensor([P - 1, 0])
    assert likelihood.separate == (name not in COUNTS or likelihood.size_is_factor)
    if not likelihood.separate:
        with pytest.raises(ValueError, match="all features at once"):
            likelihood.of_features(columns)
        return
    eta = 0.3 * torch.randn(2, len(observed.x), likelihood.n_heads, P, generator=torch.Generator().manual_seed(0))
    route = torch.tensor([[0], [1]])
    whole = likelihood.log_prob_features(eta, observed, route)[..., columns]
    some = likelihood.of_features(columns)
    found = some.log_prob_features(eta[..., columns], observed.of_features(columns), route)
    torch.testing.assert_close(found, whole)
    assert some.n_vars == 2 and likelihood.n_vars == P and not list(some.parameters())
    for parameter in likelihood.parameters():
        (gradient,) = torch.autograd.grad(found.sum(), parameter, retain_graph=True)
        (expected,) = torch.autograd.grad(whole.sum(), parameter, retain_graph=True)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
        assert not gradient[..., 1 : P - 1].any()
