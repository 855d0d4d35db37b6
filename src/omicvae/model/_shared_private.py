"""What model classes with shared and private latents have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from omicvae.model._model import Model
from omicvae.model._sizes import per_modality, whole_number
from omicvae.module._shared_private import Shape, SharedPrivateModule

PLAIN_WIDTH = {"small": 10, "large": 20}
SHARED_WIDTH = 8  # beside private latents: two fold a curved manifold; the divergence switches off what is not needed
SMALL = 300  # samples


class SharedPrivateModel(Model):
    """Sizes, names of latents and label weights of models whose latents are shared, or shared and private."""

    module: SharedPrivateModule

    def _shape(
        self,
        n_latent: int | str,
        n_private: int | Mapping[str, int] | str,
        structured: bool,
        family: str,
        *,
        argument: str = "n_latent",
    ) -> Shape:
        """Widths of the latent spaces; ``argument`` is what the class calls the first.

        Raises
        ------
        ValueError
            For sizes that are not positive whole numbers, and for private latents without ``structured``.
        """
        if not isinstance(structured, bool):
            raise TypeError(f"structured must be True or False, got {structured!r}")
        counts = self._n_measured()
        if n_latent == "auto":
            plain = PLAIN_WIDTH["small" if max(counts.values()) < SMALL else "large"]
            shared = SHARED_WIDTH if structured else plain
        else:
            shared = whole_number(argument, n_latent)
        if structured:
            default = {m: 4 if n < SMALL else 8 for m, n in counts.items()}
            return Shape(shared, per_modality("n_private", n_private, self.schema, default))
        if n_private != "auto":
            raise ValueError(
                f"n_private={n_private!r} needs structured=True: without it, {family} has no private latents"
            )
        return Shape(shared, dict.fromkeys(self.modalities, 0))

    def _label_weight(self, label_weight: float | Literal["auto"] | None) -> float | None:
        r""":math:`\beta_y`; ``"auto"`` is the largest number of features (Martens et al. 2024, sec. 3.3)."""
        if label_weight is None:
            return None
        if label_weight == "auto":
            return float(max(m.n_vars for m in self.schema.modalities))
        number = isinstance(label_weight, int | float) and not isinstance(label_weight, bool)
        if not number or not math.isfinite(label_weight) or label_weight <= 0:
            raise ValueError(f"label_weight must be 'auto', None or a positive number, got {label_weight!r}")
        return float(label_weight)

    def _summary(self, name: str) -> str:
        """One line for printing."""
        shape = self.module.shape
        if not any(shape.private.values()):
            return f"{name} with {shape.shared} latents over {', '.join(shape.private)}"
        widths = ", ".join(f"{m} ({w} private)" for m, w in shape.private.items())
        return f"{name} with {shape.shared} shared latents over {widths}"

    @property
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        shape = self.module.shape
        stem = "shared" if any(shape.private.values()) else self.default_key
        shared = [f"{stem}_{k}" for k in range(shape.shared)]
        private = {f"private_{m}": [f"{m}_private_{k}" for k in range(w)] for m, w in shape.private.items()}
        return {"joint": shared + [name for names in private.values() for name in names], "shared": shared} | private


def check_private(private: str, structured: bool) -> None:
    """Refuse a treatment of private latents that does not exist or that has no private latents to treat.

    Raises
    ------
    ValueError
        If ``private`` is neither ``"prior"`` nor ``"zero"``, or ``"zero"`` without ``structured``.
    """
    if private not in ("prior", "zero"):
        raise ValueError(f"private must be 'prior' or 'zero', got {private!r}")
    if private == "zero" and not structured:
        raise ValueError("private='zero' needs structured=True: otherwise there are no private latents")
