"""Imputation methods to be beaten: each gives a mean, a standard deviation and an interval for every value."""

from omicvae.stats.baselines._base import Baseline, Prediction
from omicvae.stats.baselines._means import GroupMeanBaseline, MeanBaseline
from omicvae.stats.baselines._mofa import MOFABaseline
from omicvae.stats.baselines._neighbours import KNNBaseline
from omicvae.stats.baselines._projections import PCARidgeBaseline, PLSBaseline
from omicvae.stats.baselines._ridge import RidgeBaseline

__all__ = [
    "Baseline",
    "GroupMeanBaseline",
    "KNNBaseline",
    "MOFABaseline",
    "MeanBaseline",
    "PCARidgeBaseline",
    "PLSBaseline",
    "Prediction",
    "RidgeBaseline",
]
