"""Likelihoods of every model against closed forms: decoders are linear, so p(x) and the predictive density are Gaussian."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from omicvae.metrics import conditional_log_likelihood, joint_log_likelihood
from omicvae.model import CoVAE
from omicvae.module._mixture import MixturePosterior
from omicvae.nn.likelihoods import OWN

S = 8000


class Oracle:
    """Densities of one sample at a time, from the decoders' affine maps and the components of posteriors."""

    def __init__(self, model) -> None:
        self.model, self.module = model, model.module
        self.cohort = model._cohort(None)
        self.D = self.module.readout("joint", None).matrix.shape[0]

    @torch.no_grad()
    def decoder(self, i: int, names: list[str], route: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Measured values, offset, weights and noise variances of a sample's assays."""
        batch = self.cohort.batch(np.array([i]))
        parts = []
        for m in names:
            z = torch.cat([torch.zeros(1, self.D), torch.eye(self.D)])[:, None]
            noise = torch.full((1, 1), route)
            eta = self.module.decode(m, self.module.decoder_inputs(z)[m], None, noise)
            law = self.module.likelihoods.of(m)(eta, noise=noise)
            at, x = law.mean[:, 0].double(), batch.x[m][0].double()
            seen = ~x.isnan()
            parts.append((x[seen], at[0, seen], (at[1:, seen] - at[0, seen]).mT, law.variance[0, 0, seen].double()))
        x, offset, weights, variance = (torch.cat(p) for p in zip(*parts, strict=True))
        return x, offset, weights, variance

    def density(self, i: int, names: list[str], route: int, components) -> float:
        """Log density of a mixture of Gaussians over latents, pushed through the decoders."""
        x, offset, W, psi = self.decoder(i, names, route)
        logs = [
            np.log(weight) + float(MultivariateNormal(offset + W @ mean, W @ cov @ W.mT + torch.diag(psi)).log_prob(x))
            for weight, mean, cov in components
            if weight > 0
        ]
        return float(np.logaddexp.reduce(logs))

    def joint(self, i: int, names: list[str]) -> float:
        if isinstance(self.model, CoVAE):
            prior = [(1.0, self.module.prior_mean.double(), self.module.prior_covariance)]
        else:
            prior = [(1.0, torch.zeros(self.D).double(), torch.eye(self.D).double())]
        return self.density(i, names, OWN, prior)

    @torch.no_grad()
    def conditional(self, i: int, targets: list[str], given: list[str]) -> float:
        batch = self.cohort.batch(np.array([i]))
        mask = torch.tensor([[m in given for m in self.model.modalities]])
        q = self.module.posterior(self.module.encode(batch), batch, mask)
        if isinstance(q, MixturePosterior):
            assert q.family.standard_log_density(torch.zeros(())).item() == pytest.approx(-0.5 * np.log(2 * np.pi))
            components = []
            for c in range(q.weights.shape[1]):
                mean = torch.cat([q.shared.location[c, 0], q.private.location[0]])
                variance = torch.cat([q.shared.scale[c, 0].square(), q.private.scale[0].square() * q.free[0]])
                components.append((float(q.weights[0, c]), mean.double(), torch.diag(variance).double()))
        else:
            components = [(1.0, q.gaussian.mean[0].double(), q.gaussian.covariance()[0].double())]
        return self.density(i, targets, self.module.predictive_route(False), components)


def of_every_pattern(present: np.ndarray, n: int) -> np.ndarray:
    """Positions of the first ``n`` samples with each combination of assays."""
    codes = present @ (1 << np.arange(present.shape[1]))
    return np.sort(np.concatenate([np.flatnonzero(codes == c)[:n] for c in np.unique(codes)]))


def assert_agrees(row: pd.Series, expected: float) -> None:
    """Within six standard errors of a logarithm of a mean of weights, and rounding of float32 sums.

    Where few draws count, because the posterior is too narrow, the error is not normal: the mean is missed from below.
    """
    tolerance = 6 / np.sqrt(row["effective_draws"]) + 0.01
    assert row["log_likelihood"] < expected + tolerance
    if row["effective_draws"] > S / 20:
        assert row["log_likelihood"] > expected - tolerance


def test_joint_likelihood_is_the_closed_form(linear_model):
    """Every model, samples with one, two and three assays, single values missing."""
    oracle, names = Oracle(linear_model), linear_model.modalities
    chosen = of_every_pattern(oracle.cohort.present, 2)
    table = joint_log_likelihood(linear_model, n_samples=S, indices=chosen)
    patterns = set()
    for k, (i, row) in enumerate(zip(chosen, table.itertuples(), strict=True)):
        has = [m for m, p in zip(names, oracle.cohort.present[i], strict=True) if p]
        patterns.add(row.targets)
        assert row.targets == "+".join(has) and row.sources == ""
        assert_agrees(table.iloc[k], oracle.joint(int(i), has))
    assert {"a", "b", "c", "a+b+c"} <= patterns
    assert (table["effective_draws"] > S / 20).any()


def test_conditional_likelihood_is_the_density_of_what_is_predicted(linear_model):
    oracle, names = Oracle(linear_model), linear_model.modalities
    chosen = of_every_pattern(oracle.cohort.present, 4)
    table = conditional_log_likelihood(linear_model, ["c", "a"], given=["b"], n_samples=S, indices=chosen)
    for i, (_, row) in zip(chosen, table.iterrows(), strict=True):
        has = [m for m, p in zip(names, oracle.cohort.present[i], strict=True) if p]
        scored = [m for m in has if m != "b"]
        if "b" not in has or not scored:
            assert np.isnan(row["log_likelihood"])
            continue
        assert (row["targets"], row["sources"]) == ("+".join(scored), "b")
        assert_agrees(row, oracle.conditional(int(i), scored, ["b"]))
    assert table["log_likelihood"].notna().sum() >= 8


def test_several_sources_and_likelihood_of_one_assay(linear_model):
    oracle = Oracle(linear_model)
    complete = np.flatnonzero(oracle.cohort.present.all(1))[:3]
    given = conditional_log_likelihood(linear_model, ["b"], n_samples=S, indices=complete)
    alone = joint_log_likelihood(linear_model, ["b"], n_samples=S, indices=complete)
    for k, i in enumerate(complete):
        assert given["sources"].iloc[k] == "a+c"
        expected = oracle.conditional(int(i), ["b"], ["a", "c"])
        assert_agrees(given.iloc[k], expected)
        assert_agrees(alone.iloc[k], oracle.joint(int(i), ["b"]))


def test_terms_add_up_and_draws_count(linear_model):
    """What importance weighting adds to the ELBO is not negative, but for the noise of a mean of 500 log weights."""
    for table in (
        joint_log_likelihood(linear_model, n_samples=500),
        conditional_log_likelihood(linear_model, ["a"], n_samples=500),
    ):
        known = table[table["log_likelihood"].notna()]
        total = known["reconstruction"] + known["prior"] - known["posterior"] + known["gap"]
        np.testing.assert_allclose(total, known["log_likelihood"], rtol=1e-9)
        assert known["effective_draws"].between(1 - 1e-6, 500 + 1e-6).all()
    assert joint_log_likelihood(linear_model, n_samples=500)["gap"].min() > -0.05


def test_batches_and_rows_do_not_matter(linear_model):
    """The same expectation, whichever samples are scored together: differences within the noise of drawing."""
    n = linear_model.adata.n_obs
    order = np.random.default_rng(0).permutation(n)
    for score in (
        lambda **k: joint_log_likelihood(linear_model, n_samples=2000, **k),
        lambda **k: conditional_log_likelihood(linear_model, ["b"], n_samples=2000, **k),
    ):
        whole, parts = score(), score(batch_size=7, indices=order).loc[linear_model.adata.obs_names]
        pd.testing.assert_series_equal(whole["sources"], parts["sources"])
        least = np.minimum(whole["effective_draws"], parts["effective_draws"])
        apart = (whole["log_likelihood"] - parts["log_likelihood"]).abs()
        assert (apart.dropna() < (6 / np.sqrt(least) + 0.01).dropna()).all()


def test_expectations_under_the_posterior_have_a_closed_form(covae):
    """Prior and posterior terms of CoVAE: cross-entropy and negative entropy of Gaussians, by torch."""
    table = joint_log_likelihood(covae, n_samples=S, indices=list(range(6)))
    batch = covae._cohort(None).batch(np.arange(6))
    with torch.no_grad():
        q = covae.module.posterior(covae.module.encode(batch), batch, batch.present).gaussian
    mean, cov = q.mean.double(), q.covariance().double()
    after = MultivariateNormal(mean, cov)
    before = MultivariateNormal(covae.module.prior_mean.double(), covae.module.prior_covariance)
    divergence = torch.distributions.kl_divergence(after, before)
    # a quadratic form in 6 dimensions has a variance of at most a few; 5 standard errors of 8000 draws
    np.testing.assert_allclose(table["posterior"], -after.entropy().numpy(), atol=5 * 2 / S**0.5)
    np.testing.assert_allclose(table["posterior"] - table["prior"], divergence.numpy(), atol=5 * 3 / S**0.5)


def test_more_draws_tighten_the_bound(jmvae):
    one = np.mean([joint_log_likelihood(jmvae, n_samples=1)["log_likelihood"].mean() for _ in range(20)])
    many = joint_log_likelihood(jmvae, n_samples=S)["log_likelihood"].mean()
    assert one < many


class TestProbabilisticCCA:
    """Exact: no draws, no gap."""

    def test_chain_rule(self, pcca):
        """log p(a, b, c) = log p(b) + log p(a | b) + log p(c | a, b), in samples that have all."""
        joint = joint_log_likelihood(pcca)
        complete = joint.index[joint["targets"] == "a+b+c"]
        parts = [
            joint_log_likelihood(pcca, ["b"], indices=complete),
            conditional_log_likelihood(pcca, ["a"], given=["b"], indices=complete),
            conditional_log_likelihood(pcca, ["c"], given=["a", "b"], indices=complete),
        ]
        total = sum(part["log_likelihood"] for part in parts)
        np.testing.assert_allclose(total, joint.loc[complete, "log_likelihood"], rtol=1e-9)
        for part in (joint, *parts):
            np.testing.assert_allclose(part["gap"], 0, atol=1e-8)
            assert np.isinf(part["effective_draws"]).all()

    def test_conditional_is_a_conditional_gaussian(self, pcca):
        """Independent of the factor algebra: condition the covariance of all values on the sources."""
        module, cohort = pcca.module, pcca._cohort(None)
        position = int(np.flatnonzero(cohort.present.all(1))[0])
        batch = cohort.batch(np.array([position]))
        weights = [module.weights(m) for m in pcca.modalities]
        W, psi = torch.cat([w.mean for w in weights]), torch.cat([w.noise for w in weights])
        x, mu, jacobian = [], [], []
        for m, w in zip(pcca.modalities, weights, strict=True):
            likelihood, observed = module.likelihoods.of(m), module.observed(batch, m)
            value = likelihood.encode_transform(observed)[0].double()
            x.append(torch.where(likelihood.measured(observed)[0], value, torch.nan))
            mu.append(w.intercept + module.fixed(m, None))
            jacobian.append(-likelihood.input_scale.double().log())
        x, mu, jacobian = torch.cat(x), torch.cat(mu), torch.cat(jacobian)
        owner = np.repeat(np.arange(3), [len(w.noise) for w in weights])
        seen = ~x.isnan().numpy()
        t, g = seen & (owner == 1), seen & (owner != 1)
        cov = W @ W.mT + torch.diag(psi)
        gain = torch.linalg.solve(cov[g][:, g], cov[g][:, t]).mT
        law = MultivariateNormal(mu[t] + gain @ (x - mu)[g], cov[t][:, t] - gain @ cov[g][:, t])
        found = conditional_log_likelihood(pcca, ["b"], indices=[position])["log_likelihood"].iloc[0]
        assert found == pytest.approx(float(law.log_prob(x[t]) + jacobian[t].sum()), abs=1e-4)


class TestArguments:
    def test_nothing_to_score_is_nan(self, covae):
        table = conditional_log_likelihood(covae, ["a"], n_samples=10)
        present = covae._cohort(None).present
        scored = present[:, 0] & present[:, 1:].any(1)
        assert (table["log_likelihood"].notna().to_numpy() == scored).all() and not scored.all()
        assert conditional_log_likelihood(covae, ["a"], n_samples=10, indices=[]).shape == (0, 8)
        alone = joint_log_likelihood(covae, ["a"], n_samples=10)["log_likelihood"]
        assert (alone.notna().to_numpy() == present[:, 0]).all()

    def test_other_data(self, covae):
        """Without one of the assays; in another order."""
        query = covae.adata[::-1].copy()
        del query.mod["c"]
        query.update()
        table = joint_log_likelihood(covae, mdata=query, n_samples=10)
        assert not table["targets"].str.contains("c").any() and table["log_likelihood"].notna().any()

    def test_get_marginal_ll_is_the_mean(self, pcca):
        assert pcca.get_marginal_ll() == pytest.approx(joint_log_likelihood(pcca)["log_likelihood"].mean())

    def test_mistakes(self, covae):
        with pytest.raises(TypeError, match=r"write \['a'\]"):
            conditional_log_likelihood(covae, "a")
        with pytest.raises(ValueError, match=r"\['a'\] are in both targets and given"):
            conditional_log_likelihood(covae, ["a"], given=["a", "b"])
        with pytest.raises(ValueError, match="not trained on a modality 'd'"):
            joint_log_likelihood(covae, ["d"])
        with pytest.raises(ValueError, match="targets names no modality"):
            conditional_log_likelihood(covae, [])
        with pytest.raises(ValueError, match="given names no modality"):
            conditional_log_likelihood(covae, ["a", "b", "c"])
        with pytest.raises(ValueError, match="n_samples must be a whole number of at least 1"):
            joint_log_likelihood(covae, n_samples=0)
        with pytest.raises(TypeError, match="expects a model of omicvae.model, got MuData"):
            joint_log_likelihood(covae.adata)
        with pytest.raises(RuntimeError, match="has not been trained"):
            joint_log_likelihood(CoVAE(covae.adata))
