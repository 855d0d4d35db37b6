"""How strongly each source takes part in a kernel ridge regression: chosen on samples that are held out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from omicvae.stats import kernel_ridge
from omicvae.stats.components import Array, Basis, Rows
from omicvae.stats.gates import gained_error, gated_error
from omicvae.stats.kernel_ridge import RegressionSamples
from omicvae.stats.patterns import Key

PENALTIES = np.logspace(-3, 2, 16)
COARSE = slice(1, None, 2)  # of the penalties, where each costs a factorisation
PENALTY_FOLDS = 3  # of the folds, on which penalties are compared; one, where each costs a factorisation
SHARES = (0.0, 0.1, 0.3)  # of a source's own strength, beside others
SHARE_ROWS = 1000  # samples, evenly spread, that shares are chosen on


class Penalties:
    """A penalty for each source alone, raised for several sources together where held-out samples are predicted better.

    What a source says that others say too, or nothing at all, is not to count twice.

    Parameters
    ----------
    samples
        What is regressed.
    gated
        Whether errors are those of components under the best gates, or of features with the best gains.
    """

    def __init__(self, samples: RegressionSamples, *, gated: bool) -> None:
        self.samples, self.gated = samples, gated
        self.alone: dict[tuple[int, int], float] = {}
        """Source, target -> penalty."""
        self.shares: dict[Key, Array] = {}
        """Pattern -> share of each source's own strength."""

    def strengths(self, key: Key) -> Array:
        """``(len(sources),)`` weight of each source's kernel: by its penalty alone, times its share."""
        sources, target = key
        widths = [self.samples.blocks[a].values.shape[1] for a in sources]
        alone = np.array([p / self._penalty(a, target) for a, p in zip(sources, widths, strict=True)])
        if len(sources) == 1:
            return alone
        if key not in self.shares:
            self.shares[key] = self._chosen_shares(key, alone)
        return alone * self.shares[key]

    # ------------------------------------------------------------------ one source

    def _penalty(self, source: int, target: int) -> float:
        """The least error over folds with the best gates, or gains."""
        if (source, target) not in self.alone:
            rows = self.samples.common(((source,), target))
            small = len(rows) <= kernel_ridge.EIGEN_ROWS
            grid = PENALTIES if small else PENALTIES[COARSE]
            sums = []
            for fold in range(min(self.samples.n_folds, PENALTY_FOLDS) if small else 1):
                train, test = self.samples.split(rows, fold)
                if len(train) >= 2 and len(test) > 0:
                    sums.append(self._path(source, target, fold, train, test, grid))
            self.alone[source, target] = float(grid[self._least(sums, target)] if sums else grid[-1])
        return self.alone[source, target]

    def _path(self, source: int, target: int, fold: int, train: Rows, test: Rows, grid: Array) -> Array:
        """``(len(grid), 3, k)`` sums over test rows of truth squared, truth times prediction, prediction squared."""
        samples = self.samples
        basis, block = samples.fold_basis(target, fold), samples.blocks[target]
        codes = basis.codes(block, samples.position[train, target])
        truth = self._compared(basis.codes(block, samples.position[test, target]), basis)
        centre, p = codes.mean(0), samples.blocks[source].values.shape[1]
        a, b = samples.position[train, source], samples.position[test, source]
        predict = kernel_ridge.penalty_path(samples.kernels[source], a, b, codes - centre)
        out = np.zeros((len(grid), 3, truth.shape[1]))
        for i, penalty in enumerate(grid):
            found = self._compared(predict(len(train) * penalty / p) + centre, basis)
            out[i] = (truth**2).sum(0), (truth * found).sum(0), (found**2).sum(0)
        return out

    def _least(self, sums: list[Array], target: int) -> int:
        width = min(s.shape[2] for s in sums)
        errors = [self._error(total, target) for total in np.sum([s[:, :, :width] for s in sums], axis=0)]
        return int(np.argmin(errors))

    # ------------------------------------------------------------------ several sources

    def _chosen_shares(self, key: Key, alone: Array) -> Array:
        """Shares of sources that together predict best: one is changed at a time, the best one first."""
        rows = self.samples.common(key)
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
        """Squared error of held-out samples."""
        held = []
        for fold in range(min(self.samples.n_folds, PENALTY_FOLDS)):
            basis = self.samples.fold_basis(key[1], fold)
            truth, found = self.samples.held_out_codes(key, rows, fold, strengths)
            held.append((self._compared(truth, basis), self._compared(found, basis)))
        return self._error(sums_of(held), key[1])

    # ------------------------------------------------------------------ errors

    def _compared(self, codes: Array, basis: Basis) -> Array:
        """What errors are measured on: codes under gates, features without."""
        return codes if self.gated else (codes * basis.scale) @ basis.loadings.T

    def _error(self, sums: Array, target: int) -> float:
        """What is left of ``(3, k)`` sums as in :func:`sums_of`, with the best gates or gains."""
        if not self.gated:
            return gained_error(*sums)
        weight = self.samples.bases[target].scale ** 2
        width = min(len(weight), sums.shape[1])
        total, products, squares = sums[:, :width]
        return gated_error(total, products, squares, weight[:width])

    # ------------------------------------------------------------------ saving

    def adopt(self, other: Penalties) -> None:
        """Take over what another has chosen for the same samples."""
        self.alone, self.shares = dict(other.alone), dict(other.shares)

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays that :meth:`restore` reads."""
        arrays = {f"penalty/{a}/{t}": np.asarray(v) for (a, t), v in self.alone.items()}
        return arrays | {f"share/{'-'.join(map(str, sources))}/{t}": v for (sources, t), v in self.shares.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`state` gave."""
        self.alone, self.shares = {}, {}
        for name, value in arrays.items():
            kind, *at = name.split("/")
            if kind == "penalty":
                self.alone[int(at[0]), int(at[1])] = float(value)
            elif kind == "share":
                self.shares[tuple(int(a) for a in at[0].split("-")), int(at[1])] = value


def sums_of(held: list[tuple[Array, Array]]) -> Array:
    """``(3, k)`` sums over folds of ``(n, k)`` values squared, values times predictions, and predictions squared.

    Folds may differ in their last components: only what all have is summed.
    """
    width = min(truth.shape[1] for truth, _ in held)
    return np.sum(
        [[(t**2).sum(0), (t * f).sum(0), (f**2).sum(0)] for t, f in ((t[:, :width], f[:, :width]) for t, f in held)],
        axis=0,
    )


def _changed(shares: Array, at: int, share: float) -> Array:
    found = shares.copy()
    found[at] = share
    return found
