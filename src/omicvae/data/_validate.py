"""What is checked about the shape of a MuData before anything is registered."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from mudata import MuData
from scipy.sparse.csgraph import connected_components

from omicvae.data._cohort import modality_rows
from omicvae.data._names import without_table

logger = logging.getLogger("omicvae")


def nearest(name: str, candidates: Iterable[object]) -> str:
    """`` Did you mean 'x'?`` for the closest spelling among ``candidates``, or nothing."""
    close = difflib.get_close_matches(str(name), [str(c) for c in candidates], n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def listing(names: Sequence[object] | pd.Index, most: int = 5) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(repr(str(n)) for n in names[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def choose_modalities(mdata: MuData, modalities: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the modalities to register, in the order asked (default: the order of ``mdata.mod``).

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData.
    ValueError
        If the MuData is a view, fewer than two modalities are left, or a name is not in the MuData.
    """
    if not isinstance(mdata, MuData):
        raise TypeError(
            f"setup_mudata needs a MuData, got {type(mdata).__name__}. Build one with "
            "mudata.MuData({'rna': adata_rna, 'atac': adata_atac}); modalities may hold different samples."
        )
    if mdata.is_view:
        raise ValueError("the MuData is a view of another (a subset): call mdata = mdata.copy() first")
    if mdata.axis != 0:
        raise ValueError(f"the MuData must share observations (axis=0), this one has axis={mdata.axis}")
    if isinstance(modalities, str):
        raise TypeError(f"modalities must be a list of names, got the text {modalities!r}; write [{modalities!r}, ...]")
    chosen = tuple(mdata.mod) if modalities is None else tuple(modalities)
    for name in chosen:
        if name not in mdata.mod:
            raise ValueError(f"modality {name!r} is not in the MuData {list(mdata.mod)}.{nearest(name, mdata.mod)}")
    if len(set(chosen)) != len(chosen):
        raise ValueError(f"modalities are named twice: {list(chosen)}")
    if len(chosen) < 2:
        raise ValueError(
            f"at least two modalities are needed to learn what one tells about another, got {list(chosen)}. "
            "For a single assay use scvi.model.SCVI or a factor model."
        )
    return chosen


def check_names(mdata: MuData, modalities: Sequence[str]) -> None:
    """Raise a ValueError on empty modalities, duplicate names and samples unknown to ``mdata.obs``."""
    if mdata.n_obs == 0:
        raise ValueError("the MuData has no samples: check what it was read from or cut to")
    for name in modalities:
        adata = mdata.mod[name]
        if isinstance(adata, MuData):
            raise ValueError(
                f"modality {name!r} is itself a MuData, of {listing(list(adata.mod))}: put these beside the others, with "
                f"mdata = mudata.MuData({{**mdata.mod, **mdata[{name!r}].mod}}), and leave {name!r} out of modalities="
            )
        if adata.is_view:
            raise ValueError(
                f"modality {name!r} is a view of another AnnData (a subset): call "
                f"mdata.mod[{name!r}] = mdata[{name!r}].copy(); mdata.update() first"
            )
        if adata.n_obs < 2:
            raise ValueError(f"modality {name!r} has {adata.n_obs} samples; at least 2 are needed. Leave it out.")
        if adata.n_vars < 1:
            raise ValueError(f"modality {name!r} has no features. Leave it out.")
        for axis, names in (("obs", adata.obs_names), ("var", adata.var_names)):
            if not without_table(names).is_unique:
                raise ValueError(
                    f"{axis}_names of modality {name!r} are not unique: {_duplicates(names)}. "
                    f"Call mdata[{name!r}].{axis}_names_make_unique() if they are different "
                    f"{'samples' if axis == 'obs' else 'features'}, then mdata.update()."
                )
        unknown = adata.obs_names.difference(mdata.obs_names)
        if len(unknown):
            raise ValueError(
                f"{len(unknown)} samples of modality {name!r} are not in mdata.obs_names: {listing(unknown)}. "
                "The modality was changed after the MuData was built: call mdata.update()."
            )
    if not without_table(mdata.obs_names).is_unique:
        raise ValueError(
            f"mdata.obs_names are not unique: {_duplicates(mdata.obs_names)}. Make the obs_names of every modality unique, "
            "also of those that are left out, and call mdata.update()."
        )


def check_overlap(mdata: MuData, modalities: Sequence[str]) -> None:
    """Raise if nothing links some modalities; log who misses what and which assays were never measured together."""
    present = np.stack([modality_rows(mdata, m) >= 0 for m in modalities], axis=1)
    together = present.astype(int).T @ present.astype(int)
    n_groups, group = connected_components(together > 0, directed=False)
    if n_groups > 1:
        apart = [[m for m, g in zip(modalities, group, strict=True) if g == k] for k in range(n_groups)]
        what = (
            f"no sample has more than one of the modalities {list(modalities)}: nothing links them"
            if n_groups == len(modalities)
            else f"nothing links the modalities {' and '.join(map(str, apart))}: no sample has assays of both"
        )
        raise ValueError(
            f"{what}. Check that obs_names are written alike in all modalities (for example 'TCGA-A1-A0SB' and "
            "'TCGA.A1.A0SB' are different names); first names: "
            + "; ".join(f"{m}: {mdata.mod[m].obs_names[0]!r}" for m in modalities)
            + ". Leave out, with modalities=, what shares no sample with the others."
        )
    never = [
        f"{a}/{b}" for i, a in enumerate(modalities) for j, b in enumerate(modalities) if i < j and together[i, j] == 0
    ]
    if never:
        logger.warning("never measured together, their correlation is learned through other assays only: %s", never)
    patterns, counts = np.unique(present, axis=0, return_counts=True)
    order = np.argsort(-counts)
    words = ["+".join(m for m, p in zip(modalities, patterns[k], strict=True) if p) or "none" for k in order]
    logger.info(
        "samples by assays measured: %s", ", ".join(f"{w}: {counts[k]}" for w, k in zip(words, order, strict=True))
    )


