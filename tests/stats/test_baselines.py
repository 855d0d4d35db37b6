"""Baselines against reference implementations, brute-force leave-one-out, and simulated truth."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from omicvae.stats.baselines import (
    Baseline,
    GroupMeanBaseline,
    KNNBaseline,
    MeanBaseline,
    MOFABaseline,
    PCARidgeBaseline,
    PLSBaseline,
    RidgeBaseline,
)
from omicvae.stats.scores import coverage

MAKERS: dict[str, Callable[[], Baseline]] = {
    "mean": MeanBaseline,
    "ridge": RidgeBaseline,
    "ridge_per_feature": lambda: RidgeBaseline(per_feature=True),
    "pca_ridge": PCARidgeBaseline,
    "pls": PLSBaseline,
    "knn": KNNBaseline,
}


@pytest.fixture(params=list(MAKERS))
def make(request: pytest.FixtureRequest) -> Callable[[], Baseline]:
    return MAKERS[request.param]


def simulate(n: int, p: int, q: int, *, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sources and targets that share four factors, in arbitrary units."""
    rng = np.random.default_rng(seed)
    weights = np.random.default_rng(100).normal(size=(4, p + q))
    z = rng.normal(size=(n, 4))
    values = z @ weights + noise * rng.normal(size=(n, p + q))
    units = np.random.default_rng(101).uniform(0.5, 3, p + q)
    return (values[:, :p] * units[:p] + 5), (values[:, p:] * units[p:] - 2)


