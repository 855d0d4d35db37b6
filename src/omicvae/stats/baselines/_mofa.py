"""Multi-omics factor analysis, by the package of its authors, as a baseline of imputation."""

from __future__ import annotations

import contextlib
import importlib
import io
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike

from omicvae.stats.baselines._base import Array, Prediction, Residuals, Scale, _matrix

FEW_SAMPLES = 500
"""Up to this many samples every fold is held out in turn for residuals; beyond it a single one."""
N_FOLDS = 5


class Factors(NamedTuple):
    """Posterior of one view's weights and noise."""

    weights: Array
    """(p, k) posterior mean."""
    second: Array
    """(p, k) posterior mean of squared weights."""
    precision: Array
    """(p,) of the noise."""


class MOFABaseline:
    r"""MOFA+ (Argelaguet et al., Genome Biology 21, 2020), needs the package ``mofapy2``.

    Gaussian likelihoods on standardised views, spike-and-slab and ARD priors as in its defaults. New samples are
    projected by the exact posterior of factors given the learnt weights and noise,

    .. math:: \Omega = I + \sum_{j \text{ measured}} \tau_j \operatorname{E}[w_j w_j^\top], \qquad
              z = \Omega^{-1} \sum_{j \text{ measured}} \tau_j \operatorname{E}[w_j] x_j,

    so samples may lack views or single values. The standard deviation and interval come from residuals of training
    samples projected by fits without them (five folds up to 500 samples, else one held-out fifth), as for
    :class:`Baseline`: the model's own are usually too small.

    Parameters
    ----------
    n_factors
        At most, and at most a fourth of the samples; ARD switches off what is not needed. With too few, factors of
        different views are merged, and imputation becomes worse than the mean.
    max_iterations
        Of variational updates.
    seed
        Of the fit and of folds.

    Raises
    ------
    ImportError
        If ``mofapy2`` is not installed.
    """

    def __init__(self, n_factors: int = 25, *, max_iterations: int = 1000, seed: int = 0) -> None:
        _entry_point()
        self.n_factors, self.max_iterations, self.seed = n_factors, max_iterations, seed

    def fit(self, views: Mapping[str, ArrayLike]) -> Self:
        """Fit to training samples.

        Parameters
        ----------
        views
            name -> ``(n, p)`` of the same samples; rows of NaN where a sample lacks the view.

        Raises
        ------
        ValueError
            If there are fewer than two views, or numbers of samples differ.
        RuntimeError
            If ``mofapy2`` gives up.
        """
        values = {name: _matrix(v, name) for name, v in views.items()}
        if len(values) < 2:
            raise ValueError(f"MOFA needs at least two views, got {list(values)}")
        if len({len(v) for v in values.values()}) > 1:
            raise ValueError(f"views have different numbers of samples: { {k: len(v) for k, v in values.items()} }")
        self._scales = {name: Scale.of(v) for name, v in values.items()}
        data = {name: self._scales[name].forward(v) for name, v in values.items()}
        self._factors = self._train(data)
        n = len(next(iter(data.values())))
        folds = np.random.default_rng(self.seed).permutation(n) % N_FOLDS
        self._held_out = []
        for fold in range(N_FOLDS if n <= FEW_SAMPLES else 1):
            kept = {name: v[folds != fold] for name, v in data.items()}
            self._held_out.append((self._train(kept), {name: v[folds == fold] for name, v in data.items()}))
        self._residuals: dict[tuple[frozenset[str], str], Residuals] = {}
        return self

    def predict(self, views: Mapping[str, ArrayLike], target: str, *, level: float = 0.9) -> Prediction:
        """Predict a view of new samples from others.

        Parameters
        ----------
        views
            name -> ``(n, p)`` to condition on; NaN where not measured.
        target
            View to predict, not one of ``views``.
        level
            Probability that intervals are to hold.

        Raises
        ------
        ValueError
            For an unknown view, or the target among ``views``.
        """
        unknown = {*views, target} - set(self._scales)
        if unknown or target in views or not views:
            raise ValueError(f"cannot predict {target!r} from {list(views)}; fitted were {list(self._scales)}")
        data = {name: self._scales[name].forward(_matrix(v, name)) for name, v in views.items()}
        mean = _project(self._factors, data) @ self._factors[target].weights.T
        residuals, scale = self._errors(frozenset(views), target), self._scales[target]
        mean, half = mean * scale.deviation + scale.mean, residuals.half_width(level) * scale.deviation
        f32 = np.float32
        sd = (residuals.sd * scale.deviation).astype(f32)
        return Prediction(mean.astype(f32), sd, (mean - half).astype(f32), (mean + half).astype(f32))

    def _errors(self, sources: frozenset[str], target: str) -> Residuals:
        """Residuals of held-out samples that have all sources."""
        if (sources, target) not in self._residuals:
            found = []
            for factors, data in self._held_out:
                have = np.all([~np.isnan(data[name]).all(1) for name in [*sources, target]], axis=0)
                given = {name: data[name][have] for name in sources}
                found.append(data[target][have] - _project(factors, given) @ factors[target].weights.T)
            self._residuals[sources, target] = Residuals.of(np.concatenate(found))
        return self._residuals[sources, target]

    def _train(self, data: Mapping[str, Array]) -> dict[str, Factors]:
        """Fit to standardised views."""
        n = len(next(iter(data.values())))
        fit = _entry_point()()
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fit.set_data_options(scale_views=False)
                fit.set_data_matrix(
                    [[v.copy()] for v in data.values()],
                    likelihoods=["gaussian"] * len(data),
                    views_names=list(data),
                    groups_names=["all"],
                    samples_names=[[str(i) for i in range(n)]],
                    features_names=[[f"{name}_{j}" for j in range(v.shape[1])] for name, v in data.items()],
                )
                fit.set_model_options(factors=max(1, min(self.n_factors, n // 4)))
                fit.set_train_options(iter=self.max_iterations, convergence_mode="fast", seed=self.seed, quiet=True)
                fit.build()
                fit.run()
            except SystemExit as error:  # its way to say that it cannot go on
                raise RuntimeError("mofapy2 ended without a fit") from error
        found = fit.model.getExpectations()
        return {
            name: Factors(np.asarray(w["E"]), np.asarray(w["E2"]), np.asarray(tau["E"])[0])
            for name, w, tau in zip(data, found["W"], found["Tau"], strict=True)
        }


def _project(factors: Mapping[str, Factors], views: Mapping[str, Array]) -> Array:
    """``(n, k)`` posterior mean of the factors of each sample."""
    n, k = len(next(iter(views.values()))), next(iter(factors.values())).weights.shape[1]
    precision, evidence = np.tile(np.eye(k), (n, 1, 1)), np.zeros((n, k))
    for name, values in views.items():
        w, second, tau = factors[name]
        products = tau[:, None, None] * w[:, :, None] * w[:, None, :]
        products[:, np.arange(k), np.arange(k)] = tau[:, None] * second
        seen = ~np.isnan(values)
        precision += (seen.astype(np.float64) @ products.reshape(len(w), -1)).reshape(n, k, k)
        evidence += np.where(seen, values, 0.0) @ (tau[:, None] * w)
    return np.asarray(np.linalg.solve(precision, evidence[:, :, None])[:, :, 0])


def _entry_point() -> Any:
    try:
        return importlib.import_module("mofapy2.run.entry_point").entry_point
    except ImportError as error:
        raise ImportError("MOFA+ needs the package mofapy2: pip install mofapy2") from error
