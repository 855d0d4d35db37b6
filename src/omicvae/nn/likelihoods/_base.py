"""What every likelihood can do, and what all of them share."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from omicvae.stats.quantiles import predictive_quantiles
from omicvae.stats.summary import ValueSummary

logger = logging.getLogger("omicvae")

OWN, CROSS = 0, 1
"""Rows of a noise parameter: the modality itself was seen, or it is predicted from others."""

LEAST_INPUT_SCALE = 0.1  # an encoder input is not blown up where a feature hardly varies
LARGEST_VALUE = 1e15  # squares of values, and their sums over many samples, have to stay below the largest float32
LINK_SCALE_RANGE = (0.1, 2.0)  # of one unit of eta, where the link scale is not the scale of the data


class Observed(NamedTuple):
    """Measured values of one modality, packed: only samples that have it."""

    x: Tensor
    """(n, p) values of the registered layer; NaN where an element was not measured"""
    size: Tensor | None
    """(n,) library size or size factor; None for likelihoods that use none"""
    coverage: Tensor | None
    """(n, p) total reads (beta-binomial), else None"""

    def take(self, rows: Tensor) -> Observed:
        """Some of the rows, by position or mask."""
        size = None if self.size is None else self.size[rows]
        return Observed(self.x[rows], size, None if self.coverage is None else self.coverage[rows])

    def of_features(self, columns: Tensor) -> Observed:
        """Some of the features, by position; sizes are those of all."""
        coverage = None if self.coverage is None else self.coverage[:, columns]
        return Observed(self.x[:, columns], self.size, coverage)


class Likelihood(nn.Module, ABC):
    r"""Conditional distribution of one modality's values given the decoder's output ``eta``.

    The decoder works on a standardised link scale: ``eta = 0`` is the training mean of every feature, and a unit of
    the first head is one training standard deviation on the link scale (bounded where stated), so that a decoder with
    small initial weights starts at the mean.

    Likelihoods with a free noise hold it as ``raw_noise``, ``(2, p)``: row 0 (*own*) for values decoded from a latent
    that has seen the modality itself, row 1 (*cross*) for values predicted from other modalities, which are further
    from their prediction. One noise for both would make imputation overconfident.

    Parameters
    ----------
    n_vars
        Number of features ``p``.
    """

    name: ClassVar[str]
    """Word by which users ask for it."""
    n_heads: ClassVar[int] = 1
    """Outputs of the decoder per feature."""
    uses_size: ClassVar[bool] = False
    uses_coverage: ClassVar[bool] = False
    discrete: ClassVar[bool]
    response_family: ClassVar[Literal["count", "binary", "reads"] | None] = None
    """Kind of generalised linear model around a prediction (:class:`omicvae.nn.Response`); ``None``: residuals."""

    _fill: ClassVar[float] = 0.0  # valid value that stands in for a missing one inside the density

    input_mean: Tensor
    input_scale: Tensor
    varies: Tensor
    """(p,) bool: features that a free noise can be fitted to. One that is constant in training samples is predicted to be that
    constant, and is left out of encoders' inputs and of the log density: its noise would fall until a single other value in a
    sample that was not seen outweighs everything else."""

    def __init__(self, n_vars: int) -> None:
        super().__init__()
        self.n_vars = n_vars
        self.register_buffer("input_mean", torch.zeros(n_vars))
        self.register_buffer("input_scale", torch.ones(n_vars))
        self.register_buffer("varies", torch.ones(n_vars, dtype=torch.bool))

    @property
    def separate(self) -> bool:
        """Whether the density of a feature depends on no other feature's ``eta``."""
        return True

    def of_features(self, columns: Tensor) -> Likelihood:
        """The same likelihood of some features, by position; their noise is this one's, and so are its gradients.

        Raises
        ------
        ValueError
            If features are not :attr:`separate`.
        """
        if not self.separate:
            raise ValueError(
                f"the {self.name} likelihood is of all features at once: their rates add up to the library size"
            )
        part = copy.copy(self)
        own = {**self._parameters, **self._buffers}
        part._parameters, part._buffers, part.n_vars = {}, {}, len(columns)
        for name, values in own.items():
            part.__dict__[name] = values if values is None or values.ndim == 0 else values[..., columns]
        return part

    @abstractmethod
    def fit(self, chunks: Iterable[Observed]) -> None:
        """Set centres, scales and the start of the noise from training samples.

        Features without a value, constant features and a single sample are allowed.

        Parameters
        ----------
        chunks
            Blocks of training samples. Counts need two passes: give them something that can be iterated again (a
            list, or an object whose ``__iter__`` starts over); the blocks of a plain iterator are kept in memory.
        """

    @abstractmethod
    def forward(
        self, eta: Tensor, *, noise: Tensor, size: Tensor | None = None, coverage: Tensor | None = None
    ) -> Distribution:
        """Distribution of the values, in the units of the registered layer.

        Parameters
        ----------
        eta
            ``(..., n_heads, p)`` raw decoder output.
        noise
            Integers that broadcast against the leading dimensions of ``eta``: 0 for own, 1 for cross.
        size
            Library size or size factor, broadcasting against the leading dimensions of ``eta``.
        coverage
            Total reads, broadcasting against ``(..., p)``.

        Returns
        -------
        Distribution of ``batch_shape`` ``(..., p)``.
        """

    @abstractmethod
    def linear_target(self, observed: Observed) -> Tensor:
        """``(n, p)`` float32: what the first head should output for these data, 0 where missing.

        On the scale of ``eta``, so that principal components of it give a decoder to start from. Its mean is not 0
        for curved links (the mean of logarithms is not the logarithm of the mean).
        """

    @abstractmethod
    def _transform(self, observed: Observed) -> Tensor:
        """``(n, p)`` values on the scale that is standardised for encoders."""

    @abstractmethod
    def _log_density(self, eta: Tensor, x: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        """``(..., p)`` log density at ``x``, in which missing values have been replaced by valid ones."""

    @abstractmethod
    def _untransform(self, values: Tensor) -> Tensor:
        """Inverse of :meth:`_transform`, at the reference size for counts; a level for methylated reads."""

    @property
    def reference_size(self) -> Tensor:
        """``()`` size at which :meth:`decode_transform` gives counts."""
        return self.input_mean.new_ones(())

    def decode_transform(self, values: Tensor, columns: Tensor | slice = slice(None)) -> Tensor:
        """Inverse of :meth:`encode_transform`: standardised values ``(..., p)`` to the units of the data.

        Counts are those at :attr:`reference_size` and not rounded; methylated reads become levels. With ``columns``,
        ``values`` are those of some features.
        """
        return self._untransform(self.input_mean[columns] + self.input_scale[columns] * values)

    def clip(self, values: Tensor) -> Tensor:
        """Values moved into the support."""
        return values

    def measured(self, observed: Observed) -> Tensor:
        """``(n, p)`` bool: which elements carry information."""
        return ~observed.x.isnan()

    def filled(self, observed: Observed) -> tuple[Tensor, Tensor | None]:
        """``(n, p)`` values with a valid one where there is none, and 0 there, 1 elsewhere; ``None`` where there are all."""
        x, measured = observed.x.to(torch.float32), self.measured(observed)
        if measured.all():
            return x, None
        return x.nan_to_num(self._fill), measured.to(x.dtype)

    def encode_transform(self, observed: Observed) -> Tensor:
        """``(n, p)`` float32 input for an encoder: zero mean and unit scale over training samples, 0 where missing."""
        standardised = (self._transform(observed) - self.input_mean) / self.input_scale
        return torch.where(self.measured(observed), standardised, 0.0).to(torch.float32)

    def log_prob_features(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        """Log density of every element, ``(..., p)``, in the units of ``x``; 0 where missing, and where nothing :attr:`varies`.

        Parameters
        ----------
        eta
            ``(..., n_heads, p)`` raw decoder output; may have more leading dimensions than ``observed.x``.
        observed
            Values that broadcast against ``(..., p)``.
        noise
            As in :meth:`forward`.

        Raises
        ------
        ValueError
            If ``eta`` has another number of heads, or the size or coverage that is needed is not there.
        """
        if eta.shape[-2] != self.n_heads:
            raise ValueError(f"the {self.name} likelihood needs eta of shape (..., {self.n_heads}, p), got {eta.shape}")
        eta = eta.to(torch.promote_types(eta.dtype, torch.float32))
        # A NaN inside the density would make the gradient NaN even if the result is masked afterwards.
        x = observed.x.to(eta.dtype).nan_to_num(self._fill)
        return self._log_density(eta, x, observed, noise) * (self.measured(observed) & self.varies)

    def log_prob(self, eta: Tensor, observed: Observed, noise: Tensor) -> Tensor:
        """Log density of every sample, ``(...)``: the sum of :meth:`log_prob_features` over measured features."""
        return self.log_prob_features(eta, observed, noise).sum(-1)

    @torch.no_grad()
    def interval(self, distribution: Distribution, level: float) -> tuple[Tensor, Tensor]:
        """Central predictive interval of a mixture of equally weighted components.

        One value is drawn from each component, and the interval read from their quantiles, which makes its coverage
        exact for continuous values (:func:`omicvae.stats.quantiles.predictive_quantiles`). Discrete intervals are
        widened to whole numbers.

        Parameters
        ----------
        distribution
            Of ``batch_shape`` ``(K, n, p)``; the first axis is mixed over.
        level
            Nominal coverage in (0, 1).

        Returns
        -------
        Lower and upper limit, each ``(n, p)``.

        Raises
        ------
        ValueError
            If ``K`` is too small for ``level``.
        """
        tail = (1 - level) / 2
        lower, upper = predictive_quantiles(distribution.sample(), (tail, 1 - tail))
        if distribution.support.is_discrete:  # type: ignore[union-attr]
            return lower.floor(), upper.ceil()
        return lower, upper

    @classmethod
    def validate(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None = None) -> None:
        """Check that the values of a modality can come from this likelihood.

        Features that are constant or were never measured are logged as a warning.

        Parameters
        ----------
        modality
            Its name, for messages.
        summary
            Of the registered layer. For ``betabinomial``, made with ``upper=`` the coverage.
        coverage
            Of the coverage layer.

        Raises
        ------
        ValueError
            Saying how many values are wrong, in which features, and what to do.
        """
        if summary.n_inf:
            raise ValueError(
                complaint(modality, summary, "inf", "infinite", "Replace them by NaN if they are missing.")
            )
        for found in (summary, *([] if coverage is None else [coverage])):
            reach = max(abs(found.minimum), abs(found.maximum))  # NaN where there is no value
            if reach > LARGEST_VALUE:
                raise ValueError(
                    f"modality {modality!r}: values reach {reach:.3g}, and beyond {LARGEST_VALUE:.0e} arithmetic in float32 "
                    "overflows. Replace outliers that cannot be measurements by NaN, or rescale the modality."
                )
        cls._check(modality, summary, coverage)
        for what, names in (("without any value", summary.all_nan), ("constant", summary.constant)):
            if names:
                listed = ", ".join(map(printable, names[:5])) + (", ..." if len(names) > 5 else "")
                are = "feature is" if len(names) == 1 else "features are"
                logger.warning("modality %r: %d %s %s (%s)", modality, len(names), are, what, listed)

    @classmethod
    def _check(cls, modality: str, summary: ValueSummary, coverage: ValueSummary | None) -> None:
        """Raise a ValueError where values are outside the support."""

    def _set_input(self, moments: FeatureMoments) -> None:
        """Standardise encoder inputs by these moments of :meth:`_transform`."""
        self.input_mean.copy_(moments.mean)
        self.input_scale.copy_(moments.deviation.clamp(min=LEAST_INPUT_SCALE))


class FeatureMoments:
    """Mean and variance of every feature over measured values, in one pass and float64 (Chan et al., 1979)."""

    def __init__(self, n_vars: int) -> None:
        self.count = torch.zeros(n_vars, dtype=torch.float64)
        self.mean = torch.zeros(n_vars, dtype=torch.float64)
        self._squares = torch.zeros(n_vars, dtype=torch.float64)

    def update(self, values: Tensor) -> None:
        """Add a block ``(n, p)``; NaN is skipped."""
        values = float64(values)
        seen = ~values.isnan()
        count = seen.sum(0)
        mean = torch.where(seen, values, 0.0).sum(0) / count.clamp(min=1)
        squares = torch.where(seen, values - mean, 0.0).square().sum(0)
        total = (self.count + count).clamp(min=1)
        shift = mean - self.mean
        self._squares += squares + shift.square() * self.count * count / total
        self.mean += shift * count / total
        self.count += count

    @property
    def variance(self) -> Tensor:
        """(p,) population variance; 0 for features without values."""
        return self._squares / self.count.clamp(min=1)

    @property
    def deviation(self) -> Tensor:
        """(p,) population standard deviation."""
        return self.variance.sqrt()


def float64(values: Tensor) -> Tensor:
    """The values in float64 on the CPU, where every build of torch has it."""
    return values.detach().to("cpu", torch.float64)


def noise_parameter(n_vars: int) -> nn.Parameter:
    """``(2, p)`` parameter for own and cross noise, at 0."""
    return nn.Parameter(torch.zeros(2, n_vars))


def gather(table: Tensor, noise: Tensor) -> Tensor:
    """Rows of a ``(2, p)`` table for integers ``noise`` of any shape: ``(*noise.shape, p)``."""
    return table.index_select(0, noise.reshape(-1)).reshape(*noise.shape, table.shape[-1])


def complaint(modality: str, summary: ValueSummary, kind: str, adjective: str, advice: str) -> str:
    """Message on values of one kind of :class:`~omicvae.stats.summary.ValueSummary`: how many, where, what to do."""
    count: Any = getattr(summary, f"n_{kind}")
    where = ", ".join(map(printable, summary.examples.get(kind, ())))
    are = "value is" if count == 1 else "values are"
    return f"modality {modality!r}: {count} {are} {adjective} (first in features {where}). {advice}"


def printable(name: str) -> str:
    """A name as it can stand in a message of one line."""
    return name if name.isprintable() else repr(name)[1:-1]
