"""Whether training data are kept on the device that trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from lightning.pytorch import LightningDataModule
from scvi.model._utils import parse_device_args

from omicvae.data import PatternSplitter, ShardSplitter

SHARE_OF_MEMORY = 0.5  # of the free memory of a device that data may take


def device_cache(
    splitter: LightningDataModule,
    wanted: bool | Literal["auto"],
    accelerator: str,
    devices: int | list[int] | str,
) -> AbstractContextManager[None]:
    """A context in which training batches come from a copy of the data on the training device, if there is to be one.

    Raises
    ------
    ValueError
        If a copy is asked for and cannot be: data on disk, several devices, or a data module of the user's own.
    """
    if not isinstance(wanted, bool) and wanted != "auto":
        raise ValueError(f"device_cache must be True, False or 'auto', got {wanted!r}")
    _, found, device = parse_device_args(accelerator=accelerator, devices=devices, return_device="torch")
    if wanted is False or device.type == "cpu":  # values in memory are where the CPU wants them
        return nullcontext()
    several = (isinstance(found, list) and len(found) > 1) or (isinstance(found, int) and found > 1)
    manager = None
    if isinstance(splitter, PatternSplitter) and not isinstance(splitter, ShardSplitter):
        manager = splitter.adata_manager
    size = None if manager is None else manager.cohort.n_bytes
    if several or manager is None or size is None:
        if wanted == "auto":
            return nullcontext()
        why = "some values are read from disk" if manager is not None else "datamodule is given"
        why = "training uses several devices" if several else why
        raise ValueError(f"device_cache=True needs values in memory and one device, but {why}; use device_cache='auto'")
    if wanted == "auto" and not fits(size, device):
        return nullcontext()
    return manager.resident(device)


def fits(n_bytes: int, device: torch.device) -> bool:
    """Whether data take at most half of what is free on a CUDA device; never on others, which do not say."""
    return device.type == "cuda" and n_bytes <= SHARE_OF_MEMORY * torch.cuda.mem_get_info(device)[0]
