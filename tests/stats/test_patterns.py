from __future__ import annotations

import numpy as np

from omicvae.stats.patterns import LEAST_GAIN, SampleErrors, assign_folds, cover, default_patterns, gained_precision


def test_patterns_of_up_to_four_assays_are_all():
    for n_modalities in (1, 2, 3, 4):
        keys = default_patterns(np.ones((3, n_modalities), bool))
        assert len(keys) == len(set(keys)) == n_modalities * (2 ** (n_modalities - 1) - 1)
        assert all(target not in sources and tuple(sorted(sources)) == sources for sources, target in keys)


def test_patterns_of_more_assays_are_those_that_occur():
    present = np.ones((4, 6), bool)
    present[0, [2, 4]] = False
    keys = default_patterns(present)
    assert ((0, 1, 3, 5), 2) in keys  # what else the first sample has
    assert ((1, 3, 5), 0) in keys
    assert ((0, 1, 2, 3, 4), 5) in keys
    assert {((a,), 5) for a in range(5)} <= set(keys)
    assert ((0, 1), 5) not in keys
    assert all(sources for sources, _ in keys)


def test_folds_are_even_within_each_pattern_and_overall():
    present = np.random.default_rng(0).random((103, 3)) < 0.6
    folds = assign_folds(present, 5, seed=0)
    for rows in (np.ones(103, bool), *((present == pattern).all(1) for pattern in np.unique(present, axis=0))):
        counts = np.bincount(folds[rows], minlength=5)
        assert counts.max() - counts.min() <= 1
    np.testing.assert_array_equal(folds, assign_folds(present, 5, seed=0))
    assert (folds != assign_folds(present, 5, seed=1)).any()
    assert assign_folds(present[:0], 5, seed=0).shape == (0,)


def errors_of(rows: range, error: float) -> SampleErrors:
    return SampleErrors(np.array(rows), np.full(len(rows), error, np.float32))


def test_a_smaller_pattern_is_taken_where_it_is_better_in_the_same_samples():
    unexplained = {((0,), 2): 0.9, ((1,), 2): 0.95, ((0, 1), 2): 0.8}
    errors = {
        ((0,), 2): errors_of(range(100), 0.5),
        ((1,), 2): errors_of(range(60, 160), 0.7),
        ((0, 1), 2): errors_of(range(60, 100), 0.6),
    }
    assert cover((0, 1), unexplained, errors) == [((0,), 2), ((1,), 2)]
    errors[(0, 1), 2] = errors_of(range(60, 100), 0.4)
    assert cover((1, 0), unexplained, errors) == [((0, 1), 2)]
    assert cover((1,), unexplained, errors) == [((1,), 2)]
    assert cover((3,), unexplained, errors) == []


def test_patterns_with_too_few_samples_in_common_are_compared_by_what_they_explain():
    unexplained = {((0,), 2): 0.9, ((1,), 2): 0.8}
    errors = {((0,), 2): errors_of(range(100), 0.1), ((1,), 2): errors_of(range(90, 200), 0.9)}
    assert errors[(0,), 2].better_than(errors[(1,), 2]) is None
    assert cover((0, 1), unexplained, errors) == [((1,), 2), ((0,), 2)]


def test_what_gains_nothing_has_hardly_any_weight():
    found = gained_precision(np.array([0.5, 1.0, 1.1, 0.0]), np.array([1.0, 1.0, 1.0, 0.0]))
    np.testing.assert_allclose(found, [1.0, LEAST_GAIN, LEAST_GAIN, LEAST_GAIN])
