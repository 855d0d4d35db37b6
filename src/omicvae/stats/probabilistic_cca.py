r"""Probabilistic CCA: the linear-Gaussian model of several modalities, and everything that is exact in it.

.. math::

    z_i \sim N(0, I_K), \qquad
    x_{ij} \mid z_i \sim N(\mu_j + w_j' z_i,\; \psi_j),

with features :math:`j` of all modalities. A factor that has weights in several modalities is shared, one that has them
in a single modality is private to it. Given a posterior :math:`q(\mu_j, w_j)` of every feature's weights, with
:math:`\operatorname{E} w_j = m_j`, :math:`\operatorname{Cov} w_j = C_j`, the posterior of :math:`z_i` given *any* set of
measured values :math:`O_i` is

.. math::

    q(z_i) = N(P^{-1} h, P^{-1}), \qquad
    P = I + \sum_{j \in O_i} \frac{m_j m_j' + C_j}{\psi_j}, \qquad
    h = \sum_{j \in O_i} \frac{m_j (x_{ij} - \operatorname{E} \mu_j) - \operatorname{Cov}(w_j, \mu_j)}{\psi_j}.

:math:`C_j` is what keeps a model with many factors from trusting weights that few samples have determined. With known
weights (:math:`C_j = 0`) this is conditioning of a Gaussian, and :attr:`Posterior.log_evidence` is the exact marginal
log-likelihood. Weights are fitted in :mod:`omicvae.stats.variational_factors`.

References
----------
Bach and Jordan, *A probabilistic interpretation of canonical correlation analysis*, UC Berkeley TR 688 (2005).
Virtanen et al., *Bayesian group factor analysis*, AISTATS 2012.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from omicvae.stats.gaussian import FullGaussian

CHUNK = 2**23  # numbers of one (features, K, K) or (features, n, K) array held at once


class Weights(NamedTuple):
    """Posterior of one modality's weights and intercepts; float64."""

    mean: Tensor
    """(p, K) ``m_j``; 0 for factors that the modality may not use."""
    intercept: Tensor
    """(p,) posterior mean of ``mu_j``."""
    noise: Tensor
    """(p,) variance ``psi_j``."""
    basis: Tensor
    """(K, r) ``B`` with ``C_j = B diag(spread_j) B'``; for features with gaps in training the best such form."""
    spread: Tensor
    """(p, r)"""
    shift: Tensor
    """(p, K) minus the covariance of ``w_j`` and ``mu_j``."""
    intercept_variance: Tensor
    """(p,)"""
    precision: Tensor
    """(K,) of the weights' prior; infinite for factors that the modality may not use."""

    def plug_in(self) -> Weights:
        """The posterior means as if they were known."""
        zero = torch.zeros_like
        return self._replace(
            spread=zero(self.spread), shift=zero(self.shift), intercept_variance=zero(self.intercept_variance)
        )


class Gaps(NamedTuple):
    """Single values that were not measured, grouped by rows that lack the same ones."""

    columns: Tensor
    """(g,) int64 features that some row lacks."""
    missing: Tensor
    """(G, g) bool, each combination that occurs."""
    pattern: Tensor
    """(n,) int64 combination of each row."""

    @property
    def observed(self) -> Tensor:
        """``(n, g)`` float64: 1 where the columns were measured."""
        return (~self.missing).double()[self.pattern]


class Evidence(NamedTuple):
    """What a modality's rows say about ``z``: ``constant + information'z - z' precision z / 2``."""

    precision: Tensor
    """(G, K, K)"""
    pattern: Tensor
    """(n,) int64: which precision is a row's."""
    information: Tensor
    """(n, K)"""
    constant: Tensor
    """(n,)"""


