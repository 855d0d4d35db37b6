"""Networks, covariate designs and likelihoods."""

from omicvae.nn._code_regression import CodeRegression
from omicvae.nn._design import Covariates, Design
from omicvae.nn._mixtures import ByFeature, FeatureMixture, TransformedResiduals
from omicvae.nn._networks import Decoder, Encoder, NetworkConfig, Perceptron
from omicvae.nn._residual_scale import ResidualScale
from omicvae.nn._response import Response
from omicvae.nn._size_prior import DrawnSizes, SizePrior

__all__ = [
    "ByFeature",
    "CodeRegression",
    "Covariates",
    "Decoder",
    "Design",
    "DrawnSizes",
    "Encoder",
    "FeatureMixture",
    "NetworkConfig",
    "Perceptron",
    "ResidualScale",
    "Response",
    "SizePrior",
    "TransformedResiduals",
]
