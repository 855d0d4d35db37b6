"""Kernel regression and factor model together: what each pattern rests on, and that saving changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from omicvae.stats.components import Block
from omicvae.stats.gates import shrunken_slopes
from omicvae.stats.stacked import StackedPredictor

KEY = ((0,), 1)


def linear_blocks(n: int, p: int = 20, noise: float = 1.0, seed: int = 0, gaps: float = 0.0) -> list[Block]:
    """Two assays of three common factors."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    found = []
    for _ in range(2):
        x = z @ rng.normal(size=(3, p)) / np.sqrt(3) + noise * rng.normal(size=(n, p))
        x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
        seen = rng.random(x.shape) >= gaps if gaps else None
        x = x if seen is None else np.where(seen, x, np.float32(0))
        found.append(Block(x, seen, np.arange(n), np.zeros((n, 0), np.float32)))
    return found


def fitted(blocks: list[Block], **kwargs) -> StackedPredictor:
    predictor = StackedPredictor(**kwargs)
    predictor.prepare(blocks, np.ones((len(blocks[0].values), 2), bool))
    predictor.fit_pattern(KEY)
    return predictor


def part(blocks: list[Block], rows: slice) -> list[Block]:
    return [
        Block(b.values[rows], None if b.observed is None else b.observed[rows], np.arange(len(b.values[rows])), b.design[rows])
        for b in blocks
    ]  # fmt: skip


def error(predictor: StackedPredictor, blocks: list[Block]) -> float:
    design = blocks[0].design
    found = predictor.fixed(1, design) + predictor.signal(KEY, [blocks[0].values], [design])
    return float(((blocks[1].values - found) ** 2).mean())


def test_linear_data_rest_on_the_factor_model() -> None:
    """The factor model is the truth here: it takes most of the weight, and new samples are predicted better."""
    blocks = linear_blocks(330, noise=1.5)
    train, test = part(blocks, slice(0, 130)), part(blocks, slice(130, None))
    both, alone = fitted(train), fitted(train, with_factors=False)
    assert both.shares[KEY].mean() > 0.5
    assert error(both, test) < 0.99 * error(alone, test)
    assert not alone.shares and alone.factors is None


def test_curved_relations_rest_on_the_kernel() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(600, 2))
    x = np.concatenate([z + 0.1 * rng.normal(size=z.shape) for _ in range(6)], 1)
    y = np.stack([np.cos(2 * z[:, 0] + phase) + np.sin(2 * z[:, 1] - phase) for phase in np.linspace(0, 3, 12)], 1)
    blocks = [
        Block(((v - v.mean(0)) / v.std(0)).astype(np.float32), None, np.arange(600), np.zeros((600, 0), np.float32))
        for v in (x, y + 0.1 * rng.normal(size=y.shape))
    ]
    assert fitted(part(blocks, slice(0, 400))).shares[KEY].max() < 0.3


def test_cross_fits_are_repeatable_and_saving_changes_nothing() -> None:
    blocks = linear_blocks(90, gaps=0.2)
    predictor = StackedPredictor()
    predictor.prepare(blocks, np.ones((90, 2), bool))
    first = predictor.fit_pattern(KEY)
    np.testing.assert_allclose(predictor.cross_fit(KEY).prediction, first.prediction, atol=1e-5)
    again = StackedPredictor()
    again.restore(predictor.state())
    attached = StackedPredictor()
    attached.prepare(blocks, np.ones((90, 2), bool))
    attached.adopt(again)
    np.testing.assert_allclose(attached.cross_fit(KEY).prediction, first.prediction, atol=1e-5)
    new = np.where(np.random.default_rng(1).random((7, 20)) < 0.3, np.nan, blocks[0].values[:7]).astype(np.float32)
    design = np.zeros((7, 0), np.float32)
    found = predictor.signal(KEY, [new], [design])
    assert np.isfinite(found).all()
    np.testing.assert_allclose(again.signal(KEY, [new], [design]), found, atol=1e-5)
    np.testing.assert_allclose(again.precision(KEY), predictor.precision(KEY))


def test_residual_variance_is_that_of_the_stacked_prediction() -> None:
    blocks = linear_blocks(120, gaps=0.3)
    predictor = StackedPredictor()
    predictor.prepare(blocks, np.ones((120, 2), bool))
    found = predictor.fit_pattern(KEY)
    left = np.where(blocks[1].observed, blocks[1].values - found.prediction, np.nan)
    np.testing.assert_allclose(predictor.variance[KEY], np.nanmean(left**2, 0), rtol=1e-4)


