"""What a training run is, so that checkpoints are not taken for those of another."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omicvae.data import Cohort, PatternSplitter, Schema
from omicvae.train import Checkpoints


def open_checkpoints(
    checkpoint_dir: str | os.PathLike[str] | None, resume: bool, run: Mapping[str, str]
) -> Checkpoints | None:
    """The callback that writes checkpoints, or ``None`` if there is no folder for them.

    Raises
    ------
    ValueError
        If training is to go on and no folder is named.
    FileExistsError
        If the folder holds a run that is not to be gone on with.
    """
    if checkpoint_dir is None:
        if resume:
            raise ValueError("resume=True needs checkpoint_dir, the folder that the interrupted run wrote to")
        return None
    return Checkpoints(Path(checkpoint_dir), run, resume=resume)


def describe_run(
    model: str, arguments: Mapping[str, Any], schema: Schema, cohort: Cohort, splitter: PatternSplitter, **how: Any
) -> dict[str, str]:
    """What is trained, on what and how, as text that two runs can be compared by.

    Parameters
    ----------
    model, arguments
        Class, and arguments of its constructor.
    schema
        Modalities, likelihoods, features and covariates.
    cohort, splitter
        Names of the samples of each part of the split, and size of minibatches.
    **how
        Other settings of training.
    """

    def names(part: NDArray[np.intp]) -> str:
        return _digest(str(name) for name in np.asarray(cohort.obs_names, dtype=object)[part])

    return {
        "model": model,
        "arguments of the model": repr(sorted(arguments.items())),
        "modalities": repr([(m.name, m.likelihood, m.layer) for m in schema.modalities]),
        "features and covariates": _digest([repr(schema)]),
        "training samples": names(splitter.train_idx),
        "validation samples": names(splitter.val_idx),
        "calibration samples": names(splitter.calibration_idx),
        "batch sizes": str(splitter.batch_size),
        **{what.replace("_", " "): repr(value) for what, value in how.items()},
    }


def _digest(words: Iterable[str]) -> str:
    sums = hashlib.sha256()
    for word in words:
        sums.update(word.encode() + b"\0")
    return sums.hexdigest()[:12]
