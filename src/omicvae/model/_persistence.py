"""Saved models: tensors and JSON, read without executing anything in them."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import mudata
import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import MosaicManager
from omicvae.model._base import MultimodalModel
from omicvae.nn import NetworkConfig

FORMAT = 1
STATE, ARRAYS, DATA = "model.json", "arrays.npz", "mdata.h5mu"
PARTS = ("train", "validation", "test")


class PersistenceMixin(MultimodalModel):
    """``save`` and ``load``.

    scvi-tools' ``model.pt`` is a pickle, which runs whatever it holds when it is read. Here a model folder is data:
    ``model.json`` and ``arrays.npz``, read with ``allow_pickle=False``.
    """

    def save(
        self, dir_path: str | os.PathLike[str], *, overwrite: bool = False, save_anndata: bool = False
    ) -> None:
        """Write the model to a folder.

        The folder is written under a temporary name and renamed when it is complete, so that a model that was there
        before is never left half overwritten.

        Parameters
        ----------
        dir_path
            Folder to make.
        overwrite
            Replace a folder that holds a saved model.
        save_anndata
            Also write the MuData, as scvi-tools calls it, so that ``load(dir_path)`` needs no data.

        Raises
        ------
        FileExistsError
            If the folder exists and is not to be overwritten, or does not hold a saved model.
        """
        target = Path(dir_path)
        if target.exists() and not overwrite:
            raise FileExistsError(f"{target} exists; pass overwrite=True to replace it")
        if target.exists() and not (target / STATE).exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileExistsError(f"{target} exists and does not hold a saved model; it is left as it is")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        try:
            (folder / STATE).write_text(json.dumps(self._state(), default=_plain, allow_nan=True))
            np.savez(folder / ARRAYS, **self._arrays())  # type: ignore[arg-type]
            if save_anndata:
                if not isinstance(self.adata, MuData):
                    raise ValueError("the model was loaded without data, so there is none to save")
                self.adata.write(folder / DATA)
            _replace(folder, target)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _state(self) -> dict[str, Any]:
        history = self.history or {}
        return {
            "format": FORMAT,
            "omicvae": version("omicvae"),
            "class": type(self).__name__,
            "arguments": self.init_params_["non_kwargs"],
            "registry": self.registry_,
            "trained": self.is_trained_,
            "history": {k: {"index": list(v.index), "values": v.iloc[:, 0].tolist()} for k, v in history.items()},
        }

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {f"module/{k}": v.detach().cpu().numpy() for k, v in self.module.state_dict().items()}
        for part, positions in zip(PARTS, self._split(), strict=True):
            if positions is not None:
                names = self._cohort(None).obs_names if self.adata is not None else None
                arrays[f"split/{part}"] = np.asarray(positions)
                if names is not None:
                    arrays[f"names/{part}"] = np.asarray(names[positions], dtype=np.str_)
        return arrays

    def _split(self) -> tuple[NDArray[np.intp] | None, ...]:
        return self.train_indices_, self.validation_indices_, self.test_indices_

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
        state = _read_state(folder, cls.__name__)
        arrays = _read_arrays(folder / ARRAYS)
        mdata = _attached(folder, adata)
        registry = state["registry"]
        if mdata is None:
            model = cls(registry=registry, **_arguments(cls, state["arguments"]))
        else:
            manager = MosaicManager.from_registry(registry, mdata)
            cls.register_manager(manager)
            model = cls(mdata, **_arguments(cls, state["arguments"]))
        try:
            tensors = {k.removeprefix("module/"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("module/")}
            model.module.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"{folder} is damaged: its arrays do not fit the model it describes ({error})") from error
        model._restore(state, arrays)
        model.module.eval()
        model.to_device(_device(accelerator, device))
        return model

    def _restore(self, state: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> None:
        self.is_trained_ = bool(state["trained"])
        self.history_ = {
            k: pd.DataFrame({k: v["values"]}, index=pd.Index(v["index"], name="epoch")) for k, v in state["history"].items()
        }
        for part in PARTS:
            positions = arrays.get(f"split/{part}")
            names = arrays.get(f"names/{part}")
            if names is not None and self.adata is not None:
                found = self._cohort(None).obs_names.get_indexer(names.astype(object))
                positions = found[found >= 0]
            setattr(self, f"{part}_indices_", positions)


def _arguments(cls: type, saved: dict[str, Any]) -> dict[str, Any]:
    known = inspect.signature(cls).parameters
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


def _replace(folder: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}-old-{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_state(folder: Path, name: str) -> dict[str, Any]:
    if not (folder / STATE).is_file():
        hint = " It holds a model.pt of scvi-tools, which is a pickle and is not read." if (folder / "model.pt").exists() else ""
        raise FileNotFoundError(f"{folder} holds no saved omicvae model ({STATE} is missing).{hint}")
    try:
        state = json.loads((folder / STATE).read_text())
        found, made_by = state["format"], state["class"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / STATE} is damaged and cannot be read") from error
    if found != FORMAT:
        raise ValueError(f"{folder} was written in format {found}, this version of omicvae reads format {FORMAT}")
    if made_by != name:
        raise ValueError(f"{folder} holds a {made_by}, not a {name}: use omicvae.model.{made_by}.load")
    return state


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {k: stored[k] for k in stored.files}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged, or holds something other than plain arrays; it is not read") from error


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
    return mudata.read_h5mu(folder / DATA)


def _device(accelerator: str, device: int | str) -> torch.device:
    from scvi.model._utils import parse_device_args

    _, _, found = parse_device_args(accelerator=accelerator, devices=device, return_device="torch")
    return found