class Posterior(NamedTuple):
    """Posterior of the factors of ``n`` samples; samples with the same measured values share a covariance."""

    mean: Tensor
    """(n, K)"""
    tril: Tensor
    """(G, K, K) lower Cholesky factor of the precision."""
    covariance: Tensor
    """(G, K, K)"""
    pattern: Tensor
    """(n,) int64: which covariance is a sample's."""
    log_evidence: Tensor
    """(n,) log-likelihood of what was measured with ``z`` integrated out; with uncertain weights a lower bound of its
    mean over their posterior."""

    def gaussian(self) -> FullGaussian:
        """The same, a matrix a sample."""
        return FullGaussian(self.mean, self.tril[self.pattern])

    def divergence(self) -> Tensor:
        """``(n,)`` Kullback-Leibler divergence from the prior."""
        trace = torch.diagonal(self.covariance, dim1=1, dim2=2).sum(1)
        logdet = 2 * torch.diagonal(self.tril, dim1=1, dim2=2).log().sum(1)
        return 0.5 * ((trace + logdet)[self.pattern] + self.mean.square().sum(1) - self.mean.shape[1])


def known_weights(mean: Tensor, noise: Tensor, intercept: Tensor | None = None) -> Weights:
    """Weights ``(p, K)`` and noise variances ``(p,)`` that are given, not estimated."""
    mean, noise = mean.double(), noise.double()
    p, K = mean.shape
    blank = torch.zeros(p, dtype=torch.float64, device=mean.device)
    return Weights(
        mean=mean,
        intercept=blank if intercept is None else intercept.double(),
        noise=noise,
        basis=torch.eye(K, dtype=torch.float64, device=mean.device),
        spread=torch.zeros_like(mean),
        shift=torch.zeros_like(mean),
        intercept_variance=blank,
        precision=torch.ones(K, dtype=torch.float64, device=mean.device),
    )


def find_gaps(observed: Tensor | None) -> Gaps | None:
    """Group the rows of a mask ``(n, p)`` by what they lack; ``None`` if nothing is missing."""
    if observed is None or bool(observed.all()):
        return None
    columns = torch.nonzero(~observed.all(0)).squeeze(1)
    missing, pattern = torch.unique(~observed[:, columns], dim=0, return_inverse=True)
    return Gaps(columns, missing, pattern)


def evidence(
    weights: Weights,
    x: Tensor,
    gaps: Gaps | None = None,
    covariance: Tensor | None = None,
    *,
    with_constant: bool = True,
) -> Evidence:
    """What rows of a modality say about the factors.

    Parameters
    ----------
    weights
        Of the modality.
    x
        ``(n, p)`` float64; any finite value where not measured.
    gaps
        What was not measured.
    covariance
        ``(g, K, K)`` weights' covariance of the columns with gaps, instead of that in ``weights``.
    with_constant
        ``False`` leaves the constants 0, which only the log-likelihood needs: one pass over ``x`` instead of four.
    """
    per_noise = weights.mean / weights.noise[:, None]
    fixed = weights.shift / weights.noise[:, None] - weights.intercept[:, None] * per_noise
    if gaps is None:
        pattern = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        precision = _precision(weights, torch.ones_like(weights.noise))[None]
        offset = fixed.sum(0)[None]
    else:
        x = x.index_copy(1, gaps.columns, x[:, gaps.columns] * gaps.observed)
        complete, seen, pattern = _complete(weights, gaps), (~gaps.missing).double(), gaps.pattern
        precision = _precision(weights, complete) + _gappy_precision(weights, gaps, seen, covariance)
        offset = complete @ fixed + seen @ fixed[gaps.columns]
    constant = _constant(weights, x, gaps) if with_constant else x.new_zeros(len(x))
    return Evidence(precision, pattern, x @ per_noise + offset[pattern], constant)


def _complete(weights: Weights, gaps: Gaps) -> Tensor:
    """``(p,)`` 1 for features without gaps, else 0."""
    return torch.ones_like(weights.noise).index_fill(0, gaps.columns, 0.0)


