from __future__ import annotations

import numpy as np
import pytest

from omicvae.stats import components
from omicvae.stats.components import (
    COVARIATE_PENALTY,
    Block,
    covariate_effects,
    principal_components,
    residual,
)


def block(x: np.ndarray, observed: np.ndarray | None = None, design: np.ndarray | None = None) -> Block:
    x = x if observed is None else np.where(observed, x, 0)
    design = np.zeros((len(x), 0)) if design is None else design
    return Block(x.astype(np.float32), observed, np.arange(len(x)), design.astype(np.float32))


def everyone(b: Block) -> np.ndarray:
    return np.arange(len(b.values))


@pytest.mark.parametrize(("n", "p"), [(60, 12), (12, 60), (30, 30)])
def test_all_components_whiten_and_rebuild_the_data(n, p):
    x = np.random.default_rng(0).normal(2, 1, size=(n, p)) @ np.diag(np.linspace(1, 3, p))
    b = block(x)
    basis = principal_components(b, everyone(b))
    k = min(n - 1, p)
    assert basis.loadings.shape == (p, k)
    np.testing.assert_allclose(basis.loadings.T @ basis.loadings, np.eye(k), atol=1e-4)
    codes = basis.codes(b, everyone(b))
    np.testing.assert_allclose(codes.T @ codes / n, np.eye(k), atol=1e-3)
    np.testing.assert_allclose(basis.fixed(b.design) + (codes * basis.scale) @ basis.loadings.T, x, atol=1e-3)
    reference = np.linalg.svd(x - x.mean(0), compute_uv=False)[:k] / np.sqrt(n)
    np.testing.assert_allclose(basis.scale, reference, rtol=1e-3)


def test_the_leading_components_of_many_are_those_of_all(monkeypatch):
    rng = np.random.default_rng(0)
    b = block(rng.normal(size=(80, 5)) @ rng.normal(size=(5, 100)) * 3 + 0.1 * rng.normal(size=(80, 100)))
    exact = principal_components(b, everyone(b))
    monkeypatch.setattr(components, "ALL_COMPONENTS", 20)
    monkeypatch.setattr(components, "LEADING_COMPONENTS", 5)
    leading = principal_components(b, everyone(b))
    assert leading.loadings.shape == (100, 5)
    np.testing.assert_allclose(leading.scale, exact.scale[:5], rtol=1e-4)
    overlap = leading.loadings.T @ exact.loadings[:, :5]
    np.testing.assert_allclose(overlap @ overlap.T, np.eye(5), atol=1e-4)


def test_rows_that_are_left_out_have_no_influence():
    rng = np.random.default_rng(0)
    x, design = rng.normal(size=(40, 6)), rng.normal(size=(40, 2))
    rows = np.arange(0, 40, 2)
    changed = x.copy()
    changed[1::2] = 1e3
    first = principal_components(block(x, design=design), rows)
    second = principal_components(block(changed, design=design), rows)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_covariate_effects_are_ridge_regression_with_a_free_intercept():
    rng = np.random.default_rng(0)
    design, x = rng.normal(1, 1, size=(50, 3)), rng.normal(size=(50, 4))
    effects = covariate_effects(block(x, design=design), np.arange(50))
    centred = design - design.mean(0)
    slopes = np.linalg.solve(centred.T @ centred + COVARIATE_PENALTY * np.eye(3), centred.T @ (x - x.mean(0)))
    np.testing.assert_allclose(effects[1:], slopes, atol=1e-5)
    np.testing.assert_allclose(effects[0] + design.mean(0) @ effects[1:], x.mean(0), atol=1e-5)


def test_a_pure_batch_shift_is_all_covariates_and_no_component():
    """With many samples a batch the shrinkage (three samples' worth) leaves next to nothing of the shift."""
    batch = np.repeat(np.eye(2), 3000, axis=0)
    shift = np.array([[1.0, -2.0, 0.5], [-1.0, 2.0, 0.0]])
    b = block(batch @ shift, design=batch)
    basis = principal_components(b, everyone(b))
    np.testing.assert_allclose(basis.fixed(np.eye(2)), shift, atol=5e-3)
    assert (basis.scale < 5e-3).all()


def test_elements_that_were_not_measured_do_not_move_means_or_components():
    rng = np.random.default_rng(0)
    x, seen = rng.normal(3, 1, size=(50, 5)), rng.random((50, 5)) < 0.7
    b = block(x, seen)
    basis = principal_components(b, everyone(b))
    np.testing.assert_allclose(basis.mean, np.nanmean(np.where(seen, x, np.nan), 0), atol=1e-5)
    at_mean = block(np.where(seen, x, basis.mean))
    np.testing.assert_allclose(basis.scale, principal_components(at_mean, everyone(b)).scale, rtol=1e-4)
    unseen = residual(b.values, seen, b.design, covariate_effects(b, everyone(b)))
    assert (unseen[~seen] == 0).all()


@pytest.mark.parametrize(
    "x", [np.zeros((0, 4)), np.ones((1, 4)), np.ones((20, 4)), np.zeros((20, 4)), np.ones((20, 1))],
)  # fmt: skip
@pytest.mark.parametrize("n_covariates", [0, 2])
def test_nothing_varies(x, n_covariates):
    b = block(x, design=np.random.default_rng(0).normal(size=(len(x), n_covariates)))
    basis = principal_components(b, everyone(b))
    assert basis.loadings.shape == (x.shape[1], 0)
    assert basis.codes(b, everyone(b)).shape == (len(x), 0)
    np.testing.assert_allclose(basis.fixed(b.design), x, atol=1e-6)


def test_a_feature_that_was_never_measured_stays_out():
    x, seen = np.random.default_rng(0).normal(size=(30, 4)), np.ones((30, 4), bool)
    seen[:, 1] = False
    basis = principal_components(block(x, seen), np.arange(30))
    np.testing.assert_allclose(basis.loadings[1], 0, atol=1e-10)
    assert basis.mean[1] == 0
