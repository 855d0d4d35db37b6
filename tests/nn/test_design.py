"""Covariates as network inputs: categories that are not known, or not known with this assay."""

from __future__ import annotations

import torch

from omicvae.nn import Covariates, Design


def fitted() -> Design:
    """Three batches, of which the third has no training sample with this modality; one continuous covariate."""
    design = Design({"batch": 3}, 1)
    codes = torch.tensor([0, 0, 0, 1, -1])
    design.fit([Covariates({"batch": codes}, torch.tensor([[1.0], [3.0], [torch.nan], [1.0], [3.0]]))])
    return design


def test_categories_without_training_samples_are_the_average_of_the_others():
    design = fitted()
    torch.testing.assert_close(design.frequency("batch"), torch.tensor([0.75, 0.25, 0.0]))
    out = design(Covariates({"batch": torch.tensor([0, 1, 2, -1])}, torch.tensor([[2.0], [3.0], [1.0], [torch.nan]])))
    average = [0.75, 0.25, 0.0]
    expected = torch.tensor([[1, 0, 0, 0.0], [0, 1, 0, 1.0], [*average, -1.0], [*average, 0.0]])
    torch.testing.assert_close(out, expected)


def test_unknown_categories_are_drawn_from_training_frequencies():
    filled = fitted().fill({"batch": torch.tensor([0, 2, -1])}, 4000)["batch"]
    assert (filled[:, 0] == 0).all() and (filled < 2).all()
    # 4000 draws: standard error .007
    torch.testing.assert_close((filled[:, 1:] == 1).float().mean(0), torch.tensor([0.25, 0.25]), atol=0.03, rtol=0)


def test_without_covariates_there_is_no_design():
    assert Design({}, 0)(Covariates({}, torch.zeros(3, 0))) is None


def test_draws_keep_their_axis():
    design = fitted()
    codes = {"batch": torch.tensor([[0, 1], [1, 0], [0, 0]])}
    out = design(Covariates(codes, torch.tensor([[2.0], [3.0]])))
    assert out.shape == (3, 2, 4)
    torch.testing.assert_close(out[..., 3], torch.tensor([0.0, 1.0]).expand(3, 2))
