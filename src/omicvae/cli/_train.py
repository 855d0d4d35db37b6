"""``omicvae train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omicvae.cli._app import app, examples
from omicvae.cli._options import (
    Accelerator,
    BatchKey,
    CohortFile,
    CoverageLayers,
    LabelsKey,
    Layers,
    Likelihoods,
    Modalities,
    ModelName,
    OnDevice,
    Overwrite,
    Seed,
    values,
)
from omicvae.cli._session import command, table

if TYPE_CHECKING:
    from omicvae.model._model import Model


@app.command(
    epilog=examples(
        "omicvae train cohort.h5mu --output model --batch-key center",
        "omicvae train cohort.h5mu --output model --likelihood rna=nb --layer rna=counts",
        "omicvae train cohort.zarr --output model --model MMVAEPlusPlus --set n_shared=6 --accelerator gpu",
    )
)
def train(
    cohort: CohortFile,
    output: Annotated[Path, typer.Option(help="Folder to write the model to.", file_okay=False, show_default=False)],
    model: Annotated[ModelName, typer.Option(help="Class of the model.")] = ModelName("CoVAE"),
    modality: Modalities = None,
    likelihood: Likelihoods = None,
    layer: Layers = None,
    coverage_layer: CoverageLayers = None,
    batch_key: BatchKey = None,
    labels_key: LabelsKey = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Argument of the model, such as n_latent=8.", show_default=False
        ),
    ] = None,
    max_epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Passes over the samples; chosen from their number by default.", show_default=False),
    ] = None,
    seed: Seed = 0,
    accelerator: OnDevice = Accelerator.AUTO,
    backed: Annotated[bool, typer.Option("--backed", help="Leave the values on disk (.h5mu only).")] = False,
    save_data: Annotated[bool, typer.Option("--save-data", help="Keep a copy of the data with the model.")] = False,
    overwrite: Overwrite = False,
) -> None:
    """Train a model on a cohort and write it to a folder."""
    options = dict(locals())
    with command(seed=seed) as console:
        from omicvae.cli._files import read_cohort
        from omicvae.cli._setup import check_arguments, model_class, set_up
        from omicvae.model._folder import check_target

        check_target(output.resolve(), overwrite)
        cls, arguments = model_class(model), values("--set", set_)
        check_arguments(cls, arguments)
        mdata = read_cohort(cohort, backed=backed)
        set_up(mdata, cls, options)
        fitted = cls(mdata, **arguments)
        start = time.monotonic()
        _train(fitted, max_epochs, accelerator, console)
        seconds = time.monotonic() - start
        fitted.save(output, overwrite=overwrite, save_anndata=save_data)
        console.print(f"\nTrained {model} in {seconds:.0f} s and wrote it to {escape(str(output))}.")
        console.print(_summary(fitted))


def _train(model: Model, max_epochs: int | None, accelerator: str, console: Console) -> None:
    from omicvae.cli._progress import EpochBar, bar

    with bar(console, "epochs") as progress:
        task = progress.add_task("Training", total=None, note="")
        watching = [EpochBar(progress, task)]
        model.train(max_epochs, accelerator=accelerator, enable_progress_bar=False, callbacks=watching)


def _summary(model: Model) -> Table:
    """How well each modality is predicted from the others in samples not fitted on."""
    import numpy as np

    from omicvae.tl._trust import measured_trust

    made = table(
        "modality", "likelihood", "features", "R2", "against ridge", "in 90 %", left=("modality", "likelihood")
    )
    made.caption = (
        "Out of sample, given the other modalities: medians over features, and share of values in their interval."
    )
    for one in model.schema.modalities:
        scores = ["", "not measured: too few samples held out", ""]
        found = measured_trust(model, one.name)
        if found is not None:
            r2, skill = (float(np.nanmedian(found[c])) for c in ("r2", "skill_vs_ridge"))
            scores = [f"{r2:.2f}", f"{skill:+.1%}", f"{found['coverage90'].mean():.0%}"]
        made.add_row(escape(one.name), one.likelihood, str(one.n_vars), *scores)
    return made
