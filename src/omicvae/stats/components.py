"""Principal components of an assay around what covariates explain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.extmath import randomized_svd

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
Rows = NDArray[np.intp]

ALL_COMPONENTS = 2500
"""Up to this rank all components are computed."""
LEADING_COMPONENTS = 400
COVARIATE_PENALTY = 3.0  # samples' worth of shrinkage of a covariate's effect
LEAST_VARIANCE = 1e-6  # of the first component's


class Block(NamedTuple):
    """One assay, standardised."""

    values: Float32
    """(n_m, p) of the samples that have it; 0 where a value was not measured."""
    observed: NDArray[np.bool_] | None
    """(n_m, p), or ``None`` if every value was measured."""
    rows: Rows
    """(n_m,) position of each row among all samples."""
    design: Float32
    """(n_m, c) covariates, whose effect is taken out; c may be 0."""


class Basis(NamedTuple):
    """Principal components of a target around what covariates explain."""

    mean: Array
    """(p,)"""
    effects: Array
    """(c, p)"""
    loadings: Array
    """(p, k) orthonormal."""
    scale: Array
    """(k,) standard deviation of each component."""

    def fixed(self, design: NDArray[np.floating]) -> Array:
        """``(n, p)`` what covariates ``(n, c)`` explain."""
        return self.mean + design @ self.effects

    def codes(self, block: Block, rows: Rows) -> Array:
        """``(n, k)`` whitened components of a block's rows."""
        centred = block.values[rows] - self.fixed(block.design[rows])
        if block.observed is not None:
            centred = np.where(block.observed[rows], centred, 0.0)
        return np.asarray(centred @ self.loadings / self.scale)


def covariate_effects(block: Block, rows: Rows) -> Array:
    """``(1 + c, p)`` intercept and effects of covariates on a block's rows, shrunk (ridge)."""
    x = block.values[rows].astype(np.float64)
    seen = np.ones(x.shape, bool) if block.observed is None else block.observed[rows]
    mean = np.where(seen, x, 0).sum(0) / np.maximum(seen.sum(0), 1)
    if block.design.shape[1] == 0:
        return mean[None]
    design = block.design[rows].astype(np.float64)
    centre = design.sum(0) / max(len(rows), 1)
    centred = np.where(seen, x - mean, 0.0)
    system = (design - centre).T @ (design - centre) + COVARIATE_PENALTY * np.eye(design.shape[1])
    effects = np.linalg.solve(system, (design - centre).T @ centred)
    return np.concatenate([(mean - centre @ effects)[None], effects])


def residual(
    values: NDArray[np.floating], observed: NDArray[np.bool_] | None, design: NDArray[np.floating], effects: Array
) -> Float32:
    """Values around their covariates' effects; 0 where not measured."""
    out = values - (effects[0] + design @ effects[1:])
    return (out if observed is None else np.where(observed, out, 0.0)).astype(np.float32)


def principal_components(block: Block, rows: Rows) -> Basis:
    """Components of some rows of a block; all of them up to a rank of :data:`ALL_COMPONENTS`, else the leading ones."""
    effects = covariate_effects(block, rows)
    seen = None if block.observed is None else block.observed[rows]
    centred = residual(block.values[rows], seen, block.design[rows], effects)
    n, p = centred.shape
    if min(n, p) > ALL_COMPONENTS:
        _, s, vt = randomized_svd(centred, LEADING_COMPONENTS, n_iter=4, random_state=0)
        v, squares = vt.T.astype(np.float64), s.astype(np.float64) ** 2
    elif p <= n:
        squares, v = np.linalg.eigh((centred.T @ centred).astype(np.float64))
        squares, v = squares[::-1], v[:, ::-1]
    else:
        squares, u = np.linalg.eigh((centred @ centred.T).astype(np.float64))
        squares, u = np.maximum(squares[::-1], 0), u[:, ::-1]
        v = centred.T @ u / np.sqrt(np.maximum(squares, 1e-30))
    keep = squares > LEAST_VARIANCE * max(float(squares[0]) if len(squares) else 0.0, 1e-12)
    keep[max(n - 1, 0) :] = False
    return Basis(effects[0], effects[1:], np.ascontiguousarray(v[:, keep]), np.sqrt(squares[keep] / max(n, 1)))
