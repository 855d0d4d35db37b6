"""Memory and speed as a cohort grows: training and latents from shards on disk, and from memory.

Run: python benchmarks/scale.py [--parts loader train steps] [--cells 10000 30000 100000] [--million] [--features]
     [--folder FOLDER] [--small] [--out docs/benchmarks/scale.csv] [--write docs/benchmarks]

Simulated cells with 2,000 counts (5 % not 0), 10,000 binary values (2 % not 0) and 500 dense values; a fifth of the cells lack
any one assay. They are written once by ``omicvae.data.write_shards`` to ``--folder`` (by default a temporary folder; a million
cells take about 2 GB), which is deleted in the end. Every figure comes from a process of its own, on one thread, which opens
the store and does one of three things. ``train``: train CoVAE (``backbone="network"``, no calibration, whose cost does not
depend on the number of cells; hidden layers as wide at every size as they are by default for a million cells) for one epoch,
and write the latents of all cells to a file, 10,000 at a time. ``loader``: go through the minibatches of an
epoch without doing anything with them. ``steps``: as ``train``, of the fewest cells from shards, for as many epochs as make the
200 minibatches that a million cells are trained for, because the peak is that of the largest of so many. Minibatches hold 512
cells.
Memory is the largest resident set of the process, libraries included. ``--million`` adds a million cells, from shards alone,
with the first 200 minibatches of the epoch and the latents of all cells. ``--features`` varies their features at 10,000 cells.
What is in the CSV already is not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from datetime import date
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import scale_page
import scvi
import torch
from anndata import AnnData
from lightning.pytorch.callbacks import Callback
from scipy import sparse

import omicvae
from omicvae.data._manager import registered_manager
from omicvae.nn import NetworkConfig

CELLS, MILLION = (10_000, 30_000, 100_000), 1_000_000
STEPS = 200  # of a million cells
PIECE = 10_000  # cells whose latents are in memory: all of a million take 366 MB
NETWORK = NetworkConfig(n_hidden=NetworkConfig().resolve(MILLION).n_hidden)  # by default narrower below 20,000 cells
FEATURES = (2000, 10_000, 500)
SHARES = (1 / 4, 1 / 2, 1, 2)
"""Of the features, with ``--features``."""
DENSITY = {"rna": 0.05, "atac": 0.02}
LACKING = 0.2
BATCH = 512
PARTS = ("loader", "train", "steps")
KEY = ["part", "source", "cells", "features"]


def simulated(n_obs: int, features: tuple[int, int, int]) -> mudata.MuData:
    """Cells whose assays follow one of eight types, in order of these; each assay is lacking in a fifth."""
    rng = np.random.default_rng(0)
    kind = np.sort(rng.integers(8, size=n_obs))
    names = np.char.add("cell_", np.arange(n_obs).astype(str)).astype(object)
    has = rng.random((n_obs, 3)) >= LACKING
    has[~has.any(1), 0] = True
    mods = {}
    for m, (name, p) in enumerate(zip(("rna", "atac", "protein"), features, strict=True)):
        rows = np.flatnonzero(has[:, m])
        values = _dense(rng, kind[rows], p) if name == "protein" else _sparse(rng, kind[rows], p, DENSITY[name])
        if name == "rna":
            values.data = rng.integers(1, 6, values.nnz).astype(np.float32)
        var = pd.DataFrame(index=[f"{name}_{j}" for j in range(p)])
        mods[name] = AnnData(values, obs=pd.DataFrame(index=names[rows]), var=var)
    return mudata.MuData(mods)


def _sparse(rng: np.random.Generator, kind: np.ndarray, p: int, density: float) -> sparse.csr_matrix:
    """One value in each stretch of features, in a half of it that depends on the type of the cell."""
    n, k = len(kind), int(p * density)
    width = p // k
    here = rng.integers(max(width // 2, 1), size=(n, k), dtype=np.int32)
    here += (np.arange(k, dtype=np.int32) + kind[:, None].astype(np.int32)) % 2 * (width // 2)
    columns = (np.arange(k, dtype=np.int32) * width + here).ravel()
    return sparse.csr_matrix((np.ones(n * k, np.float32), columns, np.arange(n + 1, dtype=np.int64) * k), (n, p))


def _dense(rng: np.random.Generator, kind: np.ndarray, p: int) -> np.ndarray:
    centres = rng.normal(size=(8, p)).astype(np.float32)
    values = rng.standard_normal((len(kind), p), dtype=np.float32)
    values += centres[kind]
    return values


class Clock(Callback):
    """Seconds of training epochs, without validation: wall, and of the processor."""

    def __init__(self) -> None:
        self.seconds = self._start = now()

    def on_train_epoch_start(self, *_: Any) -> None:
        """Begin."""
        self._start = now()

    def on_train_batch_end(self, *_: Any) -> None:
        """What has passed by now."""
        self.seconds = now() - self._start


def now() -> np.ndarray:
    """Wall and processor clocks, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


def write(path: Path, n_obs: int, features: tuple[int, int, int]) -> None:
    """Simulate and write shards."""
    mdata = simulated(n_obs, features)
    likelihoods = {"rna": "nb", "atac": "bernoulli", "protein": "normal"}
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=likelihoods)
    start = time.perf_counter()
    omicvae.data.write_shards(mdata, path)
    print(json.dumps({"write_s": time.perf_counter() - start}))


