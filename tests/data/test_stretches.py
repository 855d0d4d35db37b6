"""Rows kept as stretches are the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from omicvae.data._stretches import Stretches

PIECES = st.lists(st.tuples(st.booleans(), st.integers(1, 40), st.integers(0, 5)), max_size=8)


def made(pieces: list[tuple[bool, int, int]]) -> np.ndarray:
    """Stretches that are absent or go up by one from wherever they begin."""
    found = [np.full(n, -1) if absent else first + np.arange(n) for absent, n, first in pieces]
    return np.concatenate([np.zeros(0, np.intp), *found]).astype(np.intp)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(rows=st.one_of(PIECES.map(made), st.lists(st.integers(-1, 30), max_size=60).map(np.array)), data=st.data())
def test_any_rows_are_found_again(rows: np.ndarray, data: st.DataObject) -> None:
    rows = rows.astype(np.intp)
    stretches = Stretches(rows)
    np.testing.assert_array_equal(stretches[np.arange(len(rows))], rows)
    if len(rows):
        some = np.array(data.draw(st.lists(st.integers(-len(rows), len(rows) - 1), max_size=20)), dtype=np.int32)
        np.testing.assert_array_equal(stretches[some], rows[some])
    for wrong in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError):
            stretches[np.array([wrong])]


def test_long_stretches_take_no_memory_and_short_ones_four_bytes_a_sample() -> None:
    long = Stretches(made([(False, 100_000, 0), (True, 50_000, 0), (False, 100_000, 7)]))
    short = Stretches(np.random.default_rng(0).permutation(1000))
    size = lambda s: sum(a.nbytes for a in vars(s).values() if isinstance(a, np.ndarray))
    assert size(long) == 3 * 16
    assert size(short) == 4000
