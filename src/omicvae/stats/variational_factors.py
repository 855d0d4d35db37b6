r"""Variational EM for :mod:`omicvae.stats.probabilistic_cca`.

Weights have the prior :math:`w_{jk} \sim N(0, 1/\lambda_{mk})` with a precision for every modality :math:`m` and factor
:math:`k` (automatic relevance determination, which switches a factor off in the modalities that do not share it) and
intercepts a flat one. The bound

.. math::

    \mathcal L = \operatorname{E}_q \log p(x \mid z, \mu, w)
    - \sum_i \mathrm{KL}(q(z_i) \,\|\, N(0, I)) - \sum_j \mathrm{KL}(q(\mu_j, w_j) \,\|\, p)

is maximised by coordinate ascent over :math:`q(\mu_j, w_j)`, noise variances, prior precisions and :math:`q(z_i)`, each
in closed form, so it never decreases. For features without gaps all :math:`q(w_j)` share the eigenvectors of
:math:`\Lambda^{-1/2} S \Lambda^{-1/2}`, :math:`S = \sum_i \operatorname{E} (z_i - \bar z)(z_i - \bar z)'`: one
eigendecomposition serves a whole modality.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from omicvae.stats.probabilistic_cca import (
    Evidence,
    Gaps,
    Posterior,
    Weights,
    chunks,
    evidence,
    explained,
    find_gaps,
    posterior,
    symmetric,
)

LEAST_NOISE = 1e-3  # of a feature's variance: a feature that is fitted without error would decide everything
MOST_PRECISION = 1e6  # of a weight's prior, over the reciprocal variance of the modality
FIRST_SPREAD = 0.05  # posterior variance of the factors that the first step supposes
SMALL = 2500  # up to this rank components are computed exactly
DEAD = 1e-6  # share of a modality's variance below which a factor explains nothing


class Rows(NamedTuple):
    """Measured rows of one modality."""

    x: Tensor
    """(n_m, p) float64; any finite value where not measured."""
    rows: Tensor
    """(n_m,) int64 sample of each row."""
    gaps: Gaps | None = None
    """What was not measured."""


class Fit(NamedTuple):
    """A fitted model."""

    weights: tuple[Weights, ...]
    """One a modality; factors in descending order of the variance they explain."""
    elbo: Tensor
    """(T,) bound after each iteration, summed over samples."""


class Iteration(NamedTuple):
    """A step of the fit."""

    weights: tuple[Weights, ...]
    """One a modality; factors in no order."""
    bound: float


def measured_rows(x: Tensor, rows: Tensor, observed: Tensor | None = None) -> Rows:
    """Rows of a modality, with single values that were not measured found from a mask ``(n, p)`` or from NaN."""
    if observed is None and bool(x.isnan().any()):
        observed = ~x.isnan()
    return Rows(x.double().nan_to_num(), rows, find_gaps(observed))


def fit_factors(
    blocks: Sequence[Rows],
    n_samples: int,
    n_factors: int,
    n_private: Sequence[int] | None = None,
    *,
    max_iter: int = 100,
    tolerance: float = 1e-5,
) -> Fit:
    """Fit the model.

    Parameters
    ----------
    blocks
        One a modality, features on comparable scales; samples may lack any of them.
    n_samples
        Number of samples ``n``.
    n_factors
        Factors that all modalities may use; which do, the fit decides.
    n_private
        Further factors, of each modality alone.
    max_iter
        Most iterations. Fewer than the bound needs to converge can predict better, see
        :mod:`omicvae.stats.factor_selection`.
    tolerance
        Stop when an iteration gains less than this a measured value.
    """
    n_values = sum(float(len(b.x) * b.x.shape[1]) for b in blocks)
    trace: list[float] = []
    for step in iterations(blocks, n_samples, n_factors, n_private):
        gained = step.bound - trace[-1] if trace else math.inf
        trace.append(step.bound)
        if len(trace) >= max_iter or gained < tolerance * n_values:
            break
    return Fit(in_order(step.weights), torch.tensor(trace, dtype=torch.float64))


def iterations(
    blocks: Sequence[Rows], n_samples: int, n_factors: int, n_private: Sequence[int] | None = None
) -> Iterator[Iteration]:
    """The iterations of :func:`fit_factors`, without end."""
    private = tuple(n_private or (0,) * len(blocks))
    states = [_Modality(b, allowed) for b, allowed in zip(blocks, _allowed(n_factors, private), strict=True)]
    q = _start(states, n_samples, n_factors, private)
    while True:
        bound = sum(s.update(q) for s in states) - float(q.divergence().sum())
        yield Iteration(tuple(s.weights for s in states), bound)
        found = [s.evidence() for s in states]
        q = posterior(found, [s.rows for s in states], n_samples, n_factors + sum(private))


def _allowed(n_factors: int, private: Sequence[int]) -> list[Tensor]:
    """For each modality, the positions of the factors it may use."""
    ends = np.cumsum([n_factors, *private])
    return [torch.cat([torch.arange(n_factors), torch.arange(a, b)]) for a, b in zip(ends[:-1], ends[1:], strict=True)]


def in_order(weights: Sequence[Weights]) -> tuple[Weights, ...]:
    """Factors by variance explained; those that explain nothing anywhere are left out (one always stays)."""
    share = explained(weights) / torch.stack([_scale(w) for w in weights])[:, None]
    order = share.sum(0).argsort(descending=True, stable=True)
    order = order[: max(1, int((share.max(0).values[order] > DEAD).sum()))]
    return tuple(
        w._replace(mean=w.mean[:, order], basis=w.basis[order], shift=w.shift[:, order], precision=w.precision[order])
        for w in weights
    )


def _scale(weights: Weights) -> Tensor:
    return (weights.noise + weights.mean.square().sum(1)).mean()


class _Modality:
    """Data of one modality, and the posterior of its weights."""

    def __init__(self, block: Rows, allowed: Tensor) -> None:
        self.rows, self.gaps, self.allowed = block.rows, block.gaps, allowed
        x = block.x
        n, p = x.shape
        self.count = torch.full((p,), float(n), dtype=torch.float64)
        seen = torch.ones(n, 0, dtype=torch.float64)
        if self.gaps is not None:
            seen = self.gaps.observed
            x = x.index_copy(1, self.gaps.columns, x[:, self.gaps.columns] * seen)
            self.count[self.gaps.columns] = seen.sum(0)
        least_one = self.count.clamp_min(1)
        self.mean = x.sum(0) / least_one
        self.centred = x - self.mean
        if self.gaps is not None:
            columns = self.gaps.columns
            self.centred[:, columns] = self.centred[:, columns] * seen
        self.squares = self.centred.square().sum(0)
        variance = self.squares / least_one
        self.scale = float(variance.mean()) or 1.0
        self.least = torch.where(variance > 0, LEAST_NOISE * variance, self.scale)
        self.noise = torch.where(variance > 0, 0.5 * variance, self.scale)
        self.prior = torch.full((len(allowed),), 1 / self.scale, dtype=torch.float64)
        self.covariance: Tensor | None = None
        self.weights: Weights

    def update(self, q: Posterior) -> float:
        """Update weights, noise and prior given the factors; returns this modality's part of the bound."""
        step = self._weights_step(q)
        least_one = self.count.clamp_min(1)
        residual = (self.squares - 2 * (step.mean * step.cross).sum(1) + step.quadratic).clamp_min(0)
        before = self.noise
        self.noise = torch.maximum((residual + before) / least_one, self.least)
        self.noise = torch.where(self.count > 0, self.noise, before)
        p = len(self.noise)
        self.prior = (p / step.squares.sum(0).clamp_min(1e-300)).clamp_max(MOST_PRECISION / self.scale)
        self._remember(step, before, q.mean.shape[1])
        likelihood = -0.5 * (self.count * (2 * math.pi * self.noise).log() + (residual + before) / self.noise)
        intercept = 0.5 * (2 * math.pi * math.e * before / least_one).log()
        divergence = 0.5 * (self.prior * step.squares - 1 - self.prior.log()).sum(1) - 0.5 * step.logdet
        return float(torch.where(self.count > 0, likelihood + intercept, 0.0).sum() - divergence.sum())

    def evidence(self) -> Evidence:
        """What the rows say about the factors, without constants."""
        weights = self.weights._replace(intercept=self.weights.intercept - self.mean)
        return evidence(weights, self.centred, self.gaps, self.covariance, with_constant=False)

    def _weights_step(self, q: Posterior) -> _Step:
        z = q.mean[self.rows][:, self.allowed]
        a = self.allowed
        covariance = q.covariance[:, a][:, :, a]
        counts = torch.bincount(q.pattern[self.rows], minlength=len(covariance)).double()
        center = z.sum(0) / max(len(z), 1)
        moment = (z - center).mT @ (z - center) + (counts @ covariance.flatten(1)).reshape(len(a), len(a))
        length = self.prior.rsqrt()
        values, vectors = torch.linalg.eigh(length[:, None] * moment * length)
        values, basis = values.clamp_min(0), length[:, None] * vectors
        cross = self.centred.mT @ z
        spread = 1 / (1 + values / self.noise[:, None])
        mean = ((cross @ basis) * spread / self.noise[:, None]) @ basis.mT
        step = _Step(
            mean=mean,
            basis=basis,
            spread=spread,
            center=center.repeat(len(mean), 1),
            shift=((center @ basis) * spread) @ basis.mT,
            cross=cross,
            quadratic=((mean @ moment) * mean).sum(1) + spread @ values,
            squares=mean.square() + spread @ basis.square().mT,
            logdet=spread.log().sum(1) - self.prior.log().sum(),
        )
        if self.gaps is not None:
            self._gappy_step(step, q, z, covariance)
        return step

    def _gappy_step(self, step: _Step, q: Posterior, z: Tensor, covariance: Tensor) -> None:
        """The same for features with gaps, whose moments of the factors are over other samples each."""
        assert self.gaps is not None
        K, own = len(self.allowed), q.pattern[self.rows]
        observed, columns = self.gaps.observed, self.gaps.columns
        groups = torch.zeros(len(covariance), len(columns), dtype=torch.float64).index_add_(0, own, observed)
        exact = torch.empty(len(columns), K, K, dtype=torch.float64)
        for at in chunks(len(columns), K * K):
            j, seen = columns[at], observed[:, at].mT
            center = (seen @ z) / self.count[j].clamp_min(1)[:, None]
            moment = _second_moments(seen, z) + (groups[:, at].mT @ covariance.flatten(1)).reshape(-1, K, K)
            moment = moment - self.count[j][:, None, None] * center[:, :, None] * center[:, None, :]
            tril = torch.linalg.cholesky(torch.diag(self.prior) + moment / self.noise[j][:, None, None])
            C = torch.cholesky_inverse(tril)
            mean = torch.linalg.vecdot(C, (step.cross[j] / self.noise[j][:, None])[:, None, :])
            exact[at] = C
            in_basis = ((step.basis.mT @ moment) * step.basis.mT).sum(2)
            step.mean[j], step.center[j] = mean, center
            step.spread[j] = 1 / (1 + in_basis / self.noise[j][:, None])
            step.shift[j] = (C @ center[:, :, None]).squeeze(2)
            step.quadratic[j] = ((mean[:, None, :] @ moment).squeeze(1) * mean).sum(1) + (C * moment).sum((1, 2))
            step.squares[j] = mean.square() + torch.diagonal(C, dim1=1, dim2=2)
            step.logdet[j] = -2 * torch.diagonal(tril, dim1=1, dim2=2).log().sum(1)
        self._exact = exact

    def _remember(self, step: _Step, noise: Tensor, n_factors: int) -> None:
        """Keep the posterior, among all factors of the model."""

        def widened(values: Tensor, fill: float = 0.0) -> Tensor:
            out = torch.full((*values.shape[:-1], n_factors), fill, dtype=torch.float64)
            out[..., self.allowed] = values
            return out

        variance = noise / self.count.clamp_min(1) + (step.center * step.shift).sum(1)
        self.weights = Weights(
            mean=widened(step.mean),
            intercept=self.mean - (step.mean * step.center).sum(1),
            noise=self.noise,
            basis=widened(step.basis.mT).mT,
            spread=step.spread,
            shift=widened(step.shift),
            intercept_variance=torch.where(self.count > 0, variance, 0.0),
            precision=widened(self.prior, math.inf),
        )
        if self.gaps is not None:
            self.covariance = widened(widened(self._exact).mT)


