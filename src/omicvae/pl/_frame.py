"""Plots that take a model or the table made from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from omicvae.data._validate import listing
from omicvae.model._model import Model


def as_frame(
    model_or_frame: Model | pd.DataFrame,
    columns: Sequence[str],
    measure: Callable[[Model], pd.DataFrame],
    source: str | None = None,
) -> pd.DataFrame:
    """The table itself, or what ``measure`` makes of the model; ``source`` is what a user calls ``measure``.

    Raises
    ------
    TypeError
        For anything else.
    ValueError
        If the table is empty or lacks one of ``columns``.
    """
    if isinstance(model_or_frame, Model):
        return measure(model_or_frame)
    if not isinstance(model_or_frame, pd.DataFrame):
        raise TypeError(f"expected a model or a DataFrame, got {type(model_or_frame).__name__}")
    missing = [c for c in columns if c not in model_or_frame]
    if missing or model_or_frame.empty:
        lack = f"lacks the columns {listing(missing)}" if missing else "is empty"
        raise ValueError(f"the DataFrame {lack}; pass what {source or f'omicvae.tl.{measure.__name__}'} returned")
    return model_or_frame
