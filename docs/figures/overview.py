"""Draw the figure of the landing page: python docs/figures/overview.py

A drawing, not data: samples that lack assays, the map of all of them, and values of an assay that was missing. Writes one
file for light and one for dark backgrounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

FOLDER = Path(__file__).parent
ASSAYS = ("RNA", "miRNA", "methylation", "proteins")
SAMPLES = 22
CLUSTERS = np.array([[-1.5, 0.2], [0.6, 1.1], [1.2, -0.7]])
VALUES = 9


class Look(NamedTuple):
    """Colours on one kind of background."""

    ink: str
    faint: str
    assays: tuple[str, str, str, str]


LOOKS = {
    "light": Look("#222222", "#9a9a9a", ("#0072B2", "#D55E00", "#009E73", "#B0568C")),
    "dark": Look("#e8e8e8", "#8c8c8c", ("#56B4E9", "#F08A3C", "#2EC79A", "#E39AC4")),
}


def presence(rng: np.random.Generator) -> np.ndarray:
    """``(assays, samples)``, True where measured; every sample keeps an assay."""
    measured = rng.random((len(ASSAYS), SAMPLES)) > np.array([[0.0], [0.15], [0.3], [0.45]])
    return measured[:, np.argsort(-measured.sum(0), kind="stable")]


def draw_assays(ax: Axes, measured: np.ndarray, look: Look) -> None:
    for row, column in np.ndindex(measured.shape):
        color = look.assays[row]
        seen = bool(measured[row, column])
        tile = Rectangle(
            (column + 0.1, row + 0.12), 0.8, 0.76, facecolor=color if seen else "none",
            edgecolor=color if seen else look.faint, linewidth=0.8, linestyle="-" if seen else (0, (1.5, 1.5)),
        )  # fmt: skip
        ax.add_patch(tile)
    ax.set(xlim=(0, SAMPLES), ylim=(len(ASSAYS), -0.05))
    for row, name in enumerate(ASSAYS):
        ax.text(-0.5, row + 0.5, name, ha="right", va="center", color=look.ink)
    ax.text(SAMPLES / 2, len(ASSAYS) + 0.05, "samples", ha="center", va="top", color=look.ink)


def draw_map(ax: Axes, measured: np.ndarray, look: Look, rng: np.random.Generator) -> None:
    cluster = np.arange(SAMPLES) % len(CLUSTERS)
    place = CLUSTERS[cluster] + 0.38 * rng.standard_normal((SAMPLES, 2))
    complete = measured.all(0)
    for k, marker in enumerate("os^"):
        for chosen, fill in ((complete, look.ink), (~complete, "none")):
            x, y = place[chosen & (cluster == k)].T
            ax.scatter(x, y, s=36, marker=marker, facecolor=fill, edgecolor=look.ink, linewidth=1.2)
    for x, fill, text in ((-2.3, look.ink, "has all assays"), (0.45, "none", "lacks some")):
        ax.scatter([x], [-2.25], s=36, facecolor=fill, edgecolor=look.ink, linewidth=1.2)
        ax.text(x + 0.25, -2.25, text, va="center", color=look.ink)
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.5, 2.3))


def draw_intervals(ax: Axes, look: Look, rng: np.random.Generator) -> None:
    half = np.array([0.35, 0.5, 0.4, 0.95, 0.6, 0.45, 1.1, 0.7, 0.5])
    mean = rng.uniform(-1.2, 1.2, VALUES)
    truth = mean + rng.uniform(-0.85, 0.85, VALUES) * half
    truth[5] = mean[5] + 1.5 * half[5]  # one in ten is to lie outside
    color = look.assays[3]
    ax.errorbar(mean, np.arange(VALUES), xerr=half, fmt="o", color=color, ms=5, lw=1.6)
    ax.plot(truth, np.arange(VALUES), "x", color=look.ink, ms=6, mew=1.4)
    ax.text(0, VALUES + 0.15, "predicted, 90 % interval", ha="center", va="center", color=color)
    ax.text(0, VALUES + 1.1, "× what a measurement would show", ha="center", va="center", color=look.ink)
    ax.set(xlim=(-2.6, 2.6), ylim=(VALUES + 1.6, -0.8))


def draw(look: Look) -> plt.Figure:
    rng = np.random.default_rng(4)
    measured = presence(rng)
    figure = plt.figure(figsize=(10.8, 3.0))
    places = {
        "Not every sample has every assay": 0.1,
        "One map of all samples": 0.415,
        "A missing assay, with intervals": 0.73,
    }
    axes = [figure.add_axes((left, 0.1, 0.24, 0.74)) for left in places.values()]
    draw_assays(axes[0], measured, look)
    draw_map(axes[1], measured, look, rng)
    draw_intervals(axes[2], look, rng)
    for ax, title in zip(axes, places, strict=True):
        ax.axis("off")
        ax.set_title(title, color=look.ink, fontsize=11.5, pad=8)
    for x in (0.38, 0.693):
        figure.text(x, 0.45, "→", color=look.ink, fontsize=26, ha="center", va="center")
    return figure


def main() -> None:
    matplotlib.use("Agg")
    plt.rcParams.update({"svg.hashsalt": "omicvae", "font.size": 9.5, "svg.fonttype": "path"})
    for name, look in LOOKS.items():
        figure = draw(look)
        figure.savefig(FOLDER / f"overview_{name}.svg", transparent=True, metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
