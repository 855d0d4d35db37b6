"""``omicvae report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from omicvae.cli._app import app, examples
from omicvae.cli._options import Accelerator, ModelFolder, OnDevice, Seed
from omicvae.cli._session import command


@app.command(
    epilog=examples(
        "omicvae report model cohort.h5mu --output report.html",
        "omicvae report model cohort.h5mu --output report.html --color subtype --color stage",
    )
)
def report(
    model: ModelFolder,
    cohort: Annotated[
        Path | None,
        typer.Argument(
            metavar="COHORT",
            help="The data it was trained on; those saved with it by default.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(help="Page to write.", dir_okay=False)] = Path("report.html"),
    color: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column of .obs to colour the map by, once for each.", show_default=False),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.", show_default=False)] = None,
    seed: Seed = 0,
    accelerator: OnDevice = Accelerator.AUTO,
) -> None:
    """Write one self-contained page about a model: data, training, calibration, what can be imputed, and methods."""
    with command(seed=seed) as console:
        from omicvae.cli._files import load_model, read_cohort, saved_cohort

        source = cohort or saved_cohort(model)
        if source is None:
            raise ValueError(
                f"{model} was saved without its data: name the file it was trained on, "
                f"omicvae report {model} cohort.h5mu"
            )
        fitted = load_model(model, read_cohort(source), accelerator)
        with console.status("Measuring and drawing"):
            fitted.report(output, color=color or None, title=title, seed=seed)
        console.print(f"Wrote {escape(str(output))}.")
