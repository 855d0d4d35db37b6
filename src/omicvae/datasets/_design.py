"""The settings of each modality of a simulation, from arguments given per modality."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from omicvae.datasets._arguments import choice, count, number, per_modality
from omicvae.datasets._observation import OBSERVATIONS, Observation


class Design(NamedTuple):
    """Settings of one modality, checked."""

    position: int  # among the modalities: the key of its random numbers
    n_latent: int
    n_vars: int
    observation: Observation
    noise: float | None  # None where the likelihood has no such parameter
    nan_fraction: float


def design(
    names: list[str],
    *,
    n_latent: int | Mapping[str, int],
    n_vars: int | Mapping[str, int],
    likelihoods: str | Mapping[str, str],
    noise: float | Mapping[str, float] | None,
    nan_fraction: float | Mapping[str, float],
) -> dict[str, Design]:
    """Spread arguments over modalities and check them.

    Parameters
    ----------
    names
        The modalities.
    n_latent, n_vars, likelihoods, noise, nan_fraction
        As in :func:`omicvae.datasets.correlated_gaussian`.

    Returns
    -------
    dict from modality to its settings, in the order of ``names``.

    Raises
    ------
    ValueError
        For an impossible value; the message names argument and modality.
    """
    latent = per_modality(n_latent, names, "n_latent", 5)
    features = per_modality(n_vars, names, "n_vars", 50)
    kinds = per_modality(likelihoods, names, "likelihoods", "normal")
    kinds = {m: choice(kind, OBSERVATIONS, f"likelihoods of {m!r}") for m, kind in kinds.items()}
    sizes = _noise(noise, kinds)
    holes = _nan_fractions(nan_fraction, kinds)
    return {
        m: Design(
            position=i,
            n_latent=count(latent[m], f"n_latent of {m!r}", 1),
            n_vars=count(features[m], f"n_vars of {m!r}", 1),
            observation=OBSERVATIONS[kinds[m]],
            noise=sizes[m],
            nan_fraction=holes[m],
        )
        for i, m in enumerate(names)
    }


def _noise(noise: float | Mapping[str, float] | None, kinds: dict[str, str]) -> dict[str, float | None]:
    given: dict[str, float | None] = per_modality(noise, list(kinds), "noise", None)
    sizes: dict[str, float | None] = {}
    for m, kind in kinds.items():
        observation = OBSERVATIONS[kind]
        if observation.noise is None:
            if isinstance(noise, Mapping) and m in noise:
                raise ValueError(f"noise of {m!r}: a {kind} modality has none.")
            sizes[m] = None
        else:
            value = given[m] if given[m] is not None else observation.noise
            low, high, closed = observation.noise_range
            sizes[m] = number(value, f"noise of {m!r}", low, high, closed=closed)
    return sizes


def _nan_fractions(nan_fraction: float | Mapping[str, float], kinds: dict[str, str]) -> dict[str, float]:
    given = per_modality(nan_fraction, list(kinds), "nan_fraction", 0.0)
    fractions = {m: number(f, f"nan_fraction of {m!r}", 0, 1) for m, f in given.items()}
    unable = [m for m, kind in kinds.items() if fractions[m] and not OBSERVATIONS[kind].allows_nan]
    # A single number means "wherever that is possible"; a mapping means what it says.
    if unable and (isinstance(nan_fraction, Mapping) or len(unable) == len(kinds)):
        raise ValueError(f"nan_fraction: only normal and beta modalities hold NaN, not {unable}.")
    return {m: 0.0 if m in unable else f for m, f in fractions.items()}
