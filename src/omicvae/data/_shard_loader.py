"""Minibatches from shards: large pieces are read, and shuffled in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from omicvae.data._batch import Batch, concatenated
from omicvae.data._cohort import Cohort
from omicvae.data._runs import runs_of
from omicvae.data._stretches import compact


class ShardLoader:
    """Minibatches of some samples of a cohort on disk, of which a few shards are in memory at a time.

    An epoch takes shards in random order, reads ``buffer_shards`` of them, shuffles their samples and cuts these into
    minibatches; what is left of a buffer begins the next one's first minibatch. So every sample is seen exactly once an
    epoch, and all minibatches but the last are full. A shard's samples all have the same assays; shards of each pattern
    come at even distances, so that each buffer holds about the mix of patterns of the whole. The
    order follows from torch's random state, as that of torch's own loaders does.

    Parameters
    ----------
    cohort
        Where samples are read from.
    indices
        Their positions.
    batch_size
        Samples a minibatch.
    shard_rows
        Most samples a shard.
    buffer_shards
        Shards in memory.
    shuffle
        ``False`` takes shards and samples as they are written.
    """

    def __init__(
        self,
        cohort: Cohort,
        indices: NDArray[np.intp],
        *,
        batch_size: int,
        shard_rows: int,
        buffer_shards: int,
        shuffle: bool,
    ) -> None:
        self._cohort, self._shuffle = cohort, shuffle
        self.batch_size, self.buffer_shards = batch_size, buffer_shards
        self._shards = [compact(run) for run in runs_of(cohort, indices, shard_rows)]
        first = np.array([shard[0] for shard in self._shards], dtype=np.intp)
        self._patterns = np.unique(cohort.present[first], axis=0, return_inverse=True)[1].reshape(-1)
        self.n_samples = sum(map(len, self._shards))

    def __len__(self) -> int:
        return math.ceil(self.n_samples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(int(torch.empty((), dtype=torch.int64).random_()) if self._shuffle else 0)
        left: Batch | None = None
        for shards in self._turns(rng):
            buffer = self._cohort.loaded(shards)
            order = rng.permutation(len(buffer)) if self._shuffle else np.arange(len(buffer))
            start = 0
            if left is not None:
                start = min(self.batch_size - left.n_samples, len(order))
                left = concatenated([left, buffer.batch(order[:start])])
                if left.n_samples < self.batch_size:
                    continue
                yield left
            full = start + (len(order) - start) // self.batch_size * self.batch_size
            for first in range(start, full, self.batch_size):
                yield buffer.batch(order[first : first + self.batch_size])
            left = buffer.batch(order[full:]) if full < len(order) else None
            del buffer  # before the next one is read
        if left is not None:
            yield left

    def _turns(self, rng: np.random.Generator) -> Iterator[list[NDArray[np.integer]]]:
        """Shards that are in memory together; those of one turn from front to back, as files are read."""
        turns = evenly_spread(self._patterns, rng) if self._shuffle else np.arange(len(self._shards))
        for start in range(0, len(turns), self.buffer_shards):
            yield [self._shards[k] for k in np.sort(turns[start : start + self.buffer_shards])]


def evenly_spread(groups: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.intp]:
    """A random order in which the members of each group are at even distances, from a random start."""
    place = np.empty(len(groups))
    for group in np.unique(groups):
        members = rng.permutation(np.flatnonzero(groups == group))
        place[members] = (np.arange(len(members)) + rng.random()) / len(members)
    return np.argsort(place, kind="stable")
