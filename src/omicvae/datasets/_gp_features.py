"""Shared and private features drawn from Gaussian processes: the synthetic data of the MMVAE++ paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from omicvae.datasets._arguments import count, number, stream
from omicvae.datasets._record import Simulation, build_mudata, numbered

if TYPE_CHECKING:
    from mudata import MuData

_LATENTS, _SHARED, _PRIVATE, _NOISE, _ROTATION = range(5)
_JITTER = 1e-6
MODALITIES = ("x1", "x2")


@dataclass(frozen=True, eq=False)
class GPTruth:
    """What generated a :func:`gp_features` data set. Rows are in the order of ``mdata.obs_names``."""

    shared: np.ndarray  # (n_obs, d_shared) uniform on (-2, 2)
    private: dict[str, np.ndarray]  # modality -> (n_obs, d_private), uniform on (-2, 2)
    signals: dict[str, np.ndarray]  # modality -> (n_obs, p) noise-free, mean 0 and variance 1 before rotation
    rotations: dict[str, np.ndarray]  # modality -> orthogonal (p, p), X @ rotation.T unmixes; empty if not rotated
    noise: float  # standard deviation of the noise


def gp_features(
    n_private: tuple[int, int] = (100, 100),
    *,
    n_shared: int = 10,
    n_obs: int = 1000,
    n_latent: tuple[int, int, int] = (2, 2, 2),
    noise: float = 0.15,
    rotate: bool = False,
    even: bool = False,
    seed: int = 0,
) -> Simulation[GPTruth]:
    r"""Simulate two modalities in which few features share a signal and many vary on their own.

    Every feature is a draw from a Gaussian process over latents of its kind, standardised, plus noise
    (MMVAE++ paper, section 4.1):

    .. math::
        f^{(j)} \sim GP(0, k), \quad k(z, z') = e^{-\|z - z'\|^2 / 2}, \qquad
        x_m^{(j)} = f^{(j)}(z_{shared}) \;\text{or}\; f^{(j)}(z_{private, m}) \; + \; \epsilon

    with latents uniform on (-2, 2) in every dimension. The paper varies the number of private features of the first
    modality from 20 to 1000, with 100 in the second.

    Parameters
    ----------
    n_private
        Private features of ``"x1"`` and of ``"x2"``.
    n_shared
        Shared features of each modality, placed first. 0 makes the modalities independent.
    n_obs
        Number of samples, at least 2. Cost grows with its cube.
    n_latent
        Dimensions of the private latent of ``"x1"``, the shared latent, the private latent of ``"x2"``.
    noise
        Standard deviation of the noise, added after standardisation: a perfect prediction of the signal has
        R2 = 1 / (1 + noise^2).
    rotate
        Multiply the features of each modality by a random orthogonal matrix, so that all of them mix shared and
        private variation and no selection of features parts the two.
    even
        Shared features of ``"x2"`` depend on the squares of the shared latents alone: they do not tell a latent from
        its negative, and no linear function of ``"x1"`` need know anything about them.
    seed
        Equal seeds give equal data.

    Returns
    -------
    Simulation with ``mdata`` and ``truth`` (:class:`GPTruth`). ``var["shared"]`` is True where a feature carries
    shared signal (everywhere, if rotated); ``obs["label"]`` is "1" where the first shared latent is positive, else
    "0".

    Raises
    ------
    ValueError
        For an argument that is impossible; the message names it.
    """
    n_obs, n_shared = count(n_obs, "n_obs", 2), count(n_shared, "n_shared", 0)
    noise = number(noise, "noise", 0)
    widths = [count(q, "n_private", 0) for q in _tuple(n_private, 2, "n_private")]
    if min(widths) + n_shared == 0:
        raise ValueError("n_shared and n_private leave a modality without features.")
    dims = [count(d, "n_latent", 1) for d in _tuple(n_latent, 3, "n_latent")]
    first, shared, second = (stream(seed, _LATENTS, i).uniform(-2, 2, (n_obs, d)) for i, d in enumerate(dims))
    private = dict(zip(MODALITIES, (first, second), strict=True))

    roots = [_kernel_root(shared)] * 2
    if even:
        roots[1] = _kernel_root(shared**2)
    signals, rotations = {}, {}
    for i, (name, width) in enumerate(zip(MODALITIES, widths, strict=True)):
        common = roots[i] @ stream(seed, _SHARED, i).standard_normal((n_obs, n_shared))
        own = _kernel_root(private[name]) @ stream(seed, _PRIVATE, i).standard_normal((n_obs, width))
        f = np.hstack([common, own])
        signals[name] = (f - f.mean(axis=0)) / f.std(axis=0)
        if rotate:
            rotations[name] = _rotation(n_shared + width, stream(seed, _ROTATION, i))
    values = {
        m: f + noise * stream(seed, _NOISE, i).standard_normal(f.shape) for i, (m, f) in enumerate(signals.items())
    }
    for name, rotation in rotations.items():
        signals[name], values[name] = signals[name] @ rotation, values[name] @ rotation
    return Simulation(_assemble(values, shared, n_shared, rotate), GPTruth(shared, private, signals, rotations, noise))


def _assemble(values: dict[str, np.ndarray], shared: np.ndarray, n_shared: int, rotate: bool) -> MuData:
    samples = numbered("sample", len(shared))
    present = pd.DataFrame(True, index=samples, columns=list(values))
    mdata = build_mudata({m: pd.DataFrame(x, samples, numbered(m, x.shape[1])) for m, x in values.items()}, present)
    mdata.obs["label"] = pd.Categorical(np.where(shared[:, 0] > 0, "1", "0"), categories=["0", "1"])
    for adata in mdata.mod.values():
        adata.var["shared"] = (np.arange(adata.n_vars) < n_shared) | (rotate and n_shared > 0)
    return mdata


def _kernel_root(z: np.ndarray) -> np.ndarray:
    """(n, n) Cholesky factor of the RBF kernel, length scale and variance 1, of latents (n, d)."""
    return np.linalg.cholesky(np.exp(-cdist(z, z, "sqeuclidean") / 2) + _JITTER * np.eye(len(z)))


def _rotation(size: int, rng: np.random.Generator) -> np.ndarray:
    """Orthogonal (size, size), uniformly distributed: QR of a Gaussian matrix, signs fixed by the diagonal of R."""
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    return q * np.sign(np.diag(r))


def _tuple(value: object, length: int, argument: str) -> tuple[object, ...]:
    if not isinstance(value, tuple | list) or len(value) != length:
        raise ValueError(f"{argument} must be {length} numbers, got {value!r}.")
    return tuple(value)
