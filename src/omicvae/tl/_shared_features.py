"""Features that the other assays know most about."""

from __future__ import annotations

import numpy as np
import pandas as pd

from omicvae.data._measured import observed_values
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._sizes import whole_number
from omicvae.stats.scores import spearman
from omicvae.tl._trust import measured_trust

LEAST_SAMPLES = 10
COLUMNS = (*("modality", "feature", "r2", "skill_vs_mean", "skill_vs_ridge", "coverage90", "dimension", "correlation"),)


def shared_features(model: Model, *, n: int = 10) -> pd.DataFrame:
    """The features of each assay that its other assays predict best, and the shared dimension they go with.

    Features are ranked by how much better than their mean they are predicted, on samples the predictor has not seen. The
    best of many look better than they are.

    Parameters
    ----------
    model
        Trained model with data attached.
    n
        Features an assay; only those that can be told from their mean beyond sampling error are listed.

    Returns
    -------
    DataFrame with a row a feature, best first within each modality: ``modality``, ``feature``; ``r2``,
    ``skill_vs_mean``, ``skill_vs_ridge`` and ``coverage90`` as in :meth:`omicvae.model.CoVAE.trust`; ``dimension``, the
    shared latent, given the *other* assays, that the measured values are most correlated with, and ``correlation``,
    Spearman's, over all samples that have the assay and another one (training samples among them). Modalities of which
    too few samples were held out have no rows.

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        If it was loaded without data, or for an impossible ``n``.
    RuntimeError
        If it is not trained.
    """
    check_model(model, "shared_features")
    n = whole_number("n", n)
    model._cohort(None)  # without data nothing can be correlated
    tables = [_of_modality(model, m, n) for m in model.modalities]
    found = [t for t in tables if len(t)]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS))


def _of_modality(model: Model, modality: str, n: int) -> pd.DataFrame:
    trust = measured_trust(model, modality)
    if trust is None:
        return pd.DataFrame(columns=list(COLUMNS))
    chosen = trust[trust["imputable"]].nlargest(n, "skill_vs_mean")
    kept = chosen[["r2", "skill_vs_mean", "skill_vs_ridge", "coverage90"]].rename_axis("feature").reset_index()
    dimension, correlation = _dimensions(model, modality, list(chosen.index))
    return kept.assign(modality=modality, dimension=pd.Series(dimension, dtype=object), correlation=correlation)[
        list(COLUMNS)
    ]


def _dimensions(model: Model, modality: str, features: list[str]) -> tuple[list[str | None], list[float]]:
    """The shared dimension of each feature, and its correlation with it."""
    names = list(model.latent_names["shared"])
    unknown: tuple[list[str | None], list[float]] = [None] * len(features), [float("nan")] * len(features)
    cohort = model._cohort(None)
    column = model.modalities.index(modality)
    usable = np.flatnonzero(cohort.present[:, column] & (cohort.present.sum(1) > 1)).astype(np.intp)
    if not names or not features or len(usable) < LEAST_SAMPLES:
        return unknown
    others = [m for m in model.modalities if m != modality]
    latent = np.asarray(
        model.get_latent_representation(kind="shared", given=others, indices=usable, return_numpy=True),
        dtype=np.float64,
    )
    at = pd.Index(model.schema[modality].var_names).get_indexer(pd.Index(features)).astype(np.intp)
    values = observed_values(cohort, modality, usable, columns=at).astype(np.float64)
    found = np.stack([spearman(values, np.repeat(z[:, None], len(at), 1)) for z in latent.T], axis=1)  # (p, r)
    best = np.argmax(np.nan_to_num(np.abs(found), nan=-1.0), axis=1)
    chosen = found[np.arange(len(at)), best]
    return [names[k] if np.isfinite(c) else None for k, c in zip(best, chosen, strict=True)], chosen.tolist()
