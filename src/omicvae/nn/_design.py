"""Batch and covariates as network inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Covariates(NamedTuple):
    """Covariates of ``B`` samples."""

    codes: Mapping[str, Tensor]
    """name -> (..., B) int64 category, -1 unknown."""
    continuous: Tensor
    """(B, C) float32, NaN where missing."""


class Design(nn.Module):
    """One-hot categories and standardised continuous covariates of one modality.

    A category that is unknown (missing, never seen in training, or never seen *with this modality*: a centre that has not
    measured the assay says nothing about its shift) is replaced by the training frequencies of all categories. When
    values are imputed it is drawn from them instead (:meth:`fill`), so that not knowing the batch counts as uncertainty.

    Parameters
    ----------
    n_categories
        covariate name -> number of categories; those entering this modality only.
    n_continuous
        Number of continuous covariates.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, n_categories: Mapping[str, int], n_continuous: int) -> None:
        super().__init__()
        self.names = tuple(n_categories)
        self.n_categories = dict(n_categories)
        self.n_continuous = n_continuous
        for i, n in enumerate(n_categories.values()):  # numbered: a buffer's name may not hold every character
            self.register_buffer(f"frequency_{i}", torch.full((n,), 1.0 / max(n, 1)))
        self.register_buffer("mean", torch.zeros(n_continuous))
        self.register_buffer("scale", torch.ones(n_continuous))

    @property
    def n_columns(self) -> int:
        """Width of the design."""
        return sum(self.n_categories.values()) + self.n_continuous

    def frequency(self, name: str) -> Tensor:
        """``(n_categories,)`` training frequencies of a covariate."""
        return getattr(self, f"frequency_{self.names.index(name)}")

    def known(self, name: str, codes: Tensor) -> Tensor:
        """Which of these codes say something: categories of which there were training samples."""
        return (codes >= 0) & (self.frequency(name)[codes.clamp_min(0)] > 0)

    def forward(self, covariates: Covariates) -> Tensor | None:
        """``(..., B, n_columns)``, or ``None`` without covariates; codes may have leading axes, such as draws."""
        if self.n_columns == 0:
            return None
        columns: list[Tensor] = []
        for name in self.names:
            codes = covariates.codes[name]
            onehot = nn.functional.one_hot(codes.clamp_min(0), self.n_categories[name]).to(self.mean.dtype)
            columns.append(torch.where(self.known(name, codes).unsqueeze(-1), onehot, self.frequency(name)))
        if self.n_continuous:
            continuous = ((covariates.continuous - self.mean) / self.scale).nan_to_num(0.0)
            leading = columns[0].shape[:-1] if columns else continuous.shape[:-1]
            columns.append(continuous.expand(*leading, -1))
        return torch.cat(columns, -1)

    def fill(self, codes: Mapping[str, Tensor], n_draws: int) -> dict[str, Tensor]:
        """``(n_draws, B)`` categories, with unknown ones drawn from the training frequencies."""
        filled = {}
        for name in self.names:
            known = codes[name].expand(n_draws, -1)
            drawn = torch.multinomial(self.frequency(name), known.numel(), replacement=True).view_as(known)
            filled[name] = torch.where(self.known(name, known), known, drawn)
        return filled

    @torch.no_grad()
    def fit(self, chunks: Iterable[Covariates]) -> None:
        """Training frequencies, means and standard deviations."""
        gathered = list(chunks)
        for name in self.names:
            codes = torch.cat([c.codes[name] for c in gathered])
            counts = torch.bincount(codes[codes >= 0], minlength=self.n_categories[name]).float()
            self.frequency(name).copy_(
                counts / counts.sum() if counts.sum() > 0 else torch.full_like(counts, 1 / len(counts))
            )
        if self.n_continuous:
            values = torch.cat([c.continuous for c in gathered]).double()
            mean = values.nanmean(0).nan_to_num(0.0)
            deviation = (values - mean).square().nanmean(0).sqrt().nan_to_num(1.0)
            self.mean.copy_(mean)
            self.scale.copy_(torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation)))
