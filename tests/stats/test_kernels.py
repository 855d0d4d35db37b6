from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import rbf_kernel

from omicvae.stats.kernels import KernelRows, MixedKernel


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("nonlinear", "gamma"), [(0.0, 0.5), (0.5, 0.5), (0.3, 2.0), (1.0, 0.1)])
def test_equals_the_linear_and_radial_kernels_of_scikit_learn(nonlinear, gamma):
    a, b = normal(7, 30), normal(5, 30, seed=1)
    expected = (1 - nonlinear) * a @ b.T / 30 + nonlinear * rbf_kernel(a, b, gamma / 30)
    np.testing.assert_allclose(MixedKernel(nonlinear, gamma)(a, b), expected, atol=1e-5)  # float32 products


def test_a_row_is_at_distance_zero_from_itself_whatever_its_length():
    x = normal(4, 2000) * np.array([[1e-3], [1], [30], [300]], dtype=np.float32)
    # float32: the squared length of the last row is 1.8e8 and known to 1e-7 of that, which the exponent has over p.
    np.testing.assert_allclose(np.diag(MixedKernel(1.0, 0.5)(x, x)), 1.0, atol=0.02)
    assert (MixedKernel(1.0, 0.5)(x, x) <= 1).all()


def test_exact_rows_hold_the_kernel_itself():
    x, new = normal(20, 6), normal(3, 6, seed=1)
    kernel = MixedKernel()
    rows = KernelRows(kernel, x, limit=20)
    assert rows.exact
    np.testing.assert_array_equal(rows.features(new), kernel(new, x))
    a, b = np.array([3, 1]), np.array([0, 7, 19])
    np.testing.assert_array_equal(rows.inner(a, b), kernel(x, x)[np.ix_(a, b)])


@pytest.mark.parametrize("limit", [20, 12])
def test_weights_give_new_rows_what_the_dual_form_gives(limit):
    """sum_i dual_i k(x_i, new), in whichever features the rows are held."""
    x, new, dual = normal(20, 6), normal(3, 6, seed=1), normal(9, 2, seed=2).astype(float)
    rows, chosen = KernelRows(MixedKernel(), x, limit=limit), np.array([0, 2, 3, 7, 11, 12, 15, 18, 19])
    approximate = rows.features(new) @ rows.features(x).T
    expected = approximate[:, chosen] @ dual if limit < 20 else MixedKernel()(new, x[chosen]) @ dual
    np.testing.assert_allclose(rows.features(new) @ rows.weights(chosen, dual), expected, rtol=1e-9, atol=1e-9)


def test_nystroem_with_every_row_as_a_landmark_is_exact():
    x, new = normal(40, 8), normal(5, 8, seed=1)
    kernel = MixedKernel()
    gram = kernel(x, x)
    rows = KernelRows.restored(kernel, x, np.linalg.cholesky(gram + 1e-10 * np.eye(40)))
    np.testing.assert_allclose(rows.features(x) @ rows.features(x).T, gram, atol=1e-6)
    np.testing.assert_allclose(rows.features(new) @ rows.features(x).T, kernel(new, x), atol=1e-6)


@pytest.mark.parametrize("n_features", [3, 9])
def test_nystroem_is_exact_where_landmarks_span_all_rows(n_features):
    """A linear kernel has the rank of the features: more landmarks than that lose nothing but their jitter."""
    x = normal(200, n_features)
    rows = KernelRows(MixedKernel(nonlinear=0.0), x, limit=50)
    everyone = np.arange(200)
    assert not rows.exact
    assert rows.training.shape == (200, 50)
    np.testing.assert_allclose(rows.inner(everyone, everyone), x @ x.T / n_features, atol=1e-4)


def test_nystroem_never_overstates_a_kernel():
    """It is a projection, so that what is left out is positive semi-definite."""
    x = normal(100, 4)
    rows = KernelRows(MixedKernel(), x, limit=30)
    left = MixedKernel()(x, x) - rows.inner(np.arange(100), np.arange(100))
    assert np.linalg.eigvalsh(left).min() > -1e-5
    more = KernelRows(MixedKernel(), x, limit=90)
    assert np.trace(MixedKernel()(x, x) - more.inner(np.arange(100), np.arange(100))) < np.trace(left)


@pytest.mark.parametrize("nonlinear", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("x", [np.zeros((60, 3), np.float32), np.repeat(normal(2, 300), 30, axis=0)])
def test_constant_and_repeated_rows_have_finite_features(x, nonlinear):
    rows = KernelRows(MixedKernel(nonlinear), x, limit=20)
    assert np.isfinite(rows.training).all()
    np.testing.assert_allclose(rows.training @ rows.training.T, MixedKernel(nonlinear)(x, x), atol=1e-4)


@pytest.mark.parametrize("limit", [30, 20])
def test_restored_rows_give_the_same_features(limit):
    x, new = normal(30, 5), normal(4, 5, seed=1)
    rows = KernelRows(MixedKernel(), x, limit=limit)
    again = KernelRows.restored(rows.kernel, rows.landmarks, rows.factor)
    np.testing.assert_array_equal(again.features(new), rows.features(new))


def test_landmarks_depend_on_the_seed_alone():
    x = normal(60, 4)
    same, other = KernelRows(MixedKernel(), x, limit=10), KernelRows(MixedKernel(), x, limit=10, seed=1)
    np.testing.assert_array_equal(same.landmarks, KernelRows(MixedKernel(), x, limit=10).landmarks)
    assert not np.array_equal(same.landmarks, other.landmarks)
    assert len(np.unique(same.landmarks, axis=0)) == 10
