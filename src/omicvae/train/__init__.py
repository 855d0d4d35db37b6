"""Training plan, budget and callbacks."""

from omicvae.train._best_weights import BestWeights
from omicvae.train._budget import Budget, training_budget
from omicvae.train._checkpoints import Checkpoints, PlainCheckpointIO
from omicvae.train._history import HistoryLogger
from omicvae.train._plan import MosaicPlan, clip_norm
from omicvae.train._pretrain import pretrain_prior
from omicvae.train._settle_noise import settle_noise
from omicvae.train._shared_start import train_shared

__all__ = [
    "BestWeights",
    "Budget",
    "Checkpoints",
    "HistoryLogger",
    "MosaicPlan",
    "PlainCheckpointIO",
    "clip_norm",
    "pretrain_prior",
    "settle_noise",
    "train_shared",
    "training_budget",
]