def test_slopes_without_signal_are_drawn_to_zero_and_strong_ones_stay() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 40))
    noise = rng.normal(size=(80, 40))
    n_obs = np.full(40, 80.0)
    assert np.abs(shrunken_slopes(noise, x, n_obs)).mean() < 0.04  # least squares: sqrt(2 / (80 pi)) = .09
    np.testing.assert_allclose(shrunken_slopes(0.7 * x + 0.1 * noise, x, n_obs), 0.7, atol=0.05)
    assert shrunken_slopes(noise, np.zeros((80, 40)), n_obs).tolist() == [0.0] * 40


@pytest.mark.parametrize("n", [20, 21])
def test_the_smallest_cohorts(n: int) -> None:
    predictor = fitted(linear_blocks(n, p=3))
    assert np.isfinite(predictor.signal(KEY, [np.zeros((1, 3), np.float32)], [np.zeros((1, 0), np.float32)])).all()


def mostly_private(n: int = 500) -> list[Block]:
    """A source of 30 features; a target of 300, of which six are shared and the rest of forty factors of its own."""
    rng = np.random.default_rng(0)
    z, own = rng.normal(size=(n, 2)), rng.normal(size=(n, 40))
    x = z @ rng.normal(size=(2, 30)) + rng.normal(size=(n, 30))
    y = np.concatenate([z @ rng.normal(size=(2, 6)), own @ rng.normal(size=(40, 294))], 1)
    y += 0.3 * rng.normal(size=y.shape)
    design = np.zeros((n, 0), np.float32)
    return [Block(((v - v.mean(0)) / v.std(0)).astype(np.float32), None, np.arange(n), design) for v in (x, y)]


def test_shared_features_among_many_private_ones_rest_on_regression_without_gates() -> None:
    """They are in trailing components, whose gates are shut; each for itself they are predicted as by ridge."""
    blocks = mostly_private()
    train, test = part(blocks, slice(0, 350)), part(blocks, slice(350, None))
    predictor = fitted(train, with_factors=False)
    weights = predictor.plain_shares[KEY]
    assert weights[:6].min() > 0.6 and weights[6:].mean() < 0.4
    design, truth = test[0].design, test[1].values[:, :6]

    def explained(found: np.ndarray) -> float:
        return float(1 - ((truth - found[:, :6]) ** 2).mean() / truth.var())

    ridge = RidgeCV(np.logspace(-2, 4, 13)).fit(train[0].values, train[1].values[:, :6]).predict(test[0].values)
    gated = predictor.moments.signal(KEY, [test[0].values], [design]) + predictor.fixed(1, design)
    found = predictor.signal(KEY, [test[0].values], [design]) + predictor.fixed(1, design)
    assert explained(gated) < explained(ridge) - 0.05
    assert explained(found) > explained(ridge) - 0.01
    restored = StackedPredictor()
    restored.restore(predictor.state())
    again = restored.signal(KEY, [test[0].values], [design])
    np.testing.assert_allclose(again, found - predictor.fixed(1, design), atol=1e-5)


def test_crossed_predictions_of_another_predictor_of_the_same_samples() -> None:
    """What has been fitted is taken over, without gates too."""
    blocks = mostly_private(120)
    predictor, other = fitted(blocks, with_factors=False), StackedPredictor(with_factors=False)
    other.prepare(blocks, np.ones((120, 2), bool))
    other.adopt(predictor)
    assert KEY in other.plain_shares
    np.testing.assert_allclose(other.cross_fit(KEY).prediction, predictor.cross_fit(KEY).prediction, atol=1e-5)


def test_in_small_cohorts_chance_does_not_speak_for_regression_without_gates() -> None:
    """Where leading components are what is shared, it is left out of most of ten cohorts, and harms none of them much."""
    kept, ratio = 0, []
    for seed in range(10):
        blocks = linear_blocks(360, p=60, seed=seed)
        train, test = part(blocks, slice(0, 60)), part(blocks, slice(60, None))
        predictor = fitted(train, with_factors=False)
        kept += KEY in predictor.plain_shares
        with_both = error(predictor, test)
        predictor.plain_shares = {}
        ratio.append(with_both / error(predictor, test))
    assert kept <= 4
    assert np.mean(ratio) < 1.002
