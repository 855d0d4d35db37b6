"""What decoders are given: how correlated it is between assays, and how uncertain with and without the assay."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from torch import Tensor

from omicvae.data import Cohort
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._registered import Indices
from omicvae.model._sizes import whole_number
from omicvae.stats.canonical import canonical_correlations

N_PERMUTATIONS = 20  # their mean is all that is asked for


def decoder_input_correlation(
    model: Model,
    *,
    given: Sequence[str] | None = None,
    mdata: MuData | None = None,
    indices: Indices | None = None,
    n_draws: int = 1,
    batch_size: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Correlation between the latents that two decoders are given: mean component of a CCA.

    One latent vector a sample is drawn from the posterior, each decoder's input is read off it, and the canonical
    correlations of the two inputs over samples are averaged. With correlated assays and an honest model it is the
    correlation of the data's latents (figure 5 of :cite:t:`caretti2026covae`): conditional on everything
    (``given=None``, the papers' *joint* correlation) or on one assay (*conditional*), where the other's latents are
    generated.

    A model whose decoders share their latents has 1 in all shared dimensions, whatever the data. The estimate is biased
    upwards by about :math:`(d_a + d_b) / n` without correlation, which ``null`` shows.

    Parameters
    ----------
    model
        Trained model.
    given
        Assays to condition on, in samples that have all of them; by default everything measured, in samples that have both
        assays of a pair.
    mdata, indices
        Other data (matched by name), and which samples.
    n_draws
        Draws a sample; correlations are computed for each and averaged.
    batch_size
        Samples at a time.
    seed
        Of the permutations behind ``null``. Draws of latents follow ``scvi.settings.seed``.

    Returns
    -------
    DataFrame with one row a pair of modalities: ``modality_a``, ``modality_b``; ``correlation``, the mean over
    ``n_dimensions`` canonical dimensions, constant ones counting 0; ``null``, the same with the samples of one assay
    permuted; ``n_samples``. NaN with no more samples than the inputs have dimensions together.

    Raises
    ------
    TypeError, RuntimeError
        If ``model`` is not a model, or not trained.
    ValueError
        For an unknown modality or an impossible number.
    """
    check_model(model, "decoder_input_correlation")
    n_draws, mask = whole_number("n_draws", n_draws), model._given(given)
    cohort = model._cohort(mdata)
    positions = model._positions(cohort, indices)
    present = cohort.present[positions]
    drawn = _drawn_inputs(model, cohort, positions, mask, n_draws, batch_size)
    rng, rows = np.random.default_rng(seed), []
    for i, j in combinations(range(len(model.modalities)), 2):
        known = present[:, [i, j]] if given is None else present[:, mask.cpu().numpy()]
        here = torch.from_numpy(known.all(1) if known.shape[1] else np.ones(len(known), bool))
        a, b = (drawn[model.modalities[k]][:, here] for k in (i, j))
        value, null = _mean_components(a, b, rng)
        rows.append(
            {
                "modality_a": model.modalities[i],
                "modality_b": model.modalities[j],
                "correlation": value,
                "null": null,
                "n_dimensions": min(a.shape[-1], b.shape[-1]),
                "n_samples": int(here.sum()),
            }
        )
    return pd.DataFrame(rows)


def _mean_components(a: Tensor, b: Tensor, rng: np.random.Generator) -> tuple[float, float]:
    """Of draws ``(K, n, d_a)`` and ``(K, n, d_b)``, paired and permuted."""
    n = a.shape[1]
    if n <= a.shape[2] + b.shape[2]:
        return float("nan"), float("nan")
    paired = [float(canonical_correlations(x, y).mean()) for x, y in zip(a, b, strict=True)]
    permuted = [float(canonical_correlations(a[0], b[0, rng.permutation(n)]).mean()) for _ in range(N_PERMUTATIONS)]
    return float(np.mean(paired)), float(np.mean(permuted))


@torch.inference_mode()
def _drawn_inputs(
    model: Model,
    cohort: Cohort,
    positions: NDArray[np.intp],
    mask: Tensor,
    n_draws: int,
    batch_size: int | None,
) -> dict[str, Tensor]:
    """Modality -> ``(n_draws, n, d_m)`` decoder inputs."""
    selections = _selections(model)
    parts: dict[str, list[Tensor]] = {m: [torch.zeros(n_draws, 0, s.shape[1])] for m, s in selections.items()}
    for batch in model._batches(cohort, positions, batch_size):
        posterior = model.module.posterior(model.module.encode(batch), batch, batch.present & mask)
        for m, inputs in model.module.decoder_inputs(posterior.sample(n_draws)).items():
            parts[m].append(inputs.cpu())
    return {m: torch.cat(some, 1) for m, some in parts.items()}


def _selections(model: Model) -> dict[str, Tensor]:
    """Modality -> ``(D, d_m)`` 0/1 matrix that takes its decoder's input out of all latents."""
    D = model.module.readout("joint", None).matrix.shape[0]
    return model.module.decoder_inputs(torch.eye(D, device=model.module.device))


@torch.inference_mode()
def latent_sd(
    model: Model,
    *,
    mdata: MuData | None = None,
    indices: Indices | None = None,
    batch_size: int | None = None,
) -> pd.DataFrame:
    """Posterior standard deviation of each dimension that a decoder is given, with its assay and without.

    On the same samples, those that have the assay and another one: from everything measured, from the assay alone, and with
    the assay hidden. A model that knows what it has not seen is less certain in the last case. Figure 6 of
    :cite:t:`caretti2026covae` compares, with two assays, the second and the last: where assays share all latents, these
    differ only by which assay tells more. In units of the prior: 1 if nothing is known.

    Parameters
    ----------
    model
        Trained model.
    mdata, indices
        Other data (matched by name), and which samples.
    batch_size
        Samples at a time.

    Returns
    -------
    DataFrame with one row a modality and dimension of its decoder's input: ``modality``, ``dimension`` (a latent's name),
    ``sd_observed``, ``sd_alone`` and ``sd_missing`` (roots of mean posterior variances), ``n_samples``. NaN without such
    samples.

    Raises
    ------
    TypeError, RuntimeError
        If ``model`` is not a model, or not trained.
    """
    check_model(model, "latent_sd")
    cohort = model._cohort(mdata)
    positions = model._positions(cohort, indices)
    whitened = model.module.readout("joint", None).matrix
    tables = []
    for i, (m, selection) in enumerate(_selections(model).items()):
        present = cohort.present[positions]
        usable = positions[present[:, i] & (present.sum(1) > 1)]
        total = torch.zeros(3, selection.shape[1], dtype=torch.float64)
        own = torch.arange(len(model.modalities), device=model.module.device) == i
        for batch in model._batches(cohort, usable, batch_size):
            evidence = model.module.encode(batch)
            for k, used in enumerate((batch.present, batch.present & own, batch.present & ~own)):
                _, variance = model.module.posterior(evidence, batch, used).project(whitened @ selection)
                total[k] += variance.double().sum(0).cpu()
        sd = (total / len(usable)).sqrt().numpy() if len(usable) else np.full(total.shape, np.nan)
        tables.append(
            pd.DataFrame(
                {
                    "modality": m,
                    "dimension": [model.latent_names["joint"][k] for k in selection.argmax(0).tolist()],
                    "sd_observed": sd[0],
                    "sd_alone": sd[1],
                    "sd_missing": sd[2],
                    "n_samples": len(usable),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)
