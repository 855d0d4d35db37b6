"""Imputation by probabilistic CCA: the exact posterior of the factors, and predictions of samples held out by folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from omicvae.stats.components import Array, Block, Float32, covariate_effects, residual
from omicvae.stats.gates import feature_gains
from omicvae.stats.patterns import CrossFit, Key, assign_folds
from omicvae.stats.probabilistic_cca import Posterior, Weights, evidence, find_gaps, posterior, predict
from omicvae.stats.variational_factors import Fit, Rows, fit_factors, measured_rows

LEAST_ROWS = 20  # with fewer samples in common, held-out predictions say nothing
LEAST_VARIANCE = 1e-6


class FactorModel(NamedTuple):
    """A fitted model around what covariates explain."""

    weights: tuple[Weights, ...]
    """One a modality."""
    effects: tuple[Array, ...]
    """(1 + c, p) intercept and effects of covariates on each modality's features."""

    @property
    def n_factors(self) -> int:
        """Number of factors ``K``."""
        return self.weights[0].mean.shape[1]

    def given(self, values: Mapping[int, Float32], designs: Mapping[int, Float32]) -> Posterior:
        """Posterior of the factors of samples that all have the same modalities.

        Parameters
        ----------
        values, designs
            Modality's position -> ``(n, p)`` standardised values, NaN where not measured, and ``(n, c)`` covariates.
        """
        n = len(next(iter(values.values())))
        found, rows = [], []
        for m, x in values.items():
            around = torch.from_numpy(residual(x, None, designs[m], self.effects[m])).double()
            found.append(
                evidence(self.weights[m], around.nan_to_num(), find_gaps(~around.isnan()), with_constant=False)
            )
            rows.append(torch.arange(n))
        return posterior(found, rows, n, self.n_factors)

    def fixed(self, target: int, design: NDArray[np.floating]) -> Array:
        """``(..., p)`` what covariates ``(..., c)`` explain."""
        effects = self.effects[target]
        return np.asarray(effects[0] + design @ effects[1:])


class Sizes(NamedTuple):
    """What a fit is told."""

    n_factors: int
    n_private: tuple[int, ...]
    n_iter: int


class Scale(NamedTuple):
    """What held-out predictions of a pattern say about its predictions."""

    gains: Array
    """(p,) factor on the prediction."""
    variance: Array
    """(p,) of what it leaves."""


