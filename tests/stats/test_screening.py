"""The screen: what it lets through, what not, and that its scores are held-out scores."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from omicvae.datasets import gp_features
from omicvae.stats import screening
from omicvae.stats.components import Block
from omicvae.stats.screening import Screen, screen, screens


def block(x: np.ndarray, rows: np.ndarray | None = None, seen: np.ndarray | None = None) -> Block:
    x = ((x - x.mean(0)) / np.maximum(x.std(0), 1e-9)).astype(np.float32)
    rows = np.arange(len(x)) if rows is None else rows
    return Block(x if seen is None else np.where(seen, x, np.float32(0)), seen, rows, np.zeros((len(x), 0), np.float32))


@pytest.fixture(scope="module")
def gp() -> list[np.ndarray]:
    mdata = gp_features((40, 30), n_obs=400, seed=3).mdata
    return [np.asarray(mdata[m][mdata.obs_names].X) for m in ("x1", "x2")]


@pytest.mark.parametrize("target", [0, 1])
def test_features_that_both_assays_know_pass_and_others_do_not(gp: list[np.ndarray], target: int) -> None:
    found = screen([block(x) for x in gp], target)
    assert found.passed[:10].all()
    assert found.passed[10:].sum() <= 1
    assert found.score[:10].min() > 0.2
    assert ((found.gate > 0) == found.passed).all()


@pytest.mark.parametrize("n", [60, 400])
def test_of_samples_in_random_order_next_to_nothing_passes(gp: list[np.ndarray], n: int) -> None:
    """The threshold rises where samples are few: of 90 features, one in two hundred is expected to pass."""
    rng = np.random.default_rng(0)
    shuffled = [block(gp[0][:n]), block(gp[1][:n][rng.permutation(n)])]
    found = [screen(shuffled, t) for t in (0, 1)]
    assert sum(int(f.passed.sum()) for f in found) <= 3
    if n == 60:
        assert max(f.threshold for f in found) > screening.LEAST_SCORE


def test_features_that_are_seen_in_single_samples_do_not_close_the_screen() -> None:
    """Of large cohorts some samples are looked at, in which rare features are constant: they score 0, not 1."""
    rng = np.random.default_rng(0)
    n, n_rare = screening.MOST_ROWS + 600, 40
    z = rng.normal(size=(n, 2))
    parts = [z @ rng.normal(size=(2, 12)) + rng.normal(size=(n, 12)) for _ in range(2)]
    rare = np.zeros((n, n_rare))
    rare[rng.choice(n, n_rare, replace=False), np.arange(n_rare)] = 1
    found = screen([block(np.hstack([parts[0], rare])), block(parts[1])], 0)
    assert found.threshold < 0.1
    assert found.passed[:12].all() and not found.passed[12:].any()
    assert found.score[12:].max() < screening.LEAST_SCORE


def test_the_second_look_finds_in_few_samples_what_the_first_one_misses() -> None:
    """Of 60 shared features in three cohorts of 108 samples all pass; of 600 others hardly more than before."""
    looks = []
    for seed in (0, 1, 3):
        mdata = gp_features((100, 100), n_obs=108, n_latent=(4, 2, 4), noise=0.15, seed=seed).mdata
        blocks = [block(np.asarray(mdata[m][mdata.obs_names].X)) for m in ("x1", "x2")]
        looks.append(([screen(blocks, t).passed for t in (0, 1)], [s.passed for s in screens(blocks)]))
    shared, others = (
        [sum(int(p[part].sum()) for pair in looks for p in pair[k]) for k in (0, 1)]
        for part in (slice(10), slice(10, None))
    )
    assert shared[0] < 58 and shared[1] == 60
    assert others[1] <= others[0] + 4


def test_there_is_no_second_look_where_nothing_is_shared() -> None:
    """A run of chance passes of correlated features is not followed up: the screens are those of the first look."""
    passed = 0
    for seed in range(6):
        mdata = gp_features((60, 60), n_obs=100, n_shared=0, seed=seed).mdata
        blocks = [block(np.asarray(mdata[m][mdata.obs_names].X)) for m in ("x1", "x2")]
        for target, found in enumerate(screens(blocks)):
            np.testing.assert_array_equal(found.score, screen(blocks, target).score)
            assert found.evidence < screening.LEAST_EVIDENCE
            passed += int(found.passed.sum())
    assert passed <= 20  # of 720


def test_the_second_look_matches_samples_and_leaves_gaps_out() -> None:
    """Three assays, of which each lacks samples and values: the dependence through a square is found in all of them."""
    rng = np.random.default_rng(3)
    z = rng.normal(size=(400, 2))
    blocks = []
    for k in range(3):
        shared = np.concatenate([z, z**2 if k else np.abs(z)], 1) + 0.3 * rng.normal(size=(400, 4))
        x = np.concatenate([shared, rng.normal(size=(400, 20))], 1)
        rows = np.sort(rng.choice(400, 320, replace=False))
        blocks.append(block(x[rows], rows, rng.random((320, 24)) > 0.1))
    for found in screens(blocks):
        assert found.passed[:4].all()
        assert found.passed[4:].sum() <= 2


def test_dependence_that_is_an_even_function_is_seen() -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(500, 3))
    x = np.concatenate([z, rng.normal(size=(500, 10))], 1)
    y = np.concatenate([z**2 + 0.2 * rng.normal(size=z.shape), rng.normal(size=(500, 10))], 1)
    found = screen([block(x), block(y)], 1)
    assert found.passed[:3].all() and not found.passed[3:].any()


def test_scores_are_those_of_ridge_on_held_out_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """One penalty, against scikit-learn's ridge on the same folds; targets may have gaps."""
    monkeypatch.setattr(screening, "PENALTIES", np.array([0.1]))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 6))
    y = x @ rng.normal(size=(6, 4)) + rng.normal(size=(80, 4))
    a, b = block(x), block(y)
    folds = np.random.default_rng(0).permutation(80) % screening.N_FOLDS
    left = np.zeros((80, 4))
    for k in range(screening.N_FOLDS):
        train, test = folds != k, folds == k
        # the kernel is x x' / p, centred targets, no intercept in x
        mean = b.values[train].mean(0)
        ridge = Ridge(alpha=0.1 * 6, fit_intercept=False).fit(a.values[train], b.values[train] - mean)
        left[test] = b.values[test] - mean - ridge.predict(a.values[test])
    expected = 1 - (left**2).sum(0) / (b.values**2).sum(0)
    np.testing.assert_allclose(screen([a, b], 1).score, expected, atol=1e-4)


