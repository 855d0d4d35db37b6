"""A MuData in which nothing is missing any more."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from omicvae.data import ModalitySchema, modality_rows
from omicvae.model._model import Model
from omicvae.tl._arguments import check_data, check_model
from omicvae.tl._held_out import observed_values

logger = logging.getLogger("omicvae")

IMPUTED_LAYERS = {"imputed_sd": "sd", "imputed_lower": "lower", "imputed_upper": "upper"}
OWN_COLUMNS = ("source", "sources")


def complete(
    mdata: MuData,
    model: Model,
    *,
    modalities: Sequence[str] | None = None,
    features: Mapping[str, Sequence[str]] | None = None,
    level: float = 0.9,
    n_draws: int | Literal["auto"] = "auto",
) -> MuData:
    """A new MuData in which every sample has every modality: measured where possible, else imputed.

    Parameters
    ----------
    mdata
        The model's own data or any other, matched by name. It is not changed.
    model
        Trained model.
    modalities
        Modalities to complete; all the model knows by default.
    features
        modality -> features to keep; all registered ones by default.
    level
        Probability that the interval from ``imputed_lower`` to ``imputed_upper`` is to hold.
    n_draws
        Posterior draws a sample, as in the model's ``impute``.

    Returns
    -------
    MuData with the samples of ``mdata`` in their order, and its ``obs`` and ``obsm``. Each modality holds the
    registered features and

    ``X``
        float32, in the units of the registered layer (methylation levels for ``betabinomial``): what was measured, and
        the predictive mean where the sample lacks the modality or the single element is NaN.
    ``layers["imputed"]``, ``["imputed_sd"]``, ``["imputed_lower"]``, ``["imputed_upper"]``
        Prediction from the sample's *other* modalities, for all samples, so that it can be compared with what was
        measured.
    ``obs``
        The modality's own columns where it was measured, ``source`` (``"observed"``, ``"imputed"``, or ``"prior"`` where
        nothing else was measured either) and ``sources``, the modalities that the prediction is based on. A column of
        the user's of that name is kept as ``<name>_original``.
    ``var``
        As in ``mdata``.

    ``uns["omicvae_complete"]`` says which model made it, at which level, and what ``X`` holds.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, ``model`` is not a model, or ``features`` is not a mapping.
    ValueError
        For an unknown modality or feature, or if the data do not fit the model.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "complete")
    check_data(mdata, "complete")
    names = _modalities(model, modalities)
    wanted = _features(names, features)
    parts = {m: _modality(mdata, model, m, wanted.get(m), level, n_draws) for m in names}
    completed = _assemble(parts)
    completed.obs = mdata.obs.copy()
    for key, values in mdata.obsm.items():
        if key not in mdata.mod:  # MuData's own marks of who has which modality
            completed.obsm[key] = values.copy()
    completed.uns["omicvae_complete"] = {
        "model": type(model).__name__,
        "omicvae_version": version("omicvae"),
        "level": float(level),
        "X": {m: _meaning(model.schema[m]) for m in names},
        "n_imputed": {m: int((part.obs["source"] != "observed").sum()) for m, part in parts.items()},
    }
    return completed


def _modalities(model: Model, modalities: Sequence[str] | None) -> list[str]:
    if modalities is None:
        return list(model.modalities)
    if isinstance(modalities, str):
        raise TypeError(f"modalities must be a list of names, got the text {modalities!r}; write [{modalities!r}]")
    names = [model._check_modality(m) for m in dict.fromkeys(modalities)]
    if not names:
        raise ValueError("modalities is empty: name at least one, or leave it out for all")
    return names


def _features(names: Sequence[str], features: Mapping[str, Sequence[str]] | None) -> dict[str, list[str]]:
    if features is None:
        return {}
    if not isinstance(features, Mapping):
        raise TypeError(f"features must be a mapping from modality to names, such as {{{names[0]!r}: [...]}}")
    for modality, chosen in features.items():
        if modality not in names:
            raise ValueError(
                f"features names modality {modality!r}, which is not among those to complete {list(names)}"
            )
        if isinstance(chosen, str):
            raise TypeError(f"features of {modality!r} must be a list of names, got the text {chosen!r}")
        if len(chosen) == 0:
            raise ValueError(f"features of {modality!r} is empty: name at least one, or leave the modality out")
    return {m: list(chosen) for m, chosen in features.items()}


