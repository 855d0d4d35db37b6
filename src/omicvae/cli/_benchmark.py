"""``omicvae benchmark``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
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
    OnDevice,
    Seed,
)
from omicvae.cli._session import command, table

if TYPE_CHECKING:
    import pandas as pd


@app.command(
    epilog=examples(
        "omicvae benchmark cohort.h5mu --output benchmark --batch-key center",
        "omicvae benchmark cohort.h5mu --output benchmark --method ridge --method CoVAE --splits 3",
    )
)
def benchmark(
    cohort: CohortFile,
    output: Annotated[Path, typer.Option(help="Folder to write to.", file_okay=False, show_default=False)],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            show_default=False,
            help="Method to compare, once for each: mean, ridge, pls, knn, ..., or the class of a model.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Modality to hide; all by default.", show_default=False)
    ] = None,
    given: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Modality to predict from; all others by default.", show_default=False),
    ] = None,
    splits: Annotated[int, typer.Option(min=2, help="Parts the samples are divided into.")] = 5,
    groupby: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Groups of the method group_mean.", show_default=False)
    ] = None,
    modality: Modalities = None,
    likelihood: Likelihoods = None,
    layer: Layers = None,
    coverage_layer: CoverageLayers = None,
    batch_key: BatchKey = None,
    labels_key: LabelsKey = None,
    max_epochs: Annotated[
        int | None, typer.Option(min=1, help="Of networks; chosen by default.", show_default=False)
    ] = None,
    seed: Seed = 0,
    accelerator: OnDevice = Accelerator.AUTO,
) -> None:
    """Compare methods of imputation on your own cohort, by hiding whole assays of samples they were not fitted on."""
    options = dict(locals())
    with command(seed=seed) as console:
        from omicvae import pl, tl
        from omicvae.cli._files import read_cohort
        from omicvae.cli._progress import step_bar
        from omicvae.cli._setup import set_up
        from omicvae.model import CoVAE

        mdata = read_cohort(cohort)
        set_up(mdata, CoVAE, options)
        training: dict[str, Any] = {"accelerator": accelerator.value, "enable_progress_bar": False}
        training |= {} if max_epochs is None else {"max_epochs": max_epochs}
        with step_bar(console, "Benchmark", "fits"):
            found = tl.benchmark(
                mdata, method or None, targets=target or None, given=given or None, n_splits=splits, groupby=groupby,
                train_kwargs=training, seed=seed,
            )  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        found.to_csv(output / "benchmark.csv", index=False)
        pl.benchmark(found, save=output / "benchmark.png")
        console.print(_ranking(found))
        console.print(f"\nWrote benchmark.csv and benchmark.png to {escape(str(output))}.")


def _ranking(found: pd.DataFrame) -> Table:
    """Mean over splits of the error relative to ridge regression, best method first."""
    mean = found.pivot_table(index="model", columns="target", values="crps_relative_to_ridge", sort=False, dropna=False)
    mean = mean.loc[mean.mean(axis=1).sort_values(kind="stable", na_position="last").index]
    made = table("method", *map(escape, map(str, mean.columns)), left=("method",))
    made.title, made.title_justify = "CRPS relative to ridge regression, smaller is better", "left"
    for name, row in mean.iterrows():
        made.add_row(str(name), *("failed" if value != value else f"{value:.3f}" for value in row))
    return made
