"""The first stage of screened MMVAE++ keeps the better of its candidates."""

from __future__ import annotations

import numpy as np
import pytest
import scvi
import torch

import omicvae
from omicvae.module import ScreenedModule
from omicvae.train import _shared_start
from omicvae.train._shared_start import CANDIDATES, train_shared


@pytest.fixture(scope="module")
def batches():
    """Training and validation samples, and a module for them."""
    mdata = omicvae.datasets.gp_features((5, 5), n_obs=200, n_latent=(1, 2, 1), seed=0).mdata
    omicvae.model.MMVAEPlusPlus.setup_mudata(mdata, likelihoods={"x1": "normal", "x2": "normal"})
    cohort = omicvae.model.MMVAEPlusPlus(mdata)._own_cohort()
    train, held_out = (
        [cohort.batch(np.arange(a, a + 40)) for a in range(start, end, 40)] for start, end in ((0, 160), (160, 200))
    )
    return mdata, train, held_out


def new_module(mdata, train) -> ScreenedModule:
    scvi.settings.seed = 0
    module = omicvae.model.MMVAEPlusPlus(mdata, n_shared=3).module
    module.begin_training(lambda: train)
    module.set_gates({m: torch.cat([torch.ones(10), torch.zeros(5)]) for m in module.modalities})
    return module


@pytest.mark.parametrize("max_epochs", [10, 30])
def test_the_kept_fit_is_at_least_as_good_as_the_first_candidate_alone(batches, monkeypatch, max_epochs):
    mdata, train, held_out = batches
    losses = {}
    for name, candidates in (("first", CANDIDATES[:1]), ("both", CANDIDATES)):
        module = new_module(mdata, train)
        monkeypatch.setattr(_shared_start, "CANDIDATES", candidates)
        train_shared(module, lambda: train, lambda: held_out, max_epochs)
        losses[name] = _shared_start._loss(module, lambda: held_out)
    assert losses["both"] <= losses["first"] + 1e-4


def test_shared_encoders_are_fixed_afterwards(batches):
    mdata, train, held_out = batches
    module = new_module(mdata, train)
    before = {name: p.detach().clone() for name, p in module.shared_encoders.named_parameters()}
    train_shared(module, lambda: train, lambda: held_out, 5)
    after = dict(module.shared_encoders.named_parameters())
    assert not any(p.requires_grad for p in after.values())
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert not module.first_stage


def test_without_validation_samples_the_first_candidate_is_kept(batches):
    mdata, train, _ = batches
    module = new_module(mdata, train)
    train_shared(module, lambda: train, None, 2)
    assert all(torch.isfinite(p).all() for p in module.parameters())


@pytest.mark.parametrize("max_epochs", range(1, 6))
def test_any_number_of_steps_can_be_scheduled(batches, max_epochs):
    """torch divides by the length of the rise less one step: 10 steps in all left none."""
    mdata, train, held_out = batches
    train_shared(new_module(mdata, train), lambda: train[:2], lambda: held_out, max_epochs)


@pytest.mark.parametrize(
    ("n_batches", "epochs"), [(1, 150), (3, 150), (4, 125), (5, 100), (15, 100), (30, 50), (1000, 10)]
)
def test_epochs_are_fewer_where_each_has_more_updates(n_batches, epochs):
    assert _shared_start._epochs(n_batches) == epochs
