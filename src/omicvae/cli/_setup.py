"""Setting up a cohort with what was named on the command line."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mudata import MuData

import omicvae.model
from omicvae.cli._options import mapping
from omicvae.data._validate import nearest
from omicvae.model._model import Model


def model_class(name: str) -> type[Model]:
    """The class of a model, by name."""
    found: type[Model] = getattr(omicvae.model, name)
    return found


def set_up(mdata: MuData, cls: type[Model], options: Mapping[str, Any]) -> None:
    """Register a cohort.

    Parameters
    ----------
    mdata
        Read from a file.
    cls
        Class to register it with.
    options
        ``modality``, ``likelihood``, ``layer``, ``coverage_layer``, ``batch_key``, ``labels_key`` as they came from the
        command line.
    """
    cls.setup_mudata(
        mdata,
        modalities=options["modality"] or None,
        likelihoods=mapping("--likelihood", options["likelihood"]),
        layers=mapping("--layer", options["layer"]),
        coverage_layers=mapping("--coverage-layer", options["coverage_layer"]),
        batch_key=options["batch_key"],
        labels_key=options["labels_key"],
    )


def check_arguments(cls: type[Model], arguments: Mapping[str, Any]) -> None:
    """Raise a ValueError if the constructor of a model takes no such argument."""
    known = [name for name in inspect.signature(cls).parameters if name not in ("mdata", "registry")]
    for name in arguments:
        if name not in known:
            raise ValueError(f"--set: {cls.__name__} has no argument {name!r}; it has {known}.{nearest(name, known)}")
