from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from omicvae.stats import kernel_ridge, moments, penalties
from omicvae.stats.components import Block, principal_components
from omicvae.stats.kernels import MixedKernel
from omicvae.stats.moments import MomentPredictor
from omicvae.stats.patterns import LEAST_ROWS, default_patterns

LINEAR = MixedKernel(nonlinear=0.0)


def assays(n: int, *widths: int, seed: int = 0, noise: float = 1.0) -> list[np.ndarray]:
    """Assays of standardised features that share four latent dimensions."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4))
    found = [z @ rng.normal(size=(4, p)) / 2 + noise * rng.normal(size=(n, p)) for p in widths]
    return [((x - x.mean(0)) / x.std(0)).astype(np.float32) for x in found]


def block(x: np.ndarray, rows: np.ndarray | None = None, *, seen: np.ndarray | None = None, design=None) -> Block:
    rows = np.arange(len(x)) if rows is None else np.asarray(rows, dtype=np.intp)
    design = np.zeros((len(x), 0)) if design is None else design
    return Block(np.asarray(x, np.float32), seen, rows, np.asarray(design, np.float32))


def blocks_of(xs: list[np.ndarray], present: np.ndarray) -> list[Block]:
    """Blocks of the samples that have each assay."""
    return [block(x[present[:, m]], np.flatnonzero(present[:, m])) for m, x in enumerate(xs)]


def prepared(xs: list[np.ndarray], present: np.ndarray | None = None, kernel: MixedKernel | None = None):
    predictor = MomentPredictor(kernel)
    present = np.ones((len(xs[0]), len(xs)), bool) if present is None else present
    predictor.prepare(blocks_of(xs, present), present)
    return predictor


def predict(predictor: MomentPredictor, key, *values: np.ndarray) -> np.ndarray:
    """Prediction of new samples without covariates."""
    empty = [np.zeros((len(v), 0), np.float32) for v in values]
    return predictor.fixed(key[1], np.zeros((len(values[0]), 0))) + predictor.signal(key, values, empty)


def penalty(predictor: MomentPredictor, source: int, target: int) -> float:
    return float(predictor.state()[f"penalty/{source}/{target}"])


@pytest.fixture
def open_gates(monkeypatch) -> None:
    monkeypatch.setattr(moments, "isotonic_gates", lambda products, squares: np.ones(len(products)))
    monkeypatch.setattr(moments, "feature_gains", lambda truth, prediction, n_obs: np.ones(truth.shape[1]))


@pytest.fixture
def one_penalty(monkeypatch) -> float:
    monkeypatch.setattr(penalties, "PENALTIES", np.array([0.3, 0.3]))
    return 0.3


def fixed_folds(monkeypatch, folds: np.ndarray) -> None:
    monkeypatch.setattr(kernel_ridge, "assign_folds", lambda present, n_folds, seed: folds)


# ---------------------------------------------------------------------- ridge regression is a special case


@pytest.mark.parametrize("widths", [(30, 8), (100, 8), (6, 90)])
def test_linear_kernel_and_open_gates_are_ridge_regression(open_gates, widths):
    x, y = assays(60, *widths)
    predictor = prepared([x, y], kernel=LINEAR)
    predictor.fit_pattern(((0,), 1))
    new = assays(7, *widths, seed=1)[0]
    reference = Ridge(alpha=60 * penalty(predictor, 0, 1)).fit(x, y).predict(new)
    np.testing.assert_allclose(predict(predictor, ((0,), 1), new), reference, atol=2e-3)


def test_several_sources_are_ridge_regression_with_a_penalty_each(open_gates, monkeypatch):
    monkeypatch.setattr(penalties, "SHARES", ())
    xs = assays(50, 20, 70, 9)
    predictor = prepared(xs, kernel=LINEAR)
    predictor.fit_pattern(((0, 1), 2))
    scale = [penalty(predictor, a, 2) ** -0.5 for a in (0, 1)]
    join = lambda parts: np.concatenate([s * x for s, x in zip(scale, parts, strict=True)], axis=1)
    new = assays(7, 20, 70, seed=1)
    reference = Ridge(alpha=50).fit(join(xs[:2]), xs[2]).predict(join(new))
    np.testing.assert_allclose(predict(predictor, ((0, 1), 2), *new), reference, atol=2e-3)


@pytest.mark.parametrize(
    "regime",
    [
        {"EIGEN_ROWS": 10},  # a factorisation a penalty
        {"EXACT_ROWS": 50, "LANDMARKS": 40},  # landmarks, normal equations of their features
        {"EXACT_ROWS": 50, "LANDMARKS": 40, "EIGEN_ROWS": 10},
    ],
)
@pytest.mark.parametrize("missing", [0, 30])
def test_large_samples_are_ridge_regression_too(open_gates, one_penalty, monkeypatch, regime, missing):
    """Landmarks lose nothing with a linear kernel whose rank is below their number; ``missing`` lack the target."""
    for name, value in regime.items():
        monkeypatch.setattr(kernel_ridge, name, value)
    xs, present = assays(70, 12, 15, 6), np.ones((70, 3), bool)
    present[:missing, 2] = False
    predictor = prepared(xs, present, LINEAR)
    new, common = assays(5, 12, 15, seed=1), slice(missing, None)
    for key in (((0,), 2), ((0, 1), 2)):
        predictor.fit_pattern(key)
        join = lambda parts, key=key: np.concatenate([parts[a] for a in key[0]], axis=1)
        reference = Ridge(alpha=(70 - missing) * one_penalty).fit(join(xs)[common], xs[2][common]).predict(join(new))
        np.testing.assert_allclose(predict(predictor, key, *(new[a] for a in key[0])), reference, atol=5e-3)


def test_cross_fit_is_ridge_regression_without_the_fold(open_gates, one_penalty):
    x, y = assays(60, 40, 8)
    fit = prepared([x, y], kernel=LINEAR).fit_pattern(((0,), 1))
    assert fit.rows.tolist() == list(range(60))
    for fold in range(5):
        test = fit.folds == fold
        reference = Ridge(alpha=(~test).sum() * one_penalty).fit(x[~test], y[~test]).predict(x[test])
        np.testing.assert_allclose(fit.prediction[test], reference, atol=2e-3)


def test_the_penalty_is_nearly_the_best_of_the_grid(open_gates):
    """By the error of ridge regression on 2000 new samples; folds of 100 cannot tell neighbours apart."""
    x, y = assays(2100, 60, 10)
    train, test = slice(0, 100), slice(100, None)
    predictor = prepared([x[train], y[train]], kernel=LINEAR)
    predictor.fit_pattern(((0,), 1))
    error = {
        lam: ((Ridge(alpha=100 * lam).fit(x[train], y[train]).predict(x[test]) - y[test]) ** 2).mean()
        for lam in penalties.PENALTIES
    }
    assert error[penalty(predictor, 0, 1)] < 1.03 * min(error.values()) < 0.9 * max(error.values())


# ---------------------------------------------------------------------- nothing leaks


def test_predictions_of_a_fold_do_not_know_its_target_values(open_gates, one_penalty):
    """Only penalties, gates and gains, here held fixed, may come from all folds."""
    x, y = assays(60, 30, 8)
    predictor = prepared([x, y])
    before = predictor.fit_pattern(((0,), 1))
    here = before.folds == 2
    changed = y.copy()
    changed[here] = 10 * np.random.default_rng(1).normal(size=changed[here].shape)
    after = prepared([x, changed]).fit_pattern(((0,), 1))
    np.testing.assert_array_equal(after.folds, before.folds)
    np.testing.assert_array_equal(after.prediction[here], before.prediction[here])
    assert np.abs(after.prediction[~here] - before.prediction[~here]).max() > 0.1


def test_predictions_of_a_sample_do_not_know_the_sources_of_others_in_its_fold(open_gates, one_penalty):
    x, y = assays(60, 30, 8)
    before = prepared([x, y]).fit_pattern(((0,), 1))
    here = np.flatnonzero(before.folds == 2)
    changed = x.copy()
    changed[here[1:]] += 3
    after = prepared([changed, y]).fit_pattern(((0,), 1))
    # distances and centred products do not change when the mean of the source does, but for float32
    np.testing.assert_allclose(after.prediction[here[0]], before.prediction[here[0]], atol=1e-4)
    assert np.abs(after.prediction[here[1:]] - before.prediction[here[1:]]).max() > 0.1


@pytest.mark.parametrize("kernel", [LINEAR, MixedKernel()])
def test_nothing_is_learnt_from_noise(kernel):
    """Gates and gains are fitted on the cross-fitted predictions themselves; the R2 this invents must stay small."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(80, 300)).astype(np.float32), rng.normal(size=(80, 200)).astype(np.float32)
    predictor = prepared([x, y], kernel=kernel)
    fit = predictor.fit_pattern(((0,), 1))
    r2 = 1 - ((y - fit.prediction) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    assert r2.mean() < 0.02  # a gain a feature alone is worth 1/80
    new = rng.normal(size=(50, 300)).astype(np.float32)
    assert predict(predictor, ((0,), 1), new).std() < 0.25


def test_variance_of_cross_fitted_residuals_is_that_of_new_samples():
    xs = assays(1600, 40, 10)
    train, test = slice(0, 400), slice(400, None)
    predictor = prepared([x[train] for x in xs])
    predictor.fit_pattern(((0,), 1))
    error = (xs[1][test] - predict(predictor, ((0,), 1), xs[0][test])).var(0)
    fit = predictor.directed[(0,), 1]
    # 400 squared residuals tell a variance to 7 %, three times that a feature
    np.testing.assert_allclose(error / fit.variance, 1, atol=0.21)
    assert (error / fit.variance).mean() == pytest.approx(1, abs=0.07)
    np.testing.assert_allclose(fit.total, xs[1][train].var(0), rtol=0.02)
    np.testing.assert_allclose(predictor.precision(((0,), 1)), 1 / fit.variance - 1 / fit.total)


def test_cross_fit_repeats_what_fitting_gave_and_adopts_fits_of_another():
    xs = assays(60, 20, 8)
    predictor, other = prepared(xs), prepared(xs)
    fit = predictor.fit_pattern(((0,), 1))
    other.adopt(predictor)
    for again in (predictor.cross_fit(((0,), 1)), other.cross_fit(((0,), 1))):
        for a, b in zip(again, fit, strict=True):
            np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------------- what must not matter


def test_order_of_samples_does_not_matter(monkeypatch):
    xs, folds = assays(60, 20, 8), np.arange(60) % 5
    order, new = np.random.default_rng(0).permutation(60), assays(4, 20, seed=1)[0]
    found = []
    for rows in (np.arange(60), order):
        fixed_folds(monkeypatch, folds[rows])
        predictor = prepared([x[rows] for x in xs])
        fit = predictor.fit_pattern(((0,), 1))
        found.append((predict(predictor, ((0,), 1), new), fit.prediction[np.argsort(rows)]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_order_of_modalities_does_not_matter():
    xs, new = assays(60, 20, 15, 8), assays(4, 20, 15, seed=1)
    first, second = prepared(xs), prepared([xs[2], xs[1], xs[0]])
    first.fit_pattern(((0, 1), 2))
    second.fit_pattern(((1, 2), 0))
    expected = predict(first, ((0, 1), 2), *new)
    np.testing.assert_allclose(predict(second, ((1, 2), 0), *new[::-1]), expected, atol=1e-3)


def test_samples_without_source_or_target_do_not_matter(monkeypatch):
    """60 samples with all, ten with a third assay only, ten with the source only and far away."""
    xs, folds = assays(80, 20, 8, 5), np.arange(80) % 5
    xs[0][70:] += 5
    present = np.ones((80, 3), bool)
    present[60:70, :2] = False
    present[70:, 1:] = False
    fixed_folds(monkeypatch, folds)
    many = prepared(xs, present)
    fit = many.fit_pattern(((0,), 1))
    fixed_folds(monkeypatch, folds[:60])
    few = prepared([x[:60] for x in xs[:2]])
    np.testing.assert_allclose(few.fit_pattern(((0,), 1)).prediction, fit.prediction, atol=1e-3)
    new = assays(4, 20, seed=1)[0]
    np.testing.assert_allclose(predict(few, ((0,), 1), new), predict(many, ((0,), 1), new), atol=1e-3)


def test_new_samples_are_predicted_one_by_one():
    predictor = prepared(assays(60, 20, 8))
    predictor.fit_pattern(((0,), 1))
    new = assays(6, 20, seed=1)[0]
    single = np.concatenate([predict(predictor, ((0,), 1), row[None]) for row in new])
    np.testing.assert_allclose(predict(predictor, ((0,), 1), new), single, atol=1e-5)
    assert predict(predictor, ((0,), 1), new[:0]).shape == (0, 8)


def test_values_behind_a_mask_do_not_matter():
    xs = assays(60, 20, 8)
    seen = np.random.default_rng(0).random((60, 20)) < 0.8
    found = []
    for filler in (0.0, 50.0):
        source = block(np.where(seen, xs[0], filler), seen=seen)
        target = block(np.where(seen[:, :8], xs[1], filler), seen=seen[:, :8])
        predictor = MomentPredictor()
        predictor.prepare([source, target], np.ones((60, 2), bool))
        found.append(predictor.fit_pattern(((0,), 1)).prediction)
        found.append(predict(predictor, ((0,), 1), xs[0][:5]))
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])


# ---------------------------------------------------------------------- samples that lack assays


def mosaic() -> tuple[list[np.ndarray], np.ndarray]:
    """120 samples, 40 without each of three assays in turn."""
    present = np.ones((120, 3), bool)
    for m in range(3):
        present[40 * m : 40 * m + 40, m] = False
    return assays(120, 30, 25, 8), present


def test_regressions_use_common_samples_and_components_all_that_have_the_target(open_gates, one_penalty):
    xs, present = mosaic()
    predictor = prepared(xs, present, LINEAR)
    fit = predictor.fit_pattern(((0,), 2))
    common = present[:, 0] & present[:, 2]
    np.testing.assert_array_equal(fit.rows, np.flatnonzero(common))
    np.testing.assert_array_equal(predictor.samples.common(((0,), 2)), fit.rows)
    everyone = block(xs[2][present[:, 2]])
    np.testing.assert_array_equal(predictor.samples.bases[2].scale, principal_components(everyone, np.arange(80)).scale)
    new = assays(5, 30, seed=1)[0]
    reference = Ridge(alpha=40 * one_penalty).fit(xs[0][common], xs[2][common]).predict(new)
    np.testing.assert_allclose(predict(predictor, ((0,), 2), new), reference, atol=2e-3)


def test_a_pattern_that_nobody_has_is_covered_by_smaller_ones():
    xs, present = mosaic()
    predictor = prepared(xs, present)
    assert not predictor.supported(((0, 1), 2))
    with pytest.raises(ValueError, match=f"0 samples have both .* at least {LEAST_ROWS}"):
        predictor.fit_pattern(((0, 1), 2))
    assert predictor.covering((0, 1), 2) == []
    for key in (((0,), 2), ((1,), 2)):
        assert predictor.supported(key)
        predictor.fit_pattern(key)
    assert sorted(predictor.covering((0, 1), 2)) == [((0,), 2), ((1,), 2)]
    assert predictor.covering((1,), 2) == [((1,), 2)]
    assert predictor.covering((0,), 1) == []
    assert predictor.covering((), 2) == []


def test_covering_patterns_share_no_source_and_the_best_comes_first():
    xs = assays(200, 12, 10, 12, 8, noise=1.5)
    xs[1] = np.random.default_rng(1).normal(size=xs[1].shape).astype(np.float32)  # of no use
    predictor = prepared(xs)
    for key in (((0,), 3), ((1,), 3), ((0, 2), 3), ((1, 2), 3)):
        predictor.fit_pattern(key)
    keys = predictor.covering((0, 1, 2), 3)
    assert keys[0] == ((0, 2), 3)
    assert keys == [((0, 2), 3), ((1,), 3)]
    assert predictor.covering((0, 1), 3) == [((0,), 3), ((1,), 3)]


def test_patterns_are_compared_in_samples_that_both_have():
    """Where both sources were measured, the target is noisier: a pattern must not lose for that."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(240, 2))
    xs = [np.repeat(z[:, [m]], 6, 1) + 0.3 * rng.normal(size=(240, 6)) for m in range(2)]
    noise = np.where(np.arange(240) < 120, 0.3, 1.5)[:, None]
    target = z.sum(1, keepdims=True) @ np.ones((1, 5)) + noise * rng.normal(size=(240, 5))
    present = np.ones((240, 3), bool)
    present[:120, 1] = False
    predictor = fit_all(blocks_of([x.astype(np.float32) for x in (*xs, target)], present), present)
    variance = {k: predictor.directed[k, 2].variance.mean() for k in ((0,), (0, 1))}
    assert variance[0, 1] > variance[0,]  # over other samples
    assert predictor.covering((0, 1), 2) == [((0, 1), 2)]
    restored = MomentPredictor()
    restored.restore(predictor.state())
    assert restored.covering((1, 0), 2) == [((0, 1), 2)]


@pytest.mark.parametrize("shares", [penalties.SHARES, ()])
def test_a_source_that_knows_nothing_takes_hardly_any_part(monkeypatch, shares):
    """Alone it predicts nothing whatever its penalty; beside another, what it says would be noise."""
    monkeypatch.setattr(penalties, "SHARES", shares)
    lost = []
    for seed in range(3):
        xs = assays(700, 30, 8, seed=seed)
        xs.insert(1, np.random.default_rng(seed).normal(size=(700, 60)).astype(np.float32))
        predictor = prepared([x[:100] for x in xs])
        errors = []
        for sources in ((0,), (0, 1)):
            predictor.fit_pattern((sources, 2))
            found = predict(predictor, (sources, 2), *(xs[a][100:] for a in sources))
            errors.append(((xs[2][100:] - found) ** 2).mean())
        lost.append(errors[1] / errors[0] - 1)
    assert (np.mean(lost) < 0.01) == bool(shares)


def test_more_sources_are_better():
    xs = assays(300, 10, 10, 12, noise=1.5)
    predictor = prepared(xs)
    single, both = (predictor.fit_pattern((sources, 2)).prediction for sources in ((0,), (0, 1)))
    assert ((xs[2] - both) ** 2).mean() < 0.97 * ((xs[2] - single) ** 2).mean()
    assert predictor.covering((0, 1), 2) == [((0, 1), 2)]


# ---------------------------------------------------------------------- what the parts are for


def test_a_radial_kernel_finds_what_a_linear_one_cannot():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 2))
    x = np.concatenate([z @ rng.normal(size=(2, 12)), 0.3 * rng.normal(size=(300, 3))], axis=1)
    y = np.stack([z[:, 0] ** 2, z[:, 0] * z[:, 1]], axis=1) + 0.1 * rng.normal(size=(300, 2))
    xs = [((v - v.mean(0)) / v.std(0)).astype(np.float32) for v in (x, y)]
    error = [((xs[1] - prepared(xs, kernel=k).fit_pattern(((0,), 1)).prediction) ** 2).mean() for k in (LINEAR, None)]
    assert error[0] > 0.9
    assert error[1] < 0.5


def test_gates_shut_components_that_sources_do_not_know():
    """The target's leading component is its own; the second is shared."""
    rng = np.random.default_rng(0)
    z, own = rng.normal(size=(300, 1)), rng.normal(size=(300, 1))
    x = z + 0.5 * rng.normal(size=(300, 10))
    y = np.concatenate([np.repeat(own, 8, axis=1), np.repeat(z, 4, axis=1)], axis=1) + 0.3 * rng.normal(size=(300, 12))
    predictor = prepared([v.astype(np.float32) for v in (x - x.mean(0), y - y.mean(0))], kernel=LINEAR)
    fit = predictor.fit_pattern(((0,), 1))
    r2 = 1 - ((y - y.mean(0) - fit.prediction) ** 2).mean(0) / y.var(0)
    assert (np.abs(r2[:8]) < 0.05).all()
    # isotonic gates hold the second component back for the first one's sake; gains of features give it back
    assert (r2[8:] > 0.5).all()


def test_a_pure_batch_shift_is_predicted_from_the_batch_and_not_from_sources():
    rng = np.random.default_rng(0)
    batch = np.eye(2)[np.arange(400) % 2]
    shift = np.array([[1.0], [-1.0]])
    x = batch @ shift + 0.5 * rng.normal(size=(400, 30))
    y = batch @ shift + 0.5 * rng.normal(size=(400, 6))
    predictor = MomentPredictor()
    predictor.prepare([block(x, design=batch), block(y, design=batch)], np.ones((400, 2), bool))
    fit = predictor.fit_pattern(((0,), 1))
    np.testing.assert_allclose(predictor.fixed(1, np.eye(2)), np.repeat(shift, 6, axis=1), atol=0.15)
    signal = predictor.signal(((0,), 1), [x.astype(np.float32)], [batch.astype(np.float32)])
    assert np.abs(signal).max() < 0.15
    # what is left is noise: cross-fitted predictions are the batch's mean
    assert np.corrcoef(fit.prediction[:, 0], batch[:, 0])[0, 1] > 0.98
    assert predictor.fixed(1, np.tile(np.eye(2), (3, 1, 1))).shape == (3, 2, 6)


def test_sources_of_an_unknown_batch_are_those_of_the_average_batch():
    """A shift of a source that its batch explains changes nothing."""
    rng = np.random.default_rng(0)
    xs, batch = assays(400, 20, 6), np.eye(2)[np.arange(400) % 2].astype(np.float32)
    shifted = xs[0] + batch @ rng.normal(size=(2, 20)).astype(np.float32)
    predictor = MomentPredictor()
    predictor.prepare([block(shifted, design=batch), block(xs[1])], np.ones((400, 2), bool))
    predictor.fit_pattern(((0,), 1))
    plain = prepared(xs)
    plain.fit_pattern(((0,), 1))
    found = predictor.signal(((0,), 1), [shifted[:50]], [batch[:50]])
    expected = plain.signal(((0,), 1), [xs[0][:50]], [np.zeros((50, 0), np.float32)])
    # batch means of 200 samples are known to .07 of a feature's sd
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


# ---------------------------------------------------------------------- saving


@pytest.mark.parametrize("limits", [{}, {"EXACT_ROWS": 50, "LANDMARKS": 30}])
def test_a_restored_predictor_predicts_the_same(monkeypatch, limits):
    for name, value in limits.items():
        monkeypatch.setattr(kernel_ridge, name, value)
    xs, new = assays(60, 20, 15, 8), assays(4, 20, 15, seed=1)
    predictor = prepared(xs, kernel=MixedKernel(0.3, 0.7))
    for key in (((0,), 2), ((0, 1), 2), ((2,), 0)):
        predictor.fit_pattern(key)
    arrays = predictor.state()
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in arrays.values())
    restored = MomentPredictor()
    restored.restore(arrays)
    for key in (((0,), 2), ((0, 1), 2)):
        values = [new[a] for a in key[0]]
        np.testing.assert_array_equal(predict(restored, key, *values), predict(predictor, key, *values))
        np.testing.assert_array_equal(restored.precision(key), predictor.precision(key))
    assert restored.covering((0, 1), 2) == predictor.covering((0, 1), 2)
    for name, value in restored.state().items():
        np.testing.assert_array_equal(value, arrays[name])


