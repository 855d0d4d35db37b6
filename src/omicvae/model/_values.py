"""One pass over the values of a modality: whether they can come from its likelihood, and in which samples."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from mudata import MuData
from numpy.typing import NDArray
from scipy import sparse

from omicvae.data import Schema
from omicvae.data._cohort import feature_columns, stored_values
from omicvae.data._matrix import iterate_chunks
from omicvae.data._validate import listing
from omicvae.nn.likelihoods import LIKELIHOODS, Likelihood
from omicvae.stats.summary import Chunk, ValueSummary, summarise

logger = logging.getLogger("omicvae")


class Values(NamedTuple):
    """What one pass over a modality finds."""

    summary: ValueSummary
    """Of the registered layer."""
    coverage: ValueSummary | None
    """Of the coverage layer, if there is one."""
    zero: NDArray[np.bool_]
    """(n_obs,) samples in which every value is 0."""


def read_values(
    mdata: MuData,
    modality: str,
    layer: str | None,
    coverage: str | None = None,
    columns: NDArray[np.intp] | None = None,
) -> Values:
    """Read a modality once.

    Parameters
    ----------
    mdata
        In memory or backed.
    modality, layer, coverage
        What to read; without ``layer``, ``.X``.
    columns
        Positions of the features to look at; all by default.

    Raises
    ------
    TypeError
        If the values are not numbers, or stored in a way that cannot be read.
    ValueError
        If there are none, or samples without a single measured value, which would count as measured.
    """
    names = mdata.mod[modality].var_names
    names = names if columns is None else names[columns]

    def chunks(layer: str | None) -> Iterator[Chunk]:
        stored = stored_values(mdata, modality, layer)
        if stored is None:
            raise ValueError(f"modality {modality!r} has no .X; name a layer with layers={{{modality!r}: ...}}")
        for chunk in iterate_chunks(stored):
            yield chunk if columns is None else chunk[:, columns]

    rows, reads = _Rows(), _Rows()
    try:
        bound = None if coverage is None else chunks(coverage)
        summary = summarise(rows.watched(chunks(layer)), list(names), upper=bound)
        found = None if coverage is None else summarise(reads.watched(chunks(coverage)), list(names))
    except TypeError as error:
        raise TypeError(f"modality {modality!r}: {error}") from error
    empty = rows.nan if coverage is None else rows.nan | reads.nan | reads.zero
    if empty.any():
        here = f"mdata[{modality!r}]"
        measured = f"~np.isnan({here}.{'X' if layer is None else f'layers[{layer!r}]'}).all(1)"
        if coverage is not None:
            measured = f"np.asarray({here}.layers[{coverage!r}].sum(1)).ravel() > 0"
        raise ValueError(
            f"modality {modality!r}: {int(empty.sum())} samples have no value at all "
            f"({listing(mdata.mod[modality].obs_names[empty])}) and would count as measured. Take them out, with "
            f"mdata.mod[{modality!r}] = {here}[{measured}].copy(); mdata.update(). They stay in the other modalities."
        )
    return Values(summary, found, rows.zero)


def check_likelihood(mdata: MuData, modality: str, likelihood: type[Likelihood], values: Values) -> None:
    """Raise a ValueError if the values cannot come from a likelihood; warn of samples padded with zeros."""
    likelihood.validate(modality, values.summary, values.coverage)
    n = int(values.zero.sum())
    if n and likelihood.discrete and values.coverage is None:
        logger.warning(
            "modality %r: %s nothing but zeros (%s), which counts as measured. If the assay was not done, take such samples "
            "out of mdata[%r].",
            modality, "1 sample holds" if n == 1 else f"{n} samples hold", listing(mdata.mod[modality].obs_names[values.zero]), modality,
        )  # fmt: skip


def check_values(mdata: MuData, schema: Schema) -> None:
    """Check that the registered features of other data can come from the likelihoods of a model.

    Raises
    ------
    TypeError, ValueError
        As at setup, for example if a query holds normalised values where the model was set up with counts.
    """
    for m in schema.modalities:
        if m.name in mdata.mod:
            columns = feature_columns(mdata.mod[m.name].var_names, m)
            values = read_values(mdata, m.name, m.layer, m.coverage_layer, columns)
            # Features that are constant among a few samples are no news.
            values = values._replace(summary=values.summary._replace(constant=(), all_nan=()))
            check_likelihood(mdata, m.name, LIKELIHOODS[m.likelihood], values)


class _Rows:
    """Which rows of the blocks that pass by hold nothing but NaN, or nothing but 0."""

    def __init__(self) -> None:
        self._nan: list[NDArray[np.bool_]] = []
        self._zero: list[NDArray[np.bool_]] = []

    def watched(self, chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            yield chunk  # first: whoever takes it checks its shape and dtype
            nan, zero = _sparse_rows(chunk) if sparse.issparse(chunk) else _dense_rows(np.asarray(chunk))
            self._nan.append(nan)
            self._zero.append(zero)

    @property
    def nan(self) -> NDArray[np.bool_]:
        return np.concatenate([np.zeros(0, dtype=bool), *self._nan])

    @property
    def zero(self) -> NDArray[np.bool_]:
        return np.concatenate([np.zeros(0, dtype=bool), *self._zero])


def _dense_rows(block: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return np.isnan(block).all(1), (block == 0).all(1)


def _sparse_rows(block: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    stored = block.tocoo()
    n_rows, n_columns = block.shape
    nan = np.bincount(stored.row[np.isnan(stored.data)], minlength=n_rows)
    other = np.bincount(stored.row[stored.data != 0], minlength=n_rows)
    return nan == n_columns, other == 0
