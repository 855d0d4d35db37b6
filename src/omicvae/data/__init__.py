"""From MuData to minibatches: rows and features by name, packed batches, splits by presence pattern, shards on disk."""

from omicvae.data._batch import Batch
from omicvae.data._cohort import Cohort, modality_rows
from omicvae.data._manager import MosaicDataset, MosaicManager
from omicvae.data._schema import CategorySchema, ModalitySchema, Schema
from omicvae.data._shard_loader import ShardLoader
from omicvae.data._shard_splitter import ShardSplitter
from omicvae.data._shards import write_shards
from omicvae.data._splitter import PatternSplitter, split_by_pattern
from omicvae.data._zarr import open_zarr

__all__ = [
    "Batch",
    "CategorySchema",
    "Cohort",
    "ModalitySchema",
    "MosaicDataset",
    "MosaicManager",
    "PatternSplitter",
    "Schema",
    "ShardLoader",
    "ShardSplitter",
    "modality_rows",
    "open_zarr",
    "split_by_pattern",
    "write_shards",
]
