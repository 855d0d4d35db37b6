"""Curves of training, gathered in lists."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from lightning.pytorch.utilities import rank_zero_only
from scvi.train._logger import SimpleLogger


class HistoryLogger(SimpleLogger):
    """scvi-tools' logger, whose data frames are made when they are asked for.

    Appending a row to a data frame takes most of a millisecond; with fifteen curves that is as long as several steps of
    a small model, every epoch.

    Parameters
    ----------
    **kwargs
        Of scvi-tools' logger, such as ``save_dir``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._curves: dict[str, dict[int, float]] = {}
        self._axes: dict[str, str] = {}

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add a point to each curve, at ``metrics["epoch"]`` if it is there, else at ``step``."""
        axis = next((a for a in ("step", "epoch") if a in metrics), "step")
        at = int(metrics.get(axis, step or 0))
        for name, value in metrics.items():
            if name != axis:
                self._curves.setdefault(name, {})[at] = float(value)
                self._axes.setdefault(name, axis)

    @property
    def history(self) -> dict[str, pd.DataFrame]:
        """Name -> curve, a data frame of one column."""
        return {
            name: pd.DataFrame({name: list(curve.values())}, index=pd.Index(list(curve), name=self._axes[name]))
            for name, curve in self._curves.items()
        }
