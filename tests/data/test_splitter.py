"""Invariants of the split by presence pattern."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omicvae.data import split_by_pattern


@st.composite
def presence(draw: st.DrawFn) -> np.ndarray:
    """Any mosaic of up to four assays, in which some samples may have none."""
    n_modalities = draw(st.integers(1, 4))
    codes = draw(st.lists(st.integers(0, 2**n_modalities - 1), min_size=0, max_size=150))
    return (np.array(codes, dtype=int)[:, None] >> np.arange(n_modalities) & 1).astype(bool)


@st.composite
def shares(draw: st.DrawFn) -> tuple[float, float | None]:
    train = draw(st.floats(0.05, 1))
    validation = draw(st.one_of(st.none(), st.floats(0, 1)))
    return train, None if validation is None else validation * (1 - train)


def patterns(present: np.ndarray) -> np.ndarray:
    return present @ (1 << np.arange(present.shape[1]))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(present=presence(), share=shares(), seed=st.integers(0, 2**32 - 1), shuffle=st.booleans())
def test_properties(present: np.ndarray, share: tuple[float, float | None], seed: int, shuffle: bool) -> None:
    parts = split_by_pattern(present, *share, seed=seed, shuffle=shuffle)
    together = np.concatenate(parts)
    # disjoint, and together exactly the samples that have any assay
    assert sorted(together) == np.flatnonzero(present.any(1)).tolist()
    assert all((np.diff(part) > 0).all() for part in parts)
    validation = 1 - share[0] if share[1] is None else share[1]
    exact = np.array([share[0], validation, 1 - share[0] - validation])
    code = patterns(present)
    for pattern in np.unique(code[code > 0]):
        members = code == pattern
        counts = np.array([members[part].sum() for part in parts])
        assert (np.abs(counts - members.sum() * exact) < 1 + 1e-6).all()
        assert counts[0] >= 1
    for a, b in zip(parts, split_by_pattern(present, *share, seed=seed, shuffle=shuffle), strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(present=presence(), seed=st.integers(0, 1000))
def test_a_split_in_two_leaves_no_test_part(present: np.ndarray, seed: int) -> None:
    assert len(split_by_pattern(present, 0.7, None, seed=seed)[2]) == 0
    train, validation, test = split_by_pattern(present, 1.0, None, seed=seed)
    assert len(validation) == len(test) == 0 and len(train) == present.any(1).sum()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(sizes=st.lists(st.integers(10, 60), min_size=1, max_size=7), share=st.sampled_from([0.9, 0.8, 0.5]))
def test_rounding_evens_out_over_patterns(sizes: list[int], share: float) -> None:
    """Where every pattern can be divided in two, so is the whole, to half a sample."""
    code = np.repeat(np.arange(1, len(sizes) + 1), sizes)
    present = (code[:, None] >> np.arange(3) & 1).astype(bool)
    train, validation, _ = split_by_pattern(present, share, None, seed=0)
    assert abs(len(train) - share * sum(sizes)) <= 0.5 + 1e-6
    assert len(train) + len(validation) == sum(sizes)


def test_many_patterns_of_one_sample_are_all_trained_on() -> None:
    present = (np.arange(1, 16)[:, None] >> np.arange(4) & 1).astype(bool)
    train, validation, test = split_by_pattern(present, 0.5, 0.3, seed=0)
    assert len(train) == 15 and len(validation) == len(test) == 0


def test_seeds_differ_and_without_shuffling_samples_keep_their_order() -> None:
    present = np.ones((100, 2), dtype=bool)
    a, b = (split_by_pattern(present, 0.5, None, seed=s)[0] for s in (0, 1))
    assert not np.array_equal(a, b)
    train, validation, test = split_by_pattern(present, 0.5, 0.3, seed=0, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([train, validation, test]), np.arange(100))


@pytest.mark.parametrize(
    ("train", "validation"), [(0, None), (-0.1, None), (1.1, None), (0.9, 0.2), (0.5, -0.1), (float("nan"), None)]
)
def test_shares_that_are_none_are_refused(train: float, validation: float | None) -> None:
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\], got"):
        split_by_pattern(np.ones((10, 2), dtype=bool), train, validation, seed=0)