def check_mapping(argument: str, mapping: Mapping[str, str] | None, modalities: Sequence[str]) -> dict[str, str]:
    """A per-modality argument as a plain dict.

    Raises
    ------
    TypeError
        If it is not a mapping keyed by modality name.
    ValueError
        If a key is not a registered modality.
    """
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise TypeError(
            f"{argument} must be a mapping from modality to value, such as {{{modalities[0]!r}: ...}}, got {mapping!r}"
        )
    for key in mapping:
        if key not in modalities:
            raise ValueError(
                f"{argument} names modality {key!r}, which is not registered {list(modalities)}.{nearest(key, modalities)}"
            )
    return {str(k): v for k, v in mapping.items() if v is not None}


def check_layers(mdata: MuData, argument: str, layers: Mapping[str, str]) -> None:
    """Raise a ValueError if a layer is not there, with the nearest spelling."""
    for modality, layer in layers.items():
        available = sorted(name for name in mdata.mod[modality].layers if name is not None)  # anndata 0.13: None is X
        if layer not in available:
            raise ValueError(
                f"{argument}: modality {modality!r} has no layer {layer!r}; it has {available}.{nearest(layer, available)}"
            )


def check_columns(argument: str, columns: Sequence[str] | None) -> list[str]:
    """The names of several ``.obs`` columns as a list.

    Raises
    ------
    TypeError
        If it is not a list of names.
    ValueError
        If a name is there twice.
    """
    if columns is None:
        return []
    if isinstance(columns, str | Mapping) or not isinstance(columns, Iterable):
        raise TypeError(f"{argument} must be a list of columns of mdata.obs, got {columns!r}")
    found = [str(c) for c in columns]
    repeated = {c for c in found if found.count(c) > 1}
    if repeated:
        raise ValueError(f"{argument} names {listing(sorted(repeated))} more than once")
    return found


def check_column(mdata: MuData, argument: str, column: str, modality: str | None = None) -> None:
    """Raise an error if an ``.obs`` column is not where it is looked for, saying where it is instead."""
    if not isinstance(column, str):
        raise TypeError(f"{argument} must be the name of a column, got {column!r}")
    obs = mdata.obs if modality is None else mdata.mod[modality].obs
    where = "mdata.obs" if modality is None else f"mdata[{modality!r}].obs"
    if column in obs:
        return
    holders = [name for name, adata in mdata.mod.items() if column in adata.obs]
    if modality is None and holders:
        instead = f", or give {argument}={{{holders[0]!r}: {column!r}}}" if argument == "batch_key" else ""
        raise ValueError(
            f"{argument}={column!r} is not in mdata.obs but in the .obs of modality {listing(holders)}. "
            f"Call {_pulling(column, holders)} first{instead}."
        )
    raise ValueError(f"{argument}={column!r} is not in {where}.{nearest(column, obs.columns)}")


def _pulling(column: str, holders: Sequence[str]) -> str:
    """Code that puts a column of modalities into ``mdata.obs``; ``pull_obs`` does not join those of several."""
    if len(holders) == 1:
        return f"mdata.pull_obs([{column!r}], prefix_unique=False)"
    tables = ", ".join(f"mdata[{m!r}].obs[{column!r}]" for m in holders)
    return f"mdata.obs[{column!r}] = pd.concat([{tables}]).groupby(level=0).first()"


def check_categories(mdata: MuData, argument: str, column: str, modality: str | None = None) -> None:
    """Raise an error if a categorical column is not there, or holds no category at all."""
    check_column(mdata, argument, column, modality)
    obs, where = (mdata.obs, "mdata.obs") if modality is None else (mdata.mod[modality].obs, f"mdata[{modality!r}].obs")
    if obs[column].isna().all():
        raise ValueError(
            f"{argument}={column!r}: {where}[{column!r}] is missing in all {len(obs)} samples. Leave it out."
        )


def check_continuous(mdata: MuData, column: str) -> None:
    """Raise a ValueError if a continuous covariate is not numeric, is infinite or all missing."""
    series = mdata.obs[column]
    if not pd.api.types.is_numeric_dtype(series):
        raise ValueError(
            f"continuous covariate {column!r} holds {series.dtype} values; convert it to numbers or pass it in "
            "categorical_covariate_keys"
        )
    values = series.to_numpy(dtype=float, na_value=np.nan)
    infinite = np.isinf(values)
    if infinite.any():
        raise ValueError(
            f"continuous covariate {column!r} is infinite in {int(infinite.sum())} samples: "
            f"{listing(mdata.obs_names[infinite])}. Replace them by NaN if they are missing."
        )
    if np.isnan(values).all():
        raise ValueError(f"continuous covariate {column!r} is missing in all {len(values)} samples. Leave it out.")


def _duplicates(names: pd.Index) -> str:
    repeated = names[names.duplicated()].unique()
    return f"{len(repeated)} names repeat, {listing(repeated)}"
