"""How long training takes: beside a bare loop over the same module, beside other programs, and as data grow.

Run: python benchmarks/speed.py [--parts floor profile multivi mofa scaling gpu] [--epochs 10] [--mofa-python PATH] [--small]
     [--out docs/benchmarks/speed.csv] [--write docs/benchmarks]

One process on one thread. What is compared alternates epoch by epoch (other programs: a few epochs at a time), and ratios
are medians over pairs of neighbouring epochs, so that other work on the machine slows both sides alike. Processor time is
given beside wall time. The CSV records how many processes wanted the machine (``load``). What is in the CSV already is
not run again; the page is written from all of it.

Data: ``OMICVAE_DATA`` is the folder of public cohorts. mofapy2 needs an environment of its own, whose interpreter
``--mofa-python`` names. The part ``gpu`` is left out where there is none.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from datetime import date
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import speed_floor
import speed_page
import speed_peers
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse
from speed_page import DECODINGS

import omicvae

SIZES = ((50, 30), (3217, 383), (5000, 2000))
BATCHES = (128, 512)
N_OBS = 1280
SAMPLES, SAMPLE_SIZES = (1000, 2000, 4000, 8000, 16_000), (200, 100)
FEATURES, N_OF_FEATURES = (1000, 2000, 4000, 8000, 16_000), 640
CELLS, GPU_BATCHES = (10_000, 100_000, 1_000_000), (128, 512, 2048, 8192)
COLUMNS = (
    *("part", "model", "setting", "batch", "wall_ms", "cpu_ms", "peer_wall_ms", "peer_cpu_ms"),
    *("wall_ratio", "cpu_ratio", "pairs"),
)
MACHINE = ("processor", "python", "torch", "scvi-tools", "omicvae", "GPU", "date", "load")

Known = set[tuple[str, str, str, int]]
Rows = Iterator[dict[str, object]]


def row(part: str, model: str, setting: str, batch: int, pairs: np.ndarray, steps: int) -> dict[str, object]:
    """Milliseconds a step and ratios, from ``(pairs, 2, 2)`` seconds of an epoch: ours and the peer's, wall and CPU."""
    each = np.median(pairs, 0) / steps * 1e3
    ratio = np.median(pairs[:, 0] / pairs[:, 1], 0)
    values = (part, model, setting, batch, *each[0], *each[1], *ratio, len(pairs))
    return dict(zip(COLUMNS, values, strict=True))


