"""Whether generated assays carry the class that real ones do."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray
from sklearn.pipeline import Pipeline

from omicvae.data._measured import observed_values
from omicvae.metrics._classification import (
    Classification,
    Labels,
    fit_classifier,
    predict_classes,
    summarise,
    usable_samples,
)
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._registered import Indices
from omicvae.model._sizes import whole_number

Positions = NDArray[np.intp]
Values = NDArray[np.float64]


class GeneratedClassification(NamedTuple):
    """One classifier, fitted on measured values, on generated and on measured values of test samples."""

    generated: Classification
    """Of test samples that have an assay to generate from."""
    measured: Classification | None
    """Of those test samples among them that have the target, too: what the classifier can do. ``None`` if none has."""


def conditional_classification(
    model: Model,
    target: str,
    labels: str | pd.Series,
    *,
    given: Sequence[str] | None = None,
    train: Indices | None = None,
    test: Indices | None = None,
    n_draws: int | None = None,
    batch_size: int | None = None,
) -> GeneratedClassification:
    """Generate an assay from others and classify it by a classifier that was fitted on measured values of that assay.

    High where what is generated has the class of what it was generated from (*coherence*, and the conditional
    classification of :cite:t:`caretti2026covae`). Values are compared as they are, counts as ``log(1 + x)`` of counts at
    the median library size, and standardised by the training samples; single missing values are replaced by the mean.

    Parameters
    ----------
    model
        Trained model with data attached.
    target
        Assay to generate.
    labels
        Column of ``mdata.obs``, or a Series with sample names; missing labels are left out.
    given
        Assays to generate from; all others by default.
    train
        Samples whose measured target the classifier is fitted on; by default all that the model was fitted on.
    test
        Samples to generate the target for; by default all that the model was not fitted on. Their own target is not used.
    n_draws
        Classify this many draws of the predictive distribution, noise included, and average; the predictive mean by default.
    batch_size
        Samples at a time.

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        If the model has no data, a sample is in both ``train`` and ``test``, no test sample can be generated, or classes do
        not allow a classifier (:func:`linear_classification`).
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "conditional_classification")
    column = model.modalities.index(model._check_modality(target))
    sources = model._given(given, target).cpu().numpy()
    cohort, truth = model._cohort(None), _labels(model, labels)
    fitted, tested = _parts(model, train, test)
    fitted = fitted[cohort.present[fitted, column]]
    tested = tested[cohort.present[tested][:, sources].any(1) & pd.notna(truth[tested])]
    if len(tested) == 0:
        raise ValueError(f"no labelled test sample has an assay to generate {target!r} from")
    values = _measured(model, target, fitted)
    centre = np.nan_to_num(_column_means(values))
    x, y = usable_samples(np.where(np.isnan(values), centre, values), truth[fitted], "training samples")
    classifier = fit_classifier(x, y)
    generated = [
        _classified(classifier, y, draw, truth[tested])
        for draw in _generated(model, target, given, tested, n_draws, batch_size)
    ]
    both = tested[cohort.present[tested, column]]
    measured = None
    if len(both):
        real = _measured(model, target, both)
        measured = _classified(classifier, y, np.where(np.isnan(real), centre, real), truth[both])
    return GeneratedClassification(_mean(generated), measured)


def _labels(model: Model, labels: str | pd.Series) -> Labels:
    """``(n_obs,)`` classes, ``None`` or NaN where unknown."""
    mdata = model.adata
    if not isinstance(mdata, MuData):
        raise ValueError(f"the {type(model).__name__} was loaded without data: load it with load(dir, mdata)")
    if isinstance(labels, pd.Series):
        if labels.index.has_duplicates:
            raise ValueError("names of labelled samples are not unique")
        return np.asarray(labels.reindex(mdata.obs_names), dtype=object)
    if labels not in mdata.obs:
        raise ValueError(f"mdata.obs has no column {labels!r}; it has {list(mdata.obs.columns)}")
    return np.asarray(mdata.obs[labels], dtype=object)


def _parts(model: Model, train: Indices | None, test: Indices | None) -> tuple[Positions, Positions]:
    """Positions of training and test samples."""
    cohort, seen = model._cohort(None), model._fitted_positions()
    fitted = seen if train is None else model._positions(cohort, train)
    if test is None:
        tested = np.setdiff1d(np.arange(len(cohort), dtype=np.intp), np.union1d(seen, fitted))
    else:
        tested = model._positions(cohort, test)
    if len(shared := np.intersect1d(fitted, tested)):
        raise ValueError(f"{len(shared)} samples are in both train and test, first {cohort.obs_names[shared[0]]!r}")
    known = len(np.intersect1d(seen, tested))
    if known:
        warnings.warn(
            f"the model was fitted on {known} of the {len(tested)} test samples: what it generates for them looks better "
            "than it is",
            UserWarning,
            stacklevel=3,
        )
    return fitted, tested


def _generated(
    model: Model, target: str, given: Sequence[str] | None, at: Positions, n_draws: int | None, batch_size: int | None
) -> list[Values]:
    """The predictive mean, or draws, each ``(n, p)``."""
    if n_draws is None:
        found = model.impute(target, given=given, indices=at, level=None, scale="normalized", batch_size=batch_size)
        draws = np.asarray(found.X)[None]
    else:
        number = whole_number("n_draws", n_draws)
        draws = model.sample(
            target, given=given, indices=at, n_samples=number, scale="normalized", batch_size=batch_size
        )
    return [_comparable(model, target, draw) for draw in draws]


def _measured(model: Model, target: str, at: Positions) -> Values:
    """``(n, p)``, counts at the median library size."""
    uses_size = model.module.likelihoods.of(target).uses_size
    size = float(model.module.size_priors.of(target).median) if uses_size else None
    return _comparable(model, target, observed_values(model._cohort(None), target, at, reference_size=size))


def _comparable(model: Model, target: str, values: NDArray[np.float32]) -> Values:
    return np.asarray(np.log1p(values) if model.module.likelihoods.of(target).uses_size else values, dtype=np.float64)


def _column_means(values: Values) -> Values:
    """``(p,)`` over values that are not NaN; NaN where there are none."""
    seen = ~np.isnan(values)
    return np.where(seen.any(0), np.nansum(values, 0) / np.maximum(seen.sum(0), 1), np.nan)


def _classified(classifier: Pipeline, fitted: Labels, values: Values, truth: Labels) -> Classification:
    x, y = usable_samples(values, truth, "test samples")
    return summarise([predict_classes(classifier, fitted, x, y)])


def _mean(found: list[Classification]) -> Classification:
    """Of the classifications of several draws."""
    scores = np.mean([one[:5] for one in found], axis=0)
    accuracy, nmi, ari, auc, majority = (float(score) for score in scores)
    return Classification(accuracy, nmi, ari, auc, majority, found[0].n_samples, found[0].n_classes)
