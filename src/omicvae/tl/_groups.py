"""Groups of samples that are compared, and what is adjusted for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data._fields import as_categories
from omicvae.data._validate import check_column, check_columns, listing, nearest

logger = logging.getLogger("omicvae")

REST = "rest"


class Contrast(NamedTuple):
    """A group against what it is compared with."""

    group: str
    reference: str
    members: NDArray[np.bool_]
    """(n_obs,)"""
    others: NDArray[np.bool_]
    """(n_obs,)"""

    @property
    def samples(self) -> NDArray[np.bool_]:
        """``(n_obs,)`` both sides."""
        return self.members | self.others


def read_labels(mdata: MuData, groupby: str) -> pd.Series:
    """Group of every sample as text; missing where unknown.

    Raises
    ------
    TypeError
        If the column holds fractional numbers.
    ValueError
        If it is not in ``mdata.obs``.
    """
    check_column(mdata, "groupby", groupby)
    column = mdata.obs[groupby]
    if pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 != 0).any():
        raise TypeError(
            f"groupby={groupby!r} holds numbers, not groups: make groups of them, for example with pd.qcut, or name the "
            "column in adjust"
        )
    return as_categories(column)


def read_covariates(mdata: MuData, adjust: Sequence[str] | None) -> NDArray[np.float64]:
    """``(n_obs, c)``: numbers standardised, categories as indicators without the first; NaN rows where missing.

    Raises
    ------
    TypeError
        If ``adjust`` is not a list.
    ValueError
        If a column is not in ``mdata.obs`` or infinite.
    """
    parts = [np.zeros((mdata.n_obs, 0))]
    for name in check_columns("adjust", adjust):
        check_column(mdata, "adjust", name)
        column = mdata.obs[name]
        if column.isna().all():
            raise ValueError(f"adjust: column {name!r} is missing in all {len(column)} samples. Leave it out.")
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            if np.isinf(values).any():
                raise ValueError(f"adjust: column {name!r} is infinite in {int(np.isinf(values).sum())} samples")
            parts.append(((values - np.nanmean(values)) / (np.nanstd(values) or 1.0))[:, None])
        else:
            text = as_categories(column)
            indicators = pd.get_dummies(text, dtype=np.float64).to_numpy()[:, 1:]
            parts.append(np.where(text.isna().to_numpy()[:, None], np.nan, indicators))
    return np.concatenate(parts, axis=1)


def make_contrasts(labels: pd.Series, groupby: str, groups: Sequence[str] | None, reference: str) -> list[Contrast]:
    """One contrast for every group that is tested.

    Parameters
    ----------
    labels
        ``(n_obs,)`` text, missing in samples that cannot be used.
    groupby
        Where they come from, for messages.
    groups
        Groups to test; all but the reference by default.
    reference
        A group, or ``"rest"`` for all other samples.

    Raises
    ------
    TypeError, ValueError
        For a group that is not there, is named twice or has fewer than two samples.
    """
    names = sorted(labels.dropna().unique())
    logger.info("%s: %d of %d samples are compared", groupby, int(labels.notna().sum()), len(labels))
    if isinstance(groups, str):
        raise TypeError(f"groups must be a list of names, got the text {groups!r}; write groups=[{groups!r}]")
    if len(names) < 2:
        raise ValueError(f"groupby={groupby!r} has {len(names)} groups with usable samples ({names}): two are needed")
    if REST in names:
        raise ValueError(f"groupby={groupby!r} has a group called {REST!r}, which means all others here: rename it")
    reference = _text(reference)
    wanted = [n for n in names if n != reference] if groups is None else [_text(g) for g in groups]
    for name in [*wanted, *([] if reference == REST else [reference])]:
        if name not in names:
            raise ValueError(
                f"groupby={groupby!r} has no group {name!r}; it has {listing(names)}.{nearest(name, names)}"
            )
    if not wanted or reference in wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"groups must be different ones, without the reference {reference!r}; got {wanted}")
    size = labels.value_counts()
    small = [n for n in [*wanted, reference] if n != REST and size[n] < 2]
    if small:
        raise ValueError(
            f"groupby={groupby!r}: groups {listing(small)} have fewer than two usable samples. Test others with "
            "groups=[...], or join them with others."
        )
    of, usable = labels.to_numpy(dtype=object), labels.notna().to_numpy()
    return [
        Contrast(n, reference, of == n, usable & ((of != n) if reference == REST else of == reference)) for n in wanted
    ]


def group_codes(contrasts: Sequence[Contrast]) -> NDArray[np.intp]:
    """``(n_obs,)`` a number for every group that is compared by itself; 0 for all others."""
    codes = np.zeros(len(contrasts[0].members), np.intp)
    if contrasts[0].reference != REST:
        codes[contrasts[0].others] = len(contrasts) + 1
    for i, contrast in enumerate(contrasts):
        codes[contrast.members] = i + 1
    return codes


def _text(name: object) -> str:
    return str(as_categories(pd.Series([name], dtype=object)).iloc[0])
