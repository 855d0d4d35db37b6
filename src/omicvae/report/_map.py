"""Section: a map of all samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scanpy as sc
import torch
from anndata import AnnData
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data._validate import nearest
from omicvae.model._model import Model
from omicvae.pl._figure import COLORS
from omicvae.report._parts import Paragraph, Part, Section, parts_of, picture

LEAST, MOST = 15, 20_000
"""Samples a map needs, and above which it shows an even selection."""
N_NEIGHBOURS = 15
MOST_CLASSES = 12
FOUND = 2
"""Columns that are looked for where none is named."""
PALETTE = (*COLORS[:6], "#999999", "#882255", "#44AA99", "#DDCC77", "#332288", "#AA4499")
MISSING = "0.85"
RARER = "rarer combinations"


def map_section(model: Model, color: Sequence[str] | None, seed: int) -> Section:
    """UMAP of the joint latent."""
    parts = parts_of(lambda: _parts(model, color, seed))
    return Section("map", "Map of the samples", "All samples on one map, whichever assays they have.", parts)


def _parts(model: Model, color: Sequence[str] | None, seed: int) -> Iterator[Part]:
    mdata = model.adata
    assert isinstance(mdata, MuData)
    present = model._cohort(None).present
    known = np.flatnonzero(present.any(1))
    if len(known) < LEAST:
        yield Paragraph(f"{len(known)} samples are too few for a map; it needs {LEAST}.", "note")
        return
    shown = known if len(known) <= MOST else known[np.linspace(0, len(known) - 1, MOST).astype(np.intp)]
    at = umap_coordinates(model, shown, seed)
    panels = {"Assays measured": _patterns(model, present[shown])}
    panels |= {column: mdata.obs[column].iloc[shown] for column in color or default_columns(model, mdata)}
    caption = "UMAP of the joint latent."
    if len(shown) < len(known):
        caption += f" {MOST:,} of {len(known):,} samples, evenly chosen."
    yield picture(draw_panels(at, panels), f"UMAP of samples, coloured by {', '.join(panels)}", caption)
    yield Paragraph(
        "Distances between far groups on such a map mean little. Groups by assays measured would mean that the map shows "
        "who was measured how, rather than what."
    )


def check_columns(mdata: MuData, color: Sequence[str] | None) -> None:
    """Raise a ValueError if a column is not in ``mdata.obs``, a TypeError if it is not a list of names."""
    if isinstance(color, str):
        raise TypeError(f"color must be a list of columns, got the text {color!r}; write color=[{color!r}]")
    for column in color or ():
        if column not in mdata.obs:
            raise ValueError(
                f"color: {column!r} is not a column of mdata.obs.{nearest(str(column), mdata.obs.columns)}"
            )


def default_columns(model: Model, mdata: MuData) -> list[str]:
    """Registered labels and batches, and the first columns with a few classes."""
    schema = model.schema
    registered = [schema.labels] if schema.labels is not None else []
    registered += [c for c in schema.categorical if c.modality is None]
    found = [c.column for c in registered if c.column in mdata.obs]
    others = [str(c) for c in mdata.obs if c not in found and _has_classes(mdata.obs[c])]
    return list(dict.fromkeys([*found, *others[:FOUND]]))


def _has_classes(values: pd.Series) -> bool:
    return not _is_number(values) and 2 <= values.nunique() <= MOST_CLASSES


def _is_number(values: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def umap_coordinates(model: Model, positions: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
    """``(n, 2)`` UMAP of the joint latent.

    numba, which UMAP uses, shares OpenMP with torch and sets its number of threads: it is set back.
    """
    latent = np.asarray(model.get_latent_representation(indices=positions, return_numpy=True), dtype=np.float32)
    flat = AnnData(obs=pd.DataFrame(index=[str(i) for i in range(len(latent))]), obsm={"X": latent})
    threads = torch.get_num_threads()
    try:
        sc.pp.neighbors(flat, use_rep="X", n_neighbors=min(N_NEIGHBOURS, len(latent) - 1), random_state=seed)
        sc.tl.umap(flat, random_state=seed)
    finally:
        torch.set_num_threads(threads)
    return np.asarray(flat.obsm["X_umap"], dtype=np.float32)


def _patterns(model: Model, present: NDArray[np.bool_]) -> pd.Series:
    """The combination of assays of each sample; rare ones together."""
    written = pd.Series(["+".join(np.asarray(model.modalities, dtype=object)[row]) for row in present], dtype=object)
    frequent = written.value_counts().index
    if len(frequent) > MOST_CLASSES:
        written = written.where(written.isin(frequent[: MOST_CLASSES - 1]), RARER)
    order = [name for name in (*frequent, RARER) if (written == name).any()]
    return pd.Series(pd.Categorical(written, categories=order), name="assays")


def draw_panels(at: NDArray[np.float32], panels: dict[str, pd.Series]) -> Axes:
    """A panel a column, two a row."""
    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.5 * rows), squeeze=False, layout="constrained")
    size = float(np.clip(4000 / len(at), 1.5, 22))
    order = np.random.default_rng(0).permutation(len(at))  # so that no class lies on top of the others
    for ax, (name, values) in zip(axes.flat, panels.items(), strict=False):
        _draw(ax, at[order], values.iloc[order], size)
        ax.set_title(name, fontsize="medium", loc="left")
        ax.set(xticks=[], yticks=[], xlabel="UMAP 1", ylabel="UMAP 2")
        ax.xaxis.label.set_fontsize("x-small")
        ax.yaxis.label.set_fontsize("x-small")
        ax.spines[["top", "right"]].set_visible(False)
    for ax in list(axes.flat)[len(panels) :]:
        ax.set_visible(False)
    first: Axes = axes[0, 0]
    return first


def _draw(ax: Axes, at: NDArray[np.float32], values: pd.Series, size: float) -> None:
    if _is_number(values):
        values = values.replace([np.inf, -np.inf], np.nan)
    missing = values.isna().to_numpy()
    ax.scatter(at[missing, 0], at[missing, 1], s=size, color=MISSING, linewidth=0)
    here, seen = at[~missing], values[~missing]
    if _is_number(values):
        drawn = ax.scatter(here[:, 0], here[:, 1], s=size, c=seen.to_numpy(dtype=float), cmap="viridis", linewidth=0)
        ax.figure.colorbar(drawn, ax=ax, shrink=0.7)
        return
    classes = (
        list(seen.cat.remove_unused_categories().cat.categories)
        if isinstance(seen.dtype, pd.CategoricalDtype)
        else sorted(seen.astype(str).unique())
    )
    names = [str(c) for c in classes]
    shown = names[: len(PALETTE)]
    code = pd.Index(names).get_indexer(pd.Index(seen.astype(str)))
    colors = np.array([PALETTE[k] if k < len(shown) else "0.6" for k in range(len(names))], dtype=object)
    if len(here):
        ax.scatter(here[:, 0], here[:, 1], s=size, c=list(colors[code]), linewidth=0)
    handles = [
        Line2D([], [], linestyle="", marker="o", markersize=4, color=PALETTE[k], label=name)
        for k, name in enumerate(shown)
    ]
    if len(names) > len(shown):
        handles.append(Line2D([], [], linestyle="", marker="o", color="0.6", label=f"{len(names) - len(shown)} more"))
    if missing.any():
        handles.append(Line2D([], [], linestyle="", marker="o", markersize=4, color=MISSING, label="missing"))
    ax.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="x-small",
        handletextpad=0.2, borderaxespad=0.2,
    )  # fmt: skip
