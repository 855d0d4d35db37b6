"""Random maps from latents to features, standardised under the latents' N(0, I) marginal."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_HIDDEN = 64
_REFERENCE_DRAWS = 20_000


class LinearDecoder(NamedTuple):
    """f(z) = z W with columns of unit length, so that Var f = 1 exactly for z ~ N(0, I)."""

    loadings: np.ndarray  # (d, p)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Signals (n, p) of latents (n, d)."""
        return z @ self.loadings


class TanhDecoder(NamedTuple):
    """f(z) = (tanh(z A + a) B - centre) / scale: two layers, smooth, not invertible feature by feature."""

    input_weights: np.ndarray  # (d, h)
    input_bias: np.ndarray  # (h,)
    output_weights: np.ndarray  # (h, p)
    centre: np.ndarray  # (p,)
    scale: np.ndarray  # (p,)

    def __call__(self, z: np.ndarray) -> np.ndarray:
        """Signals (n, p) of latents (n, d)."""
        hidden = np.tanh(z @ self.input_weights + self.input_bias)
        return (hidden @ self.output_weights - self.centre) / self.scale


def linear_decoder(n_latent: int, n_vars: int, rng: np.random.Generator) -> LinearDecoder:
    """Random linear map with unit-variance outputs.

    Parameters
    ----------
    n_latent, n_vars
        Sizes of latent and output.
    rng
        Source of randomness.

    Returns
    -------
    Decoder.
    """
    loadings = rng.standard_normal((n_latent, n_vars))
    return LinearDecoder(loadings / np.linalg.norm(loadings, axis=0))


def tanh_decoder(n_latent: int, n_vars: int, rng: np.random.Generator) -> TanhDecoder:
    """Random two-layer tanh network with outputs of mean 0 and variance 1 for z ~ N(0, I).

    The pre-activations have sd near 0.7, where tanh bends without saturating.

    Parameters
    ----------
    n_latent, n_vars
        Sizes of latent and output.
    rng
        Source of randomness.

    Returns
    -------
    Decoder.
    """
    into = 0.6 * rng.standard_normal((n_latent, _HIDDEN)) / np.sqrt(n_latent)
    bias = 0.3 * rng.standard_normal(_HIDDEN)
    out = rng.standard_normal((_HIDDEN, n_vars)) / np.sqrt(_HIDDEN)
    # Moments of the hidden layer give those of any number of outputs, without an array of reference outputs.
    hidden = np.tanh(rng.standard_normal((_REFERENCE_DRAWS, n_latent)) @ into + bias)
    variance = np.einsum("hp,hk,kp->p", out, np.cov(hidden, rowvar=False), out, optimize=True)
    return TanhDecoder(into, bias, out, hidden.mean(axis=0) @ out, np.sqrt(variance))