def measure(path: Path, source: str, part: str) -> None:
    """One figure, in this process."""
    torch.set_num_threads(1)
    scvi.settings.seed = 0
    mdata = omicvae.data.open_zarr(path) if source == "shards" else mudata.read_zarr(path)
    opened = peak()
    omicvae.model.CoVAE.setup_mudata(mdata)
    manager = registered_manager(mdata)
    if source == "shards":
        splitter = omicvae.data.ShardSplitter(mdata, batch_size=BATCH, calibration_size=0.0)
    else:
        splitter = omicvae.data.PatternSplitter(manager, batch_size=BATCH)
    found = {"n_train": splitter.n_train, "opened_mb": opened, "held_mb": resident()}
    if part == "loader":
        start = now()
        for _ in splitter.train_dataloader():
            pass
        seconds = {"epoch": now() - start}
    else:
        steps = STEPS if mdata.n_obs >= MILLION else None
        epochs = math.ceil(STEPS / len(splitter.train_dataloader())) if part == "steps" else 1
        model = omicvae.model.CoVAE(mdata, backbone="network", network=NETWORK)
        seconds = trained(model, splitter, steps, epochs, path.with_name("latents.float32"))
        found["n_train"] = min(splitter.n_train, (steps or splitter.n_train) * BATCH)
    found["peak_mb"] = peak()
    for name, (wall, cpu) in seconds.items():
        found |= {f"{name}_s": wall, f"{name}_cpu_s": cpu}
    print(json.dumps(found))


def trained(
    model: omicvae.model.CoVAE, splitter: omicvae.data.PatternSplitter, steps: int | None, epochs: int, latents: Path
) -> dict[str, np.ndarray]:
    """Seconds of the last epoch, or of so many steps, of all of ``train()``, and of latents."""
    clock, start = Clock(), now()
    few = {} if steps is None else {"limit_train_batches": steps, "limit_val_batches": steps}
    model.train(epochs, accelerator="cpu", enable_progress_bar=False, callbacks=[clock], datamodule=splitter, **few)
    done = now()
    with latents.open("wb") as file:
        for piece in np.array_split(np.arange(model.adata.n_obs), math.ceil(model.adata.n_obs / PIECE)):
            file.write(model.get_latent_representation(indices=piece, return_numpy=True, batch_size=BATCH).tobytes())
    return {"epoch": clock.seconds, "train": done - start, "latents": now() - done}


def peak() -> float:
    """Largest resident set of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def resident() -> float:
    """Resident set of this process now, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def run(*arguments: object) -> dict[str, float]:
    """One figure, from a process of its own."""
    environment = os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def one(arguments: list[str]) -> None:
    """What a process of its own does."""
    warnings.simplefilter("ignore")
    if arguments[0] == "write":
        n_obs, *features = map(int, arguments[2:])
        write(Path(arguments[1]), n_obs, tuple(features))
    else:
        measure(Path(arguments[1]), arguments[0], arguments[2])


def cases(cells: list[int], million: bool, features: bool) -> list[tuple[int, tuple[int, int, int], tuple[str, ...]]]:
    """Cells, features and sources."""
    found = [(n, FEATURES, ("shards", "memory")) for n in cells]
    if features:
        found += [(min(cells), tuple(int(s * p) for p in FEATURES), ("shards", "memory")) for s in SHARES if s != 1]
    return found + [(MILLION, FEATURES, ("shards",))] * million


def main() -> None:
    """Run what the CSV lacks, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--cells", type=int, nargs="+", default=list(CELLS))
    parser.add_argument("--million", action="store_true")
    parser.add_argument("--features", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--small", action="store_true", help="a thousand cells")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/scale.csv"))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    if options.small:
        options.cells, options.parts = [1000], ["loader", "train"]
    data = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame(columns=KEY)
    for n_obs, features, sources in cases(options.cells, options.million, options.features):
        known = set(data[KEY].itertuples(index=False, name=None))
        sizes = [(p, s) for p in options.parts for s in sources if p != "steps" or s == "shards"]
        wanted = [(p, s) for p, s in sizes if (p, s, n_obs, sum(features)) not in known]
        if n_obs > min(options.cells) or features != FEATURES:
            wanted = [(p, s) for p, s in wanted if p != "steps"]
        if not wanted:
            continue
        folder = Path(tempfile.mkdtemp(prefix="scale-", dir=options.folder))
        try:
            written = run("write", folder / "cells.zarr", n_obs, *features)
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / 2**20
            for part, source in wanted:
                row = {"part": part, "source": source, "cells": n_obs, "features": sum(features)}
                row |= (
                    run(source, folder / "cells.zarr", part) | written | {"disk_mb": size, "load": os.getloadavg()[0]}
                )
                row |= {"date": date.today().isoformat()}
                data = pd.concat([data, pd.DataFrame([row])], ignore_index=True)
                data.sort_values(KEY).to_csv(options.out, index=False, float_format="%.4g")
                print(row, file=sys.stderr)
        finally:
            shutil.rmtree(folder)
    if options.write:
        (options.write / "scale.md").write_text(scale_page.page(data, __doc__ or "", Path(__file__), sum(FEATURES)))


if __name__ == "__main__":
    main()
