"""The registration that travels with shards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from mudata import MuData

from omicvae.data._schema import Schema

SETUP = "omicvae_setup"
"""Key of ``.uns``: the registry, as JSON."""
SHARDS = "omicvae_shards"
"""Key of ``.uns``: how the samples were written."""


def setup_text(registry: Mapping[str, Any]) -> str:
    """A registry as JSON."""
    return json.dumps(registry, default=_plain)


def stored_registry(mdata: MuData) -> dict[str, Any] | None:
    """The registration that :func:`write_shards` wrote with a MuData, if it did.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    text = mdata.uns.get(SETUP) if isinstance(mdata, MuData) else None
    if text is None:
        return None
    try:
        registry = json.loads(str(text))
        Schema.from_registry(registry)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(
            f"mdata.uns[{SETUP!r}], the registration written with the shards, is damaged: delete it and pass the "
            "arguments of setup_mudata"
        ) from error
    return dict(registry)


def _plain(value: Any) -> Any:
    """JSON for what registries hold."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"cannot write a {type(value).__name__} as JSON")
