"""Train / validation / test split that keeps the mix of presence patterns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from numpy.typing import NDArray
from scvi import settings
from scvi.dataloaders import AnnDataLoader
from torch.utils.data import DataLoader

from omicvae.data._manager import MosaicManager


def split_by_pattern(
    present: NDArray[np.bool_],
    train_size: float,
    validation_size: float | None,
    *,
    seed: int,
    shuffle: bool = True,
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Split samples so that every pattern of measured assays is divided in the same proportions.

    Samples that have no assay at all are in none of the three parts. Of each pattern the training part gets at least
    one sample. Each part of a pattern is the exact proportion rounded up or down, and rounding evens out over patterns.

    Parameters
    ----------
    present
        ``(n_obs, M)`` which assays each sample has.
    train_size
        Share of samples to train on, in (0, 1].
    validation_size
        Share to validate on; ``None`` takes what training leaves. The rest is the test part.
    seed
        Seed of the shuffle.
    shuffle
        ``False`` takes samples in their order within a pattern.

    Returns
    -------
    Sorted positions of the training, validation and test samples.

    Raises
    ------
    ValueError
        If the sizes are not proportions that sum to at most 1.
    """
    if not 0 < train_size <= 1:
        raise ValueError(f"train_size must lie in (0, 1], got {train_size}")
    validation = 1 - train_size if validation_size is None else validation_size
    if validation < 0 or train_size + validation > 1 + 1e-9:
        raise ValueError(f"train_size + validation_size must lie in (0, 1], got {train_size} + {validation}")
    rng = np.random.default_rng(seed)
    shares = np.array([train_size, validation, max(0.0, 1 - train_size - validation)])
    parts: list[list[NDArray[np.intp]]] = [[], [], []]
    owed = np.zeros(3)
    patterns, group = np.unique(present, axis=0, return_inverse=True)
    for k in np.argsort(-np.bincount(group.reshape(-1))):  # large patterns first: small ones settle the remainders
        if not patterns[k].any():
            continue
        members = np.flatnonzero(group.reshape(-1) == k)
        members = rng.permutation(members) if shuffle else members
        counts = _apportion(len(members), shares, owed)
        owed += len(members) * shares - counts
        for part, chosen in zip(parts, np.split(members, np.cumsum(counts)[:-1]), strict=True):
            part.append(chosen)
    train, validate, test = (np.sort(np.concatenate(part)) if part else np.zeros(0, np.intp) for part in parts)
    return train, validate, test


def _apportion(n: int, shares: NDArray[np.float64], owed: NDArray[np.float64]) -> NDArray[np.intp]:
    """Whole numbers that sum to ``n``, each ``n * shares`` rounded up or down, and at least 1 in the first part.

    What rounding left ``owed`` to each part by earlier patterns decides which are rounded up.
    """
    exact = n * shares
    counts = np.floor(exact + 1e-9).astype(np.intp)
    left = n - int(counts.sum())
    remainder = exact - counts
    rounded_up = np.argsort(-np.where(remainder > 1e-9, remainder + owed, -np.inf), kind="stable")[:left]
    counts[rounded_up] += 1
    if counts[0] == 0:
        counts[0] = 1
        counts[1:][np.argmax((counts - exact)[1:])] -= 1
    return counts


