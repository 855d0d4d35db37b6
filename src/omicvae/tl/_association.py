"""Differences between groups of samples in an assay that some of them lack."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from omicvae.data._validate import listing
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._sizes import whole_number
from omicvae.stats.multiple_imputation import Fit, Pooled, RegressionImputer, estimable, least_squares, pool
from omicvae.tl._arguments import check_data
from omicvae.tl._evidence import Evidence, gather
from omicvae.tl._groups import REST, Contrast, group_codes, make_contrasts, read_covariates, read_labels
from omicvae.tl._out_of_sample import Request

HELD = 2**23  # values of completed data sets held at once
COLUMNS = (
    *("feature", "group", "reference", "estimate", "se", "statistic", "df", "pvalue", "padj"),
    *("fraction_missing_information", "n_measured", "n_imputed", "n_measured_reference", "n_imputed_reference"),
)


def association(
    mdata: MuData,
    model: Model,
    modality: str,
    groupby: str,
    *,
    groups: Sequence[str] | None = None,
    reference: str = REST,
    adjust: Sequence[str] | None = None,
    given: Sequence[str] | None = None,
    features: Sequence[str] | None = None,
    n_imputations: int = 20,
    batch_size: int | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    r"""Compare groups of samples feature by feature, an imputed sample counting for what it is worth.

    Samples that lack the assay are completed ``n_imputations`` times with what was measured left as it is, a linear
    model is fitted to each completed data set, and the results are pooled by Rubin's rules: the scatter between
    imputations enters the standard error. A draw of the model is corrected, feature by feature, by how measured values
    relate to predictions that had not seen them: their scale, their noise, and the mean residual of *each group*, all
    drawn anew in every imputation (:mod:`omicvae.stats.multiple_imputation`). Where predictions are worth nothing the
    result is that of the measured samples alone; where they are perfect, that of a complete assay. A group that differs
    in its other assays, but not in this one, is not given a difference, as long as some of its samples were measured.

    Values are compared on the scale of ``log(1 + x)`` of counts at the median library size, and as they are otherwise:
    methylation as levels, 0/1 data as proportions. Without imputed samples this is the two-sample t test with equal
    variances.

    Parameters
    ----------
    mdata
        The model's own data or any other, matched by name.
    model
        Trained model, with its data attached if any sample is to be imputed.
    modality
        Assay to compare.
    groupby
        Column of ``mdata.obs`` with the groups; samples without a label are left out.
    groups
        Groups to test; all by default.
    reference
        ``"rest"``: each group against all other labelled samples; or the name of one group.
    adjust
        Columns of ``mdata.obs`` whose linear effects are removed, such as batch or age; samples in which one is missing
        are left out.
    given
        Modalities to predict from; all others by default.
    features
        Features to test; all by default.
    n_imputations
        Completed data sets, at least 2.
    batch_size
        Samples predicted at a time.
    seed
        Of all draws; without it they follow ``scvi.settings.seed``.

    Returns
    -------
    DataFrame with one row a group and feature:

    ``estimate``, ``se``
        Mean of the group minus that of the reference, and its standard error.
    ``statistic``, ``df``, ``pvalue``
        Two-sided t test with degrees of freedom of Barnard and Rubin (1999).
    ``padj``
        Benjamini-Hochberg over the features of the group.
    ``fraction_missing_information``
        Of the estimate, between 0 and 1: how far it falls short of a complete assay.
    ``n_measured``, ``n_imputed``, ``n_measured_reference``, ``n_imputed_reference``
        Samples. Those that have neither this assay nor any in ``given`` are not counted; single values that are NaN in
        a measured sample are left out, not imputed.

    All are NaN where a feature has too few values, or its measured ones cannot tell the group from ``adjust``.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, ``model`` is not a model, or ``groupby`` holds fractional numbers.
    ValueError
        For an unknown modality, column, group or feature, a group of fewer than two samples, or groups that cannot be
        told from ``adjust``.
    RuntimeError
        If the model is not trained.

    Warns
    -----
    UserWarning
        If a group has imputed samples only: its difference then rests on the other assays alone. If no prediction is
        out of sample: imputed samples then add nothing.

    References
    ----------
    Rubin, Multiple Imputation for Nonresponse in Surveys, 1987; Barnard & Rubin, Biometrika 86, 1999; Meng, Statistical
    Science 9, 1994.
    """
    check_model(model, "association")
    check_data(mdata, "association")
    model._given(given, model._check_modality(modality))
    if features is not None and len(features) == 0:
        raise ValueError("features is empty: name at least one, or leave it out for all")
    columns = model._feature_positions(modality, features)
    n_imputations = whole_number("n_imputations", n_imputations, least=2)
    labels, covariates = read_labels(mdata, groupby), read_covariates(mdata, adjust)
    request = Request(model, mdata, model._cohort(mdata), modality, given, columns, batch_size)
    known = request.cohort.present[:, request.target] | request.predictable()
    labels = labels.where(known & ~np.isnan(covariates).any(1))
    contrasts = make_contrasts(labels, groupby, groups, reference)
    _check_estimable(covariates, contrasts, adjust)
    _warn_unmeasured(request, contrasts)
    with _seeded(model, seed):
        rng = np.random.default_rng(int(torch.randint(2**31, ()).item()))
        used = np.any([c.samples for c in contrasts], axis=0)
        evidence = gather(request, np.asarray(used), n_imputations)
    pooled = _pooled(evidence, contrasts, covariates, rng)
    parts = [_rows(request.features, evidence, c, found) for c, found in zip(contrasts, pooled, strict=True)]
    return pd.concat(parts, ignore_index=True)[list(COLUMNS)]


@contextlib.contextmanager
def _seeded(model: Model, seed: int | None) -> Iterator[None]:
    """Torch's random numbers from a seed, and as they were afterwards; without one, as they are."""
    if seed is None:
        yield
        return
    device = model.module.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _warn_unmeasured(request: Request, contrasts: Sequence[Contrast]) -> None:
    has = request.cohort.present[:, request.target]
    sides = {c.group: c.members for c in contrasts} | {c.reference: c.others for c in contrasts[:1]}
    without = sorted(name for name, rows in sides.items() if not has[rows].any())
    if without:
        warnings.warn(
            f"{request.modality!r} was measured in no sample of {listing(without)}: the difference rests on the other "
            "assays alone, and is wrong where these differ between groups in what has nothing to do with "
            f"{request.modality!r}, or do not show what does",
            UserWarning,
            stacklevel=3,
        )


