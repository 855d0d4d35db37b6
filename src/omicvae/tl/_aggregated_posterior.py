"""Whether the latents of all samples together look like the prior."""

from __future__ import annotations

import numpy as np
import pandas as pd

from omicvae.model._arguments import check_model
from omicvae.model._model import Model

ACTIVE = 0.01


def aggregated_posterior(model: Model) -> pd.DataFrame:
    r"""Variance of each latent over the samples, divided into what is known and what is not.

    The posterior averaged over samples should have the prior's variance, 1. By the law of total variance it is the
    variance of posterior means plus the mean posterior variance,

    .. math:: \operatorname{Var}[z_k] = \operatorname{Var}_i\, \mu_{ik} + \frac1n \sum_i \sigma_{ik}^2 .

    A dimension of which the first part is near 0 and the second near 1 is not used; a sum far from 1 means that samples
    drawn from the prior do not look like the data.

    Parameters
    ----------
    model
        Trained model with data attached.

    Returns
    -------
    DataFrame with a row a dimension of the joint latent: ``dimension`` (its name), ``means`` (variance of posterior
    means), ``uncertainty`` (mean posterior variance), ``aggregated`` (their sum) and ``active`` (whether ``means`` is
    above 0.01).

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        If it was loaded without data.
    RuntimeError
        If it is not trained.

    References
    ----------
    Burda et al., *Importance weighted autoencoders*, ICLR 2016, section 5.1 (active units).
    """
    check_model(model, "aggregated_posterior")
    mean, variance = model.get_latent_representation(return_dist=True, return_numpy=True)
    means = np.asarray(mean, dtype=np.float64).var(axis=0)
    uncertainty = np.asarray(variance, dtype=np.float64).mean(axis=0)
    return pd.DataFrame(
        {
            "dimension": list(model.latent_names["joint"]),
            "means": means,
            "uncertainty": uncertainty,
            "aggregated": means + uncertainty,
            "active": means > ACTIVE,
        }
    )
