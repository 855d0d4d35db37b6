"""Arrays of numbers, or a sentence about what was passed instead."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def numbers(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """``values`` as an array; a TypeError that names ``what`` where they are something else, such as a model."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{what} must be an array of numbers, got {type(values).__name__}: {error}") from error
