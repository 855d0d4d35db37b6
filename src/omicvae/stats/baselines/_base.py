"""What all baselines share: standardisation, and uncertainty from samples they were not fitted on."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from omicvae.stats.conformal import Conformal, fit_conformal, residual_scores

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]

LEAST_SCALE = 0.1
"""Of the median column's standard deviation: a column is not divided by less, so that rare events are not blown up."""


class Prediction(NamedTuple):
    """Normal predictive distributions of ``n`` samples and ``q`` features, in the units of the targets."""

    mean: Float32
    """(n, q)"""
    sd: Float32
    """(q,) root mean square of held-out residuals."""
    lower: Float32
    """(n, q) mean less a quantile of absolute held-out residuals, ..."""
    upper: Float32
    """(n, q) ... and mean plus it."""


class Scale(NamedTuple):
    """Mean and standard deviation of every column over its measured values."""

    mean: Array
    """(p,) 0 where nothing was measured."""
    deviation: Array
    """(p,) at least :data:`LEAST_SCALE` of the median one; 1 for constant columns."""

    @classmethod
    def of(cls, values: Array) -> Scale:
        """Of the columns of ``(n, p)``, NaN where not measured."""
        seen = ~np.isnan(values)
        if seen.all():  # several times faster
            mean, deviation = values.mean(0), values.std(0)
        else:
            count = np.maximum(seen.sum(0), 1)
            mean = np.sum(values, axis=0, where=seen) / count
            deviation = np.sqrt(np.sum((values - mean) ** 2, axis=0, where=seen) / count)
        varies = deviation > 1e-10 * (1 + np.abs(mean))
        floor = LEAST_SCALE * float(np.median(deviation[varies])) if varies.any() else 0.0
        return cls(mean, np.where(varies, np.maximum(deviation, floor), 1.0))

    def forward(self, values: Array) -> Array:
        """Standardised values; NaN stays."""
        return np.asarray((values - self.mean) / self.deviation)


class Residuals(NamedTuple):
    """What held-out residuals say about the size of errors."""

    sd: Array
    """(q,)"""
    conformal: Conformal | None
    """Of absolute residuals in units of ``sd``; ``None`` without any residual."""

    @classmethod
    def of(cls, residual: Array) -> Residuals:
        """Of ``(n, q)`` held-out residuals of standardised targets, NaN where not measured.

        A feature with fewer than two residuals has the standard deviation of all of them together.
        """
        seen = ~np.isnan(residual)
        count, squares = seen.sum(0), np.sum(residual**2, axis=0, where=seen)
        pooled = float(np.sqrt(squares.sum() / count.sum())) if count.sum() > 1 else 1.0
        sd = np.where(count > 1, np.sqrt(squares / np.maximum(count, 1)), pooled)
        scores = residual_scores(residual.astype(np.float32), np.zeros((), np.float32), sd.astype(np.float32))
        return cls(sd, fit_conformal(scores))

    def half_width(self, level: float) -> Array:
        """``(q,)`` half the width of an interval."""
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        return self.sd * (1.0 if self.conformal is None else self.conformal.quantile(level))


