"""The numbers by which multimodal models are compared, each defined once for every model."""

from omicvae.metrics._classification import Classification, linear_classification
from omicvae.metrics._conditional_classification import GeneratedClassification, conditional_classification
from omicvae.metrics._decoder_inputs import decoder_input_correlation, latent_sd
from omicvae.metrics._features import feature_scores
from omicvae.metrics._likelihood import conditional_log_likelihood, joint_log_likelihood
from omicvae.metrics._prior import participation_ratio, prior_covariance

__all__ = [
    "Classification",
    "GeneratedClassification",
    "conditional_classification",
    "conditional_log_likelihood",
    "decoder_input_correlation",
    "feature_scores",
    "joint_log_likelihood",
    "latent_sd",
    "linear_classification",
    "participation_ratio",
    "prior_covariance",
]
