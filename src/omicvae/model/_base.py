"""What every model class has in common: training."""

from __future__ import annotations

import logging
import math
import os
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from mudata import MuData
from numpy.typing import NDArray
from scvi.train import TrainRunner

from omicvae.data import MosaicManager, PatternSplitter, ShardSplitter
from omicvae.data._shard_setup import SHARDS
from omicvae.model._device_cache import device_cache as device_cache_of
from omicvae.model._registered import RegisteredModel
from omicvae.model._resume import describe_run, open_checkpoints
from omicvae.model._sizes import whole_number
from omicvae.model._trainer_settings import n_processes, trainer_settings
from omicvae.model._training_record import TrainingRecord
from omicvae.stats.conformal import LEAST_SCORES
from omicvae.train import BestWeights, Budget, Checkpoints, MosaicPlan, PlainCheckpointIO, training_budget

logger = logging.getLogger("omicvae")

CALIBRATION_SHARE, MOST_CALIBRATION = 0.1, 0.2


class MultimodalModel(RegisteredModel):
    """Base of all models over MuData whose samples may lack whole assays.

    Parameters
    ----------
    mdata
        MuData registered with ``setup_mudata``.
    registry
        Registry of a saved model, to build it without data.
    """

    def __init__(self, mdata: MuData | None = None, registry: dict[str, Any] | None = None) -> None:
        super().__init__(mdata, registry)
        self.calibration_indices_: NDArray[np.intp] | None = None
        self._asked_epochs: int | None = None
        self.training_ = TrainingRecord()
        self.best_epoch_: int | None = None  # position in the history of the epoch whose weights are kept

    def train(
        self,
        max_epochs: int | None = None,
        *,
        batch_size: int | str = "auto",
        train_size: float = 0.9,
        validation_size: float | None = None,
        calibration_size: float | str = "auto",
        shuffle_set_split: bool = True,
        early_stopping: bool = True,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        device_cache: bool | Literal["auto"] = "auto",
        datamodule: PatternSplitter | None = None,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        plan_kwargs: Mapping[str, Any] | None = None,
        checkpoint_dir: str | os.PathLike[str] | None = None,
        resume: bool = False,
        **trainer_kwargs: Any,
    ) -> None:
        """Train the model.

        Scales, frequencies and library sizes are read off training samples only (65,536 of them at random, where there are
        more). The weights of the epoch with the
        best validation loss are kept.

        Parameters
        ----------
        max_epochs
            Passes over the training samples; chosen from their number by default
            (:func:`omicvae.train.training_budget`).
        batch_size
            Samples a minibatch, or ``"auto"``.
        train_size, validation_size
            Shares of samples; the split keeps the mix of presence patterns. What is left over is the test part.
        calibration_size
            Share of samples, taken out of the training part, that neither training nor early stopping sees: on them
            intervals are calibrated and trust is measured. ``"auto"`` is a tenth, or what makes 50 samples, up to a
            fifth.
        shuffle_set_split
            Whether to shuffle before splitting.
        early_stopping
            Stop when the validation loss has not improved for a quarter of ``max_epochs``; counted from the second half
            of training, when the objective has its final form.
        accelerator, devices
            As in scvi-tools. With ``devices=2, strategy="ddp"`` two processes share the samples of every epoch, each in
            minibatches of ``batch_size``; both end with the same model, the first with the history.
        device_cache
            Whether training data are copied to a GPU once, sparse values as sparse; ``"auto"``: if they take at most half
            of its free memory. Otherwise every minibatch is sent. On a CPU there is nothing to copy.
        datamodule
            What splits and reads the data instead of the arguments above: :class:`omicvae.data.ShardSplitter` for data
            larger than memory, or a :class:`omicvae.data.PatternSplitter` of your own.
        datasplitter_kwargs
            Passed to :class:`omicvae.data.PatternSplitter`, for example ``external_indexing``.
        plan_kwargs
            Passed to :class:`omicvae.train.MosaicPlan`, for example ``lr``.
        checkpoint_dir
            Folder to which training writes how far it has come, after epochs; nothing is written by default. It is
            data, and reading it executes nothing.
        resume
            Go on with the run in ``checkpoint_dir``, or start it if the folder is empty. With the same data, arguments
            and ``scvi.settings.seed`` on the same machine, the result is that of a run that was never interrupted.
            Preparation before the first epoch is done again.
        **trainer_kwargs
            Passed to :class:`scvi.train.Trainer`, for example ``precision="bf16-mixed"``: networks then compute in
            bfloat16; latents, likelihoods and divergences stay in float32.

        Raises
        ------
        FloatingPointError
            If the loss is not finite before anything was learned.
        FileExistsError
            If ``checkpoint_dir`` holds a run and ``resume`` is false.
        ValueError
            If it holds another run or is damaged, or for impossible arguments.
        """
        if max_epochs is not None:
            max_epochs = whole_number("max_epochs", max_epochs)
        processes = n_processes(
            trainer_kwargs.get("strategy"), accelerator, devices, trainer_kwargs.get("num_nodes", 1)
        )
        if datamodule is None:
            splitter = self._splitter(
                batch_size,
                train_size=train_size,
                validation_size=validation_size,
                calibration_size=self._calibration_share(calibration_size),
                shuffle_set_split=shuffle_set_split,
                **(datasplitter_kwargs or {}),
            )
        else:
            splitter = self._checked_datamodule(datamodule, processes)
        budget = self._budget(splitter.n_train, splitter.batch_size)
        epochs = max_epochs or budget.max_epochs
        with_validation = splitter.n_val > 0
        total_steps = epochs * math.ceil(len(splitter.train_dataloader()) / processes)
        plan = MosaicPlan(self.module, **{"total_steps": total_steps, "lr": budget.lr, **(plan_kwargs or {})})
        keeper = BestWeights()
        trainer_kwargs["callbacks"] = [*trainer_kwargs.get("callbacks", []), keeper]
        trainer_kwargs.setdefault("check_val_every_n_epoch", 1 if with_validation else None)
        checkpoints = self._checkpoints(checkpoint_dir, resume, splitter, epochs, early_stopping, plan_kwargs)
        if checkpoints is not None:
            checkpoints.begin(self.module)
            trainer_kwargs["plugins"] = [*trainer_kwargs.get("plugins", []), PlainCheckpointIO()]
            trainer_kwargs["ckpt_path"] = None if checkpoints.latest is None else str(checkpoints.latest)
        arguments = trainer_settings(
            trainer_kwargs, epochs=epochs, schema=self.schema, early_stopping=early_stopping and with_validation
        )
        cache = device_cache_of(splitter, device_cache, accelerator, devices)
        self.calibration_indices = splitter.calibration_idx
        self._asked_epochs = max_epochs
        self._before_fit(splitter)
        if not self._by_gradient:
            self._finish_without_gradient(splitter)
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "early_stopping was automatically disabled", UserWarning)  # ours was not
            runner = TrainRunner(
                self,
                training_plan=plan,
                data_splitter=splitter,
                max_epochs=epochs,
                accelerator=accelerator,
                devices=devices,
                **arguments,
            )
        if checkpoints is not None:
            runner.trainer.callbacks.append(checkpoints)  # last, so that what the others decide is in the checkpoint
        before = len(self.history["train_loss"]) if self.history else 0
        self.training_ = replace(self.training_, batch_size=splitter.batch_size, max_epochs=epochs, lr=plan.lr)
        with cache:
            runner()
        self.training_ = replace(self.training_, device=self.module.device.type)
        self.best_epoch_ = None if keeper.best_epoch is None else before + keeper.best_epoch
        self._after_fit(splitter)
        self._calibrate()

    _by_gradient = True

    def _budget(self, n_train: int, batch_size: int) -> Budget:
        """How long and how fast to train by default."""
        return training_budget(n_train, batch_size)

    def _checked_datamodule(self, datamodule: PatternSplitter, processes: int) -> PatternSplitter:
        if not isinstance(datamodule, PatternSplitter):
            raise TypeError(
                "datamodule must be an omicvae.data.ShardSplitter or a PatternSplitter, which say how many samples there are and "
                f"which are held out, got {type(datamodule).__name__}"
            )
        if datamodule.adata_manager is not self.adata_manager:
            raise ValueError(
                f"the {type(datamodule).__name__} reads another MuData than the model, or another registration of it: make it "
                "from the MuData that the model was made of, with no setup_mudata in between"
            )
        if isinstance(datamodule, ShardSplitter) and processes > 1:
            raise ValueError(f"shards are read by one process, not {processes}: train with devices=1")
        return datamodule

    def _checkpoints(
        self,
        checkpoint_dir: str | os.PathLike[str] | None,
        resume: bool,
        splitter: PatternSplitter,
        max_epochs: int,
        early_stopping: bool,
        plan_kwargs: Mapping[str, Any] | None,
    ) -> Checkpoints | None:
        if checkpoint_dir is None:
            return open_checkpoints(None, resume, {})
        if not self._by_gradient:
            raise ValueError("training in closed form has no epochs to go on from: leave checkpoint_dir out")
        run = describe_run(
            type(self).__name__, self.init_params_["non_kwargs"], self.schema, self._own_cohort(), splitter,
            max_epochs=max_epochs, early_stopping=early_stopping, plan_kwargs=sorted((plan_kwargs or {}).items()),
        )  # fmt: skip
        return open_checkpoints(checkpoint_dir, resume, run)

    def _finish_without_gradient(self, splitter: PatternSplitter) -> None:
        """What training consists of where everything is in closed form."""
        self.train_indices, self.validation_indices = splitter.train_idx, splitter.val_idx
        self.test_indices = splitter.test_idx
        self.history_: dict[str, Any] = {}
        self.is_trained_ = True
        self._after_fit(splitter)
        self._calibrate()

    def _calibration_share(self, size: float | str) -> float:
        """Share of samples to calibrate on."""
        if size == "auto":
            n_obs = 0 if self.adata is None else self.adata.n_obs  # without data, training is refused later on
            return min(max(CALIBRATION_SHARE, LEAST_SCORES / max(n_obs, 1)), MOST_CALIBRATION)
        if isinstance(size, str) or isinstance(size, bool) or not 0 <= size < 1:
            raise ValueError(f"calibration_size must be 'auto' or lie in [0, 1), got {size!r}")
        return float(size)

    def _calibrate(self) -> None:
        """Make intervals true by samples that were not fitted on."""

    def _splitter(self, batch_size: int | str, **kwargs: Any) -> PatternSplitter:
        manager = self.adata_manager
        if not isinstance(manager, MosaicManager):
            raise ValueError("the model has no data to train on: load it with load(dir, mdata)")
        if SHARDS in manager.adata.uns:
            logger.warning(
                "shards are read sample by sample: pass datamodule=omicvae.data.ShardSplitter(mdata) instead"
            )
        self._own_cohort()
        splitter = PatternSplitter(manager, **kwargs)
        asked = None if batch_size == "auto" else whole_number("batch_size", batch_size)
        splitter.batch_size = training_budget(splitter.n_train, asked).batch_size
        return splitter

    def _before_fit(self, splitter: PatternSplitter) -> None:
        self.training_ = TrainingRecord.begun()
        self.module.cpu().train()
        self.module.begin_training(splitter.train_dataloader)

    def _after_fit(self, splitter: PatternSplitter) -> None:
        self.module.eval()
        device = self.module.device
        self.module.end_training(lambda: (batch.to(device) for batch in splitter.train_dataloader()))

    def _feature_columns(self, modality: str) -> dict[str, NDArray[Any]]:
        """What a model knows of each registered feature, for ``.var``: name behind the stem -> ``(p,)``."""
        return {}

    # ------------------------------------------------------------------ saving

    def _extra_arrays(self) -> dict[str, NDArray[Any]]:
        """What a saved model holds besides its module and split."""
        return {}

    def _restore_extra(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Read what :meth:`_extra_arrays` gave."""

    @property
    @abstractmethod
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        """Reported latents: ``"joint"``, ``"shared"``, ``"private_<modality>"`` -> names of their dimensions."""
