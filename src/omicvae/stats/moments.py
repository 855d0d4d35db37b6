r"""Prediction of an assay from any set of others, in closed form.

The codes of an assay are all its whitened (kernel) principal components, the prior correlation of two assays' codes is
their sample correlation :math:`S`, and a code's evidence has a constant precision
:math:`\Lambda = s^2 / \lambda` (:math:`s^2` the component's variance). The posterior mean of the target's codes given
the sources :math:`O` is then

.. math::

    \operatorname{E} z_t = c_t \odot S_{tO} (S_{OO} + \Lambda_O^{-1})^{-1} z_O,

with gates :math:`c_t` on the target's components. Because all components are kept, this equals kernel ridge regression
of the target's codes with the kernel :math:`\sum_{a \in O} k_a / \lambda_a` (the push-through identity), which is how it
is computed here; with a linear kernel and open gates it is ridge regression with one penalty an assay. Penalties are chosen
for each source alone, and raised for several sources together where held-out samples are then predicted better: what a
source says that others say too, or nothing at all, is not to count twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from omicvae.stats.components import (
    Array,
    Basis,
    Block,
    Float32,
    Rows,
    covariate_effects,
    principal_components,
    residual,
)
from omicvae.stats.gates import feature_gains, gained_error, gated_error, isotonic_gates
from omicvae.stats.kernels import KernelRows, MixedKernel
from omicvae.stats.patterns import (
    LEAST_ROWS,
    LEAST_VARIANCE,
    CrossFit,
    Key,
    SampleErrors,
    assign_folds,
    cover,
    gained_precision,
)

PENALTIES = np.logspace(-3, 2, 16)
PENALTY_FOLDS = 3  # of the folds, on which penalties are compared; one, where each costs a factorisation
SHARES = (0.0, 0.1, 0.3)  # of a source's own strength, beside others
SHARE_ROWS = 1000  # samples, evenly spread, that shares are chosen on
COARSE = slice(1, None, 2)  # of the penalties, where each costs a factorisation
EXACT_ROWS = 3000  # kernel matrices up to this size are kept and factorised
LANDMARKS = 1500
EIGEN_ROWS = 1500  # up to this many rows an eigendecomposition serves all penalties
CLOSED = 5e-3  # a gate below is shut
SAMPLES = ("blocks", "present", "folds", "position", "source_effects", "kernels", "bases", "_fold_bases")
"""What predictors of the same samples have in common."""


class Regression(NamedTuple):
    """Kernel ridge regression of codes, before gates."""

    weights: tuple[Array, ...]
    """(m_a, k) of each source's features."""
    offset: Array
    """(k,)"""


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

    Samples may lack any assays: principal components use all samples that have the target, each regression all samples
    that have its sources and the target.

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

    def __init__(
        self, kernel: MixedKernel | None = None, *, n_folds: int = 5, seed: int = 0, gated: bool = True
    ) -> None:
        self.kernel = kernel or MixedKernel()
        self.n_folds, self.seed, self.gated = n_folds, seed, gated
        self.directed: dict[Key, Directed] = {}
        self.errors: dict[Key, SampleErrors] = {}
        self._covers: dict[Key, list[Key]] = {}
        self._penalties: dict[tuple[int, int], float] = {}
        self._shares: dict[Key, Array] = {}

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
        self.blocks = tuple(blocks)
        self.present = present
        self.directed, self.errors, self._covers = {}, {}, {}
        self.folds = assign_folds(present, self.n_folds, self.seed)
        self.position = np.full(present.shape, -1, dtype=np.intp)
        for m, block in enumerate(self.blocks):
            self.position[block.rows, m] = np.arange(len(block.rows))
        self.source_effects = tuple(covariate_effects(b, np.arange(len(b.rows))) for b in self.blocks)
        self.kernels = tuple(
            KernelRows(
                self.kernel,
                residual(b.values, b.observed, b.design, effect),
                limit=EXACT_ROWS if len(b.rows) <= EXACT_ROWS else LANDMARKS,
                seed=self.seed,
            )
            for b, effect in zip(self.blocks, self.source_effects, strict=True)
        )
        everyone = [np.arange(len(b.rows), dtype=np.intp) for b in self.blocks]
        self.bases = tuple(principal_components(b, rows) for b, rows in zip(self.blocks, everyone, strict=True))
        self._fold_bases: dict[tuple[int, int], Basis] = {}
        self._penalties, self._shares = {}, {}

    def without_gates(self) -> MomentPredictor:
        """A predictor of the same samples, kernels, components and folds, but without gates; not fitted."""
        other = MomentPredictor(self.kernel, n_folds=self.n_folds, seed=self.seed, gated=False)
        for name in SAMPLES:
            if hasattr(self, name):
                setattr(other, name, getattr(self, name))
        return other

    def common(self, key: Key) -> Rows:
        """Samples that have all sources and the target."""
        sources, target = key
        return np.flatnonzero(self.present[:, [*sources, target]].all(1)).astype(np.intp)

    def supported(self, key: Key) -> bool:
        """Whether enough samples have all sources and the target."""
        return len(self.common(key)) >= LEAST_ROWS

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
        rows, block = self.common(key), self.blocks[target]
        if len(rows) < LEAST_ROWS:
            raise ValueError(f"{len(rows)} samples have both sources and target; at least {LEAST_ROWS} are needed")
        at = self.position[rows, target]
        strengths = self._strengths(key)
        held = [self._held_out_codes(key, rows, fold, strengths) for fold in range(self.n_folds)]
        gates = self._gates(held)
        signal = self._in_features(key, rows, held, gates)
        fixed = self._held_out_fixed(target, rows)
        scale = _scale(block, at, signal, fixed)
        self.errors[key], self._covers = SampleErrors(rows, scale.error), {}
        basis = self.bases[target]
        regression = self._regress(key, rows, basis.codes(block, at), strengths)
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
        return CrossFit(rows, self.folds[rows], fixed + scale.gains.astype(np.float32) * signal)

    def _gates(self, held: list[tuple[Array, Array]]) -> Array:
        products, squares = _sums(held)[1:]
        return isotonic_gates(products, squares) if self.gated else np.ones(len(products))

    def _penalty(self, source: int, target: int) -> float:
        """Penalty of a source for a target: the least error over folds with the best gates, or gains."""
        if (source, target) not in self._penalties:
            key: Key = ((source,), target)
            rows = self.common(key)
            small = len(rows) <= EIGEN_ROWS
            grid = PENALTIES if small else PENALTIES[COARSE]
            sums = [np.zeros((len(grid), 3, 0))]
            for fold in range(min(self.n_folds, PENALTY_FOLDS) if small else 1):
                train, test = rows[self.folds[rows] != fold], rows[self.folds[rows] == fold]
                if len(train) < 2 or len(test) == 0:
                    continue
                basis, block = self._fold_basis(target, fold), self.blocks[target]
                z = basis.codes(block, self.position[train, target])
                truth = basis.codes(block, self.position[test, target])
                sums.append(self._path(source, train, test, z, self._compared(truth, basis), grid, basis))
            self._penalties[source, target] = float(grid[self._least(sums, target)] if len(sums) > 1 else grid[-1])
        return self._penalties[source, target]

    def _compared(self, codes: Array, basis: Basis) -> Array:
        """What errors are measured on: codes under gates, features without."""
        return codes if self.gated else (codes * basis.scale) @ basis.loadings.T

    def _least(self, sums: list[Array], target: int) -> int:
        if not self.gated:
            return int(np.argmin([gained_error(*t) for t in np.sum(sums[1:], axis=0)]))
        width = min(s.shape[2] for s in sums[1:])
        total = sum(s[:, :, :width] for s in sums[1:])
        weight = self.bases[target].scale[:width] ** 2
        width = min(width, len(weight))
        errors = [gated_error(t[0, :width], t[1, :width], t[2, :width], weight[:width]) for t in np.asarray(total)]
        return int(np.argmin(errors))

    def _path(self, source: int, train: Rows, test: Rows, z: Array, truth: Array, grid: Array, basis: Basis) -> Array:
        """``(len(grid), 3, k)`` sums over test rows of truth squared, truth times prediction, prediction squared."""
        p, centre = self.blocks[source].values.shape[1], z.mean(0)
        a, b = self.position[train, source], self.position[test, source]
        solve = _penalty_path(self.kernels[source], a, b, z - centre)
        out = np.zeros((len(grid), 3, truth.shape[1]))
        for i, penalty in enumerate(grid):
            found = self._compared(solve(len(train) * penalty / p) + centre, basis)
            out[i] = (truth**2).sum(0), (truth * found).sum(0), (found**2).sum(0)
        return out

    def _strengths(self, key: Key) -> Array:
        """Weight of each source's kernel: by its penalty alone, times its share where there are several."""
        sources, target = key
        alone = np.array([self.blocks[a].values.shape[1] / self._penalty(a, target) for a in sources])
        if len(sources) == 1:
            return alone
        if key not in self._shares:
            self._shares[key] = self._chosen_shares(key, alone)
        return alone * self._shares[key]

    def _chosen_shares(self, key: Key, alone: Array) -> Array:
        """Shares of sources that together predict held-out codes best: one is changed at a time, the best one first."""
        rows = self.common(key)
        if len(rows) > SHARE_ROWS:
            rows = rows[np.linspace(0, len(rows) - 1, SHARE_ROWS).astype(np.intp)]
        shares = np.ones(len(alone))
        least = self._error_of(key, rows, alone)
        for _ in alone:
            tried = [_changed(shares, i, share) for i in range(len(alone)) for share in SHARES if share < shares[i]]
            tried = [s for s in tried if s.any()]
            errors = [self._error_of(key, rows, alone * s) for s in tried]
            if not errors or min(errors) >= least:
                break
            least, shares = min(errors), tried[int(np.argmin(errors))]
        return shares

    def _error_of(self, key: Key, rows: Rows, strengths: Array) -> float:
        """Squared error of held-out codes that is left with the best gates, or of features with the best gains."""
        held = [self._held_out_codes(key, rows, fold, strengths) for fold in range(min(self.n_folds, PENALTY_FOLDS))]
        if not self.gated:
            bases = [self._fold_basis(key[1], fold) for fold in range(len(held))]
            pairs = [(self._compared(t, b), self._compared(f, b)) for (t, f), b in zip(held, bases, strict=True)]
            return gained_error(*_sums(pairs))
        sums = _sums(held)
        weight = self.bases[key[1]].scale ** 2
        width = min(len(weight), sums.shape[1])
        total, products, squares = sums[:, :width]
        return gated_error(total, products, squares, weight[:width])

    def _regress(self, key: Key, rows: Rows, codes: Array, strengths: Array) -> Regression:
        """Regress ``(len(rows), k)`` codes on the sources of samples ``rows``."""
        sources, _ = key
        scale = strengths.tolist()
        at = [self.position[rows, a] for a in sources]
        centre = codes.mean(0)
        if len(rows) > EXACT_ROWS:
            return self._regress_features(sources, at, scale, codes - centre, centre)
        gram = sum(s * self.kernels[a].inner(i, i) for a, s, i in zip(sources, scale, at, strict=True))
        assert isinstance(gram, np.ndarray)
        column = gram.mean(0)
        system = gram - column - column[:, None] + column.mean() + len(rows) * np.eye(len(rows))
        dual = scipy.linalg.solve(system, codes - centre, assume_a="pos", check_finite=False)
        weights = tuple(self.kernels[a].weights(i, s * dual) for a, s, i in zip(sources, scale, at, strict=True))
        return Regression(weights, column @ dual - centre)

    def _regress_features(
        self, sources: tuple[int, ...], at: list[Rows], scale: list[float], codes: Array, centre: Array
    ) -> Regression:
        """The same with more samples than features: normal equations of the features."""
        parts = [np.sqrt(s) * self.kernels[a].training[i] for a, s, i in zip(sources, scale, at, strict=True)]
        features = np.concatenate(parts, axis=1)
        mean = features.mean(0)
        features -= mean
        system = features.T @ features
        system.flat[:: len(system) + 1] += len(features)
        found = scipy.linalg.solve(system, features.T @ codes, assume_a="pos", check_finite=False)
        edges = np.cumsum([part.shape[1] for part in parts])[:-1]
        weights = tuple(np.sqrt(s) * w for s, w in zip(scale, np.split(found, edges), strict=True))
        return Regression(weights, mean @ found - centre)

    def _fold_basis(self, target: int, fold: int) -> Basis:
        """Basis from the samples outside a fold: one from all samples would leak into gates."""
        if (target, fold) not in self._fold_bases:
            block = self.blocks[target]
            self._fold_bases[target, fold] = principal_components(block, np.flatnonzero(self.folds[block.rows] != fold))
        return self._fold_bases[target, fold]

    def _held_out_codes(self, key: Key, rows: Rows, fold: int, strengths: Array) -> tuple[Array, Array]:
        """Codes of a fold's samples and their predictions, both in the basis of the other folds."""
        sources, target = key
        train, test = rows[self.folds[rows] != fold], rows[self.folds[rows] == fold]
        basis, block = self._fold_basis(target, fold), self.blocks[target]
        truth = basis.codes(block, self.position[test, target])
        if len(train) < 2:
            return truth, np.zeros_like(truth)
        regression = self._regress(key, train, basis.codes(block, self.position[train, target]), strengths)
        found = -regression.offset + sum(
            self.kernels[a].training[self.position[test, a]] @ w
            for a, w in zip(sources, regression.weights, strict=True)
        )
        return truth, found

    def _in_features(self, key: Key, rows: Rows, held: list[tuple[Array, Array]], gates: Array) -> Float32:
        """``(len(rows), p)`` cross-fitted predictions around covariates' effects, before gains."""
        target = key[1]
        out = np.zeros((len(rows), self.blocks[target].values.shape[1]), dtype=np.float32)
        for fold, (_, found) in enumerate(held):
            basis = self._fold_basis(target, fold)
            weighted = found * _padded(gates, found.shape[1]) * basis.scale
            out[self.folds[rows] == fold] = weighted @ basis.loadings.T
        return out

    def _held_out_fixed(self, target: int, rows: Rows) -> Float32:
        block = self.blocks[target]
        out = np.zeros((len(rows), block.values.shape[1]), dtype=np.float32)
        for fold in range(self.n_folds):
            here = self.folds[rows] == fold
            at = self.position[rows[here], target]
            out[here] = self._fold_basis(target, fold).fixed(block.design[at])
        return out

    # ------------------------------------------------------------------ predict

    def cross_fit(self, key: Key) -> CrossFit:
        """Predictions of all samples that have sources and target, each by fits without its fold.

        Penalties, gates and gains are those of all folds.
        """
        rows = self.common(key)
        strengths = self._strengths(key)
        held = [self._held_out_codes(key, rows, fold, strengths) for fold in range(self.n_folds)]
        signal = self._in_features(key, rows, held, self._gates(held))
        gains = self.directed[key].gains.astype(np.float32)
        return CrossFit(rows, self.folds[rows], self._held_out_fixed(key[1], rows) + gains * signal)

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
        fit, basis = self.directed[key], self.bases[target]
        codes: Array = -fit.offset
        for a, x, z, w in zip(sources, values, designs, fit.weights, strict=True):
            seen = ~np.isnan(x)
            around = residual(x, None if seen.all() else seen, z, self.source_effects[a])
            codes = codes + self.kernels[a].features(around) @ w
        signal = (codes * basis.scale[fit.components]) @ basis.loadings[:, fit.components].T
        return (fit.gains * signal).astype(np.float32)

    def fixed(self, target: int, design: NDArray[np.floating]) -> Float32:
        """``(..., p)`` what covariates ``(..., c)`` explain of a target."""
        return self.bases[target].fixed(design).astype(np.float32)

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
        self._penalties, self._shares = dict(other._penalties), dict(other._shares)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restore` makes predictions of new samples.

        Kernels need the samples (or landmarks) they compare with: these are part of it.
        """
        arrays: dict[str, NDArray[Any]] = {"kernel": np.array([self.kernel.nonlinear, self.kernel.gamma])}
        for m, (rows, basis) in enumerate(zip(self.kernels, self.bases, strict=True)):
            arrays |= {f"landmarks/{m}": rows.landmarks, f"source_effects/{m}": self.source_effects[m]}
            arrays |= {f"basis/{m}/{name}": value for name, value in basis._asdict().items()}
            if rows.factor is not None:
                arrays[f"factor/{m}"] = rows.factor
        return arrays | self.fitted_state()

    def fitted_state(self) -> dict[str, NDArray[Any]]:
        """That part of :meth:`state` which predictors of the same samples do not have in common."""
        arrays: dict[str, NDArray[Any]] = {}
        arrays |= {f"penalty/{a}/{t}": np.asarray(v) for (a, t), v in self._penalties.items()}
        arrays |= {f"share/{'-'.join(map(str, sources))}/{t}": v for (sources, t), v in self._shares.items()}
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
        nonlinear, gamma = arrays["kernel"]
        self.kernel = MixedKernel(float(nonlinear), float(gamma))
        n = len([name for name in arrays if name.startswith("landmarks/")])
        self.kernels = tuple(
            KernelRows.restored(self.kernel, arrays[f"landmarks/{m}"], arrays.get(f"factor/{m}")) for m in range(n)
        )
        self.source_effects = tuple(arrays[f"source_effects/{m}"] for m in range(n))
        self.bases = tuple(Basis(*(arrays[f"basis/{m}/{name}"] for name in Basis._fields)) for m in range(n))
        self.restore_fitted(arrays)

    def restore_fitted(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`fitted_state` gave."""
        penalties = {n: v for n, v in arrays.items() if n.startswith("penalty/")}
        self._penalties = {(int(n.split("/")[1]), int(n.split("/")[2])): float(v) for n, v in penalties.items()}
        self._shares = {}
        for name in (n for n in arrays if n.startswith("share/")):
            _, listed, target = name.split("/")
            self._shares[tuple(int(a) for a in listed.split("-")), int(target)] = arrays[name]
        self.directed, self.errors, self._covers = {}, {}, {}
        for stem in sorted({name.rsplit("/", 1)[0] for name in arrays if name.startswith("directed/")}):
            _, listed, target = stem.split("/")
            sources = tuple(int(s) for s in listed.split("-"))
            parts = {name: arrays[f"{stem}/{name}"] for name in Directed._fields if name not in ("weights", "n_obs")}
            weights = tuple(arrays[f"{stem}/weights-{i}"] for i in range(len(sources)))
            self.directed[sources, int(target)] = Directed(weights=weights, n_obs=int(arrays[f"{stem}/n_obs"]), **parts)
            stem = f"error/{listed}/{target}"
            self.errors[sources, int(target)] = SampleErrors(arrays[f"{stem}/rows"], arrays[f"{stem}/error"])


def _changed(shares: Array, at: int, share: float) -> Array:
    found = shares.copy()
    found[at] = share
    return found


def _penalty_path(kernel: KernelRows, train: Rows, test: Rows, z: Array) -> Callable[[float], Array]:
    """Penalty -> ``(n_test, k)`` predictions of centred codes ``z`` ``(n_train, k)``; one factorisation serves many."""
    if not kernel.exact and len(train) > kernel.training.shape[1]:
        features, across = kernel.training[train], kernel.training[test]
        mean = features.mean(0)
        features, across = features - mean, across - mean
        values, vectors = np.linalg.eigh(features.T @ features)
        left, right = across @ vectors, vectors.T @ (features.T @ z)
        return lambda ridge: left @ (right / (np.maximum(values, 0)[:, None] + ridge))
    gram, across = kernel.inner(train, train), kernel.inner(test, train)
    across = across - across.mean(1, keepdims=True) - gram.mean(0) + gram.mean()
    gram = gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()
    if len(train) > EIGEN_ROWS:
        unit = np.eye(len(gram))
        return lambda ridge: across @ scipy.linalg.solve(gram + ridge * unit, z, assume_a="pos", check_finite=False)
    values, vectors = np.linalg.eigh(gram)
    left, right = across @ vectors, vectors.T @ z
    return lambda ridge: left @ (right / (np.maximum(values, 0)[:, None] + ridge))


def _sums(held: list[tuple[Array, Array]]) -> Array:
    """``(3, k)`` sums over all folds of codes squared, codes times predictions, and predictions squared."""
    width = min(truth.shape[1] for truth, _ in held)
    return np.sum(
        [[(t**2).sum(0), (t * f).sum(0), (f**2).sum(0)] for t, f in ((t[:, :width], f[:, :width]) for t, f in held)],
        axis=0,
    )


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
