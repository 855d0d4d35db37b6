"""Directions that assays predict in one another, on mixtures of shared and private variation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import subspace_angles
from sklearn.linear_model import LinearRegression

from omicvae.stats.components import Block
from omicvae.stats.screening import screen
from omicvae.stats.shared_directions import Directions, shared_directions

N, N_NEW, P = 300, 80, 24


def mixed(seed: int, *, turn: bool = True, shared: bool = True) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Three assays of two shared and six strong private variables, each seen in features of its own, then mixed.

    Returns values, and what is shared, ``(n, 2)`` for each assay.
    """
    rng = np.random.default_rng(seed)
    n = N + N_NEW
    z = rng.normal(size=(n, 2))
    values, truth = [], []
    for _ in range(3):
        common = np.tanh(z if shared else rng.normal(size=(n, 2)))
        x = np.concatenate([common, 2 * rng.normal(size=(n, 6)) @ rng.normal(size=(6, P - 2)) / 6**0.5], 1)
        rotation = np.linalg.qr(rng.normal(size=(P, P)))[0] if turn else np.eye(P)
        scale = x.std(0)
        values.append(((x / scale + 0.1 * rng.normal(size=x.shape)) @ rotation).astype(np.float32))
        truth.append(common)
    return values, truth


def blocks(values: list[np.ndarray], rows: np.ndarray, rng: np.random.Generator | None = None) -> list[Block]:
    """Some samples as blocks, of which each assay lacks a fifth if ``rng`` is given."""
    found = []
    for x in values:
        at = rows if rng is None else np.sort(rng.permutation(rows)[: int(0.8 * len(rows))])
        found.append(Block(x[at], None, at - rows[0], np.zeros((len(at), 0), np.float32)))
    return found


def sought(values: list[np.ndarray], *, incomplete: bool = False, can_turn=(True, True, True)):
    rng = np.random.default_rng(0) if incomplete else None
    train, new = (blocks(values, rows, rng) for rows in (np.arange(N), np.arange(N, N + N_NEW)))
    screens = [screen(train, m) for m in range(len(values))]
    return shared_directions(train, new, screens, can_turn)


@pytest.mark.parametrize("incomplete", [False, True])
def test_shared_directions_are_found_where_every_feature_mixes(incomplete):
    values, truth = mixed(0)
    found = sought(values, incomplete=incomplete)
    for directions, x, shared in zip(found, values, truth, strict=True):
        assert directions is not None
        read = (x @ directions.into)[:, :2]
        fitted = LinearRegression().fit(read[:N], shared[:N])
        assert fitted.score(read[N:], shared[N:]) > 0.9  # one of 24 dimensions at random: .08
        assert (directions.score[:2] > 0.7).all() and (directions.score <= 1).all()
        np.testing.assert_allclose(directions.back @ directions.into, np.eye(len(directions.score)), atol=1e-4)


def test_unrelated_assays_have_none():
    for seed in range(3):
        assert sought(mixed(seed, shared=False)[0]) == [None, None, None]


def test_features_are_read_where_they_are_shared_or_private():
    assert sought(mixed(0, turn=False)[0]) == [None, None, None]


def test_turning_the_features_turns_the_directions():
    """Nothing but inner products of samples is used, once features are not preferred."""
    values, _ = mixed(0)
    rotation = np.linalg.qr(np.random.default_rng(5).normal(size=(P, P)))[0].astype(np.float32)
    plain, turned = sought(values)[0], sought([values[0] @ rotation, *values[1:]])[0]
    assert isinstance(plain, Directions) and isinstance(turned, Directions)
    np.testing.assert_allclose(turned.score, plain.score, atol=1e-3)
    assert np.degrees(subspace_angles((plain.back @ rotation)[:2].T, turned.back[:2].T)).max() < 1


def test_an_assay_that_cannot_be_turned_is_read_by_feature():
    found = sought(mixed(0)[0], can_turn=(True, True, False))
    assert found[2] is None and found[0] is not None
    assert sought(mixed(0)[0], can_turn=(False, False, False)) == [None, None, None]


def test_nothing_is_said_without_samples_in_common():
    values, _ = mixed(0)
    train = [
        Block(x[m::3][:90], None, np.arange(m, N, 3)[:90], np.zeros((90, 0), np.float32)) for m, x in enumerate(values)
    ]
    new = blocks(values, np.arange(N, N + N_NEW))
    screens = [screen(train, m) for m in range(3)]
    assert shared_directions(train, new, screens, [True] * 3) == [None, None, None]
    none = [b._replace(values=b.values[:0], rows=b.rows[:0], design=b.design[:0]) for b in new]
    assert shared_directions(blocks(values, np.arange(N)), none, screens, [True] * 3) == [None, None, None]
