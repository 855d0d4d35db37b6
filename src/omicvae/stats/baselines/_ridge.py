"""Ridge regression: one decomposition serves all penalties, all targets and leave-one-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from omicvae.stats.baselines._base import Array, Baseline

PENALTIES = np.logspace(-4, 4, 25)
"""In units of the mean squared singular value of the sources."""
SCORED_ROWS, SCORED_COLUMNS = 1500, 500
"""Samples, and targets where one penalty serves all, whose leave-one-out errors choose it."""
GAPPY = 0.1
"""Share of missing values from which on a target is fitted to its measured samples alone."""
MOST_WORK = 2e9
"""Sum of cubed numbers of samples of such fits; beyond it missing values are put at the mean."""


class RidgeBaseline(Baseline):
    r"""Ridge regression with the penalty chosen by exact leave-one-out.

    .. math:: \hat y(x) = \bar y + (x - \bar x)^\top (X^\top X + \alpha I)^{-1} X^\top y, \qquad
              e_i = \frac{y_i - \hat y_i}{1 - 1/n - \sum_k u_{ik}^2 s_k^2 / (s_k^2 + \alpha)},

    with :math:`X = U S V^\top` centred and :math:`e_i` the leave-one-out residual (Golub, Heath and Wahba,
    Technometrics 21, 1979; given the scales of the columns, which are those of all samples).

    A target of which more than a tenth is missing is fitted to the samples in which it was measured, as long as there
    are not too many combinations of them; elsewhere missing values are put at the training mean, which shrinks.

    Parameters
    ----------
    per_feature
        A penalty for every target, instead of one that is best on average.
    penalties
        To choose from, in units of the mean squared singular value of the sources; increasing.
    n_folds, seed
        Not used: residuals are leave-one-out.
    """

    def __init__(
        self,
        *,
        per_feature: bool = False,
        penalties: Sequence[float] | Array = PENALTIES,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(n_folds=n_folds, seed=seed)
        self.per_feature = per_feature
        self.penalties = np.asarray(penalties, dtype=np.float64)
        if self.penalties.ndim != 1 or self.penalties.size == 0 or not (self.penalties > 0).all():
            raise ValueError(f"penalties must be positive numbers, got {penalties}")

    def _learn(self, x: Array, y: Array) -> Array | None:
        groups = _column_groups(y)
        sources = Sources(x, by_sample=len(x) <= x.shape[1] or len(groups) > 1)
        chosen = None if self.per_feature else self._best_penalty(sources, y, groups)
        dual, offset = np.zeros((len(x), y.shape[1])), np.zeros(y.shape[1])
        residual = np.full_like(y, np.nan)
        self.penalty_ = np.empty(y.shape[1])
        for rows, columns in groups:
            part = y[np.ix_(rows, columns)]
            spectrum = sources.spectrum(rows)
            if chosen is None:
                penalty = self.penalties[np.argmin(spectrum.errors(part, self.penalties), axis=0)]
            else:
                penalty = np.full(len(columns), chosen)
            fit = spectrum.solve(part, penalty)
            dual[np.ix_(rows, columns)] = fit.dual
            # The dual sums to 0, so that what it was centred by matters to the offset alone.
            offset[columns] = fit.centre - spectrum.inner_mean @ fit.dual
            residual[np.ix_(rows, columns)] = fit.residual
            self.penalty_[columns] = penalty
        self._store(x, dual, offset)
        return residual

    def _infer(self, x: Array) -> Array:
        inner = x if self._training is None else x @ self._training.T
        return np.asarray(inner @ self._weights + self._offset)

    def _store(self, x: Array, dual: Array, offset: Array) -> None:
        """Keep weights of features or of samples, whichever are fewer."""
        few_samples = len(x) <= x.shape[1]
        self._training = x if few_samples else None
        self._weights, self._offset = dual if few_samples else x.T @ dual, offset

    def _best_penalty(self, sources: Sources, y: Array, groups: list[Group]) -> float:
        """The penalty with the least leave-one-out error, over an even choice of targets."""
        kept = np.zeros(y.shape[1], dtype=bool)
        kept[np.linspace(0, y.shape[1] - 1, min(SCORED_COLUMNS, y.shape[1])).astype(np.intp)] = True
        errors = np.zeros(len(self.penalties))
        for rows, columns in groups:
            some = columns[kept[columns]]
            if len(some):
                part = y[np.ix_(rows, some)]
                errors += sources.spectrum(rows).errors(part, self.penalties) @ (~np.isnan(part)).sum(0)
        return float(self.penalties[np.argmin(errors)])


Group = tuple[NDArray[np.intp], NDArray[np.intp]]
"""Samples, and the targets that are fitted to them."""


class RidgeFit(NamedTuple):
    """Solution for the targets of one group."""

    dual: Array
    """(n, q)"""
    centre: Array
    """(q,) mean of the targets."""
    residual: Array
    """(n, q) leave-one-out; NaN where not measured."""


class Spectrum(NamedTuple):
    """Decomposition of centred sources."""

    u: Array
    """(n, k) left singular vectors."""
    squares: Array
    """(k,) squared singular values."""
    inner_mean: Array
    """(n,) inner products of the samples' mean with each sample."""

    @property
    def unit(self) -> float:
        """Of penalties."""
        return float(self.squares.mean()) if len(self.squares) else 1.0

    def errors(self, y: Array, penalties: Array) -> Array:
        """``(len(penalties), q)`` mean squared leave-one-out errors, over at most :data:`SCORED_ROWS` samples."""
        filled, centre = _centred(y)
        rows = np.linspace(0, len(y) - 1, min(SCORED_ROWS, len(y))).astype(np.intp)
        u, seen, across = self.u[rows], ~np.isnan(y[rows]), self.u.T @ filled
        truth, n = filled[rows], np.maximum((~np.isnan(y[rows])).sum(0), 1)
        out = np.empty((len(penalties), y.shape[1]))
        for i, penalty in enumerate(penalties):
            kept = self.squares / (self.squares + penalty * self.unit)
            residual = (truth - u @ (kept[:, None] * across)) / _leverage_left(u, kept, len(self.u))
            out[i] = np.sum(residual**2, axis=0, where=seen) / n
        return out

    def solve(self, y: Array, penalty: Array) -> RidgeFit:
        """Solution with a penalty ``(q,)`` for every target."""
        filled, centre = _centred(y)
        across = self.u.T @ filled
        dual, residual = np.empty_like(filled), np.empty_like(filled)
        for value in np.unique(penalty):
            here = penalty == value
            kept = self.squares / (self.squares + value * self.unit)
            left = filled[:, here] - self.u @ (kept[:, None] * across[:, here])
            dual[:, here] = left / (value * self.unit)
            residual[:, here] = left / _leverage_left(self.u, kept, len(self.u))
        return RidgeFit(dual, centre, np.where(np.isnan(y), np.nan, residual))


