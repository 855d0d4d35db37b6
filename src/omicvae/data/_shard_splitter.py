"""Training from shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from mudata import MuData
from numpy.typing import NDArray
from scvi import settings
from torch.utils.data import DataLoader

from omicvae.data._cohort import Cohort
from omicvae.data._heap import return_free_memory
from omicvae.data._manager import registered_manager
from omicvae.data._runs import runs_of
from omicvae.data._shard_loader import ShardLoader
from omicvae.data._shard_setup import SHARDS
from omicvae.data._splitter import PatternSplitter, split_by_pattern
from omicvae.data._stretches import compact

SHARD_ROWS = 1024


class ShardSplitter(PatternSplitter):
    """Data module that reads a registered MuData shard by shard, for ``train(datamodule=...)``.

    Every pattern of measured assays is divided in the same proportions, as by :class:`PatternSplitter`. What is held out
    are whole shards, chosen at random, and parts of a few where the proportions ask for them: no shard has to be read
    for a handful of samples. Because :func:`write_shards` has put samples into random order, they are random samples.

    Parameters
    ----------
    mdata
        Registered; best what :func:`open_zarr` gives of a store written by :func:`write_shards`. Other MuData are read
        in runs of 1024 samples, which are as mixed as the MuData is.
    train_size, validation_size
        Shares of samples, as in :func:`split_by_pattern`.
    calibration_size
        Share taken out of the training part, as in :class:`PatternSplitter`.
    batch_size
        Samples a minibatch.
    buffer_shards
        Shards in memory, among whose samples minibatches are drawn. More mix better; a shard takes about 1 MB.
    external_indexing
        ``[train, validation, test]`` as in :class:`PatternSplitter`.

    Raises
    ------
    ValueError
        If ``mdata`` is not registered, and for impossible numbers.

    Examples
    --------
    >>> import tempfile, omicvae
    >>> path = tempfile.mkdtemp() + "/cohort.zarr"
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=200).mdata
    >>> omicvae.model.CoVAE.setup_mudata(mdata)
    >>> omicvae.data.write_shards(mdata, path)
    >>> shards = omicvae.data.open_zarr(path)
    >>> omicvae.model.CoVAE.setup_mudata(shards)
    >>> model = omicvae.model.CoVAE(shards)
    >>> model.train(2, datamodule=omicvae.data.ShardSplitter(shards), enable_progress_bar=False)
    >>> model.get_latent_representation().shape[0]
    200
    """

    def __init__(
        self,
        mdata: MuData,
        *,
        train_size: float = 0.9,
        validation_size: float | None = None,
        calibration_size: float = 0.1,
        batch_size: int = 512,
        buffer_shards: int = 16,
        external_indexing: Sequence[NDArray[np.integer]] | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("buffer_shards", buffer_shards)):
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        manager = registered_manager(mdata)
        self.shard_rows = int(mdata.uns.get(SHARDS, {}).get("rows", SHARD_ROWS))
        self.buffer_shards = int(buffer_shards)
        parts = external_indexing
        if parts is None:
            parts = _split(manager.cohort, self.shard_rows, train_size, validation_size)
        super().__init__(
            manager, batch_size=int(batch_size), calibration_size=calibration_size, external_indexing=parts,
            shuffle_set_split=external_indexing is not None,
        )  # fmt: skip
        for name in ("train_idx", "val_idx", "test_idx", "calibration_idx"):
            setattr(self, name, compact(np.sort(getattr(self, name))))
        return_free_memory()

    def _loader(self, indices: NDArray[np.intp], shuffle: bool) -> DataLoader[Any] | list[Any]:
        if len(indices) == 0:
            return []
        loader = ShardLoader(
            self.adata_manager.cohort,
            indices,
            batch_size=self.batch_size,
            shard_rows=self.shard_rows,
            buffer_shards=self.buffer_shards,
            shuffle=shuffle,
        )
        return_free_memory()
        return loader  # type: ignore[return-value]  # Lightning takes any iterable with a length


def _split(cohort: Cohort, shard_rows: int, train_size: float, validation_size: float | None) -> list[NDArray[np.intp]]:
    """Parts of each pattern, cut between its shards in random order; each part in that order."""
    shards = runs_of(cohort, np.arange(len(cohort)), shard_rows)
    turns = np.random.default_rng(settings.seed or 0).permutation(len(shards))
    order = np.concatenate([np.zeros(0, dtype=np.intp), *(shards[k] for k in turns)])
    parts = split_by_pattern(cohort.present[order], train_size, validation_size, seed=0, shuffle=False)
    return [order[part] for part in parts]
