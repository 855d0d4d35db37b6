"""How likely a model finds assays, by themselves or given others, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray

from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._registered import Indices
from omicvae.model._sizes import whole_number

TERMS = ("log_likelihood", "reconstruction", "prior", "posterior", "gap", "effective_draws")


def joint_log_likelihood(
    model: Model,
    modalities: Sequence[str] | None = None,
    *,
    mdata: MuData | None = None,
    indices: Indices | None = None,
    n_samples: int = 1000,
    batch_size: int | None = None,
) -> pd.DataFrame:
    r"""Log-likelihood of everything measured, or of some modalities, as if nothing else had been measured.

    .. math::
        \log p(x_T) \ge E \log \frac1S \sum_{s=1}^S \exp \big(
        \underbrace{\log p(x_T | z_s)}_{\text{reconstruction}} + \underbrace{\log p(z_s)}_{\text{prior}}
        - \underbrace{\log q(z_s | x_T)}_{\text{posterior}} \big), \qquad z_s \sim q(z | x_T),

    equation (10) of :cite:t:`caretti2026covae`. A mixture posterior is drawn from stratified over its components, and its
    density is that of the mixture. Every sample is scored by its own draws: neither the batch size nor the other samples
    matter, but for the noise of drawing.

    Parameters
    ----------
    model
        Trained model. For :class:`~omicvae.model.CoVAE`, the network, without the closed form beside it.
    modalities
        Assays to score in samples that have them; all by default.
    mdata, indices
        Other data (matched by name), and which samples.
    n_samples
        Draws :math:`S`. The bound tightens with it; ``effective_draws`` tells whether there were enough.
    batch_size
        Samples at a time.

    Returns
    -------
    DataFrame with one row a sample:

    ``log_likelihood``
        In nats, in the units of the registered values; the negative log-likelihood (NLL) is its negative. NaN in samples
        that have none of the modalities.
    ``reconstruction``, ``prior``, ``posterior``
        Means of the three terms over draws from the posterior; ``reconstruction + prior - posterior`` is the ELBO.
    ``gap``
        What importance weighting adds to the ELBO: 0 where the posterior is exact, else at least 0 up to noise.
    ``effective_draws``
        :math:`(\sum w)^2 / \sum w^2`, between 1 and ``n_samples``. Near 1, a single draw decides and the likelihood is
        underestimated. Infinite where the value is exact (:class:`~omicvae.model.ProbabilisticCCA`).
    ``targets``, ``sources``
        What was scored, and what it was conditioned on: nothing.

    Raises
    ------
    TypeError
        If ``model`` is not a model, or modalities are given as text.
    ValueError
        For an unknown modality or an impossible number.
    RuntimeError
        If the model is not trained.

    References
    ----------
    Burda et al., *Importance weighted autoencoders*, ICLR 2016, eq. (8).
    """
    check_model(model, "joint_log_likelihood")
    targets = _mask(model, "modalities", model.modalities if modalities is None else modalities)
    return _table(model, targets, None, mdata, indices, n_samples, batch_size)


def conditional_log_likelihood(
    model: Model,
    targets: Sequence[str],
    *,
    given: Sequence[str] | None = None,
    mdata: MuData | None = None,
    indices: Indices | None = None,
    n_samples: int = 1000,
    batch_size: int | None = None,
) -> pd.DataFrame:
    r"""Log density of some assays under what the model predicts for them from others.

    .. math::
        \log \int q(z | x_G) \, p(x_T | z) \, dz \approx \log \frac1S \sum_{s=1}^S
        \frac{p(x_T | z_s) \, q(z_s | x_G)}{r(z_s)}, \qquad z_s \sim r = .9 \, q(z | x_{G \cup T}) + .1 \, q(z | x_G)

    :math:`q(z | x_G)` is what :meth:`~omicvae.model.CoVAE.impute` decodes, so this is a proper score of the prediction,
    whether or not the posterior is exact; where it is, it is :math:`\log p(x_T | x_G)`. Drawing from :math:`q(z | x_G)`
    alone would miss the values of :math:`z` that explain :math:`x_T`.

    Parameters
    ----------
    model
        Trained model, as in :func:`joint_log_likelihood`.
    targets
        Assays to score.
    given
        Assays to condition on, none of the targets; all others by default. A sample is conditioned on what it has of them.
    mdata, indices, n_samples, batch_size
        As in :func:`joint_log_likelihood`.

    Returns
    -------
    DataFrame as by :func:`joint_log_likelihood`, with :math:`q(z|x_G)` in the place of the prior and
    :math:`q(z|x_{G \cup T})` in that of the posterior. NaN in samples that have none of ``targets`` or none of ``given``.

    Notes
    -----
    Where a model has separate noise for predictions (MMVAE++ and the like), it is used. Counts are scored given their
    library size, reads given their coverage: how they are spread over features, not how many there are.

    Raises
    ------
    TypeError
        If ``model`` is not a model, or modalities are given as text.
    ValueError
        For an unknown modality, one that is both target and source, none at all, or an impossible number.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "conditional_log_likelihood")
    scored = _mask(model, "targets", targets)
    others = [m for m, s in zip(model.modalities, scored, strict=True) if not s]
    sources = _mask(model, "given", others if given is None else given)
    if (scored & sources).any():
        both = [m for m, s in zip(model.modalities, scored & sources, strict=True) if s]
        raise ValueError(f"{both} are in both targets and given; leave them out of one")
    return _table(model, scored, sources, mdata, indices, n_samples, batch_size)


def _mask(model: Model, argument: str, names: Sequence[str]) -> NDArray[np.bool_]:
    """``(M,)`` bool."""
    if isinstance(names, str):
        raise TypeError(f"{argument} must be a list of modalities, got the text {names!r}; write [{names!r}]")
    chosen = {model._check_modality(m) for m in names}
    if not chosen:
        raise ValueError(f"{argument} names no modality; the model knows {list(model.modalities)}")
    return np.array([m in chosen for m in model.modalities])


@torch.inference_mode()
def _table(
    model: Model,
    targets: NDArray[np.bool_],
    given: NDArray[np.bool_] | None,
    mdata: MuData | None,
    indices: Indices | None,
    n_samples: int,
    batch_size: int | None,
) -> pd.DataFrame:
    n_samples = whole_number("n_samples", n_samples)
    cohort = model._cohort(mdata)
    positions = model._positions(cohort, indices)
    asked = torch.from_numpy(targets).to(model.module.device)
    known = None if given is None else torch.from_numpy(given).to(model.module.device)
    parts = [np.zeros((0, len(TERMS)))]
    for batch in model._batches(cohort, positions, batch_size):
        found = model.module.likelihood_terms(
            batch,
            n_samples,
            targets=asked.expand_as(batch.present),
            given=None if known is None else known.expand_as(batch.present),
        )
        gap = found.log_likelihood - (found.reconstruction + found.prior - found.posterior)
        columns = (*found[:4], gap, found.effective_draws)
        parts.append(torch.stack([c.double() for c in columns], 1).cpu().numpy())
    table = pd.DataFrame(np.concatenate(parts), index=cohort.obs_names[positions], columns=list(TERMS))
    present = cohort.present[positions]
    scored, used = present & targets, present & (False if given is None else given)
    table.loc[~scored.any(1) | (given is not None and ~used.any(1)), list(TERMS)] = np.nan
    for name, which in (("targets", scored), ("sources", used)):
        texts = ["+".join(m for m, w in zip(model.modalities, row, strict=True) if w) for row in which]
        table[name] = np.asarray(texts, dtype=object)
    return table
