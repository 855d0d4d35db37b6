r"""The closed form with two others beside it, weighted feature by feature.

The kernel regression of :mod:`omicvae.stats.moments` believes in the target's leading components, which is right where
these are shared. Where most of an assay's variation is its own, the few features that others tell about are in trailing
components: there the same regression *without gates*, every feature for itself, is better. And the factor model of
:mod:`omicvae.stats.probabilistic_cca` has one account of all assays, and the uncertainty of its weights, where the
regressions know one set of sources and one target at a time. Their errors differ enough that the average beats each where
none is much worse. With held-out predictions :math:`a` so far and :math:`b` of the next, the prediction of a feature is
:math:`a + w (b - a)`, :math:`w \in [0, 1]` by regression of :math:`x - a` on :math:`b - a`, shrunk towards the weight of
all features together (stacking: Breiman, *Stacked regressions*, Machine Learning 24, 1996).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from omicvae.stats.components import Array, Block, Float32
from omicvae.stats.factor_predictor import FactorModel, FactorPredictor, Sizes
from omicvae.stats.factor_selection import select_sizes
from omicvae.stats.gates import shrunken_slopes
from omicvae.stats.moments import MomentPredictor
from omicvae.stats.patterns import CrossFit, Key, gained_precision
from omicvae.stats.probabilistic_cca import Weights

SMALL = 300
"""Samples below which one fold is too few to choose the size of a factor model on."""
LEAST_GAIN = 2.0
"""Standard errors by which regression without gates has to lower the error of samples that set no weights."""


class StackedPredictor:
    """Prediction of every assay from every set of others: kernel regression, and a factor model where that helps.

    Parameters
    ----------
    n_folds
        Of the cross-fits, which are the same for both.
    with_factors
        Whether to fit the factor model at all.
    seed
        Of folds and landmarks.
    """

    def __init__(self, *, n_folds: int = 5, with_factors: bool = True, seed: int = 0) -> None:
        self.moments = MomentPredictor(n_folds=n_folds, seed=seed)
        self.with_factors, self.n_folds, self.seed = with_factors, n_folds, seed
        self.plain = MomentPredictor(n_folds=n_folds, seed=seed, gated=False)
        self.plain_shares: dict[Key, Array] = {}
        """Pattern -> ``(p,)`` weight of the regression without gates."""
        self.factors: FactorPredictor | None = None
        self.shares: dict[Key, Array] = {}
        """Pattern -> ``(p,)`` weight of the factor model."""
        self.variance: dict[Key, Array] = {}
        """Pattern -> ``(p,)`` variance of cross-fitted residuals."""

    @property
    def folds(self) -> NDArray[np.intp]:
        """``(n,)`` fold of every training sample."""
        return self.moments.samples.folds

    # ------------------------------------------------------------------ fit

    def prepare(self, blocks: Sequence[Block], present: NDArray[np.bool_]) -> None:
        """Take training samples in."""
        self.moments.prepare(blocks, present)
        self.plain.share_samples(self.moments)
        self.plain_shares = {}
        self.factors, self.shares, self.variance = None, {}, {}

    def supported(self, key: Key) -> bool:
        """Whether enough samples have all sources and the target."""
        return self.moments.supported(key)

    def fit_pattern(self, key: Key) -> CrossFit:
        """Fit a pattern; returns predictions of its samples by fits without their fold."""
        found = self.moments.fit_pattern(key)
        truth, seen = self._truth(key, found)
        other = self.plain.fit_pattern(key)
        if _proven(truth, seen, found, other):
            self.plain_shares[key] = _weights(truth, seen, found, other, by_size=True)
            found = _moved(found, other, self.plain_shares[key])
        else:
            self.plain.forget(key)
        if self.with_factors:
            self.factors = self.factors or self._fitted_factors()
            other = self.factors.fit_pattern(key)
            self.shares[key] = _weights(truth, seen, found, other)
            found = _moved(found, other, self.shares[key])
        left = np.where(seen, truth - found.prediction, 0)
        self.variance[key] = (left**2).sum(0, dtype=np.float64) / np.maximum(seen.sum(0), 1)
        return found

    def cross_fit(self, key: Key) -> CrossFit:
        """The predictions of :meth:`fit_pattern` once more."""
        found = self.moments.cross_fit(key)
        if key in self.plain_shares:
            found = _moved(found, self.plain.cross_fit(key), self.plain_shares[key])
        if key in self.shares:
            assert self.factors is not None
            found = _moved(found, self.factors.cross_fit(key), self.shares[key])
        return found

    def _truth(self, key: Key, fit: CrossFit) -> tuple[Float32, NDArray[np.bool_]]:
        block = self.moments.samples.blocks[key[1]]
        at = self.moments.samples.position[fit.rows, key[1]]
        seen = np.ones((len(at), block.values.shape[1]), bool) if block.observed is None else block.observed[at]
        return block.values[at], seen

    def _fitted_factors(self) -> FactorPredictor:
        """A factor model of all samples, of the size that is best (the median) for predicting one or three folds."""
        none = (0,) * len(self.moments.samples.blocks)
        folds = self.moments.samples.folds
        chosen = [
            select_sizes(self.moments.samples.blocks, folds != fold, folds == fold, n_private=none)[0]
            for fold in range(min(3, self.n_folds) if len(folds) < SMALL else 1)
        ]
        predictor = self._new_factors()
        n_factors, n_iter = (int(np.median([getattr(s, name) for s in chosen])) for name in ("n_factors", "n_iter"))
        predictor.sizes = Sizes(n_factors, none, n_iter)
        predictor.fit()
        return predictor

    def _new_factors(self) -> FactorPredictor:
        predictor = FactorPredictor(n_folds=self.n_folds, seed=self.seed)
        predictor.prepare(self.moments.samples.blocks, self.moments.samples.present)
        return predictor

    # ------------------------------------------------------------------ predict

    def covering(self, sources: Sequence[int], target: int) -> list[Key]:
        """Fitted patterns whose predictions are averaged for these sources, best first."""
        return self.moments.covering(sources, target)

    def precision(self, key: Key) -> Array:
        """``(p,)`` precision that a pattern's prediction adds to knowing covariates alone."""
        return gained_precision(self.variance[key], self.moments.directed[key].total)

    def signal(self, key: Key, values: Sequence[Float32], designs: Sequence[Float32]) -> Float32:
        """``(n, p)`` prediction of new samples around what covariates explain; values may be NaN."""
        found = self.moments.signal(key, values, designs)
        if key in self.plain_shares:
            difference = self.plain.signal(key, values, designs) - found
            found = found + self.plain_shares[key].astype(np.float32) * difference
        if key in self.shares and self.shares[key].any():
            assert self.factors is not None
            difference = self.factors.signal(key, values, designs) - found
            found = found + self.shares[key].astype(np.float32) * difference
        return np.asarray(found)

    def fixed(self, target: int, design: NDArray[np.floating]) -> Float32:
        """``(..., p)`` what covariates explain of a target."""
        return self.moments.fixed(target, design)

    def adopt(self, other: StackedPredictor) -> None:
        """Take over the fitted patterns of a predictor of the same samples."""
        self.moments.adopt(other.moments)
        self.plain.adopt(other.plain)
        self.plain_shares, self.shares = dict(other.plain_shares), dict(other.shares)
        self.variance, self.with_factors = dict(other.variance), other.with_factors
        if other.factors is not None:
            self.factors = self._new_factors()
            self.factors.sizes = other.factors.sizes
            self.factors.adopt(other.factors)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restore` makes predictions of new samples."""
        arrays = {f"moments/{k}": v for k, v in self.moments.state().items()}
        arrays |= {f"plain/{k}": v for k, v in self.plain.fitted_state().items()}
        for kind, held in (("share", self.shares), ("plain_share", self.plain_shares), ("variance", self.variance)):
            for (sources, target), value in held.items():
                arrays[f"{kind}/{'-'.join(map(str, sources))}/{target}"] = value
        if self.factors is not None:
            arrays |= {f"factors/{k}": v for k, v in self.factors.state().items()}
            for m, (weights, effects) in enumerate(
                zip(self.factors.model.weights, self.factors.model.effects, strict=True)
            ):
                arrays[f"effects/{m}"] = effects
                arrays |= {f"factor_weights/{m}/{k}": v.numpy() for k, v in weights._asdict().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`state` gave."""
        self.moments.restore(_under("moments/", arrays))
        self.plain.share_samples(self.moments)
        self.plain.restore_fitted(_under("plain/", arrays))
        self.shares, self.plain_shares, self.variance = {}, {}, {}
        held_by = {"share/": self.shares, "plain_share/": self.plain_shares, "variance/": self.variance}
        for kind, held in held_by.items():
            for name, value in _under(kind, arrays).items():
                listed, target = name.split("/")
                held[tuple(int(s) for s in listed.split("-")), int(target)] = value
        self.factors = None
        if stored := _under("factors/", arrays):
            self.factors = FactorPredictor(n_folds=self.n_folds, seed=self.seed)
            self.factors.restore(stored)
            effects = _under("effects/", arrays)
            fields = [_under(f"factor_weights/{m}/", arrays) for m in range(len(effects))]
            weights = tuple(Weights(*(torch.from_numpy(f[k]) for k in Weights._fields)) for f in fields)
            self.factors.model = FactorModel(weights, tuple(effects[str(m)] for m in range(len(effects))))


def _weights(
    truth: Float32, seen: NDArray[np.bool_], found: CrossFit, other: CrossFit, *, by_size: bool = False
) -> Array:
    """``(p,)`` weights in [0, 1] of what another prediction adds: :func:`shrunken_slopes`."""
    left = np.where(seen, truth - found.prediction, 0)
    difference = np.where(seen, other.prediction - found.prediction, 0)
    slopes = shrunken_slopes(left, difference, seen.sum(0).astype(np.float64), by_size=by_size)
    return np.clip(slopes, 0.0, 1.0)


def _proven(truth: Float32, seen: NDArray[np.bool_], found: CrossFit, other: CrossFit) -> bool:
    """Whether another prediction adds anything to samples of a fold, at the weights that the other folds give it.

    With some dozens of samples the weights of hundreds of features are mostly chance, and the samples that set them
    cannot tell.
    """
    gained = np.zeros(len(truth))
    for fold in np.unique(found.folds):
        test = found.folds == fold
        weights = _weights(truth[~test], seen[~test], _rows(found, ~test), _rows(other, ~test), by_size=True)
        moved = _moved(_rows(found, test), _rows(other, test), weights)
        before, after = (np.where(seen[test], truth[test] - f, 0) for f in (found.prediction[test], moved.prediction))
        gained[test] = (before**2 - after**2).sum(1, dtype=np.float64)
    return bool(gained.mean() > LEAST_GAIN * gained.std() / np.sqrt(len(gained)))


def _rows(fit: CrossFit, kept: NDArray[np.bool_]) -> CrossFit:
    return CrossFit(fit.rows[kept], fit.folds[kept], fit.prediction[kept])


def _moved(found: CrossFit, other: CrossFit, weights: Array) -> CrossFit:
    """Predictions moved towards others by a weight a feature."""
    difference = other.prediction - found.prediction
    return found._replace(prediction=found.prediction + weights.astype(np.float32) * difference)


def _under(prefix: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
