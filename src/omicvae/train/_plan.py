"""Training plan that keeps metrics on the device and logs them once an epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from scvi.train import TrainingPlan
from torch import Tensor, nn

from omicvae.data import Batch
from omicvae.module import MultimodalModule
from omicvae.nn import Decoder, Encoder

NOISE_RATE = 5.0  # noise scales start at one training sd and have to fall far: faster than weights
RISE = 0.1  # share of training over which the learning rate rises
VALIDATION_SEED = 20_260_301


class MosaicPlan(TrainingPlan):
    """Optimiser, schedules and bookkeeping for :class:`~omicvae.module.MultimodalModule`.

    scvi-tools' plan spends most of a small model's step on logging. This one adds metrics up on the device and logs
    them once an epoch, under scvi-tools' names (``elbo_train``, ``reconstruction_loss_validation``, ...) and one curve
    a modality (``reconstruction_loss_rna_train``). The validation loss is always computed with the weights of the end
    of training and with the same random numbers, so that epochs can be compared.

    Parameters
    ----------
    module
        What is trained.
    total_steps
        Length of training in updates; schedules are laid out over it.
    lr
        Peak learning rate; parameters named ``raw_noise`` get five times as much.
    weight_decay
        Of AdamW; noise scales have none.
    eps
        Of AdamW.
    lr_schedule
        ``"onecycle"`` rises over the first tenth and falls to zero; ``"constant"``.
    n_steps_kl_warmup, n_epochs_kl_warmup
        Length of the rise of the KL weight from ``min_kl_weight`` to ``max_kl_weight``; 30 % of training if neither is
        given.
    max_kl_weight, min_kl_weight
        End and start of that rise.
    compile
        Whether encoders and decoders are compiled while training lasts (:func:`torch.compile`). Worth it for long runs
        on a GPU; compiling takes a minute.
    compile_kwargs
        Of :func:`torch.compile`, for example ``mode``.
    """

    def __init__(
        self,
        module: MultimodalModule,
        *,
        total_steps: int,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        eps: float = 1e-8,
        lr_schedule: Literal["onecycle", "constant"] = "onecycle",
        n_steps_kl_warmup: int | None = None,
        n_epochs_kl_warmup: int | None = None,
        max_kl_weight: float = 1.0,
        min_kl_weight: float = 0.0,
        compile: bool = False,
        compile_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        if lr_schedule not in ("onecycle", "constant"):
            raise ValueError(f"lr_schedule must be 'onecycle' or 'constant', got {lr_schedule!r}")
        if n_steps_kl_warmup is None and n_epochs_kl_warmup is None:
            n_steps_kl_warmup = max(1, round(0.3 * total_steps))
        super().__init__(
            module,
            lr=lr,
            weight_decay=weight_decay,
            eps=eps,
            n_steps_kl_warmup=n_steps_kl_warmup,
            n_epochs_kl_warmup=n_epochs_kl_warmup,
            max_kl_weight=max_kl_weight,
            min_kl_weight=min_kl_weight,
        )
        self.total_steps, self.lr_schedule = max(1, total_steps), lr_schedule
        self._sums: dict[str, tuple[Tensor, Tensor] | None] = {"train": None, "validation": None}
        self._first_broken: Tensor | None = None
        self._compiles, self._compile_kwargs = compile, {"dynamic": True, **(compile_kwargs or {})}

    @property
    def progress(self) -> float:
        """Share of training done, 0 to 1."""
        return min(1.0, self.global_step / self.total_steps)

    def _add(self, mode: str, sums: Tensor, counts: Tensor) -> None:
        held = self._sums[mode]
        self._sums[mode] = (sums, counts) if held is None else (held[0] + sums, held[1] + counts)

    def _objective(self, batch: Batch, mode: str, kl_weight: float, progress: float) -> Tensor | None:
        """Loss of a minibatch, with its metrics added up; ``None`` once weights are no longer numbers."""
        try:
            step = self.module.objective(batch, kl_weight=kl_weight, progress=progress)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]  # a factor of something that is not finite
            self._break(mode, batch)
            return None
        self._add(mode, step.sums, step.counts)
        broken, known = ~torch.isfinite(step.sums), self._first_broken
        self._first_broken = broken if known is None else torch.where(known.any(), known, broken)
        return step.loss

    def _break(self, mode: str, batch: Batch) -> None:
        nothing = torch.full((len(self.module.metric_names),), torch.nan, device=batch.present.device)
        self._add(mode, nothing, torch.ones_like(nothing))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """Loss of a minibatch at the current KL weight."""
        return self._objective(batch, "train", self.kl_weight, self.progress)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm. Lightning refuses to under mixed precision with a fused optimiser, but bfloat16 scales nothing."""
        if self.trainer.precision != "bf16-mixed" or gradient_clip_algorithm not in (None, "norm"):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Let the module update what is not learned by gradient."""
        try:
            self.module.after_step(self.global_step)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            self._break("train", batch)

    def on_train_start(self) -> None:
        """Compile, if asked to; in distributed training every process draws noise of its own."""
        super().on_train_start()
        for network in self._compiled():
            network.compile(**self._compile_kwargs)
        self._random_state = torch.get_rng_state()
        if self.trainer.world_size > 1:
            torch.manual_seed(torch.initial_seed() + self.trainer.global_rank)

    def on_train_end(self) -> None:
        """Undo both."""
        super().on_train_end()
        for network in self._compiled():
            network._compiled_call_impl = None  # nn.Module has no other way back
        if self.trainer.world_size > 1:
            torch.set_rng_state(self._random_state)

    def _compiled(self) -> list[nn.Module]:
        return [m for m in self.module.modules() if self._compiles and isinstance(m, Encoder | Decoder)]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Objective of a minibatch with final weights and fixed random numbers."""
        devices = [batch.present.device] if batch.present.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(VALIDATION_SEED + batch_idx)
            self._objective(batch, "validation", self.max_kl_weight, 1.0)

    @property
    def epoch_is_finite(self) -> bool:
        """Whether all training metrics added up since they were last logged are numbers."""
        held = self._sums["train"]
        return held is None or bool(torch.isfinite(held[0]).all())

    def broken_modalities(self) -> list[str]:
        """Modalities whose log-likelihood was not finite in the first minibatch whose metrics were not."""
        if self._first_broken is None:
            return []
        names = self.module.metric_names
        broken = [n for n, flag in zip(names, self._first_broken.tolist(), strict=True) if flag]
        return [n.removeprefix("reconstruction_loss_") for n in broken if n.startswith("reconstruction_loss_")]

    def _log(self, mode: str) -> None:
        held = self._sums[mode]
        if held is None:
            return
        sums, counts = held
        if self.trainer.world_size > 1:
            sums, counts = (self.trainer.strategy.reduce(t, reduce_op="sum") for t in (sums, counts))
        means = (sums / counts.clamp_min(1)).tolist()
        names = self.module.metric_names
        values = dict(zip((f"{name}_{mode}" for name in names[1:]), means[1:], strict=True))
        values["train_loss" if mode == "train" else "validation_loss"] = means[0]
        values[f"kl_global_{mode}"] = 0.0
        if mode == "train":
            values["kl_weight"] = self.kl_weight
        # Lightning's own log_dict copies every metric several times and takes as long as a step of a small model.
        self.trainer.callback_metrics.update({name: torch.as_tensor(value) for name, value in values.items()})
        for logger in self.trainer.loggers:
            logger.log_metrics({**values, "epoch": self.current_epoch}, step=self.global_step)
        self._sums[mode] = None

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training metrics."""
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        """Log the epoch's validation metrics."""
        self._log("validation")

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW, fused where the device has it, and the learning-rate schedule."""
        named = [(n, p) for n, p in self.module.named_parameters() if p.requires_grad]
        noise = [p for n, p in named if n.endswith("raw_noise")]
        weights = [p for n, p in named if not n.endswith("raw_noise")]
        groups = [
            {"params": weights, "lr": self.lr, "weight_decay": self.weight_decay},
            {"params": noise, "lr": NOISE_RATE * self.lr, "weight_decay": 0.0},
        ]
        optimizer = _adamw([g for g in groups if g["params"]], eps=self.eps)
        if self.lr_schedule == "constant":
            return {"optimizer": optimizer}
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: one_cycle(step / self.total_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def one_cycle(progress: float) -> float:
    """Share of the peak learning rate: up along a line over the first tenth of training, then down along a cosine."""
    if progress < RISE:
        return 0.05 + 0.95 * progress / RISE
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - RISE) / (1 - RISE)))) + 1e-3


def _adamw(groups: list[dict[str, Any]], eps: float) -> torch.optim.AdamW:
    fusable = all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])
    return torch.optim.AdamW(groups, eps=eps, fused=fusable)


def clip_norm(n_vars: int) -> float:
    """Gradient norm to clip at: losses are sums over features, so their gradients grow with the square root of these."""
    return 10.0 * max(n_vars, 1) ** 0.5
