"""How much of each modality latents carry."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from omicvae.model._model import Model
from omicvae.pl._figure import COLORS, canvas, legend_beside, tidy
from omicvae.pl._frame import as_frame
from omicvae.tl import variance_explained as measure

COLUMNS = ("modality", "latents", "dimension", "variance_explained")
KINDS = ("shared", "private")
ALL = "all"
WIDTH = 0.36  # of a bar, where modalities are 1 apart
LEAST_SCALE = 0.05  # the darkest colour is not for a share that nobody would mention
DARK = 0.6  # share of the colour scale above which text is white


def variance_explained(
    model_or_frame: Model | pd.DataFrame,
    *,
    by: Literal["kind", "dimension"] = "kind",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot how much of each modality's variance shared and private latents explain.

    ``by="kind"``: a bar for shared and one for private latents, and a line for all latents together.
    ``by="dimension"``: a heat map with a row a latent and a column a modality, as in MOFA; private latents of another
    modality are blank. Shares are percent of the variance on the scale of the encoders; negative ones are drawn as they
    are.

    Parameters
    ----------
    model_or_frame
        Trained model, or what :func:`omicvae.tl.variance_explained` returned.
    by
        ``"kind"`` or ``"dimension"``.
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
        If a column is missing, or for another ``by``.
    """
    if by not in ("kind", "dimension"):
        raise ValueError(f"by must be 'kind' or 'dimension', got {by!r}")
    frame = as_frame(model_or_frame, COLUMNS, measure)
    names = list(dict.fromkeys(frame["modality"]))
    if by == "kind":
        drawn = canvas(ax, 2.6 + 0.9 * len(names), 3.2)
        _bars(drawn.ax, frame[frame["dimension"] == ALL], names)
        return drawn.finish(show, save)
    shares = _by_dimension(frame, names)
    drawn = canvas(ax, 3.0 + 0.9 * len(names), 1.0 + 0.26 * len(shares))
    _heat_map(drawn.ax, shares)
    return drawn.finish(show, save)


def _bars(ax: Axes, frame: pd.DataFrame, names: list[str]) -> None:
    shares = frame.pivot(index="modality", columns="latents", values="variance_explained").reindex(names)
    shown = [kind for kind in KINDS if kind in shares and (kind == "shared" or shares[kind].fillna(0).any())]
    at = np.arange(len(names))
    for position, kind in enumerate(shown):
        offset = WIDTH * (position - (len(shown) - 1) / 2)
        ax.bar(at + offset, shares[kind], WIDTH, color=COLORS[position])
    handles: list[Patch | Line2D] = [Patch(color=COLORS[i], label=f"{kind} latents") for i, kind in enumerate(shown)]
    if "total" in shares:
        ax.hlines(shares["total"], at - WIDTH, at + WIDTH, color="black", linewidth=1.4)
        handles.append(Line2D([], [], color="black", linewidth=1.4, label="all latents"))
    if (frame["variance_explained"] < 0).any():
        ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xticks(at, names)
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    ax.set_xlabel("Modality")
    ax.set_ylabel("Variance explained")
    legend_beside(ax, handles)
    tidy(ax)


def _by_dimension(frame: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Shares, latents by modalities: shared ones first, then the private ones of each modality."""
    single = frame[(frame["dimension"] != ALL) & frame["latents"].isin(KINDS)]
    if single.empty:
        raise ValueError("the DataFrame has no single dimensions: draw it with by='kind'")
    order = pd.concat([single[single["latents"] == kind] for kind in KINDS])
    rows = list(dict.fromkeys(order["dimension"]))
    return single.pivot(index="dimension", columns="modality", values="variance_explained").loc[rows, names]


def _heat_map(ax: Axes, shares: pd.DataFrame) -> None:
    values = shares.to_numpy(dtype=float)
    known = values[np.isfinite(values)]
    top = max(LEAST_SCALE, float(known.max())) if known.size else LEAST_SCALE
    image = ax.imshow(values, cmap="Blues", vmin=0, vmax=top, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            color = "white" if value > DARK * top else "black"
            text = f"{100 * value:.1f}".replace("-0.0", "0.0")
            ax.text(j, i, text, ha="center", va="center", color=color, fontsize="x-small")
    bar = ax.figure.colorbar(image, ax=ax, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("Variance explained")
    ax.set_xticks(range(shares.shape[1]), shares.columns)
    ax.set_yticks(range(len(shares)), shares.index, fontsize="small")
    ax.tick_params(length=0)
    ax.set_xlabel("Modality")
    ax.set_ylabel("Latent")
