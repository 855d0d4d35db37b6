"""Run every benchmark at a reduced size: do the scripts, their CSV files and their pages still work?

Run: python benchmarks/small.py [--out build/benchmarks] [--only correlation labels ...] [--jobs 2]

Every script runs with `--small` on one thread, two scripts at a time, and writes its CSV, page and figures into a folder that is
not committed. The numbers say nothing about the methods. Scripts that read cohorts are left out where OMICVAE_DATA is not set.
A new benchmark is a line in EXPERIMENTS.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
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


class Outcome(NamedTuple):
    """How a script ended."""

    name: str
    seconds: float
    error: str  # the end of what it printed, if it failed


def run(experiment: Experiment, folder: Path) -> Outcome:
    """Run one script, from nothing: what is in a CSV would not be run again."""
    csv = folder / f"{experiment.name}.csv"
    csv.unlink(missing_ok=True)
    command = [sys.executable, str(Path(__file__).with_name(f"{experiment.name}.py")), "--small"]
    command += ["--out", str(csv)] if experiment.has_csv else []
    start = time.perf_counter()
    found = subprocess.run(
        [*command, "--write", str(folder)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    seconds = time.perf_counter() - start
    printed = found.stdout[-1000:] + found.stderr[-3000:]
    return Outcome(experiment.name, seconds, (printed or "It printed nothing.") if found.returncode else "")


def main() -> None:
    """Run them; exit with an error if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--only", nargs="+", choices=[e.name for e in EXPERIMENTS], default=None)
    parser.add_argument("--jobs", type=int, default=2, help="scripts at a time")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    start, failed, wanted = time.perf_counter(), [], []
    for experiment in EXPERIMENTS:
        if arguments.only and experiment.name not in arguments.only:
            continue
        if experiment.needs_cohorts and "OMICVAE_DATA" not in os.environ:
            print(f"{experiment.name}: left out, because it reads cohorts and OMICVAE_DATA does not name their folder.")
            continue
        wanted.append(experiment)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for outcome in pool.map(lambda e: run(e, arguments.out), wanted):
            if outcome.error:
                failed.append(outcome.name)
                print(outcome.error)
            verdict = "failed" if outcome.error else "ran"
            print(f"{outcome.name}: {verdict} in {outcome.seconds:.0f} s.", flush=True)
    print(f"{(time.perf_counter() - start) / 60:.1f} minutes; pages are in {arguments.out}.")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}.")


if __name__ == "__main__":
    main()
