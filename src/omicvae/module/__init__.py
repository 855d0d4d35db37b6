"""What is trained: one file a model, each saying which passes it makes."""

from omicvae.module._base import MultimodalModule
from omicvae.module._covae import CoVAEModule
from omicvae.module._dmvae import DMVAEModule
from omicvae.module._jmvae import JMVAEModule
from omicvae.module._joint_encoder import JointEncoderModule
from omicvae.module._mmvae import MMVAEModule
from omicvae.module._mmvae_plus import MMVAEPlusModule
from omicvae.module._mmvae_plus_plus import MMVAEPlusPlusModule
from omicvae.module._mopoe import MoPoEModule
from omicvae.module._mvae import MVAEModule
from omicvae.module._mvtcae import MVTCAEModule
from omicvae.module._probabilistic_cca import ProbabilisticCCAModule
from omicvae.module._records import Evidence, LatentPosterior, Pass
from omicvae.module._screened import ScreenedModule
from omicvae.module._shared_private import Shape

__all__ = [
    "CoVAEModule",
    "DMVAEModule",
    "Evidence",
    "JMVAEModule",
    "JointEncoderModule",
    "LatentPosterior",
    "MMVAEModule",
    "MMVAEPlusModule",
    "MMVAEPlusPlusModule",
    "MVAEModule",
    "MVTCAEModule",
    "MoPoEModule",
    "MultimodalModule",
    "Pass",
    "ProbabilisticCCAModule",
    "ScreenedModule",
    "Shape",
]
