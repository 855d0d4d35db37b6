"""The check that everything which takes a model makes first."""

from __future__ import annotations

from omicvae.model._model import Model


def check_model(model: Model, function: str) -> Model:
    """Return ``model``, or raise.

    Raises
    ------
    TypeError
        If it is not a model of :mod:`omicvae.model`.
    RuntimeError
        If it is not trained.
    """
    if not isinstance(model, Model):
        raise TypeError(f"{function} expects a model of omicvae.model, got {type(model).__name__}")
    model._require_training()
    return model
