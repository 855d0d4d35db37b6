from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.cross_decomposition import CCA
from torch import Tensor

from omicvae.stats.canonical import (
    bootstrap_interval,
    canonical_correlations,
    canonical_frame,
    count_correlated,
    fixed_direction_correlations,
    permutation_null,
    permuted_correlations,
)
from omicvae.stats.gaussian import block_slices

few = settings(max_examples=30, deadline=None, derandomize=True)


def random_covariance(d: int, seed: int) -> Tensor:
    half = torch.randn(d, d + 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return half @ half.mT / (d + 3)


def closed_form(covariance: Tensor, d_a: int) -> Tensor:
    """Hotelling (1936): squared correlations are the eigenvalues of ``Saa^-1 Sab Sbb^-1 Sba``."""
    a, b = slice(0, d_a), slice(d_a, None)
    product = torch.linalg.solve(covariance[a, a], covariance[a, b]) @ torch.linalg.solve(
        covariance[b, b], covariance[b, a]
    )
    squared = torch.linalg.eigvals(product).real.clamp_min(0)
    return squared.sort(descending=True).values[: min(d_a, len(covariance) - d_a)].sqrt()


def correlated_pair(n: int, d_a: int, d_b: int, rho: float) -> tuple[Tensor, Tensor]:
    """Samples whose first coordinates are correlated by ``rho``, in a random basis each."""
    a, b = torch.randn(n, d_a, dtype=torch.float64), torch.randn(n, d_b, dtype=torch.float64)
    b[:, 0] = rho * a[:, 0] + (1 - rho**2) ** 0.5 * b[:, 0]
    return a @ torch.randn(d_a, d_a, dtype=torch.float64), b @ torch.randn(d_b, d_b, dtype=torch.float64) + 5


class TestFrameOfTwoBlocks:
    @few
    @given(seed=st.integers(0, 10**6), d_a=st.integers(1, 5), d_b=st.integers(1, 5))
    def test_is_canonical_correlation_analysis(self, seed: int, d_a: int, d_b: int) -> None:
        covariance = random_covariance(d_a + d_b, seed)
        frame = canonical_frame(covariance, (d_a, d_b))
        torch.testing.assert_close(frame.correlations, closed_form(covariance, d_a), rtol=1e-6, atol=1e-7)
        maps = torch.cat([frame.coordinates(0), frame.coordinates(1)], 1)
        r = min(d_a, d_b)
        rho = torch.diag(frame.correlations)
        expected = torch.cat([torch.cat([torch.eye(r).double(), rho], 1), torch.cat([rho, torch.eye(r).double()], 1)])
        torch.testing.assert_close(maps.mT @ covariance @ maps, expected, rtol=0, atol=1e-6)

    def test_agrees_with_sklearn_on_samples(self) -> None:
        a, b = correlated_pair(300, 4, 3, 0.8)
        frame = canonical_frame(torch.cat([a, b], 1).mT.cov(), (4, 3))
        x, y = CCA(n_components=3, max_iter=5000, tol=1e-12).fit_transform(a.numpy(), b.numpy())
        reference = [np.corrcoef(x[:, k], y[:, k])[0, 1] for k in range(3)]
        # sklearn iterates; its later components inherit the error of deflation
        torch.testing.assert_close(frame.correlations, torch.tensor(reference, dtype=torch.float64), rtol=0, atol=2e-3)
        torch.testing.assert_close(canonical_correlations(a, b), frame.correlations, rtol=1e-8, atol=1e-8)

    def test_the_basis_of_a_block_does_not_matter(self) -> None:
        covariance = random_covariance(6, 0)
        change = torch.block_diag(torch.randn(2, 2).double(), torch.randn(4, 4).double())
        torch.testing.assert_close(
            canonical_frame(change @ covariance @ change.mT, (2, 4)).correlations,
            canonical_frame(covariance, (2, 4)).correlations,
            rtol=1e-5,
            atol=1e-7,
        )


class TestFrameOfManyBlocks:
    SIZES = (3, 4, 5)

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(seed=st.integers(0, 10**6))
    def test_directions_are_orthonormal_and_the_private_part_is_their_complement(self, seed: int) -> None:
        covariance = random_covariance(12, seed)
        frame = canonical_frame(covariance, self.SIZES)
        white = frame.whiten.mT @ covariance @ frame.whiten
        for k, (block, size) in enumerate(zip(block_slices(self.SIZES), self.SIZES, strict=True)):
            torch.testing.assert_close(white[block, block], torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-6)
            directions = frame.directions[k]
            torch.testing.assert_close(directions.mT @ directions, torch.eye(3, dtype=torch.float64))
            for r in range(4):
                private, shared = frame.private(k, r), frame.coordinates(k)[:, :r]
                assert private.shape == (12, size - r)
                assert (private[: block.start] == 0).all() and (private[block.stop :] == 0).all()
                both = torch.cat([shared, private], 1)  # together they lose nothing and count nothing twice
                torch.testing.assert_close(
                    both.mT @ covariance @ both, torch.eye(size, dtype=torch.float64), rtol=0, atol=1e-6
                )

    def test_a_latent_in_all_blocks_is_the_first_dimension(self) -> None:
        covariance = torch.eye(9, dtype=torch.float64)
        for i in (1, 3, 8):
            for j in (1, 3, 8):
                covariance[i, j] = 1.0 if i == j else 0.7
        frame = canonical_frame(covariance, (3, 3, 3))
        torch.testing.assert_close(frame.correlations[0], torch.tensor(0.7, dtype=torch.float64))
        assert frame.correlations[1:].abs().max() < 1e-8
        mean = frame.shared(1)[:, 0]
        torch.testing.assert_close(mean.abs()[[1, 3, 8]], torch.full((3,), 1 / 3, dtype=torch.float64))
        assert mean.abs()[[0, 2, 4, 5, 6, 7]].max() < 1e-8

    def test_blocks_that_share_nothing_still_have_a_frame(self) -> None:
        frame = canonical_frame(torch.eye(7), (3, 4))
        assert (frame.correlations.abs() < 1e-12).all()
        for directions in frame.directions:
            torch.testing.assert_close(directions.mT @ directions, torch.eye(3, dtype=torch.float64))


class TestSampleCorrelations:
    @few
    @given(seed=st.integers(0, 10**6), d_a=st.integers(1, 4), d_b=st.integers(1, 4))
    def test_equal_the_closed_form_of_the_sample_covariance(self, seed: int, d_a: int, d_b: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(40, d_a, generator=generator, dtype=torch.float64)
        b = torch.randn(40, d_b, generator=generator, dtype=torch.float64) + 3 * a[:, :1]
        expected = closed_form(torch.cat([a, b], 1).mT.cov(), d_a)
        torch.testing.assert_close(canonical_correlations(a, b), expected, rtol=1e-6, atol=1e-6)

    def test_repeated_columns_add_correlations_of_zero(self) -> None:
        a, b = correlated_pair(100, 3, 3, 0.9)
        found = canonical_correlations(torch.cat([a, a[:, :1]], 1), torch.cat([b, b[:, :1]], 1))
        assert found.shape == (4,)
        torch.testing.assert_close(found[:3], canonical_correlations(a, b))
        assert found[3] == 0

    def test_a_block_without_any_variance_correlates_with_nothing(self) -> None:
        assert (canonical_correlations(torch.full((20, 2), 0.1), torch.randn(20, 3)) == 0).all()


class TestFixedDirections:
    def test_is_the_mean_over_pairs_of_correlations_where_both_were_measured(self) -> None:
        n, r = 50, 3
        coordinates = [torch.randn(n, r, dtype=torch.float64) for _ in range(3)]
        coordinates[1] += coordinates[0]
        measured = [torch.rand(n) < 0.7 for _ in range(3)]
        expected = torch.zeros(r, dtype=torch.float64)
        for i, j in ((0, 1), (0, 2), (1, 2)):
            both = measured[i] & measured[j]
            for k in range(r):
                pair = torch.stack([coordinates[i][both, k], coordinates[j][both, k]])
                expected[k] += pair.corrcoef()[0, 1] / 3
        torch.testing.assert_close(fixed_direction_correlations(coordinates, measured), expected)
        for values, here in zip(coordinates, measured, strict=True):
            values[~here] = torch.nan  # what was not measured is not read
        torch.testing.assert_close(fixed_direction_correlations(coordinates, measured), expected)

    def test_nothing_measured_together_or_a_constant_coordinate_gives_zero(self) -> None:
        first = torch.arange(10) < 5
        pair = [torch.randn(10, 2), torch.randn(10, 2)]
        assert (fixed_direction_correlations(pair, [first, ~first]) == 0).all()
        everything = torch.ones(10, dtype=torch.bool)
        assert (fixed_direction_correlations([pair[0], torch.ones(10, 2)], [everything] * 2) == 0).all()


class TestPermutationNull:
    def test_unrelated_blocks_exceed_it_about_as_often_as_it_says(self) -> None:
        n, r, repeats = 40, 8, 60
        exceeded = 0
        for seed in range(repeats):
            coordinates = [torch.randn(n, r) for _ in range(3)]
            measured = [torch.ones(n, dtype=torch.bool), torch.rand(n) < 0.8, torch.rand(n) < 0.8]
            null = permutation_null(coordinates, measured, n_permutations=99, seed=seed)
            exceeded += int((fixed_direction_correlations(coordinates, measured) > null).sum())
        # binomial: 5 % of 480 is 24, sd 4.8
        assert abs(exceeded - 24) < 4 * 4.8

    def test_related_blocks_exceed_it(self) -> None:
        shared = torch.randn(60, 2)
        coordinates = [shared + 0.5 * torch.randn(60, 2) for _ in range(2)]
        measured = [torch.ones(60, dtype=torch.bool), torch.arange(60) < 40]
        null = permutation_null(coordinates, measured, n_permutations=200, seed=0)
        assert (fixed_direction_correlations(coordinates, measured) > null).all()

    def test_same_seed_same_null_and_unmeasured_rows_are_not_read(self) -> None:
        coordinates = [torch.randn(30, 2), torch.randn(30, 2)]
        measured = [torch.ones(30, dtype=torch.bool), torch.arange(30) < 20]
        null = permutation_null(coordinates, measured, n_permutations=50, seed=3)
        coordinates[1][20:] = torch.nan
        torch.testing.assert_close(permutation_null(coordinates, measured, n_permutations=50, seed=3), null)

    @pytest.mark.parametrize("level", [0.5, 0.9])
    def test_level_is_a_quantile(self, level: float) -> None:
        coordinates, measured = [torch.randn(50, 300), torch.randn(50, 300)], [torch.ones(50, dtype=torch.bool)] * 2
        null = permutation_null(coordinates, measured, n_permutations=60, seed=0, level=level)
        share = float((fixed_direction_correlations(coordinates, measured) < null).float().mean())
        assert abs(share - level) < 0.1  # 300 columns: sd 0.03


class TestCount:
    """Three blocks measured in part; the first dimensions have something in common, which falls along them."""

    @staticmethod
    def found(seed: int, strength: tuple[float, ...], n: int = 60, r: int = 8) -> int:
        g = torch.Generator().manual_seed(seed)
        shared = torch.zeros(r)
        shared[: len(strength)] = torch.tensor(strength)
        common = torch.randn(n, r, generator=g)
        noise = [torch.randn(n, r, generator=g) for _ in range(3)]
        coordinates = [shared.sqrt() * common + (1 - shared).sqrt() * one for one in noise]
        measured = [torch.ones(n, dtype=torch.bool), *(torch.rand(n, generator=g) < 0.8 for _ in range(2))]
        correlations = fixed_direction_correlations(coordinates, measured)
        permuted = permuted_correlations(coordinates, measured, n_permutations=99, seed=seed)
        return count_correlated(correlations, permuted, torch.linspace(0.6, 0.1, r))

    def test_too_many_no_more_often_than_it_says(self) -> None:
        # binomial: 5 % of 120 is 6, sd 2.4
        assert sum(self.found(seed, ()) > 0 for seed in range(120)) <= 6 + 3 * 2.4
        assert sum(self.found(seed, (0.8, 0.7, 0.6)) > 3 for seed in range(120)) <= 6 + 3 * 2.4

    def test_finds_most(self) -> None:
        assert sum(self.found(seed, (0.8, 0.7, 0.6)) == 3 for seed in range(40)) >= 32

    def test_a_hidden_dimension_does_not_end_the_count(self) -> None:
        permuted = 0.15 * torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        correlations, weights = torch.tensor([0.1, 0.6, 0.5, 0.0]), torch.tensor([0.6, 0.5, 0.4, 0.3])
        assert correlations[0] < permuted.quantile(0.95, 0)[0], "by itself, it is not told from chance"
        assert count_correlated(correlations, permuted, weights) == 3

    def test_dimensions_without_expected_correlation_are_not_counted(self) -> None:
        permuted = 0.1 * torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
        assert count_correlated(torch.tensor([0.9, 0.9, 0.9]), permuted, torch.tensor([0.5, 0.0, -0.1])) == 1
        assert count_correlated(torch.tensor([0.9, 0.9, 0.9]), permuted, torch.zeros(3)) == 0
        assert count_correlated(torch.tensor([0.9, 0.9, 0.9]), permuted, torch.ones(3)) == 3


class TestBootstrapInterval:
    @pytest.mark.parametrize("n", [10, 40])
    @pytest.mark.parametrize("rho", [0.0, 0.7, 0.97])
    def test_covers_as_often_as_it_says(self, n: int, rho: float) -> None:
        a, b = torch.randn(n, 1500, dtype=torch.float64), torch.randn(n, 1500, dtype=torch.float64)
        lower, upper = bootstrap_interval(a, rho * a + (1 - rho**2) ** 0.5 * b, n_bootstrap=100, level=0.9)
        coverage = float(((lower <= rho) & (rho <= upper)).double().mean())
        # 1500 columns: sd 0.008; up to 0.95 at ten rows is the price of Student's quantile. The percentile interval: 0.83
        assert 0.9 - 0.025 < coverage < 0.9 + 0.025 + 0.25 / n

    def test_heavy_tails_widen_it(self) -> None:
        n, columns, rho = 60, 800, 0.9
        divisor = torch.from_numpy(stats.chi2(5).rvs((n, columns), random_state=1) / 5).sqrt()  # Student's t, 5 df
        a, b = torch.randn(n, columns, dtype=torch.float64), torch.randn(n, columns, dtype=torch.float64)
        b = rho * a + (1 - rho**2) ** 0.5 * b
        lower, upper = bootstrap_interval(a / divisor, b / divisor, n_bootstrap=100, level=0.9)
        coverage = float(((lower <= rho) & (rho <= upper)).double().mean())
        # the interval of Gaussian data, with 1 / sqrt(n - 3), covers 0.78; outliers that the sample lacks are missed
        assert 0.83 < coverage < 0.95

    def test_its_width_is_that_of_another_implementation(self) -> None:
        n = 30
        a = torch.randn(n, 1, dtype=torch.float64).exp()
        b = a + torch.randn(n, 1, dtype=torch.float64)
        lower, upper = bootstrap_interval(a, b, n_bootstrap=4000, level=0.8)
        reference = stats.bootstrap(
            (a[:, 0].numpy(), b[:, 0].numpy()),
            lambda x, y, axis: np.arctanh(
                ((x - x.mean(axis, keepdims=True)) * (y - y.mean(axis, keepdims=True))).mean(axis)
                / (x.std(axis) * y.std(axis))
            ),
            paired=True, vectorized=True, n_resamples=4000, method="percentile", random_state=0,
        )  # fmt: skip
        expected = 2 * stats.t.ppf(0.9, n - 2) * (n / (n - 1)) ** 0.5 * reference.standard_error
        # each standard deviation is of 4000 draws: 1.1 %, and heavy-tailed
        np.testing.assert_allclose((upper.atanh() - lower.atanh()).item(), expected, rtol=0.06)
        center = torch.corrcoef(torch.stack([a[:, 0], b[:, 0]]))[0, 1].atanh()
        torch.testing.assert_close((upper.atanh() + lower.atanh())[0] / 2, center)

    def test_units_do_not_matter_and_sign_turns_it(self) -> None:
        a, b = torch.randn(15, 4), torch.randn(15, 4)
        lower, upper = bootstrap_interval(a, b, n_bootstrap=50, level=0.9, seed=2)
        for found, expected in zip(
            bootstrap_interval(1e3 * a - 7, -b / 9, n_bootstrap=50, level=0.9, seed=2), (-upper, -lower), strict=True
        ):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)

    def test_memory_is_bounded_without_changing_the_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        a, b = torch.randn(20, 3), torch.randn(20, 3)
        whole = bootstrap_interval(a, b, n_bootstrap=30, level=0.9)
        monkeypatch.setattr("omicvae.stats.canonical.HELD", 7 * 20)
        torch.testing.assert_close(bootstrap_interval(a, b, n_bootstrap=30, level=0.9), whole)

    def test_what_cannot_be_known_is_nan(self) -> None:
        a, b = torch.randn(12, 2), torch.randn(12, 2)
        b[:, 1] = 0.1
        lower, upper = bootstrap_interval(a, b, n_bootstrap=50, level=0.9)
        assert lower.isnan().tolist() == upper.isnan().tolist() == [False, True]
        for n in (0, 1, 2):
            for limit in bootstrap_interval(a[:n], b[:n], n_bootstrap=50, level=0.9):
                assert limit.isnan().all()

    def test_a_handful_of_samples_says_little_and_never_claims_too_much(self) -> None:
        for n in (3, 5):
            a, b = torch.randn(n, 500, dtype=torch.float64), torch.randn(n, 500, dtype=torch.float64)
            lower, upper = bootstrap_interval(a, 0.97 * a + 0.06**0.5 * b, n_bootstrap=100, level=0.9)
            assert (upper - lower).median() > 1
            rho = 0.97 / (0.97**2 + 0.06) ** 0.5
            assert ((lower <= rho) & (rho <= upper)).double().mean() > 0.9