def _constant(weights: Weights, x: Tensor, gaps: Gaps | None) -> Tensor:
    """``(n,)`` that part of rows' log-likelihood which does not depend on the factors."""
    per_value = (2 * math.pi * weights.noise).log() + weights.intercept_variance / weights.noise
    residual = x - weights.intercept
    if gaps is None:
        normaliser = per_value.sum().expand(len(x))
    else:
        residual[:, gaps.columns] *= gaps.observed
        seen = (~gaps.missing).double()
        normaliser = (_complete(weights, gaps) @ per_value + seen @ per_value[gaps.columns])[gaps.pattern]
    return -0.5 * (normaliser + residual.square() @ (1 / weights.noise))


def _precision(weights: Weights, used: Tensor) -> Tensor:
    """``(K, K)`` precision of features marked by ``used`` ``(p,)``."""
    per_noise = used / weights.noise
    uncertain = (weights.basis * (per_noise @ weights.spread)) @ weights.basis.mT
    return weights.mean.mT @ (per_noise[:, None] * weights.mean) + uncertain


def _gappy_precision(weights: Weights, gaps: Gaps, seen: Tensor, covariance: Tensor | None) -> Tensor:
    """``(G, K, K)`` precision of the columns with gaps, for each combination that occurs."""
    K = weights.mean.shape[1]
    i, j = upper = torch.triu_indices(K, K, device=seen.device)
    total = seen.new_zeros(len(seen), len(i))
    for at in chunks(len(gaps.columns), K * K):
        here = gaps.columns[at]
        if covariance is None:
            second = (weights.basis * weights.spread[here][:, None, :]) @ weights.basis.mT
        else:
            second = covariance[at]
        mean = weights.mean[here]
        total += (seen[:, at] / weights.noise[here]) @ (second[:, i, j] + mean[:, i] * mean[:, j])
    return symmetric(total, upper)


def symmetric(packed: Tensor, upper: Tensor) -> Tensor:
    """``(..., K, K)`` from the upper triangle ``(..., K (K + 1) / 2)`` in the order of ``torch.triu_indices``."""
    i, j = upper
    K = int(i[-1]) + 1 if len(i) else 0
    full = packed.new_empty(*packed.shape[:-1], K, K)
    full[..., i, j] = packed
    full[..., j, i] = packed
    return full


def posterior(found: Sequence[Evidence], rows: Sequence[Tensor], n_samples: int, n_factors: int) -> Posterior:
    """Posterior of the factors given the evidence of any modalities.

    Parameters
    ----------
    found
        Evidence of each modality.
    rows
        ``(n_m,)`` sample of each row; a sample occurs at most once in each modality, and in as few as none.
    n_samples, n_factors
        ``n`` and ``K``.
    """
    device = rows[0].device if rows else None
    key = torch.zeros(n_samples, len(found), dtype=torch.int64, device=device)
    h = torch.zeros(n_samples, n_factors, dtype=torch.float64, device=device)
    constant = torch.zeros(n_samples, dtype=torch.float64, device=device)
    for m, (one, here) in enumerate(zip(found, rows, strict=True)):
        key[here, m] = one.pattern + 1
        h.index_add_(0, here, one.information)
        constant.index_add_(0, here, one.constant)
    combinations, pattern = torch.unique(key, dim=0, return_inverse=True)
    P = torch.eye(n_factors, dtype=torch.float64, device=device).repeat(len(combinations), 1, 1)
    for m, one in enumerate(found):
        here = combinations[:, m] > 0
        P[here] += one.precision[combinations[here, m] - 1]
    tril = torch.linalg.cholesky(P)
    covariance = torch.cholesky_inverse(tril)
    mean = torch.empty_like(h)
    order = pattern.argsort()
    for g, members in enumerate(order.split(torch.bincount(pattern, minlength=len(combinations)).tolist())):
        mean[members] = h[members] @ covariance[g]
    logdet = 2 * torch.diagonal(tril, dim1=1, dim2=2).log().sum(1)
    log_evidence = constant + 0.5 * (h * mean).sum(1) - 0.5 * logdet[pattern]
    return Posterior(mean, tril, covariance, pattern, log_evidence)


