"""Which method imputes the assays of this cohort best, measured by hiding them."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData

from omicvae.data import Cohort, Schema
from omicvae.model._sizes import whole_number
from omicvae.stats.patterns import assign_folds
from omicvae.stats.scores import coverage, mae, r2, spearman
from omicvae.tl._arguments import check_data
from omicvae.tl._benchmark_arguments import group_labels, named_modalities, predictable_targets, registered_setup
from omicvae.tl._benchmark_methods import REFERENCE, maker, resolve_names
from omicvae.tl._benchmark_split import Rows, Split, Values
from omicvae.tl._contenders import Contender, Forecast

logger = logging.getLogger("omicvae")

COLUMNS = (
    *("split", "target", "model", "crps", "crps_relative_to_ridge", "r2", "spearman", "mae"),
    *("coverage90", "width90", "seconds", "n_test", "n_train"),
)
ROUNDING = 1e-5  # by which a value may lie outside an interval whose end it is


def benchmark(
    mdata: MuData,
    models: Sequence[str] | None = None,
    *,
    targets: Sequence[str] | None = None,
    given: Sequence[str] | None = None,
    n_splits: int = 5,
    groupby: str | None = None,
    model_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    train_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare methods of imputation on your data, by hiding whole assays of samples they were not fitted on.

    Samples are divided into ``n_splits`` parts, each with the same mix of assays. In turn one part is the test part,
    and everything (scales, likelihoods' statistics, regressions, networks, intervals) is fitted to the others anew. Of
    every test sample that has a target and at least one source, the target is hidden and predicted from the sources
    it has.

    Parameters
    ----------
    mdata
        Registered with ``setup_mudata`` of any model class. It is not changed.
    models
        ``"mean"``, ``"group_mean"``, ``"ridge"`` (one penalty), ``"ridge_per_feature"`` (a penalty a feature),
        ``"pca_ridge"``, ``"pls"`` (10 components), ``"knn"``, ``"mofa"`` (needs ``mofapy2``), and classes of
        :mod:`omicvae.model` by name. All by default, as far as there are groups and ``mofapy2`` is installed. Ridge is
        always among them: it is the reference.
    targets
        Modalities to hide; all by default.
    given
        Modalities to predict from; all others by default.
    n_splits
        Number of parts.
    groupby
        Column of ``mdata.obs`` with the groups of ``"group_mean"``; the ``labels_key`` of setup by default.
    model_kwargs
        Name of a class -> arguments of its constructor.
    train_kwargs
        Arguments of ``train`` for all model classes that take them. Under the name of a class: arguments for it alone.
    seed
        Of the splits, of training and of draws.

    Returns
    -------
    DataFrame with a row a split, target and model:

    ``crps``
        Continuous ranked probability score, in standard deviations of the feature over training samples, mean over
        measured values; smaller is better, and it counts the prediction and its uncertainty at once.
    ``crps_relative_to_ridge``
        The same over that of ``"ridge"`` for this split and target: below 1 is better.
    ``r2``, ``spearman``
        Of each feature over test samples, median over features.
    ``mae``
        Mean absolute error, in the units of ``crps``.
    ``coverage90``, ``width90``
        Share of hidden values in their 90 % interval, and its mean width in the units of ``crps``.
    ``seconds``
        Fitting and predicting; training that serves several targets is divided among them.
    ``n_test``, ``n_train``
        Test and training samples that have the target and at least one source.

    A method that fails has NaN, and a warning says why.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, or a list is a text.
    ValueError
        If ``mdata`` is not registered, or for an unknown model, modality or column.
    ImportError
        If ``"mofa"`` is asked for and ``mofapy2`` is not installed.

    Notes
    -----
    *Scale.* All scores are on the scale on which models see the data: values for ``normal`` and ``bernoulli``, log
    counts at the median library size for counts, logits for methylation; standardised by training samples. Regressions,
    kNN and MOFA+ are fitted on that scale, with the effects of batch and covariates (known for test samples) taken out
    and added back, and predict normal distributions: the sd and the interval of a feature come from its residuals in
    training samples by fits without them (:class:`omicvae.stats.baselines.Baseline`). Models predict data; draws of
    theirs are transformed as measurements are, and scored by the sample version of the CRPS. No method is told the
    library size or the coverage of what was hidden. Models' intervals are those of ``impute(level=0.9)``, transformed:
    for counts they include that the library size is not known, which a regression's need not, so compare their
    coverage but not their width.

    *Samples that lack sources.* Regressions need complete sources: each combination that occurs in test samples is
    regressed separately, on all training samples that have it and the target (at least 20, else on fewer sources, else
    the mean). Single values that are missing are put at their training mean.
    """
    check_data(mdata, "benchmark")
    registry = registered_setup(mdata)
    schema = Schema.from_registry(registry)
    n_splits, groups = whole_number("n_splits", n_splits, least=2), group_labels(mdata, groupby, schema)
    names = resolve_names(models, with_groups=groups is not None)
    sources = named_modalities("given", given, schema)
    wanted = predictable_targets(targets, sources, schema)
    makers = {name: maker(name, registry, groups, model_kwargs, train_kwargs, seed) for name in names}
    values = Values(mdata, Cohort(mdata, schema))
    present = values.cohort.present
    folds = np.where(present.any(1), assign_folds(present, n_splits, seed), -1)
    rows: list[dict[str, Any]] = []
    for fold in range(n_splits):
        train, test = (np.flatnonzero((folds == fold) == is_test) for is_test in (False, True))
        split = Split(values, train[folds[train] >= 0].astype(np.intp), test.astype(np.intp), sources)
        for k, name in enumerate(names):
            step = {"step": fold * len(names) + k, "steps": n_splits * len(names)}
            logger.info("benchmark: split %d of %d, %s", fold + 1, n_splits, name, extra=step)
            rows += _scores(name, makers[name], split, fold, wanted)
    return _table(rows, names, wanted)


