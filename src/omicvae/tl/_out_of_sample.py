"""Measured values of an assay, and predictions by fits that have not seen them, on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import Cohort
from omicvae.data._measured import observed_values
from omicvae.model._model import Model

Float32 = NDArray[np.float32]
Positions = NDArray[np.intp]

HELD = 2**26  # numbers drawn at a time: all features of a sample, whichever are asked for
COMPARED = 500  # measured samples that the predictor's noise is averaged over


class Request(NamedTuple):
    """Which predictions are asked for."""

    model: Model
    mdata: MuData
    cohort: Cohort
    modality: str
    given: Sequence[str] | None
    columns: Positions
    """Features, as positions among the registered ones."""
    batch_size: int | None

    @property
    def target(self) -> int:
        """Position of the modality."""
        return self.model.modalities.index(self.modality)

    def predictable(self) -> NDArray[np.bool_]:
        """``(n_obs,)`` samples that have something to predict the modality from."""
        sources = self.model._given(self.given, self.modality).cpu().numpy()
        return np.asarray(self.cohort.present[:, sources].any(1))

    @property
    def features(self) -> list[str]:
        """Names of the features."""
        names = self.model.schema[self.modality].var_names
        return [names[j] for j in self.columns]

    def on_own_data(self) -> Request:
        """The same of the data that the model was fitted on."""
        assert isinstance(self.model.adata, MuData)
        return self._replace(mdata=self.model.adata, cohort=self.model._cohort(None))


class Predicted(NamedTuple):
    """Predictions by fits that have not seen the values."""

    names: pd.Index
    """(n,) samples."""
    values: Float32
    """(n, p) measured; NaN where not."""
    prediction: Float32
    """(n, p)"""


def comparable(request: Request, values: Float32) -> Float32:
    """Values on the scale on which groups are compared, from values in the units of an imputed one.

    Counts, which are to be those at the median library size: ``log(1 + x)``, on which a difference is one of proportions
    and single samples do not decide. All others as they are: differences of means, methylation levels and shares of ones.
    """
    return np.log1p(values) if _uses_size(request) else values


def measured_values(request: Request, positions: Positions) -> Float32:
    """``(n, p)`` measured values of samples that have the assay, on the scale of :func:`comparable`."""
    values = observed_values(
        request.cohort, request.modality, positions, columns=request.columns, reference_size=_median_size(request)
    )
    return comparable(request, values)


def predicted_means(request: Request, positions: Positions) -> Float32:
    """``(n, p)`` predictive means of samples from their other assays, on the scale of :func:`comparable`."""
    if len(positions) == 0:
        return np.zeros((0, len(request.columns)), np.float32)
    found = request.model.impute(
        request.modality,
        mdata=request.mdata,
        indices=positions,
        features=request.features,
        given=request.given,
        level=None,
        scale="normalized",
        batch_size=request.batch_size,
    )
    return comparable(request, found.X)


def held_out_predictions(request: Request) -> Predicted | None:
    """Samples of the model's own data, predicted by fits without them; ``None`` if there are none."""
    own = request.on_own_data()
    try:
        held = request.model.get_held_out_predictions(request.modality, given=request.given)
    except RuntimeError:
        return None
    positions = own.cohort.obs_names.get_indexer(held.obs_names).astype(np.intp)
    imputed = np.asarray(held.layers["imputed_normalized"], np.float32)[:, request.columns]
    values = measured_values(own, positions)
    return Predicted(held.obs_names, values, comparable(own, imputed))


def predictive_noise(request: Request, positions: Positions, n_draws: int) -> Iterator[tuple[slice, Float32]]:
    """Blocks of samples with ``(n_draws, block, p)`` draws around the mean of their draws.

    The draws of one number belong together: their features come from the same latents.
    """
    scale = "normalized" if _uses_size(request) else "input"
    rows = max(1, HELD // (n_draws * request.model.schema[request.modality].n_vars))
    for start in range(0, len(positions), rows):
        drawn = request.model.sample(
            request.modality,
            mdata=request.mdata,
            indices=positions[start : start + rows],
            given=request.given,
            n_samples=n_draws,
            scale=scale,  # type: ignore[arg-type]
            batch_size=request.batch_size,
        )
        drawn = comparable(request, drawn[:, :, request.columns])
        yield slice(start, start + drawn.shape[1]), drawn - drawn.mean(0)


def noise_variance(request: Request, positions: Positions, n_draws: int) -> NDArray[np.float64]:
    """``(p,)`` mean predictive variance over some of the samples."""
    if len(positions) > COMPARED:
        positions = positions[np.linspace(0, len(positions) - 1, COMPARED).astype(np.intp)]
    total = np.zeros(len(request.columns))
    for _, noise in predictive_noise(request, positions, n_draws):
        total += noise.var(0, ddof=1, dtype=np.float64).sum(0)
    return total / max(len(positions), 1)


def _uses_size(request: Request) -> bool:
    return bool(request.model.module.likelihoods.of(request.modality).uses_size)


def _median_size(request: Request) -> float | None:
    return float(request.model.module.size_priors.of(request.modality).median) if _uses_size(request) else None
