"""Numbers told from predictions: found where they depend on them, left alone where they do not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from torch import Tensor

from omicvae.nn import CodeRegression, DrawnSizes, Response, SizePrior
from omicvae.nn._code_regression import COMPONENTS, RIDGE
from omicvae.nn.likelihoods import Observed, make_likelihood

N, P = 500, 30


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def curved(seed: int) -> tuple[Tensor, np.ndarray]:
    """Predictions that lie on a curve, and where on it."""
    t = np.random.default_rng(seed).uniform(-2, 2, N)
    axes = np.random.default_rng(9).normal(size=(3, P))
    return tensor(np.stack([t, t**2 - 1, np.sin(2 * t)], 1) @ axes), t


def test_a_curved_function_is_found_and_its_error_known():
    prediction, t = curved(0)
    noise = 0.3 * np.random.default_rng(1).normal(size=N)
    fitted = CodeRegression(P).fit(prediction, tensor(5 + np.cos(2 * t) + noise))
    new, at = curved(2)
    wanted = np.cos(2 * at)
    error = fitted(new).numpy() - (wanted - wanted.mean())
    assert error.std() < 0.12
    assert fitted.residual.item() == pytest.approx(0.3, rel=0.12)  # 3 % from 500 errors, and what the fit misses


def test_noise_is_not_fitted():
    prediction, _ = curved(0)
    fitted = CodeRegression(P).fit(prediction, torch.randn(N))
    assert fitted(prediction).std() < 0.15
    assert fitted.residual.item() == pytest.approx(1, rel=0.1)


def test_it_is_kernel_ridge_regression_up_to_its_slope():
    prediction, t = curved(0)
    target = np.cos(2 * t) + 0.3 * np.random.default_rng(1).normal(size=N)
    fitted = CodeRegression(P).fit(prediction, tensor(target))
    centred = prediction.numpy() - prediction.numpy().mean(0)
    axes = np.linalg.svd(centred, full_matrices=False)[2][:COMPONENTS]
    codes = centred @ axes.T
    codes /= np.sqrt((codes**2).sum(1).mean())
    theirs = KernelRidge(kernel="rbf", gamma=0.5, alpha=RIDGE).fit(codes, target - target.mean()).predict(codes)
    ours = fitted(prediction).numpy()
    assert np.corrcoef(ours, theirs)[0, 1] == pytest.approx(1, abs=1e-4)
    assert 0.9 < ours.std() / theirs.std() < 1.5


def test_predictions_that_do_not_differ_tell_nothing():
    fitted = CodeRegression(P).fit(torch.ones(N, P), torch.randn(N))
    assert torch.equal(fitted(torch.randn(4, 7, P)), torch.zeros(4, 7))


def test_numbers_beside_predictions_are_read():
    rng = np.random.default_rng(0)
    beside, noise = tensor(rng.normal(size=(N, 1))), 0.5 * rng.normal(size=N)
    target = beside[:, 0] + tensor(noise)
    alone, both = CodeRegression(P), CodeRegression(P)
    alone.fit(tensor(rng.normal(size=(N, P))), target)
    prediction = tensor(rng.normal(size=(N, P)))
    both.fit(prediction, target, beside)
    assert alone.residual.item() == pytest.approx(target.std().item(), rel=0.05)
    assert both.residual.item() < 0.8 * target.std().item()  # at best .5 / 1.12
    new = tensor(rng.normal(size=(3, 200, P))), tensor(rng.normal(size=(200, 1)))
    found = both(*new)
    assert found.shape == (3, 200)
    assert np.corrcoef(found[1], new[1][:, 0])[0, 1] > 0.8
    far = both(new[0][0], torch.full((200, 1), 1e9))
    assert torch.equal(far, both(new[0][0], torch.full((200, 1), 50.0)))  # an absurd size counts as a large one


def test_numbers_beside_predictions_that_do_not_differ_are_enough():
    beside = torch.randn(N, 1)
    fitted = CodeRegression(P).fit(torch.ones(N, P), beside[:, 0] + 0.3 * torch.randn(N), beside)
    found = fitted(torch.ones(4, N, P), beside)
    assert np.corrcoef(found[2], beside[:, 0])[0, 1] > 0.9


# ---------------------------------------------------------------------- library sizes


def sized(seed: int) -> tuple[Tensor, Observed, np.ndarray]:
    """Counts of cells of two types, of which one is four times as large."""
    rng = np.random.default_rng(seed)
    large = rng.random(N) < 0.5
    profile = np.random.default_rng(3).normal(size=(2, P))
    rate = np.exp(2 + 0.5 * profile[large.astype(int)])
    size = np.where(large, 4000, 1000) * rng.lognormal(0, 0.2, N)
    x = rng.poisson(size[:, None] / 2000 * rate)
    return tensor(np.log1p(rate) + 0.01 * rng.normal(size=rate.shape)), Observed(tensor(x), tensor(size), None), large


@pytest.mark.parametrize("constant_scale", [False, True])
def test_sizes_are_those_of_the_cells_type(constant_scale):
    raw, observed, _ = sized(0)
    likelihood, prior = make_likelihood("nb", P), SizePrior(1)
    likelihood.fit([observed])
    codes = torch.zeros(N, dtype=torch.long)
    prior.fit([(observed.size, codes)])
    prediction = (raw - likelihood.input_mean) / likelihood.input_scale
    response = Response(likelihood, constant_scale=constant_scale)
    response.fit(prediction, observed, prior.score(observed.size, codes))
    raw, observed, large = sized(1)
    prediction = ((raw - likelihood.input_mean) / likelihood.input_scale)[None]
    drawn = prior.sample(codes.expand(200, -1))
    found = response.conditioned(drawn, prediction)
    if constant_scale:
        assert torch.equal(found, drawn.size)
        return
    logs = found.log()
    for part, middle in ((large, 4000), (~large, 1000)):
        assert logs[:, part].mean().exp().item() == pytest.approx(middle, rel=0.06)
        assert logs[:, part].std().item() == pytest.approx(0.2, rel=0.25)  # of .72 without the prediction


def test_known_and_normalized_sizes_stay():
    raw, observed, _ = sized(0)
    likelihood = make_likelihood("nb", P)
    likelihood.fit([observed])
    prediction = (raw - likelihood.input_mean) / likelihood.input_scale
    response = Response(likelihood).fit(prediction, observed, torch.randn(N))
    nothing = torch.zeros(3, N)
    known = DrawnSizes(observed.size.expand(3, -1), nothing, nothing)
    assert torch.equal(response.conditioned(known, prediction[None]), known.size)


def test_scores_of_sizes_are_standard_normal_within_batches():
    codes = torch.arange(1000) % 2
    size = (torch.randn(1000) * 0.5 + 3 + 2 * codes).exp()
    prior = SizePrior(2)
    prior.fit([(size, codes)])
    score = prior.score(size, codes)
    for code in (0, 1):
        assert score[codes == code].mean().abs() < 1e-3
        assert score[codes == code].std().item() == pytest.approx(1, abs=1e-3)
    drawn = prior.sample(codes)
    torch.testing.assert_close(prior.score(drawn.size, codes), drawn.score, atol=1e-4, rtol=0)