def test_samples_are_matched_and_gaps_do_not_count() -> None:
    """Rows of the assays differ and values are missing: the same features pass."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(300, 2))
    x, y = (np.concatenate([z + 0.3 * rng.normal(size=z.shape), rng.normal(size=(300, 4))], 1) for _ in range(2))
    rows = [np.sort(rng.choice(300, 220, replace=False)) for _ in range(2)]
    seen = rng.random((220, 6)) > 0.3
    found = screen([block(x[rows[0]], rows[0]), block(y[rows[1]], rows[1], seen)], 1)
    assert found.passed.tolist() == [True, True, False, False, False, False]


def test_assays_that_hardly_meet_say_nothing() -> None:
    rng = np.random.default_rng(0)
    apart = [block(rng.normal(size=(40, 3)), np.arange(40)), block(rng.normal(size=(40, 3)), np.arange(30, 70))]
    found = screen(apart, 0)
    assert np.isnan(found.score).all() and not found.passed.any()
    assert found.gate.tolist() == [0, 0, 0]


def test_constant_features_do_not_pass() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3))
    found = screen([block(x), block(np.concatenate([x, np.ones((100, 1))], 1))], 1)
    assert found.passed.tolist() == [True, True, True, False]


def test_gates_are_roots_of_scores() -> None:
    found = Screen(np.array([0.25, 0.01, np.nan, -3.0, 1.0]), 0.02)
    np.testing.assert_allclose(found.gate, [0.5, 0, 0, 0, 1])
