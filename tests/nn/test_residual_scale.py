"""The scale of residuals: groups and features of known scale, none where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from omicvae.nn import ResidualScale, Response
from omicvae.nn.likelihoods import Observed, make_likelihood

N, P = 600, 40
EVERY = torch.ones(P, dtype=torch.bool)


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def groups(seed: int, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two groups of samples far apart, and who is in the second."""
    rng = np.random.default_rng(seed)
    second = rng.random(n) < 0.4
    direction = np.random.default_rng(7).normal(size=P)
    return np.where(second, 1, -1)[:, None] * direction + 0.3 * rng.normal(size=(n, P)), second


def test_a_group_that_is_harder_to_predict_has_a_larger_scale():
    prediction, second = groups(0)
    residual = np.random.default_rng(1).normal(size=(N, P)) * np.where(second, 2.0, 1.0)[:, None]
    fitted = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)
    new, other = groups(2)
    factor = fitted(tensor(new)).numpy().mean(1)
    # the scale of a sample is known to 1 / sqrt(2 * 40) = 11 %, that of a group to 1 %; a prior holds it back
    assert factor[other].mean() / factor[~other].mean() == pytest.approx(2, rel=0.12)
    assert factor[other].std() < 0.12 * factor[other].mean()


def test_a_feature_that_varies_more_where_it_is_high_has_the_slope_of_its_log_variance():
    rng = np.random.default_rng(0)
    prediction = rng.normal(size=(2000, P))
    truth = np.linspace(-0.8, 0.8, P)
    residual = rng.normal(size=prediction.shape) * np.exp(0.5 * truth * prediction)
    fitted = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)
    # standard error sqrt(2 / 2000) = .03; the prior takes a hundredth, cutting predictions at 3 sd a little
    np.testing.assert_allclose(fitted.slope, truth, atol=0.15)


def test_equal_residuals_have_equal_scales():
    prediction, _ = groups(0)
    residual = np.random.default_rng(1).normal(size=(N, P))
    factor = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)(tensor(prediction))
    # slopes have a standard error of sqrt(2 / 600) = .058, which is .029 of log sd for a prediction one sd away
    assert (factor.log().square().mean().sqrt() < 0.05).item()


def test_the_order_of_samples_and_features_does_not_matter():
    prediction, second = groups(0)
    residual = np.random.default_rng(1).normal(size=(N, P)) * np.where(second, 2.0, 1.0)[:, None]
    rows, columns = np.random.default_rng(2).permutation(N), np.random.default_rng(3).permutation(P)
    one = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)
    other = ResidualScale(P).fit(tensor(prediction[rows][:, columns]), tensor(residual[rows][:, columns]), EVERY)
    new = tensor(groups(4)[0])
    torch.testing.assert_close(other(new[:, columns]), one(new)[:, columns], rtol=1e-3, atol=1e-4)


def test_features_that_take_no_part_change_nothing():
    prediction, second = groups(0)
    residual = np.random.default_rng(1).normal(size=(N, P)) * np.where(second, 2.0, 1.0)[:, None]
    part = torch.arange(P) < 30
    spoiled = np.where(part.numpy(), residual, 1e6)
    one, other = (ResidualScale(P).fit(tensor(prediction), tensor(r), part) for r in (residual, spoiled))
    assert torch.equal(one(tensor(prediction)), other(tensor(prediction)))
    assert (one.slope[30:] == 0).all()


def test_values_that_were_not_measured_are_left_out():
    prediction, second = groups(0)
    residual = np.random.default_rng(1).normal(size=(N, P)) * np.where(second, 2.0, 1.0)[:, None]
    residual[np.random.default_rng(2).random((N, P)) < 0.3] = np.nan
    residual[:5] = np.nan
    residual[:, 3] = np.nan
    factor = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)(tensor(prediction))
    assert torch.isfinite(factor).all()
    factor = factor.numpy().mean(1)
    assert factor[second].mean() / factor[~second].mean() == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("n", [0, 1, 19, 20])
@pytest.mark.parametrize("constant", [False, True])
def test_few_samples_or_constant_predictions_give_finite_factors(n, constant):
    prediction = np.zeros((n, P)) if constant else groups(0, n)[0]
    residual = np.random.default_rng(0).normal(size=(n, P))
    factor = ResidualScale(P).fit(tensor(prediction), tensor(residual), EVERY)(tensor(groups(1, 50)[0]))
    assert torch.isfinite(factor).all()
    if n < 20:
        assert (factor == 1).all()


def response_data(seed: int, *, counts: bool) -> tuple[Tensor, Observed, np.ndarray]:
    """Predictions and values whose noise is twice as large in one group."""
    rng = np.random.default_rng(seed)
    prediction, second = groups(seed, 1000)
    raw = 6 + 0.4 * prediction
    noisy = raw + 0.3 * np.where(second, 2.0, 1.0)[:, None] * rng.normal(size=raw.shape)
    if not counts:
        return tensor(raw), Observed(tensor(noisy), None, None), second
    return tensor(raw), Observed(tensor(np.exp(noisy).round()), tensor(np.full(1000, 5000.0)), None), second


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("constant_scale", [False, True])
def test_intervals_hold_within_groups_unless_the_scale_is_constant(counts, constant_scale):
    raw, observed, _ = response_data(0, counts=counts)
    likelihood = make_likelihood("nb" if counts else "normal", P)
    likelihood.fit([observed])
    response = Response(likelihood, constant_scale=constant_scale)
    response.fit((raw - likelihood.input_mean) / likelihood.input_scale, observed)
    raw, observed, second = response_data(1, counts=counts)
    prediction = ((raw - likelihood.input_mean) / likelihood.input_scale)[None]
    size = None if observed.size is None else observed.size.expand(2, -1)
    draws = response(prediction, size, 2).sample((200,)).flatten(0, 1)
    inside = ((draws < observed.x).float().mean(0) - 0.5).abs() < 0.45
    found = [inside[torch.from_numpy(part)].float().mean().item() for part in (second, ~second)]
    if constant_scale:  # too narrow where noise is large: what the scale is for
        assert found[0] < 0.85
        assert found[1] > 0.95
    else:
        assert found == pytest.approx([0.9, 0.9], abs=0.02)


def test_a_fitted_response_is_restored_from_its_arrays():
    raw, observed, _ = response_data(0, counts=False)
    likelihood = make_likelihood("normal", P)
    likelihood.fit([observed])
    fitted = Response(likelihood).fit(raw, observed)
    restored = Response(likelihood).restore(fitted.state_dict())
    torch.testing.assert_close(restored(raw[None], None, 1).stddev, fitted(raw[None], None, 1).stddev)
