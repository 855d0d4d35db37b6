"""A few imputed features beside the data they belong to."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from mudata import MuData

from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.tl._arguments import check_data, check_obsm_keys


def impute(
    mdata: MuData,
    model: Model,
    modality: str,
    *,
    features: Sequence[str] | None = None,
    given: Sequence[str] | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> MuData | None:
    """Write a modality predicted from the *other* assays of every sample into ``mdata.obsm``.

    Meant for a few features, to plot them: a modality that lacks samples cannot hold values for them. For whole
    modalities use :func:`omicvae.tl.complete`.

    Parameters
    ----------
    mdata
        The model's own data or any other, matched by name.
    model
        Trained model.
    modality
        What to predict, for all samples, whether they have it or not.
    features
        Features to write; all by default.
    given
        Modalities to condition on; all others by default.
    key_added
        Name of the entry; ``"<modality>_imputed"`` by default.
    copy
        Return a changed copy and leave ``mdata`` as it is.

    Returns
    -------
    ``None``, or the copy. Written are two DataFrames ``(n_obs, n_features)`` with ``mdata.obs_names`` as index and
    feature names as columns: ``obsm["<modality>_imputed"]``, the predictive mean, and ``obsm["<modality>_imputed_sd"]``,
    its standard deviation, both in the units of the registered layer.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData or ``model`` is not a model.
    ValueError
        For an unknown modality or feature, if ``modality`` is in ``given``, or if the name to be written is that of a
        modality.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "impute")
    check_data(mdata, "impute")
    key = f"{modality}_imputed" if key_added is None else key_added
    check_obsm_keys(mdata, [key, f"{key}_sd"])
    found = model.impute(modality, mdata=mdata, features=features, given=given, level=None)
    target = mdata.copy() if copy else mdata
    for name, values in ((key, found.X), (f"{key}_sd", found.layers["sd"])):
        target.obsm[name] = pd.DataFrame(values, index=target.obs_names, columns=found.var_names)
    return target if copy else None
