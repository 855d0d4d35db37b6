"""How far each imputed feature can be trusted, written beside the features."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from omicvae.data._validate import listing
from omicvae.model._model import Model

COLUMNS = ("imputable", "r2", "coverage90", "skill_vs_ridge")
"""Columns of ``model.trust`` that go into ``.var``, behind the stem."""


def check_stem(model: Model, key_added: str | None) -> str:
    """Stem of the names that a tool writes.

    Raises
    ------
    TypeError
        If it is not text.
    ValueError
        If it is empty or holds ``"/"``, by which HDF5 and zarr separate folders.
    """
    if key_added is None:
        return model.default_key
    if not isinstance(key_added, str):
        raise TypeError(f"key_added must be text such as {model.default_key!r}, got {key_added!r}")
    if not key_added or "/" in key_added:
        raise ValueError(f"key_added={key_added!r} cannot be part of a name in a file; use text without '/'")
    return key_added


def measured_trust(model: Model, modality: str) -> pd.DataFrame | None:
    """``model.trust(modality)``, or ``None`` where nothing was held out to measure it on."""
    try:
        return model.trust(modality)
    except (RuntimeError, ValueError):
        return None


def trust_columns(
    trust: pd.DataFrame | None, features: Sequence[str] | pd.Index, stem: str
) -> dict[str, NDArray[np.bool_] | NDArray[np.float64]]:
    """Columns ``<stem>_imputable`` (bool), ``<stem>_r2``, ``<stem>_coverage90``, ``<stem>_skill_vs_ridge`` of features.

    Parameters
    ----------
    trust
        As from ``model.trust``; ``None`` if it was not measured.
    features
        Names, in the order wanted; those that the model does not know are NaN, and not imputable.
    stem
        Such as ``"covae"``.
    """
    index = pd.Index(features)
    known = pd.DataFrame(index=index[:0], columns=list(COLUMNS)) if trust is None else trust
    found = known[list(COLUMNS)].reindex(index)
    columns = {c: found[c].to_numpy(dtype=np.float64, na_value=np.nan) for c in COLUMNS}
    return {f"{stem}_{c}": values == 1 if c == "imputable" else values for c, values in columns.items()}


def warn_of_guesses(trust: Mapping[str, pd.DataFrame | None], stem: str) -> None:
    """Warn, where the tool was called, of each modality of whose features most are predicted no better than their mean.

    Parameters
    ----------
    trust
        modality -> rows of ``model.trust`` of the features in question.
    stem
        Of the columns in ``.var``.
    """
    for modality, table in trust.items():
        if table is None:
            continue
        measured = table["skill_vs_mean"].notna().to_numpy()
        guessed = int((measured & ~table["imputable"].to_numpy(dtype=bool)).sum())
        if 2 * guessed > measured.sum():
            warnings.warn(
                f"{modality}: {guessed} of {measured.sum()} features cannot be told from their mean by the other "
                f"modalities, on samples the model had not seen. var[{f'{stem}_imputable'!r}] says which can; "
                "omicvae.tl.complete(..., min_skill=...) leaves predictions of the others NaN.",
                UserWarning,
                stacklevel=3,
            )


def check_min_skill(min_skill: float | None) -> float | None:
    """``min_skill`` as a number.

    Raises
    ------
    TypeError
        If it is not a number.
    ValueError
        If it is not finite, or above 1, which no skill reaches.
    """
    if min_skill is None:
        return None
    if isinstance(min_skill, bool | np.bool_) or not isinstance(min_skill, int | float | np.integer | np.floating):
        raise TypeError(f"min_skill must be a number such as 0.05, got {min_skill!r}")
    if not math.isfinite(min_skill) or min_skill > 1:
        raise ValueError(
            f"min_skill must be at most 1, the skill of a perfect prediction (0 is that of the mean), got {min_skill}"
        )
    return float(min_skill)


def without_skill(trust: Mapping[str, pd.DataFrame | None], min_skill: float) -> dict[str, NDArray[np.bool_]]:
    """Features whose skill over the mean is below ``min_skill`` or could not be measured.

    Parameters
    ----------
    trust
        modality -> rows of ``model.trust`` of the features in question.
    min_skill
        Least one minus the ratio of the CRPS to that of the training distribution.

    Returns
    -------
    modality -> ``(n_features,)`` bool.

    Raises
    ------
    ValueError
        If trust was not measured in a modality.
    """
    unknown = [m for m, table in trust.items() if table is None]
    if unknown:
        raise ValueError(
            f"min_skill={min_skill:g} cannot be applied to {listing(unknown)}: the model has no trust numbers there, "
            "because too few samples with it and another modality were held out of training. Train with samples held "
            "out (calibration_size), name other modalities, or leave min_skill out."
        )
    return {m: ~(table["skill_vs_mean"].to_numpy() >= min_skill) for m, table in trust.items() if table is not None}
