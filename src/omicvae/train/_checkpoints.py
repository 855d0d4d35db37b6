"""Checkpoints of a training run, from which it goes on as if it had not been interrupted."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from torch import nn

from omicvae.train._record_file import read_record, write_record

logger = logging.getLogger("omicvae")

START, LATEST = "start.npz", "latest.npz"
MOST_SHARE = 0.1  # of training time that writing may take


def random_state() -> dict[str, Any]:
    """State of every generator of random numbers that training uses."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what :func:`random_state` gave."""
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])


class PlainCheckpointIO(CheckpointIO):
    """Lightning's checkpoints as plain arrays; its own are pickles, which execute what they hold."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a file, whole or not at all."""
        write_record(Path(path), checkpoint)

    def load_checkpoint(self, path: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Read a file as data."""
        return read_record(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Remove a file."""
        Path(path).unlink(missing_ok=True)


class Checkpoints(Checkpoint):
    """Write where training starts and, after an epoch, how far it has come; go on from there.

    The start (the untrained module and the generators of random numbers) is kept because preparation, which reads
    statistics off the data or trains a first stage, is made again from it: what preparation leaves beside tensors then
    needs no record. An epoch's checkpoint replaces the one before. It is written after every epoch, less often where
    writing would take more than a tenth of the time.

    Parameters
    ----------
    folder
        Where to write; made if it is not there.
    run
        What is trained, on what and how, as text: a folder of another run is refused.
    resume
        Whether to go on with the run in the folder; an empty folder starts one.

    Raises
    ------
    FileExistsError
        If the folder holds a run and ``resume`` is false.
    """

    def __init__(self, folder: Path, run: Mapping[str, str], *, resume: bool) -> None:
        self.folder, self.run = folder, dict(run)
        if not resume and any((folder / name).exists() for name in (START, LATEST)):
            raise FileExistsError(
                f"{folder} holds checkpoints of a training run: pass resume=True to go on with it, or name another "
                "checkpoint_dir"
            )
        self._random: Mapping[str, Any] | None = None
        self._history: Mapping[str, Any] = {}
        self._stopped, self._early_steps = False, 0
        self._cost, self._written = 0.0, -np.inf

    @property
    def latest(self) -> Path | None:
        """The checkpoint to go on from, if an epoch was completed."""
        path = self.folder / LATEST
        return path if path.is_file() else None

    def begin(self, module: nn.Module) -> None:
        """Put a module and the generators where the run started, or write where it starts now.

        Raises
        ------
        ValueError
            If the folder holds another run, or is damaged.
        OSError
            If nothing can be written to it.
        """
        path = self.folder / START
        if not path.is_file():
            if self.latest is not None:
                raise ValueError(f"{self.folder} is damaged: it lacks {START}; delete it to start training again")
            self.folder.mkdir(parents=True, exist_ok=True)
            write_record(path, {"run": self.run, "module": module.state_dict(), "random": random_state()})
            return
        start = read_record(path)
        found = start.get("run", {})
        for what, value in self.run.items():
            if found.get(what) != value:
                raise ValueError(
                    f"{self.folder} holds checkpoints of another run ({what}: {found.get(what)} there, {value} here). "
                    "Train with the same data, arguments and scvi.settings.seed, or name another checkpoint_dir."
                )
        try:
            module.load_state_dict(start["module"])
            set_random_state(start["random"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged, or is not a checkpoint of omicvae") from error
        if self.latest is not None:
            read_record(self.latest)  # damage is found before anything is computed

    # ------------------------------------------------------------------ writing

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint, unless the last one was written too short a time ago."""
        if time.monotonic() - self._written < self._cost / MOST_SHARE and not trainer.should_stop:
            return
        started = time.monotonic()
        self._history, self._stopped = _history(trainer), trainer.should_stop
        self._early_steps = getattr(trainer.early_stopping_callback, "_current_step", 0)
        try:
            trainer.save_checkpoint(self.folder / LATEST)
        except OSError as error:
            logger.warning(
                "the checkpoint of epoch %s could not be written to %s (%s); training goes on, and the checkpoint before "
                "it stays.", trainer.current_epoch, self.folder, error,
            )  # fmt: skip
        self._written = time.monotonic()
        self._cost = self._written - started

    def state_dict(self) -> dict[str, Any]:
        """What lightning does not record itself."""
        return {
            "random": random_state(),
            "history": self._history,
            "stopped": self._stopped,
            "early_steps": self._early_steps,
        }

    # ------------------------------------------------------------------ going on

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember what to put back when training starts."""
        self._random, self._history = state_dict["random"], state_dict["history"]
        self._stopped, self._early_steps = state_dict["stopped"], state_dict["early_steps"]

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put back history, generators, and whether training was over."""
        if self._random is None:
            return
        for name, (epochs, values) in self._history.items():
            for epoch, value in zip(epochs, values, strict=True):
                for log in trainer.loggers:
                    log.log_metrics({name: value, "epoch": epoch}, step=epoch)
        stopping = trainer.early_stopping_callback
        if stopping is not None and hasattr(stopping, "_current_step"):  # scvi-tools' count of epochs, not in its state
            stopping._current_step = self._early_steps
        trainer.should_stop = self._stopped
        set_random_state(self._random)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put generators back once more where lightning begins the data anew, as it did before version 2.6."""
        if self._random is not None and not getattr(trainer.fit_loop, "is_resuming", False):
            set_random_state(self._random)
        self._random = None

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Where all epochs were done, leave the generators as the last one left them."""
        if self._random is not None:
            set_random_state(self._random)
            self._random = None


def _history(trainer: pl.Trainer) -> dict[str, tuple[list[int], list[float]]]:
    """Metric -> its epochs and values; those of this epoch reach the logger only after its callbacks."""
    logged = getattr(trainer.logger, "history", None) or {}
    found = {k: ([int(e) for e in v.index], [float(x) for x in v.iloc[:, 0]]) for k, v in logged.items()}
    for name, value in trainer.callback_metrics.items():
        epochs, values = found.setdefault(name, ([], []))
        if trainer.current_epoch not in epochs:
            epochs.append(trainer.current_epoch)
            values.append(float(value))
    return found
