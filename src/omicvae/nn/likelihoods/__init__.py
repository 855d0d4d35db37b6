"""One object per type of data: its density, what an encoder sees of it, and how uncertain an imputed value is."""

from omicvae.nn.likelihoods._base import CROSS, OWN, Likelihood, Observed
from omicvae.nn.likelihoods._bernoulli import Bernoulli
from omicvae.nn.likelihoods._beta import Beta
from omicvae.nn.likelihoods._betabinomial import BetaBinomial
from omicvae.nn.likelihoods._counts import CountLikelihood, Poisson
from omicvae.nn.likelihoods._negative_binomial import (
    NegativeBinomial,
    NegativeBinomialCounts,
    ZeroInflatedNegativeBinomial,
)
from omicvae.nn.likelihoods._normal import Normal, UnitNormal
from omicvae.nn.likelihoods._propose import LIKELIHOODS, likelihood_class, make_likelihood, propose

__all__ = [
    "CROSS",
    "LIKELIHOODS",
    "OWN",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "CountLikelihood",
    "Likelihood",
    "NegativeBinomial",
    "NegativeBinomialCounts",
    "Normal",
    "Observed",
    "Poisson",
    "UnitNormal",
    "ZeroInflatedNegativeBinomial",
    "likelihood_class",
    "make_likelihood",
    "propose",
]
