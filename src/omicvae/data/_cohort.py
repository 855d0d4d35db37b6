"""A MuData read through a schema: rows and features matched by name, one batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from torch import Tensor

from omicvae.data._batch import Batch
from omicvae.data._device_matrix import DeviceDense, DeviceSparse, moved
from omicvae.data._fields import as_categories
from omicvae.data._matrix import Matrix, open_matrix
from omicvae.data._names import without_table
from omicvae.data._schema import CategorySchema, ModalitySchema, Schema
from omicvae.data._stretches import Stretches

READ_VALUES = 2**24  # values (64 MB if dense) that are read from disk at once where samples are asked for in order


def stored_values(mdata: MuData, modality: str, layer: str | None) -> object:
    """The registered matrix of a modality, as stored."""
    return mdata.mod[modality].X if layer is None else mdata.mod[modality].layers[layer]


def modality_rows(mdata: MuData, modality: str) -> NDArray[np.intp]:
    """Row in a modality of every observation of ``mdata``, -1 where it is absent.

    Matched by name: positions agree only by accident once a user has reordered a modality in place.
    """
    if modality not in mdata.mod:
        return np.full(mdata.n_obs, -1, dtype=np.intp)
    return without_table(mdata.mod[modality].obs_names).get_indexer(mdata.obs_names).astype(np.intp)


def feature_columns(available: pd.Index, schema: ModalitySchema) -> NDArray[np.intp] | None:
    """Position of every registered feature among ``available``; ``None`` if nothing has to move.

    Raises
    ------
    ValueError
        If registered features are missing.
    """
    wanted = pd.Index(schema.var_names)
    if available.equals(wanted):
        return None
    columns = available.get_indexer(wanted)
    missing = wanted[columns < 0]
    if len(missing):
        shown = ", ".join(map(str, missing[:5])) + (", ..." if len(missing) > 5 else "")
        raise ValueError(
            f"modality {schema.name!r} lacks {len(missing)} of the {len(wanted)} features the model was set up with: "
            f"{shown}. Add them (NaN columns are allowed for continuous data) or leave the modality out of the query."
        )
    return columns.astype(np.intp)


class Cohort:
    """The samples of a MuData as a model sees them.

    Any MuData can be read: other samples than at setup, fewer modalities (an absent one is simply missing in every
    sample), features in another order. The MuData is not changed.

    Parameters
    ----------
    mdata
        In memory or backed.
    schema
        What was registered at setup.

    Raises
    ------
    ValueError
        If no registered modality is there, if features or covariates are missing, or if names are not unique.
    """

    def __init__(self, mdata: MuData, schema: Schema) -> None:
        if not isinstance(mdata, MuData):
            raise TypeError(
                f"expected a MuData, got {type(mdata).__name__}; wrap modalities with mudata.MuData({{...}})"
            )
        if not set(schema.names) & set(mdata.mod):
            raise ValueError(f"none of the model's modalities {list(schema.names)} is in the MuData {list(mdata.mod)}")
        _check_unique(mdata, schema)
        self.schema = schema
        self.obs_names = mdata.obs_names.copy()
        self._axes = _axes(mdata, schema)
        self._rows: dict[str, Stretches] = {}
        self.present: NDArray[np.bool_] = np.zeros((mdata.n_obs, len(schema.names)), dtype=bool)
        for m, name in enumerate(schema.names):
            rows = modality_rows(mdata, name)
            self._rows[name], self.present[:, m] = Stretches(rows), rows >= 0
        self.device = torch.device("cpu")
        self._values: dict[str, Matrix | DeviceDense | DeviceSparse] = {}
        self._coverage: dict[str, Matrix | DeviceDense | DeviceSparse] = {}
        self._size: dict[str, Tensor] = {}
        for modality in schema.modalities:
            if modality.name in mdata.mod:
                self._open(mdata, modality)
        self._codes = {c.name: torch.from_numpy(_codes(mdata, c)) for c in schema.categorical}
        unknown = torch.tensor(-1).expand(mdata.n_obs)  # one number, however many samples
        self._labels = unknown if schema.labels is None else torch.from_numpy(_codes(mdata, schema.labels))
        self._continuous = torch.from_numpy(_continuous(mdata, schema.continuous))

    def _open(self, mdata: MuData, modality: ModalitySchema) -> None:
        adata = mdata.mod[modality.name]
        columns = feature_columns(adata.var_names, modality)
        for store, layer in ((self._values, modality.layer), (self._coverage, modality.coverage_layer)):
            if store is self._coverage and layer is None:
                continue
            if layer is not None and layer not in adata.layers:
                raise ValueError(f"modality {modality.name!r} has no layer {layer!r}, which the model was set up with")
            again = partial(stored_values, mdata, modality.name, layer)
            try:
                store[modality.name] = open_matrix(again(), columns, again)
            except TypeError as error:
                raise TypeError(f"modality {modality.name!r}: {error}") from error
        if modality.size_factor_key is not None:
            self._size[modality.name] = _size_factors(mdata, modality)

    def __len__(self) -> int:
        return len(self.obs_names)

    def matches(self, mdata: MuData) -> bool:
        """Whether a MuData still has the samples and features, in the order, in which it was read."""
        now = _axes(mdata, self.schema)
        return all(a.equals(b) for a, b in zip(now, self._axes, strict=True))

    def size(self, modality: str, rows: NDArray[np.intp], values: Tensor) -> Tensor:
        """``(n,)`` size factor of the stored rows: the registered one, else the sum over the registered features."""
        if modality in self._size:
            return self._size[modality].index_select(0, moved(rows, self.device))
        return values.nansum(1).clamp_min(1.0)

    @property
    def n_bytes(self) -> int | None:
        """Size of all values on a device; ``None`` if some are on disk."""
        held = [m.n_bytes for m in (*self._values.values(), *self._coverage.values()) if isinstance(m, Matrix)]
        return None if None in held else sum(n for n in held if n is not None)

    def to(self, device: torch.device | str) -> Cohort:
        """The same samples with all values on ``device``: sparse ones stay sparse there until a batch asks for them.

        Raises
        ------
        TypeError
            If values are on disk.
        """
        there = copy.copy(self)
        there.device = torch.device(device)
        there._values = {name: m.to(device) if isinstance(m, Matrix) else m for name, m in self._values.items()}
        there._coverage = {name: m.to(device) if isinstance(m, Matrix) else m for name, m in self._coverage.items()}
        there._size = {name: size.to(device) for name, size in self._size.items()}
        there._codes = {name: codes.to(device) for name, codes in self._codes.items()}
        there._labels, there._continuous = self._labels.to(device), self._continuous.to(device)
        return there

    def stored_rows(self, positions: NDArray[np.intp], modality: int) -> NDArray[np.intp]:
        """Rows in the files or matrices of a modality, by its place in the schema; -1 where a sample lacks it."""
        return self._rows[self.schema.names[modality]][positions]

    def loaded(self, runs: Sequence[NDArray[np.integer]]) -> Cohort:
        """The samples at the positions of all ``runs``, in that order, in memory; sparse values stay sparse.

        Samples of a run that follow one another on disk are read at once.
        """
        positions = np.concatenate([np.zeros(0, dtype=np.intp), *runs])
        here = copy.copy(self)
        here.obs_names, here.present = self.obs_names[positions], self.present[positions]
        here._rows, here._values, here._coverage, here._size = {}, {}, {}, {}
        for name, rows in self._rows.items():
            measured = rows[positions] >= 0
            here._rows[name] = Stretches(np.where(measured, np.cumsum(measured) - 1, -1))
            stored = [found[found >= 0] for found in (rows[run] for run in runs)]
            for there, held in ((here._values, self._values), (here._coverage, self._coverage)):
                if name in held:
                    there[name] = _on_host(held[name]).loaded(stored)
            if name in self._size:
                here._size[name] = self._size[name][rows[positions][measured]]
        here._codes = {name: codes[positions] for name, codes in self._codes.items()}
        here._labels, here._continuous = self._labels[positions], self._continuous[positions]
        return here

    def batches(self, positions: NDArray[np.intp], size: int) -> Iterator[Batch]:
        """Consecutive minibatches of samples; from disk, several are read at once.

        Parameters
        ----------
        positions
            Of the samples, in the order wanted.
        size
            Samples a minibatch.
        """
        if self.n_bytes is not None:
            yield from (self.batch(positions[start : start + size]) for start in range(0, len(positions), size))
            return
        n_vars = sum(modality.n_vars for modality in self.schema.modalities)
        span = size * max(1, READ_VALUES // (size * n_vars))
        for start in range(0, len(positions), span):
            here = self.loaded([positions[start : start + span]])
            yield from (here.batch(slice(first, first + size)) for first in range(0, len(here), size))

    def batch(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> Batch:
        """The samples at ``indices`` (positions in ``obs_names``, or a mask), in that order."""
        index = np.arange(len(self), dtype=np.intp)[indices] if isinstance(indices, slice) else np.asarray(indices)
        if index.dtype == bool:
            index = np.flatnonzero(index)
        index = index.astype(np.intp, copy=False).reshape(-1)
        x, rows, coverage, size = {}, {}, {}, {}
        for modality in self.schema.modalities:
            name = modality.name
            stored = self._rows[name][index]
            here = np.flatnonzero(stored >= 0)
            stored = stored[here]
            rows[name] = moved(here, self.device)
            empty = torch.zeros(0, modality.n_vars, device=self.device)
            values = self._values[name].take(stored) if name in self._values else empty
            x[name] = values
            size[name] = self.size(name, stored, values)
            if modality.coverage_layer is not None:
                taken = self._coverage[name].take(stored) if name in self._coverage else torch.zeros_like(values)
                coverage[name] = taken
        at = moved(index, self.device)
        return Batch(
            x=x,
            rows=rows,
            present=moved(self.present[index], self.device),
            coverage=coverage,
            size=size,
            codes={name: codes[at] for name, codes in self._codes.items()},
            continuous=self._continuous[at],
            labels=self._labels[at],
        )


def _on_host(matrix: Matrix | DeviceDense | DeviceSparse) -> Matrix:
    if not isinstance(matrix, Matrix):
        raise TypeError("values that are on a device are not loaded again")
    return matrix


def _check_unique(mdata: MuData, schema: Schema) -> None:
    checked = {"obs_names of the MuData": mdata.obs_names}
    for name in schema.names:
        if name in mdata.mod:
            checked[f"obs_names of modality {name!r}"] = mdata.mod[name].obs_names
            checked[f"var_names of modality {name!r}"] = mdata.mod[name].var_names
    for what, names in checked.items():
        if not without_table(names).is_unique:
            repeated = names[names.duplicated()].unique()
            shown = ", ".join(map(repr, repeated[:5])) + (", ..." if len(repeated) > 5 else "")
            raise ValueError(f"{what} are not unique, and rows and features are matched by name; repeated: {shown}")


def _axes(mdata: MuData, schema: Schema) -> list[pd.Index]:
    held = [mdata.mod[name] if name in mdata.mod else None for name in schema.names]
    empty = pd.Index([])
    return [
        mdata.obs_names,
        *(empty if adata is None else adata.obs_names for adata in held),
        *(empty if adata is None else adata.var_names for adata in held),
    ]


def _codes(mdata: MuData, category: CategorySchema) -> NDArray[np.int64]:
    """Category codes of every observation; -1 where the column, the row or the category is not known."""
    codes = np.full(mdata.n_obs, -1, dtype=np.int64)
    if category.modality is not None and category.modality not in mdata.mod:
        return codes
    obs = mdata.obs if category.modality is None else mdata.mod[category.modality].obs
    if category.column not in obs:
        return codes
    known = pd.Index(category.categories, dtype=object)
    own = known.get_indexer(pd.Index(as_categories(obs[category.column]).to_numpy(dtype=object))).astype(np.int64)
    if category.modality is None:
        return own
    rows = modality_rows(mdata, category.modality)
    codes[rows >= 0] = own[rows[rows >= 0]]
    return codes


def _continuous(mdata: MuData, columns: Sequence[str]) -> NDArray[np.float32]:
    missing = [c for c in columns if c not in mdata.obs]
    if missing:
        raise ValueError(f"continuous covariates {missing} are not in mdata.obs; the model was set up with them")
    values = [_numbers(mdata.obs[c], f"continuous covariate {c!r}") for c in columns]
    return np.stack(values, 1) if values else np.zeros((mdata.n_obs, 0), np.float32)


def _size_factors(mdata: MuData, modality: ModalitySchema) -> Tensor:
    obs = mdata.mod[modality.name].obs
    if modality.size_factor_key not in obs:
        raise ValueError(f"size factor {modality.size_factor_key!r} is not in mdata[{modality.name!r}].obs")
    what = f"size factor {modality.size_factor_key!r} of modality {modality.name!r}"
    values = _numbers(obs[modality.size_factor_key], what)
    wrong = ~(values > 0)
    if wrong.any():
        raise ValueError(
            f"{what} must be positive in every sample; it is not in {int(wrong.sum())}, first {obs.index[wrong][0]!r}"
        )
    return torch.from_numpy(values)


def _numbers(column: pd.Series, what: str) -> NDArray[np.float32]:
    """A column as float32, NaN where missing."""
    try:
        values = column.to_numpy(dtype=np.float32, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} holds {column.dtype} values, not numbers") from error
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"{what} is infinite in {int(infinite.sum())} samples, first {column.index[infinite][0]!r}. Replace such "
            "values by NaN, or rescale the column if they are only too large for float32."
        )
    return values
