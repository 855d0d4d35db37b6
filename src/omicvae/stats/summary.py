"""One pass over a matrix that finds what a likelihood has to know about its values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

KINDS = ("nan", "inf", "negative", "fractional", "not_binary", "outside_unit", "above_upper")
MOST_EXAMPLES = 5
BLOCK_SIZE = 2**19  # elements of a dense block looked at together: its masks take several times its memory

Chunk: TypeAlias = NDArray[np.generic] | sparse.sparray | sparse.spmatrix


class ValueSummary(NamedTuple):
    """What one pass over a matrix finds. All counts but those of NaN and infinity are over finite values."""

    n_obs: int
    """rows"""
    n_vars: int
    """features"""
    n_nan: int
    """values that are NaN"""
    n_inf: int
    """values that are plus or minus infinity"""
    n_negative: int
    """values < 0"""
    n_fractional: int
    """values that are not whole numbers"""
    n_not_binary: int
    """values that are neither 0 nor 1"""
    n_outside_unit: int
    """values < 0 or > 1"""
    n_exact_unit: int
    """values that are exactly 0 or 1"""
    minimum: float
    """least finite value; NaN if there is none"""
    maximum: float
    """largest finite value; NaN if there is none"""
    examples: dict[str, tuple[str, ...]]
    """kind of value (``"nan"``, ``"inf"``, ...) -> the first features, at most 5 and in their order, that hold one"""
    all_nan: tuple[str, ...]
    """features without a single value"""
    constant: tuple[str, ...]
    """features whose values are all the same (those in ``all_nan`` not among them); empty for fewer than 2 rows"""
    n_above_upper: int = 0
    """values above their upper bound (methylated reads above the coverage); 0 where no bound was given"""


def summarise(
    chunks: Iterable[Chunk], var_names: Sequence[str], *, upper: Iterable[Chunk] | None = None
) -> ValueSummary:
    """Summarise a matrix read in blocks of rows; the result does not depend on how it is cut.

    Parameters
    ----------
    chunks
        Blocks of shape ``(rows, n_vars)``, dense or scipy sparse (a value that is not stored is 0). None at all, or
        blocks of 0 rows, are allowed.
    var_names
        ``(n_vars,)`` names of the features.
    upper
        Blocks of the same shapes holding a bound for every value, such as the coverage of methylated reads. NaN in
        either matrix is not counted as above.

    Raises
    ------
    TypeError
        If a block does not hold real numbers (object, text, complex).
    ValueError
        If a block has another number of columns than there are names, or ``upper`` is cut differently.
    """
    tally = _Tally(len(var_names))
    bounds = None if upper is None else iter(upper)
    for chunk in chunks:
        tally.add(chunk)
        if bounds is not None:
            tally.add_bound(chunk, next(bounds, None))
    return tally.summary([str(name) for name in var_names])


class _Tally:
    """Running counts, per matrix and per feature."""

    def __init__(self, n_vars: int) -> None:
        self.n_obs = 0
        self.n_finite = 0
        self.counts = dict.fromkeys(KINDS, 0)
        self.met = {kind: np.zeros(n_vars, dtype=bool) for kind in KINDS}
        self.finite_range = (np.inf, -np.inf)
        self.n_valid = np.zeros(n_vars, dtype=np.int64)
        self.least = np.full(n_vars, np.inf)
        self.largest = np.full(n_vars, -np.inf)

    def add(self, chunk: Chunk) -> None:
        n_vars = len(self.n_valid)
        _check_block(chunk, n_vars)
        rows = chunk.shape[0]
        self.n_obs += rows
        if rows == 0 or n_vars == 0:
            return
        if sparse.issparse(chunk):
            columns = _canonical_csc(chunk)
            stored = np.diff(columns.indptr)
            self._add_values(columns.data, np.repeat(np.arange(n_vars), stored))
            self._add_zeros(rows - stored)
        else:
            block = np.asarray(chunk)
            step = max(1, BLOCK_SIZE // n_vars)
            for start in range(0, rows, step):
                self._add_values(block[start : start + step], None)

    def _add_values(self, values: NDArray[Any], columns: NDArray[np.intp] | None) -> None:
        """Count stored values: a dense ``(rows, n_vars)`` block, or ``(nnz,)`` values with their sorted columns."""
        if values.dtype == bool:
            values = values.astype(np.uint8)
        nan, finite = np.isnan(values), np.isfinite(values)
        unit = (values == 0) | (values == 1)
        with np.errstate(invalid="ignore"):
            found = {
                "nan": nan,
                "inf": ~finite & ~nan,
                "negative": finite & (values < 0),
                "fractional": finite & (values != np.rint(values)),
                "not_binary": finite & ~unit,
                "outside_unit": finite & ((values < 0) | (values > 1)),
            }
        self.n_finite += int(finite.sum())
        for kind, where in found.items():
            self._note(kind, where, columns)
        bounded = values.astype(np.float64, copy=False)
        self._widen(bounded[finite])
        low, high, present = np.where(nan, np.inf, bounded), np.where(nan, -np.inf, bounded), ~nan
        if columns is None:
            self.n_valid += present.sum(0)
            np.minimum(self.least, low.min(0), out=self.least)
            np.maximum(self.largest, high.max(0), out=self.largest)
        elif len(columns):
            starts = np.flatnonzero(np.diff(columns, prepend=-1))
            held = columns[starts]
            self.n_valid[held] += np.add.reduceat(present, starts, dtype=np.int64)
            self.least[held] = np.minimum(self.least[held], np.minimum.reduceat(low, starts))
            self.largest[held] = np.maximum(self.largest[held], np.maximum.reduceat(high, starts))

    def _add_zeros(self, zeros: NDArray[np.integer]) -> None:
        """Count the zeros a sparse block does not store, ``(n_vars,)`` of them per feature."""
        some = zeros > 0
        self.n_valid += zeros
        self.n_finite += int(zeros.sum())
        self.least[some] = np.minimum(self.least[some], 0)
        self.largest[some] = np.maximum(self.largest[some], 0)
        if some.any():
            self._widen(np.zeros(1))

    def add_bound(self, chunk: Chunk, bound: Chunk | None) -> None:
        if bound is None or bound.shape != chunk.shape:
            shape = "nothing" if bound is None else bound.shape
            raise ValueError(
                f"the upper bounds must come in the same blocks as the values: {chunk.shape} against {shape}"
            )
        _check_block(bound, len(self.n_valid))
        if sparse.issparse(chunk) and sparse.issparse(bound):
            excess = _canonical_csc(chunk.astype(np.float64) - bound.astype(np.float64))
            columns = np.repeat(np.arange(excess.shape[1]), np.diff(excess.indptr))
            self._note("above_upper", excess.data > 0, columns)
        else:
            self._note("above_upper", _dense(chunk) > _dense(bound), None)

    def _note(self, kind: str, where: NDArray[np.bool_], columns: NDArray[np.intp] | None) -> None:
        self.counts[kind] += int(where.sum())
        if columns is None:
            self.met[kind] |= where.any(0)
        else:
            self.met[kind][columns[where]] = True

    def _widen(self, finite: NDArray[np.float64]) -> None:
        if finite.size:
            low, high = self.finite_range
            self.finite_range = min(low, float(finite.min())), max(high, float(finite.max()))

    def summary(self, names: list[str]) -> ValueSummary:
        def named(where: NDArray[np.bool_], most: int | None = None) -> tuple[str, ...]:
            return tuple(names[j] for j in np.flatnonzero(where)[:most])

        low, high = self.finite_range if self.n_finite else (np.nan, np.nan)
        empty = (self.n_valid == 0) & (self.n_obs > 0)
        return ValueSummary(
            n_obs=self.n_obs,
            n_vars=len(names),
            **{f"n_{kind}": count for kind, count in self.counts.items()},
            n_exact_unit=self.n_finite - self.counts["not_binary"],
            minimum=low,
            maximum=high,
            examples={kind: named(where, MOST_EXAMPLES) for kind, where in self.met.items()},
            all_nan=named(empty),
            constant=named((self.n_valid > 0) & (self.least == self.largest) & (self.n_obs > 1)),
        )


def _check_block(chunk: Chunk, n_vars: int) -> None:
    if chunk.ndim != 2 or chunk.shape[1] != n_vars:
        raise ValueError(f"a block has shape {chunk.shape}, but there are {n_vars} feature names")
    if chunk.dtype.kind not in "biuf":
        raise TypeError(
            f"the matrix holds values of dtype {chunk.dtype}, not real numbers; convert it, for example with "
            "adata.X = adata.X.astype('float32')"
        )


def _dense(chunk: Any) -> NDArray[Any]:
    return chunk.toarray() if sparse.issparse(chunk) else np.asarray(chunk)


def _canonical_csc(chunk: sparse.sparray | sparse.spmatrix) -> sparse.csc_array | sparse.csc_matrix:
    """Column-wise copy in which every element is stored once (duplicates are summed, as their matrix means)."""
    columns = chunk.tocsc()
    if not columns.has_canonical_format:
        # tocsc() of a csc matrix is the caller's own, which must not change.
        columns = columns.copy() if columns is chunk else columns
        columns.sum_duplicates()
    return columns
