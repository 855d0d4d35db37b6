"""Progress bars, drawn where somebody is looking."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import lightning.pytorch as lightning
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

LOSSES = ("validation_loss", "train_loss")


def bar(console: Console, unit: str) -> Progress:
    """A bar that counts ``unit`` and vanishes at the end; nothing at all if the output is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("[dim]{task.fields[note]}[/dim]"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    )


class EpochBar(lightning.Callback):
    """Counts epochs of training, with the loss that decides when to stop.

    Parameters
    ----------
    progress
        Started.
    task
        In it, still without a length: training knows how many epochs it is to take.
    """

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self.progress, self.task = progress, task

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Set the length."""
        self.progress.update(self.task, total=trainer.max_epochs, completed=0)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Count one."""
        shown = next((name for name in LOSSES if name in trainer.callback_metrics), None)
        note = "" if shown is None else f"{shown.replace('_', ' ')} {float(trainer.callback_metrics[shown]):.4g}"
        self.progress.update(self.task, advance=1, note=note)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say what takes the time from now on."""
        self.progress.update(self.task, note="calibrating on samples not trained on")


class _StepBar(logging.Filter):
    """Turns log records that carry ``step`` and ``steps`` into the state of a bar."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        super().__init__()
        self.progress, self.task = progress, task

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep such records out of the log where the bar shows them."""
        steps = getattr(record, "steps", None)
        if steps is None:
            return True
        note = record.getMessage().partition(": ")[2]
        self.progress.update(self.task, total=steps, completed=record.__dict__["step"], note=note)
        return self.progress.disable


@contextmanager
def step_bar(console: Console, title: str, unit: str) -> Iterator[None]:
    """A bar for functions that log the steps they take."""
    logger = logging.getLogger("omicvae")
    with bar(console, unit) as progress:
        watching = _StepBar(progress, progress.add_task(title, total=None, note=""))
        logger.addFilter(watching)
        try:
            yield
        finally:
            logger.removeFilter(watching)
