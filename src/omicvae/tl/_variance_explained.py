"""How much of each modality the shared and the private latents carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from torch import Tensor

from omicvae.data import Batch, Cohort
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.tl._arguments import check_data
from omicvae.tl._held_out import samples_to_measure_on
from omicvae.tl._reported import Reported, reported

ALL = "all"
COLUMNS = ("modality", "latents", "dimension", "variance_explained", "n_samples")


def variance_explained(
    model: Model,
    mdata: MuData | None = None,
    *,
    indices: Sequence[int] | Sequence[str] | Sequence[bool] | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    r"""Share of each modality's variance that shared, private and all latents explain, and each dimension of them.

    Every sample is encoded from all it has, the modality itself included, and decoded from the posterior means of some
    latents :math:`S` only, all others being where the prior expects them. As in MOFA :cite:p:`argelaguet2020mofa`,

    .. math::
        R^2_m(S) = 1 - \frac{\sum_{ij} (x_{ij} - \hat x_{ij}(S) - \bar r_j(S))^2}
        {\sum_{ij} (x_{ij} - \hat x_{ij}(\emptyset) - \bar r_j(\emptyset))^2}

    over measured values, on the scale of the encoders, on which every feature varies by about 1. :math:`\bar r_j` is the
    mean residual of a feature, and :math:`\hat x(\emptyset)` what batch and covariates explain: the share is of what they
    leave.

    Latents summarise what was measured; that is another question than how well a modality is predicted from the others,
    which :meth:`~omicvae.model.CoVAE.trust` answers. For this reason a share can be high where nothing can be imputed.
    Shares of shared and private latents add up to the total only where both are independent and act linearly. In
    :class:`~omicvae.model.CoVAE` each assay has coordinates of its own along a shared dimension: what these have in
    common counts as shared, and where they differ counts in the total alone.

    Parameters
    ----------
    model
        Trained model.
    mdata
        Other data, matched by name; the model's own by default.
    indices
        Positions, names or a mask of samples. By default all of ``mdata``; of the model's own data those that it was not
        trained on, or all, with a warning, if there are none.
    batch_size
        Samples at a time.

    Returns
    -------
    DataFrame with the columns

    ``modality``
        Whose variance.
    ``latents``
        ``"total"`` (all latents), ``"shared"`` or ``"private"``.
    ``dimension``
        ``"all"`` of these together, or the name of one alone.
    ``variance_explained``
        Share, at most 1; negative where the latents reconstruct worse than covariates alone. NaN with fewer than two
        samples.
    ``n_samples``
        Samples that have the modality.

    Raises
    ------
    TypeError
        If ``model`` is not a model or ``mdata`` not a MuData.
    ValueError
        If the model was loaded without data and ``mdata`` is not given.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "variance_explained")
    if mdata is None:
        positions = samples_to_measure_on(model, indices, "variance explained")
    else:
        check_data(mdata, "variance_explained")
        positions = model._positions(model._cohort(mdata), indices)
    cohort = model._cohort(mdata)
    tables = [_of_modality(model, m, cohort, positions, batch_size) for m in model.modalities]
    return pd.concat(tables, ignore_index=True)


class Subset(NamedTuple):
    """Latents that a modality is reconstructed from."""

    latents: str
    dimension: str
    z: Tensor
    """(n, D)"""


class Residuals:
    """Sum of squares of residuals around their mean, feature by feature."""

    def __init__(self, n_vars: int) -> None:
        self.count, self.first, self.second = torch.zeros(3, n_vars, dtype=torch.float64)

    def add(self, residual: Tensor, measured: Tensor) -> None:
        """Take in ``(n, p)`` residuals where measured."""
        residual = torch.where(measured, residual, 0.0).double().cpu()
        self.count += measured.sum(0).cpu()
        self.first += residual.sum(0)
        self.second += residual.square().sum(0)

    @property
    def total(self) -> float:
        """Over features."""
        return float((self.second - self.first.square() / self.count.clamp_min(1)).sum())


def _of_modality(
    model: Model, modality: str, cohort: Cohort, positions: NDArray[np.intp], batch_size: int | None
) -> pd.DataFrame:
    here = positions[cohort.present[positions, model.modalities.index(modality)]]
    parts = {kind: reported(model, kind, modality) for kind in ("shared", "private")}
    found = {
        name: Residuals(model.schema[modality].n_vars)
        for name in [("", ""), ("total", ALL), *((k, d) for k, p in parts.items() for d in (ALL, *p.names))]
    }
    with torch.inference_mode():
        for batch in model._batches(cohort, here, batch_size):
            _take_in(model, modality, batch, parts, found)
    nothing = found.pop(("", "")).total
    rows = [
        (modality, *name, 1 - one.total / nothing if len(here) > 1 and nothing > 0 else np.nan, len(here))
        for name, one in found.items()
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _take_in(
    model: Model,
    modality: str,
    batch: Batch,
    parts: dict[str, Reported],
    found: dict[tuple[str, str], Residuals],
) -> None:
    """Residuals of a minibatch of samples that all have the modality."""
    module = model.module
    observed = module.observed(batch, modality)
    likelihood = module.likelihoods.of(modality)
    truth, measured = likelihood.encode_transform(observed), likelihood.measured(observed)
    rows = batch.rows[modality]
    z = module.posterior(module.encode(batch), batch, batch.present).mean[rows]
    design = module.design(batch, modality)
    design = None if design is None else design[rows]
    coverage = None if observed.coverage is None else observed.coverage.nan_to_num()
    for subset in _subsets(z, parts):
        mean = module.standardised_mean(modality, subset.z, design, coverage)
        found[subset.latents, subset.dimension].add(truth - mean, measured)


def _subsets(z: Tensor, parts: dict[str, Reported]) -> Iterator[Subset]:
    offset = parts["shared"].readout.offset
    yield Subset("", "", offset.expand_as(z))
    yield Subset("total", ALL, z)
    for kind, part in parts.items():
        yield Subset(kind, ALL, part.rebuilt(z))
        for k, (name, values) in enumerate(zip(part.names, part.values(z).unbind(-1), strict=True)):
            yield Subset(kind, name, offset + values[:, None] * part.lift[:, k])
