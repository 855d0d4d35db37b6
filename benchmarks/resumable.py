"""What resumable benchmarks share: quiet, one thread, rows that the CSV has already, rows that are added to it."""

from __future__ import annotations

import logging
import subprocess
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import torch

import omicvae

CHATTY = ("omicvae", "lightning.pytorch", "lightning.pytorch.utilities.rank_zero")


def begin(csv: Path, columns: Sequence[str]) -> set[tuple]:
    """Silence logs and warnings, use one thread, and return the values of ``columns`` in rows that are not run again."""
    warnings.simplefilter("ignore")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.set_num_threads(1)
    if not csv.exists():
        return set()
    return set(pd.read_csv(csv)[list(columns)].itertuples(index=False, name=None))


def commit() -> str:
    """Of the code that runs."""
    here = Path(__file__).parent
    found = subprocess.run(["git", "rev-parse", "--short=7", "HEAD"], cwd=here, capture_output=True, text=True)
    return found.stdout.strip() or omicvae.__version__


def append(csv: Path, row: Mapping[str, object], columns: Sequence[str]) -> None:
    """Add a row to the CSV, and print it."""
    frame = pd.DataFrame([row]).reindex(columns=list(columns))
    frame.to_csv(csv, mode="a", header=not csv.exists(), index=False, float_format="%.5f")
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)
