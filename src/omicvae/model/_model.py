"""The complete interface that every model class has."""

from __future__ import annotations

from omicvae.model._generation import GenerationMixin
from omicvae.model._latent import LatentMixin
from omicvae.model._normalized_expression import NormalizedExpressionMixin
from omicvae.model._query import QueryMixin
from omicvae.model._written_report import ReportMixin


class Model(QueryMixin, NormalizedExpressionMixin, GenerationMixin, LatentMixin, ReportMixin):
    """Setup, training, latents, imputation, generation, saving, queries, report.

    A model class adds its constructor and its latents' names.
    """
