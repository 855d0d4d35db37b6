"""What a trained model says about a MuData, written where scanpy and muon look for it."""

from omicvae.tl._assay_value import assay_value
from omicvae.tl._association import association
from omicvae.tl._benchmark import benchmark
from omicvae.tl._calibration_curve import calibration_curve
from omicvae.tl._complete import complete
from omicvae.tl._cross_correlation import cross_correlation
from omicvae.tl._embed import embed
from omicvae.tl._impute import impute

__all__ = [
    "assay_value",
    "association",
    "benchmark",
    "calibration_curve",
    "complete",
    "cross_correlation",
    "embed",
    "impute",
]
