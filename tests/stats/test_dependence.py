from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from omicvae.stats.canonical import canonical_correlations
from omicvae.stats.dependence import canonical_sum, distance_correlation

few = settings(max_examples=25, deadline=None, derandomize=True)


def naive_distance_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Definition 3 of Szekely et al. (2007), entry by entry."""
    n = len(a)

    def centred(x: np.ndarray) -> list[list[float]]:
        distance = [[float(np.sqrt(((x[k] - x[l]) ** 2).sum())) for l in range(n)] for k in range(n)]
        row = [sum(distance[k]) / n for k in range(n)]
        grand = sum(row) / n
        return [[distance[k][l] - row[k] - row[l] + grand for l in range(n)] for k in range(n)]

    def covariance(A: list[list[float]], B: list[list[float]]) -> float:
        return sum(A[k][l] * B[k][l] for k in range(n) for l in range(n)) / n**2

    A, B = centred(a), centred(b)
    return float(np.sqrt(covariance(A, B) / np.sqrt(covariance(A, A) * covariance(B, B))))


class TestDistanceCorrelation:
    @few
    @given(seed=st.integers(0, 10**6), d_a=st.integers(1, 3), d_b=st.integers(1, 3))
    def test_is_its_definition(self, seed: int, d_a: int, d_b: int) -> None:
        rng = np.random.default_rng(seed)
        a = rng.standard_normal((9, d_a))
        b = np.sin(a[:, :1]) + rng.standard_normal((9, d_b))
        found = float(distance_correlation(torch.from_numpy(a), torch.from_numpy(b)))
        assert found == pytest.approx(naive_distance_correlation(a, b), abs=1e-4)  # 1e-8 is added below the root

    def test_ignores_shift_scale_and_rotation(self) -> None:
        a, b = torch.randn(40, 3), torch.randn(40, 2)
        b[:, 0] += a[:, 0].square()
        rotation, _ = torch.linalg.qr(torch.randn(3, 3))
        torch.testing.assert_close(
            distance_correlation(a, b), distance_correlation(5 * a @ rotation + 7, -2 * b), rtol=0, atol=1e-4
        )

    def test_is_one_for_a_copy_and_sees_dependence_without_correlation(self) -> None:
        a = torch.randn(200, 1)
        assert float(distance_correlation(a, 3 * a + 1)) == pytest.approx(1, abs=1e-4)
        independent = distance_correlation(a, torch.randn(200, 1).square())
        assert distance_correlation(a, a.square()) > 2 * independent

    def test_gradient_climbs_to_dependence(self) -> None:
        a, b = torch.randn(50, 2), torch.randn(50, 2, requires_grad=True)
        before = distance_correlation(a, b)
        (gradient,) = torch.autograd.grad(before, b)
        assert distance_correlation(a, b + gradient / gradient.abs().max()) > before

    @pytest.mark.parametrize("n", [12, 16, 32])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_codes_that_have_collapsed_give_zero_and_a_finite_gradient(self, n: int, dtype: torch.dtype) -> None:
        a = torch.zeros(n, 2, dtype=dtype, requires_grad=True)
        b = torch.randn(n, 2, dtype=dtype, requires_grad=True)
        value = distance_correlation(a, b)
        value.backward()
        assert value.detach().abs() < 1e-2
        assert a.grad is not None and a.grad.isfinite().all()
        assert b.grad is not None and b.grad.isfinite().all()


class TestCanonicalSum:
    @few
    @given(seed=st.integers(0, 10**6), d_a=st.integers(1, 4), d_b=st.integers(1, 4))
    def test_is_the_sum_of_canonical_correlations(self, seed: int, d_a: int, d_b: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        a = torch.randn(60, d_a, generator=generator)
        b = torch.randn(60, d_b, generator=generator) + a[:, :1]
        expected = canonical_correlations(a, b).sum()
        # a ridge of 1e-4 against variances of about 1
        torch.testing.assert_close(canonical_sum(a, b).double(), expected, rtol=2e-3, atol=2e-3)

    def test_gradient_climbs_and_is_that_of_finite_differences(self) -> None:
        a, b = torch.randn(12, 2, dtype=torch.float64), torch.randn(12, 2, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: canonical_sum(a, x), (b,), fast_mode=True)
        before = canonical_sum(a, b)
        (gradient,) = torch.autograd.grad(before, b)
        assert canonical_sum(a, b + 0.1 * gradient / gradient.abs().max()) > before

    def test_codes_that_have_collapsed_give_a_finite_gradient(self) -> None:
        a, b = torch.zeros(12, 2, requires_grad=True), torch.randn(12, 2, requires_grad=True)
        value = canonical_sum(a, b)
        value.backward()
        assert value.detach().abs() < 1e-3
        assert a.grad is not None and a.grad.isfinite().all()
