"""Methods of imputation behind one interface: fit to the training samples of a split, predict hidden assays."""

from __future__ import annotations

import inspect
import logging
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scvi import settings

from omicvae.model._model import Model
from omicvae.stats.baselines import Baseline, GroupMeanBaseline, MeanBaseline, MOFABaseline, Prediction
from omicvae.stats.scores import crps_normal, crps_sample
from omicvae.tl._benchmark_split import Rows, Split, as_measured, transformed_limit

Float32 = NDArray[np.float32]

LEAST_ROWS = 20
"""Training samples with which a set of sources is regressed on."""
DRAWS = (100, 400)
HELD = 2**25  # numbers of one (draws, samples, features) array held at once
ALL_DRAWS = 2**26  # of one target
LINEAR = ("normal", "unit_normal", "bernoulli")
"""Likelihoods whose scale of scores is linear in the data: the mean of one is that of the other."""

logger = logging.getLogger("omicvae")


class Forecast(NamedTuple):
    """Predictions of hidden values, on the scale of the scores; all ``(n, p)``."""

    mean: Float32
    crps: Float32
    """NaN where the truth was not measured."""
    lower: Float32
    upper: Float32


class Contender(ABC):
    """A method under a name."""

    @abstractmethod
    def fit(self, split: Split) -> None:
        """Fit what serves all targets."""

    @abstractmethod
    def predict(self, split: Split, target: str, samples: Rows) -> Forecast:
        """Predict a target of test samples that have it and at least one source."""


class BaselineContender(Contender):
    """A regression for every target and set of sources.

    Test samples are predicted from all the sources they have, by a regression fitted to the training samples that have
    these and the target. With fewer than :data:`LEAST_ROWS` of them, the largest smaller set of sources that has enough
    is used, and where none has, the mean.

    Parameters
    ----------
    build
        Makes an unfitted baseline.
    """

    def __init__(self, build: Callable[[], Baseline]) -> None:
        self._build = build

    def fit(self, split: Split) -> None:
        """Nothing serves all targets."""

    def predict(self, split: Split, target: str, samples: Rows) -> Forecast:
        fitted: dict[tuple[str, ...], Baseline] = {}
        parts = []
        for rows, have in split.by_sources(samples, target):
            sources = self._sources(split, target, have)
            if sources not in fitted:
                fitted[sources] = self._fit(split, target, sources)
            at = samples[rows]
            found = fitted[sources].predict(self._inputs(split, target, sources, at))
            parts.append((rows, gaussian_forecast(found, split.fixed(target, at), split.truth(target, at))))
        return assembled(parts)

    def _sources(self, split: Split, target: str, have: tuple[str, ...]) -> tuple[str, ...]:
        """The sources to use for samples that have some."""
        for size in range(len(have), 0, -1):
            subsets = list(combinations(have, size))
            counts = [len(split.having(split.train, [*s, target])) for s in subsets]
            if max(counts) >= LEAST_ROWS:
                return subsets[int(np.argmax(counts))]
        return ()

    def _fit(self, split: Split, target: str, sources: tuple[str, ...]) -> Baseline:
        baseline = self._build() if sources else MeanBaseline()
        rows = split.having(split.train, [*sources, target])
        return baseline.fit(self._inputs(split, target, sources, rows), split.features(target, rows))

    def _inputs(self, split: Split, target: str, sources: tuple[str, ...], samples: Rows) -> NDArray[Any]:
        return split.concatenated(sources, samples) if sources else np.zeros((len(samples), 1))


class GroupMeanContender(BaselineContender):
    """Mean of the target over training samples of the same group; sources are not used.

    Parameters
    ----------
    labels
        Of all samples, by name.
    """

    def __init__(self, labels: pd.Series) -> None:
        super().__init__(GroupMeanBaseline)
        self._labels = labels

    def _sources(self, split: Split, target: str, have: tuple[str, ...]) -> tuple[str, ...]:
        return ()

    def _fit(self, split: Split, target: str, sources: tuple[str, ...]) -> Baseline:
        rows = split.having(split.train, [target])
        return self._build().fit(self._inputs(split, target, sources, rows), split.features(target, rows))

    def _inputs(self, split: Split, target: str, sources: tuple[str, ...], samples: Rows) -> NDArray[Any]:
        return np.asarray(self._labels.reindex(split.names(samples)), dtype=object)


