"""Samples a model was not trained on."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from omicvae.model._model import Model


class HeldOut:
    """Samples to measure a network on: those its training has not seen.

    A closed form is fitted on all of them but the test part; what it predicts is measured by cross-fitting
    (:meth:`omicvae.model.CoVAE.get_held_out_predictions`).

    Parameters
    ----------
    model
        Trained, with data attached.

    Raises
    ------
    ValueError
        If the model was loaded without data.
    """

    def __init__(self, model: Model) -> None:
        if model.adata is None:
            raise ValueError(
                f"the {type(model).__name__} was loaded without data, so there are no held-out samples: load it with "
                "load(dir, mdata)"
            )
        parts = [model.validation_indices, model.calibration_indices, model.test_indices]
        chosen = np.concatenate([np.zeros(0, np.intp), *(np.asarray(p, np.intp) for p in parts if p is not None)])
        seen = model.train_indices is not None and len(model.train_indices) > 0
        n_obs = len(model._cohort(None))
        self.trained_on = len(chosen) == 0 and seen
        """Whether there are none, so that training samples have to do."""
        self.positions: NDArray[np.intp] = np.sort(chosen) if len(chosen) else np.arange(n_obs, dtype=np.intp)
        """(n,) validation, calibration and test samples; all samples if there are none."""

    def warn(self, what: str) -> None:
        """Warn if ``what`` is about to be measured on samples the model was trained on."""
        if self.trained_on:
            warnings.warn(
                f"the model has no held-out samples: {what} measured on training samples looks better than it is. Train "
                "with train_size < 1, or name unseen samples with indices=.",
                UserWarning,
                stacklevel=3,
            )


def samples_to_measure_on(model: Model, indices: object, what: str) -> NDArray[np.intp]:
    """Positions asked for by the user, else the held-out samples, with a warning if there are none."""
    if indices is None:
        held_out = HeldOut(model)
        held_out.warn(what)
        return held_out.positions
    return model._positions(model._cohort(None), indices)  # type: ignore[arg-type]
