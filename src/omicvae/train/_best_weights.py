"""Keep the weights of the best epoch, and survive a loss that is not a number."""

from __future__ import annotations

import logging
import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from omicvae.train._plan import MosaicPlan

logger = logging.getLogger("omicvae")


class BestWeights(pl.Callback):
    """Remember the weights of the epoch with the least ``monitor`` and put them back at the end of training.

    Without validation the weights of the last epoch whose loss was finite are kept. If a loss is not finite, training
    stops, the modality and the epoch are named, and the remembered weights are restored; if there are none yet, a
    :class:`FloatingPointError` is raised.

    Parameters
    ----------
    monitor
        Logged metric to minimise.
    """

    def __init__(self, monitor: str = "validation_loss") -> None:
        self.monitor = monitor
        self.best = math.inf
        self.best_epoch: int | None = None
        self._state: dict[str, Tensor] | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remember, or stop."""
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        finite = pl_module.epoch_is_finite if isinstance(pl_module, MosaicPlan) else True
        if not finite or not all(math.isfinite(v) for v in metrics.values()):
            self._stop(trainer, pl_module)
            return
        value = metrics.get(self.monitor)
        if value is None or value < self.best:
            self.best = math.inf if value is None else value
            self._remember(trainer, pl_module)

    def _remember(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.best_epoch = trainer.current_epoch
        self._state = {k: v.detach().clone() for k, v in _module(pl_module).state_dict().items()}

    def _stop(self, trainer: pl.Trainer, plan: pl.LightningModule) -> None:
        words = plan.broken_modalities() if isinstance(plan, MosaicPlan) else []
        blame = f"modality {', '.join(map(repr, words))}" if words else "the latent distribution"
        message = f"the loss of {blame} is not finite in epoch {trainer.current_epoch}"
        if self._state is None:
            raise FloatingPointError(
                message + ". Nothing was learned before: check the scale of that modality's values, name a different "
                "likelihood, or lower the learning rate (plan_kwargs={'lr': 5e-4})."
            )
        logger.error("%s: training stops and the weights of epoch %s are restored.", message, self.best_epoch)
        trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint has to hold."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self._state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.best, self.best_epoch = state_dict["best"], state_dict["best_epoch"]
        self._state = state_dict["weights"]

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the remembered weights back."""
        if self._state is not None:
            with torch.no_grad():
                _module(pl_module).load_state_dict(self._state)
            self._state = None


def _module(plan: pl.LightningModule) -> nn.Module:
    module = plan.module
    assert isinstance(module, nn.Module)
    return module
