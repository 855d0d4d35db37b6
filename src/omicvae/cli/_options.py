"""Arguments that several commands take."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


class Accelerator(StrEnum):
    """Where a model is trained and evaluated."""

    AUTO = "auto"
    CPU = "cpu"
    GPU = "gpu"
    MPS = "mps"


# Written out, because omicvae.model takes seconds to import; a test compares the two.
MODELS = (
    "CoVAE",
    "DMVAE",
    "JMVAE",
    "MMVAE",
    "MMVAEPlus",
    "MMVAEPlusPlus",
    "MVAE",
    "MVTCAE",
    "MoPoE",
    "ProbabilisticCCA",
)
ModelName = StrEnum("ModelName", {name: name for name in MODELS})  # type: ignore[misc]

CohortFile = Annotated[
    Path, typer.Argument(metavar="COHORT", help="MuData file: .h5mu or .zarr.", exists=True, show_default=False)
]
ModelFolder = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL", help="Folder written by omicvae train.", exists=True, file_okay=False, show_default=False
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of everything that is random.", min=0, max=2**32 - 1)]
OnDevice = Annotated[Accelerator, typer.Option(help="Where to compute.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Modalities = Annotated[
    list[str] | None,
    typer.Option(
        "--modality", metavar="NAME", help="Modality to use, once for each; all by default.", show_default=False
    ),
]
Likelihoods = Annotated[
    list[str] | None,
    typer.Option(
        "--likelihood", metavar="NAME=LIKELIHOOD", show_default=False,
        help="Likelihood of a modality, such as rna=nb; may be given several times. Others are proposed from the data.",
    ),
]  # fmt: skip
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer", metavar="NAME=LAYER", show_default=False,
        help="Layer that holds a modality's values, such as rna=counts; .X by default.",
    ),
]  # fmt: skip
CoverageLayers = Annotated[
    list[str] | None,
    typer.Option(
        "--coverage-layer", metavar="NAME=LAYER", show_default=False,
        help="Layer of total reads of a modality, for betabinomial.",
    ),
]  # fmt: skip
BatchKey = Annotated[
    str | None, typer.Option(metavar="COLUMN", help="Column of .obs with batches.", show_default=False)
]
LabelsKey = Annotated[
    str | None,
    typer.Option(metavar="COLUMN", help="Column of .obs with classes, for supervised models.", show_default=False),
]


def mapping(option: str, pairs: Sequence[str] | None) -> dict[str, str]:
    """``name=value`` pairs as a mapping.

    Raises
    ------
    typer.BadParameter
        If one is not of that form, or a name is there twice.
    """
    found: dict[str, str] = {}
    for pair in pairs or ():
        name, separator, value = pair.partition("=")
        if not (separator and name and value):
            raise typer.BadParameter(f"{pair!r} is not of the form name=value.", param_hint=f"'{option}'")
        if name in found:
            raise typer.BadParameter(f"{name!r} is given twice.", param_hint=f"'{option}'")
        found[name] = value
    return found


def values(option: str, pairs: Sequence[str] | None) -> dict[str, Any]:
    """``name=value`` pairs whose values are JSON, or text where they are not."""
    return {name: _json(text) for name, text in mapping(option, pairs).items()}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
