"""Checks that all tools share: each error says what was expected and what to do."""

from __future__ import annotations

from collections.abc import Iterable

from mudata import MuData

from omicvae.data._validate import listing
from omicvae.model._model import Model


def check_data(mdata: MuData, function: str) -> MuData:
    """Return ``mdata``, or raise a TypeError if it is not a MuData."""
    if isinstance(mdata, Model):
        raise TypeError(f"{function} takes the data first and the model second: {function}(mdata, model)")
    if not isinstance(mdata, MuData):
        raise TypeError(f"{function} expects a MuData, got {type(mdata).__name__}")
    return mdata


def check_obsm_keys(mdata: MuData, keys: Iterable[str]) -> None:
    """Raise a ValueError if a key of ``mdata.obsm`` would be a bare modality name.

    MuData keeps there, under the name of each modality, which samples have it.
    """
    taken = [key for key in keys if key in mdata.mod]
    if taken:
        raise ValueError(
            f"{listing(taken)} in mdata.obsm is where MuData marks the samples of that modality; choose another key_added"
        )
