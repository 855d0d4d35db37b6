"""Intervals that hold what they promise: quantiles of the errors made on samples a predictor has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]

LEAST_SCORES = 50
"""Scores from which on a feature has quantiles of its own."""
N_RANKS = 199
"""Order statistics that are kept of each feature."""
FEATURE, PATTERNS, POOLED = 0, 1, 2
"""What a feature's quantiles rest on: its own scores, those of all sets of sources, those of all features."""


class Conformal(NamedTuple):
    r"""Distribution of conformity scores, from which an interval of any level is read.

    Split conformal prediction (Vovk et al., 2005; Lei et al., *Distribution-free predictive inference for regression*,
    JASA 113, 2018, algorithm 2): if the score of a new sample is exchangeable with the :math:`n` known ones, it is at
    most the :math:`\lceil (n + 1) \cdot \text{level} \rceil`-th smallest of them with probability at least ``level``.
    """

    table: Float32
    """(G, p) order statistics at ``ranks``."""
    ranks: Array
    """(G,) rank / (n + 1) of each row, in (0, 1)."""
    basis: NDArray[np.int8]
    """(p,) what each feature's column rests on: :data:`FEATURE`, :data:`PATTERNS` or :data:`POOLED`."""

    def quantile(self, level: float) -> Array:
        """``(p,)`` bound that a new score keeps with probability ``level``.

        Raises
        ------
        ValueError
            If ``level`` is not in (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        at = int(np.searchsorted(self.ranks, level - 1e-9))
        if at == len(self.ranks):  # more than the scores can tell: the largest, stretched as far as ranks fall short
            return self.table[-1].astype(np.float64) * (level / float(self.ranks[-1]))
        return self.table[at].astype(np.float64)

    def level(self, scores: NDArray[np.floating]) -> Float32:
        """``(n, p)`` levels of the smallest intervals that hold values with these scores; NaN stays.

        Known scores divide [0, 1] into gaps that a new one is equally likely to fall into: the level is drawn uniformly
        within the gap (the same at every call), so that levels of exchangeable scores are uniform.
        """
        out = np.empty(scores.shape, dtype=np.float32)
        edges = np.concatenate([[0.0], self.ranks, [1.0]])
        within = np.random.default_rng(0).random(scores.shape, dtype=np.float32)
        for j in range(scores.shape[1]):
            column = np.append(self.table[:, j], np.float32(np.inf))
            at = np.searchsorted(column, scores[:, j]).clip(max=len(self.ranks))
            end = np.searchsorted(column, column[at], side="right")  # past ties, which share one gap
            out[:, j] = edges[at] + within[:, j] * (edges[end] - edges[at])
        out[np.isnan(scores)] = np.nan
        return out


def fit_conformal(scores: NDArray[np.floating], others: Sequence[NDArray[np.floating]] = ()) -> Conformal | None:
    """Order statistics of conformity scores: of each feature where it has enough, else pooled.

    Parameters
    ----------
    scores
        ``(n, p)`` scores of one set of sources, on samples the predictor was not fitted on; NaN where not measured.
    others
        ``(n_k, p)`` scores of other sets of sources for the same features.

    Returns
    -------
    ``None`` if there is no score at all. A feature with fewer than :data:`LEAST_SCORES` scores uses those of all sets
    of sources, and if these are too few, all features' scores together.
    """
    together = np.concatenate([scores, *others]) if len(others) else scores
    pooled = together[~np.isnan(together)]
    if pooled.size == 0:
        return None
    own, any_pattern = (~np.isnan(scores)).sum(0), (~np.isnan(together)).sum(0)
    basis = np.where(own >= LEAST_SCORES, FEATURE, np.where(any_pattern >= LEAST_SCORES, PATTERNS, POOLED))
    # Values of one sample are not independent: what counts is the number of samples.
    n_samples = max(int((~np.isnan(together)).any(1).sum()), 1)
    n = min(n_samples, N_RANKS)
    grid = np.arange(1, n + 1) / (n + 1)
    table = np.empty((len(grid), scores.shape[1]), dtype=np.float32)
    for kind, values, count in ((FEATURE, scores, own), (PATTERNS, together, any_pattern)):
        chosen = basis == kind
        if chosen.any():
            table[:, chosen] = _order_statistics(values[:, chosen], count[chosen], grid)
    chosen = basis == POOLED
    if chosen.any():
        # Not rounded up to a sample's rank, as single features are: there are many scores a sample.
        share = np.minimum(grid * (n_samples + 1) / n_samples, 1.0)
        table[:, chosen] = np.quantile(pooled, share * (1 - 1e-12), method="inverted_cdf")[:, None]
    return Conformal(table, grid, basis.astype(np.int8))


def _order_statistics(values: NDArray[np.floating], count: NDArray[np.integer], grid: Array) -> Float32:
    """``(G, p)`` smallest score whose rank among ``count`` + 1 is at least each grid point.

    Beyond the last rank it is the largest score, stretched as in :meth:`Conformal.quantile`.
    """
    ordered = np.sort(values, axis=0)  # NaN last
    wanted = grid[:, None] * (count + 1)
    rank = np.clip(np.ceil(wanted - 1e-9).astype(np.intp), 1, count)
    found = np.take_along_axis(ordered, rank - 1, axis=0) * np.maximum(wanted / count, 1)
    return np.asarray(found, dtype=np.float32)


def residual_scores(truth: NDArray[np.floating], mean: NDArray[np.floating], sd: NDArray[np.floating]) -> Float32:
    """``(n, p)`` absolute residuals in predictive standard deviations, for continuous values."""
    return np.asarray(np.abs(truth - mean) / np.maximum(sd, 1e-12), dtype=np.float32)


def central_scores(pit: NDArray[np.floating]) -> Float32:
    r"""``(n, p)`` level of the smallest central predictive interval that holds the value: :math:`|2u - 1|`.

    For randomised probability integral transforms :math:`u` of counts (Chernozhukov et al., *Distributional conformal
    prediction*, PNAS 118, 2021).
    """
    return np.asarray(np.abs(2 * pit - 1), dtype=np.float32)