def standardised(baseline: Baseline, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return baseline._input.forward(x), baseline._scale.forward(y)


def alpha(x: np.ndarray, penalty: float) -> float:
    """A penalty in the units of scikit-learn: times the mean squared singular value."""
    centred = x - x.mean(0)
    squares = np.linalg.svd(centred, compute_uv=False) ** 2
    return penalty * float(squares[squares > 1e-10 * squares[0]].mean())


# ---------------------------------------------------------------------- ridge


@pytest.mark.parametrize("p", [15, 90])
def test_ridge_is_that_of_scikit_learn(p: int) -> None:
    (x, y), (x_new, _) = simulate(40, p, 6), simulate(7, p, 6, seed=1)
    ours = RidgeBaseline(penalties=[0.3]).fit(x, y)
    a, b = standardised(ours, x, y)
    theirs = Ridge(alpha(a, 0.3)).fit(a, b).predict(ours._input.forward(x_new))
    np.testing.assert_allclose(
        ours.predict(x_new).mean, theirs * ours._scale.deviation + ours._scale.mean, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("p", [15, 90])
def test_ridge_residuals_are_those_of_fits_without_each_sample(p: int) -> None:
    x, y = simulate(25, p, 3)
    ours = RidgeBaseline(penalties=[0.3])
    ours._fit_point(x, y)
    a, b = standardised(ours, x, y)
    residual = ours._learn(a, b)
    penalty = alpha(a, 0.3)
    for i in range(len(a)):
        others = np.arange(len(a)) != i
        predicted = Ridge(penalty).fit(a[others], b[others]).predict(a[[i]])
        np.testing.assert_allclose(residual[i], b[i] - predicted[0], atol=1e-8)


@pytest.mark.parametrize("per_feature", [False, True])
def test_ridge_penalties_have_the_least_leave_one_out_error(per_feature: bool) -> None:
    x, y = simulate(30, 50, 4)
    y[:, 0] = np.random.default_rng(5).normal(size=30)  # wants a larger penalty than the others
    grid = [0.01, 0.1, 1.0, 10.0, 100.0]
    ours = RidgeBaseline(per_feature=per_feature, penalties=grid).fit(x, y)
    a, b = standardised(ours, x, y)
    errors = np.zeros((len(grid), 4))
    for k, penalty in enumerate(grid):
        value = alpha(a, penalty)
        for i in range(len(a)):
            others = np.arange(len(a)) != i
            errors[k] += (b[i] - Ridge(value).fit(a[others], b[others]).predict(a[[i]])[0]) ** 2
    best = errors.argmin(0) if per_feature else np.repeat(errors.sum(1).argmin(), 4)
    np.testing.assert_allclose(ours.penalty_, np.asarray(grid)[best])
    assert not per_feature or len(set(ours.penalty_)) > 1


def test_a_gappy_target_is_fitted_to_the_samples_that_have_it() -> None:
    x, y = simulate(40, 60, 3)
    gaps = y.copy()
    gaps[::2, 1] = np.nan
    found = RidgeBaseline(penalties=[0.3]).fit(x, gaps)
    a = found._input.forward(x)
    rows = np.flatnonzero(~np.isnan(gaps[:, 1]))
    direct = Ridge(alpha(a[rows], 0.3)).fit(a[rows], y[rows, 1])
    new = simulate(5, 60, 3, seed=1)[0]
    np.testing.assert_allclose(found.predict(new).mean[:, 1], direct.predict(found._input.forward(new)), rtol=1e-4)
    complete = RidgeBaseline(penalties=[0.3]).fit(x, y)
    np.testing.assert_allclose(found.predict(new).mean[:, [0, 2]], complete.predict(new).mean[:, [0, 2]], rtol=1e-5)


def test_too_many_gaps_are_filled_with_the_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = simulate(40, 60, 3)
    y[::2, 1] = np.nan
    monkeypatch.setattr("omicvae.stats.baselines._ridge.MOST_WORK", 0)
    found, filled = RidgeBaseline(penalties=[0.3]).fit(x, y), y.copy()
    filled[::2, 1] = np.nanmean(y[:, 1])
    a = found._input.forward(x)
    direct = Ridge(alpha(a, 0.3)).fit(a, filled[:, 1]).predict(a)
    np.testing.assert_allclose(found.predict(x).mean[:, 1], direct, rtol=1e-4)


# ---------------------------------------------------------------------- others


def test_principal_component_regression_on_all_components_is_ridge() -> None:
    x, y = simulate(40, 20, 5)
    a = PCARidgeBaseline(20, penalties=[0.3]).fit(x, y).predict(x)
    np.testing.assert_allclose(a.mean, RidgeBaseline(penalties=[0.3]).fit(x, y).predict(x).mean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("p", "q"), [(80, 6), (6, 40), (20, 1)])
def test_partial_least_squares_is_that_of_scikit_learn(p: int, q: int) -> None:
    (x, y), (x_new, _) = simulate(50, p, q), simulate(7, p, q, seed=1)
    ours = PLSBaseline(4).fit(x, y)
    a, b = standardised(ours, x, y)
    theirs = PLSRegression(4, scale=False, max_iter=5000, tol=1e-14).fit(a, b).predict(ours._input.forward(x_new))
    expected = theirs.reshape(7, q) * ours._scale.deviation + ours._scale.mean
    np.testing.assert_allclose(ours.predict(x_new).mean, expected, rtol=1e-4, atol=1e-4)


def test_neighbours_are_those_of_scikit_learn_and_never_the_sample_itself() -> None:
    (x, y), (x_new, _) = simulate(60, 10, 5), simulate(7, 10, 5, seed=1)
    ours = KNNBaseline([7])
    ours._fit_point(x, y)
    a, b = standardised(ours, x, y)
    theirs = KNeighborsRegressor(7).fit(a, b)
    np.testing.assert_allclose(
        ours._infer(ours._input.forward(x_new)), theirs.predict(ours._input.forward(x_new)), 1e-4
    )
    residual = ours._learn(a, b)
    for i in range(5):
        others = np.arange(60) != i
        predicted = KNeighborsRegressor(7).fit(a[others], b[others]).predict(a[[i]])
        np.testing.assert_allclose(residual[i], b[i] - predicted[0], atol=1e-5)


def test_neighbours_without_a_value_take_no_part() -> None:
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]])
    y = np.array([[1.0], [np.nan], [3.0], [7.0], [7.0], [7.0]])
    assert KNNBaseline([3]).fit(x, y).predict([[0.1]]).mean[0, 0] == pytest.approx(2.0)


def test_group_means_are_those_of_pandas_and_strangers_get_the_mean() -> None:
    _, y = simulate(30, 5, 4)
    y[3, 1] = np.nan
    groups = np.array(["a", "b", "c"] * 9 + [None, np.nan, "a"], dtype=object)
    found = GroupMeanBaseline().fit(groups, y).predict(np.array(["b", "never seen", None], dtype=object))
    np.testing.assert_allclose(found.mean[0], np.nanmean(y[groups == "b"], 0), rtol=1e-5)
    np.testing.assert_allclose(found.mean[1:], np.nanmean(y, 0)[None].repeat(2, 0), rtol=1e-5)


