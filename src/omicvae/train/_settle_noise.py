"""Noise of a module whose other parameters are in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from omicvae.data import Batch
from omicvae.module import MultimodalModule

STEPS = 150
LEARNING_RATE = 0.05


def settle_noise(module: MultimodalModule, batches: Callable[[], Iterable[Batch]]) -> None:
    """Fit the likelihoods' noise to training samples, by gradient; nothing else is changed.

    A likelihood's noise starts at the spread of its feature. Where networks stay at their closed-form start it has to
    be brought down to what they leave unexplained.

    Parameters
    ----------
    module
        Module whose other parameters are final.
    batches
        Yields training samples.
    """
    noise = [p for name, p in module.likelihoods.named_parameters() if name.endswith("raw_noise")]
    if not noise:
        return
    others = [p for p in module.parameters() if all(p is not q for q in noise) and p.requires_grad]
    for parameter in others:
        parameter.requires_grad_(False)
    module.eval()
    optimizer = torch.optim.Adam(noise, lr=LEARNING_RATE)
    step = 0
    while step < STEPS:
        for batch in batches():
            optimizer.zero_grad()
            module.objective(batch.to(module.device)).loss.backward()
            optimizer.step()
            step += 1
            if step == STEPS:
                break
    for parameter in others:
        parameter.requires_grad_(True)
