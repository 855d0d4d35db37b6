"""Training epochs beside epochs of a bare loop over the same module, for benchmarks/speed.py."""

from __future__ import annotations

import copy
import cProfile
import pstats
import time
from collections.abc import Iterator

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from mudata import MuData
from torch import Tensor

import omicvae
from omicvae.data import Batch, Cohort
from omicvae.module import MultimodalModule
from omicvae.train import MosaicPlan, clip_norm

MODELS = {
    "CoVAE": lambda mdata: omicvae.model.CoVAE(mdata, backbone="network"),
    "MMVAE++": lambda mdata: omicvae.model.MMVAEPlusPlus(mdata, screening=False),
}
WARM_UP = 2  # epochs left out
QUIET = {"enable_progress_bar": False, "enable_model_summary": False}
PARTS = {  # what a share of the profile is called -> (file, function) of which it is the cumulative time
    "encoders": ("_covae.py", "encode"),
    "passes: posterior, samples, divergences": ("_covae.py", "passes"),
    "decoders and likelihoods": ("module/_base.py", "log_likelihoods"),
    "metrics": ("module/_base.py", "_metrics"),
    "backward": ("_tensor.py", "backward"),
    "clipping": ("clip_grad.py", "clip_grad_norm_"),
    "AdamW": ("adam.py", "adam"),
    "minibatch": ("_cohort.py", "batch"),
    "update of Sigma": ("_plan.py", "on_train_batch_end"),
    "logging, once an epoch": ("_plan.py", "on_train_epoch_end"),
}


def clock() -> np.ndarray:
    """Wall and processor seconds."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return np.array([time.perf_counter(), time.process_time()])


def simulated(n_obs: int, sizes: tuple[int, int]) -> MuData:
    """Two complete continuous assays."""
    n_vars = {"rna": sizes[0], "mirna": sizes[1]}
    return omicvae.datasets.correlated_gaussian(n_obs, modalities=tuple(n_vars), n_vars=n_vars, seed=0).mdata


def registered(mdata: MuData, name: str) -> omicvae.model.CoVAE | omicvae.model.MMVAEPlusPlus:
    """An untrained model of continuous assays."""
    cls = omicvae.model.CoVAE if name == "CoVAE" else omicvae.model.MMVAEPlusPlus
    cls.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "normal"))
    return MODELS[name](mdata)


class Floor:
    """A bare loop: data resident, minibatches by ``index_select``, the same objective, optimiser, schedule and clipping.

    Of what ``train()`` does it leaves out metrics, history, callbacks and all of Lightning.

    Parameters
    ----------
    module
        Copied.
    cohort
        Samples that have all assays.
    batch_size
        Samples a minibatch.
    epochs
        Length of training.
    stacked
        ``False`` decodes pass by pass.
    """

    def __init__(
        self, module: MultimodalModule, cohort: Cohort, batch_size: int, epochs: int, *, stacked: bool = True
    ) -> None:
        self.module = copy.deepcopy(module).train()
        self.whole = cohort.batch(np.arange(len(cohort))).to(module.device)
        self.batch_size, self.stacked, self.step = batch_size, stacked, 0
        n_steps = epochs * -(-len(cohort) // batch_size)
        self.plan = MosaicPlan(self.module, total_steps=n_steps)
        made = self.plan.configure_optimizers()
        self.optimizer, self.schedule = made["optimizer"], made["lr_scheduler"]["scheduler"]
        self.limit = clip_norm(sum(m.n_vars for m in self.module.schema.modalities))

    def epoch(self) -> np.ndarray:
        """Wall and processor seconds of an epoch."""
        start = clock()
        for batch in self._batches():
            loss = self._loss(batch, self.step / self.plan.total_steps)
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), self.limit)
            self.optimizer.step()
            self.schedule.step()
            self.step += 1
            self.module.after_step(self.step)
        return clock() - start

    def _batches(self) -> Iterator[Batch]:
        whole, device = self.whole, self.whole.present.device
        for rows in torch.randperm(whole.n_samples, device=device).split(self.batch_size):
            position = torch.arange(len(rows), device=device)
            yield whole._replace(
                x={m: x.index_select(0, rows) for m, x in whole.x.items()},
                size={m: s.index_select(0, rows) for m, s in whole.size.items()},
                rows=dict.fromkeys(whole.rows, position),
                present=whole.present.index_select(0, rows),
                continuous=whole.continuous.index_select(0, rows),
                labels=whole.labels.index_select(0, rows),
            )

    def _loss(self, batch: Batch, progress: float) -> Tensor:
        passes = self.module.passes(self.module.encode(batch), batch, progress)
        if self.stacked:
            found = self.module.log_likelihoods(passes, batch)
        else:
            found = [self.module.log_likelihoods([one], batch)[0] for one in passes]
        return -self.module.reduce(passes, found, 1.0).mean()


class Alternating(Callback):
    """After every epoch of ``train()`` an epoch of each bare loop, so that all see the same machine.

    Parameters
    ----------
    cohort, batch_size, epochs
        Of :class:`Floor`.
    stacked
        One bare loop for each.
    """

    def __init__(self, cohort: Cohort, batch_size: int, epochs: int, stacked: tuple[bool, ...] = (True,)) -> None:
        self._make = lambda module, s: Floor(module, cohort, batch_size, epochs, stacked=s)
        self._stacked = stacked
        self._floors: list[Floor] = []
        self._mark: np.ndarray | None = None
        self.seconds: list[np.ndarray] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch before, time the floors, open the next."""
        if self._mark is None:
            self._floors = [self._make(pl_module.module, s) for s in self._stacked]
        else:
            own = clock() - self._mark
            self.seconds.append(np.stack([own, *(floor.epoch() for floor in self._floors)]))
        self._mark = clock()


