"""Sizes that a user gives once, or per modality."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from omicvae.data import Schema
from omicvae.data._validate import nearest


def whole_number(argument: str, value: object, least: int = 1) -> int:
    """``value`` as an int.

    Raises
    ------
    ValueError
        If it is not a whole number of at least ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{argument} must be a whole number of at least {least}, got {value!r}")
    return int(value)


def per_modality(
    argument: str, value: int | Mapping[str, int] | str, schema: Schema, default: Mapping[str, int]
) -> dict[str, int]:
    """Modality -> size, from a number, a mapping, or ``"auto"``.

    Sizes chosen automatically do not exceed the number of features.

    Raises
    ------
    ValueError
        If a size is not a positive whole number or a modality is unknown.
    """
    limits = {m.name: m.n_vars for m in schema.modalities}
    automatic = {m: max(1, min(default[m], limits[m])) for m in schema.names}
    if value == "auto":
        return automatic
    given = dict(value) if isinstance(value, Mapping) else dict.fromkeys(schema.names, value)
    for modality, size in given.items():
        if modality not in schema.names:
            raise ValueError(
                f"{argument} names modality {modality!r}, which is not registered.{nearest(modality, schema.names)}"
            )
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{argument} must be 'auto' or positive whole numbers, got {size!r} for {modality!r}")
    return {m: int(given.get(m, automatic[m])) for m in schema.names}
