"""Multi-omics variational autoencoders for samples that lack whole assays."""

import logging
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omicvae import data, datasets, metrics, model, nn, pl, report, stats, tl

__all__ = ["data", "datasets", "metrics", "model", "nn", "pl", "report", "stats", "tl"]
__version__ = version("omicvae")

logging.getLogger("omicvae").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    """Import a subpackage when it is first used: torch and scvi-tools take seconds, ``omicvae --help`` should not."""
    if name in __all__:
        return import_module(f"omicvae.{name}")
    raise AttributeError(f"module 'omicvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
