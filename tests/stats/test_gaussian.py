from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from omicvae.stats.gaussian import (
    CovarianceGaussian,
    GaussianPrior,
    block_slices,
    complete_blocks,
    conditional,
    diagonal_kl,
    gaussian_prior,
    potential_kl,
    potential_posterior,
    shrink_cross_blocks,
    shrink_singular_values,
    standardise_blocks,
    symmetric_power,
)

SIZES = (3, 1, 4)
D, B = sum(SIZES), 6
few = settings(max_examples=40, deadline=None, derandomize=True)


def random_covariance(d: int, seed: int, rank: int | None = None) -> Tensor:
    """Wishart-like, of full rank unless ``rank`` is given."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.randn(d, rank or 2 * d, generator=generator, dtype=torch.float64)
    return half @ half.mT / half.shape[1]


@pytest.fixture
def prior() -> GaussianPrior:
    return gaussian_prior(torch.linspace(-1, 1, D, dtype=torch.float64), random_covariance(D, 0))


@pytest.fixture
def potentials() -> tuple[Tensor, Tensor]:
    """Locations and precisions; row 0 has no evidence at all, and no row has any on the second block."""
    generator = torch.Generator().manual_seed(1)
    location = torch.randn(B, D, generator=generator, dtype=torch.float64)
    precision = 5 * torch.rand(B, D, generator=generator, dtype=torch.float64)
    precision[0] = 0
    precision[:, block_slices(SIZES)[1]] = 0
    return location, precision


class TestPrior:
    def test_matrices_are_those_of_the_covariance(self) -> None:
        covariance = random_covariance(D, 3)
        prior = gaussian_prior(torch.zeros(D, dtype=torch.float64), covariance)
        torch.testing.assert_close(prior.precision @ covariance, torch.eye(D, dtype=torch.float64))
        torch.testing.assert_close(prior.tril @ prior.tril.mT, covariance)
        torch.testing.assert_close(prior.logdet, torch.logdet(covariance))

    def test_an_ill_conditioned_covariance_is_inverted_in_float64_for_float32_networks(self) -> None:
        """float32 alone has no correct digit left at a condition number of 1e7."""
        scale = torch.logspace(0, -7, D, dtype=torch.float64)
        basis, _ = torch.linalg.qr(random_covariance(D, 4))
        covariance = (basis * scale) @ basis.mT
        prior = gaussian_prior(torch.zeros(D), covariance)
        assert prior.precision.dtype == torch.float32
        torch.testing.assert_close(prior.precision.double(), (basis / scale) @ basis.mT, rtol=1e-5, atol=1)

    def test_a_covariance_that_is_not_positive_definite_is_refused(self) -> None:
        with pytest.raises(torch.linalg.LinAlgError):
            gaussian_prior(torch.zeros(2), torch.tensor([[1.0, 2.0], [2.0, 1.0]]))


class TestPotentialPosterior:
    def test_equals_conditioning_on_noisy_observations(
        self, prior: GaussianPrior, potentials: tuple[Tensor, Tensor]
    ) -> None:
        """A potential is an observation with noise of variance 1 / precision: the Kalman update, row by row."""
        location, precision = potentials
        found = potential_posterior(prior, location, precision)
        for row in range(B):
            seen = precision[row] > 0
            H = torch.eye(D, dtype=torch.float64)[seen]
            S, R = prior.covariance, torch.diag(1 / precision[row, seen])
            gain = S @ H.mT @ torch.linalg.inv(H @ S @ H.mT + R)
            mean = prior.mean + gain @ (location[row, seen] - prior.mean[seen])
            torch.testing.assert_close(found.mean[row], mean)
            torch.testing.assert_close(found.covariance()[row], S - gain @ H @ S)

    def test_without_evidence_it_is_the_prior_whatever_the_location(self, prior: GaussianPrior) -> None:
        found = potential_posterior(prior, torch.full((1, D), 1e6, dtype=torch.float64), torch.zeros(1, D).double())
        torch.testing.assert_close(found.mean[0], prior.mean)
        torch.testing.assert_close(found.covariance()[0], prior.covariance)
        assert abs(float(potential_kl(found, prior, torch.zeros(1, D).double()))) < 1e-10

    def test_divergence_is_that_of_torch(self, prior: GaussianPrior, potentials: tuple[Tensor, Tensor]) -> None:
        location, precision = potentials
        q = potential_posterior(prior, location, precision)
        reference = kl_divergence(
            MultivariateNormal(q.mean, q.covariance()), MultivariateNormal(prior.mean, prior.covariance)
        )
        torch.testing.assert_close(potential_kl(q, prior, precision), reference)

    @few
    @given(seed=st.integers(0, 10**6), strength=st.floats(-4, 4))
    def test_divergence_is_never_negative(self, seed: int, strength: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        prior = gaussian_prior(torch.zeros(D), standardise_blocks(random_covariance(D, seed), SIZES))
        location = torch.randn(B, D, generator=generator)
        precision = torch.rand(B, D, generator=generator) * 10**strength
        q = potential_posterior(prior, location, precision)
        # float32, as in training: terms of size D log(10^4) cancel, with about 1e-6 relative error each
        assert potential_kl(q, prior, precision).min() > -1e-3

    def test_projection_density_and_draws_agree_with_the_dense_gaussian(
        self, prior: GaussianPrior, potentials: tuple[Tensor, Tensor]
    ) -> None:
        q = potential_posterior(prior, *potentials)
        dense = MultivariateNormal(q.mean, q.covariance())
        matrix = torch.randn(D, 2, dtype=torch.float64)
        mean, variance = q.project(matrix)
        torch.testing.assert_close(mean, q.mean @ matrix)
        torch.testing.assert_close(
            variance, torch.diagonal(matrix.mT @ dense.covariance_matrix @ matrix, dim1=-2, dim2=-1)
        )
        value = torch.randn(5, B, D, dtype=torch.float64)
        torch.testing.assert_close(q.log_prob(value), dense.log_prob(value))
        draws = q.rsample(20_000)
        assert draws.shape == (20_000, B, D)
        # standard errors: sd / sqrt(n) of a mean, about 1.5 sd^2 / sqrt(n) of a covariance; 5 of them
        sd = q.covariance().diagonal(dim1=-2, dim2=-1).sqrt()
        assert ((draws.mean(0) - q.mean).abs() < 5 * sd / 141).all()
        scaled = (draws - q.mean) / sd
        sample = torch.einsum("sbi,sbj->bij", scaled, scaled) / 20_000
        assert (sample - q.covariance() / (sd.unsqueeze(-1) * sd.unsqueeze(-2))).abs().max() < 5 * 1.5 / 141

    def test_draws_pass_gradients_to_the_potentials(self, prior: GaussianPrior) -> None:
        location = torch.zeros(2, D, dtype=torch.float64, requires_grad=True)
        precision = torch.ones(2, D, dtype=torch.float64, requires_grad=True)
        potential_posterior(prior, location, precision).rsample(3).square().sum().backward()
        assert location.grad is not None and location.grad.abs().min() > 0
        assert precision.grad is not None and precision.grad.isfinite().all()


class TestCovarianceGaussian:
    def test_agrees_with_torch(self, prior: GaussianPrior) -> None:
        tril = torch.stack([torch.linalg.cholesky(random_covariance(D, 10 + b)) for b in range(B)])
        q = CovarianceGaussian(torch.randn(B, D, dtype=torch.float64), tril)
        dense = MultivariateNormal(q.mean, scale_tril=tril)
        matrix, value = torch.randn(D, 3, dtype=torch.float64), torch.randn(4, B, D, dtype=torch.float64)
        torch.testing.assert_close(q.covariance(), dense.covariance_matrix)
        torch.testing.assert_close(q.log_prob(value), dense.log_prob(value))
        torch.testing.assert_close(q.kl(prior), kl_divergence(dense, MultivariateNormal(prior.mean, prior.covariance)))
        mean, variance = q.project(matrix)
        torch.testing.assert_close(mean, q.mean @ matrix)
        torch.testing.assert_close(variance, torch.diagonal(matrix.mT @ q.covariance() @ matrix, dim1=-2, dim2=-1))

    def test_draws_have_its_moments(self) -> None:
        tril = torch.linalg.cholesky(random_covariance(D, 2)).unsqueeze(0)
        draws = CovarianceGaussian(torch.full((1, D), 3.0, dtype=torch.float64), tril).rsample(20_000)[:, 0]
        covariance = (tril @ tril.mT)[0]
        assert ((draws.mean(0) - 3).abs() < 5 * covariance.diagonal().sqrt() / 141).all()
        assert (draws.mT.cov() - covariance).abs().max() < 5 * 1.5 * covariance.diagonal().max() / 141


def test_diagonal_divergence_is_that_of_torch() -> None:
    mean, variance = torch.randn(B, D), torch.rand(B, D) + 0.1
    q = Independent(Normal(mean, variance.sqrt()), 1)
    p = Independent(Normal(torch.zeros(D), torch.ones(D)), 1)
    torch.testing.assert_close(diagonal_kl(mean, variance), kl_divergence(q, p))


class TestConditional:
    @few
    @given(seed=st.integers(0, 10**6), seen=st.lists(st.booleans(), min_size=D, max_size=D))
    def test_is_the_textbook_one_through_the_precision_matrix(self, seed: int, seen: list[bool]) -> None:
        r""":math:`A = -P_{mm}^{-1} P_{mo}` and covariance :math:`P_{mm}^{-1}`: a route that never inverts ``S_oo``."""
        prior = gaussian_prior(torch.zeros(D, dtype=torch.float64), random_covariance(D, seed))
        observed = torch.tensor(seen)
        A, tril = conditional(prior, observed)
        P = torch.linalg.inv(prior.covariance)
        covariance = torch.linalg.inv(P[~observed][:, ~observed])
        assert A.shape == (D - sum(seen), sum(seen))
        torch.testing.assert_close(A, -covariance @ P[~observed][:, observed], rtol=1e-6, atol=1e-8)
        # the code adds 1e-6 to the diagonal
        torch.testing.assert_close(tril @ tril.mT, covariance, rtol=1e-6, atol=1.1e-6)


def test_blocks_lie_one_after_the_other() -> None:
    assert [(b.start, b.stop) for b in block_slices(SIZES)] == [(0, 3), (3, 4), (4, 8)]


class TestSymmetricPower:
    def test_inverse_root_whitens_and_keeps_the_basis(self) -> None:
        covariance = random_covariance(5, 0)
        root = symmetric_power(covariance, -0.5)
        torch.testing.assert_close(root, root.mT)
        torch.testing.assert_close(root @ covariance @ root, torch.eye(5, dtype=torch.float64))
        torch.testing.assert_close(symmetric_power(covariance, 0.5) @ root, torch.eye(5, dtype=torch.float64))

    def test_a_singular_matrix_has_a_finite_inverse_root(self) -> None:
        root = symmetric_power(torch.diag(torch.tensor([4.0, 0.0])), -0.5, floor=1e-6)
        torch.testing.assert_close(root, torch.diag(torch.tensor([0.5, 1 / math.sqrt(4e-6)], dtype=torch.float64)))
        assert symmetric_power(torch.zeros(2, 2), -0.5).isfinite().all()


class TestStandardiseBlocks:
    @few
    @given(
        sizes=st.lists(st.integers(1, 4), min_size=2, max_size=4),
        seed=st.integers(0, 10**6),
        rank=st.integers(1, 12),
        floor=st.sampled_from([1e-2, 1e-3]),
    )
    def test_blocks_are_identities_and_the_whole_is_positive_definite(
        self, sizes: list[int], seed: int, rank: int, floor: float
    ) -> None:
        """Also where the covariance has less than full rank, as that of few samples has."""
        result = standardise_blocks(random_covariance(sum(sizes), seed, rank), sizes, floor)
        torch.testing.assert_close(result, result.mT)
        for b in block_slices(sizes):
            torch.testing.assert_close(result[b, b], torch.eye(b.stop - b.start, dtype=torch.float64))
        # the last whitening divides by eigenvalues of diagonal blocks, which are at most the number of latents
        assert torch.linalg.eigvalsh(result)[0] > floor / (2 * sum(sizes))
        torch.linalg.cholesky(result.float())

    @few
    @given(seed=st.integers(0, 10**6), scale=st.floats(0.01, 100))
    def test_cross_blocks_keep_their_canonical_correlations_in_any_units(self, seed: int, scale: float) -> None:
        covariance = random_covariance(D, seed)
        units = torch.cat([torch.full((s,), scale**i, dtype=torch.float64) for i, s in enumerate(SIZES)])
        result = standardise_blocks(covariance, SIZES, floor=0.0)
        torch.testing.assert_close(
            standardise_blocks(covariance * torch.outer(units, units), SIZES, floor=0.0), result, rtol=1e-6, atol=1e-8
        )
        a, _, b = block_slices(SIZES)
        squared = torch.linalg.eigvals(
            torch.linalg.solve(covariance[a, a], covariance[a, b])
            @ torch.linalg.solve(covariance[b, b], covariance[b, a])
        ).real
        expected = squared.clamp_min(0).sqrt().sort(descending=True).values
        torch.testing.assert_close(torch.linalg.svdvals(result[a, b]), expected, rtol=1e-5, atol=1e-6)

    def test_a_standard_covariance_is_left_as_it_is(self) -> None:
        once = standardise_blocks(random_covariance(D, 7), SIZES)
        torch.testing.assert_close(standardise_blocks(once, SIZES), once)


class TestShrinkage:
    def test_correlations_of_independent_samples_vanish(self) -> None:
        """Singular values of noise stay below the edge but for fluctuations of order n^(-1/2) d^(-1/6)."""
        n, d_a, d_b = 400, 12, 8
        killed = 0
        for _ in range(50):
            block = torch.randn(d_a, n) @ torch.randn(n, d_b) / n
            shrunk = shrink_singular_values(block, n)
            assert shrunk.norm() < 0.5 * block.norm()
            killed += int(shrunk.norm() == 0)
        assert killed >= 35  # the largest of pure noise passes its edge with probability 0.12: 4 standard deviations

    def test_a_strong_correlation_is_kept_and_noise_beside_it_removed(self) -> None:
        n, d = 400, 10
        truth = torch.zeros(d, d, dtype=torch.float64)
        truth[0, 0] = 0.9
        block = truth + torch.randn(d, d, dtype=torch.float64) / math.sqrt(n)
        shrunk = shrink_singular_values(block, n)
        first, second = torch.linalg.svdvals(shrunk)[:2].tolist()
        assert abs(first - 0.9) < 4 / math.sqrt(n)
        assert second < 0.15  # of 0.32 before; noise passes its edge, by little, once in about ten times
        assert (shrunk - truth).norm() < 0.6 * (block - truth).norm()

    @few
    @given(seed=st.integers(0, 10**6), n=st.floats(2, 1e6))
    def test_singular_values_shrink_in_their_order_along_the_same_directions(self, seed: int, n: float) -> None:
        block = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        U, s, Vh = torch.linalg.svd(block, full_matrices=False)
        kept = U.mT @ shrink_singular_values(block, n) @ Vh.mT
        torch.testing.assert_close(kept, torch.diag(kept.diagonal()), rtol=0, atol=1e-9)
        assert (kept.diagonal() <= s + 1e-9).all() and (kept.diagonal() >= -1e-9).all()
        assert (kept.diagonal().diff() <= 1e-9).all()

    @pytest.mark.parametrize(("d_a", "d_b", "n"), [(3, 8, 50), (8, 3, 50), (5, 5, 400)])
    def test_is_the_published_shrinker(self, d_a: int, d_b: int, n: int) -> None:
        r"""In the units of the paper: noise of variance 1 / columns, so that values are multiplied by
        :math:`\sqrt{n / d_b}`; then :math:`\eta(y) = \sqrt{(y^2 - \beta - 1)^2 - 4 \beta} / y` above
        :math:`1 + \sqrt\beta`, with :math:`\beta` rows over columns.
        """
        U, _ = torch.linalg.qr(torch.randn(d_a, 3, dtype=torch.float64))
        V, _ = torch.linalg.qr(torch.randn(d_b, 3, dtype=torch.float64))
        unit, beta = math.sqrt(n / d_b), d_a / d_b
        edge = 1 + math.sqrt(beta)
        y = torch.tensor([2.5, 1.01, 0.01], dtype=torch.float64) * edge
        expected = torch.sqrt((y**2 - beta - 1) ** 2 - 4 * beta) / y
        expected[2] = 0
        found = shrink_singular_values((U * y / unit) @ V.mT, n) * unit
        torch.testing.assert_close(U.mT @ found @ V, torch.diag(expected), rtol=1e-9, atol=1e-9)

    def test_many_samples_change_nothing(self) -> None:
        block = torch.randn(5, 3, dtype=torch.float64)
        torch.testing.assert_close(shrink_singular_values(block, 1e12), block, rtol=1e-8, atol=1e-8)

    def test_no_sample_gives_no_correlation(self) -> None:
        shrunk = shrink_singular_values(torch.ones(2, 3), 0)
        assert shrunk.dtype == torch.float64 and (shrunk == 0).all()

    def test_pairs_never_measured_together_are_independent_given_the_others(self) -> None:
        correlation = standardise_blocks(random_covariance(D, 5), SIZES)
        pairs = torch.tensor([[100.0, 0, 1e6], [0, 100, 1e6], [1e6, 1e6, 100]])
        shrunk = shrink_cross_blocks(correlation, SIZES, pairs)
        a, b, c = block_slices(SIZES)
        assert torch.linalg.inv(shrunk)[a, b].abs().max() < 1e-8
        assert (shrunk[a, b] != correlation[a, b]).all()
        torch.testing.assert_close(shrunk[a, c], correlation[a, c], rtol=0.05, atol=0.02)
        assert torch.linalg.eigvalsh(shrunk)[0] > 0
        for block in (a, b, c):
            torch.testing.assert_close(shrunk[block, block], torch.eye(block.stop - block.start, dtype=torch.float64))


class TestCompletion:
    """Blocks of modalities never measured together."""

    def test_a_chain_is_completed_exactly(self):
        """a - c - b: with a and b independent given c, the truth is recovered from the two measured blocks."""
        generator = torch.Generator().manual_seed(0)
        R_ac, R_cb = (
            0.5 * torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0] for _ in "ab"
        )
        truth = torch.eye(9, dtype=torch.float64)
        truth[0:3, 6:9], truth[6:9, 0:3] = R_ac, R_ac.mT
        truth[6:9, 3:6], truth[3:6, 6:9] = R_cb, R_cb.mT
        truth[0:3, 3:6] = R_ac @ R_cb
        truth[3:6, 0:3] = truth[0:3, 3:6].mT
        pairs = torch.tensor([[9, 0, 9], [0, 9, 9], [9, 9, 9]])
        wrong = truth.clone()
        wrong[0:3, 3:6] = wrong[3:6, 0:3] = 7.0
        torch.testing.assert_close(complete_blocks(wrong, [3, 3, 3], pairs), truth)
        precision = torch.linalg.inv(complete_blocks(wrong, [3, 3, 3], pairs))
        assert precision[0:3, 3:6].abs().max() < 1e-10  # independence given the rest is a zero of the precision

    def test_several_unknown_pairs_become_zeros_of_the_precision(self):
        """Four modalities in a star around the last: all pairs of the others are unknown."""
        star = torch.eye(4, dtype=torch.float64)
        star[3, :3] = star[:3, 3] = torch.tensor([0.9, 0.5, -0.7])
        pairs = torch.eye(4)
        pairs[3, :] = pairs[:, 3] = 5
        precision = torch.linalg.inv(complete_blocks(star, [1, 1, 1, 1], pairs))
        assert precision[:3, :3].fill_diagonal_(0.0).abs().max() < 1e-6

    def test_without_a_link_the_block_is_zero(self):
        two = torch.tensor([[1.0, 0.4], [0.4, 1.0]], dtype=torch.float64)
        torch.testing.assert_close(complete_blocks(two, [1, 1], torch.eye(2)), torch.eye(2, dtype=torch.float64))
