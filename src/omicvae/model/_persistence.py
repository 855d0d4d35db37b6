"""Saved models: tensors and JSON, read without executing anything in them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn, Self

import mudata
import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from scvi.data import AnnDataManager

from omicvae.data import MosaicManager, Schema
from omicvae.data._names import NamedSamples
from omicvae.model._base import MultimodalModel
from omicvae.model._folder import (
    DATA,
    check_data,
    check_target,
    read_arrays,
    read_state,
    replacing,
    sign_data,
    write_model,
)
from omicvae.model._training_record import TrainingRecord
from omicvae.model._values import check_values
from omicvae.nn import NetworkConfig

PARTS = ("train", "validation", "calibration", "test")


def _part(name: str) -> property:
    """A part of the split: its positions in the data that are attached now, found by name.

    Positions alone would name other samples once a user has filtered or reordered the data, or loaded the model with
    other data; samples that are not there are left out. Without data, positions in the training data.
    """

    def read(model: PersistenceMixin) -> NDArray[np.intp] | None:
        samples = model._split.get(name)
        if samples is None or model.adata is None:
            return getattr(model, f"{name}_indices_")
        return samples.positions_in(model._cohort(None).obs_names).astype(np.intp, copy=False)

    def write(model: PersistenceMixin, positions: NDArray[np.intp] | None) -> None:
        setattr(model, f"{name}_indices_", positions)
        if positions is not None and model.adata is not None:
            model._split = {**model._split, name: NamedSamples(positions, model._cohort(None).obs_names)}

    return property(read, write, doc=f"Positions of the {name} samples in the attached data; ``None`` if not known.")


class PersistenceMixin(MultimodalModel):
    """``save`` and ``load``.

    scvi-tools' ``model.pt`` is a pickle, which runs whatever it holds when it is read. Here a model folder is data:
    ``model.json`` and ``arrays.npz``, read with ``allow_pickle=False``, and their checksums.
    """

    _split: Mapping[str, NamedSamples] = {}
    train_indices = _part("train")
    validation_indices = _part("validation")
    calibration_indices = _part("calibration")
    test_indices = _part("test")

    def save(self, dir_path: str | os.PathLike[str], *, overwrite: bool = False, save_anndata: bool = False) -> None:
        """Write the model to a folder.

        The folder is written under a temporary name and renamed when it is complete, so that a model that was there
        before is never left half overwritten.

        Parameters
        ----------
        dir_path
            Folder to make.
        overwrite
            Replace the model in a folder that holds one; other files in it are kept.
        save_anndata
            Also write the MuData, as scvi-tools calls it, so that ``load(dir_path)`` needs no data.

        Raises
        ------
        FileExistsError
            If the folder exists and is not to be overwritten, or does not hold a saved model.
        ValueError
            If the data are to be saved and there are none.
        """
        target = Path(dir_path).resolve()
        check_target(target, overwrite)
        if save_anndata and not isinstance(self.adata, MuData):
            raise ValueError("the model was loaded without data, so there is none to save")
        with replacing(target) as folder:
            write_model(folder, self._state(), self._arrays(), _plain)
            if save_anndata:
                self.adata.write(folder / DATA)
                sign_data(folder)

    def _state(self) -> dict[str, Any]:
        history = self.history or {}
        return {
            "omicvae": version("omicvae"),
            "class": type(self).__name__,
            "arguments": self.init_params_["non_kwargs"],
            "registry": self.registry_,
            "trained": self.is_trained_,
            "best_epoch": self.best_epoch_,
            "training": self.training_.to_dict(),
            "history": {k: {"index": list(v.index), "values": v.iloc[:, 0].tolist()} for k, v in history.items()},
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {f"module/{k}": v.detach().cpu().numpy() for k, v in self.module.state_dict().items()}
        arrays |= self._extra_arrays()
        for part in PARTS:
            positions = getattr(self, f"{part}_indices_")
            if positions is not None:
                arrays[f"split/{part}"] = np.asarray(positions)
            if part in self._split:
                arrays[f"names/{part}"] = np.asarray(self._split[part].names, dtype=np.str_)
        return arrays

    @classmethod
    def load(  # type: ignore[override]
        cls,
        dir_path: str | os.PathLike[str],
        adata: MuData | bool | None = None,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """Read a saved model; nothing in the folder is executed.

        Parameters
        ----------
        dir_path
            Folder written by :meth:`save`.
        adata
            MuData to attach, matched by name; ``None`` reads the one saved with the model; ``False`` attaches none
            (then pass ``mdata=`` to the getters).
        accelerator, device
            Where to put the model, as in scvi-tools.

        Raises
        ------
        FileNotFoundError
            If there is no saved model.
        ValueError
            If the folder is damaged, of another class or of a later version, or ``mdata`` does not fit.
        """
        folder = Path(dir_path)
        state = read_state(folder)
        with _damage_reported(folder):
            made_by, registry = str(state["class"]), dict(state["registry"])
            Schema.from_registry(registry)
        if made_by != cls.__name__:
            raise ValueError(f"{folder} holds a {made_by}, not a {cls.__name__}: use omicvae.model.{made_by}.load")
        arrays = read_arrays(folder)
        mdata = _attached(folder, adata)
        if mdata is not None:
            cls._register(registry, mdata)
        with _damage_reported(folder):
            model = cls._built(state, arrays, mdata)
        model.to_device(_device(accelerator, device))
        return model

    @classmethod
    def _register(cls, registry: dict[str, Any], mdata: MuData) -> None:
        """Set data up as those of a registry."""
        manager = MosaicManager.from_registry(registry, mdata)
        check_values(mdata, manager.cohort.schema)
        cls.register_manager(manager)

    @classmethod
    def _built(cls, state: dict[str, Any], arrays: dict[str, NDArray[Any]], mdata: MuData | None) -> Self:
        """The model of a state, with data that are registered, or without."""
        arguments = _arguments(cls, state["arguments"])
        model = cls(registry=dict(state["registry"]), **arguments) if mdata is None else cls(mdata, **arguments)
        tensors = {k.removeprefix("module/"): v for k, v in arrays.items() if k.startswith("module/")}
        model.module.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
        model._restore(state, arrays)
        model.module.eval()
        return model

    def _restore(self, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self.is_trained_ = bool(state["trained"])
        self.best_epoch_ = state["best_epoch"]
        self.training_ = TrainingRecord.from_dict(state.get("training", {}))
        self.history_ = {
            k: pd.DataFrame({k: v["values"]}, index=pd.Index(v["index"], name="epoch"))
            for k, v in state["history"].items()
        }
        for part in PARTS:
            setattr(self, f"{part}_indices_", arrays.get(f"split/{part}"))
        stored = {part: arrays.get(f"names/{part}") for part in PARTS}
        self._split = {
            part: NamedSamples(np.arange(len(names)), pd.Index(names.astype(object)))
            for part, names in stored.items()
            if names is not None
        }
        self._restore_extra(arrays)

    def view_anndata_setup(self, adata: MuData | None = None, hide_state_registries: bool = False) -> None:
        """Print what the model, or another MuData, was set up with; the model's own also when no data are attached."""
        if adata is None and self.adata is None:
            MosaicManager.without_data(self.registry_).view_registry(hide_state_registries)
        else:
            super().view_anndata_setup(adata, hide_state_registries)

    # scvi-tools' versions of these read a model.pt, which executes it.

    @staticmethod
    def load_registry(dir_path: str | os.PathLike[str], prefix: str | None = None) -> dict[str, Any]:
        """The registry of a saved model: what :meth:`setup_mudata` was called with and what it found."""
        folder = Path(dir_path)
        state = read_state(folder)
        with _damage_reported(folder):
            return dict(state["registry"])

    @staticmethod
    def view_setup_args(dir_path: str | os.PathLike[str], prefix: str | None = None) -> None:
        """Print what a saved model was set up with."""
        AnnDataManager.view_setup_method_args(PersistenceMixin.load_registry(dir_path))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available: there are no older formats, and those of scvi-tools are pickles."""
        raise ValueError("omicvae has no older format to convert, and pickles of scvi-tools are not read")


def _arguments(cls: type, saved: dict[str, Any]) -> dict[str, Any]:
    known = set(inspect.signature(cls).parameters) - {"mdata", "registry"}
    return {k: v for k, v in saved.items() if k in known}


def _plain(value: Any) -> Any:
    """JSON for what registries hold."""
    if isinstance(value, NetworkConfig):
        return value.to_dict()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"cannot save a {type(value).__name__} as JSON")


@contextmanager
def _damage_reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{folder} is damaged: what it holds is not a model ({type(error).__name__}: {what})"
        ) from error


def _attached(folder: Path, adata: MuData | bool | None) -> MuData | None:
    if adata is False:
        return None
    if isinstance(adata, MuData):
        return adata
    if adata is not None:
        raise TypeError(f"adata must be a MuData, None or False, got {type(adata).__name__}")
    if not (folder / DATA).is_file():
        raise ValueError(
            f"{folder} was saved without its data: pass it with load(dir, mdata), or load(dir, adata=False) to attach none"
        )
    check_data(folder)
    return mudata.read_h5mu(folder / DATA)


def _device(accelerator: str, device: int | str) -> torch.device:
    from scvi.model._utils import parse_device_args

    _, _, found = parse_device_args(accelerator=accelerator, devices=device, return_device="torch")
    return found