def _second_moments(seen: Tensor, z: Tensor) -> Tensor:
    """``(c, K, K)`` sums of ``z z'`` over the rows marked for each of ``c`` features, ``seen`` ``(c, n)``."""
    K = z.shape[1]
    i, j = upper = torch.triu_indices(K, K)
    total = z.new_zeros(len(seen), len(i))
    for at in chunks(len(z), K * K):
        total += seen[:, at] @ (z[at][:, i] * z[at][:, j])
    return symmetric(total, upper)


class _Step(NamedTuple):
    """Posterior of the weights of one modality, of the factors that it may use."""

    mean: Tensor  # (p, K)
    basis: Tensor  # (K, K)
    spread: Tensor  # (p, K)
    center: Tensor  # (p, K) mean of the factors over the samples in which the feature was measured
    shift: Tensor  # (p, K) covariance of the weights times center
    cross: Tensor  # (p, K) sum of centred values times factors
    quadratic: Tensor  # (p,) expected sum of (w'(z - center))^2
    squares: Tensor  # (p, K) E w^2
    logdet: Tensor  # (p,) of the weights' covariance


def _start(states: Sequence[_Modality], n: int, n_factors: int, private: Sequence[int]) -> Posterior:
    """Factors as principal components of all modalities side by side, then of what is left in each."""
    measured, filled = torch.zeros(n, dtype=torch.bool), []
    for s in states:
        measured[s.rows] = True
        full = torch.zeros(n, s.centred.shape[1], dtype=torch.float64)
        full[s.rows] = s.centred / s.centred.square().sum().sqrt().clamp_min(1e-150)
        filled.append(full)
    parts = [_components(torch.cat(filled, 1), n_factors)]
    for full, width in zip(filled, private, strict=True):
        shared = parts[0]
        left = full - shared @ (shared.mT @ full) if width else full
        parts.append(_components(left, width))
    z = torch.cat(parts, 1) * int(measured.sum()) ** 0.5
    K = z.shape[1]
    covariance = FIRST_SPREAD * torch.eye(K, dtype=torch.float64)[None]
    tril = torch.linalg.cholesky(torch.eye(K, dtype=torch.float64)[None] / FIRST_SPREAD)
    pattern = torch.zeros(n, dtype=torch.int64)
    return Posterior(z, tril, covariance, pattern, torch.zeros(n, dtype=torch.float64))


def _components(x: Tensor, k: int) -> Tensor:
    """``(n, k)`` leading principal components of unit length; 0 where there are none."""
    n, p = x.shape
    out = torch.zeros(n, k, dtype=torch.float64)
    found = min(k, n, p)
    if found == 0:
        return out
    if min(n, p) > SMALL:
        u, s, _ = randomized_svd(x.numpy(), found, n_iter=4, random_state=0)
        left, values = torch.from_numpy(u), torch.from_numpy(s).square()
    elif n <= p:
        values, left = torch.linalg.eigh(x @ x.mT)
        values, left = values.flip(0)[:found], left.flip(1)[:, :found]
    else:
        values, right = torch.linalg.eigh(x.mT @ x)
        values = values.flip(0)[:found].clamp_min(0)
        left = x @ right.flip(1)[:, :found] / values.sqrt().clamp_min(1e-150)
    out[:, :found] = torch.where(values > 1e-12 * values[0].clamp_min(1e-300), left, 0.0)
    return out
