"""How good predictions and their uncertainties are: scores of arrays, a feature a column.

A value whose truth is NaN was not measured and counts nowhere. A NaN predicted for a measured value makes its score NaN.
"""

from omicvae.stats.scores._distributions import crps_normal, crps_sample, pit_normal, randomised_pit
from omicvae.stats.scores._intervals import coverage, rank_correlation, risk_coverage
from omicvae.stats.scores._points import LEAST_VALUES, auroc, mae, r2, skill, spearman

__all__ = [
    "LEAST_VALUES",
    "auroc",
    "coverage",
    "crps_normal",
    "crps_sample",
    "mae",
    "pit_normal",
    "r2",
    "randomised_pit",
    "rank_correlation",
    "risk_coverage",
    "skill",
    "spearman",
]
