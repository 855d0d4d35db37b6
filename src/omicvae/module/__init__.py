"""What is trained: one file a model, each saying which passes it makes."""

from omicvae.module._base import MultimodalModule
from omicvae.module._covae import CoVAEModule
from omicvae.module._joint_encoder import JointEncoderModule
from omicvae.module._mmvae_plus_plus import MMVAEPlusPlusModule, Shape
from omicvae.module._records import Evidence, LatentPosterior, Pass

__all__ = [
    "CoVAEModule",
    "Evidence",
    "JointEncoderModule",
    "LatentPosterior",
    "MMVAEPlusPlusModule",
    "MultimodalModule",
    "Pass",
    "Shape",
]
