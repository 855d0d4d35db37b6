"""The hook into scvi-tools: a manager whose datasets yield :class:`~omicvae.data.Batch` records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import torch
from mudata import MuData
from numpy.typing import NDArray
from scvi.data import AnnDataManager, AnnDataManagerValidationCheck
from scvi.data._constants import _MANAGER_UUID_KEY
from scvi.utils import attrdict
from torch.utils.data import Dataset

from omicvae.data._batch import Batch
from omicvae.data._cohort import Cohort
from omicvae.data._fields import registry_fields
from omicvae.data._schema import Schema

_MANAGERS: WeakValueDictionary[str, MosaicManager] = WeakValueDictionary()
"""Identifier that a registered MuData carries -> its manager, which the model class keeps alive."""


class MosaicDataset(Dataset[Batch]):
    """A cohort, or some of its samples, as a map-style dataset whose items are whole batches.

    Parameters
    ----------
    cohort
        Where samples are read from.
    indices
        Their positions in the cohort; all by default.
    """

    def __init__(self, cohort: Cohort, indices: Sequence[int] | NDArray[np.integer] | None = None) -> None:
        self.cohort = cohort
        self.indices = np.arange(len(cohort)) if indices is None else np.asarray(indices, dtype=np.intp)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int | Sequence[int] | slice) -> Batch:
        return self.cohort.batch(self.indices[[index] if isinstance(index, int) else index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return self[indices]


class MosaicManager(AnnDataManager):
    """scvi-tools' data manager for MuData in which samples lack whole modalities.

    scvi-tools indexes every modality with the same position, which pairs one sample's RNA with another's protein as
    soon as rows differ in order. This manager keeps its registry, and replaces what is read: rows are found by name
    (:class:`~omicvae.data.Cohort`).
    """

    def __init__(
        self,
        fields: list[Any] | None = None,
        setup_method_args: dict[str, Any] | None = None,
        validation_checks: AnnDataManagerValidationCheck | None = None,
    ) -> None:
        checks = validation_checks or AnnDataManagerValidationCheck(check_fully_paired_mudata=False)
        super().__init__(fields=fields, setup_method_args=setup_method_args, validation_checks=checks)
        self._cohort: Cohort | None = None
        self._resident: Cohort | None = None

    @classmethod
    def from_registry(cls, registry: dict[str, Any], mdata: MuData) -> MosaicManager:
        """Attach ``mdata`` to a registry made before: nothing is proposed again, categories stay as they were."""
        cohort = Cohort(mdata, Schema.from_registry(registry))  # raises if the data do not fit, before they are touched
        manager = cls.without_data(registry)
        manager._source_registry = registry
        manager._transfer_kwargs = {}
        manager.adata = mdata
        manager._assign_uuid()
        manager._assign_most_recent_manager_uuid()
        manager._cohort = cohort
        return manager

    @classmethod
    def without_data(cls, registry: dict[str, Any]) -> MosaicManager:
        """A manager that can say what was registered, and read nothing."""
        manager = cls(fields=registry_fields(registry["setup_args"]))
        manager._registry = deepcopy(registry)
        return manager

    def get_state_registry(self, registry_key: str) -> attrdict:
        """What was found in one field at setup; asks for no data, unlike scvi-tools' own."""
        return attrdict(self._registry["field_registries"][registry_key]["state_registry"])

    @property
    def cohort(self) -> Cohort:
        """The registered MuData as the model reads it."""
        if self._cohort is None:
            self._assert_anndata_registered()
            self._cohort = Cohort(self.adata, Schema.from_registry(self.registry))
        return self._cohort

    def _assign_most_recent_manager_uuid(self) -> None:
        super()._assign_most_recent_manager_uuid()
        _MANAGERS[self.id] = self

    def check_unchanged(self) -> None:
        """Read the registered MuData anew if its samples or features were changed after it was read.

        A user may filter or reorder a modality in place; positions remembered from before would then pair one sample's
        assay with another's.
        """
        if self._cohort is not None and not self._cohort.matches(self.adata):
            self._cohort = None

    def transfer_fields(self, adata_target: MuData, **kwargs: Any) -> MosaicManager:
        """Manager of the same setup for another MuData, matched by name."""
        return self.from_registry(self.registry, adata_target)

    def validate(self) -> None:
        """Nothing to replay: the cohort was read through this manager's own registry."""
        self._assert_anndata_registered()

    def create_torch_dataset(
        self,
        indices: Sequence[int] | None = None,
        data_and_attributes: Any = None,
        load_sparse_tensor: bool = False,
    ) -> MosaicDataset:
        """Dataset over the registered samples, or over those at ``indices``."""
        return MosaicDataset(self.cohort if self._resident is None else self._resident, indices)

    @contextmanager
    def resident(self, device: torch.device | str) -> Iterator[None]:
        """Datasets made meanwhile read from a copy of the cohort on ``device``."""
        self._resident = self.cohort.to(device)
        try:
            yield
        finally:
            self._resident = None


def registered_manager(mdata: MuData) -> MosaicManager:
    """The manager of the latest ``setup_mudata`` of a MuData, whichever model class it was called on.

    Raises
    ------
    TypeError
        If it is not a MuData.
    ValueError
        If it is not registered.
    """
    if not isinstance(mdata, MuData):
        raise TypeError(f"expected a MuData, got {type(mdata).__name__}")
    manager = _MANAGERS.get(mdata.uns.get(_MANAGER_UUID_KEY, ""))
    if manager is None or manager.adata is not mdata:
        raise ValueError("the MuData is not registered: call setup_mudata of a model, such as CoVAE, first")
    manager.check_unchanged()
    return manager
