"""A modality read and predicted along a few directions instead of by feature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from omicvae.nn.likelihoods._base import gather
from omicvae.stats.shared_directions import MOST_DIRECTIONS, Directions


class Turned(nn.Module):
    """Coordinates along the directions that other modalities predict, if any were set.

    Parameters
    ----------
    n_vars
        Number of features.
    """

    into: Tensor
    back: Tensor
    weight: Tensor

    def __init__(self, n_vars: int) -> None:
        super().__init__()
        most = min(n_vars, MOST_DIRECTIONS)
        self.n_vars, self.n = n_vars, 0
        self.register_buffer("into", torch.zeros(n_vars, most))
        self.register_buffer("back", torch.zeros(most, n_vars))
        self.register_buffer("weight", torch.zeros(most))
        self.raw_noise = nn.Parameter(torch.zeros(2, most))
        self.register_load_state_dict_post_hook(_count)

    def set(self, directions: Directions | None) -> None:
        """Take directions, or none."""
        for buffer in (self.into, self.back, self.weight):
            buffer.zero_()
        if directions is not None:
            k = len(directions.score)
            self.into[:, :k] = torch.from_numpy(directions.into)
            self.back[:k] = torch.from_numpy(directions.back)
            weight = torch.from_numpy(directions.score).sqrt()
            self.weight[:k] = weight / weight.square().mean().sqrt()
        _count(self)

    def coordinates(self, values: Tensor) -> Tensor:
        """``(..., n)`` from standardised features ``(..., p)``."""
        return values @ self.into[:, : self.n]

    def inputs(self, values: Tensor) -> Tensor:
        """``(..., n)`` coordinates weighted by how well they are predicted."""
        return self.coordinates(values) * self.weight[: self.n]

    def features(self, coordinates: Tensor) -> Tensor:
        """``(..., p)`` from ``(..., n)``."""
        return coordinates @ self.back[: self.n]

    def log_prob(self, residual: Tensor, route: Tensor) -> Tensor:
        """Normal log-density of coordinates whose ``residual`` features ``(..., p)`` were not explained, summed."""
        log_noise = gather(self.raw_noise[:, : self.n], route)
        scaled = self.coordinates(residual) * torch.exp(-log_noise)
        return (-0.5 * scaled.square() - log_noise - 0.5 * math.log(2 * math.pi)).sum(-1)


def _count(module: Turned, *_: object) -> None:
    """Count directions when they change, not in every step."""
    module.n = int((module.weight > 0).sum())
