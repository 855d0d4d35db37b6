"""What a benchmark is asked for, checked against the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from mudata import MuData

import omicvae.model
from omicvae.data import MosaicManager, Schema
from omicvae.data._validate import listing, nearest


def registered_setup(mdata: MuData) -> dict[str, Any]:
    """What any model class registered, the most recent setup first."""
    latest = mdata.uns.get("_scvi_manager_uuid")
    found = []
    for name in omicvae.model.__all__:
        cls = getattr(omicvae.model, name)
        store = getattr(cls, "_setup_adata_manager_store", {})
        manager = store.get(mdata.uns.get("_scvi_uuid"))
        if isinstance(manager, MosaicManager) and manager.adata is mdata:
            found.append(manager)
    if not found:
        raise ValueError(
            "mdata is not registered: say what its modalities hold with omicvae.model.CoVAE.setup_mudata(mdata, ...) "
            "before the benchmark (a copy has to be registered again)"
        )
    found.sort(key=lambda m: m.id != latest)
    return dict(found[0].registry)


def group_labels(mdata: MuData, groupby: str | None, schema: Schema) -> pd.Series | None:
    column = groupby if groupby is not None else schema.labels.column if schema.labels is not None else None
    if column is None:
        return None
    if column not in mdata.obs:
        raise ValueError(f"groupby={column!r} is not a column of mdata.obs.{nearest(column, list(mdata.obs.columns))}")
    return mdata.obs[column]


def named_modalities(argument: str, names: Sequence[str] | None, schema: Schema) -> tuple[str, ...]:
    if names is None:
        return schema.names
    if isinstance(names, str):
        raise TypeError(
            f"{argument} must be a list of modalities, got the text {names!r}; write {argument}=[{names!r}]"
        )
    for name in names:
        if name not in schema.names:
            raise ValueError(
                f"{argument} names {name!r}, which is not registered; there are {list(schema.names)}."
                f"{nearest(str(name), schema.names)}"
            )
    if not len(names):
        raise ValueError(f"{argument} is empty: name at least one modality, or leave it out")
    return tuple(dict.fromkeys(names))


def predictable_targets(targets: Sequence[str] | None, given: tuple[str, ...], schema: Schema) -> list[str]:
    """Modalities that have something to be predicted from."""
    wanted = named_modalities("targets", targets, schema)
    alone = [t for t in wanted if not set(given) - {t}]
    if targets is not None and alone:
        raise ValueError(f"{listing(alone)} would be predicted from itself alone: name another modality in given=")
    return [t for t in wanted if t not in alone]
