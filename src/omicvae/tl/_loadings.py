"""Which features a latent moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from torch import Tensor

from omicvae.data import Batch
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.tl._arguments import check_data
from omicvae.tl._reported import Reported, reported
from omicvae.tl._trust import check_stem

MOST_SAMPLES = 500  # over which a Jacobian is averaged by default
HELD = 2**24  # numbers of one (samples, features) array held at once


def loadings(
    model: Model,
    modality: str,
    *,
    kind: Literal["joint", "shared", "private"] | None = None,
    mdata: MuData | None = None,
    indices: Sequence[int] | Sequence[str] | Sequence[bool] | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> pd.DataFrame:
    r"""Loadings of a modality's features on latents: the decoder's Jacobian, averaged over samples.

    An entry is the change of a feature's decoded mean, in training standard deviations on the scale of the encoders (log
    counts at the median library size, logit methylation levels, probabilities of a 1, continuous values), for a latent
    that grows by one standard deviation of its prior,

    .. math::
        L_{jk} = \frac{1}{n} \sum_{i=1}^n \left. \frac{\partial\, \tilde x_j(z)}{\partial z} \right|_{z = \hat z_i}
        \! \Sigma w_k (w_k' \Sigma w_k)^{-1/2}

    at the posterior means :math:`\hat z_i`; the reported latent is :math:`w_k' z`, and the prior covariance
    :math:`\Sigma` is the identity in all models but :class:`~omicvae.model.CoVAE`. (With several reported latents that are
    correlated a priori, each is moved while the others are held.) In
    :class:`~omicvae.model.ProbabilisticCCA`, ``kind="joint"`` is its loading matrix.

    It is the *decoder of the network* that is differentiated. What :class:`~omicvae.model.CoVAE` and
    :class:`~omicvae.model.MMVAEPlusPlus` add in closed form when they impute goes from assay to assay without latents, and
    has no loadings; with ``backbone="moments"`` the decoder is the linear start of the network.

    Parameters
    ----------
    model
        Trained model.
    modality
        Whose features.
    kind
        ``"joint"``, ``"shared"`` or ``"private"`` latents; by default shared and private ones, side by side. Joint
        latents that do not reach this modality's decoder are left out.
    mdata
        Data to average over, matched by name, and to write into; the model's own by default.
    indices
        Positions, names or a mask of samples. By default 500 of those that have the modality, evenly spread, or all if
        there are fewer.
    key_added
        Stem of the name below; ``model.default_key`` by default, such as ``"covae"``.
    copy
        Return the table and leave the data as they are.

    Returns
    -------
    DataFrame, features by latents. Unless ``copy``, it is also written to ``mod[modality].varm["covae_loadings"]``, NaN
    for features that were not registered. Signs are arbitrary: compare signs within a column only.

    Raises
    ------
    TypeError
        If ``model`` is not a model or ``mdata`` not a MuData.
    ValueError
        For an unknown modality or kind, if no sample has the modality, or if the model was loaded without data and
        ``mdata`` is not given.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "loadings")
    model._check_modality(modality)
    if kind not in (None, "joint", "shared", "private"):
        raise ValueError(f"kind must be 'joint', 'shared', 'private' or None, got {kind!r}")
    if mdata is not None:
        check_data(mdata, "loadings")
    key = check_stem(model, key_added)
    parts = [reported(model, k, modality) for k in ([kind] if kind else ["shared", "private"])]
    total = torch.zeros(sum(len(p.names) for p in parts), model.schema[modality].n_vars, dtype=torch.float64)
    n = 0
    for jacobian in _jacobians(model, modality, parts, mdata, indices):
        total += jacobian.sum(1).cpu()
        n += jacobian.shape[1]
    if n == 0:
        raise ValueError(f"none of the samples has modality {modality!r}: there is nothing to average over")
    table = pd.DataFrame(
        (total / n).mT.float().numpy(),
        index=pd.Index(model.schema[modality].var_names),
        columns=[name for part in parts for name in part.names],
    )
    target = model.adata if mdata is None else mdata
    if not copy and modality in target.mod:
        adata = target.mod[modality]
        adata.varm[f"{key}_loadings"] = table.reindex(adata.var_names)
    return table


def _jacobians(
    model: Model, modality: str, parts: list[Reported], mdata: MuData | None, indices: object
) -> Iterator[Tensor]:
    """``(r, n, p)`` float64 derivatives at samples that have the modality, a minibatch at a time."""
    cohort = model._cohort(mdata)
    positions = model._positions(cohort, indices)  # type: ignore[arg-type]
    positions = positions[cohort.present[positions, model.modalities.index(modality)]]
    if indices is None and len(positions) > MOST_SAMPLES:
        positions = positions[np.linspace(0, len(positions) - 1, MOST_SAMPLES).astype(np.intp)]
    directions = torch.cat([part.lift * part.sd for part in parts], 1).mT
    size = int(np.clip(HELD // (model.schema[modality].n_vars * max(len(directions), 1)), 1, 512))
    for batch in model._batches(cohort, positions, size):
        with torch.no_grad():  # of parameters; the derivatives here are forward ones
            z = model.module.posterior(model.module.encode(batch), batch, batch.present).mean
            decode = _decoder(model, modality, batch)
            moved = [torch.func.jvp(decode, (z,), (d.expand_as(z),))[1] for d in directions]
            yield torch.stack(moved).double() if moved else decode(z).expand(0, -1, -1).double()


def _decoder(model: Model, modality: str, batch: Batch) -> Callable[[Tensor], Tensor]:
    design = model.module.design(batch, modality)

    def decode(z: Tensor) -> Tensor:
        return model.module.standardised_mean(modality, z, design)

    return decode
