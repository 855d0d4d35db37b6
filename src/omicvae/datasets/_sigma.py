"""The latent covariance of correlated modalities: construction, checks, draws."""

from __future__ import annotations

from itertools import accumulate, pairwise
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike

# float32 input is symmetric, and positive semi-definite, only up to rounding.
_TOLERANCE = 1e-6


def equicorrelated(dims: list[int], rho: float) -> np.ndarray:
    """Sigma in which dimension k of any two modalities that have it correlates at rho, and nothing else does.

    Parameters
    ----------
    dims
        Latent dimensions d_m of each modality.
    rho
        Correlation.

    Returns
    -------
    (D, D), D = sum of ``dims``, modality-major, identity diagonal blocks.

    Raises
    ------
    ValueError
        If no joint distribution has this correlation: rho outside [-1 / (M - 1), 1].
    """
    if not isinstance(rho, Real) or isinstance(rho, bool):
        raise ValueError(f"rho must be a number, got {rho!r}.")
    dimension = np.concatenate([np.arange(d) for d in dims])
    sigma = np.where(dimension[:, None] == dimension[None], float(rho), 0.0)
    np.fill_diagonal(sigma, 1.0)
    if not np.isfinite(rho) or abs(rho) > 1 or not _positive_semidefinite(sigma):
        raise ValueError(
            f"rho = {rho!r} is no correlation {len(dims)} modalities can share: it must lie in "
            f"[{-1 / max(len(dims) - 1, 1):.3g}, 1]."
        )
    return sigma


def checked(sigma: ArrayLike, dims: list[int]) -> np.ndarray:
    """A given Sigma as a float64 matrix.

    Parameters
    ----------
    sigma
        (D, D), modality-major.
    dims
        Latent dimensions d_m of each modality, D in sum.

    Returns
    -------
    (D, D), exactly symmetric.

    Raises
    ------
    ValueError
        If its shape is wrong, a value is not finite, a diagonal block is not the identity, or it is not symmetric or
        not positive semi-definite.
    """
    matrix = np.asarray(sigma, dtype=np.float64)
    total = sum(dims)
    if matrix.shape != (total, total):
        raise ValueError(f"sigma must have shape {(total, total)}, the sum of n_latent; got {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"sigma holds {int((~np.isfinite(matrix)).sum())} value(s) that are not finite.")
    if np.abs(matrix - matrix.T).max() > _TOLERANCE:
        raise ValueError("sigma must be symmetric.")
    for start, stop in pairwise(accumulate(dims, initial=0)):
        if np.abs(matrix[start:stop, start:stop] - np.eye(stop - start)).max() > _TOLERANCE:
            raise ValueError(f"sigma must have identity diagonal blocks; rows {start} to {stop - 1} do not.")
    matrix = (matrix + matrix.T) / 2
    if not _positive_semidefinite(matrix):
        lowest = np.linalg.eigvalsh(matrix)[0]
        raise ValueError(f"sigma must be positive semi-definite; its smallest eigenvalue is {lowest:.3g}.")
    return matrix


def draw(sigma: np.ndarray, dims: list[int], n_obs: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Draws of z ~ N(0, Sigma), cut into modalities.

    Parameters
    ----------
    sigma
        (D, D) positive semi-definite.
    dims
        Latent dimensions d_m, D in sum.
    n_obs
        Number of draws.
    rng
        Source of randomness.

    Returns
    -------
    List of (n_obs, d_m).
    """
    values, vectors = np.linalg.eigh(sigma)
    # The symmetric root exists for a singular Sigma, where Cholesky fails, and does not depend on the eigenvectors'
    # signs, which differ between linear algebra libraries.
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    z = rng.standard_normal((n_obs, len(sigma))) @ root
    return np.split(z, list(accumulate(dims))[:-1], axis=1)


def _positive_semidefinite(sigma: np.ndarray) -> bool:
    return bool(np.linalg.eigvalsh(sigma)[0] >= -_TOLERANCE)
