"""Samples that stand for a cohort where all of them would not fit into memory."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from omicvae.data import Cohort

logger = logging.getLogger("omicvae")

MOST_ROWS = 10_000  # of data in memory, where a dense copy of so many samples is bearable
MOST_VALUES = 2**27  # 0.5 GB of float32


def representative(cohort: Cohort, positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """The samples that a closed form is fitted to: all, or as many as may be in memory as dense values.

    At most 0.5 GB; of data in memory 10,000 samples or more. They are spread evenly over patterns of measured assays,
    and over the order of samples within each.

    Parameters
    ----------
    cohort
        The training data.
    positions
        ``(n,)`` increasing.
    """
    n_vars = sum(modality.n_vars for modality in cohort.schema.modalities)
    most = max(0 if cohort.n_bytes is None else MOST_ROWS, MOST_VALUES // n_vars, 1)
    if len(positions) <= most:
        return positions
    logger.info("closed form: fitted to %d of %d samples, the network to all", most, len(positions))
    order = np.lexsort(cohort.present[positions].T)  # stable: samples of one pattern stand together
    kept = order[np.linspace(0, len(positions) - 1, most).astype(np.intp)]
    return positions[np.sort(kept)]
