"""What was measured, in the units of an imputed value."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omicvae.data._cohort import Cohort

CHUNK = 4096  # samples read at a time


def observed_values(
    cohort: Cohort,
    modality: str,
    positions: NDArray[np.intp],
    *,
    columns: NDArray[np.intp] | slice = slice(None),
    reference_size: float | None = None,
) -> NDArray[np.float32]:
    """``(n, p)`` measured values of samples that have the modality, in the units of an imputed value.

    Where a coverage was registered these are fractions of reads; with ``reference_size``, counts at that library size.
    NaN where an element was not measured. ``columns`` are positions of features.
    """
    parts = [np.zeros((0, cohort.schema[modality].n_vars), np.float32)[:, columns]]
    for start in range(0, len(positions), CHUNK):
        batch = cohort.batch(positions[start : start + CHUNK])
        values = batch.x[modality]
        if modality in batch.coverage:
            reads = batch.coverage[modality]
            values = (values / reads).where(reads > 0, float("nan"))
        if reference_size is not None:
            values = values * (reference_size / batch.size[modality])[:, None]
        parts.append(values.numpy()[:, columns])
    return np.concatenate(parts)
