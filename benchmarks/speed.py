"""How long training takes: beside a bare loop over the same module, beside other programs, and as data grow.

Run: python benchmarks/speed.py [--parts floor profile peers scaling gpu] [--epochs 10] [--mofa-python PATH]
     [--out docs/benchmarks/speed.csv] [--write docs/benchmarks]

One process on one thread. What is compared alternates epoch by epoch (other programs: a few epochs at a time), and ratios
are medians over pairs of neighbouring epochs, so that other work on the machine slows both sides alike. Processor time is
given beside wall time. Parts that are run replace their rows in the CSV; the page is written from all of it.

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
from datetime import date
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


def row(part: str, model: str, setting: str, batch: int, pairs: np.ndarray, steps: int) -> dict[str, object]:
    """Milliseconds a step and ratios, from ``(pairs, 2, 2)`` seconds of an epoch: ours and the peer's, wall and CPU."""
    each = np.median(pairs, 0) / steps * 1e3
    ratio = np.median(pairs[:, 0] / pairs[:, 1], 0)
    values = (part, model, setting, batch, *each[0], *each[1], *ratio, len(pairs))
    return dict(zip(COLUMNS, values, strict=True))


def floor(epochs: int) -> list[dict[str, object]]:
    """``train()`` and the pass-by-pass loop beside the bare loop."""
    rows = []
    for name in speed_floor.MODELS:
        for sizes in SIZES:
            for batch in BATCHES:
                n_obs = N_OBS if batch == 128 else 2 * N_OBS
                model = speed_floor.registered(speed_floor.simulated(n_obs, sizes), name)
                found = speed_floor.epoch_times(model, batch, epochs, stacked=(True, False))
                setting, steps = f"{sizes[0]}+{sizes[1]}", -(-n_obs // batch)
                rows.append(row("floor", name, setting, batch, found[:, :2], steps))
                rows.append(row("naive", name, setting, batch, found[:, [2, 1]], steps))
                report(rows[-2:])
    return rows


def profile(epochs: int) -> list[dict[str, object]]:
    """Shares of a step of CoVAE."""
    rows = []
    for sizes in (SIZES[0], SIZES[-1]):
        for part, share in speed_floor.profile_shares(sizes, 128, epochs, N_OBS).items():
            rows.append({"part": "profile", "model": part, "setting": f"{sizes[0]}+{sizes[1]}", "cpu_ratio": share})
    report(rows)
    return rows


def peers(epochs: int, mofa_python: Path | None) -> list[dict[str, object]]:
    """MULTIVI and mofapy2, a step being an epoch."""
    data, rows = Path(os.environ["OMICVAE_DATA"]), []
    found = speed_peers.against_multivi(data, max(epochs // 3, 2), rounds=3)
    for name in ("CoVAE", "MMVAE++"):
        pairs = np.stack([found[name], found["MULTIVI"]], 1)
        rows.append(row("multivi", name, "SNARE-seq", speed_peers.BATCH, pairs, 1))
    if mofa_python is not None:
        found = speed_peers.against_mofa(data, mofa_python, epochs)
        own = found["CoVAE"].reshape(len(found["mofapy2"]), -1, 2)
        rows.append(
            row("mofapy2", "CoVAE", "BRCA", speed_peers.BATCH, np.stack([np.median(own, 1), found["mofapy2"]], 1), 1)
        )
    report(rows)
    return rows


def scaling(epochs: int) -> list[dict[str, object]]:
    """Time of an epoch as samples and features grow."""
    rows = []
    cases = [("samples", n, n, SAMPLE_SIZES) for n in SAMPLES]
    cases += [("features", p, N_OF_FEATURES, (p // 2, p - p // 2)) for p in FEATURES]
    for what, size, n_obs, sizes in cases:
        model = speed_floor.registered(speed_floor.simulated(n_obs, sizes), "CoVAE")
        found = speed_floor.epoch_times(model, 128, max(epochs // 2, 3))
        rows.append(row(f"scaling {what}", "CoVAE", str(size), 128, found, 1))
        report(rows[-1:])
    return rows


def cells(n_obs: int) -> MuData:
    """Sparse counts and 0/1 values of simulated cells, 2000 genes and 5000 peaks, 5 % of values not 0."""
    rng = np.random.default_rng(0)

    def block(p: int, most: int) -> AnnData:
        counts = sparse.random(n_obs, p, density=0.05, format="csr", dtype=np.float32, random_state=0)
        counts.data[:] = rng.integers(1, most + 1, counts.nnz)
        return AnnData(counts, obs=pd.DataFrame(index=np.arange(n_obs).astype(str)))

    return MuData({"rna": block(2000, 5), "atac": block(5000, 1)})


def gpu(epochs: int) -> list[dict[str, object]]:
    """Steps against the floor, and cells a second, where there is a CUDA device."""
    if not torch.cuda.is_available():
        print("gpu: no CUDA device, left out", file=sys.stderr)
        return []
    rows = []
    for sizes in SIZES:
        for batch in BATCHES:
            model = speed_floor.registered(speed_floor.simulated(10 * N_OBS, sizes), "CoVAE")
            found = speed_floor.epoch_times(model, batch, epochs, accelerator="gpu", devices=1)
            setting, steps = f"{sizes[0]}+{sizes[1]}", -(-10 * N_OBS // batch)
            rows.append(row("gpu floor", "CoVAE", setting, batch, found, steps))
    for n_obs in CELLS:
        mdata = cells(n_obs)
        omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"rna": "nb", "atac": "bernoulli"})
        for batch in GPU_BATCHES:
            model, timer = omicvae.model.CoVAE(mdata, backbone="network"), speed_peers.Clock()
            model.train(
                max_epochs=3, batch_size=batch, train_size=1.0, calibration_size=0, accelerator="gpu", devices=1,
                callbacks=[timer], **speed_floor.QUIET,
            )  # fmt: skip
            rows.append(row("gpu cells", "CoVAE", str(n_obs), batch, np.stack([timer.epochs] * 2, 1), 1))
    report(rows)
    return rows


def report(rows: list[dict[str, object]]) -> None:
    """Rows on the terminal."""
    print(pd.DataFrame(rows).round(3).to_string(index=False), flush=True)


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    found = {"processor": f"{names[0]}, {len(names)} cores", "python": platform.python_version()}
    found |= {"torch": torch.__version__, "scvi-tools": scvi.__version__, "omicvae": omicvae.__version__}
    if torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name()
    return found | {"date": date.today().isoformat()}


def merged(out: Path, rows: list[dict[str, object]]) -> pd.DataFrame:
    """The CSV with the parts of these rows replaced."""
    new = pd.DataFrame(rows).reindex(columns=list(COLUMNS) + list(machine()))
    for name, value in machine().items():
        new[name] = value
    if out.exists():
        old = pd.read_csv(out)
        new = pd.concat([old[~old["part"].isin(new["part"])], new], ignore_index=True)
    return new


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=["floor", "profile", "peers", "scaling", "gpu"])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--mofa-python", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/speed.csv"))
    parser.add_argument("--write", type=Path, default=Path("docs/benchmarks"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda"):
        logging.getLogger(name).setLevel(logging.ERROR)
    measure = {
        "floor": lambda: floor(arguments.epochs),
        "profile": lambda: profile(arguments.epochs),
        "peers": lambda: peers(arguments.epochs, arguments.mofa_python),
        "scaling": lambda: scaling(arguments.epochs),
        "gpu": lambda: gpu(arguments.epochs),
    }
    for part in arguments.parts:
        scvi.settings.seed = 0
        rows = measure[part]()
        if rows:
            merged(arguments.out, rows).to_csv(arguments.out, index=False, float_format="%.4g")
    arguments.write.joinpath("speed.md").write_text(
        speed_page.page(pd.read_csv(arguments.out, dtype={"setting": str}), __doc__)
    )


if __name__ == "__main__":
    main()
