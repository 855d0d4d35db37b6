from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from omicvae.stats.multiple_imputation import Fit, Pooled, RegressionImputer, least_squares, pool


def two_groups(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Group of every sample, in turn, and the design of their difference."""
    group = np.arange(n) % 2
    return group, np.column_stack([group, np.ones(n)]).astype(float)


def completed(imputer: RegressionImputer, values: np.ndarray, draws: np.ndarray, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.repeat(values[None], len(draws), axis=0)
    for one, noise in zip(found, draws, strict=True):
        one[imputer.imputed] = imputer.draw(noise, rng)
    return found


# ---------------------------------------------------------------------- pooling


def test_pooling_is_rubins_rules_with_the_degrees_of_freedom_of_barnard_and_rubin() -> None:
    estimates, variances, nu = np.array([1.0, 2.0, 1.5, 0.5]), np.array([0.4, 0.5, 0.3, 0.4]), 28.0
    found = pool(Fit(estimates[:, None], variances[:, None], np.array([nu])))
    between = np.var(estimates, ddof=1)
    total = 0.4 + 1.25 * between
    gamma = 1.25 * between / total
    old, observed = 3 / gamma**2, (nu + 1) / (nu + 3) * nu * (1 - gamma)
    df = old * observed / (old + observed)
    assert found.estimate == pytest.approx([1.25])
    assert found.se == pytest.approx([total**0.5])
    assert found.df == pytest.approx([df])
    assert found.pvalue == pytest.approx([2 * stats.t(df).sf(1.25 / total**0.5)])
    r = 1.25 * between / 0.4
    assert found.fraction_missing_information == pytest.approx([(r + 2 / (df + 3)) / (r + 1)])


def test_with_large_samples_the_degrees_of_freedom_are_rubins_own() -> None:
    rng = np.random.default_rng(0)
    estimates, variances = rng.standard_normal((5, 3)), rng.uniform(1, 2, (5, 3))
    found = pool(Fit(estimates, variances, np.full(3, 1e9)))
    r = 1.2 * estimates.var(0, ddof=1) / variances.mean(0)
    np.testing.assert_allclose(found.df, 4 * (1 + 1 / r) ** 2, rtol=1e-6)


def test_nothing_imputed_is_the_complete_data_test() -> None:
    found = pool(Fit(np.ones((3, 1)), np.full((3, 1), 0.25), np.array([10.0])))
    assert found.df == pytest.approx([10])
    assert found.fraction_missing_information == pytest.approx([0])
    assert found.pvalue == pytest.approx([2 * stats.t(10).sf(2)])


# ---------------------------------------------------------------------- linear models


def test_two_groups_without_covariates_are_the_t_test() -> None:
    rng = np.random.default_rng(0)
    group, design = two_groups(30)
    values = rng.standard_normal((30, 4)) * [1, 10, 1e-3, 1] + [0, 1e4, 0, -5]
    weights = rng.random((30, 4)) < 0.8
    masked = np.where(weights, values, np.nan)
    found = pool(least_squares(masked[None], weights, design))
    expected = stats.ttest_ind(masked[group == 1], masked[group == 0], nan_policy="omit")
    np.testing.assert_allclose(found.pvalue, expected.pvalue, rtol=1e-8)
    np.testing.assert_allclose(found.estimate / found.se, expected.statistic, rtol=1e-8)
    np.testing.assert_allclose(found.df, expected.df)


def test_covariates_are_those_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    _, design = two_groups(25)
    x = np.column_stack([design, rng.standard_normal(25)])
    y = rng.standard_normal(25)
    found = least_squares(y[None, :, None], np.ones((25, 1), bool), x)
    coefficients, squares, *_ = np.linalg.lstsq(x, y, rcond=None)
    assert found.estimate[0, 0] == pytest.approx(coefficients[0])
    assert found.variance[0, 0] == pytest.approx(squares[0] / 22 * np.linalg.inv(x.T @ x)[0, 0])
    assert found.df[0] == 22
    collinear = least_squares(y[None, :, None], np.ones((25, 1), bool), np.column_stack([x, x[:, 2]]))
    assert collinear.estimate[0, 0] == pytest.approx(coefficients[0])
    assert collinear.df[0] == 22


def test_what_cannot_be_estimated_is_nan() -> None:
    _, design = two_groups(8)
    weights = np.ones((8, 3), bool)
    weights[design[:, 0] == 1, 0] = False  # one group without values
    weights[2:, 1] = False  # two values, no residual
    found = pool(least_squares(np.random.default_rng(0).standard_normal((1, 8, 3)), weights, design))
    assert np.isnan(found.pvalue[:2]).all()
    assert np.isfinite(found.pvalue[2])


# ---------------------------------------------------------------------- imputation


def example(
    n: int = 400, slope: float = 1.0, noise: float = 0.6, far: float = 0.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """One feature, predicted in all samples and measured in more of one group than of the other.

    Predictions of imputed samples of the second group lie ``far`` from those of measured ones.
    """
    rng = np.random.default_rng(seed)
    group, _ = two_groups(n)
    imputed = rng.random(n) < np.where(group == 1, 0.7, 0.3)
    prediction = rng.standard_normal((n, 1)) + 0.5 * group[:, None] + far * (imputed & (group == 1))[:, None]
    truth = slope * prediction + 0.3 * group[:, None] + noise * rng.standard_normal((n, 1))
    values = np.where(imputed[:, None], np.nan, truth)
    return {"group": group, "prediction": prediction, "truth": truth, "imputed": imputed, "values": values}


def build(data: dict[str, np.ndarray], prediction: np.ndarray | None = None, **kwargs: np.ndarray) -> RegressionImputer:
    arguments = {"covariates": np.zeros((len(data["group"]), 0)), "noise": np.ones(1), **kwargs}
    return RegressionImputer(
        data["values"],
        data["prediction"] if prediction is None else prediction,
        data["group"],
        imputed=data["imputed"],
        **arguments,
    )


def compared(data: dict[str, np.ndarray], imputer: RegressionImputer, k: int, seed: int = 0) -> Pooled:
    _, design = two_groups(len(data["group"]))
    draws = np.random.default_rng(seed + 1).standard_normal((k, int(data["imputed"].sum()), 1))
    return pool(
        least_squares(completed(imputer, data["values"], draws, seed), np.ones_like(data["values"], bool), design)
    )


def measured_alone(data: dict[str, np.ndarray]) -> Pooled:
    _, design = two_groups(len(data["group"]))
    return pool(least_squares(data["values"][None], ~data["imputed"][:, None], design))


def test_the_estimate_is_the_regression_estimator() -> None:
    data = example()
    found = compared(data, build(data), k=400)
    seen, m, y = ~data["imputed"], data["prediction"][:, 0], data["truth"][:, 0]
    sides = [data["group"] == g for g in (0, 1)]
    within = [(m[s & seen] - m[s & seen].mean(), y[s & seen] - y[s & seen].mean()) for s in sides]
    slope = sum((a * b).sum() for a, b in within) / sum((a * a).sum() for a, _ in within)
    means = [y[s & seen].mean() + slope * (m[s].mean() - m[s & seen].mean()) for s in sides]
    # 400 imputations leave an error of se * sqrt(fraction missing / 400), 4 of which are allowed.
    tolerance = 4 * found.se[0] * (found.fraction_missing_information[0] / 400) ** 0.5
    assert found.estimate[0] == pytest.approx(means[1] - means[0], abs=tolerance)
    assert tolerance < 0.02


@pytest.mark.parametrize("far", [0.0, 4.0])
def test_its_variance_is_that_of_the_regression_estimator(far: float) -> None:
    data = example(far=far)
    found = compared(data, build(data), k=400)
    m, y, seen = data["prediction"][:, 0], data["truth"][:, 0], ~data["imputed"]
    design = np.column_stack([data["group"] == 0, data["group"] == 1, m]).astype(float)
    coefficients, squares, *_ = np.linalg.lstsq(design[seen], y[seen], rcond=None)
    residual = squares[0] / (seen.sum() - 3)
    inverse = np.linalg.inv(design[seen].T @ design[seen])
    expected = 0.0
    for g in (0, 1):  # of a group's mean over a sample of which part was measured
        side = data["group"] == g
        expected += coefficients[2] ** 2 * m[side].var(ddof=1) / side.sum()
    shift = design[data["group"] == 1].mean(0) - design[data["group"] == 0].mean(0)
    expected += residual * shift @ inverse @ shift
    # 400 imputations know the variance between them to 7 %, and the pooled variance of both groups is an average.
    assert found.se[0] ** 2 == pytest.approx(expected, rel=0.2)


def test_a_worthless_prediction_leaves_the_measured_samples_alone() -> None:
    data = example(slope=0.0, noise=1.0)
    noise = np.random.default_rng(5).standard_normal(data["prediction"].shape)
    alone = measured_alone(data)
    for prediction in (noise, np.zeros_like(noise), np.where(data["imputed"][:, None], noise, np.nan)):
        found = compared(data, build(data, prediction), k=400)
        assert found.se[0] == pytest.approx(alone.se[0], rel=0.1)
        assert abs(found.estimate[0] - alone.estimate[0]) < 0.3 * alone.se[0]
        assert found.fraction_missing_information[0] > 0.3


def test_a_perfect_prediction_is_a_complete_assay_in_any_units() -> None:
    data = example()
    found = compared(data, build(data, 100 - 7 * data["truth"]), k=10)
    _, design = two_groups(len(data["group"]))
    complete = pool(least_squares(data["truth"][None], np.ones_like(data["truth"], bool), design))
    np.testing.assert_allclose(found.estimate, complete.estimate, rtol=1e-5)
    np.testing.assert_allclose(found.se, complete.se, rtol=1e-5)
    assert found.fraction_missing_information[0] < 0.02


def test_imputed_values_have_the_units_of_the_measured_ones() -> None:
    data = example()
    draws = np.random.default_rng(1).standard_normal((3, int(data["imputed"].sum()), 1))
    first = completed(build(data), data["values"], draws)
    moved = {**data, "values": 1e3 * data["values"] + 50}
    second = completed(build(moved, 1e3 * data["prediction"] + 50, noise=np.ones(1)), moved["values"], draws)
    np.testing.assert_allclose(second, 1e3 * first + 50, rtol=1e-9)


def test_noise_is_scaled_to_what_measured_values_show() -> None:
    data = example(n=2000, noise=0.6)
    draws = 3 * np.random.default_rng(1).standard_normal((1, int(data["imputed"].sum()), 1))
    for noise, given in ((np.full(1, 9.0), draws), (np.zeros(1), np.zeros_like(draws))):
        found = completed(build(data, noise=noise), data["values"], given)[0][data["imputed"]]
        left = found - data["prediction"][data["imputed"]] - 0.3 * data["group"][data["imputed"], None]
        assert left.std() == pytest.approx(0.6, rel=0.1)  # 1000 values: 2 %, and as much again for its draw


def test_the_noise_of_few_measured_values_is_drawn_too() -> None:
    data = example(n=200)
    data["imputed"] = np.arange(200) >= 12
    data["values"] = np.where(data["imputed"][:, None], np.nan, data["truth"])
    imputer = build(data, np.zeros_like(data["truth"]))
    rng = np.random.default_rng(0)
    squares = 0.0
    for _ in range(1000):
        drawn = imputer.draw(rng.standard_normal((188, 1)), rng)[:, 0]
        squares += np.mean([drawn[g::2].var(ddof=1) for g in (0, 1)]) / 1000
    residual = sum(12 / 2 * data["truth"][g:12:2].var() for g in (0, 1))
    # The mean of an inverse chi-square with 10 degrees of freedom is 1/8; 1000 draws know it to 2 %.
    assert squares == pytest.approx(residual / 8, rel=0.1)


def test_measured_values_without_a_prediction_count_as_in_generalised_least_squares() -> None:
    """The oracle solves for both means of a bivariate normal vector of which either part may be missing."""
    data = example(n=4000, noise=0.8)
    rng = np.random.default_rng(2)
    data["imputed"] = rng.random(4000) < 0.05
    data["values"] = np.where(data["imputed"][:, None], np.nan, data["truth"])
    unpaired = ~data["imputed"] & (rng.random(4000) < 0.9)
    imputer = build(data, np.where(unpaired[:, None], np.nan, data["prediction"]))
    drawn = np.stack([imputer.draw(np.zeros((int(data["imputed"].sum()), 1)), rng)[:, 0] for _ in range(600)])
    y, m = data["truth"][:, 0], data["prediction"][:, 0]
    sides = [data["group"] == g for g in (0, 1)]
    pairs = [np.stack([y, m])[:, side & ~unpaired & ~data["imputed"]] for side in sides]
    sigma = sum(np.cov(pair) * (pair.shape[1] - 1) for pair in pairs) / (sum(p.shape[1] for p in pairs) - 2)
    slope = sigma[0, 1] / sigma[1, 1]
    ratios = []
    for side, pair in zip(sides, pairs, strict=True):
        d, i = unpaired & side, data["imputed"] & side
        precision = pair.shape[1] * np.linalg.inv(sigma) + np.diag([d.sum() / sigma[0, 0], i.sum() / sigma[1, 1]])
        right = pair.shape[1] * np.linalg.inv(sigma) @ pair.mean(1)
        right += [y[d].sum() / sigma[0, 0], m[i].sum() / sigma[1, 1]]
        mean, covariance = np.linalg.solve(precision, right), np.linalg.inv(precision)
        along = np.array([1, -slope])
        variance = along @ covariance @ along
        of_group = drawn[:, side[data["imputed"]]].mean(1)
        # 600 draws know a mean to 4 % of its standard deviation; the slope, known to 0.04, moves it a little.
        assert of_group.mean() == pytest.approx(mean @ along + slope * m[i].mean(), abs=0.4 * variance**0.5)
        ratios.append(of_group.var() / variance)
    assert np.mean(ratios) == pytest.approx(1, abs=0.15)  # a variance to 6 % each


def test_a_group_without_measured_values_has_the_residual_of_the_others() -> None:
    data = example(n=2000)
    data["imputed"] = data["imputed"] | (data["group"] == 1)
    data["values"] = np.where(data["imputed"][:, None], np.nan, data["truth"])
    found = compared(data, build(data, data["prediction"] - 5), k=100)
    predicted = data["prediction"][data["group"] == 1].mean() - data["prediction"][data["group"] == 0].mean()
    assert found.estimate[0] == pytest.approx(predicted, abs=4 * found.se[0])  # and not 0.3 more
    assert found.se[0] < 0.06


def test_features_with_too_few_values_are_nan_and_constant_ones_stay_constant() -> None:
    data = example(n=40)
    values = np.repeat(data["values"], 3, axis=1)
    values[:, 0] = np.nan
    kept = [np.flatnonzero(~data["imputed"] & (data["group"] == g))[0] for g in (0, 1)]
    values[np.setdiff1d(np.arange(40), kept), 1] = np.nan
    values[:, 2] = np.where(data["imputed"], np.nan, 4.0)
    imputer = RegressionImputer(
        values, np.repeat(data["prediction"], 3, axis=1), data["group"], np.zeros((40, 0)), data["imputed"], np.ones(3)
    )
    drawn = imputer.draw(np.ones((int(data["imputed"].sum()), 3)), np.random.default_rng(0))
    assert np.isnan(drawn[:, :2]).all()
    np.testing.assert_allclose(drawn[:, 2], 4.0, atol=1e-4)


# ---------------------------------------------------------------------- do p-values mean what they say?


def ridge(x: np.ndarray, y: np.ndarray, new: np.ndarray, penalty: float = 20.0) -> np.ndarray:
    centre = x.mean(0)
    gram = (x - centre).T @ (x - centre) + penalty * np.eye(x.shape[1])
    return y.mean(0) + (new - centre) @ np.linalg.solve(gram, (x - centre).T @ (y - y.mean(0)))


def simulated_pvalues(shift: float, seed: int, k: int = 20) -> dict[str, np.ndarray]:
    """Tests of 20 independent features that do not differ between groups, measured in 50 % of one and 20 % of the other.

    Each is predicted by ridge regression, which does not know the groups, on 40 features that show it; some also show
    something private, in which the groups differ by ``shift`` standard deviations.
    """
    rng = np.random.default_rng(seed)
    n, p = 160, 20
    group, design = two_groups(n)
    signal, private = rng.standard_normal((n, p)), rng.standard_normal((n, 3))
    private[:, 0] += shift * group
    x = np.hstack([signal, private]) @ rng.standard_normal((p + 3, 40)) / 3 + 0.3 * rng.standard_normal((n, 40))
    y = np.sqrt(0.7) * signal + np.sqrt(0.3) * rng.standard_normal((n, p))
    imputed = rng.random(n) < np.where(group == 1, 0.8, 0.5)
    seen = np.flatnonzero(~imputed)
    prediction = np.empty_like(y)
    prediction[imputed] = ridge(x[seen], y[seen], x[imputed])
    for fold in range(5):
        out = seen[fold::5]
        rest = np.setdiff1d(seen, out)
        prediction[out] = ridge(x[rest], y[rest], x[out])
    means = np.where(imputed[:, None], prediction, y)
    values = np.where(imputed[:, None], np.nan, y)
    noise = ((y - prediction)[seen] ** 2).mean(0)
    draws = np.sqrt(noise) * rng.standard_normal((k, imputed.sum(), p))
    imputer = RegressionImputer(values, prediction, group, np.zeros((n, 0)), imputed, noise)
    everything = np.ones((n, p), bool)
    return {
        "means": pool(least_squares(means[None], everything, design)).pvalue,
        "imputed": pool(least_squares(completed(imputer, values, draws, seed), everything, design)).pvalue,
    }


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_pvalues_are_uniform_where_groups_do_not_differ(shift: float) -> None:
    found = [simulated_pvalues(shift, seed) for seed in range(60)]
    pvalues = {name: np.concatenate([f[name] for f in found]) for name in ("means", "imputed")}
    # 1200 tests: the standard error of a share of 5 % is 0.6 %, of 20 % 1.2 %.
    assert (pvalues["imputed"] < 0.05).mean() == pytest.approx(0.05, abs=0.02)
    assert (pvalues["imputed"] < 0.2).mean() == pytest.approx(0.2, abs=0.04)
    if shift:  # imputed means taken as measurements inherit the difference of the sources
        assert (pvalues["means"] < 0.05).mean() > 0.10
