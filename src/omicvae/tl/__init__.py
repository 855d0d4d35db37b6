"""What a trained model says about a MuData, written where scanpy and muon look for it."""

from omicvae.tl._aggregated_posterior import aggregated_posterior
from omicvae.tl._assay_value import assay_value
from omicvae.tl._association import association
from omicvae.tl._benchmark import benchmark
from omicvae.tl._calibration_curve import calibration_curve
from omicvae.tl._check import CohortCheck, check
from omicvae.tl._complete import complete
from omicvae.tl._cross_correlation import cross_correlation
from omicvae.tl._embed import embed
from omicvae.tl._impute import impute
from omicvae.tl._information import information
from omicvae.tl._loadings import loadings
from omicvae.tl._shared_features import shared_features
from omicvae.tl._variance_explained import variance_explained

__all__ = [
    "CohortCheck",
    "aggregated_posterior",
    "assay_value",
    "association",
    "benchmark",
    "calibration_curve",
    "check",
    "complete",
    "cross_correlation",
    "embed",
    "impute",
    "information",
    "shared_features",
    "loadings",
    "variance_explained",
]
