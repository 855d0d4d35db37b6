from __future__ import annotations

from collections.abc import Iterator

import pytest
import scvi
import torch
from matplotlib import pyplot as plt

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE

MODALITIES = ("rna", "mirna", "rppa")


@pytest.fixture(scope="session")
def model() -> CoVAE:
    """CoVAE after four epochs."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    mdata = correlated_gaussian(60, modalities=MODALITIES, n_latent=3, n_vars=8, missing={"rppa": 0.3}, seed=2).mdata
    CoVAE.setup_mudata(mdata)
    found = CoVAE(mdata)
    found.train(max_epochs=4, train_size=0.7, accelerator="cpu", enable_progress_bar=False)
    return found


@pytest.fixture(autouse=True)
def no_figure_is_left() -> Iterator[None]:
    """Start without figures and close what a test made."""
    plt.close("all")
    yield
    plt.close("all")
