"""The models a user constructs."""

from omicvae.model._covae import CoVAE
from omicvae.model._mmvae_plus_plus import MMVAEPlusPlus

__all__ = ["CoVAE", "MMVAEPlusPlus"]
