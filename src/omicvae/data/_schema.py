"""What was registered, as typed records: the one place where scvi-tools' string-keyed registry is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH = "batch"
LABELS = "labels"


def values_key(modality: str) -> str:
    """Registry key of a modality's values."""
    return f"X_{_escaped(modality)}"


def coverage_key(modality: str) -> str:
    """Registry key of a modality's total reads."""
    return f"coverage_{_escaped(modality)}"


def batch_name(modality: str | None) -> str:
    """Name of the batch covariate: one for all modalities, or one a modality."""
    return BATCH if modality is None else f"{BATCH}_{_escaped(modality)}"


def categorical_key(column: str) -> str:
    """Registry key of a categorical covariate."""
    return f"cat_{_escaped(column)}"


def continuous_key(column: str) -> str:
    """Registry key of a continuous covariate."""
    return f"cont_{_escaped(column)}"


def _escaped(name: str) -> str:
    """``name`` without dots, which scvi-tools' registry refuses, different for every name."""
    return name.replace("%", "%25").replace(".", "%2E")


@dataclass(frozen=True)
class ModalitySchema:
    """One registered modality."""

    name: str
    likelihood: str
    var_names: tuple[str, ...]
    layer: str | None = None
    coverage_layer: str | None = None
    size_factor_key: str | None = None

    @property
    def n_vars(self) -> int:
        """Number of registered features."""
        return len(self.var_names)


@dataclass(frozen=True)
class CategorySchema:
    """One categorical column: where it is found and what its codes mean."""

    name: str
    column: str
    categories: tuple[str, ...]
    modality: str | None = None
    """The modality whose ``.obs`` holds the column; ``None`` for ``mdata.obs``."""


@dataclass(frozen=True)
class Schema:
    """Everything needed to read any MuData as the model's input."""

    modalities: tuple[ModalitySchema, ...]
    categorical: tuple[CategorySchema, ...] = ()
    """Batch covariates and other categorical covariates."""
    continuous: tuple[str, ...] = ()
    """Columns of ``mdata.obs``."""
    labels: CategorySchema | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Modality names, in the order of the columns of ``Batch.present``."""
        return tuple(modality.name for modality in self.modalities)

    def __getitem__(self, modality: str) -> ModalitySchema:
        return self.modalities[self.names.index(modality)]

    def covariates_of(self, modality: str) -> tuple[CategorySchema, ...]:
        """Categorical covariates that enter the networks of ``modality``."""
        return tuple(c for c in self.categorical if c.modality in (None, modality))

    @classmethod
    def from_registry(cls, registry: Mapping[str, Any]) -> Schema:
        """Typed view of a registry written by ``setup_mudata``."""
        arguments = registry["setup_args"]
        fields = registry["field_registries"]

        def category(key: str, column: str, modality: str | None = None) -> CategorySchema:
            mapping = fields[key]["state_registry"]["categorical_mapping"]
            return CategorySchema(key, column, tuple(str(c) for c in mapping), modality)

        modalities = tuple(
            ModalitySchema(
                name=name,
                likelihood=arguments["likelihoods"][name],
                var_names=tuple(np.asarray(fields[values_key(name)]["state_registry"]["column_names"]).astype(str)),
                layer=(arguments["layers"] or {}).get(name),
                coverage_layer=(arguments["coverage_layers"] or {}).get(name),
                size_factor_key=(arguments["size_factor_keys"] or {}).get(name),
            )
            for name in arguments["modalities"]
        )
        batch = arguments["batch_key"]
        categorical = [category(BATCH, batch)] if isinstance(batch, str) else []
        if isinstance(batch, Mapping):
            categorical += [category(batch_name(m), column, m) for m, column in batch.items()]
        categorical += [category(categorical_key(c), c) for c in arguments["categorical_covariate_keys"] or ()]
        label = arguments["labels_key"]
        return cls(
            modalities=modalities,
            categorical=tuple(categorical),
            continuous=tuple(arguments["continuous_covariate_keys"] or ()),
            labels=category(LABELS, label) if label is not None else None,
        )
