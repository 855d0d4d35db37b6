"""Which sample lacks which assay."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from omicvae.datasets._arguments import number, per_modality

Missing = float | Mapping[str, float] | ArrayLike | pd.DataFrame | None


def presence(missing: Missing, samples: pd.Index, modalities: list[str], rng: np.random.Generator) -> pd.DataFrame:
    """Draw who has which assay; every sample has at least one and every modality at least one sample.

    Assays are missing completely at random: independently of every simulated value.

    Parameters
    ----------
    missing
        None (all measured), the fraction of samples that lack each modality, a mapping from modality to its fraction
        (the rest is complete), or a bool matrix (n_obs, n_modalities) with True where an assay is missing. A
        DataFrame is matched by its sample and modality names. Fractions are met exactly, up to rounding to samples.
    samples
        (n_obs,) names.
    modalities
        Names.
    rng
        Source of randomness.

    Returns
    -------
    (n_obs, n_modalities) DataFrame of bool, True where measured.

    Raises
    ------
    ValueError
        If a sample would have no assay, or a modality no sample.
    """
    if missing is None or isinstance(missing, Mapping) or np.ndim(missing) == 0:
        absent = _draw(per_modality(missing, modalities, "missing", 0.0), len(samples), rng)  # type: ignore[arg-type]
    else:
        absent = _explicit(missing, samples, modalities)
    bare = samples[np.flatnonzero(absent.all(axis=1))]
    if len(bare):
        raise ValueError(f"missing leaves {len(bare)} sample(s) without any assay: {list(bare[:5])}.")
    empty = [modalities[m] for m in np.flatnonzero(absent.all(axis=0))]
    if empty:
        raise ValueError(f"missing leaves no sample in {empty}.")
    return pd.DataFrame(~absent, index=samples, columns=modalities)


def _explicit(missing: ArrayLike | pd.DataFrame, samples: pd.Index, modalities: list[str]) -> np.ndarray:
    if isinstance(missing, pd.DataFrame):
        if (
            set(missing.index) != set(samples)
            or set(missing.columns) != set(modalities)
            or missing.size != len(samples) * len(modalities)
        ):
            raise ValueError("missing, as a DataFrame, must hold exactly the sample names and the modalities.")
        missing = missing.loc[samples, modalities].to_numpy()
    absent = np.asarray(missing)
    if absent.shape != (len(samples), len(modalities)) or absent.dtype != bool:
        raise ValueError(
            f"missing, as a matrix, must be bool of shape {(len(samples), len(modalities))}; "
            f"got {absent.dtype} of shape {absent.shape}."
        )
    return absent


def _draw(fractions: dict[str, float], n_obs: int, rng: np.random.Generator) -> np.ndarray:
    """(n_obs, n_modalities) bool, True where missing, with the number of missing rows of each modality exact."""
    counts = [round(number(f, f"missing of {m!r}", 0, 1) * n_obs) for m, f in fractions.items()]
    if sum(counts) > (len(counts) - 1) * n_obs:
        raise ValueError(
            f"missing: fractions adding up to {sum(fractions.values()):g} leave samples without any assay; with "
            f"{len(counts)} modalities they can add up to at most {len(counts) - 1}."
        )
    absent = np.zeros((n_obs, len(counts)), bool)
    for m, k in enumerate(counts):
        absent[rng.permutation(n_obs)[:k], m] = True
    # A sample left with nothing swaps one absence with a sample that has that assay and another: counts stay exact.
    # One exists, since there are no more absences than samples times (modalities - 1).
    for i in np.flatnonzero(absent.all(axis=1)):
        donors, assays = np.nonzero(~absent & (absent.sum(axis=1) <= len(counts) - 2)[:, None])
        pick = rng.integers(len(donors))
        absent[i, assays[pick]] = False
        absent[donors[pick], assays[pick]] = True
    return absent
