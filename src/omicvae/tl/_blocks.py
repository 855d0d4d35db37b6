"""The values of a completed modality, a block of samples at a time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import Cohort
from omicvae.data._measured import observed_values
from omicvae.model._model import Model
from omicvae.model._sizes import whole_number
from omicvae.tl._streaming import Block

logger = logging.getLogger("omicvae")

IMPUTED_LAYERS = {"imputed_sd": "sd", "imputed_lower": "lower", "imputed_upper": "upper"}
LAYERS = ("imputed", *IMPUTED_LAYERS)
HELD = 2**22  # numbers of one (samples, features) array held at once
MOST_ROWS = 4096


@dataclass(frozen=True)
class Blocks:
    """Iterates over a modality of all samples: measured where possible, else imputed.

    Parameters
    ----------
    model
        Trained.
    cohort
        The samples, as the model reads them.
    modality
        What to complete.
    features
        ``(n_features,)`` names.
    left_out
        ``(n_features,)`` bool: features whose predictions are NaN; ``None`` for none.
    level, n_draws
        As in the model's ``impute``.
    n_rows
        Samples a block.
    """

    model: Model
    cohort: Cohort
    modality: str
    features: pd.Index
    left_out: NDArray[np.bool_] | None
    level: float
    n_draws: int | Literal["auto"]
    n_rows: int

    def __iter__(self) -> Iterator[Block]:
        """Blocks in the order of the samples."""
        n_obs = len(self.cohort)
        for start in range(0, n_obs, self.n_rows):
            if n_obs > self.n_rows:
                step = {"step": start, "steps": n_obs}
                logger.info("complete: %s, %d of %d samples", self.modality, start, n_obs, extra=step)
            yield self._block(np.arange(start, min(start + self.n_rows, n_obs), dtype=np.intp))

    def _block(self, positions: NDArray[np.intp]) -> Block:
        found = self.model.impute(
            self.modality, indices=positions, features=list(self.features), level=self.level, n_draws=self.n_draws
        )
        predicted = {"imputed": found.X, **{name: found.layers[layer] for name, layer in IMPUTED_LAYERS.items()}}
        if self.left_out is not None:
            for values in predicted.values():
                values[:, self.left_out] = np.nan
        measured = self._measured(positions)
        completed = np.where(np.isnan(measured), predicted["imputed"], measured)
        return Block(slice(int(positions[0]), int(positions[-1]) + 1), {"X": completed, **predicted})

    def _measured(self, positions: NDArray[np.intp]) -> NDArray[np.float32]:
        """``(n, n_features)`` what was measured; NaN elsewhere."""
        schema = self.cohort.schema
        columns = pd.Index(schema[self.modality].var_names).get_indexer(self.features).astype(np.intp)
        here = np.flatnonzero(self.cohort.present[positions, schema.names.index(self.modality)])
        measured = np.full((len(positions), len(columns)), np.nan, dtype=np.float32)
        measured[here] = observed_values(self.cohort, self.modality, positions[here], columns=columns)
        return measured


def reading_once(model: Model, mdata: MuData) -> tuple[Model, Cohort]:
    """A model whose getters read and check ``mdata`` only now, and the samples; it shares all else with ``model``.

    Getters read and check all samples of what is passed to them, which would be once a block.
    """
    cohort = model._cohort(mdata)
    reader = copy.copy(model)
    reader._cohort = lambda mdata: cohort  # type: ignore[method-assign]
    return reader, cohort


def rows_a_block(batch_size: int | None, n_features: int) -> int:
    """Samples a block: those asked for, or as many as make some four million numbers."""
    if batch_size is not None:
        return whole_number("batch_size", batch_size)
    return int(np.clip(HELD // max(n_features, 1), 1, MOST_ROWS))
