"""``omicvae impute``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from omicvae.cli._app import app, examples
from omicvae.cli._options import Accelerator, CohortFile, Modalities, ModelFolder, OnDevice, Overwrite, Seed
from omicvae.cli._session import command


@app.command(
    epilog=examples(
        "omicvae impute model cohort.h5mu --output completed.h5mu",
        "omicvae impute model new-patients.h5mu --output completed.zarr --modality rppa --min-skill 0.05",
    )
)
def impute(
    model: ModelFolder,
    cohort: CohortFile,
    output: Annotated[Path, typer.Option(help="File to write: .h5mu or .zarr.", show_default=False)],
    modality: Modalities = None,
    level: Annotated[float, typer.Option(help="Probability that an interval is to hold, between 0 and 1.")] = 0.9,
    min_skill: Annotated[
        float | None,
        typer.Option(
            help="Leave features blank whose predictions, out of sample, are not better than their mean by this share.",
            show_default=False,
        ),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Samples at a time.", show_default=False)] = None,
    seed: Seed = 0,
    accelerator: OnDevice = Accelerator.AUTO,
    overwrite: Overwrite = False,
) -> None:
    """Write a cohort in which every sample has every modality: measured where it was, else imputed.

    The cohort may hold other samples than the model was trained on. Values are read and written in blocks, so neither
    file has to fit into memory (a .zarr input does).
    """
    with command(seed=seed) as console:
        from omicvae import tl
        from omicvae.cli._files import load_model, read_cohort
        from omicvae.cli._progress import step_bar
        from omicvae.data import modality_rows

        if not 0 < level < 1:
            raise ValueError(f"--level must lie between 0 and 1, got {level:g}")
        mdata = read_cohort(cohort, backed=True)
        fitted = load_model(model, None, accelerator)
        with step_bar(console, "Imputing", "samples"):
            tl.complete(
                mdata, fitted, modalities=modality or None, min_skill=min_skill, out=output, overwrite=overwrite,
                level=level, batch_size=batch_size,
            )  # fmt: skip
        for name in modality or fitted.modalities:
            measured = int((modality_rows(mdata, name) >= 0).sum())
            console.print(f"{escape(name)}: {measured} samples measured, {mdata.n_obs - measured} imputed")
        console.print(f"Wrote {escape(str(output))}.")
