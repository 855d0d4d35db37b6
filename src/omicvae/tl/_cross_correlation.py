"""How much assays tell about one another, dimension by dimension."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._shared_dimensions import N_PERMUTATIONS
from omicvae.model._sizes import whole_number
from omicvae.stats.canonical import bootstrap_interval, fixed_direction_correlations, permutation_null
from omicvae.tl._held_out import samples_to_measure_on

LEAST_SAMPLES = 3  # below, a correlation means nothing
N_BOOTSTRAP = 200
LEAST_BOOTSTRAP = 20  # below, the standard deviation of resamples is itself unknown
LEVEL = 0.9


def cross_correlation(
    model: Model,
    *,
    indices: Sequence[int] | Sequence[str] | Sequence[bool] | None = None,
    n_bootstrap: int = N_BOOTSTRAP,
    level: float = LEVEL,
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
    n_bootstrap
        Resamples behind the interval, at least 20.
    level
        Confidence of the interval.

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
    ``lower``, ``upper``
        Confidence interval of the correlation in the population that the samples come from, by resampling samples with
        the model as it is (:func:`omicvae.stats.canonical.bootstrap_interval`). Samples count as independent: several of
        one donor make it too narrow. Each holds for one dimension, not for all at once.
    ``prior``
        Correlation of the two latents in the model's prior: 1 for MMVAE++, where both are the same latent.

    Raises
    ------
    TypeError
        For a model without shared dimensions that can be read from one assay.
    ValueError
        If the model was loaded without data, or for an impossible ``n_bootstrap`` or ``level``.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "cross_correlation")
    if not has_shared_coordinates(model):
        raise TypeError(
            f"cross_correlation needs a model whose assays have shared dimensions of their own (CoVAE, MMVAEPlusPlus), "
            f"got {type(model).__name__}"
        )
    whole_number("n_bootstrap", n_bootstrap, least=LEAST_BOOTSTRAP)
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    positions = samples_to_measure_on(model, indices, "the correlation between assays")
    return correlation_table(model, positions, n_bootstrap=n_bootstrap, level=level)


def has_shared_coordinates(model: Model) -> bool:
    """Whether :func:`cross_correlation` is defined for a model."""
    return isinstance(model, CoVAE | MMVAEPlusPlus)


def correlation_table(
    model: Model, positions: NDArray[np.intp], *, n_bootstrap: int = N_BOOTSTRAP, level: float = LEVEL
) -> pd.DataFrame:
    """:func:`cross_correlation` on the samples at ``positions``."""
    found = _coordinates(model, positions)
    tables = []
    for a, b in combinations(range(len(model.modalities)), 2):
        values, measured = [found.values[a], found.values[b]], [found.measured[a], found.measured[b]]
        both = measured[0] & measured[1]
        columns = {
            "correlation": fixed_direction_correlations(values, measured),
            "null": permutation_null(values, measured, n_permutations=N_PERMUTATIONS, seed=0),
        }
        limits = bootstrap_interval(*(v[both] for v in values), n_bootstrap=n_bootstrap, level=level)
        columns |= dict(zip(("lower", "upper"), limits, strict=True))
        enough = both.sum() >= LEAST_SAMPLES
        shown = {name: column.numpy() if enough else np.nan for name, column in columns.items()}
        prior = (found.maps[a] * (found.covariance @ found.maps[b])).sum(0).numpy()
        tables.append(
            pd.DataFrame(
                {
                    "modality_a": model.modalities[a],
                    "modality_b": model.modalities[b],
                    "dimension": np.arange(len(prior)),
                    **{name: shown[name] for name in ("correlation", "null", "lower", "upper")},
                    "prior": prior,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


class Coordinates(NamedTuple):
    """Shared coordinates of ``n`` samples, computed from each of ``M`` assays alone."""

    values: list[Tensor]
    """M times (n, r)."""
    measured: list[Tensor]
    """M times (n,) bool; the values of other samples mean nothing."""
    maps: list[Tensor]
    """M times (D, r): how coordinates are read off latents ..."""
    covariance: Tensor
    """... whose covariance in the prior is this, (D, D)."""


def _coordinates(model: Model, positions: NDArray[np.intp]) -> Coordinates:
    present = torch.from_numpy(model._cohort(None).present[positions])
    measured = list(present.unbind(1))
    if isinstance(model, CoVAE):
        frame = model.module.frame()
        # joint latents are reported whitened: what is left is to turn each block to its canonical directions
        values = [
            _means(model, "joint", name, positions)[:, block] @ directions
            for name, block, directions in zip(model.modalities, frame.slices, frame.directions, strict=True)
        ]
        maps = [frame.coordinates(block) for block in range(len(model.modalities))]
        return Coordinates(values, measured, maps, model.module.prior_covariance.cpu().double())
    values = [_means(model, "shared", name, positions) for name in model.modalities]
    same = torch.eye(values[0].shape[1], dtype=torch.float64)
    return Coordinates(values, measured, [same] * len(values), same)


def _means(model: Model, kind: str, modality: str, positions: NDArray[np.intp]) -> Tensor:
    """``(n, d)`` float64 latents given one assay."""
    found = model.get_latent_representation(kind=kind, given=[modality], indices=positions.tolist(), return_numpy=True)
    return torch.from_numpy(np.asarray(found, dtype=np.float64))
