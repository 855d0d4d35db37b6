"""The scvi-tools fields of a setup; among them one for categorical columns that may have gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import rich.pretty  # also for scvi-tools 1.4.2, which uses it without importing it
import rich.table
from anndata import AnnData
from mudata import MuData
from scvi.data.fields import BaseAnnDataField, MuDataLayerField, MuDataNumericalObsField, MuDataWrapper

from omicvae.data._schema import BATCH, LABELS, batch_name, categorical_key, continuous_key, coverage_key, values_key


def as_categories(column: pd.Series) -> pd.Series:
    """A column as strings, with missing values kept missing.

    Categories are compared as text, so that a batch written as ``1`` in one file and as ``"1"`` in another is the same.
    So is ``1.0``: pandas turns whole numbers into floats where a value is missing.
    """
    plain = column.astype(object)
    return plain.where(plain.isna(), plain.map(_text))


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


class CategoryField(BaseAnnDataField):
    """A categorical ``.obs`` column in which a missing value is code -1 and not an error.

    scvi-tools' own field writes a coded copy into the user's ``.obs`` and raises on a gap. Here the user's column is
    left alone; codes are computed when rows are read (:class:`omicvae.data.Cohort`).
    """

    def __init__(self, registry_key: str, attr_key: str) -> None:
        super().__init__()
        self._registry_key = registry_key
        self._attr_key = attr_key

    @property
    def registry_key(self) -> str:
        return self._registry_key

    @property
    def attr_name(self) -> str:
        return "obs"

    @property
    def attr_key(self) -> str:
        return self._attr_key

    @property
    def is_empty(self) -> bool:
        return False

    def validate_field(self, adata: AnnData | MuData) -> None:
        """Raise a KeyError if the column is not there."""
        super().validate_field(adata)
        if self._attr_key not in adata.obs:
            raise KeyError(f"{self._attr_key!r} not found in .obs")

    def register_field(self, adata: AnnData | MuData) -> dict[str, Any]:
        """State registry: the sorted categories that occur."""
        super().register_field(adata)
        categories = sorted(as_categories(adata.obs[self._attr_key]).dropna().unique())
        return {"categorical_mapping": np.asarray(categories, dtype=object), "original_key": self._attr_key}

    def transfer_field(
        self, state_registry: dict[str, Any], adata_target: AnnData | MuData, **kwargs: Any
    ) -> dict[str, Any]:
        """The source's categories stand; others in the target are read as code -1."""
        super().transfer_field(state_registry, adata_target, **kwargs)
        return dict(state_registry)

    def get_summary_stats(self, state_registry: dict[str, Any]) -> dict[str, int]:
        """Number of categories, under scvi-tools' name."""
        return {f"n_{self._registry_key}": len(state_registry["categorical_mapping"])}

    def view_state_registry(self, state_registry: dict[str, Any]) -> rich.table.Table:
        """Table for ``model.view_anndata_setup()``."""
        table = rich.table.Table("Source Location", "Categories", "Code", title=f"{self._registry_key} State Registry")
        for code, name in enumerate(state_registry["categorical_mapping"]):
            table.add_row(f"obs['{self._attr_key}']" if code == 0 else "", str(name), str(code))
        return table


MuDataCategoryField = MuDataWrapper(CategoryField)


def registry_fields(arguments: Mapping[str, Any]) -> list[BaseAnnDataField]:
    """The fields of a setup, from its resolved arguments (as they stand in the registry)."""
    layers, coverage = arguments["layers"], arguments["coverage_layers"]
    found = [_layer_field(values_key(m), layers.get(m), m) for m in arguments["modalities"]]
    found += [_layer_field(coverage_key(m), layer, m) for m, layer in coverage.items()]
    batch, labels = arguments["batch_key"], arguments["labels_key"]
    if isinstance(batch, Mapping):
        found += [MuDataCategoryField(batch_name(m), column, mod_key=m) for m, column in batch.items()]
    elif batch is not None:
        found.append(MuDataCategoryField(BATCH, batch))
    if labels is not None:
        found.append(MuDataCategoryField(LABELS, labels))
    found += [MuDataCategoryField(categorical_key(c), c) for c in arguments["categorical_covariate_keys"] or ()]
    found += [MuDataNumericalObsField(continuous_key(c), c) for c in arguments["continuous_covariate_keys"] or ()]
    return found


def _layer_field(key: str, layer: str | None, modality: str) -> BaseAnnDataField:
    # Values are checked by their likelihood, and stay as they are stored.
    return MuDataLayerField(
        key, layer, is_count_data=False, correct_data_format=False, mod_key=modality, mod_required=True
    )
