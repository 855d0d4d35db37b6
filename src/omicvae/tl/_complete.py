"""A MuData in which nothing is missing any more."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

from omicvae.data._target import replacing
from omicvae.data._validate import listing
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.tl._arguments import check_data
from omicvae.tl._blocks import LAYERS, Blocks, reading_once, rows_a_block
from omicvae.tl._provenance import completed_obs, completed_var, meaning
from omicvae.tl._streaming import check_target, stream
from omicvae.tl._trust import (
    check_min_skill,
    check_stem,
    measured_trust,
    trust_columns,
    warn_of_guesses,
    without_skill,
)


@overload
def complete(
    mdata: MuData,
    model: Model,
    *,
    modalities: Sequence[str] | None = ...,
    features: Mapping[str, Sequence[str]] | None = ...,
    min_skill: float | None = ...,
    out: None = ...,
    overwrite: bool = ...,
    level: float = ...,
    n_draws: int | Literal["auto"] = ...,
    batch_size: int | None = ...,
    key_added: str | None = ...,
) -> MuData: ...


@overload
def complete(
    mdata: MuData,
    model: Model,
    *,
    modalities: Sequence[str] | None = ...,
    features: Mapping[str, Sequence[str]] | None = ...,
    min_skill: float | None = ...,
    out: str | os.PathLike[str],
    overwrite: bool = ...,
    level: float = ...,
    n_draws: int | Literal["auto"] = ...,
    batch_size: int | None = ...,
    key_added: str | None = ...,
) -> Path: ...


def complete(
    mdata: MuData,
    model: Model,
    *,
    modalities: Sequence[str] | None = None,
    features: Mapping[str, Sequence[str]] | None = None,
    min_skill: float | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    level: float = 0.9,
    n_draws: int | Literal["auto"] = "auto",
    batch_size: int | None = None,
    key_added: str | None = None,
) -> MuData | Path:
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
    min_skill
        Leave predictions of a feature NaN unless, out of sample, its CRPS is lower than that of the training
        distribution by this share (``skill_vs_mean`` of ``model.trust``); 0 asks for any improvement. Measured values
        stay. All are kept by default.
    out
        Path that ends in ``.zarr`` or ``.h5mu``: the result is written there and not returned, for cohorts that do not
        fit into memory; :func:`mudata.read_zarr` and :func:`mudata.read_h5mu` read it. One block of dense predictions
        is in memory at a time. It is written under a temporary name in the same folder and renamed when it is complete,
        so that a failure leaves nothing behind, and what was there before as it was.
    overwrite
        Replace what is at ``out``.
    level
        Probability that the interval from ``imputed_lower`` to ``imputed_upper`` is to hold.
    n_draws
        Posterior draws a sample, as in the model's ``impute``.
    batch_size
        Samples imputed, and written, at a time; by default as many as make some four million numbers a layer.
    key_added
        Stem of the columns in ``var``; ``model.default_key`` by default, such as ``"covae"``.

    Returns
    -------
    MuData with the samples of ``mdata`` in their order, and its ``obs`` and ``obsm``; or the path of the file that
    holds it. Each modality holds the registered features and

    ``X``
        float32, in the units of the registered layer (methylation levels for ``betabinomial``): what was measured, and
        the predictive mean where the sample lacks the modality or the single element is NaN. Always dense, also where
        the measured layer is sparse, because means of counts or of accessibility are hardly ever 0: an accessible peak
        is 1 in a measured sample, and a probability in an imputed one. With its four layers a modality takes 20 bytes
        a sample and feature; choose ``features``, or ``out``, for wide ones.
    ``layers["imputed"]``, ``["imputed_sd"]``, ``["imputed_lower"]``, ``["imputed_upper"]``
        Prediction from the sample's *other* modalities, for all samples, so that it can be compared with what was
        measured.
    ``obs``
        The modality's own columns where it was measured, ``source`` (``"observed"``, ``"imputed"``, or ``"prior"`` where
        nothing else was measured either) and ``sources``, the modalities that the prediction is based on. A column of
        the user's of that name is kept as ``<name>_original``.
    ``var``
        As in ``mdata``, and how far predictions can be trusted, measured on samples the model had not seen:
        ``covae_imputable`` (bool), ``covae_r2``, ``covae_coverage90``, ``covae_skill_vs_ridge``; ``False`` and NaN
        where it could not be measured.

    ``uns["omicvae_complete"]`` says which model made it, at which level, and what ``X`` holds.

    Warns
    -----
    UserWarning
        Once for each modality of which most features cannot be told from their mean.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, ``model`` is not a model, or another argument is of the wrong type.
    ValueError
        For an unknown modality or feature, if the data do not fit the model, or if ``min_skill`` is given and trust
        was not measured.
    FileExistsError, FileNotFoundError
        If ``out`` exists and is not to be overwritten, or its folder does not exist.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "complete")
    check_data(mdata, "complete")
    names = _modalities(model, modalities)
    wanted = _features(model, names, features)
    stem, least = check_stem(model, key_added), check_min_skill(min_skill)
    target = None if out is None else check_target(out, overwrite, mdata)
    rows = {m: rows_a_block(batch_size, len(wanted[m])) for m in names}
    trust = {m: _rows_of(measured_trust(model, m), wanted[m]) for m in names}
    left_out = {} if least is None else without_skill(trust, least)
    reader, cohort = reading_once(model, mdata)
    warn_of_guesses(trust, stem)
    blocks = {m: Blocks(reader, cohort, m, wanted[m], left_out.get(m), level, n_draws, rows[m]) for m in names}
    bare = {m: _bare(mdata, model, blocks[m], trust[m], stem) for m in names}
    uns = _described(model, bare, level)
    if least is not None:
        uns |= {"min_skill": least, "n_features_left_out": {m: int(left_out[m].sum()) for m in names}}
    if out is None or target is None:
        return _assembled(mdata, {m: _filled(bare[m], blocks[m]) for m in names}, uns)
    with replacing(target) as path:
        stream(path, _assembled(mdata, bare, uns), LAYERS, blocks, rows)
    return Path(out)


def _modalities(model: Model, modalities: Sequence[str] | None) -> list[str]:
    if modalities is None:
        return list(model.modalities)
    if isinstance(modalities, str):
        raise TypeError(f"modalities must be a list of names, got the text {modalities!r}; write [{modalities!r}]")
    if not isinstance(modalities, Iterable):
        raise TypeError(f"modalities must be a list of names, got {modalities!r}")
    names = [model._check_modality(m) for m in dict.fromkeys(modalities)]
    if not names:
        raise ValueError("modalities is empty: name at least one, or leave it out for all")
    return names


def _features(model: Model, names: Sequence[str], features: Mapping[str, Sequence[str]] | None) -> dict[str, pd.Index]:
    """Features to complete, of each modality."""
    wanted = {m: pd.Index(model.schema[m].var_names) for m in names}
    if features is None:
        return wanted
    if not isinstance(features, Mapping):
        raise TypeError(f"features must be a mapping from modality to names, such as {{{names[0]!r}: [...]}}")
    for modality, chosen in features.items():
        if modality not in names:
            raise ValueError(
                f"features names modality {modality!r}, which is not among those to complete {list(names)}"
            )
        if isinstance(chosen, str) or not isinstance(chosen, Iterable):
            raise TypeError(f"features of {modality!r} must be a list of names, got {chosen!r}")
        index = pd.Index(list(chosen))
        if len(index) == 0:
            raise ValueError(f"features of {modality!r} is empty: name at least one, or leave the modality out")
        if not index.is_unique:
            raise ValueError(f"features of {modality!r} names {listing(index[index.duplicated()].unique())} twice")
        wanted[modality] = wanted[modality][model._feature_positions(modality, list(chosen))]
    return wanted


def _rows_of(trust: pd.DataFrame | None, features: pd.Index) -> pd.DataFrame | None:
    return None if trust is None else trust.loc[features]


def _bare(mdata: MuData, model: Model, blocks: Blocks, trust: pd.DataFrame | None, stem: str) -> AnnData:
    """A completed modality without its values."""
    var = completed_var(mdata, model.adata, blocks.modality, blocks.features)
    return AnnData(
        obs=completed_obs(mdata, blocks.cohort, blocks.modality),
        var=var.assign(**trust_columns(trust, blocks.features, stem)),
    )


def _filled(bare: AnnData, blocks: Blocks) -> AnnData:
    """A completed modality, all in memory."""
    values = {name: np.empty(bare.shape, dtype=np.float32) for name in ("X", *LAYERS)}
    for block in blocks:
        for name, matrix in block.values.items():
            values[name][block.rows] = matrix
    return AnnData(values.pop("X"), obs=bare.obs, var=bare.var, layers=values)


def _assembled(mdata: MuData, parts: Mapping[str, AnnData], uns: dict[str, Any]) -> MuData:
    """MuData of modalities with equal samples, whose columns stay where they are, and all else of ``mdata``.

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
    completed.obs = mdata.obs.copy()
    for key, values in mdata.obsm.items():
        if key not in mdata.mod:  # MuData's own marks of who has which modality
            completed.obsm[key] = values.copy()
    completed.uns["omicvae_complete"] = uns
    return completed


def _described(model: Model, parts: Mapping[str, AnnData], level: float) -> dict[str, Any]:
    """What is kept in ``uns``."""
    return {
        "model": type(model).__name__,
        "omicvae_version": version("omicvae"),
        "level": float(level),
        "X": {m: meaning(model.schema[m]) for m in parts},
        "n_imputed": {m: int((part.obs["source"] != "observed").sum()) for m, part in parts.items()},
    }
