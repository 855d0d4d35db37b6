"""Held-out predictions of probabilistic CCA, and the choice of its size by them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from omicvae.stats.components import Block
from omicvae.stats.factor_predictor import FactorPredictor, Sizes, fit_model
from omicvae.stats.factor_selection import cross_modal_error, select_sizes
from omicvae.stats.variational_factors import fit_factors, measured_rows

N, WIDTHS, K = 150, (40, 30), 3
SIZES = Sizes(6, (0, 0), 15)


def simulate(n: int = N, *, design: bool = False, seed: int = 0) -> tuple[list[Block], NDArray[np.bool_]]:
    """Two modalities of common factors, standardised, a fifth of each missing; the first has gaps."""
    rng = np.random.default_rng(seed)
    z, center = rng.normal(size=(n, K)), rng.integers(2, size=n)
    blocks, present = [], rng.uniform(size=(n, 2)) < 0.8
    present[~present.any(1)] = True
    for m, p in enumerate(WIDTHS):
        x = z @ rng.normal(size=(K, p)) / 2 + rng.normal(size=(n, p))
        onehot = np.eye(2)[center] if design else np.zeros((n, 0))
        x += 3.0 * onehot @ rng.normal(size=(onehot.shape[1], p))
        x = (x - x.mean(0)) / x.std(0)
        rows = np.flatnonzero(present[:, m])
        observed = rng.uniform(size=(len(rows), p)) < 0.9 if m == 0 else None
        values = x[rows] if observed is None else np.where(observed, x[rows], 0)
        blocks.append(Block(values.astype(np.float32), observed, rows, onehot[rows].astype(np.float32)))
    return blocks, present


def fitted(blocks: list[Block], present: NDArray[np.bool_], sizes: Sizes = SIZES) -> FactorPredictor:
    predictor = FactorPredictor(sizes)
    predictor.prepare(blocks, present)
    predictor.fit()
    return predictor


def error(predictor: FactorPredictor, prediction: NDArray[np.float32], rows: NDArray[np.intp]) -> float:
    truth = predictor.blocks[1].values[predictor.position[rows, 1]]
    return float(((truth - prediction) ** 2).mean())


@pytest.mark.parametrize("design", [False, True])
def test_cross_fitted_predictions_are_as_good_as_those_of_new_samples(design):
    """The same simulation seen whole: 300 samples to fit, 300 that nothing has seen. Standard error about .01."""
    blocks, present = simulate(600, design=design)
    old, everyone = np.arange(600) < 300, np.arange(600)
    half = [
        Block(b.values[old[b.rows]], None if b.observed is None else b.observed[old[b.rows]], b.rows[old[b.rows]], b.design[old[b.rows]])
        for b in blocks
    ]  # fmt: skip
    predictor = fitted(half, present[:300])
    key = ((0,), 1)
    crossed = predictor.fit_pattern(key)
    new = everyone[~old & present.all(1)]
    at = [np.searchsorted(b.rows, new) for b in blocks]
    values = np.where(blocks[0].observed[at[0]], blocks[0].values[at[0]], np.nan)
    prediction = predictor.fixed(1, blocks[1].design[at[1]])
    prediction = prediction + predictor.signal(key, [values], [blocks[0].design[at[0]]])
    fresh = float(((blocks[1].values[at[1]] - prediction) ** 2).mean())
    assert error(predictor, crossed.prediction, crossed.rows) == pytest.approx(fresh, abs=0.04)
    assert fresh < 0.85
    assert predictor.scales[key].variance.mean() == pytest.approx(fresh, abs=0.04)


def test_a_sample_never_enters_its_own_held_out_prediction():
    blocks, present = simulate()
    predictor = fitted(blocks, present)
    plain = predictor._crossed(((0,), 1))
    sample = int(plain[0][0])
    changed = [b._replace(values=b.values.copy()) for b in blocks]
    changed[1].values[predictor.position[sample, 1]] += 100  # its target
    other = fitted(changed, present)._crossed(((0,), 1))
    same_fold = predictor.folds[plain[0]] == predictor.folds[sample]
    for before, after in zip(plain[1:], other[1:], strict=True):
        np.testing.assert_allclose(after[same_fold], before[same_fold], atol=1e-5)
    assert np.abs(other[1][~same_fold] - plain[1][~same_fold]).max() > 1e-3


def test_missing_values_of_a_source_are_left_out_not_taken_as_the_mean():
    """A source of which nothing but NaN is known says nothing; one taken as its mean pulls to the mean of the target."""
    blocks, present = simulate()
    predictor = fitted(blocks, present)
    key = ((0,), 1)
    predictor.fit_pattern(key)
    no_design = [np.zeros((1, 0), np.float32)]
    nothing = predictor.signal(key, [np.full((1, WIDTHS[0]), np.nan, np.float32)], no_design)
    weights = predictor.model.weights[1]
    np.testing.assert_allclose(nothing[0], predictor.scales[key].gains * weights.intercept.numpy(), atol=1e-6)
    half = blocks[0].values[:1].copy()
    half[:, ::2] = np.nan
    q = predictor.model.given({0: half}, {0: no_design[0]})
    less = predictor.model.given({0: blocks[0].values[:1]}, {0: no_design[0]})
    assert q.covariance[0].trace() > less.covariance[0].trace()


def test_patterns_and_their_scales_survive_saving():
    blocks, present = simulate()
    predictor = fitted(blocks, present)
    for key in (((0,), 1), ((1,), 0)):
        assert predictor.supported(key)
        predictor.fit_pattern(key)
    other = FactorPredictor(Sizes(1, (), 1))
    other.restore(predictor.state())
    other.model = predictor.model
    assert other.sizes == SIZES and other.covering((0,), 1) == [((0,), 1)] and other.covering((1,), 1) == []
    values, design = [blocks[0].values[:4]], [blocks[0].design[:4]]
    np.testing.assert_array_equal(other.signal(((0,), 1), values, design), predictor.signal(((0,), 1), values, design))
    np.testing.assert_array_equal(other.precision(((0,), 1)), predictor.precision(((0,), 1)))


def test_few_common_samples_do_not_support_a_pattern():
    blocks, present = simulate()
    predictor = fitted(blocks, present)
    predictor.present = present.copy()
    predictor.present[19:, 0] = False
    assert not predictor.supported(((0,), 1))


# ---------------------------------------------------------------------- selection


def test_the_chosen_size_predicts_as_well_as_the_best_tried():
    blocks, _ = simulate(300)
    held = np.arange(300) % 5 == 0
    sizes, scored = select_sizes(blocks, ~held, held, n_private=(0, 0))
    assert scored and sizes.n_factors in [s.n_factors for s in scored]
    chosen = next(s for s in scored if s.n_factors == sizes.n_factors)
    assert chosen.n_iter == sizes.n_iter
    assert chosen.error <= 1.002 * min(s.error for s in scored)


def test_the_reported_error_is_that_of_predicting_held_out_modalities():
    """Against an explicit loop over samples, with the posterior of each formed anew."""
    blocks, present = simulate()
    held = np.arange(N) % 4 == 0
    model, _ = fit_model(blocks, ~held, SIZES)
    rows = [measured_rows_of(b, held) for b in blocks]
    total = []
    for target, source in ((1, 0), (0, 1)):
        both = np.flatnonzero(held & present.all(1))
        truth, found = [], []
        for i in both:
            x = with_nan(blocks[source], i)
            q = model.given({source: x}, {source: np.zeros((1, 0), np.float32)})
            w = model.weights[target]
            found.append((w.intercept + q.mean @ w.mean.mT).numpy()[0] + model.effects[target][0])
            truth.append(with_nan(blocks[target], i)[0])
        squared = (np.array(truth) - np.array(found)) ** 2
        total.append(np.sqrt(np.nanmean(squared, 0)).mean())
    centred = [r._replace(x=r.x - _tensor(model.effects[m][0])) for m, r in enumerate(rows)]
    assert cross_modal_error(model.weights, centred, int(held.sum())) == pytest.approx(np.mean(total), rel=1e-4)


def measured_rows_of(block: Block, kept: NDArray[np.bool_]):
    at = np.flatnonzero(kept[block.rows])
    number = np.cumsum(kept) - 1
    seen = None if block.observed is None else _tensor(block.observed[at])
    return measured_rows(_tensor(block.values[at]), _tensor(number[block.rows[at]]), seen)


def with_nan(block: Block, sample: int) -> NDArray[np.float32]:
    at = np.flatnonzero(block.rows == sample)
    x = block.values[at]
    return x if block.observed is None else np.where(block.observed[at], x, np.nan).astype(np.float32)


def _tensor(values: NDArray[np.generic]):
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))


def test_without_samples_to_predict_the_usual_size_is_taken():
    blocks, _ = simulate(40)
    sizes, scored = select_sizes(blocks, np.ones(40, bool), np.zeros(40, bool), n_private=(0, 2), max_iter=7)
    assert scored == [] and sizes == Sizes(16, (0, 2), 7)


def test_a_number_that_is_given_is_taken():
    blocks, _ = simulate()
    held = np.arange(N) % 3 == 0
    sizes, scored = select_sizes(blocks, ~held, held, n_factors=5, n_private=(0, 0), max_iter=10)
    assert sizes.n_factors == 5 and len(scored) == 1 and sizes.n_iter <= 10


def test_a_fit_keeps_to_its_iterations():
    blocks, _ = simulate()
    _, fit = fit_model(blocks, np.ones(N, bool), SIZES)
    assert len(fit.elbo) == SIZES.n_iter
    assert len(fit_factors([measured_rows_of(b, np.ones(N, bool)) for b in blocks], N, 6, max_iter=1000).elbo) < 1000
