"""The scvi-tools field for categorical columns that may have gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import rich.pretty  # noqa: F401  (scvi-tools 1.4.2 uses rich.pretty without importing it)
from anndata import AnnData
from mudata import MuData
from scvi.data.fields import BaseAnnDataField, MuDataWrapper


def as_categories(column: pd.Series) -> pd.Series:
    """A column as strings, with missing values kept missing.

    Categories are compared as text, so that a batch written as ``1`` in one file and as ``"1"`` in another is the same.
    """
    plain = column.astype(object)
    return plain.where(plain.isna(), plain.map(str))


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
    def registry_key(self) -> str:  # noqa: D102
        return self._registry_key

    @property
    def attr_name(self) -> str:  # noqa: D102
        return "obs"

    @property
    def attr_key(self) -> str:  # noqa: D102
        return self._attr_key

    @property
    def is_empty(self) -> bool:  # noqa: D102
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
