"""Kernel ridge regression of an assay's principal components on other assays, whole and without one fold."""

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
from omicvae.stats.kernels import KernelRows, MixedKernel
from omicvae.stats.patterns import Key, assign_folds

EXACT_ROWS = 3000  # kernel matrices up to this size are kept and factorised
LANDMARKS = 1500
EIGEN_ROWS = 1500  # up to this many rows an eigendecomposition serves all penalties


class Regression(NamedTuple):
    """Kernel ridge regression of codes."""

    weights: tuple[Array, ...]
    """(m_a, k) of each source's features."""
    offset: Array
    """(k,) to be taken off."""


class RegressionSamples:
    """Training samples as regressions see them: kernels of each assay as a source, components of each as a target.

    Samples may lack any assays: principal components use all samples that have the target, each regression those that
    have its sources and the target.

    Parameters
    ----------
    blocks
        One an assay, in a fixed order.
    present
        ``(n, M)`` which samples have which assay.
    kernel
        Of source samples.
    n_folds
        Of cross-fits.
    seed
        Of folds and landmarks.
    """

    blocks: tuple[Block, ...]
    present: NDArray[np.bool_]
    folds: NDArray[np.intp]
    """(n,) fold of every sample."""
    position: NDArray[np.intp]
    """(n, M) row of every sample in each block; -1 if it lacks the assay."""
    source_effects: tuple[Array, ...]
    """(1 + c, p) of covariates on each assay as a source."""
    kernels: tuple[KernelRows, ...]
    bases: tuple[Basis, ...]

    def __init__(
        self,
        blocks: Sequence[Block],
        present: NDArray[np.bool_],
        kernel: MixedKernel,
        *,
        n_folds: int = 5,
        seed: int = 0,
    ) -> None:
        self.blocks, self.present, self.kernel, self.n_folds = tuple(blocks), present, kernel, n_folds
        self.folds = assign_folds(present, n_folds, seed)
        self.position = np.full(present.shape, -1, dtype=np.intp)
        for m, block in enumerate(self.blocks):
            self.position[block.rows, m] = np.arange(len(block.rows))
        self.source_effects = tuple(covariate_effects(b, np.arange(len(b.rows))) for b in self.blocks)
        self.kernels = tuple(
            KernelRows(
                kernel,
                residual(b.values, b.observed, b.design, effect),
                limit=EXACT_ROWS if len(b.rows) <= EXACT_ROWS else LANDMARKS,
                seed=seed,
            )
            for b, effect in zip(self.blocks, self.source_effects, strict=True)
        )
        everyone = [np.arange(len(b.rows), dtype=np.intp) for b in self.blocks]
        self.bases = tuple(principal_components(b, rows) for b, rows in zip(self.blocks, everyone, strict=True))
        self._fold_bases: dict[tuple[int, int], Basis] = {}

    # ------------------------------------------------------------------ samples

    def common(self, key: Key) -> Rows:
        """Samples that have all sources and the target."""
        sources, target = key
        return np.flatnonzero(self.present[:, [*sources, target]].all(1)).astype(np.intp)

    def split(self, rows: Rows, fold: int) -> tuple[Rows, Rows]:
        """Those of some samples outside a fold, and those in it."""
        inside = self.folds[rows] == fold
        return rows[~inside], rows[inside]

    def fold_basis(self, target: int, fold: int) -> Basis:
        """Basis from the samples outside a fold: one from all samples would leak into gates."""
        if (target, fold) not in self._fold_bases:
            block = self.blocks[target]
            self._fold_bases[target, fold] = principal_components(block, np.flatnonzero(self.folds[block.rows] != fold))
        return self._fold_bases[target, fold]

    def held_out_fixed(self, target: int, rows: Rows) -> Float32:
        """``(len(rows), p)`` what covariates explain of a target, each by a fit without the sample's fold."""
        block = self.blocks[target]
        out = np.zeros((len(rows), block.values.shape[1]), dtype=np.float32)
        for fold in range(self.n_folds):
            here = self.folds[rows] == fold
            at = self.position[rows[here], target]
            out[here] = self.fold_basis(target, fold).fixed(block.design[at])
        return out

    # ------------------------------------------------------------------ regression

    def regress(self, key: Key, rows: Rows, codes: Array, strengths: Array) -> Regression:
        """Regress ``(len(rows), k)`` codes on the sources of samples ``rows``, whose kernels ``strengths`` weight."""
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

    def held_out_codes(self, key: Key, rows: Rows, fold: int, strengths: Array) -> tuple[Array, Array]:
        """Codes of a fold's samples and their predictions, both in the basis of the other folds."""
        sources, target = key
        train, test = self.split(rows, fold)
        basis, block = self.fold_basis(target, fold), self.blocks[target]
        truth = basis.codes(block, self.position[test, target])
        if len(train) < 2:
            return truth, np.zeros_like(truth)
        regression = self.regress(key, train, basis.codes(block, self.position[train, target]), strengths)
        found = -regression.offset + sum(
            self.kernels[a].training[self.position[test, a]] @ w
            for a, w in zip(sources, regression.weights, strict=True)
        )
        return truth, found

    def features(self, source: int, values: NDArray[np.floating], design: NDArray[np.floating]) -> Array:
        """``(n, m)`` features of new samples of a source; values may be NaN."""
        seen = ~np.isnan(values)
        around = residual(values, None if seen.all() else seen, design, self.source_effects[source])
        return self.kernels[source].features(around)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays from which :meth:`restored` makes features of new samples, and their values from codes.

        Kernels need the samples (or landmarks) they compare with: these are part of it.
        """
        arrays: dict[str, NDArray[Any]] = {"kernel": np.array([self.kernel.nonlinear, self.kernel.gamma])}
        for m, (rows, basis) in enumerate(zip(self.kernels, self.bases, strict=True)):
            arrays |= {f"landmarks/{m}": rows.landmarks, f"source_effects/{m}": self.source_effects[m]}
            arrays |= {f"basis/{m}/{name}": value for name, value in basis._asdict().items()}
            if rows.factor is not None:
                arrays[f"factor/{m}"] = rows.factor
        return arrays

    @classmethod
    def restored(cls, arrays: Mapping[str, NDArray[Any]]) -> RegressionSamples:
        """What :meth:`state` gave, without training samples: nothing can be regressed."""
        found = cls.__new__(cls)
        nonlinear, gamma = arrays["kernel"]
        found.kernel = MixedKernel(float(nonlinear), float(gamma))
        n = len([name for name in arrays if name.startswith("landmarks/")])
        found.kernels = tuple(
            KernelRows.restored(found.kernel, arrays[f"landmarks/{m}"], arrays.get(f"factor/{m}")) for m in range(n)
        )
        found.source_effects = tuple(arrays[f"source_effects/{m}"] for m in range(n))
        found.bases = tuple(Basis(*(arrays[f"basis/{m}/{name}"] for name in Basis._fields)) for m in range(n))
        return found


def penalty_path(kernel: KernelRows, train: Rows, test: Rows, codes: Array) -> Callable[[float], Array]:
    """Penalty -> ``(n_test, k)`` predictions of centred codes ``(n_train, k)``; one factorisation serves many."""
    if not kernel.exact and len(train) > kernel.training.shape[1]:
        features, across = kernel.training[train], kernel.training[test]
        mean = features.mean(0)
        features, across = features - mean, across - mean
        values, vectors = np.linalg.eigh(features.T @ features)
        left, right = across @ vectors, vectors.T @ (features.T @ codes)
        return lambda ridge: left @ (right / (np.maximum(values, 0)[:, None] + ridge))
    gram, across = kernel.inner(train, train), kernel.inner(test, train)
    across = across - across.mean(1, keepdims=True) - gram.mean(0) + gram.mean()
    gram = gram - gram.mean(0) - gram.mean(1, keepdims=True) + gram.mean()
    if len(train) > EIGEN_ROWS:
        unit = np.eye(len(gram))
        return lambda ridge: across @ scipy.linalg.solve(gram + ridge * unit, codes, assume_a="pos", check_finite=False)
    values, vectors = np.linalg.eigh(gram)
    left, right = across @ vectors, vectors.T @ codes
    return lambda ridge: left @ (right / (np.maximum(values, 0)[:, None] + ridge))
