"""How many canonical dimensions of a CoVAE are really shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omicvae.stats.canonical import count_correlated, fixed_direction_correlations, permuted_correlations

if TYPE_CHECKING:
    from omicvae.model._covae import CoVAE

N_PERMUTATIONS = 200


def count_shared_dimensions(model: CoVAE, indices: NDArray[np.intp]) -> None:
    """Set the number of shared dimensions, by :func:`omicvae.stats.canonical.count_correlated`.

    Canonical dimensions are in the order of their correlation in the prior, which also weighs them. Each assay's
    coordinates are its posterior means given that assay alone, so that one assay's measurement never enters another's
    coordinate. At least one is shared, and at least one less than the narrowest latent block, so that a private part is
    left.

    Parameters
    ----------
    model
        Trained model.
    indices
        Samples to count on, best those that were not trained on.
    """
    frame = model.module.frame()
    coordinates, measured = [], []
    for block, name in enumerate(model.modalities):
        means, here = _means_given(model, name, indices)
        coordinates.append(means.double() @ frame.coordinates(block))
        measured.append(here)
    found = count_correlated(
        fixed_direction_correlations(coordinates, measured),
        permuted_correlations(coordinates, measured, n_permutations=N_PERMUTATIONS, seed=0),
        frame.correlations,
    )
    model.module.n_shared.fill_(int(np.clip(found, 1, max(1, min(model.module.sizes) - 1))))


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
