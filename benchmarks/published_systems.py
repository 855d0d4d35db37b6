"""The systems that the MMVAE++ paper compares, with its latents and networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import omicvae

PAPER_NETWORK = {"n_hidden": 128, "n_layers": 1, "dropout": 0.0}  # of the authors' code, but for its activation
LABEL_WEIGHT = 1000.0  # the paper's beta


class Recipe(NamedTuple):
    """A model class and what it is constructed with."""

    cls: type
    arguments: dict[str, Any] = {}
    supervised: bool = False
    max_epochs: int | None = None


def as_published(shared: int, private: int) -> dict[str, Recipe]:
    """The systems of the paper: shared and private latents of given widths, its network, without labels and with."""
    plain = {
        "MVAE": (omicvae.model.MVAE, {"n_latent": shared, "structured": True}),
        "MoPoE": (omicvae.model.MoPoE, {"n_latent": shared, "structured": True}),
        "MMVAE": (omicvae.model.MMVAE, {"n_latent": shared, "structured": True, "private": "zero"}),
        "MMVAE++": (omicvae.model.MMVAEPlusPlus, {"n_shared": shared, "screening": False, "private": "zero"}),
    }
    same = {"n_private": private, "network": PAPER_NETWORK}
    found = {f"{name} as published": Recipe(cls, own | same) for name, (cls, own) in plain.items()}
    weighted = {"label_weight": LABEL_WEIGHT}
    return found | {f"sup-{name}": Recipe(cls, own | same | weighted, True) for name, (cls, own) in plain.items()}
