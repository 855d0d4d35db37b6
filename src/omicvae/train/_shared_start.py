"""The first stage of screened MMVAE++: shared latents, by cross-modal prediction of screened features."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import nn

from omicvae.data import Batch
from omicvae.module import ScreenedModule

logger = logging.getLogger("omicvae")

LEARNING_RATE, NOISE_RATE, WEIGHT_DECAY = 5e-3, 5.0, 1e-4
CLIP = 20.0
KL_RISE = 0.3
MOST_STEPS, ENOUGH_STEPS = 1500, 500
MOST_EPOCHS, ENOUGH_EPOCHS, LEAST_EPOCHS = 150, 100, 10
CHECK_EVERY = 5  # epochs
RISE, LEAST_STEPS = 0.1, 20  # share of steps in which the rate rises, for which torch needs more than one


class Regularisation(NamedTuple):
    """What keeps the first stage from memorising."""

    input_dropout: float
    dropout: float


CANDIDATES = (Regularisation(0.0, 0.0), Regularisation(0.3, 0.2))
"""Without, where the signal is clear; with, where it is not. The better one on validation samples is kept."""

Batches = Callable[[], Iterable[Batch]]


def train_shared(
    module: ScreenedModule, batches: Batches, validation: Batches | None, max_epochs: int | None = None
) -> None:
    """Train shared encoders and decoders, twice, and keep the fit and the epoch that predict unseen samples best.

    Parameters
    ----------
    module
        With gates set.
    batches
        Yields training samples.
    validation
        Yields validation samples; without them the first candidate's last epoch is kept.
    max_epochs
        Most epochs; chosen from the number of minibatches by default.
    """
    module.begin_first_stage()
    start = copy.deepcopy(module.state_dict())
    kept: Fit | None = None
    for candidate in CANDIDATES if validation is not None else CANDIDATES[:1]:
        module.load_state_dict(start)
        fit = _fit(module, batches, validation, candidate, max_epochs, kept)
        logger.debug("%s: cross-modal loss %.3f on validation samples", candidate, fit.loss)
        if kept is None or fit.loss < kept.loss:
            kept, chosen = fit, candidate
    assert kept is not None
    module.load_state_dict(kept.state)
    _set_dropout(module.decoders, chosen.dropout)
    module.begin_second_stage()


class Fit(NamedTuple):
    """What came of a candidate."""

    loss: float
    """Least cross-modal loss on validation samples."""
    state: dict[str, Any]
    """The module then."""
    losses: dict[int, float]
    """Epoch -> loss on validation samples."""


def _fit(
    module: ScreenedModule,
    batches: Batches,
    validation: Batches | None,
    regularisation: Regularisation,
    max_epochs: int | None,
    other: Fit | None,
) -> Fit:
    """Train a candidate; given up at half time if it is behind the ``other`` both then and at its best."""
    module.input_dropout = regularisation.input_dropout
    for networks in (module.shared_encoders, module.decoders):
        _set_dropout(networks, regularisation.dropout)
    n_batches = max(sum(1 for _ in batches()), 1)
    epochs = max_epochs or _epochs(n_batches)
    with_noise = (*module.likelihoods.named_parameters(), *module.turns.named_parameters())
    noise = [p for name, p in with_noise if name.endswith("raw_noise")]
    others = [p for p in _stage_parameters(module) if all(p is not q for q in noise)]
    groups = [{"params": others, "weight_decay": WEIGHT_DECAY}]
    rates = [LEARNING_RATE]
    if noise:
        groups.append({"params": noise, "weight_decay": 0.0})
        rates.append(LEARNING_RATE * NOISE_RATE)
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)
    n_steps = max(epochs * n_batches, LEAST_STEPS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, n_steps, pct_start=RISE)
    best, state = float("inf"), None
    losses: dict[int, float] = {}
    for epoch in range(epochs):
        module.train()
        kl_weight = min(1.0, (epoch + 1) / (KL_RISE * epochs))
        for batch in batches():
            optimizer.zero_grad()
            loss = module.objective(batch, kl_weight=kl_weight, progress=epoch / epochs).loss
            if not bool(torch.isfinite(loss)):
                break
            loss.backward()
            nn.utils.clip_grad_norm_(others, CLIP)
            optimizer.step()
            schedule.step()
        if validation is not None and (epoch % CHECK_EVERY == CHECK_EVERY - 1 or epoch == epochs - 1):
            losses[epoch] = _loss(module, validation)
            if losses[epoch] < best or state is None:
                best, state = losses[epoch], copy.deepcopy(module.state_dict())
            behind = other is not None and losses[epoch] > other.losses[epoch] and best > other.loss
            if behind and epoch >= epochs // 2:
                break
    return Fit(best, copy.deepcopy(module.state_dict()) if state is None else state, losses)


def _epochs(n_batches: int) -> int:
    """At most :data:`ENOUGH_EPOCHS`, unless these are fewer than :data:`ENOUGH_STEPS` updates."""
    wanted = max(ENOUGH_STEPS // n_batches, min(ENOUGH_EPOCHS, MOST_STEPS // n_batches))
    return max(LEAST_EPOCHS, min(MOST_EPOCHS, wanted))


def _stage_parameters(module: ScreenedModule) -> list[nn.Parameter]:
    parts = [module.shared_encoders, module.decoders, module.likelihoods, module.turns]
    return [p for part in parts for p in part.parameters()] + (
        [] if module.classifier is None else list(module.classifier.parameters())
    )


@torch.no_grad()
def _loss(module: ScreenedModule, batches: Batches) -> float:
    module.eval()
    total, n = 0.0, 0
    for batch in batches():
        loss, terms = module.cross_modal_loss(batch)
        total, n = total + float(loss), n + terms
    return total / max(n, 1)


def _set_dropout(networks: nn.Module, rate: float) -> None:
    for part in networks.modules():
        if isinstance(part, nn.Dropout):
            part.p = rate
