"""The covariance of latents in a model's prior, and how many dimensions it comes to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike

from omicvae.metrics._numbers import numbers
from omicvae.model import CoVAE
from omicvae.model._arguments import check_model
from omicvae.model._model import Model

ASYMMETRY = 1e-6  # relative, by which a covariance may differ from its transpose


def prior_covariance(model: Model) -> pd.DataFrame:
    r"""Covariance :math:`\Sigma` of the joint latents in a model's prior.

    Latents are those that :meth:`~omicvae.model.CoVAE.get_latent_representation` reports: for
    :class:`~omicvae.model.CoVAE` whitened within each modality, so that diagonal blocks are the identity and the others
    hold the correlations between assays. In all other models latents are independent and :math:`\Sigma = I`.

    Parameters
    ----------
    model
        Trained model.

    Returns
    -------
    ``(n_latent, n_latent)`` DataFrame with the latents' names.

    Raises
    ------
    TypeError, RuntimeError
        If ``model`` is not a model, or not trained.
    """
    check_model(model, "prior_covariance")
    names = list(model.latent_names["joint"])
    if isinstance(model, CoVAE):
        W = model.module.frame().whiten
        sigma = (W.mT @ model.module.prior_covariance.cpu().double() @ W).numpy()
    else:
        sigma = torch.eye(len(names), dtype=torch.float64).numpy()
    return pd.DataFrame(sigma, index=names, columns=names)


def participation_ratio(covariance: ArrayLike) -> float:
    r"""Effective number of dimensions of a distribution, from the eigenvalues of its covariance.

    .. math:: d_\mathrm{eff} = \frac{(\sum_i \lambda_i)^2}{\sum_i \lambda_i^2}
        = \frac{(\mathrm{tr}\, \Sigma)^2}{\| \Sigma \|_F^2}

    ``D`` for equal eigenvalues, 1 if one of them is all there is (appendix C of :cite:t:`caretti2026covae`). It depends on
    the units of the coordinates.

    Parameters
    ----------
    covariance
        ``(D, D)``, such as :func:`prior_covariance` of a model, or the covariance of latents over samples.

    Raises
    ------
    TypeError
        If it is not an array of numbers, such as a model.
    ValueError
        If it is not a square, symmetric matrix of finite numbers with a positive trace.
    """
    sigma = numbers(covariance, "a covariance, such as prior_covariance(model),")
    if sigma.ndim != 2 or sigma.shape[0] != sigma.shape[1] or sigma.size == 0:
        raise ValueError(f"a covariance must have the shape (D, D), got {sigma.shape}")
    if not np.isfinite(sigma).all():
        raise ValueError(f"{int((~np.isfinite(sigma)).sum())} entries of the covariance are not finite")
    if np.abs(sigma - sigma.T).max() > ASYMMETRY * np.abs(sigma).max():
        raise ValueError("the covariance is not symmetric")
    if (np.diag(sigma) < 0).any() or np.trace(sigma) <= 0:
        raise ValueError("a covariance has variances on its diagonal: none below 0, and not all of them 0")
    return float(np.trace(sigma) ** 2 / np.square(sigma).sum())