class FactorPredictor:
    """Prediction of every modality from every set of others by one model of all of them.

    Parameters
    ----------
    sizes
        Numbers of factors and iterations; may be set later.
    n_folds
        Of the cross-fit.
    seed
        Of folds.
    """

    def __init__(self, sizes: Sizes | None = None, *, n_folds: int = 5, seed: int = 0) -> None:
        self.sizes = Sizes(1, (), 1) if sizes is None else sizes
        self.n_folds, self.seed = n_folds, seed
        self.scales: dict[Key, Scale] = {}
        self.model: FactorModel
        self.elbo: Tensor

    # ------------------------------------------------------------------ fit

    def prepare(self, blocks: Sequence[Block], present: NDArray[np.bool_]) -> None:
        """Take training samples in.

        Parameters
        ----------
        blocks
            One a modality.
        present
            ``(n, M)`` which samples have which.
        """
        self.blocks, self.present = tuple(blocks), present
        self.folds = assign_folds(present, self.n_folds, self.seed)
        self.position = np.full(present.shape, -1, dtype=np.intp)
        for m, block in enumerate(self.blocks):
            self.position[block.rows, m] = np.arange(len(block.rows))
        self.scales = {}
        self._held_out: dict[int, FactorModel] = {}

    def fit(self) -> None:
        """Fit the model to all training samples."""
        self.model, fit = fit_model(self.blocks, np.ones(len(self.present), bool), self.sizes)
        self.elbo = fit.elbo

    def common(self, key: Key) -> NDArray[np.intp]:
        """Samples that have all sources and the target."""
        return np.flatnonzero(self.present[:, [*key[0], key[1]]].all(1)).astype(np.intp)

    def supported(self, key: Key) -> bool:
        """Whether enough samples have all sources and the target to learn from held-out predictions."""
        return len(self.common(key)) >= LEAST_ROWS

    def fit_pattern(self, key: Key) -> CrossFit:
        """Learn the scale of a pattern's predictions from samples that have sources and target.

        Returns
        -------
        Predictions of these samples, each by a fit without its fold.
        """
        rows, signal, fixed = self._crossed(key)
        block = self.blocks[key[1]]
        at = self.position[rows, key[1]]
        truth = block.values[at] - fixed
        seen = np.ones(truth.shape, bool) if block.observed is None else block.observed[at]
        truth, masked = np.where(seen, truth, np.float32(0)), np.where(seen, signal, np.float32(0))
        n_obs = seen.sum(0).astype(np.float64)
        gains = feature_gains(truth, masked, n_obs)
        left = truth - gains * masked
        self.scales[key] = Scale(gains, (left**2).sum(0) / np.maximum(n_obs, 1))
        return CrossFit(rows, self.folds[rows], fixed + gains.astype(np.float32) * signal)

    def cross_fit(self, key: Key) -> CrossFit:
        """The predictions of :meth:`fit_pattern` once more."""
        rows, signal, fixed = self._crossed(key)
        return CrossFit(rows, self.folds[rows], fixed + self.scales[key].gains.astype(np.float32) * signal)

    def _crossed(self, key: Key) -> tuple[NDArray[np.intp], Float32, Float32]:
        """Samples with sources and target; what the factors and what covariates predict, by fits without them."""
        sources, target = key
        rows = self.common(key)
        signal = np.zeros((len(rows), self.blocks[target].values.shape[1]), dtype=np.float32)
        fixed = np.zeros_like(signal)
        for fold in np.unique(self.folds[rows]):
            here = self.folds[rows] == fold
            model = self._without(int(fold))
            values = {a: _with_nan(self.blocks[a], self.position[rows[here], a]) for a in sources}
            designs = {a: self.blocks[a].design[self.position[rows[here], a]] for a in sources}
            q = model.given(values, designs)
            signal[here] = predict(model.weights[target], q)[0].numpy()
            fixed[here] = model.fixed(target, self.blocks[target].design[self.position[rows[here], target]])
        return rows, signal, fixed

    def _without(self, fold: int) -> FactorModel:
        if fold not in self._held_out:
            self._held_out[fold], _ = fit_model(self.blocks, self.folds != fold, self.sizes)
        return self._held_out[fold]

    # ------------------------------------------------------------------ predict

    def covering(self, sources: Sequence[int], target: int) -> list[Key]:
        """The largest set among ``sources`` whose predictions have a scale, as a list of at most one."""
        fitted = [k for k in self.scales if k[1] == target and set(k[0]) <= set(sources)]
        return sorted(fitted, key=lambda k: (-len(k[0]), float(self.scales[k].variance.mean())))[:1]

    def checked(self, sources: Sequence[int], target: int) -> tuple[int, ...]:
        """Those of the sources that some pattern with a scale has; all of them if none has any.

        How a source and a target that were never measured together depend on one another, given a third, cannot be
        learned: a factor model takes the simplest answer, and is sure of it.
        """
        known = {a for k in self.scales if k[1] == target and set(k[0]) <= set(sources) for a in k[0]}
        return tuple(a for a in sources if a in known) or tuple(sources)

    def signal(self, key: Key, values: Sequence[Float32], designs: Sequence[Float32]) -> Float32:
        """``(n, p)`` prediction of new samples around what covariates explain; values may be NaN."""
        q = self.model.given(dict(zip(key[0], values, strict=True)), dict(zip(key[0], designs, strict=True)))
        found = predict(self.model.weights[key[1]], q)[0].numpy()
        return np.asarray(self.scales[key].gains * found, dtype=np.float32)

    def fixed(self, target: int, design: NDArray[np.floating]) -> Float32:
        """``(..., p)`` what covariates ``(..., c)`` explain."""
        return self.model.fixed(target, design).astype(np.float32)

    def precision(self, key: Key) -> Array:
        """``(p,)`` inverse variance of what a pattern's held-out predictions leave."""
        return np.asarray(1 / np.maximum(self.scales[key].variance, LEAST_VARIANCE))

    def adopt(self, other: FactorPredictor) -> None:
        """Take over the fit of a predictor of the same samples."""
        self.model, self.scales = other.model, dict(other.scales)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays that :meth:`restore` reads; the model itself is not among them."""
        arrays: dict[str, NDArray[Any]] = {"sizes": np.array([self.sizes.n_factors, self.sizes.n_iter])}
        arrays["n_private"] = np.array(self.sizes.n_private)
        for (sources, target), scale in self.scales.items():
            stem = f"scale/{'-'.join(map(str, sources))}/{target}"
            arrays |= {f"{stem}/{name}": value for name, value in scale._asdict().items()}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`state` gave."""
        n_factors, n_iter = (int(v) for v in arrays["sizes"])
        self.sizes = Sizes(n_factors, tuple(int(v) for v in arrays["n_private"]), n_iter)
        self.scales = {}
        for stem in sorted({name.rsplit("/", 1)[0] for name in arrays if name.startswith("scale/")}):
            _, listed, target = stem.split("/")
            sources = tuple(int(s) for s in listed.split("-"))
            self.scales[sources, int(target)] = Scale(*(arrays[f"{stem}/{name}"] for name in Scale._fields))


def fit_model(blocks: Sequence[Block], kept: NDArray[np.bool_], sizes: Sizes) -> tuple[FactorModel, Fit]:
    """Fit a model to the samples marked in ``kept`` ``(n,)``."""
    rows, effects = model_rows(blocks, kept)
    fit = fit_factors(rows, int(kept.sum()), sizes.n_factors, sizes.n_private, max_iter=sizes.n_iter, tolerance=0.0)
    return FactorModel(fit.weights, effects), fit


def model_rows(
    blocks: Sequence[Block], kept: NDArray[np.bool_], effects: Sequence[Array] | None = None
) -> tuple[list[Rows], tuple[Array, ...]]:
    """Some samples' values around what covariates explain, and that; ``effects`` are found in these samples if not given."""
    number = np.cumsum(kept) - 1
    found, used = [], []
    for m, block in enumerate(blocks):
        at = np.flatnonzero(kept[block.rows])
        effect = _effects(block, at) if effects is None else effects[m]
        seen = None if block.observed is None else block.observed[at]
        x = torch.from_numpy(residual(block.values[at], seen, block.design[at], effect))
        mask = None if seen is None else torch.from_numpy(seen)
        found.append(measured_rows(x, torch.from_numpy(number[block.rows[at]]), mask))
        used.append(effect)
    return found, tuple(used)


def _effects(block: Block, rows: NDArray[np.intp]) -> Array:
    if len(rows) == 0:
        return np.zeros((1 + block.design.shape[1], block.values.shape[1]))
    return covariate_effects(block, rows)


def _with_nan(block: Block, rows: NDArray[np.intp]) -> Float32:
    values = block.values[rows]
    return values if block.observed is None else np.where(block.observed[rows], values, np.float32("nan"))
