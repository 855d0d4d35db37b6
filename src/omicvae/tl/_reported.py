"""Reported latents as directions in which a modality's decoder can be moved."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from omicvae.model._model import Model
from omicvae.module._records import Readout

NO_MORE_THAN_ROUNDING = 1e-4


class Reported(NamedTuple):
    """``r`` reported latents of one kind."""

    names: list[str]
    """(r,)"""
    readout: Readout
    """How they are read off the module's latents ..."""
    lift: Tensor
    """... (D, r): what the module's latents are expected to be, a priori, per unit of each ..."""
    sd: Tensor
    """... and (r,) the size of that unit: standard deviation of each in the prior."""

    def rebuilt(self, z: Tensor) -> Tensor:
        """``(..., D)`` latents as far as these reported ones tell; all else is expected, given them, a priori."""
        return self.readout.offset + self.values(z) @ self.lift.mT

    def values(self, z: Tensor) -> Tensor:
        """``(..., r)`` reported latents of latents ``(..., D)``."""
        return (z - self.readout.offset) @ self.readout.matrix


def reported(model: Model, kind: str, modality: str) -> Reported:
    """Latents of a kind that reach the decoder of a modality.

    Parameters
    ----------
    model
        Trained.
    kind
        ``"joint"``, ``"shared"`` or ``"private"``.
    modality
        Whose decoder, and whose private latents.
    """
    readout = model.module.readout(kind, modality if kind == "private" else None)
    lift, sd = model.module.lift(readout), model.module.prior_sd(readout)
    names = list(model.latent_names[kind if kind != "private" else f"private_{modality}"])
    if kind == "joint":  # another modality's block does not reach this decoder
        reach = model.module.decoder_inputs(lift.mT)[modality].abs().sum(-1)
        kept = torch.nonzero(reach > NO_MORE_THAN_ROUNDING * reach.max()).squeeze(-1)
        names = [names[i] for i in kept.tolist()]
        readout, lift, sd = Readout(readout.matrix[:, kept], readout.offset), lift[:, kept], sd[kept]
    return Reported(names, readout, lift, sd)
