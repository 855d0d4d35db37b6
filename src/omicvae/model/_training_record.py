"""How a model was trained: what a methods section has to say about it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import version
from typing import Any

from scvi import settings

PACKAGES = ("omicvae", "scvi-tools", "torch", "lightning", "mudata", "anndata", "scanpy", "numpy", "pandas")


@dataclass(frozen=True)
class TrainingRecord:
    """Settings of the last call of ``train``; ``None`` where they do not apply or are not known."""

    seed: int | None = None
    """``scvi.settings.seed`` when training began."""
    batch_size: int | None = None
    """Samples a minibatch."""
    max_epochs: int | None = None
    lr: float | None = None
    """Peak learning rate."""
    device: str | None = None
    """Kind of device, such as ``"cpu"`` or ``"cuda"``."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Package -> version, ``"python"`` among them."""

    @classmethod
    def begun(cls) -> TrainingRecord:
        """What is known when training begins."""
        found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
        return cls(seed=settings.seed, versions=found)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as a saved model holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> TrainingRecord:
        """From what :meth:`to_dict` gave; what an older or newer version wrote beside it is left out."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in saved.items() if name in known})