# ---------------------------------------------------------------------- uncertainty


def test_intervals_hold_what_they_promise_and_the_sd_is_the_error(make: Callable[[], Baseline]) -> None:
    # Quantiles of 120 residuals vary by .05 a target at level .5, by .01 in the mean over targets; fits to four fifths of
    # the samples are worse than the one to all, which makes intervals up to .02 too wide.
    (x, y), (x_new, y_new) = simulate(120, 40, 20), simulate(3000, 40, 20, seed=1)
    fitted = make().fit(x, y)
    for level in (0.5, 0.9):
        found = fitted.predict(x_new, level=level)
        assert coverage(y_new, found.lower, found.upper) == pytest.approx(level, abs=0.05 if level == 0.5 else 0.03)
    error = np.sqrt(((y_new - found.mean) ** 2).mean(0))
    np.testing.assert_allclose(np.median(found.sd / error), 1, atol=0.1)


def test_few_samples_and_thousands_of_features(make: Callable[[], Baseline]) -> None:
    (x, y), (x_new, y_new) = simulate(60, 5000, 30), simulate(500, 5000, 30, seed=1)
    found = make().fit(x, y).predict(x_new)
    assert coverage(y_new, found.lower, found.upper) == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("name", ["ridge", "ridge_per_feature", "pca_ridge", "pls", "knn"])
def test_shared_signal_is_found(name: str) -> None:
    (x, y), (x_new, y_new) = simulate(150, 40, 20), simulate(500, 40, 20, seed=1)
    error = ((y_new - MAKERS[name]().fit(x, y).predict(x_new).mean) ** 2).mean(0)
    assert np.median(error / y_new.var(0)) < 0.45  # the noise alone is a fifth


# ---------------------------------------------------------------------- invariance, hostile data


def test_units_and_orders_do_not_matter(make: Callable[[], Baseline]) -> None:
    if make is MAKERS["pca_ridge"] or make is MAKERS["pls"]:
        pytest.skip("folds depend on the order of samples")
    (x, y), (x_new, _) = simulate(50, 30, 8), simulate(6, 30, 8, seed=1)
    rng = np.random.default_rng(0)
    rows, features, targets = rng.permutation(50), rng.permutation(30), rng.permutation(8)
    a = make().fit(x, y).predict(x_new)
    b = make().fit(100 * x[rows][:, features] - 3, y[rows][:, targets]).predict(100 * x_new[:, features] - 3)
    np.testing.assert_allclose(a.mean[:, targets], b.mean, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(a.sd[targets], b.sd, rtol=1e-3)
    np.testing.assert_allclose(a.upper[:, targets], b.upper, rtol=1e-3, atol=1e-3)


def test_a_missing_source_is_its_mean(make: Callable[[], Baseline]) -> None:
    x, y = simulate(50, 12, 4)
    fitted = make().fit(x, y)
    gap, mean = x[:3].copy(), x[:3].copy()
    gap[:, 5], mean[:, 5] = np.nan, x[:, 5].mean()
    np.testing.assert_allclose(fitted.predict(gap).mean, fitted.predict(mean).mean, rtol=1e-4, atol=1e-4)


def test_awkward_columns_give_finite_predictions(make: Callable[[], Baseline]) -> None:
    x, y = simulate(40, 12, 7)
    x[:, 0], x[:, 1], x[:, 2] = 1.0, np.nan, np.arange(40) == 3
    x[5] = np.nan
    y[:, 0], y[:, 1], y[:, 2] = 4.0, np.nan, np.arange(40) % 2
    y[1:, 3] = np.nan
    y[::2, 4] = np.nan
    y[7] = np.nan
    found = make().fit(x, y).predict(x)
    assert all(np.isfinite(part).all() for part in found)
    np.testing.assert_allclose(found.mean[:, 0], 4.0, atol=1e-5)
    assert (found.sd >= 0).all()
    assert (found.lower <= found.upper).all()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_samples(make: Callable[[], Baseline], n: int) -> None:
    x, y = simulate(n, 5, 4)
    found = make().fit(x, y).predict(np.concatenate([x, x]))
    assert found.mean.shape == (2 * n, 4)
    assert all(np.isfinite(part).all() for part in found)


def test_no_new_samples(make: Callable[[], Baseline]) -> None:
    x, y = simulate(30, 5, 4)
    assert make().fit(x, y).predict(np.zeros((0, 5))).mean.shape == (0, 4)


def test_sources_that_do_not_vary_predict_the_mean(make: Callable[[], Baseline]) -> None:
    _, y = simulate(30, 5, 4)
    found = make().fit(np.ones((30, 3)), y).predict(np.ones((2, 3)))
    if make is not MAKERS["knn"]:
        np.testing.assert_allclose(found.mean, y.mean(0)[None].repeat(2, 0), rtol=1e-4)
    assert np.isfinite(found.sd).all()


def test_wrong_arguments_are_named(make: Callable[[], Baseline]) -> None:
    x, y = simulate(30, 5, 4)
    with pytest.raises(RuntimeError, match="has not been fitted: call fit"):
        make().predict(x)
    with pytest.raises(ValueError, match="x has 29 samples and y 30"):
        make().fit(x[1:], y)
    with pytest.raises(ValueError, match=r"y must have the shape \(samples, features\)"):
        make().fit(x, y[:, 0])
    with pytest.raises(ValueError, match="nothing to fit to"):
        make().fit(x[:0], y[:0])
    with pytest.raises(ValueError, match="no columns"):
        make().fit(x[:, :0], y)
    with pytest.raises(ValueError, match="x holds 1 infinite values"):
        make().fit(np.where(np.arange(150).reshape(30, 5) == 7, np.inf, x), y)
    with pytest.raises(ValueError, match="x has 4 columns, and 5 were fitted"):
        make().fit(x, y).predict(x[:, 1:])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        make().fit(x, y).predict(x, level=90)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match="penalties must be positive"):
        RidgeBaseline(penalties=[0.0, 1.0])
    with pytest.raises(ValueError, match="n_neighbours must be positive"):
        KNNBaseline([0])
    with pytest.raises(ValueError, match="groups must be one label a sample"):
        GroupMeanBaseline().fit(np.zeros((5, 2)), np.zeros((5, 1)))