# ---------------------------------------------------------------------- one split


def _scores(
    name: str, make: Callable[[], Contender], split: Split, fold: int, targets: Sequence[str]
) -> list[dict[str, Any]]:
    """Rows of one method."""
    start, rows, contender = time.perf_counter(), [], None
    try:
        contender = make()
        contender.fit(split)
    except Exception as error:  # noqa: BLE001  (one method that fails must not cost the table)
        _warn(name, fold, "could not be fitted", error)
        contender = None
    shared = (time.perf_counter() - start) / len(targets)
    for target in targets:
        samples = split.usable(split.test, target)
        row = {"split": fold, "target": target, "model": name, "n_test": len(samples)}
        row["n_train"] = len(split.usable(split.train, target))
        if contender is not None and len(samples):
            start = time.perf_counter()
            try:
                forecast = contender.predict(split, target, samples)
                row |= {"seconds": shared + time.perf_counter() - start, **_score(forecast, split, target, samples)}
            except Exception as error:  # noqa: BLE001
                _warn(name, fold, f"could not predict {target!r}", error)
        rows.append(row)
    return rows


def _score(forecast: Forecast, split: Split, target: str, samples: Rows) -> dict[str, float]:
    truth = split.truth(target, samples)
    seen = ~np.isnan(truth)
    if not all(np.isfinite(part[seen]).all() for part in forecast):
        raise FloatingPointError("predictions are not finite")
    width = forecast.upper - forecast.lower
    return {
        "crps": _mean(forecast.crps[seen]),
        "r2": _median(r2(truth, forecast.mean)),
        "spearman": _median(spearman(truth, forecast.mean)),
        "mae": float(mae(truth, forecast.mean, axis=None)),
        "coverage90": float(coverage(truth, forecast.lower - ROUNDING, forecast.upper + ROUNDING)),
        "width90": _mean(width[seen]),
    }


def _warn(name: str, fold: int, what: str, error: Exception) -> None:
    warnings.warn(f"benchmark: {name} {what} in split {fold}: {type(error).__name__}: {error}", stacklevel=4)


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else float("nan")


def _median(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _table(rows: list[dict[str, Any]], names: Sequence[str], targets: Sequence[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    reference = table[table["model"] == REFERENCE].set_index(["split", "target"]).reindex(columns=["crps"])["crps"]
    at = pd.MultiIndex.from_frame(table[["split", "target"]])
    table = table.reindex(columns=COLUMNS)
    table["crps_relative_to_ridge"] = table["crps"].to_numpy() / reference.reindex(at).to_numpy()
    order = {t: i for i, t in enumerate(targets)} | {n: i for i, n in enumerate(names)}
    by = ["split", "target", "model"]
    return table.sort_values(by, key=lambda c: c.map(lambda v: order.get(v, v)), ignore_index=True)
