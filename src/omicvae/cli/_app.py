"""The application that commands are added to."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

app = typer.Typer(
    name="omicvae",
    help="Multi-omics variational autoencoders for samples that lack whole assays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def examples(*lines: str) -> str:
    """Text under the help of a command."""
    return "\n\n".join(["[bold]Examples[/bold]", *(f"  {line}" for line in lines)])


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"omicvae {version('omicvae')}")
        raise typer.Exit


@app.callback(
    epilog=examples(
        "omicvae demo",
        "omicvae check cohort.h5mu",
        "omicvae train cohort.h5mu --output model",
        "omicvae impute model cohort.h5mu --output completed.h5mu",
        "omicvae report model cohort.h5mu --output report.html",
    )
)
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Multi-omics variational autoencoders for samples that lack whole assays."""
