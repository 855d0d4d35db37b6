"""Samples cut into runs that a file can give at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from omicvae.data._cohort import Cohort

Positions = NDArray[np.intp]

BLOCK = 32  # samples that stay together when windows are filled: files are not read row by row


def by_pattern(cohort: Cohort, positions: Positions) -> Iterator[Positions]:
    """Samples of one pattern of measured assays after another, each in the order of their rows in the files.

    Patterns with the first modality come first, then of the others those with the second, and so on: the order in which
    a MuData lists samples. Those without any assay are left out.
    """
    patterns, group = np.unique(cohort.present[positions], axis=0, return_inverse=True)
    for k in range(len(patterns))[::-1]:
        if patterns[k].any():
            members = positions[group.reshape(-1) == k]
            yield members[np.argsort(cohort.stored_rows(members, int(np.argmax(patterns[k]))), kind="stable")]


def cut(members: Positions, length: int) -> list[Positions]:
    """Consecutive pieces of at most ``length``."""
    return [members[start : start + length] for start in range(0, len(members), length)]


def runs_of(cohort: Cohort, positions: Positions, length: int) -> list[Positions]:
    """Samples in runs of one pattern and at most ``length``, which follow one another in the files as far as may be.

    Every sample that has any assay is in exactly one run.
    """
    return [run for members in by_pattern(cohort, positions) for run in cut(members, length)]


def mixed_windows(cohort: Cohort, length: int, seed: int) -> Iterator[Positions]:
    """All samples in an order for writing, ``length`` at a time; each window is a random part of one pattern."""
    rng = np.random.default_rng(seed)
    for members in by_pattern(cohort, np.arange(len(cohort))):
        blocks = cut(members, BLOCK)
        drawn = np.concatenate([blocks[k] for k in rng.permutation(len(blocks))])
        for window in cut(drawn, length):
            yield rng.permutation(window)