# ---------------------------------------------------------------------- little or no data


def fit_all(blocks: list[Block], present: np.ndarray) -> MomentPredictor:
    predictor = MomentPredictor()
    predictor.prepare(blocks, present)
    for key in default_patterns(present):
        if predictor.supported(key):
            fit = predictor.fit_pattern(key)
            values = [blocks[a].values[:3] for a in key[0]]
            found = predict(predictor, key, *values)
            assert np.isfinite(fit.prediction).all()
            assert np.isfinite(found).all()
            assert np.isfinite(predictor.precision(key)).all()
    return predictor


def test_constant_assays_are_predicted_by_their_constant_and_tell_nothing():
    y = assays(40, 3)[0]
    both = np.ones((40, 2), bool)
    predictor = fit_all([block(np.full((40, 4), 2.0)), block(y)], both)
    np.testing.assert_allclose(predictor.cross_fit(((1,), 0)).prediction, 2, atol=1e-6)
    np.testing.assert_allclose(
        predict(predictor, ((0,), 1), np.full((1, 4), 2.0, np.float32)), y.mean(0)[None], atol=1e-6
    )


def test_a_feature_that_was_never_measured():
    """It is predicted by nothing, with no claim to precision, and moves no other feature."""
    x, y = assays(60, 20, 5)
    seen = np.ones((60, 5), bool)
    seen[:, 2] = False
    both = np.ones((60, 2), bool)
    masked = fit_all([block(x), block(np.where(seen, y, 0), seen=seen)], both)
    others = [0, 1, 3, 4]
    without = fit_all([block(x), block(y[:, others])], both)
    key = ((0,), 1)
    np.testing.assert_allclose(predict(masked, key, x)[:, 2], 0, atol=1e-6)
    assert masked.precision(key)[2] <= 1.5
    np.testing.assert_allclose(predict(masked, key, x)[:, others], predict(without, key, x), atol=1e-3)


