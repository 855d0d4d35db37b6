"""``omicvae demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from omicvae.cli._app import app, examples
from omicvae.cli._options import Seed
from omicvae.cli._session import command


@app.command(epilog=examples("omicvae demo", "omicvae demo --output first-look --seed 1"))
def demo(
    output: Annotated[Path, typer.Option(help="Folder to write to.", file_okay=False)] = Path("demo"),
    seed: Seed = 0,
) -> None:
    """Train two models on breast tumours of which a third lack proteins, and show what they say."""
    with command() as console:
        from omicvae import _demo as demonstration

        console.print(demonstration.render(demonstration.run_demo(output, seed, console)))
