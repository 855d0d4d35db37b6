"""Multi-omics variational autoencoders for samples that lack whole assays."""

import logging
from importlib.metadata import version

import rich.pretty  # noqa: F401  (scvi-tools 1.4.2 uses rich.pretty without importing it)

from omicvae import data, datasets, model, nn, stats

__all__ = ["data", "datasets", "model", "nn", "stats"]
__version__ = version("omicvae")

logging.getLogger("omicvae").addHandler(logging.NullHandler())
