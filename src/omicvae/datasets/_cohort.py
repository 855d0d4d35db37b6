"""A simulated breast-cancer cohort: what a first look at the package needs, without a download."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from omicvae.datasets._arguments import count, stream
from omicvae.datasets._decoder import tanh_decoder
from omicvae.datasets._observation import OBSERVATIONS
from omicvae.datasets._presence import presence
from omicvae.datasets._record import Simulation, build_mudata, numbered, order_of

if TYPE_CHECKING:
    from mudata import MuData

_LATENTS, _CENTRES, _PRESENCE, _MODALITY = range(4)
_SUBTYPES = {"LumA": 0.4, "LumB": 0.2, "Her2": 0.15, "Basal": 0.25}
_CENTERS = {"center_A": 0.6, "center_B": 0.4}
_SHARED, _PRIVATE = 6, 4
# Vertices of a tetrahedron: four subtypes equally far apart in the first three shared dimensions.
_CENTROIDS = 0.8 * np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
_WITHIN_SUBTYPE_SD = 0.6
_SHARED_FEATURES = 0.6
_SHIFT_SD = 0.4
_LIBRARY_SD = 0.3


class _Assay(NamedTuple):
    """One assay of the cohort."""

    n_vars: int
    likelihood: str
    missing: float  # fraction of samples without it
    units: str
    level: Callable[[np.random.Generator, int], np.ndarray]  # (rng, n_vars) -> (n_vars,) added to a normal assay
    spread: float  # standard deviation of the signal of a normal assay, in its units


_ASSAYS = {
    "rna": _Assay(200, "normal", 0.0, "log2 expression", lambda rng, p: rng.uniform(4, 12, p), 1.2),
    "mirna": _Assay(120, "nb", 0.1, "counts", lambda rng, p: np.zeros(p), 1.0),
    "rppa": _Assay(80, "normal", 1 / 3, "normalised intensity", lambda rng, p: 0.3 * rng.standard_normal(p), 0.7),
}


@dataclass(frozen=True, eq=False)
class CohortTruth:
    """What generated a :func:`simulated_cohort`, for all samples. Rows are in the order of ``mdata.obs_names``."""

    shared: np.ndarray  # (n_obs, 6) latent of all assays; the first three dimensions carry the subtype
    private: dict[str, np.ndarray]  # assay -> (n_obs, 4)
    signals: dict[str, np.ndarray]  # assay -> (n_obs, p) noise-free, standardised, no center
    shared_variance: dict[str, np.ndarray]  # assay -> (p,) fraction of the signal's variance that is shared
    complete: dict[str, pd.DataFrame]  # assay -> (n_obs, p) values, those hidden from mdata included
    present: pd.DataFrame  # (n_obs, 3) bool, True where mdata holds the assay


def simulated_cohort(n_obs: int = 300, *, seed: int = 0) -> Simulation[CohortTruth]:
    """Simulate a breast-cancer cohort with three assays, of which some samples lack one or two.

    Nothing in it was measured: it stands in where no data can be downloaded, and where the truth must be known. Four
    subtypes form clusters in a latent that all assays share; each assay also varies on its own, and 60 % of its
    features carry both kinds of signal, the others the private kind alone. The two centers shift every feature. Assays
    are missing completely at random.

    Parameters
    ----------
    n_obs
        Number of samples, at least 20.
    seed
        Equal seeds give equal data.

    Returns
    -------
    Simulation with ``mdata`` and ``truth`` (:class:`CohortTruth`). Modalities: ``rna`` (200 features, log2
    expression, measured in all), ``mirna`` (120, counts with varying library size, missing in a tenth) and ``rppa``
    (80, normalised intensity, missing in a third). ``obs["subtype"]``, ``obs["center"]``; ``var["shared"]`` is True
    where a feature carries shared signal.

    Raises
    ------
    ValueError
        For an impossible ``n_obs`` or ``seed``.
    """
    samples = numbered("sample", count(n_obs, "n_obs", 20))
    subtype = _labels(_SUBTYPES, samples, stream(seed, _CENTRES, 0))
    center = _labels(_CENTERS, samples, stream(seed, _CENTRES, 1))
    shared = stream(seed, _LATENTS).standard_normal((n_obs, _SHARED))
    shared[:, :3] = _CENTROIDS[subtype.cat.codes] + _WITHIN_SUBTYPE_SD * shared[:, :3]

    present = presence({m: a.missing for m, a in _ASSAYS.items()}, samples, list(_ASSAYS), stream(seed, _PRESENCE))
    parts = {
        m: _simulate(a, shared, center.cat.codes.to_numpy(), stream(seed, _MODALITY, i))
        for i, (m, a) in enumerate(_ASSAYS.items())
    }
    complete = {m: pd.DataFrame(p.values, samples, numbered(m, p.values.shape[1])) for m, p in parts.items()}
    mdata = build_mudata(complete, present)
    _annotate(mdata, pd.DataFrame({"subtype": subtype, "center": center}), parts, seed)
    order = order_of(mdata, samples)
    return Simulation(
        mdata,
        CohortTruth(
            shared=shared[order],
            private={m: p.private[order] for m, p in parts.items()},
            signals={m: p.signal[order] for m, p in parts.items()},
            shared_variance={m: p.shared_variance for m, p in parts.items()},
            complete={m: table.iloc[order] for m, table in complete.items()},
            present=present.iloc[order],
        ),
    )


class _Part(NamedTuple):
    """One assay of all samples, in simulated order."""

    private: np.ndarray  # (n_obs, 4)
    signal: np.ndarray  # (n_obs, p)
    shared_variance: np.ndarray  # (p,)
    values: np.ndarray  # (n_obs, p)


def _simulate(assay: _Assay, shared: np.ndarray, center: np.ndarray, rng: np.random.Generator) -> _Part:
    n_obs, p = len(shared), assay.n_vars
    private = rng.standard_normal((n_obs, _PRIVATE))
    weight = np.where(np.arange(p) < round(_SHARED_FEATURES * p), rng.uniform(0.4, 0.95, p), 0.0)
    weight = rng.permutation(weight)
    common, own = tanh_decoder(_SHARED, p, rng)(shared), tanh_decoder(_PRIVATE, p, rng)(private)
    signal = np.sqrt(weight) * common + np.sqrt(1 - weight) * own
    shifted = signal + _SHIFT_SD * rng.standard_normal((len(_CENTERS), p))[center]
    observation = OBSERVATIONS[assay.likelihood]
    log_library = _LIBRARY_SD * rng.standard_normal((n_obs, 1))
    values = observation.draw(shifted, log_library, observation.noise or 0.0, rng).values
    if not observation.has_library:
        values = assay.level(rng, p) + assay.spread * values
    return _Part(private, signal, weight, values.astype(np.float32))


def _labels(proportions: dict[str, float], samples: pd.Index, rng: np.random.Generator) -> pd.Series:
    """Categories in their proportions, exact up to rounding, in random order."""
    edges = np.cumsum(list(proportions.values()))[:-1]
    codes = rng.permutation(np.searchsorted(edges, (np.arange(len(samples)) + 0.5) / len(samples)))
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(list(proportions))), index=samples)


def _annotate(mdata: MuData, obs: pd.DataFrame, parts: dict[str, _Part], seed: int) -> None:
    for column in obs:
        mdata.obs[column] = obs[column].reindex(mdata.obs_names)
    for m, part in parts.items():
        mdata[m].var["shared"] = part.shared_variance > 0
        mdata[m].uns["units"] = _ASSAYS[m].units
    mdata.uns["provenance"] = {"source": f"simulated: omicvae.datasets.simulated_cohort, seed {seed}; nothing measured"}
