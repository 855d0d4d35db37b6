from __future__ import annotations

import logging
import os
from pathlib import Path

import matplotlib
import pytest
import scvi
import torch
from threadpoolctl import threadpool_limits

BESIDE_REPOSITORY = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure() -> None:
    matplotlib.use("Agg")
    # Several workers that each use every core wait for each other: torch, BLAS, and processes that tests start.
    torch.set_num_threads(1)
    threadpool_limits(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    scvi.settings.verbosity = logging.WARNING
    # Lightning announces every seed and every trainer's hardware.
    for name in ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)


@pytest.fixture(autouse=True)
def seed() -> None:
    """Start every test from the same random state, whatever ran before it on the same worker."""
    scvi.settings.seed = 0


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of public cohorts: ``OMICVAE_DATA``, else ``shared/data`` beside the repository; skips without either."""
    named = os.environ.get("OMICVAE_DATA")
    folder = Path(named) if named else BESIDE_REPOSITORY
    if not folder.is_dir():
        pytest.skip(f"OMICVAE_DATA is {named or 'not set'} and {folder} is not a folder")
    return folder