# ---------------------------------------------------------------------- MOFA+


def test_mofa_without_its_package_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mofapy2", None)
    monkeypatch.setitem(sys.modules, "mofapy2.run.entry_point", None)
    with pytest.raises(ImportError, match="pip install mofapy2"):
        MOFABaseline()


def test_mofa_projection_is_conditioning_of_the_joint_normal() -> None:
    from omicvae.stats.baselines._mofa import Factors, _project

    rng = np.random.default_rng(0)
    w = {m: rng.normal(size=(p, 3)) for m, p in (("a", 6), ("b", 4))}
    tau = {m: rng.uniform(0.5, 2, len(v)) for m, v in w.items()}
    factors = {m: Factors(w[m], w[m] ** 2, tau[m]) for m in w}  # weights without uncertainty
    views = {m: rng.normal(size=(5, len(w[m]))) for m in w}
    views["a"][0, 2] = np.nan
    views["b"][1] = np.nan
    found = _project(factors, views)
    all_w, noise = np.concatenate([w["a"], w["b"]]), 1 / np.concatenate([tau["a"], tau["b"]])
    x = np.concatenate([views["a"], views["b"]], axis=1)
    for i in range(5):
        seen = ~np.isnan(x[i])
        covariance = all_w[seen] @ all_w[seen].T + np.diag(noise[seen])
        np.testing.assert_allclose(found[i], all_w[seen].T @ np.linalg.solve(covariance, x[i, seen]), atol=1e-10)


def test_mofa_imputes_a_hidden_view() -> None:
    pytest.importorskip("mofapy2")
    (x, y), (x_new, y_new) = simulate(150, 30, 20), simulate(400, 30, 20, seed=1)
    x[:30] = np.nan
    y[30:60] = np.nan
    y[70, 3] = np.nan
    fitted = MOFABaseline(6).fit({"x": x, "y": y})
    found = fitted.predict({"x": x_new}, "y")
    error = ((y_new - found.mean) ** 2).mean(0)
    assert np.median(error / y_new.var(0)) < 0.4
    assert coverage(y_new, found.lower, found.upper) == pytest.approx(0.9, abs=0.05)
    with pytest.raises(ValueError, match="cannot predict 'y' from"):
        fitted.predict({"x": x_new, "y": y_new}, "y")
    with pytest.raises(ValueError, match="at least two views"):
        MOFABaseline().fit({"x": x})
