"""The command line: ``omicvae <command>``.

A command parses its arguments, calls the function that does the work and prints what it returned. Mistakes of the user
end with one sentence and a non-zero exit code.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.text import Text

app = typer.Typer(
    name="omicvae",
    help="Multi-omics variational autoencoders for samples that lack whole assays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

WIDTH = 100
CHATTY = ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning", "scvi")
USER_ERRORS = (ValueError, OSError, FloatingPointError)  # others are mistakes of ours and keep their traceback


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"omicvae {version('omicvae')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Multi-omics variational autoencoders for samples that lack whole assays."""


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="Folder to write to.", file_okay=False)] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of everything that is random.", min=0, max=2**32 - 1)] = 0,
) -> None:
    """Train two models on breast tumours of which a third lack proteins, and show what they say."""
    with command() as console:
        from omicvae._demo import render, run_demo  # plotting libraries take seconds to import

        console.print(render(run_demo(output, seed, console)))


@contextmanager
def command() -> Iterator[Console]:
    """What all commands share: a console, the package's log on it, silence from other packages, and short errors."""
    console = Console(file=sys.stdout, width=WIDTH, highlight=False, soft_wrap=False)
    try:
        with _log_to(console), _quiet():
            yield console
    except USER_ERRORS as error:
        Console(stderr=True, width=WIDTH, highlight=False).print(f"[red]Error:[/red] {escape(str(error))}")
        raise typer.Exit(1) from None


class _ConsoleLog(logging.Handler):
    """Prints each message once: two models set up on the same data say the same about them."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, warnings in yellow."""
        message = record.getMessage()
        if message not in self.seen:
            self.seen.add(message)
            self.console.print(Text(message, style="yellow" if record.levelno >= logging.WARNING else "dim"))


@contextmanager
def _log_to(console: Console) -> Iterator[None]:
    """Show the package's own log."""
    logger = logging.getLogger("omicvae")
    handler, level = _ConsoleLog(console), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what other packages log, warn and print; the package's own warnings go to its log."""
    levels = {name: logging.getLogger(name).level for name in CHATTY}
    own = logging.getLogger("omicvae")
    try:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            warnings.filterwarnings("default", category=UserWarning, module="omicvae")
            warnings.showwarning = lambda message, *_, **__: own.warning("%s", message)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
