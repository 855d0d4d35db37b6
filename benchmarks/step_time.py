"""Time a step of ``model.train()`` beside a bare loop over the same module, optimiser and resident minibatches.

Run: python benchmarks/step_time.py [--epochs 12] [--threads 1]

Both run in one process on the same simulated samples; epochs of the two alternate in blocks, and the least time a step
over blocks is reported, which is what remains when other work on the machine does not interfere.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Callback

import omicvae
from omicvae.train import MosaicPlan, clip_norm

SIZES = ((50, 30), (3217, 383), (5000, 2000))
BATCH, N_OBS = 128, 1280


def model_on(sizes: tuple[int, int], cls: type) -> omicvae.model.CoVAE | omicvae.model.MMVAEPlusPlus:
    """A registered model on simulated continuous data."""
    n_vars = {"rna": sizes[0], "mirna": sizes[1]}
    mdata = omicvae.datasets.correlated_gaussian(N_OBS, modalities=("rna", "mirna"), n_vars=n_vars, seed=0).mdata
    cls.setup_mudata(mdata, likelihoods=dict.fromkeys(n_vars, "normal"))
    return cls(mdata)


def trained(model: omicvae.model.CoVAE, epochs: int) -> float:
    """Milliseconds a step of ``model.train()`` without validation, from the wall clock of its epochs."""
    marks: list[float] = []

    class Clock(Callback):
        def on_train_epoch_start(self, *args: object) -> None:
            marks.append(time.perf_counter())

        def on_train_end(self, *args: object) -> None:
            marks.append(time.perf_counter())

    model.train(max_epochs=epochs, batch_size=BATCH, train_size=1.0, enable_progress_bar=False, callbacks=[Clock()])
    return float(np.min(np.diff(marks))) / (N_OBS // BATCH) * 1e3


def bare(model: omicvae.model.CoVAE, epochs: int) -> float:
    """Milliseconds a step of a plain loop: resident minibatches, same module, optimiser, clipping and updates."""
    cohort = model.adata_manager.cohort
    batches = [cohort.batch(np.arange(i, i + BATCH)) for i in range(0, N_OBS, BATCH)]
    module = model.module.train()
    plan = MosaicPlan(module, total_steps=epochs * len(batches))
    optimizer = plan.configure_optimizers()["optimizer"]
    limit = clip_norm(sum(m.n_vars for m in model.schema.modalities))
    times = []
    for epoch in range(epochs):
        start = time.perf_counter()
        for i, batch in enumerate(batches):
            step = module.objective(batch, kl_weight=1.0, progress=(epoch * len(batches) + i) / plan.total_steps)
            optimizer.zero_grad()
            step.loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), limit)
            optimizer.step()
            module.after_step(epoch * len(batches) + i)
        times.append(time.perf_counter() - start)
    return min(times) / len(batches) * 1e3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    rows = []
    for cls in (omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus):
        for sizes in SIZES:
            model = model_on(sizes, cls)
            best = {"train": np.inf, "bare": np.inf}
            for _ in range(2):
                best["train"] = min(best["train"], trained(model, arguments.epochs))
                best["bare"] = min(best["bare"], bare(model, arguments.epochs))
            rows.append(
                {"model": cls.__name__, "features": f"{sizes[0]}+{sizes[1]}", "train ms": best["train"],
                 "bare ms": best["bare"], "ratio": best["train"] / best["bare"]}
            )  # fmt: skip
            print(pd.DataFrame(rows[-1:]).round(2).to_string(index=False, header=len(rows) == 1), flush=True)


if __name__ == "__main__":
    main()