def expected_log_likelihood(found: Evidence, rows: Tensor, q: Posterior) -> Tensor:
    """``(n_m,)`` expected log-likelihood of a modality's rows under the posterior of factors (and of weights)."""
    mean, own = q.mean[rows], q.pattern[rows]
    pairs, inverse = torch.unique(torch.stack([found.pattern, own], 1), dim=0, return_inverse=True)
    traces = torch.stack([(found.precision[a] * q.covariance[b]).sum() for a, b in pairs.tolist()] or [mean.sum()])
    quadratic = torch.empty_like(found.constant)
    for g in range(len(found.precision)):
        members = found.pattern == g
        quadratic[members] = ((mean[members] @ found.precision[g]) * mean[members]).sum(1)
    return found.constant + (found.information * mean).sum(1) - 0.5 * (quadratic + traces[inverse])


def expected_log_density(p: Posterior, q: Posterior) -> Tensor:
    """``(n,)`` negative cross-entropy: expected log density of the factors under ``p``, distributed as ``q``."""
    L = p.tril[p.pattern]
    offset = ((q.mean - p.mean).unsqueeze(1) @ L).square().sum((1, 2))
    pairs, inverse = torch.unique(torch.stack([p.pattern, q.pattern], 1), dim=0, return_inverse=True)
    traces = [((p.tril[a] @ p.tril[a].mT) * q.covariance[b]).sum() for a, b in pairs.tolist()]
    trace = torch.stack(traces)[inverse] if traces else q.mean.sum(1)
    logdet = 2 * torch.diagonal(L, dim1=1, dim2=2).log().sum(1)
    return 0.5 * (logdet - trace - offset - q.mean.shape[1] * math.log(2 * math.pi))


def predict(weights: Weights, q: Posterior) -> tuple[Tensor, Tensor]:
    """Mean and variance ``(n, p)`` of a new measurement of a modality, given the posterior of the factors.

    The variance holds the noise, the factors' uncertainty and that of the weights.
    """
    mean = weights.intercept + q.mean @ weights.mean.mT
    moved = weights.basis.mT @ q.covariance @ weights.basis
    spread = torch.diagonal(moved, dim1=1, dim2=2)[q.pattern] + (q.mean @ weights.basis).square()
    latent = mean.new_empty(len(q.covariance), len(weights.mean))
    for g, covariance in enumerate(q.covariance):
        latent[g] = ((weights.mean @ covariance) * weights.mean).sum(1)
    estimated = spread @ weights.spread.mT - 2 * q.mean @ weights.shift.mT + weights.intercept_variance
    return mean, weights.noise + latent[q.pattern] + estimated.clamp_min(0)


def complete_covariance(weights: Sequence[Weights], n_factors: int) -> Tensor:
    """``(K, K)`` posterior covariance of the factors of a sample in which all features of these modalities are measured."""
    P = torch.eye(n_factors, dtype=torch.float64, device=weights[0].mean.device if weights else None)
    for w in weights:
        P = P + _precision(w, torch.ones_like(w.noise))
    return torch.cholesky_inverse(torch.linalg.cholesky(P))


def typical_variance(weights: Weights, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Variance of a prediction from factors with a posterior covariance ``(K, K)``, and its part from these, both ``(p,)``.

    Mean of :func:`predict` over samples, whose factors have the prior's distribution.
    """
    latent = ((weights.mean @ covariance) * weights.mean).sum(1)
    estimated = weights.spread @ weights.basis.square().sum(0) + weights.intercept_variance
    return weights.noise + latent + estimated, latent


def explained(weights: Sequence[Weights]) -> Tensor:
    """``(M, K)`` variance that each factor explains in a modality, mean over its features."""
    return torch.stack([w.mean.square().mean(0) for w in weights])


def chunks(n: int, width: int) -> Iterator[slice]:
    """Consecutive slices of ``range(n)`` such that ``width`` numbers of each element fit into memory."""
    size = max(1, CHUNK // max(width, 1))
    return (slice(start, min(start + size, n)) for start in range(0, n, size))
