"""Run every benchmark at a reduced size: do the scripts, their CSV files and their pages still work?

Run: python benchmarks/small.py [--out build/benchmarks] [--only correlation labels ...]

Every script runs with `--small`, one after the other on one thread, and writes its CSV, page and figures into a folder that is
not committed. The numbers say nothing about the methods. Scripts that read cohorts are left out where OMICVAE_DATA is not set.
A new benchmark is a line in EXPERIMENTS.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple


class Experiment(NamedTuple):
    """A script beside this one, which takes ``--small``, ``--out`` (its CSV) and ``--write`` (a folder)."""

    name: str
    needs_cohorts: bool = False
    has_csv: bool = True  # whether it takes --out


EXPERIMENTS = (
    Experiment("association", has_csv=False),
    Experiment("correlation"),
    Experiment("correlated_mnist"),
    Experiment("private_variation"),
    Experiment("speed"),
    Experiment("scale"),
    Experiment("imputation", needs_cohorts=True),
    Experiment("mosaic", needs_cohorts=True),
    Experiment("labels", needs_cohorts=True),
    Experiment("pancancer", needs_cohorts=True),
)


def run(experiment: Experiment, folder: Path) -> bool:
    """Whether a script ran through; the end of what it printed is shown if it did not."""
    csv = folder / f"{experiment.name}.csv"
    csv.unlink(missing_ok=True)  # what is in it would not be run again
    command = [sys.executable, str(Path(__file__).with_name(f"{experiment.name}.py")), "--small"]
    command += ["--out", str(csv)] if experiment.has_csv else []
    found = subprocess.run(
        [*command, "--write", str(folder)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    if found.returncode:
        print(found.stdout[-1000:] + found.stderr[-3000:])
    return found.returncode == 0


def main() -> None:
    """Run them; exit with an error if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--only", nargs="+", choices=[e.name for e in EXPERIMENTS], default=None)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start, failed = time.perf_counter(), []
    for experiment in EXPERIMENTS:
        if arguments.only and experiment.name not in arguments.only:
            continue
        if experiment.needs_cohorts and "OMICVAE_DATA" not in os.environ:
            print(f"{experiment.name}: left out, because it reads cohorts and OMICVAE_DATA does not name their folder.")
            continue
        began = time.perf_counter()
        if not run(experiment, arguments.out):
            failed.append(experiment.name)
        verdict = "failed" if experiment.name in failed else "ran"
        print(f"{experiment.name}: {verdict} in {time.perf_counter() - began:.0f} s.", flush=True)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; pages are in {arguments.out}.")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