def epoch_times(
    model: omicvae.model.CoVAE | omicvae.model.MMVAEPlusPlus,
    batch_size: int,
    epochs: int,
    stacked: tuple[bool, ...] = (True,),
    **train: object,
) -> np.ndarray:
    """``(epochs, 1 + loops, 2)`` seconds of each epoch: of ``train()`` and of each bare loop; wall and processor."""
    timer = Alternating(model.adata_manager.cohort, batch_size, epochs + WARM_UP + 1, stacked)
    settings = {"train_size": 1.0, "calibration_size": 0, **QUIET, **train}
    model.train(max_epochs=epochs + WARM_UP + 1, batch_size=batch_size, callbacks=[timer], **settings)
    return np.stack(timer.seconds[WARM_UP:])


class Profiling(Callback):
    """cProfile over all epochs but the first."""

    def __init__(self) -> None:
        self.profile = cProfile.Profile()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start in the second epoch."""
        if trainer.current_epoch == 1:
            self.profile.enable()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop."""
        self.profile.disable()


def profile_shares(sizes: tuple[int, int], batch_size: int, epochs: int, n_obs: int) -> dict[str, float]:
    """Share of the time of CoVAE's epochs spent in each part of a step; what is left is Lightning and Python."""
    model, timer = registered(simulated(n_obs, sizes), "CoVAE"), Profiling()
    model.train(
        max_epochs=epochs, batch_size=batch_size, train_size=1.0, calibration_size=0, callbacks=[timer], **QUIET
    )
    stats = pstats.Stats(timer.profile)
    spent = dict.fromkeys(PARTS, 0.0)
    for (file, _, function), (_, _, _, cumulative, _) in stats.stats.items():
        for part, (where, name) in PARTS.items():
            if function == name and file.endswith(where):
                spent[part] += cumulative
    total = next(
        s[3] for (file, _, name), s in stats.stats.items() if name == "advance" and file.endswith("fit_loop.py")
    )
    shares = {part: seconds / total for part, seconds in spent.items()}
    return shares | {"everything else: Lightning, Python": 1 - sum(shares.values())}
