"""Multi-omics variational autoencoders for samples that lack whole assays."""

import logging
from importlib.metadata import version

import rich.pretty

from omicvae import data, datasets, metrics, model, nn, pl, report, stats, tl

__all__ = ["data", "datasets", "metrics", "model", "nn", "pl", "report", "stats", "tl"]
__version__ = version("omicvae")

logging.getLogger("omicvae").addHandler(logging.NullHandler())
