"""What scvi-tools' trainer is told, where the user says nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scvi.model._utils import parse_device_args, use_distributed_sampler
from scvi.train._callbacks import LoudEarlyStopping

from omicvae.data import Schema
from omicvae.train import HistoryLogger, clip_norm


def trainer_settings(given: Mapping[str, Any], *, epochs: int, schema: Schema, early_stopping: bool) -> dict[str, Any]:
    """Arguments of :class:`scvi.train.Trainer`.

    scvi-tools switches early stopping off in distributed training, because there its metrics differ between processes;
    ours are sums over all of them, so that all stop together.

    Parameters
    ----------
    given
        By the user.
    epochs
        Length of training.
    schema
        Registered modalities; gradients are clipped by their number of features.
    early_stopping
        Whether there is something to monitor and it is to be monitored.
    """
    settings: dict[str, Any] = {
        "early_stopping_monitor": "validation_loss",
        "early_stopping_patience": max(10, epochs // 4),
        "early_stopping_warmup_epochs": epochs // 2,
        "gradient_clip_val": clip_norm(sum(m.n_vars for m in schema.modalities)),
        "check_val_every_n_epoch": None,
        "early_stopping": early_stopping,
        "callbacks": [],
        "logger": None,
        **given,
    }
    if settings["logger"] is None:
        settings["logger"] = HistoryLogger(save_dir=given.get("log_save_dir"))
    if use_distributed_sampler(given.get("strategy")):
        settings["use_distributed_sampler"] = False  # the splitter's loaders divide samples themselves
        if early_stopping:
            names = ("monitor", "patience", "warmup_epochs", "min_delta", "mode")
            chosen = {
                name: settings[f"early_stopping_{name}"] for name in names if f"early_stopping_{name}" in settings
            }
            settings["callbacks"] = [*settings["callbacks"], LoudEarlyStopping(**chosen)]
        settings["early_stopping"] = False
    return settings


def n_processes(strategy: Any, accelerator: str, devices: int | list[int] | str, num_nodes: int = 1) -> int:
    """Processes that share the samples of an epoch."""
    if not use_distributed_sampler(strategy):
        return 1
    _, found, _ = parse_device_args(accelerator=accelerator, devices=devices, return_device="torch")
    return num_nodes * (len(found) if isinstance(found, list) else int(found) if isinstance(found, int) else 1)
