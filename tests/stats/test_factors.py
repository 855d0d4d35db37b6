from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from omicvae.stats import factors
from omicvae.stats.factors import probabilistic_pca


@pytest.fixture(autouse=True, params=["exact", "by iteration"])
def algorithm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds for the algorithm of large matrices as well."""
    if request.param == "by iteration":
        monkeypatch.setattr(factors, "LARGE", 0)


def low_rank(n: int, p: int, d: int, noise: float) -> torch.Tensor:
    x = torch.randn(n, d, dtype=torch.float64) * torch.linspace(3, 2, d) @ torch.randn(d, p, dtype=torch.float64)
    x = x + noise * torch.randn(n, p, dtype=torch.float64)
    return x - x.mean(0)


@pytest.mark.parametrize(("n", "p"), [(200, 12), (30, 90), (40, 40)])
def test_is_sklearns_up_to_sign_and_its_divisor(n: int, p: int) -> None:
    """sklearn divides by ``n - 1``, and takes the left-over variance over the rank instead of over ``p``."""
    d = 4
    x = low_rank(n, p, d, 0.5)
    reference = PCA(n_components=d, svd_solver="full").fit(x.numpy())
    found = probabilistic_pca(x.float(), d)
    overlap = found.directions.double().mT @ torch.from_numpy(reference.components_).mT
    torch.testing.assert_close(overlap.abs(), torch.eye(d, dtype=torch.float64), rtol=0, atol=1e-4)
    variance = torch.from_numpy(reference.explained_variance_) * (n - 1) / n
    torch.testing.assert_close(found.loading.double().square() + found.noise, variance, rtol=1e-4, atol=1e-4)
    left_over = reference.noise_variance_ * (n - 1) / n * (min(n, p) - d) / (p - d)
    assert found.noise == pytest.approx(left_over, rel=1e-4)


@pytest.mark.parametrize(("n", "p"), [(60, 10), (25, 60)])
def test_no_nearby_model_is_more_likely(n: int, p: int) -> None:
    """It is the maximum of the likelihood of ``N(0, W W' + sigma^2 I)``, whichever of n and p is larger."""
    x = low_rank(n, p, 3, 0.7)
    found = probabilistic_pca(x, 3)
    W, eye = found.directions.double() * found.loading.double(), torch.eye(p, dtype=torch.float64)

    def log_likelihood(W: torch.Tensor, noise: float) -> float:
        covariance = W @ W.mT + noise * eye
        density = torch.distributions.MultivariateNormal(torch.zeros(p).double(), covariance)
        return float(density.log_prob(x).mean())

    best = log_likelihood(W, found.noise)
    for factor in (0.97, 1.03):
        assert log_likelihood(W, found.noise * factor) < best
        assert log_likelihood(W * factor, found.noise) < best
    for _ in range(10):
        assert log_likelihood(W + 0.03 * torch.randn_like(W), found.noise) < best


def test_precision_is_the_evidence_of_one_sample() -> None:
    """Posterior precision of a factor is its prior precision 1 plus ``precision``."""
    found = probabilistic_pca(low_rank(100, 20, 3, 0.5), 3)
    W = (found.directions * found.loading).double()
    posterior = torch.eye(3).double() + W.mT @ W / found.noise
    torch.testing.assert_close(posterior.diagonal() - 1, found.precision.double(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("p", [6, 50])
def test_data_without_noise_or_of_lower_rank_give_finite_factors(p: int) -> None:
    """Constant features and duplicated samples are common in small cohorts."""
    x = torch.zeros(20, p)
    x[:10, 0], x[10:, 0] = 1.0, -1.0
    found = probabilistic_pca(x, 4)
    assert all(t.isfinite().all() for t in (found.directions, found.loading, found.precision))
    assert found.noise > 0 and (found.loading > 0).all()
    assert abs(float(found.directions[0, 0])) == pytest.approx(1, abs=1e-4)
    assert found.loading[0] == pytest.approx(1, abs=1e-3)


def test_samples_in_another_order_give_the_same_factors() -> None:
    x = low_rank(30, 50, 3, 0.5)
    a, b = probabilistic_pca(x, 3), probabilistic_pca(x[torch.randperm(30)], 3)
    torch.testing.assert_close(a.loading, b.loading, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close((a.directions * b.directions).sum(0).abs(), torch.ones(3), rtol=0, atol=1e-4)
    assert np.isclose(a.noise, b.noise)


def test_own_factors_hold_what_an_assay_says_about_common_ones() -> None:
    """Precision W' Psi^-1 W and information W' Psi^-1 x of the common factors, in coordinates where it is diagonal."""
    g = torch.Generator().manual_seed(0)
    W = torch.randn(9, 4, generator=g, dtype=torch.float64)
    noise = 0.3 + torch.rand(9, generator=g, dtype=torch.float64)
    x = torch.randn(5, 9, generator=g, dtype=torch.float64)
    found = factors.own_factors(W, noise, 6)  # there are only four
    R, precision = found.rotation, found.potentials.precision.double()
    torch.testing.assert_close(R.mT @ R, torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(R * precision @ R.mT, W.mT / noise @ W, rtol=1e-5, atol=1e-5)
    information = x @ found.potentials.weight.double() * precision @ R.mT
    torch.testing.assert_close(information, x / noise @ W, rtol=1e-5, atol=1e-5)


def test_own_factors_leave_out_what_an_assay_says_nothing_about() -> None:
    g = torch.Generator().manual_seed(0)
    W = torch.randn(9, 4, generator=g, dtype=torch.float64)
    W[:, 1] = 0
    found = factors.own_factors(W, torch.ones(9), 6)
    assert found.rotation.shape == (4, 3)
    torch.testing.assert_close(found.rotation[1], torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)
    assert (found.potentials.precision.diff() <= 0).all()
    assert factors.own_factors(W, torch.ones(9), 2).rotation.shape == (4, 2)
    assert factors.own_factors(torch.zeros(9, 4), torch.ones(9), 2).potentials.weight.shape == (9, 0)


def test_uncertain_weights_say_less() -> None:
    """Their covariance adds to the precision, as in the factors' own posterior, and not to the information."""
    W, C = torch.randn(9, 3, generator=torch.Generator().manual_seed(0)), 2 * torch.eye(3)
    known, uncertain = factors.own_factors(W, torch.ones(9), 3), factors.own_factors(W, torch.ones(9), 3, C)
    torch.testing.assert_close(uncertain.potentials.precision, known.potentials.precision + 2)
    torch.testing.assert_close(
        uncertain.potentials.weight * uncertain.potentials.precision,
        known.potentials.weight * known.potentials.precision,
    )
