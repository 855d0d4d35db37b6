"""What every benchmark page says about the run, and how its tables are written."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

PACKAGES = ("omicvae", "torch", "scvi-tools", "scikit-learn", "numpy")


def intro(docstring: str, title: str) -> str:
    """Title, command and text of a script's docstring."""
    lines = docstring.strip().splitlines()
    body = "\n".join(lines[2:])
    command, _, text = body.partition("\n\n")
    command = " ".join(part.strip() for part in command.removeprefix("Run: ").splitlines())
    return f"# {title}\n\nWritten by `{command}`.\n\n{text}\n"


def provenance(script: Path, hours: float, clock: str = "processor", seeds: Iterable[int] | None = None) -> str:
    """Machine, date, versions and time, wall or processor time; seeds where the page does not name them elsewhere."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = named[0].partition(":")[2].strip() if named else model
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES)
    today = datetime.date.today().isoformat()
    return (
        f"Page written on {today} by `{script.name}`; {versions}; Python {platform.python_version()}; one thread of "
        f"{model}; {hours:.2f} hours of {clock} time for what is in the CSV"
        + ("" if seeds is None else f"; seeds {', '.join(map(str, sorted(set(seeds))))}")
        + ".\n"
    )


def markdown(table: pd.DataFrame, corner: str = "method") -> str:
    """A table of texts, its index first."""
    header = [corner, *(str(column).replace("|", "\\|") for column in table.columns)]
    rows = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    rows += [
        f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(table.index, table.values, strict=True)
    ]
    return "\n".join(rows) + "\n"


def spread(values: pd.Series, digits: int = 3, centre: str = "mean") -> str:
    """Centre and sd over seeds; the value alone for one seed."""
    middle = values.mean() if centre == "mean" else values.median()
    return f"{middle:.{digits}f}" + (f" ± {values.std():.{digits}f}" if len(values) > 1 else "")
