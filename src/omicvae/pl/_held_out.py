"""Measured values beside held-out predictions, as several plots need them."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from numpy.typing import NDArray

from omicvae.data._validate import nearest
from omicvae.model._arguments import check_model
from omicvae.model._model import Model

logger = logging.getLogger("omicvae")

Array = NDArray[np.floating]


def held_out_predictions(
    model: Model, modality: str | Sequence[str] | None, given: Sequence[str] | None, function: str
) -> dict[str, AnnData]:
    """Modality -> what :meth:`~omicvae.model.CoVAE.get_held_out_predictions` returns.

    Parameters
    ----------
    model
        Trained.
    modality
        One or several; ``None`` for all but those in ``given``, without those of which no sample was held out.
    given
        Modalities to condition on; all others by default.
    function
        Name of the plot, for messages.

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        For an unknown modality.
    RuntimeError
        If the model is not trained, or no measured value was held out.
    """
    check_model(model, function)
    if modality is not None:
        names = [modality] if isinstance(modality, str) else list(dict.fromkeys(modality))
        if not names:
            raise ValueError("modality is empty: name at least one, or leave it out for all")
        return {name: measured_beside_predicted(model, name, given) for name in names}
    found: dict[str, AnnData] = {}
    reasons: list[str] = []
    for name in model.modalities:
        if given is not None and name in given:
            continue
        try:
            found[name] = measured_beside_predicted(model, name, given)
        except RuntimeError as error:
            reasons.append(f"{name}: {error}")
    if not found:
        raise RuntimeError("; ".join(reasons) or f"given={list(given or ())} leaves no modality to predict")
    if reasons:
        logger.warning("%s leaves out %s", function, "; ".join(reasons))
    return found


def measured_beside_predicted(model: Model, modality: str, given: Sequence[str] | None, level: float = 0.9) -> AnnData:
    """Held-out predictions of one modality.

    Raises
    ------
    ValueError
        For an unknown modality.
    RuntimeError
        If no measured value was held out.
    """
    if modality not in model.modalities:
        raise ValueError(
            f"the model was not trained on a modality {modality!r}; it knows {list(model.modalities)}."
            f"{nearest(str(modality), model.modalities)}"
        )
    found = model.get_held_out_predictions(modality, given=given, level=level)
    if not (~np.isnan(found.X)).any():
        raise RuntimeError(f"no value of {modality!r} was measured in a held-out sample: nothing to compare with")
    return found


def layer(adata: AnnData, name: str | None = None) -> Array:
    """``(n, p)`` measured values, or a layer of the predictions."""
    return np.asarray(adata.X if name is None else adata.layers[name])
