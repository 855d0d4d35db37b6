"""Where on a map of samples imputed values are uncertain."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data._validate import listing, nearest
from omicvae.pl._figure import canvas, legend_above

Array = NDArray[np.floating]

LAYER = "imputed_sd"
MEASURED, IMPUTED = "o", "^"
AREA = 9000.0  # square points that all dots take together


def uncertainty(
    data: MuData | AnnData,
    modality: str | None = None,
    *,
    features: str | Sequence[str] | None = None,
    basis: str = "X_umap",
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | os.PathLike[str] | None = None,
) -> Axes:
    """Colour a map of samples by how uncertain their imputed values are.

    The colour is the standard deviation of the predictive distribution, given the sample's other modalities, in
    standard deviations of each measured feature; root mean square over features. 1 means that the other assays say
    nothing. Triangles are samples whose assay was imputed, dots those in which it was measured.

    Parameters
    ----------
    data
        What :func:`omicvae.tl.complete` returned, or one modality of it. To get the map of the cohort into it, compute
        it before, with :func:`scanpy.tl.umap` on ``obsm["X_covae"]``, or copy it.
    modality
        Which one; not needed where ``data`` is an AnnData.
    features
        One or several; all by default, but for those whose values do not vary or were never measured.
    basis
        Key of ``obsm`` with the map; its first two columns are drawn.
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
        If ``data`` is neither a MuData nor an AnnData.
    ValueError
        If the map or the standard deviations are missing, for an unknown modality or feature, or if no feature has
        measured values that vary.
    """
    if not isinstance(data, MuData | AnnData):
        raise TypeError(f"uncertainty expects a MuData or AnnData, got {type(data).__name__}")
    adata = _modality(data, modality)
    points = _points(data, adata, basis)
    sd, measured = relative_sd(adata, features), _measured(adata)
    seen = np.isfinite(sd) & np.isfinite(points).all(1)
    if not seen.any():
        raise ValueError(f"no sample has both a place in obsm[{basis!r}] and a finite {LAYER}")
    drawn = canvas(ax, 5.2, 3.8)
    top = max(1.0, float(sd[seen].max()))
    handles = []
    for marker, here, label in ((MEASURED, measured, "measured"), (IMPUTED, ~measured, "imputed")):
        chosen = here & seen
        image = drawn.ax.scatter(
            points[chosen, 0], points[chosen, 1], c=sd[chosen], s=float(np.clip(AREA / len(points), 2, 40)), marker=marker,
            cmap="viridis", vmin=0, vmax=top, linewidth=0,
        )  # fmt: skip
        if chosen.any():
            text = f"{label} ({chosen.sum()})"
            handles.append(Line2D([], [], linestyle="", marker=marker, color="0.4", markersize=5, label=text))
    drawn.ax.figure.colorbar(image, ax=drawn.ax).set_label("Predictive sd (sd of the feature)")
    name = basis.removeprefix("X_")
    name = name.upper() if name == "umap" else name
    drawn.ax.set(xticks=[], yticks=[], xlabel=f"{name}1", ylabel=f"{name}2")
    title = [part for part in (modality, features if isinstance(features, str) else None) if part]
    drawn.ax.set_title(": ".join(title), fontsize="medium", loc="right")
    legend_above(drawn.ax, handles)
    return drawn.finish(show, save)


def _modality(data: MuData | AnnData, modality: str | None) -> AnnData:
    if isinstance(data, AnnData):
        return data
    if modality is None:
        raise ValueError(f"name a modality of {list(data.mod)} whose imputed values to look at")
    if modality not in data.mod:
        raise ValueError(f"modality {modality!r} is not in the MuData {list(data.mod)}.{nearest(modality, data.mod)}")
    return data.mod[modality]


def _points(data: MuData | AnnData, adata: AnnData, basis: str) -> Array:
    """``(n, 2)`` places of the modality's samples, from the MuData's map or its own."""
    for holder in (data, adata):
        if basis in holder.obsm:
            points = np.asarray(holder.obsm[basis], dtype=np.float64)
            if points.ndim != 2 or points.shape[1] < 2:
                raise ValueError(f"obsm[{basis!r}] has shape {points.shape}; a map has two columns")
            points = points[:, :2]
            return points if holder is adata else points[holder.obs_names.get_indexer(adata.obs_names)]
    raise ValueError(
        f"obsm has no {basis!r}. Run scanpy.pp.neighbors(mdata, use_rep='X_covae') and scanpy.tl.umap(mdata) before "
        "omicvae.tl.complete, which takes the map over; or name another basis"
    )


def relative_sd(adata: AnnData, features: str | Sequence[str] | None) -> Array:
    """``(n,)`` root mean square of predictive standard deviations in those of measured values; NaN where there are none."""
    if LAYER not in adata.layers or "source" not in adata.obs:
        raise ValueError(f"there is no layer {LAYER!r} beside obs['source']: pass what omicvae.tl.complete returned")
    columns = _columns(adata, features)
    seen = np.asarray(adata.X, dtype=np.float64)[:, columns][_measured(adata)]
    known = np.isfinite(seen)
    count = np.maximum(known.sum(0), 1)
    mean = np.sum(seen, axis=0, where=known) / count
    spread = np.sqrt(np.sum((seen - mean) ** 2, axis=0, where=known) / count)
    varies = spread > 1e-6 * np.abs(mean)
    if not varies.any():
        raise ValueError("no feature has measured values that vary, in which an sd could be expressed")
    ratio = np.asarray(adata.layers[LAYER], dtype=np.float64)[:, columns][:, varies] / spread[varies]
    finite = np.isfinite(ratio)
    square = np.sum(ratio**2, axis=1, where=finite) / np.maximum(finite.sum(1), 1)
    return np.where(finite.any(1), np.sqrt(square), np.nan)


def _columns(adata: AnnData, features: str | Sequence[str] | None) -> NDArray[np.intp]:
    if features is None:
        return np.arange(adata.n_vars)
    names = [features] if isinstance(features, str) else list(dict.fromkeys(features))
    if not names:
        raise ValueError("features is empty: name at least one, or leave it out for all")
    found = adata.var_names.get_indexer(names)
    if (found < 0).any():
        unknown = [name for name, j in zip(names, found, strict=True) if j < 0]
        raise ValueError(f"no features {listing(unknown)} in the data.{nearest(unknown[0], adata.var_names)}")
    return found.astype(np.intp)


def _measured(adata: AnnData) -> NDArray[np.bool_]:
    """``(n,)`` which samples have the assay."""
    return np.asarray(adata.obs["source"] == "observed")