def _check_estimable(
    covariates: NDArray[np.float64], contrasts: Sequence[Contrast], adjust: Sequence[str] | None
) -> None:
    for contrast in contrasts:
        design = _design(contrast, covariates, np.flatnonzero(contrast.samples))
        if np.linalg.matrix_rank(design) == np.linalg.matrix_rank(design[:, 1:]):
            raise ValueError(
                f"group {contrast.group!r} cannot be told from {listing(list(adjust or []))}, which the samples of one "
                "side do not share with the other. Leave it out of adjust."
            )


def _design(contrast: Contrast, covariates: NDArray[np.float64], position: NDArray[np.intp]) -> NDArray[np.float64]:
    """``(n, 2 + c)``: the difference, a constant and the covariates."""
    return np.column_stack([contrast.members[position], np.ones(len(position)), covariates[position]])


def _pooled(
    evidence: Evidence, contrasts: Sequence[Contrast], covariates: NDArray[np.float64], rng: np.random.Generator
) -> list[Pooled]:
    """Every contrast, over blocks of features."""
    n, p = evidence.values.shape
    step = max(1, HELD // (len(evidence.draws) * max(n, 1)))
    sides = [np.append(c.samples, False)[evidence.position] for c in contrasts]  # False for samples from elsewhere
    designs = [_design(c, covariates, evidence.position[rows]) for c, rows in zip(contrasts, sides, strict=True)]
    codes = group_codes(contrasts)
    group = np.append(codes, codes.max() + 1)[evidence.position]
    adjusted = np.vstack([covariates, np.zeros(covariates.shape[1])])[evidence.position]
    parts: list[list[Pooled]] = [[] for _ in contrasts]
    for start in range(0, p, step):
        columns = slice(start, start + step)
        completed = _completed(evidence, columns, group, adjusted, rng)
        measured = ~np.isnan(evidence.values[:, columns])
        taken = measured | evidence.imputed[:, None]
        for part, rows, design in zip(parts, sides, designs, strict=True):
            fits = least_squares(completed[:, rows], taken[rows], design)
            part.append(pool(_without_confounded(fits, measured[rows], design)))
    return [Pooled(*(np.concatenate(field) for field in zip(*part, strict=True))) for part in parts]


def _without_confounded(fits: Fit, measured: NDArray[np.bool_], design: NDArray[np.float64]) -> Fit:
    """NaN where measured samples of both sides differ in covariates throughout, so that imputation had to guess."""
    member = design[:, 0] == 1
    confounded = measured[member].any(0) & measured[~member].any(0) & ~estimable(measured, design)
    return Fit(*(np.where(confounded, np.nan, field) for field in fits))


def _completed(
    evidence: Evidence,
    columns: slice,
    group: NDArray[np.intp],
    covariates: NDArray[np.float64],
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """``(K, n, p)`` data sets in which samples without the assay are imputed."""
    values = evidence.values[:, columns].astype(np.float64)
    completed = np.repeat(values[None], len(evidence.draws), axis=0)
    if evidence.imputed.any():
        imputer = RegressionImputer(
            values, evidence.prediction[:, columns], group, covariates, evidence.imputed, evidence.noise[columns]
        )
        for one, draws in zip(completed, evidence.draws[:, :, columns], strict=True):
            one[evidence.imputed] = imputer.draw(draws, rng)
    return completed


def _rows(features: Sequence[str], evidence: Evidence, contrast: Contrast, found: Pooled) -> pd.DataFrame:
    """The part of the result that is about one contrast."""
    known = ~np.isnan(evidence.values)
    counts: dict[str, object] = {}
    for suffix, members in (("", contrast.members), ("_reference", contrast.others)):
        side = np.append(members, False)[evidence.position]
        counts[f"n_measured{suffix}"] = known[side].sum(0)
        counts[f"n_imputed{suffix}"] = int((side & evidence.imputed).sum())
    tested = ~np.isnan(found.pvalue)
    padj = np.full(len(features), np.nan)
    padj[tested] = false_discovery_control(found.pvalue[tested])
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = found.estimate / found.se
    named = {"feature": features, "group": contrast.group, "reference": contrast.reference}
    return pd.DataFrame({**named, "statistic": statistic, "padj": padj, **found._asdict(), **counts})
