"""From MuData to minibatches: rows and features by name, packed batches, splits by presence pattern."""

from omicvae.data._batch import Batch
from omicvae.data._cohort import Cohort, modality_rows
from omicvae.data._manager import MosaicDataset, MosaicManager
from omicvae.data._schema import CategorySchema, ModalitySchema, Schema
from omicvae.data._splitter import PatternSplitter, split_by_pattern

__all__ = [
    "Batch",
    "CategorySchema",
    "Cohort",
    "ModalitySchema",
    "MosaicDataset",
    "MosaicManager",
    "PatternSplitter",
    "Schema",
    "modality_rows",
    "split_by_pattern",
]
