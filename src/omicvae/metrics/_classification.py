"""How linearly separable classes are in latents, on samples the classifier was not fitted on."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from omicvae.data._validate import listing
from omicvae.metrics._numbers import numbers
from omicvae.model._sizes import whole_number
from omicvae.stats.scores import auroc

MAX_ITER = 2000

Features = NDArray[np.float64]
Labels = NDArray[np.object_]


class Classification(NamedTuple):
    """How well predicted classes agree with true ones, on samples the classifier was not fitted on."""

    accuracy: float
    """Share of samples whose class is predicted."""
    nmi: float
    """Normalised mutual information of predicted and true classes, by the arithmetic mean of their entropies."""
    ari: float
    """Adjusted Rand index of predicted and true classes."""
    auc: float
    """Area under the ROC curve; with several classes the mean over classes, each against all others."""
    majority: float
    """Accuracy of predicting the class that is most frequent among the samples fitted on."""
    n_samples: int
    """Samples predicted."""
    n_classes: int
    """Classes among the samples fitted on."""


class Predictions(NamedTuple):
    """Classes of samples, predicted by a classifier that has not seen them."""

    truth: Labels
    """(n,)"""
    predicted: Labels
    """(n,)"""
    auc: float
    majority: NDArray[np.bool_]
    """(n,) whether the class is the one most frequent among the samples fitted on."""
    n_classes: int


def linear_classification(
    latents: ArrayLike | pd.DataFrame,
    labels: ArrayLike | pd.Series,
    *,
    test_latents: ArrayLike | pd.DataFrame | None = None,
    test_labels: ArrayLike | pd.Series | None = None,
    n_folds: int = 5,
    seed: int = 0,
) -> Classification:
    """Agreement of true classes with those that multinomial logistic regression predicts from latents.

    Latents are standardised by the samples that the classifier is fitted on. With test latents it is fitted on the others
    once; without them, in every fold of a stratified cross-validation, whose predictions are pooled (the area under the
    curve is averaged over folds, because scores of different fits have no common scale).

    Parameters
    ----------
    latents
        ``(n_samples, n_latent)``. Samples with NaN, such as private latents of an assay that was not measured, are left out
        with a warning.
    labels
        ``(n_samples,)`` classes; missing ones (``None``, NaN) are left out. A Series is matched by name if the latents are
        a DataFrame.
    test_latents, test_labels
        Of the samples to be predicted, as above. They may come from other assays of the same model (*a classifier trained
        on one modality's latents and evaluated on another's*, table 2 of :cite:t:`caretti2026covae`).
    n_folds
        Folds of the cross-validation; classes with fewer samples are left out with a warning.
    seed
        Of the folds.

    Returns
    -------
    Accuracy, NMI and ARI of predicted classes (appendix B.2 of :cite:t:`caretti2026covae`) and AUC
    (:cite:t:`martens2024disentangling`).

    Raises
    ------
    TypeError
        If latents are not an array of numbers, such as a model.
    ValueError
        If shapes do not match, a latent is infinite, fewer than two classes are left, or a test sample has a class that no
        other sample has.
    """
    if (test_latents is None) != (test_labels is None):
        raise ValueError("give both test_latents and test_labels, or neither")
    x, y = usable_samples(latents, labels, "samples")
    if test_latents is None:
        return summarise(
            _cross_validated(*_with_enough(x, y, whole_number("n_folds", n_folds, least=2)), n_folds, seed)
        )
    test_x, test_y = usable_samples(test_latents, test_labels, "test samples")
    if test_x.shape[1] != x.shape[1]:
        raise ValueError(f"test_latents have {test_x.shape[1]} dimensions and latents {x.shape[1]}")
    classifier = fit_classifier(x, y)
    return summarise([predict_classes(classifier, y, test_x, test_y)])


def fit_classifier(x: Features, y: Labels) -> Pipeline:
    """Standardise, and fit a multinomial logistic regression.

    Raises
    ------
    ValueError
        If there are fewer than two classes.
    """
    if len(np.unique(y)) < 2:
        raise ValueError(f"a classifier needs at least two classes, got {listing(list(np.unique(y))) or 'no sample'}")
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITER)).fit(x, y)


def predict_classes(classifier: Pipeline, fitted: Labels, x: Features, y: Labels) -> Predictions:
    """Predict samples ``x`` by a classifier that was fitted on labels ``fitted``.

    Raises
    ------
    ValueError
        If there is no sample, or one of a class that was not fitted.
    """
    classes, counts = np.unique(fitted, return_counts=True)
    unknown = sorted(set(y) - set(classes))
    if unknown:
        raise ValueError(f"test samples have classes that no training sample has: {listing(unknown)}. Leave them out.")
    if len(y) == 0:
        raise ValueError("no test sample has a label and finite values")
    truth = (y[:, None] == classes[None]).astype(float)
    areas = auroc(truth, classifier.predict_proba(x))
    if len(classes) == 2:
        areas = areas[1:]
    auc = float(np.nanmean(areas)) if not np.isnan(areas).all() else float("nan")
    return Predictions(y, classifier.predict(x), auc, y == classes[counts.argmax()], len(classes))


def summarise(found: list[Predictions]) -> Classification:
    """Pool predictions."""
    truth, predicted = (np.concatenate(parts) for parts in zip(*((f.truth, f.predicted) for f in found), strict=True))
    return Classification(
        accuracy=float(accuracy_score(truth, predicted)),
        nmi=float(normalized_mutual_info_score(truth, predicted)),
        ari=float(adjusted_rand_score(truth, predicted)),
        auc=float(np.mean([f.auc for f in found])),
        majority=float(np.concatenate([f.majority for f in found]).mean()),
        n_samples=len(truth),
        n_classes=found[0].n_classes,
    )


def _cross_validated(x: Features, y: Labels, n_folds: int, seed: int) -> list[Predictions]:
    folds = StratifiedKFold(n_folds, shuffle=True, random_state=seed)
    found = []
    for fitted, held in folds.split(x, y):
        classifier = fit_classifier(x[fitted], y[fitted])
        found.append(predict_classes(classifier, y[fitted], x[held], y[held]))
    return found


def _with_enough(x: Features, y: Labels, n_folds: int) -> tuple[Features, Labels]:
    """Samples of classes that every fold can hold, at least two of them."""
    classes, counts = np.unique(y, return_counts=True)
    rare = classes[counts < n_folds]
    if len(classes) - len(rare) < 2:
        raise ValueError(f"classes with at least n_folds={n_folds} samples: {len(classes) - len(rare)}; two are needed")
    if len(rare):
        warnings.warn(
            f"{len(rare)} classes with fewer than n_folds={n_folds} samples are left out: {listing(list(rare))}",
            UserWarning,
            stacklevel=3,
        )
    kept = ~np.isin(y, rare)
    return x[kept], y[kept]


def usable_samples(
    latents: ArrayLike | pd.DataFrame, labels: ArrayLike | pd.Series | None, what: str
) -> tuple[Features, Labels]:
    """Values and classes (as text) of samples that have both; a warning says how many values are NaN.

    Raises
    ------
    ValueError
        If shapes do not match or a value is infinite.
    """
    if isinstance(latents, pd.DataFrame) and isinstance(labels, pd.Series):
        if latents.index.has_duplicates or labels.index.has_duplicates:
            raise ValueError(f"names of {what} are not unique")
        labels = labels.reindex(latents.index)
    x = numbers(latents, f"values of {what}")
    if x.ndim != 2:
        raise ValueError(f"{what} must have the shape (n_samples, n_latent), got {x.shape}")
    y = pd.Series(np.asarray(labels, dtype=object).reshape(-1))
    if len(y) != len(x):
        raise ValueError(f"{len(x)} {what} have {len(y)} labels")
    if np.isinf(x).any():
        raise ValueError(f"{int(np.isinf(x).any(1).sum())} {what} have infinite values")
    labelled, known = y.notna().to_numpy(), ~np.isnan(x).any(1)
    lost = int((labelled & ~known).sum())
    if lost:
        warnings.warn(f"{lost} of {int(labelled.sum())} labelled {what} have NaN and are left out", stacklevel=3)
    kept = labelled & known
    return x[kept], y[kept].astype(str).to_numpy(dtype=object)
