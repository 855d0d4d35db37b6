"""Simulators whose truth is known, and readers of public cohorts.

Every simulator returns a :class:`Simulation`: the MuData a user would hold, and beside it the truth that generated
it, including the values of assays that the MuData lacks.
"""

from omicvae.datasets._breast_tcga import breast_tcga
from omicvae.datasets._cll import read_cll
from omicvae.datasets._cohort import CohortTruth, simulated_cohort
from omicvae.datasets._download import DatasetUnavailableError
from omicvae.datasets._gp_features import GPTruth, gp_features
from omicvae.datasets._latent_gaussian import Truth, correlated_gaussian
from omicvae.datasets._mlomics import read_mlomics
from omicvae.datasets._multiome import read_multiome
from omicvae.datasets._record import Simulation

__all__ = [
    "CohortTruth",
    "DatasetUnavailableError",
    "GPTruth",
    "Simulation",
    "Truth",
    "breast_tcga",
    "correlated_gaussian",
    "gp_features",
    "read_cll",
    "read_mlomics",
    "read_multiome",
    "simulated_cohort",
]
