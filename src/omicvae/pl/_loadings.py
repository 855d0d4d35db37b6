"""Features that a latent moves most."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from omicvae.data._validate import listing, nearest
from omicvae.model._model import Model
from omicvae.pl._figure import COLORS, canvas, tidy
from omicvae.tl import loadings as measure

POSITIVE, NEGATIVE = COLORS[0], COLORS[1]
ROW = 0.19  # inches a feature


def loadings(
    model_or_frame: Model | pd.DataFrame,
    modality: str | None = None,
    dimension: str | int = 0,
    *,
    n_features: int = 20,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Plot the features of a modality that one latent moves most, largest on top.

    The length of a bar is the loading: the change of the feature, in its training standard deviations, for a latent
    that grows by one standard deviation. The sign of a latent is arbitrary, so that only signs within a plot compare.

    Parameters
    ----------
    model_or_frame
        Trained model, whose data are left as they are, or what :func:`omicvae.tl.loadings` returned.
    modality
        Whose features; with a table, only a title.
    dimension
        Name of a latent, such as ``"shared_0"``, or position of a column.
    n_features
        How many to show.
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
        For a model without ``modality``, an unknown latent, an empty table, or ``n_features`` below 1.
    """
    if n_features < 1:
        raise ValueError(f"n_features must be at least 1, got {n_features}")
    table = _table(model_or_frame, modality)
    name = _column(table, dimension)
    column = table[name].dropna()
    order = np.argsort(-column.abs().to_numpy(), kind="stable")[:n_features]
    shown = column.iloc[order]
    drawn = canvas(ax, 4.2, 1.0 + ROW * len(shown))
    at = np.arange(len(shown))
    drawn.ax.barh(at, shown, color=np.where(shown > 0, POSITIVE, NEGATIVE), height=0.7)
    drawn.ax.axvline(0, color="black", linewidth=0.8)
    drawn.ax.set_yticks(at, [str(feature) for feature in shown.index], fontsize="small")
    drawn.ax.set_ylim(len(shown) - 0.4, -0.6)
    drawn.ax.tick_params(axis="y", length=0)
    drawn.ax.set_xlabel("Loading (sd of the feature)")
    drawn.ax.set_ylabel("Feature")
    drawn.ax.set_title(name if modality is None else f"{modality}: {name}", fontsize="medium")
    tidy(drawn.ax)
    drawn.ax.spines["left"].set_visible(False)
    return drawn.finish(show, save)


def _table(model_or_frame: Model | pd.DataFrame, modality: str | None) -> pd.DataFrame:
    if isinstance(model_or_frame, Model):
        if modality is None:
            raise ValueError(f"name a modality of {list(model_or_frame.modalities)} whose loadings to plot")
        return measure(model_or_frame, modality, copy=True)
    if not isinstance(model_or_frame, pd.DataFrame):
        raise TypeError(f"expected a model or a DataFrame, got {type(model_or_frame).__name__}")
    if model_or_frame.empty:
        raise ValueError("the DataFrame is empty; pass what omicvae.tl.loadings returned")
    return model_or_frame


def _column(table: pd.DataFrame, dimension: str | int) -> str:
    names = [str(c) for c in table.columns]
    if isinstance(dimension, str):
        if dimension not in names:
            raise ValueError(f"no latent {dimension!r} among {listing(names)}.{nearest(dimension, names)}")
        return dimension
    if not -len(names) <= dimension < len(names):
        raise ValueError(f"dimension must lie in 0..{len(names) - 1}, got {dimension}")
    return names[dimension]
