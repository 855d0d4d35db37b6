"""Checks of the simulators' arguments: each error is a ValueError that names the argument."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real
from typing import TypeVar

import numpy as np

ValueT = TypeVar("ValueT")


def count(value: object, argument: str, minimum: int) -> int:
    """Return ``value`` as an integer of at least ``minimum``, or raise ValueError."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < minimum:
        raise ValueError(f"{argument} must be an integer of at least {minimum}, got {value!r}.")
    return int(value)


def number(value: object, argument: str, low: float, high: float = np.inf, *, closed: bool = True) -> float:
    """Return ``value`` as a float in [low, high), or in (low, high) if not ``closed``, or raise ValueError."""
    valid = isinstance(value, Real) and not isinstance(value, bool)
    found = float(value) if valid else math.nan  # type: ignore[arg-type]
    if not (low <= found if closed else low < found) or not found < high:
        raise ValueError(f"{argument} must be a number in {'[' if closed else '('}{low:g}, {high:g}), got {value!r}.")
    return found


def choice(value: object, options: Iterable[str], argument: str) -> str:
    """Return ``value`` if it is one of ``options``; else raise ValueError with the nearest spelling."""
    options = list(options)
    if isinstance(value, str) and value in options:
        return value
    near = difflib.get_close_matches(str(value), options, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{argument}: {value!r} is not one of {', '.join(map(repr, options))}.{hint}")


def modality_names(modalities: int | Sequence[str]) -> list[str]:
    """Names of the modalities: as given, or ``modality_1``, ... for a number of them.

    Parameters
    ----------
    modalities
        Unique, non-empty names without "/" (a path separator in HDF5) and ":" (MuData's prefix), or how many.

    Returns
    -------
    List of names.
    """
    if isinstance(modalities, int | np.integer):
        return [f"modality_{i}" for i in range(1, count(modalities, "modalities", 1) + 1)]
    names = [modalities] if isinstance(modalities, str) else list(modalities)
    if not names or any(not isinstance(m, str) or not m or "/" in m or ":" in m for m in names):
        raise ValueError(
            f"modalities must be non-empty names without '/' and ':', or their number; got {modalities!r}."
        )
    if len(set(names)) < len(names):
        raise ValueError(f"modalities must be unique, got {names!r}.")
    return names


def per_modality(
    value: ValueT | Mapping[str, ValueT] | None, names: Sequence[str], argument: str, default: ValueT
) -> dict[str, ValueT]:
    """Spread an argument over modalities.

    Parameters
    ----------
    value
        One value for all, a mapping from modality to value, or None.
    names
        The modalities.
    argument
        What to call it in an error.
    default
        Taken where ``value`` is None or its mapping does not name the modality.

    Returns
    -------
    dict from every modality to its value.
    """
    if isinstance(value, Mapping):
        unknown = [m for m in value if m not in names]
        if unknown:
            raise ValueError(f"{argument} names {unknown!r}, but the modalities are {list(names)!r}.")
        return {m: value.get(m, default) for m in names}
    return dict.fromkeys(names, default if value is None else value)


def stream(seed: int, *key: int) -> np.random.Generator:
    """Random numbers for one purpose, independent of those for any other.

    With a stream a purpose, hiding assays or adding a modality at the end leaves all other numbers as they were.

    Parameters
    ----------
    seed
        The user's seed, a non-negative integer.
    key
        The purpose, and whatever it is for.

    Returns
    -------
    Generator.
    """
    return np.random.default_rng(np.random.SeedSequence(count(seed, "seed", 0), spawn_key=key))
