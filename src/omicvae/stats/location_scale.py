"""Symmetric laws of unit variance, shifted and scaled: Gaussian and Laplace posteriors with one interface."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

FamilyName = Literal["normal", "laplace"]


class Family(NamedTuple):
    """A law with mean 0 and variance 1."""

    standard_log_density: Callable[[Tensor], Tensor]
    """Elementwise log density."""
    noise: Callable[[Tensor], Tensor]
    """Independent draws of the shape, dtype and device of a tensor."""

    def log_density(self, value: Tensor, location: Tensor, sd: Tensor) -> Tensor:
        """Elementwise log density of the law with mean ``location`` and standard deviation ``sd``."""
        return self.standard_log_density((value - location) / sd) - sd.log()


def _normal_log_density(x: Tensor) -> Tensor:
    return -0.5 * x.square() - 0.5 * math.log(2 * math.pi)


def _laplace_log_density(x: Tensor) -> Tensor:
    return -math.sqrt(2.0) * x.abs() - 0.5 * math.log(2.0)


def _laplace_noise(like: Tensor) -> Tensor:
    first, second = torch.empty_like(like).exponential_(), torch.empty_like(like).exponential_()
    return (first - second) / math.sqrt(2.0)  # a difference of exponentials is never infinite


FAMILIES: dict[str, Family] = {
    "normal": Family(_normal_log_density, lambda like: torch.randn_like(like)),
    "laplace": Family(_laplace_log_density, _laplace_noise),
}