class PatternSplitter(pl.LightningDataModule):
    """Lightning data module over :func:`split_by_pattern`.

    Parameters
    ----------
    adata_manager
        Manager of the registered MuData.
    train_size, validation_size
        As in :func:`split_by_pattern`.
    batch_size
        Samples a minibatch.
    shuffle_set_split
        Whether to shuffle before splitting.
    calibration_size
        Share of all samples that is taken out of the training part to calibrate on: neither training nor early
        stopping sees them.
    external_indexing
        ``[train, validation, test]`` positions or masks chosen by the user, instead of a random split; the last one or
        two may be left out.
    **data_loader_kwargs
        Passed to :class:`scvi.dataloaders.AnnDataLoader`.

    Raises
    ------
    ValueError
        If there is no sample to train on, or ``external_indexing`` names a sample twice or one that is not there.
    """

    def __init__(
        self,
        adata_manager: MosaicManager,
        *,
        train_size: float = 0.9,
        validation_size: float | None = None,
        batch_size: int = 128,
        shuffle_set_split: bool = True,
        calibration_size: float = 0.0,
        external_indexing: Sequence[NDArray[np.integer]] | None = None,
        **data_loader_kwargs: Any,
    ) -> None:
        super().__init__()
        self.adata_manager = adata_manager
        self.batch_size = batch_size
        self.data_loader_kwargs = data_loader_kwargs
        cohort = adata_manager.cohort
        if external_indexing is not None:
            self.train_idx, self.val_idx, self.test_idx = _chosen_parts(external_indexing, cohort.present)
        else:
            self.train_idx, self.val_idx, self.test_idx = split_by_pattern(
                cohort.present, train_size, validation_size, seed=settings.seed or 0, shuffle=shuffle_set_split
            )
        self.train_idx, self.calibration_idx = _taken_out(
            self.train_idx, cohort.present, calibration_size, seed=settings.seed or 0, shuffle=shuffle_set_split
        )
        if len(self.train_idx) == 0:
            raise ValueError("no sample to train on: no sample has any of the registered modalities")
        self.n_train, self.n_val = len(self.train_idx), len(self.val_idx)

    def _loader(self, indices: NDArray[np.intp], shuffle: bool) -> DataLoader[Any] | list[Any]:
        if len(indices) == 0:
            return []
        trainer = self.trainer
        shared = shuffle and trainer is not None and trainer.training and trainer.world_size > 1
        return AnnDataLoader(
            self.adata_manager,
            indices=indices.tolist(),
            shuffle=shuffle,
            drop_last=False,
            batch_size=self.batch_size,
            **({"distributed_sampler": shared} | self.data_loader_kwargs),
        )

    def train_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Shuffled training batches; every training sample once an epoch, in distributed training in one process.

        There a sample or two is seen twice where the processes do not divide their number.
        """
        return self._loader(self.train_idx, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Validation batches, in order."""
        return self._loader(self.val_idx, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Test batches, in order."""
        return self._loader(self.test_idx, shuffle=False)


def _taken_out(
    train: NDArray[np.intp], present: NDArray[np.bool_], size: float, *, seed: int, shuffle: bool
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Training part without, and positions of, samples to calibrate on."""
    n = int(present.any(1).sum())
    share = size * n / max(len(train), 1)
    if size == 0 or len(train) == 0:
        return train, np.zeros(0, dtype=np.intp)
    if not 0 < share < 1:
        raise ValueError(
            f"calibration_size must leave samples to train on, got {size} of {n} with {len(train)} to train"
        )
    kept, taken, _ = split_by_pattern(present[train], 1 - share, share, seed=seed + 1, shuffle=shuffle)
    return train[kept], train[taken]


def _chosen_parts(
    parts: Sequence[NDArray[np.integer] | NDArray[np.bool_]], present: NDArray[np.bool_]
) -> list[NDArray[np.intp]]:
    """Three arrays of positions, without samples that have no assay at all."""
    n_obs = len(present)
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"external_indexing must be [train, validation, test], got {len(parts)} parts")
    found = []
    for part in map(np.asarray, parts):
        if part.dtype == bool and len(part) != n_obs:
            raise ValueError(f"external_indexing holds a mask of {len(part)} entries for {n_obs} samples")
        found.append(np.flatnonzero(part) if part.dtype == bool else part.astype(np.intp).reshape(-1))
    together = np.concatenate(found)
    if together.size and (together.min() < 0 or together.max() >= n_obs):
        raise ValueError(f"external_indexing must lie in 0..{n_obs - 1}, got {together.min()}..{together.max()}")
    repeated = np.flatnonzero(np.bincount(together, minlength=1) > 1)
    if len(repeated):
        raise ValueError(
            f"external_indexing names {len(repeated)} samples more than once, first position {repeated[0]}: "
            "a sample that is trained on cannot be held out"
        )
    found += [np.zeros(0, dtype=np.intp)] * (3 - len(found))
    return [part[present[part].any(1)] for part in found]