class Baseline(ABC):
    """A way to predict target features from source features.

    Targets and sources are standardised with training statistics. A source value that was not measured (NaN) is put at
    its training mean. Targets may have NaN; how a method fits them is said there. Standard deviations and intervals
    come from measured values alone.

    Uncertainty rests on residuals of training samples by fits without them: exactly leave-one-out where a method has
    that in closed form, else ``n_folds``-fold. The standard deviation is their root mean square; the interval is the
    mean plus and minus the conformal quantile of their absolute values (:func:`omicvae.stats.conformal.fit_conformal`:
    a feature's own from 50 residuals on, else pooled over features).

    Parameters
    ----------
    n_folds
        Folds, where leave-one-out has no closed form.
    seed
        Of the folds.
    """

    def __init__(self, *, n_folds: int = 5, seed: int = 0) -> None:
        self.n_folds, self.seed = n_folds, seed

    def fit(self, x: ArrayLike, y: ArrayLike) -> Self:
        """Fit to training samples.

        Parameters
        ----------
        x
            ``(n, p)`` sources; NaN where not measured.
        y
            ``(n, q)`` targets; NaN where not measured.

        Returns
        -------
        Itself.

        Raises
        ------
        ValueError
            If shapes do not match, there are no samples, sources or targets, or values are infinite.
        """
        sources, targets = self._sources(x), _matrix(y, "y")
        if len(sources) != len(targets):
            raise ValueError(f"x has {len(sources)} samples and y {len(targets)}; rows must be the same samples")
        if len(targets) == 0 or targets.shape[1] == 0:
            raise ValueError(f"nothing to fit to: y has shape {targets.shape}")
        held_out = self._fit_point(sources, targets)
        if held_out is None:
            held_out = self._cross_residuals(sources, targets) / self._scale.deviation
        self.residuals_ = Residuals.of(held_out)
        return self

    def predict(self, x: ArrayLike, *, level: float = 0.9) -> Prediction:
        """Predict new samples.

        Parameters
        ----------
        x
            ``(n, p)`` sources, as in :meth:`fit`.
        level
            Probability that intervals are to hold.

        Raises
        ------
        ValueError
            If ``x`` has another number of columns or ``level`` is not in (0, 1).
        RuntimeError
            If nothing was fitted.
        """
        if not hasattr(self, "residuals_"):
            raise RuntimeError(f"this {type(self).__name__} has not been fitted: call fit(x, y)")
        mean = self._point(self._sources(x))
        half = self.residuals_.half_width(level) * self._scale.deviation
        sd = self.residuals_.sd * self._scale.deviation
        f32 = np.float32
        return Prediction(mean.astype(f32), sd.astype(f32), (mean - half).astype(f32), (mean + half).astype(f32))

    # ------------------------------------------------------------------ what methods differ in

    @abstractmethod
    def _learn(self, x: Array, y: Array) -> Array | None:
        """Fit to standardised data; ``x`` has no NaN.

        Returns
        -------
        ``(n, q)`` residual of each sample by a fit without it, NaN where not measured; ``None`` if the method does not
        give them in closed form.
        """

    @abstractmethod
    def _infer(self, x: Array) -> Array:
        """``(n, q)`` standardised predictions."""

    # ------------------------------------------------------------------ what is the same for all

    def _sources(self, x: ArrayLike) -> NDArray[np.generic]:
        values = _matrix(x, "x")
        if values.shape[1] == 0:
            raise ValueError("x has no columns: there is nothing to predict from")
        if hasattr(self, "_input") and hasattr(self, "residuals_") and values.shape[1] != len(self._input.mean):
            raise ValueError(f"x has {values.shape[1]} columns, and {len(self._input.mean)} were fitted")
        return values

    def _fit_point(self, x: NDArray[np.generic], y: Array) -> Array | None:
        """Fit without uncertainty."""
        self._scale = Scale.of(y)
        self._input = Scale.of(x.astype(np.float64, copy=False))
        return self._learn(np.nan_to_num(self._input.forward(x), copy=False), self._scale.forward(y))  # type: ignore[arg-type]

    def _point(self, x: NDArray[np.generic]) -> Array:
        """``(n, q)`` predictive mean."""
        standardised = np.nan_to_num(self._input.forward(x), copy=False)  # type: ignore[arg-type]
        return self._infer(standardised) * self._scale.deviation + self._scale.mean

    def _cross_residuals(self, x: NDArray[np.generic], y: Array) -> Array:
        """Residuals of every sample by a fit to the other folds."""
        out = np.full_like(y, np.nan)
        folds = np.random.default_rng(self.seed).permutation(len(y)) % max(2, min(self.n_folds, len(y)))
        for fold in np.unique(folds):
            test = folds == fold
            if test.all():
                break  # a single sample
            other = copy.copy(self)
            other._fit_point(x[~test], y[~test])
            out[test] = y[test] - other._point(x[test])
        return out


def _matrix(values: ArrayLike, name: str) -> Array:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 2:
        raise ValueError(f"{name} must have the shape (samples, features), got {found.shape}")
    if np.isinf(found).any():
        raise ValueError(f"{name} holds {int(np.isinf(found).sum())} infinite values; replace them by NaN")
    return found
