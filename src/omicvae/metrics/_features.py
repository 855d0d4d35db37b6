"""How well each feature is predicted."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from omicvae.data._validate import listing
from omicvae.metrics._numbers import numbers
from omicvae.stats.scores import mae, r2, spearman


def feature_scores(truth: ArrayLike | pd.DataFrame, prediction: ArrayLike | pd.DataFrame) -> pd.DataFrame:
    r"""Rank correlation, explained variance and absolute error of each feature, over the samples that measured it.

    .. math::
        \rho = \mathrm{cor}(\mathrm{rank}\, x, \mathrm{rank}\, \hat x), \qquad
        R^2 = 1 - \frac{\sum (x - \hat x)^2}{\sum (x - \bar x)^2}, \qquad
        \mathrm{MAE} = \frac1n \sum |x - \hat x|

    Both must be on one scale, and on a scale on which errors mean something: for counts, logarithms of counts at a common
    library size.

    Parameters
    ----------
    truth
        ``(n_samples, n_features)``; NaN where not measured.
    prediction
        The same of predictions, which must not have seen the truth: such as
        :meth:`~omicvae.model.CoVAE.impute` of samples the model was not fitted on. Two DataFrames are matched by name:
        samples that both have, and the features of the prediction.

    Returns
    -------
    DataFrame with one row a feature: ``spearman``, ``r2``, ``mae``, and ``n_samples`` that measured it. NaN where a score is
    not defined: a constant feature, a constant prediction (``spearman``), fewer than three values (none for ``mae``).

    Raises
    ------
    TypeError
        If either is not an array of numbers.
    ValueError
        If shapes differ, names are not unique, no sample is in both, or the truth lacks a predicted feature.
    """
    names = None
    if isinstance(truth, pd.DataFrame) and isinstance(prediction, pd.DataFrame):
        truth, prediction = _matched(truth, prediction)
    for one in (prediction, truth):
        if isinstance(one, pd.DataFrame):
            names = one.columns
    x, found = numbers(truth, "the truth"), numbers(prediction, "the prediction")
    scores = {"spearman": spearman(x, found), "r2": r2(x, found), "mae": mae(x, found)}
    return pd.DataFrame({**scores, "n_samples": (~np.isnan(x)).sum(0)}, index=names)


def _matched(truth: pd.DataFrame, prediction: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    for what, one in (("truth", truth), ("prediction", prediction)):
        if one.index.has_duplicates or one.columns.has_duplicates:
            raise ValueError(f"names of samples or features of the {what} are not unique")
    lacking = [str(name) for name in prediction.columns if name not in truth.columns]
    if lacking:
        raise ValueError(f"the truth lacks {len(lacking)} of the predicted features: {listing(lacking)}")
    both = truth.index.intersection(prediction.index, sort=False)
    if len(both) == 0:
        raise ValueError("no sample has both a measurement and a prediction")
    return truth.loc[both, prediction.columns], prediction.loc[both]
