"""Drawing measured values of each data type from a standardised signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.special import expit

ZERO_INFLATION = 0.2
"""Probability that a zero-inflated count is replaced by zero."""

_MEDIAN_RATE = 20.0
_MEAN_COVERAGE = 20.0
# beta values are stored as float32, where anything nearer to 1 becomes 1 and leaves the support.
_BETA_MARGIN = 1e-6


class Observed(NamedTuple):
    """Values of one modality for all samples."""

    values: np.ndarray  # (n_obs, n_vars) float32, as measured
    expected: np.ndarray  # (n_obs, n_vars) E[values | signal, library, coverage]
    coverage: np.ndarray | None = None  # (n_obs, n_vars) float32 trials, of a beta-binomial


class Observation(NamedTuple):
    """How one data type is observed."""

    draw: Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Observed]
    """(signal (n, p), log library (n, 1), noise, rng) -> values."""
    noise: float | None
    """Default size of the noise; None where the data type has no such parameter."""
    noise_range: tuple[float, float, bool] = (0.0, np.inf, True)
    """Lower bound, (exclusive) upper bound, whether the lower bound is allowed."""
    allows_nan: bool = False
    """Whether single values may be missing."""
    has_library: bool = False
    """Whether the mean is proportional to a library size."""


def _normal(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    return Observed(_stored(signal + noise * rng.standard_normal(signal.shape)), signal)


def _rate(signal: np.ndarray, log_library: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Expected counts: a log-normal level for each feature, times exp of the signal, times the library."""
    level = np.log(_MEDIAN_RATE) + 0.7 * rng.standard_normal(signal.shape[1])
    return np.exp(level + 0.7 * signal + log_library)


def _poisson(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    rate = _rate(signal, log_library, rng)
    return Observed(_stored(rng.poisson(rate)), rate)


def _nb(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    rate = _rate(signal, log_library, rng)
    return Observed(_stored(rng.poisson(rng.gamma(1 / noise, noise * rate))), rate)


def _zinb(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    counts, rate, _ = _nb(signal, log_library, noise, rng)
    kept = rng.random(signal.shape) >= ZERO_INFLATION
    return Observed(_stored(counts * kept), (1 - ZERO_INFLATION) * rate)


def _probability(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return expit(rng.standard_normal(signal.shape[1]) + 1.2 * signal)


def _bernoulli(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    p = _probability(signal, rng)
    return Observed(_stored(rng.random(signal.shape) < p), p)


def _beta_draw(p: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Beta of mean p and variance noise p (1 - p)."""
    concentration = 1 / noise - 1
    return rng.beta(concentration * p, concentration * (1 - p))


def _beta(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    p = _probability(signal, rng)
    return Observed(_stored(np.clip(_beta_draw(p, noise, rng), _BETA_MARGIN, 1 - _BETA_MARGIN)), p)


def _betabinomial(signal: np.ndarray, log_library: np.ndarray, noise: float, rng: np.random.Generator) -> Observed:
    p = _probability(signal, rng)
    coverage = 1 + rng.poisson(_MEAN_COVERAGE - 1, signal.shape)
    methylated = rng.binomial(coverage, _beta_draw(p, noise, rng))
    return Observed(_stored(methylated), coverage * p, _stored(coverage))


def _stored(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


OBSERVATIONS: dict[str, Observation] = {
    "normal": Observation(_normal, 0.3, allows_nan=True),
    "nb": Observation(_nb, 0.2, (0.0, np.inf, False), has_library=True),
    "zinb": Observation(_zinb, 0.2, (0.0, np.inf, False), has_library=True),
    "poisson": Observation(_poisson, None, has_library=True),
    "bernoulli": Observation(_bernoulli, None),
    "beta": Observation(_beta, 0.02, (0.0, 1.0, False), allows_nan=True),
    "betabinomial": Observation(_betabinomial, 0.02, (0.0, 1.0, False)),
}
