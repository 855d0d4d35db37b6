"""Names of many samples without the memory that looking them up takes."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray


def without_table(names: pd.Index) -> pd.Index:
    """The same names in an index of its own.

    To look names up pandas builds a hash table, which then stays with the index as long as that does.
    """
    return pd.Index(names.to_numpy(), dtype=names.dtype, name=names.name)


class NamedSamples:
    """Samples that are found again by name once the data have changed, and by position as long as they have not.

    Parameters
    ----------
    positions
        Of the samples in ``names``.
    names
        Of all samples of a cohort.
    """

    def __init__(self, positions: NDArray[np.integer], names: pd.Index) -> None:
        self._positions, self._names = np.asarray(positions), names

    @property
    def names(self) -> NDArray[np.object_]:
        """Their names, in order."""
        return np.asarray(self._names, dtype=object)[self._positions]

    def positions_in(self, names: pd.Index) -> NDArray[np.integer]:
        """Their positions among ``names``; samples that are not there are left out."""
        if names is self._names:
            return self._positions
        found = without_table(names).get_indexer(pd.Index(self.names))
        return found[found >= 0]
