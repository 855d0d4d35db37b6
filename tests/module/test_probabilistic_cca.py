"""The module of probabilistic CCA: exact for every subset of minibatches, in the units of the data."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module import ProbabilisticCCAModule
from omicvae.stats.factor_predictor import FactorModel
from omicvae.stats.probabilistic_cca import known_weights

K, WIDTHS, B = 4, {"rna": 6, "meth": 5, "prot": 3, "mirna": 4}, 8
SUBSETS = [s for size in range(1, 5) for s in combinations(range(4), size)]


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def module(make_schema) -> ProbabilisticCCAModule:
    """Known weights; values are standardised with means and scales that are not 0 and 1."""
    module = ProbabilisticCCAModule(make_schema(WIDTHS))
    weights = [
        known_weights(randn(p, K, seed=i), 0.3 + randn(p, seed=9 + i).square()) for i, p in enumerate(WIDTHS.values())
    ]
    effects = [0.1 * randn(1, p, seed=20 + i).numpy() for i, p in enumerate(WIDTHS.values())]
    module.set_model(FactorModel(tuple(weights), tuple(effects)))
    for i, (m, p) in enumerate(WIDTHS.items()):
        module.likelihoods.of(m).input_mean.copy_(randn(p, seed=40 + i))
        module.likelihoods.of(m).input_scale.copy_(1 + randn(p, seed=50 + i).square())
    return module.eval()


@pytest.fixture
def batch(make_batch) -> Batch:
    """The first sample has nothing, others lack assays; one value in five is NaN in two assays."""
    values = {m: randn(B, p, seed=60 + i).float() for i, (m, p) in enumerate(WIDTHS.items())}
    for i, m in enumerate(("meth", "prot")):
        values[m][torch.rand(values[m].shape, generator=torch.Generator().manual_seed(i)) < 0.2] = torch.nan
    present = torch.rand(B, 4, generator=torch.Generator().manual_seed(3)) < 0.7
    present[0] = False
    return make_batch(values, present)


def full_values(batch: Batch) -> Tensor:
    """``(B, all features)``; NaN where not measured."""
    out = []
    for m, p in WIDTHS.items():
        x = torch.full((B, p), torch.nan, dtype=torch.float64)
        x[batch.rows[m]] = batch.x[m].double()
        out.append(x)
    return torch.cat(out, 1)


def joint(module: ProbabilisticCCAModule) -> tuple[Tensor, Tensor, Tensor]:
    """Loadings, means and noise variances of all features in the units of the data."""
    parts = []
    for m in WIDTHS:
        weights, likelihood = module.weights(m), module.likelihoods.of(m)
        scale = likelihood.input_scale.double()
        mean = likelihood.input_mean.double() + scale * module.fixed(m, None)
        parts.append((scale[:, None] * weights.mean, mean, scale.square() * weights.noise))
    return tuple(torch.cat(part) for part in zip(*parts, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize("given", SUBSETS)
def test_the_posterior_of_every_subset_is_gaussian_conditioning(module, batch, given):
    mask = torch.zeros(4, dtype=torch.bool)
    mask[list(given)] = True
    q = module.factors(module.encode(batch), batch, batch.present & mask)
    W, mu, psi = joint(module)
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor(list(WIDTHS.values())))
    x = full_values(batch)
    for i in range(B):
        seen = ~x[i].isnan() & mask[owner]
        gain = torch.linalg.solve(W[seen] @ W[seen].mT + torch.diag(psi[seen]), W[seen]).mT
        # float32 standardisation of the inputs
        torch.testing.assert_close(q.mean[i], gain @ (x[i] - mu)[seen], atol=1e-5, rtol=0)
        expected = torch.eye(K, dtype=torch.float64) - gain @ W[seen]
        torch.testing.assert_close(q.covariance[q.pattern[i]], expected, atol=1e-9, rtol=0)


def test_marginal_likelihood_and_bound_are_the_density_of_what_was_measured(module, batch):
    """Weights are known, so the bound is tight."""
    W, mu, psi = joint(module)
    x = full_values(batch)
    expected = torch.zeros(B, dtype=torch.float64)
    for i in range(1, B):
        seen = ~x[i].isnan()
        if seen.any():
            covariance = W[seen] @ W[seen].mT + torch.diag(psi[seen])
            expected[i] = torch.distributions.MultivariateNormal(mu[seen], covariance).log_prob(x[i][seen])
    torch.testing.assert_close(module.likelihood_terms(batch, 1).log_likelihood, expected, atol=1e-4, rtol=1e-5)
    terms, divergence = module.elbo(batch)
    torch.testing.assert_close((sum(terms.values()) - divergence).double(), expected, atol=1e-3, rtol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(module.likelihood_terms(batch, 1).log_likelihood, expected, atol=1e-4, rtol=1e-5)


def test_posteriors_do_not_depend_on_company(module, batch, make_batch):
    q = module.posterior(module.encode(batch), batch, batch.present)
    x = full_values(batch).float().split(list(WIDTHS.values()), 1)
    values = dict(zip(WIDTHS, x, strict=True))
    for i in range(B):
        alone = make_batch({m: v[i : i + 1] for m, v in values.items()}, batch.present[i : i + 1])
        found = module.posterior(module.encode(alone), alone, alone.present)
        torch.testing.assert_close(found.mean[0], q.mean[i], atol=1e-5, rtol=0)


def test_readouts_are_orthonormal_and_apart(module):
    shared = module.readout("shared", None).matrix
    parts = [shared, *(module.readout("private", m).matrix for m in WIDTHS)]
    together = torch.cat(parts, 1)
    torch.testing.assert_close(together.mT @ together, torch.eye(together.shape[1]), atol=1e-6, rtol=0)
    assert shared.shape[1] >= 1 and module.readout("joint", None).matrix.shape == (K, K)


def test_a_state_dict_brings_its_number_of_factors(module, batch, make_schema):
    other = ProbabilisticCCAModule(make_schema(WIDTHS))
    assert other.n_factors == 0
    other.load_state_dict(module.state_dict())
    assert other.n_factors == K
    torch.testing.assert_close(
        other.likelihood_terms(batch, 1).log_likelihood, module.likelihood_terms(batch, 1).log_likelihood
    )
    with pytest.raises(RuntimeError, match="size mismatch"):
        ProbabilisticCCAModule(make_schema({**WIDTHS, "rna": 7})).load_state_dict(module.state_dict())


def test_there_is_nothing_to_train_by_gradient(module, batch):
    with pytest.raises(NotImplementedError, match="without gradients"):
        module.passes(module.encode(batch), batch, 1.0)
    with pytest.raises(NotImplementedError, match="without gradients"):
        module.sample(batch, "rna")
