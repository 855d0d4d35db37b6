"""What measuring an assay was worth, in samples that have it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from omicvae.model import CoVAE
from omicvae.model._held_out import Part, for_trust, score
from omicvae.stats.conformal import LEAST_SCORES

MOST_VALUES = 2**20  # values of the target whose errors are compared


class Kept(NamedTuple):
    """By how much held-out errors fell."""

    reduction: float
    """One minus the ratio of root mean squared errors; NaN where fewer than :data:`LEAST_SCORES` samples can be compared."""
    standard_error: float
    """Over samples."""
    n_samples: int
    """Training samples that were compared."""


def held_out_reduction(model: CoVAE, sources: tuple[int, ...], candidate: int, target: int) -> Kept:
    """Errors of a target given ``sources`` beside those given the ``candidate`` too, in the same samples.

    Predictions are by fits that have not seen the samples; errors are on the scale of the encoders.

    Parameters
    ----------
    model
        Trained, with data attached.
    sources, candidate, target
        Positions of modalities.
    """
    with_it = tuple(sorted({*sources, candidate}))
    fitted = model._fitted_positions()
    common = fitted[model._own_cohort().present[fitted][:, [*with_it, target]].all(1)]
    found: dict[tuple[int, ...], Part] = {}
    for given in (with_it, sources, with_it):  # each leaves those that it can predict; the last sees what both can
        part = model._held_out_part(given, target, common) if given else None
        if part is None or len(part.positions) < LEAST_SCORES:
            return Kept(np.nan, np.nan, 0 if part is None else len(part.positions))
        found[given], common = part, part.positions
    then, now = (_squared_errors(model, found[given]) for given in (with_it, sources))
    ratio = then.mean() / now.mean()
    error = (then - ratio * now).std(ddof=1) / (now.mean() * len(now) ** 0.5)
    return Kept(float(1 - ratio**0.5), float(error / (2 * ratio**0.5)), len(now))


def _squared_errors(model: CoVAE, part: Part) -> NDArray[np.float64]:
    """``(n,)`` means over features, in the order of positions."""
    limit = max(LEAST_SCORES, MOST_VALUES // model.schema.modalities[part.target].n_vars)
    part = part.thinned(limit)
    scored = score(model.module, model._own_cohort(), part, for_trust(part))
    squared = np.square(scored.standardised - scored.standardised_mean, dtype=np.float64) - scored.draw_variance
    errors = np.nanmean(squared, 1)
    return np.asarray(errors[np.argsort(scored.part.positions)], dtype=np.float64)
