"""``omicvae check``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omicvae.cli._app import app, examples
from omicvae.cli._options import CohortFile, CoverageLayers, Layers, Likelihoods, Modalities, mapping
from omicvae.cli._session import WIDTH, command, table

if TYPE_CHECKING:
    from omicvae.tl import CohortCheck

MOST_PATTERNS = 20


@app.command(
    epilog=examples(
        "omicvae check cohort.h5mu",
        "omicvae check cohort.h5mu --layer rna=counts --likelihood rna=nb",
    )
)
def check(
    cohort: CohortFile,
    modality: Modalities = None,
    likelihood: Likelihoods = None,
    layer: Layers = None,
    coverage_layer: CoverageLayers = None,
) -> None:
    """Say what a file holds, which likelihoods it calls for, who lacks what, and whether a model can be trained.

    Exit code 0 if it can, 1 if it cannot.
    """
    with command(log=False) as console:
        from omicvae import tl
        from omicvae.cli._files import read_cohort

        found = tl.check(
            read_cohort(cohort, backed=True),
            modalities=modality,
            likelihoods=mapping("--likelihood", likelihood),
            layers=mapping("--layer", layer),
            coverage_layers=mapping("--coverage-layer", coverage_layer),
        )
        _print(found, str(cohort), console)
    if not found.usable:
        stderr = Console(stderr=True, width=WIDTH, highlight=False)
        for problem in found.problems:
            stderr.print(f"[red]Error:[/red] {escape(problem)}")
        raise typer.Exit(1)


def _print(found: CohortCheck, name: str, console: Console) -> None:
    console.print(f"[bold]{escape(name)}[/bold]: {found.n_obs} samples, {len(found.modalities)} modalities\n")
    console.print(_modality_table(found))
    if len(found.patterns):
        console.print("\n[bold]Who has what[/bold]")
        console.print(_pattern_table(found))
    for warning in found.warnings:
        console.print(f"\n[yellow]Warning:[/yellow] {escape(warning)}")
    if found.usable:
        console.print("\n[green]Usable.[/green] Next: " + escape(f"omicvae train {name} --output model"))


def _modality_table(found: CohortCheck) -> Table:
    made = table(
        *("modality", "samples", "missing", "features", "stored", "values", "NaN", "likelihood"),
        left=("modality", "stored", "values", "likelihood"),
    )
    for modality, row in found.modalities.iterrows():
        made.add_row(
            escape(str(modality)),
            *(str(row[c]) for c in ("samples", "missing", "features")),
            f"sparse {row['dtype']}" if row["storage"] == "sparse" else row["dtype"],
            _values(row),
            _share(row["nan"]),
            row["likelihood"],
        )
    return made


def _values(row: Any) -> str:
    if row["values"] in ("", "no values", "0 and 1"):
        return row["values"] or "not readable"
    return f"{row['values']}, {row['minimum']:.3g} to {row['maximum']:.3g}"


def _share(share: float) -> str:
    if share != share:
        return ""
    return "0" if share == 0 else "<0.1%" if share < 0.001 else f"{share:.1%}"


def _pattern_table(found: CohortCheck) -> Table:
    names = [str(m) for m in found.modalities.index]
    made = table("samples", *(escape(m) for m in names))
    for assays, samples in found.patterns.head(MOST_PATTERNS).itertuples(index=False):
        made.add_row(str(samples), *("yes" if m in assays else "[dim]-[/dim]" for m in names))
    rest = found.patterns["samples"].iloc[MOST_PATTERNS:]
    if len(rest):
        made.caption = f"{len(rest)} rarer combinations with {rest.sum()} samples are not shown."
    return made
