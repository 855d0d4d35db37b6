"""Variational EM: the bound, invariances, and what it recovers of simulated factors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from omicvae.stats.probabilistic_cca import evidence, expected_log_likelihood, posterior, predict
from omicvae.stats.shared_private import shared_private
from omicvae.stats.variational_factors import Fit, Rows, fit_factors, measured_rows

N_SHARED, N_PRIVATE, WIDTHS = 3, 2, (50, 40, 30)


class Simulation:
    """Three modalities with shared and private factors, standardised; samples may lack modalities and single values."""

    def __init__(self, n: int, *, present: float = 1.0, gaps: Sequence[float] = (0, 0, 0), seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def randn(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.n, self.shared = n, randn(n, N_SHARED)
        self.private, self.x, self.rows = [], [], []
        for p, gap in zip(WIDTHS, gaps, strict=True):
            own = randn(n, N_PRIVATE)
            x = 0.5 * self.shared @ randn(N_SHARED, p) + 0.5 * own @ randn(N_PRIVATE, p) + randn(n, p)
            x = (x - x.mean(0)) / x.std(0, correction=0)
            x[torch.rand(n, p, generator=generator) < gap] = torch.nan
            here = torch.nonzero(torch.rand(n, generator=generator) < present).squeeze(1)
            self.private.append(own)
            self.x.append(x)
            self.rows.append(here)

    @property
    def blocks(self) -> list[Rows]:
        return [measured_rows(x[rows], rows) for x, rows in zip(self.x, self.rows, strict=True)]

    def predicted(self, fit: Fit, target: int) -> Tensor:
        """Prediction of a modality of every sample from all the others."""
        others = [m for m in range(3) if m != target]
        found = [evidence(fit.weights[m], self.blocks[m].x, self.blocks[m].gaps) for m in others]
        q = posterior(found, [self.rows[m] for m in others], self.n, fit.weights[0].mean.shape[1])
        return predict(fit.weights[target], q)[0]


@pytest.mark.parametrize("private", [None, (2, 0, 1)])
@pytest.mark.parametrize("present, gaps", [(1.0, (0, 0, 0)), (0.7, (0, 0.3, 0.1))])
def test_the_bound_never_falls(present, gaps, private):
    s = Simulation(60, present=present, gaps=gaps)
    s.x[0][:, 3] = 0.0  # a constant feature
    s.x[1][:, 4] = torch.nan if gaps[1] else 1.0  # one that was never measured
    fit = fit_factors(s.blocks, s.n, 6, private, max_iter=60, tolerance=0)
    assert len(fit.elbo) == 60 and torch.isfinite(fit.elbo).all()
    assert fit.elbo.diff().min() > -1e-9 * fit.elbo.abs().max()


def test_the_bound_is_below_the_likelihood_of_the_expected_weights():
    """It pays for the uncertainty of the weights, which a likelihood at their mean does not."""
    s = Simulation(80)
    fit = fit_factors(s.blocks, s.n, 6)
    found = [evidence(w.plug_in(), b.x) for w, b in zip(fit.weights, s.blocks, strict=True)]
    q = posterior(found, s.rows, s.n, fit.weights[0].mean.shape[1])
    assert fit.elbo[-1] < q.log_evidence.sum()


def test_local_terms_add_up_to_their_bound_with_uncertain_weights():
    s = Simulation(60, present=0.7, gaps=(0, 0.3, 0.1))
    fit = fit_factors(s.blocks, s.n, 6, max_iter=20)
    found = [evidence(w, b.x, b.gaps) for w, b in zip(fit.weights, s.blocks, strict=True)]
    q = posterior(found, s.rows, s.n, fit.weights[0].mean.shape[1])
    total = -q.divergence()
    for one, rows in zip(found, s.rows, strict=True):
        total = total.index_add(0, rows, expected_log_likelihood(one, rows, q))
    torch.testing.assert_close(total, q.log_evidence)


def test_predictions_do_not_depend_on_the_order_of_samples_modalities_or_features():
    s = Simulation(60, present=0.8, gaps=(0, 0.2, 0))
    plain = fit_factors(s.blocks, s.n, 6, max_iter=15, tolerance=0)
    rng = np.random.default_rng(0)
    samples, features = torch.from_numpy(rng.permutation(s.n)), torch.from_numpy(rng.permutation(WIDTHS[0]))
    moved = Simulation(60, present=0.8, gaps=(0, 0.2, 0))
    number = samples.argsort()  # where each sample went
    moved.x = [s.x[m][samples] for m in (2, 0, 1)]
    moved.x[1] = moved.x[1][:, features]
    moved.rows = [number[s.rows[m]].sort().values for m in (2, 0, 1)]
    other = fit_factors(moved.blocks, s.n, 6, max_iter=15, tolerance=0)
    torch.testing.assert_close(other.elbo, plain.elbo, rtol=1e-8, atol=0)
    expected = s.predicted(plain, 0)[samples][:, features]
    torch.testing.assert_close(moved.predicted(other, 1), expected, rtol=0, atol=1e-6)


def test_samples_without_any_modality_change_nothing():
    s = Simulation(50)
    plain, more = (fit_factors(s.blocks, n, 5, max_iter=15, tolerance=0) for n in (s.n, s.n + 20))
    torch.testing.assert_close(more.weights[0].noise, plain.weights[0].noise)
    torch.testing.assert_close(more.elbo[1:], plain.elbo[1:])


def test_units_do_not_matter():
    """A modality in other units gives the same factors; its weights and noise are in these units."""
    s = Simulation(60)
    plain = fit_factors(s.blocks, s.n, 5, max_iter=20, tolerance=0)
    scaled = Simulation(60)
    scaled.x[1] = 1000 * scaled.x[1] + 5
    other = fit_factors(scaled.blocks, s.n, 5, max_iter=20, tolerance=0)
    torch.testing.assert_close(other.weights[1].noise, 1e6 * plain.weights[1].noise, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled.predicted(other, 0), s.predicted(plain, 0), rtol=0, atol=1e-6)


def test_relevance_determination_leaves_as_many_factors_as_there_are():
    """Asked for 16, it finds the 3 shared and 3 x 2 private ones."""
    s = Simulation(250)
    fit = fit_factors(s.blocks, s.n, 16, max_iter=200, tolerance=0)
    assert fit.weights[0].mean.shape[1] == N_SHARED + 3 * N_PRIVATE


@pytest.mark.parametrize("present, gaps", [(1.0, (0, 0, 0)), (0.7, (0, 0.3, 0))])
def test_shared_and_private_directions_are_recovered(present, gaps):
    s = Simulation(400, present=present, gaps=gaps)
    fit = fit_factors(s.blocks, s.n, 16, max_iter=60)
    found = shared_private(fit.weights)
    assert (found.owner == -1).sum() == N_SHARED
    q = posterior(
        [evidence(w, b.x, b.gaps) for w, b in zip(fit.weights, s.blocks, strict=True)], s.rows, s.n, len(found.vectors)
    )
    z = q.mean @ found.vectors
    assert r2(s.shared, z[:, found.owner == -1]) > 0.85
    for m in range(3):
        own, rows = z[:, found.owner == m], s.rows[m]
        assert own.shape[1] == N_PRIVATE
        assert r2(s.private[m][rows], own[rows]) > 0.75
        assert r2(s.private[m], z[:, found.owner == -1]) < 0.1  # 16 factors on 400 samples: .04 by chance


def r2(y: Tensor, x: Tensor) -> float:
    """Mean share of the variance of ``y`` that a regression on ``x`` explains."""
    design = torch.cat([x, torch.ones(len(x), 1, dtype=x.dtype)], 1)
    left = y - design @ torch.linalg.lstsq(design, y).solution
    return float(1 - (left.var(0) / y.var(0)).mean())


def test_directions_are_orthonormal_and_one_is_always_shared():
    """Independent modalities share nothing; the readout of shared latents still has a dimension."""
    generator = torch.Generator().manual_seed(0)
    blocks = []
    for _ in range(2):
        z, w = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in ((200, 2), (2, 30)))
        x = z @ w + torch.randn(200, 30, generator=generator, dtype=torch.float64)
        blocks.append(measured_rows(x, torch.arange(200)))
    found = shared_private(fit_factors(blocks, 200, 8, max_iter=60).weights)
    torch.testing.assert_close(found.vectors.mT @ found.vectors, torch.eye(len(found.owner), dtype=torch.float64))
    assert [(found.owner == m).sum().item() for m in (-1, 0, 1)] in ([1, 2, 2], [1, 2, 1], [1, 1, 2])


def test_private_factors_are_used_by_no_other_modality():
    s = Simulation(80)
    fit = fit_factors(s.blocks, s.n, 3, (0, 2, 0), max_iter=20)
    only_second = torch.isinf(fit.weights[0].precision) & torch.isinf(fit.weights[2].precision)
    assert only_second.sum() == 2
    assert (fit.weights[0].mean[:, only_second] == 0).all() and (fit.weights[1].mean[:, only_second] != 0).any()


def test_intervals_of_the_exact_model_hold_on_its_own_simulation():
    """With 400 samples weights are known well: 90 % intervals of a hidden modality cover 87-93 % of 12,000 values."""
    s = Simulation(800, seed=1)
    train = [measured_rows(x[:400], torch.arange(400)) for x in s.x]
    fit = fit_factors(train, 400, 16, max_iter=60)
    every = torch.arange(400)
    q = posterior(
        [evidence(fit.weights[m], s.x[m][400:]) for m in (0, 1)], [every] * 2, 400, fit.weights[0].mean.shape[1]
    )
    mean, variance = predict(fit.weights[2], q)
    inside = (s.x[2][400:] - mean).abs() < 1.645 * variance.sqrt()
    assert 0.87 < inside.double().mean() < 0.93


def test_one_sample_and_more_factors_than_samples_are_allowed():
    s = Simulation(1)
    fit = fit_factors(s.blocks, 1, 4, max_iter=5)
    assert torch.isfinite(fit.elbo).all() and all(torch.isfinite(w.mean).all() for w in fit.weights)
