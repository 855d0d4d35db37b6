"""How long to train, from the number of samples."""

from __future__ import annotations

import math
from typing import NamedTuple

LEAST_EPOCHS, MOST_EPOCHS = 10, 300


class Budget(NamedTuple):
    """Minibatch size, length of training and learning rate."""

    batch_size: int
    max_epochs: int
    lr: float


def training_budget(n_train: int, batch_size: int | None = None) -> Budget:
    """Sensible defaults for 80 to 1e6 training samples.

    scvi-tools' ``min(400, 400 * 20000 / n)`` epochs are 1600 updates for 500 samples and 62 000 for a million. Here the
    number of *updates* is set: about 1200 for a hundred samples, growing slowly with their number.

    Parameters
    ----------
    n_train
        Training samples.
    batch_size
        Given by the user, or ``None``: 64 below 500 samples, 128 to 20 000, 512 beyond.
    """
    size = batch_size or (64 if n_train < 500 else 128 if n_train < 20_000 else 512)
    steps = 1200 * max(1.0, n_train / 500) ** 0.25
    per_epoch = max(1, math.ceil(n_train / size))
    lr = 5e-4 if n_train < 1_000 else 1e-3 if n_train < 3_000 else 2e-3
    return Budget(size, int(min(MOST_EPOCHS, max(LEAST_EPOCHS, round(steps / per_epoch)))), lr)
