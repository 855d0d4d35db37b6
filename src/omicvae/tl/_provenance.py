"""Columns of a completed modality: the user's own, and where the values come from."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from mudata import MuData

from omicvae.data import Cohort, ModalitySchema

logger = logging.getLogger("omicvae")

OWN_COLUMNS = ("source", "sources")


def completed_obs(mdata: MuData, cohort: Cohort, modality: str) -> pd.DataFrame:
    """The modality's own columns spread over all samples, and where its values come from.

    ``source`` is ``"observed"``, ``"imputed"``, or ``"prior"`` where nothing was measured; ``sources`` are the other
    modalities that the sample has.
    """
    obs = pd.DataFrame(index=mdata.obs_names)
    if modality in mdata.mod:
        for name, column in mdata.mod[modality].obs.items():
            kept = f"{name}_original" if name in OWN_COLUMNS else str(name)
            if kept != name:
                logger.warning("column %r of modality %r is kept as %r", name, modality, kept)
            obs[kept] = _spread(column, mdata.obs_names)
    names = cohort.schema.names
    target = names.index(modality)
    others = cohort.present.copy()
    others[:, target] = False
    words = np.where(cohort.present[:, target], "observed", np.where(others.any(1), "imputed", "prior"))
    order = [word for word in ("observed", "imputed", "prior") if word in words]
    obs["source"] = pd.Categorical(words.astype(object), categories=order)
    patterns, group = np.unique(others, axis=0, return_inverse=True)
    written = ["+".join(m for m, used in zip(names, pattern, strict=True) if used) for pattern in patterns]
    obs["sources"] = pd.Categorical(np.asarray(written, dtype=object)[group.reshape(-1)])
    return obs


def completed_var(mdata: MuData, own: MuData | None, modality: str, features: pd.Index) -> pd.DataFrame:
    """Columns of features: those of ``mdata``, else those of the model's ``own`` data."""
    holder = mdata if modality in mdata.mod else own
    if holder is None or modality not in holder.mod:
        return pd.DataFrame(index=features)
    return holder.mod[modality].var.loc[features].copy()


def _spread(column: pd.Series, names: pd.Index) -> pd.Series:
    """A column of measured samples over all, in a type that can say "missing" and be written to a file."""
    if pd.api.types.is_bool_dtype(column.dtype):
        column = column.astype("boolean")
    elif pd.api.types.is_integer_dtype(column.dtype):
        column = column.astype("Int64")
    elif not pd.api.types.is_numeric_dtype(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    return column.reindex(names)


def meaning(modality: ModalitySchema) -> str:
    """What the values of a completed modality are."""
    values = "X" if modality.layer is None else f"layer {modality.layer!r}"
    if modality.coverage_layer is not None:
        return f"{values} divided by layer {modality.coverage_layer!r}"
    return f"in the units of {values}"