class MOFAContender(Contender):
    """MOFA+ of all training samples; test samples are projected.

    Parameters
    ----------
    seed
        Of the fit.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fit(self, split: Split) -> None:
        """Fit factors to all modalities of the training samples."""
        views = {m: split.features(m, split.train) for m in split.schema.names}
        self._model = MOFABaseline(seed=self._seed).fit(views)

    def predict(self, split: Split, target: str, samples: Rows) -> Forecast:
        parts = []
        for rows, have in split.by_sources(samples, target):
            at = samples[rows]
            found = self._model.predict({m: split.features(m, at) for m in have}, target)
            parts.append((rows, gaussian_forecast(found, split.fixed(target, at), split.truth(target, at))))
        return assembled(parts)


class ModelContender(Contender):
    """A model class, set up and trained anew on the training samples.

    Test samples are given to it in a MuData from which the target is absent altogether.

    Parameters
    ----------
    cls
        Of :mod:`omicvae.model`.
    setup
        Arguments of ``setup_mudata``.
    arguments
        Of its constructor.
    common, training
        Arguments of ``train``: those for any model, of which it is given what it takes, and its own.
    seed
        Of training and draws.
    """

    def __init__(
        self,
        cls: type[Model],
        setup: Mapping[str, Any],
        arguments: Mapping[str, Any],
        common: Mapping[str, Any],
        training: Mapping[str, Any],
        seed: int,
    ) -> None:
        self._cls, self._setup, self._arguments, self._seed = cls, dict(setup), dict(arguments), seed
        taken = inspect.signature(cls.train).parameters
        anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
        defaults = {"enable_progress_bar": False, **common}
        self._training = {k: v for k, v in defaults.items() if anything or k in taken} | dict(training)

    def fit(self, split: Split) -> None:
        """Set up and train."""
        with quietly(self._seed):
            mdata = split.subset(split.train, split.schema.names)
            self._cls.setup_mudata(mdata, **self._setup)
            self._model = self._cls(mdata, **self._arguments)
            self._cls._setup_adata_manager_store.pop(mdata.uns["_scvi_uuid"], None)  # the model has its own reference
            self._model.train(**self._training)

    def predict(self, split: Split, target: str, samples: Rows) -> Forecast:
        with quietly(self._seed):
            hidden = split.subset(samples, split.sources(target))
            width = split.schema[target].n_vars
            n_draws = int(np.clip(ALL_DRAWS // max(1, len(samples) * width), *DRAWS))
            size = max(1, HELD // (n_draws * width))
            parts = []
            for start in range(0, len(samples), size):
                rows = np.arange(start, min(start + size, len(samples)))
                parts.append((rows, self._forecast(split, target, samples[rows], hidden, n_draws)))
            return assembled(parts)

    def _forecast(self, split: Split, target: str, samples: Rows, hidden: Any, n_draws: int) -> Forecast:
        likelihood, names = split.likelihoods[target], split.names(samples).tolist()
        observed, truth = split.observed(target, samples), split.truth(target, samples)
        at_median = split.schema[target].size_factor_key is not None
        scale: Literal["normalized", "input"] = "normalized" if at_median else "input"
        drawn = self._model.sample(target, n_samples=n_draws, mdata=hidden, indices=names, scale=scale)
        training = split.observed(target, split.having(split.train, [target]))
        draws = as_measured(
            likelihood, torch.from_numpy(np.asarray(drawn)), training, at_median=at_median, seed=self._seed
        )
        found = self._model.impute(target, mdata=hidden, indices=names, level=0.9)
        if likelihood.name in LINEAR:
            mean = likelihood.encode_transform(observed._replace(x=torch.from_numpy(np.asarray(found.X)))).numpy()
        else:
            mean = draws.mean(0)
        lower, upper = (transformed_limit(likelihood, found.layers[name], observed) for name in ("lower", "upper"))
        return Forecast(mean, np.asarray(crps_sample(truth, draws), np.float32), lower, upper)


def gaussian_forecast(found: Prediction, fixed: Float32, truth: Float32) -> Forecast:
    """Scored prediction of what covariates do not explain."""
    mean = found.mean + fixed
    return Forecast(mean, np.asarray(crps_normal(truth, mean, found.sd)), found.lower + fixed, found.upper + fixed)


def assembled(parts: Sequence[tuple[Rows, Forecast]]) -> Forecast:
    """Parts in the order of their rows."""
    back = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return Forecast(*(np.concatenate(column)[back] for column in zip(*(f for _, f in parts), strict=True)))


@contextmanager
def quietly(seed: int) -> Iterator[None]:
    """Seeded, without repeating what was said at setup; random states are as before afterwards."""
    before, level = settings.seed, logger.level
    states = np.random.get_state(), random.getstate()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        settings._seed = seed
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            settings._seed = before
            logger.setLevel(level)
            np.random.set_state(states[0])
            random.setstate(states[1])
