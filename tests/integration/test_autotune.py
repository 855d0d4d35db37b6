"""Models are tuned by scvi-tools' ``run_autotune`` as scvi-tools' own are."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scvi
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from mudata import MuData, read_h5mu

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus

NEEDED = ("ray", "hyperopt", "scib_metrics", "tensorboard")
METRIC = "validation_loss"


@pytest.fixture
def mdata() -> MuData:
    return correlated_gaussian(
        80, modalities=["rna", "meth", "prot"], n_latent=3, n_vars=8, likelihoods={"rna": "nb", "meth": "beta"},
        missing=0.3, n_batches=2, seed=5,
    ).mdata  # fmt: skip


class Report(Callback):
    """What ray's callback does: reads metrics after each validation."""

    def __init__(self) -> None:
        self.reported: list[float] = []

    def on_validation_end(self, trainer, pl_module) -> None:
        if not trainer.sanity_checking:
            self.reported.append(trainer.callback_metrics[METRIC].item())


@pytest.mark.parametrize("cls", [CoVAE, MMVAEPlusPlus])
def test_a_trial_is_set_up_trained_and_read_as_ray_does(
    cls: type[CoVAE | MMVAEPlusPlus], mdata: MuData, tmp_path: Path
) -> None:
    """A trial reads the data from a file, replays the setup that the registry holds, and passes these arguments."""
    cls.setup_mudata(mdata, likelihoods={"rna": "nb", "meth": "beta"}, batch_key="batch")
    manager = cls._get_most_recent_anndata_manager(mdata, required=True)
    method, arguments = manager._registry["setup_method_name"], manager._get_setup_method_args()["setup_args"]
    mdata.write_h5mu(tmp_path / "mydata.h5mu")
    quick = {"backbone": "network"} if cls is CoVAE else {}
    histories = []
    for logger in (TensorBoardLogger(tmp_path) if importlib.util.find_spec("tensorboard") else False, None):
        scvi.settings.seed = 0
        copied, report = read_h5mu(tmp_path / "mydata.h5mu"), Report()
        getattr(cls, method)(copied, **arguments)
        model = cls(copied, network={"n_hidden": 16, "n_layers": 1}, **quick)
        model.train(
            accelerator="cpu", devices="auto", check_val_every_n_epoch=1, enable_progress_bar=False, logger=logger,
            callbacks=[report], max_epochs=3, plan_kwargs={"lr": 1e-3}, batch_size=32,
        )  # fmt: skip
        histories.append(report.reported)
    assert len(histories[0]) == 3
    assert np.isfinite(histories[0]).all()
    np.testing.assert_allclose(histories[0], histories[1], rtol=1e-4)
    # scvi-tools keeps a history where its own logger is in use, as it is by default
    np.testing.assert_allclose(model.history[METRIC][METRIC].astype(float), histories[1], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(any(importlib.util.find_spec(name) is None for name in NEEDED), reason=f"needs {', '.join(NEEDED)}")
def test_run_autotune_finds_the_better_learning_rate(mdata: MuData, tmp_path: Path) -> None:
    from ray import tune
    from scvi.autotune import run_autotune

    CoVAE.setup_mudata(mdata, likelihoods={"rna": "nb", "meth": "beta"}, batch_key="batch")
    found = run_autotune(
        CoVAE, mdata, metrics=METRIC, mode="min", num_samples=1, scheduler="fifo", searcher="random",
        search_space={
            "model_params": {"network": {"n_hidden": 16, "n_layers": 1}, "backbone": "network"},
            "train_params": {
                "max_epochs": 3, "accelerator": "cpu", "plan_kwargs": {"lr": tune.grid_search([1e-7, 1e-2])},
            },
        },
        resources={"cpu": 1}, logging_dir=str(tmp_path), seed=0,
    )  # fmt: skip
    grid = found.result_grid
    assert not grid.errors
    assert len(grid) == 2
    best = grid.get_best_result(METRIC, "min")
    assert best.metrics[METRIC] == min(result.metrics[METRIC] for result in grid)
