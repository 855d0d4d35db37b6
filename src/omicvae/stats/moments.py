r"""Prediction of an assay from any set of others, in closed form.

The codes of an assay are all its whitened (kernel) principal components, the prior correlation of two assays' codes is
their sample correlation :math:`S`, and a code's evidence has a constant precision
:math:`\Lambda = s^2 / \lambda` (:math:`s^2` the component's variance). The posterior mean of the target's codes given
the sources :math:`O` is then

.. math::

    \operatorname{E} z_t = c_t \odot S_{tO} (S_{OO} + \Lambda_O^{-1})^{-1} z_O,

with gates :math:`c_t` on the target's components. Because all components are kept, this equals kernel ridge regression
of the target's codes with the kernel :math:`\sum_{a \in O} k_a / \lambda_a` (the push-through identity), which is how it
is computed (:mod:`omicvae.stats.kernel_ridge`); with a linear kernel and open gates it is ridge regression with one penalty
an assay (:mod:`omicvae.stats.penalties`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from omicvae.stats.components import Array, Block, Float32, Rows
from omicvae.stats.gates import feature_gains, isotonic_gates
from omicvae.stats.kernel_ridge import RegressionSamples
from omicvae.stats.kernels import MixedKernel
from omicvae.stats.patterns import (
    LEAST_ROWS,
    LEAST_VARIANCE,
    CrossFit,
    Key,
    SampleErrors,
    cover,
    gained_precision,
)
from omicvae.stats.penalties import Penalties, sums_of

CLOSED = 5e-3  # a gate below is shut


class Directed(NamedTuple):
    """A fitted prediction of one assay from one set of sources."""

    weights: tuple[Float32, ...]
    """(m_a, k) of each source's features, with gates."""
    offset: Array
    """(k,)"""
    components: Rows
    """(k,) components of the target's basis whose gates are open."""
    gains: Array
    """(p,)"""
    variance: Array
    """(p,) of cross-fitted residuals."""
    total: Array
    """(p,) around what covariates explain, in the same samples."""
    n_obs: int
    """Samples with all sources and the target."""


