"""Beta and Gamma functions by Stirling's formula, accurate in single precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# z stirling_error(z) as a polynomial in 1/z for z >= 1: least squares on Chebyshev nodes, leaving an error of 3e-9. The
# first terms are close to the 1/12, 0, -1/360 of the asymptotic series.
_STIRLING = (
    0.0833333342,
    -1.82239558e-07,
    -0.00277252458,
    -5.34345939e-05,
    0.00104963809,
    -0.000633678723,
    0.000138317742,
)


def log_beta(a: Tensor, b: Tensor) -> Tensor:
    r"""Logarithm of the Beta function, accurate in float32 for any positive arguments.

    ``lgamma(a) + lgamma(b) - lgamma(a + b)`` is a small difference of large numbers: at ``b = 1e7`` each has an error
    of 16 in float32. Here the large parts of Stirling's formula are cancelled before they are computed,

    .. math::

        \log B(a, b) = \tfrac12 \log \frac{2\pi (a + b)}{a b} - a \log\Big(1 + \frac ba\Big)
            - b \log\Big(1 + \frac ab\Big) + \Delta(a) + \Delta(b) - \Delta(a + b),

    where :math:`\Delta` is the error of that formula for :math:`\log \Gamma`, as Loader, *Fast and accurate
    computation of binomial probabilities* (2000), does for the binomial.

    Parameters
    ----------
    a, b
        Positive, any shapes that broadcast; at least 1e-8.
    """
    main = -a * torch.log1p(b / a) - b * torch.log1p(a / b)
    half = 0.5 * ((1 / a + 1 / b).log() + math.log(2 * math.pi))
    return main + half + stirling_error(a) + stirling_error(b) - stirling_error(a + b)


def stirling_error(z: Tensor) -> Tensor:
    r"""Error of Stirling's formula, :math:`\log\Gamma(z) - (z - \tfrac12)\log z + z - \tfrac12 \log 2\pi`, for z > 0.

    From its value at ``z + 1`` by the recurrence of the Gamma function, and there from a polynomial in
    ``1 / (z + 1)``: cheaper than ``lgamma`` and its gradient, and with an error near 1e-7 whatever ``z`` is.
    """
    w = (z + 1).reciprocal()
    return _polynomial(w, _STIRLING) + (z + 0.5) * torch.log1p(z.reciprocal()) - 1


def _polynomial(w: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """``w (c_0 + w (c_1 + ...))``, in one place in memory where nothing has to be kept for derivatives."""
    total = w * coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        total = (total + coefficient) * w if total.requires_grad else total.add_(coefficient).mul_(w)
    return total


def stirling_slope(z: Tensor) -> Tensor:
    r"""Derivative of :func:`stirling_error`, :math:`\psi(z) - \log z + \frac{1}{2z}`, for z > 0."""
    w = (z + 1).reciprocal()
    rising = _polynomial(w, tuple(k * c for k, c in enumerate(_STIRLING, start=1)))
    inverse = z.reciprocal()
    return inverse.log1p() - (z + 0.5) * inverse * w - w * rising
