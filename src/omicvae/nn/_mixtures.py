"""Predictive distributions put together from others, feature by feature."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

GAUSS = 0.5 / math.sqrt(3)  # of an interval's length, from its middle: exact for cubic functions


class TransformedResiduals(Distribution):
    r"""A prediction on a transformed scale plus a residual, mapped back to the units of the data.

    .. math::

        x_j = s \cdot g_j(u_j + \sigma_j \epsilon_j),

    with :math:`\epsilon_j` drawn from the empirical distribution of standardised residuals.

    Parameters
    ----------
    location
        ``(K or 1, B, p)`` prediction :math:`u`.
    deviation
        ``(p,)`` or ``(K or 1, B, p)`` residual standard deviation :math:`\sigma`.
    quantiles
        ``(G, p)`` or ``(G, 1)`` quantiles of standardised residuals, at equally spaced probabilities from 0 to 1; values
        between two are equally likely.
    back
        Map :math:`g` to values at size 1.
    size
        ``(K, B)`` library size or size factor :math:`s`, or ``None``.
    discrete
        Whether values are whole numbers.
    n_draws
        ``K``.
    """

    arg_constraints = {}

    def __init__(
        self,
        location: Tensor,
        deviation: Tensor,
        quantiles: Tensor,
        *,
        back: Callable[[Tensor], Tensor],
        size: Tensor | None,
        discrete: bool,
        n_draws: int,
    ) -> None:
        self.location, self.deviation, self.quantiles = location, deviation, quantiles
        self.back, self.size, self.discrete = back, size, discrete
        self._found: tuple[Tensor, Tensor] | None = None
        super().__init__(torch.Size((n_draws, *location.shape[1:])), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """Whole numbers or real ones."""
        return constraints.nonnegative_integer if self.discrete else constraints.real

    def _sized(self, values: Tensor) -> Tensor:
        return values if self.size is None else values * self.size.unsqueeze(-1)

    def _moments(self) -> tuple[Tensor, Tensor]:
        """Mean and variance over residuals at size 1 (Duan's smearing, JASA 78, 1983).

        By one point between two quantiles, and Gauss' two in the outermost gaps, which are wide.
        """
        if self._found is not None:
            return self._found
        q = self.quantiles
        outer = [torch.lerp(q[[0, -2]], q[[1, -1]], 0.5 + half) for half in (-GAUSS, GAUSS)]
        points = [(1.0, torch.lerp(q[1:-2], q[2:-1], 0.5)), *((0.5, at) for at in outer)]
        first, second = torch.zeros_like(self.location), torch.zeros_like(self.location)
        centre = self.back(self.location)
        for weight, table in points:
            for residual in table:
                value = self.back(self.location + self.deviation * residual) - centre
                first += weight * value
                second += weight * value.square()
        first, second = first / (len(q) - 1), second / (len(q) - 1)
        self._found = centre + first, (second - first.square()).clamp_min(0)
        return self._found

    @property
    def mean(self) -> Tensor:
        """``(K, B, p)``"""
        return self._sized(self._moments()[0]).expand(self.batch_shape)

    @property
    def variance(self) -> Tensor:
        """``(K, B, p)``"""
        return self._sized(self._sized(self._moments()[1])).expand(self.batch_shape)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw values ``(*sample_shape, K, B, p)``."""
        shape = (*sample_shape, *self.batch_shape)
        at = torch.rand(shape, device=self.location.device) * (self.quantiles.shape[0] - 1)
        below = at.long().clamp_max(self.quantiles.shape[0] - 2)
        table = self.quantiles.expand(-1, shape[-1]).reshape(-1)
        column = torch.arange(shape[-1], device=at.device)
        low = table[below * shape[-1] + column]
        high = table[(below + 1) * shape[-1] + column]
        residual = low + (at - below) * (high - low)
        values = self._sized(self.back(self.location + self.deviation * residual))
        return values.round() if self.discrete else values


class ByFeature(Distribution):
    """Features that follow distributions of different kinds.

    Parameters
    ----------
    components
        Distributions of ``batch_shape`` ``(K, B, p_c)`` over some features each.
    columns
        ``(p_c,)`` positions of each component's features; together every feature once.
    """

    arg_constraints = {}

    def __init__(self, components: Sequence[Distribution], columns: Sequence[Tensor]) -> None:
        self.components = list(components)
        self.columns = list(columns)
        width = sum(len(c) for c in columns)
        super().__init__(torch.Size((*components[0].batch_shape[:-1], width)), validate_args=False)

    def _joined(self, parts: Sequence[Tensor]) -> Tensor:
        joined = torch.empty(*parts[0].shape[:-1], self.batch_shape[-1], device=parts[0].device)
        for columns, part in zip(self.columns, parts, strict=True):
            joined[..., columns] = part
        return joined

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of the components."""
        return self.components[0].support  # type: ignore[return-value]

    @property
    def mean(self) -> Tensor:
        """``(K, B, p)``"""
        return self._joined([c.mean for c in self.components])

    @property
    def variance(self) -> Tensor:
        """``(K, B, p)``"""
        return self._joined([c.variance for c in self.components])

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw values ``(*sample_shape, K, B, p)``."""
        return self._joined([c.sample(torch.Size(sample_shape)) for c in self.components])


class FeatureMixture(Distribution):
    """A mixture whose weights differ between features.

    One uniform number a draw and sample picks the component for all its features, so that draws stay coherent: where
    two features have the same weights they come from the same component.

    Parameters
    ----------
    components
        Distributions of the same ``batch_shape`` ``(K, B, p)``.
    weights
        ``(len(components), p)``, summing to 1 over components.
    """

    arg_constraints = {}

    def __init__(self, components: Sequence[Distribution], weights: Tensor) -> None:
        used = [i for i in range(len(components)) if bool((weights[i] > 0).any())]
        self.components = [components[i] for i in used]
        self.weights = weights[used]
        super().__init__(self.components[0].batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of the components."""
        return self.components[0].support  # type: ignore[return-value]

    @property
    def mean(self) -> Tensor:
        """``(K, B, p)``"""
        parts = [w * c.mean for w, c in zip(self.weights, self.components, strict=True)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    @property
    def variance(self) -> Tensor:
        """``(K, B, p)``"""
        if len(self.components) == 1:
            return self.components[0].variance
        mean = self.mean
        parts = [
            w * (c.variance + (c.mean - mean).square()) for w, c in zip(self.weights, self.components, strict=True)
        ]
        return torch.stack(parts).sum(0)

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw values ``(*sample_shape, K, B, p)``."""
        drawn = self.components[0].sample(torch.Size(sample_shape))
        if len(self.components) == 1:
            return drawn
        u = torch.rand(*drawn.shape[:-1], 1, device=drawn.device)
        edges = self.weights.cumsum(0)
        for i, component in enumerate(self.components[1:]):
            drawn = torch.where(u < edges[i], drawn, component.sample(torch.Size(sample_shape)).to(drawn))
        return drawn
