"""What all commands share: a console, the package's log on it, silence from other packages, and short errors."""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

WIDTH = 100
CHATTY = ("lightning.pytorch", "lightning.fabric", "lightning_fabric", "pytorch_lightning", "scvi")


@contextmanager
def command(*, seed: int | None = None, log: bool = True) -> Iterator[Console]:
    """Run a command.

    Parameters
    ----------
    seed
        Of everything that is random.
    log
        Whether to show the package's own log.
    """
    import scvi
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    console = Console(file=sys.stdout, width=WIDTH, highlight=False, soft_wrap=False)
    try:
        with _log_to(console, logging.INFO if log else logging.ERROR), _quiet():
            if seed is not None:
                scvi.settings.seed = seed
            yield console
    # Other errors are mistakes of ours and keep their traceback.
    except (ValueError, OSError, FloatingPointError, MisconfigurationException) as error:
        sentence = " ".join(str(error).split()) or type(error).__name__
        sentence = sentence.replace("pass overwrite=True", "pass --overwrite")  # functions speak to those who call them
        Console(stderr=True, width=WIDTH, highlight=False).print(f"[red]Error:[/red] {escape(sentence)}")
        raise typer.Exit(1) from None


def table(*columns: str, left: Sequence[str] = ()) -> Table:
    """Table with these columns; those named in ``left`` are aligned to the left, numbers to the right."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", caption_justify="left")
    for column in columns:
        made.add_column(column, justify="left" if column in left else "right", no_wrap=column not in left)
    return made


class _ConsoleLog(logging.Handler):
    """Prints each message once: two models set up on the same data say the same about them."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self.console = console
        self.seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print a message, warnings in yellow."""
        message = record.getMessage()
        if message not in self.seen:
            self.seen.add(message)
            self.console.print(Text(message, style="yellow" if record.levelno >= logging.WARNING else "dim"))


@contextmanager
def _log_to(console: Console, least: int) -> Iterator[None]:
    """Show the package's own log."""
    logger = logging.getLogger("omicvae")
    handler, level = _ConsoleLog(console, least), logger.level
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
