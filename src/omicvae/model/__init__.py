"""The models a user constructs."""

from omicvae.model._covae import CoVAE
from omicvae.model._dmvae import DMVAE
from omicvae.model._jmvae import JMVAE
from omicvae.model._mmvae import MMVAE
from omicvae.model._mmvae_plus import MMVAEPlus
from omicvae.model._mmvae_plus_plus import MMVAEPlusPlus
from omicvae.model._mopoe import MoPoE
from omicvae.model._mvae import MVAE
from omicvae.model._mvtcae import MVTCAE
from omicvae.model._probabilistic_cca import ProbabilisticCCA

__all__ = [
    "CoVAE",
    "DMVAE",
    "JMVAE",
    "MMVAE",
    "MMVAEPlus",
    "MMVAEPlusPlus",
    "MVAE",
    "MVTCAE",
    "MoPoE",
    "ProbabilisticCCA",
]