def test_a_feature_measured_outside_the_common_samples_only():
    """Its predictions rest on its loadings; nothing says that they are precise."""
    xs, present = assays(80, 20, 5), np.ones((80, 2), bool)
    present[40:, 0] = False
    seen = np.ones((80, 5), bool)
    seen[:40, 0] = False
    predictor = fit_all([block(xs[0][:40]), block(np.where(seen, xs[1], 0), seen=seen)], present)
    assert predictor.precision(((0,), 1))[0] <= 1.5


@pytest.mark.parametrize(("n", "kept"), [(0, 0), (1, 1), (40, 0), (40, 1), (40, LEAST_ROWS - 1)])
@pytest.mark.parametrize("n_covariates", [0, 2])
def test_too_few_samples_support_nothing(n, kept, n_covariates):
    x, design = np.random.default_rng(0).normal(size=(n, 4)), np.ones((n, n_covariates))
    present = np.ones((n, 2), bool)
    present[kept:, 1] = False
    predictor = fit_all([block(x, design=design), block(x[:kept], np.arange(kept), design=design[:kept])], present)
    assert predictor.directed == {}
    np.testing.assert_allclose(predictor.fixed(1, design).shape, (n, 4))
    restored = MomentPredictor()
    restored.restore(predictor.state())
    assert restored.covering((0,), 1) == []


def test_repeated_samples_and_many_features():
    x = np.repeat(np.random.default_rng(0).normal(size=(10, 5000)), 2, axis=0)
    fit_all([block(x), block(x[:, :6])], np.ones((20, 2), bool))
