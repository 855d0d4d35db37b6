"""How many canonical dimensions of a CoVAE are really shared."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omicvae.stats.canonical import fixed_direction_correlations, permutation_null

if TYPE_CHECKING:
    from omicvae.model._covae import CoVAE

N_PERMUTATIONS = 200


class SharedSpectrum(NamedTuple):
    """Correlation of each canonical dimension on samples it was not found on."""

    correlation: NDArray[np.float64]
    """(r,) mean over pairs of modalities."""
    null: NDArray[np.float64]
    """(r,) 95 % point when samples are permuted."""
    prior: NDArray[np.float64]
    """(r,) mean over the same pairs in the model's prior."""


def shared_spectrum(
    model: CoVAE, indices: NDArray[np.intp], modalities: tuple[str, ...] | None = None
) -> SharedSpectrum:
    """Correlation between assays along the canonical dimensions of the prior.

    Each assay's coordinates are its posterior means given that assay alone, so that one assay's measurement never enters
    another's coordinate.

    Parameters
    ----------
    model
        Trained model.
    indices
        Samples to measure on, best those that were not trained on.
    modalities
        Only these; all by default.
    """
    frame = model.module.frame()
    chosen = modalities or model.modalities
    coordinates, measured = [], []
    for name in chosen:
        block = model.modalities.index(name)
        means, here = _means_given(model, name, indices)
        coordinates.append(means.double() @ frame.coordinates(block))
        measured.append(here)
    found = fixed_direction_correlations(coordinates, measured)
    null = permutation_null(coordinates, measured, n_permutations=N_PERMUTATIONS, seed=0)
    maps = [frame.coordinates(model.modalities.index(name)) for name in chosen]
    covariance = model.module.prior_covariance.cpu().double()
    prior = torch.stack([(a * (covariance @ b)).sum(0) for a, b in combinations(maps, 2)]).mean(0)
    return SharedSpectrum(found.numpy(), null.numpy(), prior.numpy())


def count_shared_dimensions(model: CoVAE, indices: NDArray[np.intp]) -> None:
    """Set the number of shared dimensions: leading ones whose correlation exceeds what permuted samples give.

    At least one, and at least one less than the narrowest latent block, so that a private part is left.
    """
    spectrum = shared_spectrum(model, indices)
    above = spectrum.correlation > np.maximum(spectrum.null, 0)
    leading = int(np.argmin(above)) if not above.all() else len(above)
    model.module.n_shared.fill_(int(np.clip(leading, 1, max(1, min(model.module.sizes) - 1))))


@torch.inference_mode()
def _means_given(model: CoVAE, name: str, indices: NDArray[np.intp]) -> tuple[Tensor, Tensor]:
    """``(n, D)`` posterior means given one assay, and ``(n,)`` whether it was measured."""
    cohort, mask = model._cohort(None), model._given([name])
    parts, here = [], []
    for batch in model._batches(cohort, np.asarray(indices), None):
        used = batch.present & mask
        posterior = model.module.posterior(model.module.encode(batch), batch, used)
        parts.append((posterior.mean - model.module.prior_mean).cpu())
        here.append(used.any(1).cpu())
    return torch.cat(parts), torch.cat(here)
