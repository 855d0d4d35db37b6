"""How much assays tell about one another, dimension by dimension."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._model import Model
from omicvae.model._shared_dimensions import N_PERMUTATIONS, SharedSpectrum, shared_spectrum
from omicvae.stats.canonical import fixed_direction_correlations, permutation_null
from omicvae.tl._arguments import check_model
from omicvae.tl._held_out import samples_to_measure_on

LEAST_SAMPLES = 3  # below, a correlation means nothing


def cross_correlation(
    model: Model, *, indices: Sequence[int] | Sequence[str] | Sequence[bool] | None = None
) -> pd.DataFrame:
    """Correlation between assays along the dimensions a model shares, on samples it was not trained on.

    Each assay's coordinates are posterior means given that assay alone, so one assay's measurement never enters
    another's coordinate. For :class:`~omicvae.model.CoVAE` the dimensions are the canonical dimensions of its prior,
    most shared first; for :class:`~omicvae.model.MMVAEPlusPlus` they are its shared latents, in their order.

    Parameters
    ----------
    model
        Trained model with data attached.
    indices
        Samples to measure on (positions, names or a mask); the held-out samples by default, or all, with a warning, if
        there are none.

    Returns
    -------
    DataFrame with one row a pair of modalities and dimension:

    ``modality_a``, ``modality_b``
        The pair.
    ``dimension``
        Number of the dimension, from 0.
    ``correlation``
        Over samples that have both; NaN with fewer than three.
    ``null``
        95 % point of the same correlation when samples are permuted: what chance alone gives.
    ``prior``
        Correlation of the two latents in the model's prior: 1 for MMVAE++, where both are the same latent.

    Raises
    ------
    TypeError
        For a model without shared dimensions that can be read from one assay.
    ValueError
        If the model was loaded without data.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "cross_correlation")
    if not has_shared_coordinates(model):
        raise TypeError(
            f"cross_correlation needs a model whose assays have shared dimensions of their own (CoVAE, MMVAEPlusPlus), "
            f"got {type(model).__name__}"
        )
    return correlation_table(model, samples_to_measure_on(model, indices, "the correlation between assays"))


def has_shared_coordinates(model: Model) -> bool:
    """Whether :func:`cross_correlation` is defined for a model."""
    return isinstance(model, CoVAE | MMVAEPlusPlus)


def correlation_table(model: Model, positions: NDArray[np.intp]) -> pd.DataFrame:
    """:func:`cross_correlation` on the samples at ``positions``."""
    present = model._cohort(None).present[positions]
    tables = []
    for a, b in combinations(model.modalities, 2):
        both = present[:, model.modalities.index(a)] & present[:, model.modalities.index(b)]
        spectrum = _spectrum(model, positions, (a, b))
        enough = both.sum() >= LEAST_SAMPLES
        tables.append(
            pd.DataFrame(
                {
                    "modality_a": a,
                    "modality_b": b,
                    "dimension": np.arange(len(spectrum.correlation)),
                    "correlation": spectrum.correlation if enough else np.nan,
                    "null": spectrum.null if enough else np.nan,
                    "prior": spectrum.prior,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _spectrum(model: Model, positions: NDArray[np.intp], pair: tuple[str, str]) -> SharedSpectrum:
    if isinstance(model, CoVAE):
        return shared_spectrum(model, positions, pair)
    assert isinstance(model, MMVAEPlusPlus)
    coordinates, measured = [], []
    for name in pair:
        means = model.get_latent_representation(
            kind="shared", given=[name], indices=positions.tolist(), return_numpy=True
        )
        coordinates.append(torch.from_numpy(np.asarray(means, dtype=np.float64)))
        measured.append(torch.from_numpy(model._cohort(None).present[positions, model.modalities.index(name)]))
    found = fixed_direction_correlations(coordinates, measured)
    null = permutation_null(coordinates, measured, n_permutations=N_PERMUTATIONS, seed=0)
    return SharedSpectrum(found.numpy(), null.numpy(), np.ones(len(found)))
