"""A registered MuData, and reading any other like it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi import settings
from scvi.model.base import BaseModelClass

from omicvae.data import Batch, Cohort, MosaicManager, Schema
from omicvae.data._schema import values_key
from omicvae.data._shard_setup import stored_registry
from omicvae.data._validate import nearest
from omicvae.model._setup import build_manager
from omicvae.model._sizes import whole_number
from omicvae.model._values import check_values
from omicvae.module import MultimodalModule
from omicvae.nn import NetworkConfig

NOT_OF_SETUP = ("cls", "mdata", "kwargs")

Indices = Sequence[int] | Sequence[str] | Sequence[bool] | NDArray[np.generic]
"""Samples by position, name or mask."""


class RegisteredModel(BaseModelClass):
    """What a model knows before it is trained: modalities, and how samples are found by name.

    Parameters
    ----------
    mdata
        MuData registered with ``setup_mudata``.
    registry
        Registry of a saved model, to build it without data.
    """

    default_key: ClassVar[str]
    """Stem of everything :func:`omicvae.tl.embed` writes, such as ``"covae"``."""

    module: MultimodalModule

    def __init__(self, mdata: MuData | None = None, registry: dict[str, Any] | None = None) -> None:
        if mdata is not None and not isinstance(mdata, MuData):
            raise TypeError(f"{type(self).__name__} takes a MuData, got {type(mdata).__name__}")
        super().__init__(mdata, registry)
        self.schema = Schema.from_registry(self.registry_)

    # ------------------------------------------------------------------ setup

    @classmethod
    def setup_mudata(
        cls,
        mdata: MuData,
        *,
        modalities: Sequence[str] | None = None,
        likelihoods: Mapping[str, str] | None = None,
        layers: Mapping[str, str | None] | None = None,
        coverage_layers: Mapping[str, str] | None = None,
        batch_key: str | Mapping[str, str] | None = None,
        labels_key: str | None = None,
        size_factor_keys: Mapping[str, str] | None = None,
        categorical_covariate_keys: Sequence[str] | None = None,
        continuous_covariate_keys: Sequence[str] | None = None,
        **kwargs: Any,
    ) -> None:
        """Register a MuData. Samples may lack whole modalities; rows are matched by name.

        Everything that is given per modality is a mapping keyed by modality name. A MuData that was written by
        :func:`omicvae.data.write_shards` is registered as it was then, unless arguments are given.

        Parameters
        ----------
        mdata
            Modalities may hold different samples; nothing is padded or intersected.
        modalities
            Names to use, at least two; all by default.
        likelihoods
            modality -> ``"normal"``, ``"nb"``, ``"zinb"``, ``"poisson"``, ``"bernoulli"``, ``"beta"``,
            ``"betabinomial"`` or ``"unit_normal"``. Those not named are proposed from the data; the reason is logged.
        layers
            modality -> layer that holds the values; ``.X`` by default.
        coverage_layers
            modality -> layer of total reads, for ``"betabinomial"``.
        batch_key
            Column of ``mdata.obs``, or a mapping from modality to a column of its own ``.obs``. A missing or unseen
            batch means the average over training batches.
        labels_key
            Column of ``mdata.obs`` with classes, for supervised variants; may have gaps.
        size_factor_keys
            modality -> column of its ``.obs``, instead of the sum of counts.
        categorical_covariate_keys, continuous_covariate_keys
            Columns of ``mdata.obs``.
        **kwargs
            ``source_registry``, which scvi-tools passes when a saved setup is replayed.

        Raises
        ------
        TypeError, ValueError
            For every mistake that can be seen in the data, naming the modality and the cure.
        """
        arguments = dict(locals())
        arguments.pop("__class__", None)
        setup_method_args = cls._get_setup_method_args(**arguments)
        source = kwargs.get("source_registry")
        if source is not None:
            manager = MosaicManager.from_registry(source, mdata)
        elif all(value is None for name, value in arguments.items() if name not in NOT_OF_SETUP):
            manager = _registered_before(mdata) or build_manager(mdata, setup_method_args)
        else:
            manager = build_manager(mdata, setup_method_args)
        cls.register_manager(manager)

    @classmethod
    def setup_anndata(cls, adata: AnnData, *args: Any, **kwargs: Any) -> None:
        """Not available: the models need at least two modalities."""
        raise TypeError(
            f"{cls.__name__} needs several modalities: build mudata.MuData({{'rna': ..., 'atac': ...}}) and call "
            f"{cls.__name__}.setup_mudata"
        )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Registered modalities."""
        return self.schema.names

    def get_var_names(self, legacy_mudata_format: bool = False) -> dict[str, NDArray[np.str_]]:
        """Modality -> registered features."""
        return {m.name: np.asarray(m.var_names) for m in self.schema.modalities}

    def _check_modality(self, modality: str) -> str:
        if modality not in self.modalities:
            raise ValueError(
                f"the model was not trained on a modality {modality!r}; it knows {list(self.modalities)}."
                f"{nearest(str(modality), self.modalities)}"
            )
        return modality

    def _n_measured(self) -> dict[str, int]:
        """Modality -> number of samples, on which default sizes depend."""
        fields = self.registry_["field_registries"]
        return {m: int(fields[values_key(m)]["state_registry"]["n_obs"]) for m in self.modalities}

    def _network(self, network: NetworkConfig | Mapping[str, Any] | None) -> NetworkConfig:
        if isinstance(network, Mapping):
            network = NetworkConfig(**network)
        return (network or NetworkConfig()).resolve(max(self._n_measured().values()))

    # ------------------------------------------------------------------ reading data

    def _cohort(self, mdata: MuData | None) -> Cohort:
        """The model's own data, or any other MuData matched by name."""
        if mdata is None or mdata is self.adata:
            if self.adata is None:
                raise ValueError("the model was loaded without data: pass mdata=")
            return self._own_cohort()
        cohort = Cohort(mdata, self.schema)
        check_values(mdata, self.schema)
        return cohort

    def _own_cohort(self) -> Cohort:
        manager = self.adata_manager
        assert isinstance(manager, MosaicManager) and isinstance(self.adata, MuData)
        manager.check_unchanged()
        return manager.cohort

    def _positions(self, cohort: Cohort, indices: Indices | None) -> NDArray[np.intp]:
        """Positions of the samples asked for by number, name or mask."""
        if indices is None:
            return np.arange(len(cohort), dtype=np.intp)
        if isinstance(indices, str | slice):
            raise TypeError(f"indices must be a list of positions or names, or a mask, got {indices!r}")
        chosen = np.asarray(indices)
        if chosen.ndim > 1:
            raise ValueError(f"indices must be one list, got an array of shape {chosen.shape}")
        if chosen.dtype == bool:
            if len(chosen) != len(cohort):
                raise ValueError(f"the mask has {len(chosen)} entries for {len(cohort)} samples")
            return np.flatnonzero(chosen)
        if chosen.dtype.kind in "UOST":
            found = cohort.obs_names.get_indexer(chosen.astype(object))
            if (found < 0).any():
                raise ValueError(
                    f"{int((found < 0).sum())} samples are not in the data, first {str(chosen[found < 0][0])!r}"
                )
            return found.astype(np.intp)
        if chosen.size and chosen.dtype.kind not in "iu":
            raise TypeError(f"indices must be positions, names or a mask, got {chosen.dtype}")
        positions = chosen.astype(np.intp).reshape(-1)
        if positions.size and (positions.min() < -len(cohort) or positions.max() >= len(cohort)):
            raise ValueError(f"indices must lie in 0..{len(cohort) - 1}")
        return positions % max(len(cohort), 1)

    def _batches(self, cohort: Cohort, positions: NDArray[np.intp], batch_size: int | None) -> Iterator[Batch]:
        """Consecutive minibatches on the model's device."""
        size = settings.batch_size if batch_size is None else whole_number("batch_size", batch_size)
        for batch in cohort.batches(positions, size):
            yield batch.to(self.module.device)

    def _given(self, given: Sequence[str] | None, exclude: str | None = None) -> torch.Tensor:
        """``(M,)`` bool: the modalities that may be conditioned on."""
        if isinstance(given, str):
            raise TypeError(f"given must be a list of modalities, got the text {given!r}; write given=[{given!r}]")
        names = self.modalities if given is None else [self._check_modality(m) for m in given]
        if given is not None and exclude in names:
            raise ValueError(f"given names {exclude!r}, the modality to impute; leave it out")
        mask = torch.tensor([m in names and m != exclude for m in self.modalities])
        return mask.to(self.module.device)

    def _require_training(self) -> None:
        self._check_if_trained(
            warn=False, message=f"this {type(self).__name__} has not been trained: call model.train()"
        )


def _registered_before(mdata: MuData) -> MosaicManager | None:
    """The registration that shards were written with; values that have been in a user's hands are checked again."""
    registry = stored_registry(mdata)
    if registry is None:
        return None
    manager = MosaicManager.from_registry(registry, mdata)
    if manager.cohort.n_bytes is not None:
        check_values(mdata, manager.cohort.schema)
    return manager
