"""Reported latents read backwards: what the module's latents are expected to be, given one of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

KINDS = [("joint", None), ("shared", None), ("private", "meth")]


@pytest.mark.parametrize(("kind", "modality"), KINDS)
def test_a_latent_put_back_is_read_off_again(model: Any, kind: str, modality: str | None) -> None:
    readout = model.module.readout(kind, modality)
    lift = model.module.lift(readout)
    assert lift.shape == readout.matrix.shape
    np.testing.assert_allclose(readout.matrix.mT @ lift, np.eye(lift.shape[1]), atol=1e-4)


@pytest.mark.parametrize(("kind", "modality"), KINDS)
def test_unit_and_expectation_are_those_of_draws_from_the_prior(model: Any, kind: str, modality: str | None) -> None:
    """Standard deviation and regression coefficients of 20000 draws: errors near 1 / sqrt(2 n) = 0.005; six of them,
    and twice that for heavier tails."""
    readout = model.module.readout(kind, modality)
    batch = model._cohort(None).batch([0])
    with torch.no_grad():
        encoded = model.module.encode(batch)
        z = model.module.posterior(encoded, batch, torch.zeros_like(batch.present)).sample(20000)[:, 0]
    y = ((z - readout.offset) @ readout.matrix).double()
    if y.shape[1] == 0:  # a model without private latents
        assert model.latent_names[f"private_{modality}"] == []
        return
    np.testing.assert_allclose(model.module.prior_sd(readout), y.std(0), atol=0.06)
    coefficients = torch.linalg.lstsq(y, (z - readout.offset).double()).solution.mT
    scale = 1 / y.std(0)
    np.testing.assert_allclose(model.module.lift(readout) / scale, coefficients / scale, atol=0.06)


def test_the_mean_is_what_the_encoder_would_see_of_the_measurement(model: Any) -> None:
    """Turned back to the data it is the mean of the likelihood at the sample's latents."""
    batch = model._cohort(None).batch(range(20))
    with torch.no_grad():
        z = model.module.posterior(model.module.encode(batch), batch, batch.present).mean
        for m in model.modalities:
            likelihood, design = model.module.likelihoods.of(m), model.module.design(batch, m)
            route = torch.zeros(20, dtype=torch.int64)
            eta = model.module.decode(m, model.module.decoder_inputs(z)[m], design, route)
            size = likelihood.reference_size.expand(20) if likelihood.uses_size else None
            expected = likelihood(eta, noise=route, size=size).mean
            found = likelihood.decode_transform(model.module.standardised_mean(m, z, design))
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
