"""Plots of cohorts and of what models say, in scanpy's manner: each returns the Axes it drew on."""

from omicvae.pl._calibration import calibration
from omicvae.pl._cross_correlation import cross_correlation
from omicvae.pl._history import history
from omicvae.pl._missingness import missingness

__all__ = ["calibration", "cross_correlation", "history", "missingness"]
