"""Plots of cohorts and of what models say, in scanpy's manner: each returns the Axes it drew on."""

from omicvae.pl._aggregated_posterior import aggregated_posterior
from omicvae.pl._assay_value import assay_value
from omicvae.pl._benchmark import benchmark
from omicvae.pl._calibration import calibration
from omicvae.pl._cross_correlation import cross_correlation
from omicvae.pl._history import history
from omicvae.pl._loadings import loadings
from omicvae.pl._missingness import missingness
from omicvae.pl._observed_vs_imputed import observed_vs_imputed
from omicvae.pl._pit import pit
from omicvae.pl._risk_coverage import risk_coverage
from omicvae.pl._skill import skill
from omicvae.pl._uncertainty import uncertainty
from omicvae.pl._variance_explained import variance_explained

__all__ = [
    "aggregated_posterior",
    "assay_value",
    "benchmark",
    "calibration",
    "cross_correlation",
    "history",
    "loadings",
    "missingness",
    "observed_vs_imputed",
    "pit",
    "risk_coverage",
    "skill",
    "uncertainty",
    "variance_explained",
]
