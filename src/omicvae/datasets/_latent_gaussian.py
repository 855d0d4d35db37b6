"""Modalities generated from correlated Gaussian latents: the generative model of CoVAE, with its truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from omicvae.datasets import _sigma
from omicvae.datasets._arguments import count, modality_names, number, stream
from omicvae.datasets._decoder import LinearDecoder, TanhDecoder, linear_decoder, tanh_decoder
from omicvae.datasets._design import Design, design
from omicvae.datasets._observation import Observed
from omicvae.datasets._presence import Missing, presence
from omicvae.datasets._record import Simulation, build_mudata, numbered, order_of

if TYPE_CHECKING:
    from mudata import MuData

# Purposes of random numbers: each has a stream of its own.
_LATENTS, _BATCH, _PRESENCE, _NAN, _DECODER, _OBSERVATION, _LIBRARY, _SHIFT = range(8)
_SHIFT_SD = 0.5


@dataclass(frozen=True, eq=False)
class Truth:
    """What generated a :func:`correlated_gaussian` data set, for all samples, measured or not.

    Rows of every array are in the order of ``mdata.obs_names``, which is also the index of the DataFrames.
    """

    sigma: np.ndarray  # (D, D) latent covariance, modality-major
    latents: dict[str, np.ndarray]  # modality -> (n_obs, d_m)
    signals: dict[str, np.ndarray]  # modality -> (n_obs, p_m) noise-free, population mean 0 and variance 1, no batch
    expected: dict[str, np.ndarray]  # modality -> (n_obs, p_m) E[X | latents, batch, library, coverage]
    complete: dict[str, pd.DataFrame]  # modality -> (n_obs, p_m) values, those hidden from mdata included
    coverage: dict[str, pd.DataFrame]  # beta-binomial modality -> (n_obs, p_m) number of trials
    library: dict[str, np.ndarray]  # count modality -> (n_obs,) library size relative to the median sample
    present: pd.DataFrame  # (n_obs, n_modalities) bool, True where mdata holds the assay
    noise: dict[str, float]  # modality -> size of its noise, where its likelihood has one
    loadings: dict[str, np.ndarray]  # modality -> (d_m, p_m), signals = latents @ loadings; empty unless linear


def correlated_gaussian(
    n_obs: int = 500,
    *,
    modalities: int | Sequence[str] = 2,
    n_latent: int | Mapping[str, int] = 5,
    n_vars: int | Mapping[str, int] = 50,
    likelihoods: str | Mapping[str, str] = "normal",
    rho: float | None = None,
    sigma: ArrayLike | None = None,
    noise: float | Mapping[str, float] | None = None,
    missing: Missing = None,
    nan_fraction: float | Mapping[str, float] = 0.0,
    library_sd: float = 0.0,
    n_batches: int = 1,
    linear: bool = False,
    seed: int = 0,
) -> Simulation[Truth]:
    r"""Simulate modalities whose latents are jointly Gaussian with a known correlation.

    .. math::
        z = (z_1, \dots, z_M) \sim N(0, \Sigma), \quad \Sigma_{mm} = I, \qquad
        x_m \sim p_m(\cdot \mid f_m(z_m) + b_m)

    with :math:`f_m` a random two-layer tanh network whose outputs have mean 0 and variance 1, :math:`b_m` the shift
    of the sample's batch and :math:`p_m` a likelihood: the generative model of CoVAE (Caretti et al.).

    Parameters
    ----------
    n_obs
        Number of samples, at least 2.
    modalities
        Names, or how many (named ``modality_1``, ...).
    n_latent
        Latent dimensions, one number or modality to number (5 where not named).
    n_vars
        Features, one number or modality to number (50 where not named).
    likelihoods
        ``"normal"`` (where not named), ``"nb"``, ``"zinb"``, ``"poisson"``, ``"bernoulli"``, ``"beta"`` or
        ``"betabinomial"``. Counts are exp of 0.7 times the signal around a level for each feature; probabilities are
        logistic in it. A zero-inflated count is replaced by zero with probability 0.2. A beta-binomial modality has
        the layers ``"methylated"`` (also X) and ``"coverage"``.
    rho
        Correlation of dimension k of any two modalities that have it; 0.6 unless ``sigma`` is given.
    sigma
        (D, D) latent covariance, modality-major, D the sum of ``n_latent``, with identity diagonal blocks.
    noise
        Size of the noise, one number or modality to number: normal: standard deviation (default 0.3); nb, zinb:
        overdispersion a in Var = mu + a mu^2 (0.2); beta, betabinomial: a in Var p = a mean (1 - mean) (0.02).
        Poisson and bernoulli have none, and are not touched by a single number.
    missing
        Assays that samples lack: None, the fraction of samples missing in each modality, modality to fraction
        (complete where not named), or bool (n_obs, n_modalities), True where missing. Every sample keeps an assay.
    nan_fraction
        Fraction of single values that are NaN in normal and beta modalities, or modality to fraction.
    library_sd
        Standard deviation of the log library size in count modalities.
    n_batches
        Batches, of equal size. With more than one, each shifts every feature's signal by N(0, 0.5^2), and
        ``mdata.obs["batch"]`` says which is whose.
    linear
        Use linear maps with unit-norm columns for :math:`f_m`: normal modalities are then jointly Gaussian, with a
        posterior in closed form.
    seed
        Equal seeds give equal data. Hiding assays or values leaves all others as they were.

    Returns
    -------
    Simulation with ``mdata`` and ``truth`` (:class:`Truth`).

    Raises
    ------
    ValueError
        For an argument that is impossible; the message names it.

    Examples
    --------
    >>> simulation = correlated_gaussian(100, modalities=["rna", "mirna"], missing=0.2)
    >>> simulation.mdata.n_obs, simulation.mdata["rna"].n_obs
    (100, 80)
    """
    samples, names = numbered("sample", count(n_obs, "n_obs", 2)), modality_names(modalities)
    designs = design(
        names, n_latent=n_latent, n_vars=n_vars, likelihoods=likelihoods, noise=noise, nan_fraction=nan_fraction
    )
    covariance = _covariance([d.n_latent for d in designs.values()], rho, sigma)
    present = presence(missing, samples, names, stream(seed, _PRESENCE))
    batch = _batches(n_batches, samples, seed)
    library_sd = number(library_sd, "library_sd", 0)

    latents = _sigma.draw(covariance, [d.n_latent for d in designs.values()], len(samples), stream(seed, _LATENTS))
    make = linear_decoder if linear else tanh_decoder
    parts = {
        m: _generate(d, z, make, batch, library_sd, seed) for (m, d), z in zip(designs.items(), latents, strict=True)
    }

    complete, coverage = _tables(parts, samples)
    mdata = _measure(complete, coverage, designs, present, seed)
    if len(batch.cat.categories) > 1:
        mdata.obs["batch"] = batch.reindex(mdata.obs_names)
    order = order_of(mdata, samples)
    return Simulation(
        mdata,
        Truth(
            sigma=covariance,
            latents={m: p.latents[order] for m, p in parts.items()},
            signals={m: p.signal[order] for m, p in parts.items()},
            expected={m: p.observed.expected[order] for m, p in parts.items()},
            complete={m: table.iloc[order] for m, table in complete.items()},
            coverage={m: table.iloc[order] for m, table in coverage.items()},
            library={m: p.library[order] for m, p in parts.items() if designs[m].observation.has_library},
            present=present.iloc[order],
            noise={m: d.noise for m, d in designs.items() if d.noise is not None},
            loadings={m: p.decoder.loadings for m, p in parts.items() if isinstance(p.decoder, LinearDecoder)},
        ),
    )


class _Part(NamedTuple):
    """One modality of all samples, in simulated order."""

    latents: np.ndarray  # (n_obs, d)
    decoder: LinearDecoder | TanhDecoder
    signal: np.ndarray  # (n_obs, p)
    library: np.ndarray  # (n_obs,)
    observed: Observed


def _covariance(dims: list[int], rho: float | None, sigma: ArrayLike | None) -> np.ndarray:
    if sigma is None:
        return _sigma.equicorrelated(dims, 0.6 if rho is None else rho)
    if rho is not None:
        raise ValueError("rho and sigma both say how modalities correlate: give one.")
    return _sigma.checked(sigma, dims)


def _batches(n_batches: int, samples: pd.Index, seed: int) -> pd.Series:
    """Batch of each sample, as a category; sizes differ by at most one."""
    if count(n_batches, "n_batches", 1) > len(samples):
        raise ValueError(f"n_batches = {n_batches} exceeds n_obs = {len(samples)}: a batch would be empty.")
    codes = stream(seed, _BATCH).permutation(np.arange(len(samples)) % n_batches)
    labels = [f"batch_{b + 1}" for b in range(n_batches)]
    return pd.Series(pd.Categorical.from_codes(codes, categories=pd.Index(labels)), index=samples)


def _generate(
    setting: Design,
    latents: np.ndarray,
    make: Callable[[int, int, np.random.Generator], LinearDecoder | TanhDecoder],
    batch: pd.Series,
    library_sd: float,
    seed: int,
) -> _Part:
    key = setting.position
    decoder = make(setting.n_latent, setting.n_vars, stream(seed, _DECODER, key))
    signal = decoder(latents)
    n_batches = len(batch.cat.categories)
    shifts = _SHIFT_SD * (n_batches > 1) * stream(seed, _SHIFT, key).standard_normal((n_batches, setting.n_vars))
    log_library = library_sd * stream(seed, _LIBRARY, key).standard_normal((len(latents), 1))
    observed = setting.observation.draw(
        signal + shifts[batch.cat.codes], log_library, setting.noise or 0.0, stream(seed, _OBSERVATION, key)
    )
    return _Part(latents, decoder, signal, np.exp(log_library[:, 0]), observed)


def _tables(parts: dict[str, _Part], samples: pd.Index) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Values of every modality, and the coverage of beta-binomial ones, with names."""
    complete, coverage = {}, {}
    for m, part in parts.items():
        observed = part.observed
        features = numbered(m, observed.values.shape[1])
        complete[m] = pd.DataFrame(observed.values, samples, features)
        if observed.coverage is not None:
            coverage[m] = pd.DataFrame(observed.coverage, samples, features)
    return complete, coverage


def _measure(
    complete: dict[str, pd.DataFrame],
    coverage: dict[str, pd.DataFrame],
    designs: dict[str, Design],
    present: pd.DataFrame,
    seed: int,
) -> MuData:
    """What is present of the complete tables, with the layers of beta-binomial modalities."""
    seen = {
        m: table.mask(stream(seed, _NAN, designs[m].position).random(table.shape) < designs[m].nan_fraction)
        for m, table in complete.items()
    }
    mdata = build_mudata(seen, present)
    for m, trials in coverage.items():
        mdata[m].layers["methylated"] = mdata[m].X.copy()
        mdata[m].layers["coverage"] = trials.loc[mdata[m].obs_names].to_numpy(copy=True)
    return mdata
