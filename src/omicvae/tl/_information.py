"""How much each assay says about a sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._sizes import whole_number

SEED = 0


@torch.inference_mode()
def information(model: Model, *, n_draws: int = 32, batch_size: int | None = None) -> pd.DataFrame:
    r"""Divergence of the posterior given one assay from the prior: what that assay alone tells about a sample.

    .. math:: \frac1n \sum_i \mathrm{KL}\big(q(z \mid x_{im}) \,\|\, p(z)\big)
              = \frac1n \sum_i E_q\big[\log q(z \mid x_{im}) - \log p(z)\big]

    An assay near 0 is ignored by the model. What all assays of a sample tell is less than the sum if they say the same.

    Parameters
    ----------
    model
        Trained model with data attached.
    n_draws
        Posterior draws a sample; the same random numbers at every call.
    batch_size
        Samples at a time.

    Returns
    -------
    DataFrame with a row a modality, and one called ``"all measured"`` with ``modality`` missing: ``modality``,
    ``given``, ``kl`` (nats, mean over samples), ``n_samples`` that have it.

    Raises
    ------
    TypeError
        If ``model`` is not a model.
    ValueError
        If it was loaded without data, or for an impossible ``n_draws``.
    RuntimeError
        If it is not trained.
    """
    check_model(model, "information")
    n_draws = whole_number("n_draws", n_draws)
    cohort = model._cohort(None)
    rows: list[tuple[str | None, str, float, int]] = []
    for given in (*model.modalities, None):
        mask = model._given(None if given is None else [given])
        has = cohort.present[:, mask.cpu().numpy()].any(1)
        total = 0.0
        with torch.random.fork_rng([model.module.device] if model.module.device.type == "cuda" else []):
            torch.manual_seed(SEED)
            for batch in model._batches(cohort, np.flatnonzero(has).astype(np.intp), batch_size):
                posterior = model.module.posterior(model.module.encode(batch), batch, batch.present & mask)
                z = posterior.sample(n_draws)
                total += float((posterior.log_prob(z) - model.module.prior_log_prob(z)).mean(0).sum())
        n = int(has.sum())
        rows.append((given, given or "all measured", total / n if n else float("nan"), n))
    return pd.DataFrame(rows, columns=["modality", "given", "kl", "n_samples"])
