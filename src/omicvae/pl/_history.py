"""Training curves."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from omicvae.data._validate import nearest
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.pl._figure import GREY, canvas, legend_above, style, tidy

MODES: dict[str, Literal["-", "--"]] = {"train": "--", "validation": "-"}
BURN_IN = 0.05  # share of epochs whose height does not stretch the axis


def history(
    model: Model,
    *,
    keys: Sequence[str] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot training and validation curves.

    Curves are to fall: as in scvi-tools the ELBO is shown with its sign changed. A vertical line marks the epoch whose
    weights were kept, where it is known (a model that was loaded does not know it). The first epochs may leave the top
    of the axis.

    Parameters
    ----------
    model
        Trained model.
    keys
        Curves to draw: entries of ``model.history``, or what they are called without ``_train`` and ``_validation``, to
        draw both. By default ``["elbo"]`` and, in a second Axes to its right, the reconstruction loss of each modality;
        if ``ax`` is given, ``["elbo"]`` alone.
    ax
        Axes to draw on.
    show
        Show the figure; by default if it was made here, is not saved, and matplotlib is interactive.
    save
        File to write.

    Returns
    -------
    Axes, the left ones if there are two.

    Raises
    ------
    TypeError
        If ``model`` is not a model or ``keys`` is a text.
    ValueError
        For a key that is not in the history.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "history")
    if isinstance(keys, str):
        raise TypeError(f"keys must be a list of names, got the text {keys!r}; write [{keys!r}]")
    curves = model.history or {}
    with_modalities = keys is None and ax is None
    resolved = {key: _resolve(curves, key) for key in (["elbo"] if keys is None else keys)}
    drawn = canvas(ax, 8.4 if with_modalities else 4.6, 3.4)
    legend_above(drawn.ax, _draw(drawn.ax, resolved, model.best_epoch_))
    drawn.ax.set_ylabel("Negative ELBO (nats per sample)" if keys is None else ", ".join(keys))
    if with_modalities:
        figure = drawn.ax.figure
        assert isinstance(figure, Figure)
        grid = figure.add_gridspec(1, 2)
        drawn.ax.set_subplotspec(grid[0])
        beside = figure.add_subplot(grid[1])
        losses = {m: _resolve(curves, f"reconstruction_loss_{m}") for m in model.modalities}
        _draw(beside, losses, model.best_epoch_)
        legend_above(beside, [Line2D([], [], color=style(i).color, label=m) for i, m in enumerate(losses)])
        beside.set_ylabel("Reconstruction loss (nats per sample)")
    return drawn.finish(show, save)


def _draw(ax: Axes, curves: Mapping[str, Mapping[str, pd.Series]], kept: int | None) -> list[Artist]:
    """Draw curves (name -> mode -> values) and return what a legend should explain."""
    settled, modes = [], set()
    for position, by_mode in enumerate(curves.values()):
        for mode, values in by_mode.items():
            ax.plot(values.index, values, color=style(position).color, linestyle=MODES.get(mode, "-"), linewidth=1.4)
            settled.append(values.iloc[int(BURN_IN * len(values)) :])
            modes.add(mode)
    _fit(ax, settled)
    ax.set_xlabel("Epoch")
    tidy(ax)
    alone = style(0).color if len(curves) == 1 else GREY
    names = list(curves) if len(curves) > 1 else []
    handles: list[Artist] = [Line2D([], [], color=style(i).color, label=name) for i, name in enumerate(names)]
    handles += [
        Line2D([], [], color=alone, linestyle=line, label=mode) for mode, line in MODES.items() if mode in modes
    ]
    if kept is not None:
        ax.axvline(kept, color=GREY, linewidth=0.9, linestyle=":", zorder=0)
        handles.append(Line2D([], [], color=GREY, linewidth=0.9, linestyle=":", label="weights kept"))
    return handles


def _resolve(curves: dict[str, pd.DataFrame], key: str) -> dict[str, pd.Series]:
    """Mode -> values of a curve."""
    if key in curves:
        mode = next((m for m in MODES if m in key.split("_")), "")
        return {mode: curves[key].iloc[:, 0]}
    found = {m: curves[f"{key}_{m}"].iloc[:, 0] for m in MODES if f"{key}_{m}" in curves}
    if not found:
        stems = sorted({name.removesuffix("_train").removesuffix("_validation") for name in curves})
        raise ValueError(f"{key!r} is not in the training history, which has {stems}.{nearest(key, stems)}")
    return found


def _fit(ax: Axes, settled: Sequence[pd.Series]) -> None:
    """Scale the axis to the curves after their first epochs."""
    values = np.concatenate([np.asarray(s, dtype=float) for s in settled]) if settled else np.zeros(0)
    values = values[np.isfinite(values)]
    if len(values) and values.max() > values.min():
        margin = 0.05 * (values.max() - values.min())
        ax.set_ylim(values.min() - margin, values.max() + margin)
