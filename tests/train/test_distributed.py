"""Two processes train the model that one trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = """
import json, logging, sys, warnings

import scvi, torch
from lightning.pytorch import Callback

import omicvae

warnings.simplefilter("ignore")
torch.set_num_threads(1)
folder, processes, epochs, patience = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])


class Missing(Callback):
    n = 0

    def on_train_batch_start(self, trainer, plan, batch, batch_idx):
        self.n += min(len(rows) for rows in batch.rows.values()) == 0


mdata = omicvae.datasets.correlated_gaussian(
    400, modalities=("rna", "mirna"), n_vars=8, n_latent=2, missing={"mirna": 0.8}, seed=0
).mdata
omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"rna": "normal", "mirna": "normal"})
scvi.settings.seed = 0
model = omicvae.model.CoVAE(mdata, backbone="network", n_latent=2, network={"n_hidden": 16, "dropout": 0.0})
counter = Missing()
several = {"devices": processes, "strategy": "ddp"} if processes > 1 else {}
model.train(
    max_epochs=epochs, batch_size=(8 if patience > 50 else 64) // processes, calibration_size=0, accelerator="cpu", enable_progress_bar=False,
    early_stopping_patience=patience, early_stopping_warmup_epochs=0, callbacks=[counter],
    plan_kwargs={"lr": 2e-3} if patience > 50 else {"lr": 0.2, "lr_schedule": "constant"}, **several,
)
rank = model.trainer.global_rank
history = {name: [float(v) for v in curve.iloc[:, 0]] for name, curve in model.history.items()}
found = {"history": history, "without": int(counter.n), "prior": model.module.prior_covariance.tolist(),
         "epochs": model.trainer.current_epoch}
with open(f"{folder}/{processes}_{rank}.json", "w") as file:
    json.dump(found, file)
"""


def trained(folder: Path, processes: int, epochs: int, patience: int) -> list[dict]:
    """What each process found."""
    script = folder / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    arguments = [sys.executable, str(script), str(folder), str(processes), str(epochs), str(patience)]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{processes}_{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path):
    """Batches of 4 in each of two processes, many of them without any row of an assay, and batches of 8 in one.

    Samples meet in other batches, so that curves agree as those of two seeds do: within a few per cent at the end, where
    the learning rate has fallen to 0.
    """
    one, (first, second) = trained(tmp_path, 1, 10, 100)[0], trained(tmp_path, 2, 10, 100)
    assert first["without"] > 0 and second["without"] > 0
    for name in ("train_loss", "validation_loss", "elbo_validation"):
        alone, together = one["history"][name], first["history"][name]
        assert len(together) == 10
        assert together[-1] == pytest.approx(alone[-1], rel=0.05), name
    assert second["history"] == {}
    np.testing.assert_allclose(first["prior"], second["prior"], atol=1e-6)


@pytest.mark.slow
def test_two_processes_stop_early_together(tmp_path):
    first, second = trained(tmp_path, 2, 60, 3)
    assert first["epochs"] == second["epochs"] < 60
    assert len(first["history"]["validation_loss"]) == first["epochs"]