def _centred(y: Array) -> tuple[Array, Array]:
    """Targets around their means, with missing ones at the mean."""
    seen = ~np.isnan(y)
    centre = np.sum(y, axis=0, where=seen) / np.maximum(seen.sum(0), 1)
    return np.where(seen, y - centre, 0.0), centre


def _leverage_left(u: Array, kept: Array, n: int) -> Array:
    """``(rows, 1)`` one minus the leverage of each sample; a single sample has none to lose."""
    return np.maximum(1 - 1 / n - (u**2) @ kept, 1e-8)[:, None] if n > 1 else np.ones((len(u), 1))


class Sources:
    """Standardised sources, decomposed for any choice of samples in their own number or that of features.

    Parameters
    ----------
    x
        ``(n, p)``
    by_sample
        Whether to decompose inner products of samples, else of features (then for all samples only).
    """

    def __init__(self, x: Array, *, by_sample: bool) -> None:
        self.x = x
        self.gram = x @ x.T if by_sample else None
        self._whole: Spectrum | None = None

    def spectrum(self, rows: NDArray[np.intp]) -> Spectrum:
        """Of the samples at ``rows``."""
        if len(rows) < len(self.x):
            assert self.gram is not None
            return of_inner_products(self.gram[np.ix_(rows, rows)])
        if self._whole is None:
            self._whole = _of_features(self.x) if self.gram is None else of_inner_products(self.gram)
        return self._whole


def _of_features(x: Array) -> Spectrum:
    mean = x.mean(0)
    centred = x - mean
    squares, v = _positive(*scipy.linalg.eigh(centred.T @ centred, check_finite=False))
    return Spectrum(centred @ v / np.sqrt(squares), squares, x @ mean)


def of_inner_products(gram: Array) -> Spectrum:
    column = gram.mean(0)
    centred = gram - column - column[:, None] + column.mean()
    squares, u = _positive(*scipy.linalg.eigh(centred, check_finite=False))
    return Spectrum(u, squares, column)


def _positive(squares: Array, vectors: Array) -> tuple[Array, Array]:
    keep = squares > 1e-10 * max(float(squares[-1]) if len(squares) else 0.0, 1e-12)
    return squares[keep], vectors[:, keep]


def _column_groups(y: Array) -> list[Group]:
    """Targets by the samples they are fitted to: all of them, or for gappy targets those with a value."""
    seen = ~np.isnan(y)
    everyone = np.arange(len(y), dtype=np.intp)
    share = 1 - seen.mean(0)
    gappy = np.flatnonzero((share > GAPPY) & (seen.sum(0) > 1))
    packed = np.packbits(seen[:, gappy], axis=0)
    _, first, group = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    work = (seen[:, gappy[first]].sum(0).astype(float) ** 3).sum() if len(gappy) else 0.0
    if not len(gappy) or work > MOST_WORK:
        return [(everyone, np.arange(y.shape[1], dtype=np.intp))]
    rest = np.setdiff1d(np.arange(y.shape[1]), gappy)
    found = [(everyone, rest)] if len(rest) else []
    order = np.argsort(group.reshape(-1), kind="stable")
    edges = np.flatnonzero(np.diff(group.reshape(-1)[order])) + 1
    for members in np.split(order, edges):
        found.append((np.flatnonzero(seen[:, gappy[members[0]]]), gappy[members]))
    return found