def floor(n_settings: int, epochs: int, known: Known) -> Rows:
    """``train()`` and the pass-by-pass loop beside the bare loop, at the first so many sizes and batches."""
    for sizes, batch, name in product(SIZES[:n_settings], BATCHES[:n_settings], speed_floor.MODELS):
        setting = f"{sizes[0]}+{sizes[1]}"
        if ("floor", name, setting, batch) in known:
            continue
        n_obs = N_OBS if batch == 128 else 2 * N_OBS
        model = speed_floor.registered(speed_floor.simulated(n_obs, sizes), name)
        found, steps = speed_floor.epoch_times(model, batch, epochs, stacked=(True, False)), -(-n_obs // batch)
        yield row("floor", name, setting, batch, found[:, :2], steps)
        yield row("naive", name, setting, batch, found[:, [2, 1]], steps)


def profile(epochs: int, known: Known) -> Rows:
    """Shares of a step of CoVAE."""
    for sizes in (SIZES[0], SIZES[-1]):
        setting = f"{sizes[0]}+{sizes[1]}"
        if not any(k[0] == "profile" and k[2] == setting for k in known):
            for part, share in speed_floor.profile_shares(sizes, 128, epochs, N_OBS).items():
                yield {"part": "profile", "model": part, "setting": setting, "batch": 128, "cpu_ratio": share}


def multivi(epochs: int, known: Known) -> Rows:
    """MULTIVI, a step being an epoch."""
    if any(k[0] == "multivi" for k in known):
        return
    found, decodings = speed_peers.against_multivi(Path(os.environ["OMICVAE_DATA"]), max(epochs // 3, 2), rounds=2)
    for name, count in decodings.items():
        yield {"part": DECODINGS, "model": name, "setting": "MULTIVI", "batch": speed_peers.BATCH, "cpu_ratio": count}
    for name, peer in product(speed_floor.MODELS, speed_peers.MULTIVI):
        yield row("multivi", name, peer, speed_peers.BATCH, np.stack([found[name], found[peer]], 1), 1)


def mofa(python: Path | None, epochs: int, known: Known) -> Rows:
    """mofapy2, a step being a sweep over all samples, or an epoch."""
    if python is None or any(k[0] == "mofapy2" for k in known):
        return
    found = speed_peers.against_mofa(Path(os.environ["OMICVAE_DATA"]), python, epochs)
    own = np.median(found["CoVAE"].reshape(len(found["mofapy2"]), -1, 2), 1)
    yield row("mofapy2", "CoVAE", "BRCA", speed_peers.BATCH, np.stack([own, found["mofapy2"]], 1), 1)


def scaling(epochs: int, known: Known) -> Rows:
    """Time of an epoch as samples and features grow."""
    cases = [("samples", n, n, SAMPLE_SIZES) for n in SAMPLES]
    cases += [("features", p, N_OF_FEATURES, (p // 2, p - p // 2)) for p in FEATURES]
    for what, size, n_obs, sizes in cases:
        if (f"scaling {what}", "CoVAE", str(size), 128) not in known:
            model = speed_floor.registered(speed_floor.simulated(n_obs, sizes), "CoVAE")
            found = speed_floor.epoch_times(model, 128, max(epochs // 2, 3))
            yield row(f"scaling {what}", "CoVAE", str(size), 128, found, 1)


def cells(n_obs: int) -> MuData:
    """Sparse counts and 0/1 values of simulated cells, 2000 genes and 5000 peaks, 5 % of values not 0."""
    rng = np.random.default_rng(0)

    def block(p: int, most: int) -> AnnData:
        counts = sparse.random(n_obs, p, density=0.05, format="csr", dtype=np.float32, random_state=0)
        counts.data[:] = rng.integers(1, most + 1, counts.nnz)
        return AnnData(counts, obs=pd.DataFrame(index=np.arange(n_obs).astype(str)))

    return MuData({"rna": block(2000, 5), "atac": block(5000, 1)})


def gpu(epochs: int, known: Known) -> Rows:
    """Steps against the floor, and cells a second, where there is a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device, left out", file=sys.stderr)
        return
    on = {"accelerator": "gpu", "devices": 1}
    for sizes, batch in product(SIZES, BATCHES):
        setting = f"{sizes[0]}+{sizes[1]}"
        if ("gpu floor", "CoVAE", setting, batch) not in known:
            model = speed_floor.registered(speed_floor.simulated(10 * N_OBS, sizes), "CoVAE")
            found = speed_floor.epoch_times(model, batch, epochs, **on)
            yield row("gpu floor", "CoVAE", setting, batch, found, -(-10 * N_OBS // batch))
    for n_obs in CELLS:
        mdata = cells(n_obs)
        omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"rna": "nb", "atac": "bernoulli"})
        for batch in GPU_BATCHES:
            if ("gpu cells", "CoVAE", str(n_obs), batch) not in known:
                model, timer = omicvae.model.CoVAE(mdata, backbone="network"), speed_peers.Clock()
                settings = {"train_size": 1.0, "calibration_size": 0, **speed_floor.QUIET, **on}
                model.train(max_epochs=3, batch_size=batch, callbacks=[timer], **settings)
                yield row("gpu cells", "CoVAE", str(n_obs), batch, np.stack([timer.epochs] * 2, 1), 1)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    found = {"processor": f"{names[0]}, {len(names)} cores", "python": platform.python_version()}
    found |= {"torch": torch.__version__, "scvi-tools": scvi.__version__, "omicvae": omicvae.__version__}
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found | {"date": date.today().isoformat(), "load": f"{os.getloadavg()[0]:.1f}"}


def known_rows(out: Path) -> Known:
    """What is in the CSV already: part, model, setting and batch."""
    if not out.exists():
        return set()
    held = pd.read_csv(out, dtype={"setting": str})
    return set(zip(held["part"], held["model"], held["setting"], held["batch"].astype(int), strict=True))


def append(out: Path, found: dict[str, object]) -> None:
    """Add a row to the CSV, with the machine it was measured on, and show it."""
    one = pd.DataFrame([found | machine()]).reindex(columns=[*COLUMNS, *MACHINE])
    one.to_csv(out, mode="a", header=not out.exists(), index=False, float_format="%.4g")
    print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in found.items()), flush=True)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["floor", "profile", "multivi", "mofa", "scaling", "gpu"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--mofa-python", type=Path)
    parser.add_argument("--small", action="store_true", help="train() and the bare loop at one size, a few epochs")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/speed.csv"))
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    if arguments.small:
        arguments.parts, arguments.epochs = ["floor"], 4
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    measure = {
        "floor": partial(floor, 1 if arguments.small else len(SIZES)),
        "profile": profile,
        "multivi": multivi,
        "mofa": partial(mofa, arguments.mofa_python),
        "scaling": scaling,
        "gpu": gpu,
    }
    for part in arguments.parts:
        scvi.settings.seed = 0
        for found in measure[part](arguments.epochs, known_rows(arguments.out)):
            append(arguments.out, found)
    arguments.write.joinpath("speed.md").write_text(
        speed_page.page(pd.read_csv(arguments.out, dtype={"setting": str}), __doc__)
    )


if __name__ == "__main__":
    main()
