"""The complete interface that every model class has."""

from __future__ import annotations

from omicvae.model._generation import GenerationMixin
from omicvae.model._imputation import ImputationMixin
from omicvae.model._latent import LatentMixin
from omicvae.model._persistence import PersistenceMixin
from omicvae.model._written_report import ReportMixin


class Model(PersistenceMixin, ImputationMixin, GenerationMixin, LatentMixin, ReportMixin):
    """Setup, training, latents, imputation, generation, saving, report.

    A model class adds its constructor and its latents' names.
    """
