"""Which assay would make which other more certain."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from omicvae.model._model import Model
from omicvae.pl._figure import canvas
from omicvae.pl._frame import as_frame
from omicvae.tl import assay_value as measure

COLUMNS = ("candidate", "target", "reduction")
LEAST_SCALE = 0.1  # the darkest colour is not for a reduction that nobody would pay for
DARK = 0.6  # share of the colour scale above which text is white


def assay_value(
    model_or_frame: Model | pd.DataFrame,
    *,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot how much measuring one assay would reduce the uncertainty of another, as a heat map.

    Each field is the mean over the samples that lack both assays, whose number is under it, and what was measured in
    samples that have both, if the table says so. Fields without such samples are blank.

    Parameters
    ----------
    model_or_frame
        Trained model, or what :func:`omicvae.tl.assay_value` returned.
    ax
        Axes to draw on.
    show
        Show the figure; by default if it was made here, is not saved, and matplotlib is interactive.
    save
        File to write.

    Returns
    -------
    Axes.

    Raises
    ------
    TypeError
        For anything but a model or a DataFrame.
    ValueError
        If a column is missing, or the table is empty: no sample lacks two assays.
    """
    frame = as_frame(model_or_frame, COLUMNS, measure)
    if frame.empty:
        raise ValueError("no sample lacks two assays, so that measuring one of them would tell about the other")
    names = list(dict.fromkeys([*frame["candidate"], *frame["target"]]))
    rows, columns = ([n for n in names if n in set(frame[which])] for which in ("candidate", "target"))
    cells = frame.groupby(["candidate", "target"])["reduction"]
    mean = cells.mean().unstack().reindex(index=rows, columns=columns)
    size = cells.size().unstack(fill_value=0).reindex(index=rows, columns=columns, fill_value=0).to_numpy()
    held_out = (
        frame.get("held_out", pd.Series(np.nan, frame.index)).groupby([frame["candidate"], frame["target"]]).mean()
    )
    measured = held_out.unstack().reindex(index=rows, columns=columns).to_numpy()
    width = max(0.9, *(0.1 * len(name) for name in columns))  # inches, for a name of ten letters one
    drawn = canvas(ax, 2.4 + width * len(columns), 1.3 + (0.75 if np.isfinite(measured).any() else 0.6) * len(rows))
    top = max(LEAST_SCALE, float(np.nanmax(mean.to_numpy())))
    image = drawn.ax.imshow(mean, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(mean.to_numpy()):
        if np.isfinite(value):
            color = "white" if value > DARK * top else "black"
            text = f"{100 * value:.0f} %\nn = {size[i, j]}"
            if np.isfinite(measured[i, j]):
                text += f"\nheld-out {100 * measured[i, j]:.0f} %"
            drawn.ax.text(j, i, text, ha="center", va="center", color=color, fontsize="small")
    bar = drawn.ax.figure.colorbar(image, ax=drawn.ax, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("Mean reduction of the sd")
    drawn.ax.set_xticks(range(len(columns)), columns)
    drawn.ax.set_yticks(range(len(rows)), rows)
    drawn.ax.set_xlabel("Assay that becomes more certain")
    drawn.ax.set_ylabel("Assay to measure")
    return drawn.finish(show, save)
