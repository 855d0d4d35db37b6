"""Reading cohorts and models, with messages for those who named the wrong file."""

from __future__ import annotations

import warnings
from pathlib import Path

import mudata
from mudata import MuData

import omicvae.model
from omicvae.model._folder import DATA, read_state
from omicvae.model._model import Model

UNREADABLE = (AttributeError, EOFError, IndexError, KeyError, OSError, RuntimeError, TypeError, ValueError)
"""What anndata, h5py and zarr raise on files that are something else."""


def read_cohort(path: Path, *, backed: bool = False) -> MuData:
    """Read a MuData.

    Parameters
    ----------
    path
        ``.h5mu`` file or ``.zarr`` folder.
    backed
        Leave the values of a ``.h5mu`` file on disk.

    Raises
    ------
    ValueError
        If it is of another kind, or cannot be read.
    """
    if path.suffix == ".h5ad":
        raise ValueError(
            f"{path} holds a single AnnData. omicvae needs several modalities in one MuData: "
            "mudata.MuData({'rna': rna, 'protein': protein}).write('cohort.h5mu')"
        )
    if path.suffix not in (".h5mu", ".zarr"):
        raise ValueError(f"{path} is not a MuData file: its name must end in .h5mu or .zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = mudata.read_zarr(path) if path.suffix == ".zarr" else mudata.read_h5mu(path, backed=backed and "r")
        except UNREADABLE as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{path} cannot be read as a MuData: {reason}") from error
    if not found.mod:
        raise ValueError(f"{path} holds no modality")
    return found


def load_model(folder: Path, mdata: MuData | None, accelerator: str) -> Model:
    """Read a trained model of any class.

    Parameters
    ----------
    folder
        Written by ``omicvae train`` or ``model.save``.
    mdata
        Data to attach; ``None`` for none.
    accelerator
        Where to put it.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no model, it is damaged or untrained, or the data do not fit it.
    """
    name = str(read_state(folder).get("class"))
    cls = getattr(omicvae.model, name, None) if name in omicvae.model.__all__ else None
    if cls is None:
        raise ValueError(f"{folder} holds a model of the class {name!r}, which is not one of omicvae's")
    model: Model = cls.load(folder, False if mdata is None else mdata, accelerator=accelerator)
    if not model.is_trained:
        raise ValueError(f"the {name} in {folder} has not been trained")
    return model


def saved_cohort(folder: Path) -> Path | None:
    """The data that were saved with a model, if they were."""
    return folder / DATA if (folder / DATA).is_file() else None
