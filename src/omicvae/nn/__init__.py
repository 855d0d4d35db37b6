"""Networks, covariate designs and likelihoods."""

from omicvae.nn._design import Covariates, Design
from omicvae.nn._networks import Decoder, Encoder, NetworkConfig, Perceptron
from omicvae.nn._size_prior import SizePrior

__all__ = ["Covariates", "Decoder", "Design", "Encoder", "NetworkConfig", "Perceptron", "SizePrior"]