def _modality(
    mdata: MuData,
    model: Model,
    modality: str,
    features: list[str] | None,
    level: float,
    n_draws: int | Literal["auto"],
) -> AnnData:
    """One modality of all samples."""
    found = model.impute(modality, mdata=mdata, features=features, level=level, n_draws=n_draws)
    rows = modality_rows(mdata, modality)
    here = np.flatnonzero(rows >= 0)
    measured = np.full(found.shape, np.nan, dtype=np.float32)
    columns = pd.Index(model.schema[modality].var_names).get_indexer(found.var_names)
    measured[here] = observed_values(model._cohort(mdata), modality, here)[:, columns]
    part = AnnData(
        np.where(np.isnan(measured), found.X, measured),
        obs=pd.DataFrame(index=mdata.obs_names),
        var=pd.DataFrame(index=found.var_names),
        layers={"imputed": found.X, **{name: found.layers[layer] for name, layer in IMPUTED_LAYERS.items()}},
    )
    part.obs = _obs(mdata, modality, found.obs)
    holder = mdata if modality in mdata.mod else model.adata
    if holder is not None and modality in holder.mod:
        part.var = holder.mod[modality].var.loc[found.var_names].copy()
    return part


def _obs(mdata: MuData, modality: str, found: pd.DataFrame) -> pd.DataFrame:
    """The modality's own columns spread over all samples, and where its values come from."""
    here = modality_rows(mdata, modality) >= 0
    obs = pd.DataFrame(index=mdata.obs_names)
    if modality in mdata.mod:
        for name, column in mdata.mod[modality].obs.items():
            kept = f"{name}_original" if name in OWN_COLUMNS else str(name)
            if kept != name:
                logger.warning("column %r of modality %r is kept as %r", name, modality, kept)
            obs[kept] = _spread(column, mdata.obs_names)
    words = np.where(here, "observed", found["source"].astype(str))
    order = [word for word in ("observed", "imputed", "prior") if word in words]
    obs["source"] = pd.Categorical(words.astype(object), categories=order)
    obs["sources"] = pd.Categorical(found["sources"].astype(str).astype(object))
    return obs


def _spread(column: pd.Series, names: pd.Index) -> pd.Series:
    """A column of measured samples over all, in a type that can say "missing" and be written to a file."""
    if pd.api.types.is_bool_dtype(column.dtype):
        column = column.astype("boolean")
    elif pd.api.types.is_integer_dtype(column.dtype):
        column = column.astype("Int64")
    elif not pd.api.types.is_numeric_dtype(column.dtype) and not isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype("category")
    return column.reindex(names)


def _assemble(parts: Mapping[str, AnnData]) -> MuData:
    """MuData of modalities with equal samples, whose columns stay where they are.

    mudata 0.3 copies the modalities' columns to the top when it is built, mudata 0.4 does not: they are added later.
    """
    bare = {
        m: AnnData(
            p.X,
            obs=pd.DataFrame(index=p.obs_names),
            var=pd.DataFrame(index=p.var_names),
            layers={k: v for k, v in p.layers.items() if k},
        )
        for m, p in parts.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pull", category=FutureWarning)
        completed = MuData(bare)
    for m, part in parts.items():
        completed.mod[m].obs = part.obs
        completed.mod[m].var = part.var
    return completed


def _meaning(modality: ModalitySchema) -> str:
    """What the values of a completed modality are."""
    values = "X" if modality.layer is None else f"layer {modality.layer!r}"
    if modality.coverage_layer is not None:
        return f"{values} divided by layer {modality.coverage_layer!r}"
    return f"in the units of {values}"