class MomentPredictor:
    """Closed-form prediction of every assay from every set of others.

    Parameters
    ----------
    kernel
        Of source samples; linear and radial parts by default.
    n_folds
        Of the cross-fit that sets penalties, gates, gains and residuals.
    seed
        Of folds and landmarks.
    gated
        Whether there are gates on the target's components. Without them it is ridge regression of every feature, with
        penalties chosen for features: right where what assays share is not in the leading components.

    References
    ----------
    Caretti et al., CoVAE, eq. (2), for the posterior; penalties, gates and gains are this package's own.
    """

    samples: RegressionSamples
    """What is regressed; there once :meth:`prepare`, :meth:`share_samples` or :meth:`restore` was called."""

    def __init__(
        self, kernel: MixedKernel | None = None, *, n_folds: int = 5, seed: int = 0, gated: bool = True
    ) -> None:
        self.kernel = kernel or MixedKernel()
        self.n_folds, self.seed, self.gated = n_folds, seed, gated
        self.directed: dict[Key, Directed] = {}
        self.errors: dict[Key, SampleErrors] = {}
        self._covers: dict[Key, list[Key]] = {}

    # ------------------------------------------------------------------ fit

    def prepare(self, blocks: Sequence[Block], present: NDArray[np.bool_]) -> None:
        """Take training samples in.

        Parameters
        ----------
        blocks
            One an assay, in a fixed order.
        present
            ``(n, M)`` which samples have which assay.
        """
        self._take(RegressionSamples(blocks, present, self.kernel, n_folds=self.n_folds, seed=self.seed))

    def share_samples(self, other: MomentPredictor) -> None:
        """Take in the samples of another predictor, with their kernels, components and folds."""
        self._take(other.samples)

    def _take(self, samples: RegressionSamples) -> None:
        self.samples, self.penalties = samples, Penalties(samples, gated=self.gated)
        self.directed, self.errors, self._covers = {}, {}, {}

    def supported(self, key: Key) -> bool:
        """Whether enough samples have all sources and the target."""
        return len(self.samples.common(key)) >= LEAST_ROWS

    def fit_pattern(self, key: Key) -> CrossFit:
        """Fit the prediction of a target from a set of sources.

        Returns
        -------
        Predictions of the samples that have them all, each by fits without its fold.

        Raises
        ------
        ValueError
            If fewer than :data:`LEAST_ROWS` samples have sources and target.
        """
        target = key[1]
        rows, block = self.samples.common(key), self.samples.blocks[target]
        if len(rows) < LEAST_ROWS:
            raise ValueError(f"{len(rows)} samples have both sources and target; at least {LEAST_ROWS} are needed")
        at = self.samples.position[rows, target]
        strengths = self.penalties.strengths(key)
        held = [self.samples.held_out_codes(key, rows, fold, strengths) for fold in range(self.n_folds)]
        gates = self._gates(held)
        signal = self._in_features(key, rows, held, gates)
        fixed = self.samples.held_out_fixed(target, rows)
        scale = _scale(block, at, signal, fixed)
        self.errors[key], self._covers = SampleErrors(rows, scale.error), {}
        basis = self.samples.bases[target]
        regression = self.samples.regress(key, rows, basis.codes(block, at), strengths)
        gates = _padded(gates, len(basis.scale))
        open_ = np.flatnonzero(gates > CLOSED).astype(np.intp)
        self.directed[key] = Directed(
            weights=tuple((w[:, open_] * gates[open_]).astype(np.float32) for w in regression.weights),
            offset=regression.offset[open_] * gates[open_],
            components=open_,
            gains=scale.gains,
            variance=scale.variance,
            total=scale.total,
            n_obs=len(rows),
        )
        return CrossFit(rows, self.samples.folds[rows], fixed + scale.gains.astype(np.float32) * signal)

    def _gates(self, held: list[tuple[Array, Array]]) -> Array:
        products, squares = sums_of(held)[1:]
        return isotonic_gates(products, squares) if self.gated else np.ones(len(products))

    def _in_features(self, key: Key, rows: Rows, held: list[tuple[Array, Array]], gates: Array) -> Float32:
        """``(len(rows), p)`` cross-fitted predictions around covariates' effects, before gains."""
        target = key[1]
        out = np.zeros((len(rows), self.samples.blocks[target].values.shape[1]), dtype=np.float32)
        for fold, (_, found) in enumerate(held):
            basis = self.samples.fold_basis(target, fold)
            weighted = found * _padded(gates, found.shape[1]) * basis.scale
            out[self.samples.folds[rows] == fold] = weighted @ basis.loadings.T
        return out

    # ------------------------------------------------------------------ predict

    def cross_fit(self, key: Key) -> CrossFit:
        """Predictions of all samples that have sources and target, each by fits without its fold.

        Penalties, gates and gains are those of all folds.
        """
        rows = self.samples.common(key)
        strengths = self.penalties.strengths(key)
        held = [self.samples.held_out_codes(key, rows, fold, strengths) for fold in range(self.n_folds)]
        signal = self._in_features(key, rows, held, self._gates(held))
        gains = self.directed[key].gains.astype(np.float32)
        return CrossFit(rows, self.samples.folds[rows], self.samples.held_out_fixed(key[1], rows) + gains * signal)

    def signal(self, key: Key, values: Sequence[Float32], designs: Sequence[Float32]) -> Float32:
        """Prediction of new samples around what the target's covariates explain.

        Parameters
        ----------
        key
            A fitted pattern.
        values, designs
            Standardised values ``(n, p_a)``, NaN where not measured, and covariates ``(n, c_a)`` of each source.

        Returns
        -------
        ``(n, p)`` on the standardised scale.
        """
        sources, target = key
        fit, basis = self.directed[key], self.samples.bases[target]
        codes: Array = -fit.offset
        for a, x, z, w in zip(sources, values, designs, fit.weights, strict=True):
            codes = codes + self.samples.features(a, x, z) @ w
        signal = (codes * basis.scale[fit.components]) @ basis.loadings[:, fit.components].T
        return (fit.gains * signal).astype(np.float32)

    def fixed(self, target: int, design: NDArray[np.floating]) -> Float32:
        """``(..., p)`` what covariates ``(..., c)`` explain of a target."""
        return self.samples.bases[target].fixed(design).astype(np.float32)

    def precision(self, key: Key) -> Array:
        """``(p,)`` precision that a pattern's prediction adds to knowing covariates alone; hardly any where it adds none."""
        fit = self.directed[key]
        return gained_precision(fit.variance, fit.total)

    def covering(self, sources: Sequence[int], target: int) -> list[Key]:
        """Fitted patterns to predict a target with: the one with these sources, else the best that cover them.

        Patterns with few samples in common can be worse than smaller ones: two are compared in the samples that both have.
        The best comes first, and others follow while they bring sources of their own.
        """
        key = tuple(sorted(sources)), target
        if key not in self._covers:
            unexplained = {
                k: float(fit.variance.mean() / max(fit.total.mean(), LEAST_VARIANCE))
                for k, fit in self.directed.items()
                if k[1] == target
            }
            self._covers[key] = cover(sources, unexplained, self.errors)
        return self._covers[key]

    def forget(self, key: Key) -> None:
        """Drop a fitted pattern."""
        self.directed.pop(key), self.errors.pop(key)
        self._covers = {}

    def adopt(self, other: MomentPredictor) -> None:
        """Take over the fitted patterns of a predictor of the same samples."""
        self.directed, self.errors, self._covers = dict(other.directed), dict(other.errors), {}
        self.penalties.adopt(other.penalties)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restore` makes predictions of new samples."""
        return self.samples.state() | self.fitted_state()

    def fitted_state(self) -> dict[str, NDArray[Any]]:
        """That part of :meth:`state` which predictors of the same samples do not have in common."""
        arrays = self.penalties.state()
        for (sources, target), errors in self.errors.items():
            stem = f"error/{'-'.join(map(str, sources))}/{target}"
            arrays |= {f"{stem}/{name}": value for name, value in errors._asdict().items()}
        for (sources, target), fit in self.directed.items():
            stem = f"directed/{'-'.join(map(str, sources))}/{target}"
            arrays |= {f"{stem}/weights-{i}": w for i, w in enumerate(fit.weights)}
            kept = fit._replace(weights=())._asdict()
            arrays |= {f"{stem}/{name}": np.asarray(kept[name]) for name in kept if name != "weights"}
        return arrays

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`state` gave; patterns cannot be fitted again without training samples."""
        self._take(RegressionSamples.restored(arrays))
        self.kernel = self.samples.kernel
        self.restore_fitted(arrays)

    def restore_fitted(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`fitted_state` gave."""
        self.penalties.restore(arrays)
        self.directed, self.errors, self._covers = {}, {}, {}
        for stem in sorted({name.rsplit("/", 1)[0] for name in arrays if name.startswith("directed/")}):
            _, listed, target = stem.split("/")
            sources = tuple(int(s) for s in listed.split("-"))
            parts = {name: arrays[f"{stem}/{name}"] for name in Directed._fields if name not in ("weights", "n_obs")}
            weights = tuple(arrays[f"{stem}/weights-{i}"] for i in range(len(sources)))
            self.directed[sources, int(target)] = Directed(weights=weights, n_obs=int(arrays[f"{stem}/n_obs"]), **parts)
            stem = f"error/{listed}/{target}"
            self.errors[sources, int(target)] = SampleErrors(arrays[f"{stem}/rows"], arrays[f"{stem}/error"])


class _Scale(NamedTuple):
    """How held-out predictions relate to what was measured."""

    gains: Array
    """(p,)"""
    variance: Array
    """(p,) of what predictions leave, ..."""
    total: Array
    """... and of what there was, over measured values; 1 of a feature that was never measured here."""
    error: Float32
    """(n,) mean square of what is left of each sample."""


def _scale(block: Block, at: Rows, signal: Float32, fixed: Float32) -> _Scale:
    """Of predictions ``(n, p)`` of a target's rows ``at``, around what covariates explain."""
    truth = block.values[at] - fixed
    seen = None if block.observed is None else block.observed[at]
    if seen is not None:
        truth, signal = np.where(seen, truth, np.float32(0)), np.where(seen, signal, np.float32(0))
    n_obs = np.full(truth.shape[1], len(at), float) if seen is None else seen.sum(0).astype(float)
    gains = feature_gains(truth, signal, n_obs)
    left = truth - gains.astype(np.float32) * signal
    variance, total = (
        np.where(n_obs > 0, np.einsum("ij,ij->j", x, x, dtype=np.float64) / np.maximum(n_obs, 1), 1.0)
        for x in (left, truth)
    )
    n_values = np.full(len(at), truth.shape[1]) if seen is None else np.maximum(seen.sum(1), 1)
    return _Scale(gains, variance, total, (np.einsum("ij,ij->i", left, left) / n_values).astype(np.float32))


def _padded(gates: Array, width: int) -> Array:
    """Gates of more components than were compared: the last one's for the rest."""
    if len(gates) == 0:
        return np.zeros(width)
    return np.concatenate([gates, np.full(max(0, width - len(gates)), gates[-1])])[:width]
