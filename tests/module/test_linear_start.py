"""The linear model that CoVAE's networks begin as."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import omicvae
from omicvae.model import CoVAE
from omicvae.module import CoVAEModule

LIKELIHOODS = {"a": "normal", "b": "nb"}
N, P, D = 300, 12, 3


def started(batch_size: int) -> tuple[CoVAE, CoVAEModule]:
    """Before the first step, from minibatches of a size."""
    torch.manual_seed(0)
    mdata = omicvae.datasets.correlated_gaussian(
        N, modalities=("a", "b"), n_latent=D, n_vars=P, likelihoods=LIKELIHOODS, missing=0.2, seed=4
    ).mdata
    CoVAE.setup_mudata(mdata, likelihoods=LIKELIHOODS)
    model = CoVAE(mdata, n_latent=D)
    cohort = model.adata_manager.cohort
    model.module.begin_training(
        lambda: (cohort.batch(np.arange(i, min(i + batch_size, N))) for i in range(0, N, batch_size))
    )
    return model, model.module.eval()


@pytest.mark.parametrize("modality", ["a", "b"])
def test_decoders_are_the_regression_on_posterior_means(modality: str) -> None:
    """In the linear model: least squares, with a penalty of .01 a sample, of link-scale values on the factors."""
    model, module = started(64)
    batch = model.adata_manager.cohort.batch(slice(None))
    with torch.no_grad():
        target = module.likelihoods.of(modality).linear_target(module.observed(batch, modality)).double()
        perceptron = module.encoders.of(modality).out  # starts near zero, not at it
        perceptron.weight.zero_()
        evidence = module.encode(batch)[modality]
        means = (evidence.location * evidence.scale / (1 + evidence.scale)).double()
        centred = means - means.mean(0)
        gram = centred.mT @ centred + 0.01 * len(means) * torch.eye(D, dtype=torch.float64)
        expected = torch.linalg.solve(gram, centred.mT @ (target - target.mean(0)))
        decoder = module.decoders.of(modality)
        found = decoder.linear.weight.view(decoder.n_heads, P, -1)[0].mT.double()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_minibatches_do_not_matter() -> None:
    one, few = started(N)[1].state_dict(), started(50)[1].state_dict()
    for name, value in one.items():
        torch.testing.assert_close(few[name], value, atol=1e-3, rtol=1e-3, msg=name)
