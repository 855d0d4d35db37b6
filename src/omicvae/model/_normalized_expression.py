"""Normalised values under the name they have in scvi-tools."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray

from omicvae.model._imputation import ImputationMixin
from omicvae.model._registered import Indices


class NormalizedExpressionMixin(ImputationMixin):
    """``get_normalized_expression``."""

    def get_normalized_expression(
        self,
        mdata: MuData | None = None,
        *,
        modality: str | None = None,
        indices: Indices | None = None,
        features: Sequence[str] | None = None,
        transform_batch: str | None = None,
        n_draws: int | Literal["auto"] = "auto",
        batch_size: int | None = None,
        return_numpy: bool = False,
    ) -> pd.DataFrame | NDArray[np.float32] | dict[str, pd.DataFrame] | dict[str, NDArray[np.float32]]:
        """Denoised values of all samples: counts at the median library size, other data in their own units.

        The means of :meth:`get_denoised` with ``scale="normalized"``, as tables. A sample that has the assay is
        conditioned on it and on its others; one that lacks it on its others alone, so that its row is an imputation:
        :meth:`get_denoised` says which is which, and how sure.

        Parameters
        ----------
        mdata
            Other data, matched by name; the model's own by default.
        modality
            One modality; by default all.
        indices
            Positions, names or a mask of samples.
        features
            Of ``modality``; all by default.
        transform_batch
            As if every sample were from this batch.
        n_draws
            Posterior draws to average over.
        batch_size
            Samples at a time.
        return_numpy
            Arrays instead of DataFrames.

        Returns
        -------
        DataFrame, samples by features, of ``modality``; or modality -> DataFrame.

        Raises
        ------
        ValueError
            For an unknown modality, feature or batch, or ``features`` without ``modality``.
        RuntimeError
            If the model is not trained.
        """
        if modality is None and features is not None:
            raise ValueError("features are those of one modality: name it with modality=")

        def table(name: str) -> pd.DataFrame:
            found = self.get_denoised(
                name, mdata=mdata, indices=indices, features=features, n_draws=n_draws, level=None,
                scale="normalized", transform_batch=transform_batch, batch_size=batch_size,
            )  # fmt: skip
            return found.to_df()

        if modality is not None:
            return table(modality).to_numpy() if return_numpy else table(modality)
        tables = {name: table(name) for name in self.modalities}
        return {name: t.to_numpy() for name, t in tables.items()} if return_numpy else tables
