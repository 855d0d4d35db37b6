from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from omicvae.stats.summary import summarise

NAMES = [f"g{j}" for j in range(7)]


@pytest.fixture
def values() -> np.ndarray:
    """Every kind of value, an all-NaN feature (g5), a constant one (g6) and one constant but for NaN (g4)."""
    rng = np.random.default_rng(0)
    x = rng.poisson(0.7, size=(23, 7)).astype(float)
    x[2, 3], x[11, 1], x[20, 0] = np.nan, np.inf, -np.inf
    x[4, 2], x[5, 2], x[9, 3] = -1, -0.25, 0.5
    x[:, 4], x[3, 4], x[:, 5], x[:, 6] = 0, np.nan, np.nan, 2
    return x


def brute_force(x: np.ndarray) -> dict[str, object]:
    finite = np.isfinite(x)
    where = {
        "nan": np.isnan(x),
        "inf": np.isinf(x),
        "negative": finite & (x < 0),
        "fractional": finite & (np.mod(np.where(finite, x, 0), 1) != 0),
        "not_binary": finite & ~np.isin(x, [0, 1]),
        "outside_unit": finite & ((x < 0) | (x > 1)),
    }
    counts = {f"n_{kind}": int(mask.sum()) for kind, mask in where.items()}
    examples = {kind: tuple(np.array(NAMES)[mask.any(0)][:5]) for kind, mask in where.items()}
    return {
        **counts,
        "n_obs": x.shape[0],
        "n_vars": x.shape[1],
        "n_exact_unit": int(np.isin(x, [0, 1]).sum()),
        "minimum": x[finite].min(),
        "maximum": x[finite].max(),
        "examples": {**examples, "above_upper": ()},
        "all_nan": ("g5",),
        "constant": ("g4", "g6"),
        "n_above_upper": 0,
    }


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
@pytest.mark.parametrize("rows", [1, 4, 23])
def test_equals_a_count_by_hand_however_it_is_cut(values, form, rows):
    chunks = (form(values[i : i + rows]) for i in range(0, len(values), rows))
    assert summarise(chunks, NAMES)._asdict() == brute_force(values)


def test_sparse_matrices_with_stored_zeros_and_duplicates():
    # (0, 0) is 1 + 1, (1, 1) is a stored zero; the caller's matrix must stay as it is.
    stored = sparse.csc_matrix((np.array([1.0, 1.0, 0.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    summary = summarise([stored], ["a", "b"])
    assert (summary.n_exact_unit, summary.n_not_binary, summary.maximum) == (3, 1, 2.0)
    assert summary.constant == ("b",)
    assert stored.nnz == 3


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint16, np.float16, np.float32])
def test_any_real_dtype(dtype):
    summary = summarise([np.array([[0, 1], [1, 1]], dtype=dtype)], ["a", "b"])
    assert (summary.n_not_binary, summary.n_nan, summary.maximum, summary.constant) == (0, 0, 1.0, ("b",))


@pytest.mark.parametrize("chunks", [[], [np.zeros((0, 2))], [sparse.csr_matrix((0, 2))]])
def test_nothing_to_summarise(chunks):
    summary = summarise(chunks, ["a", "b"])
    assert (summary.n_obs, summary.n_vars, summary.all_nan, summary.constant) == (0, 2, (), ())
    assert np.isnan(summary.minimum) and np.isnan(summary.maximum)


def test_empty_chunks_between_others_and_features_without_columns():
    x = np.arange(4.0).reshape(2, 2)
    assert summarise([x[:1], x[:0], x[1:]], ["a", "b"]) == summarise([x], ["a", "b"])
    assert summarise([np.zeros((3, 0))], []).n_obs == 3


@pytest.mark.parametrize("bad", [np.array([["1", "2"]], dtype=object), np.array([["x", "y"]]), np.array([[1j, 2]])])
def test_values_that_are_no_real_numbers(bad):
    with pytest.raises(TypeError, match="not real numbers"):
        summarise([bad], ["a", "b"])


def test_another_number_of_columns():
    with pytest.raises(ValueError, match=r"\(2, 3\).*2 feature names"):
        summarise([np.zeros((2, 3))], ["a", "b"])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("bound_form", [np.asarray, sparse.csr_array])
def test_values_above_their_upper_bound(form, bound_form):
    x = np.array([[3.0, 0, 1], [2, np.nan, 5]])
    bound = np.array([[3.0, 2, 0], [1, 4, np.nan]])
    summary = summarise([form(x)], ["a", "b", "c"], upper=[bound_form(bound)])
    assert summary.n_above_upper == 2
    assert summary.examples["above_upper"] == ("a", "c")


def test_bounds_cut_differently():
    with pytest.raises(ValueError, match="same blocks"):
        summarise([np.zeros((2, 1)), np.zeros((2, 1))], ["a"], upper=[np.zeros((2, 1))])
