"""Page and figures of `correlated_mnist.py`: the figures of section 3.1 of the CoVAE paper, claim by claim."""

from __future__ import annotations

from pathlib import Path

import correlated_mnist
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from correlated_mnist_claims import claims
from digit_pairs import NAMES
from page_parts import intro, markdown, provenance, spread

TRUTH = correlated_mnist.TRUTH
COLOURS = {
    "CoVAE": "#0072b2",
    "CoVAE as published": "#d55e00",
    "CoVAE default": "#56b4e9",
    "DMVAE": "#009e73",
    "MMVAE+": "#cc79a7",
    "JMVAE": "#e69f00",
    "MVAE": "#999999",
}
TABLES = {  # title to scores, digits and a sentence
    "Correlation of decoder inputs (figures 5 and 10)": (
        ("joint correlation", "conditional correlation"),
        3,
        "Mean canonical correlation, latents drawn given both modalities, and given one (mean of both).",
    ),
    "Standard deviation of latents (figure 6)": (
        ("sd alone", "sd missing"),
        3,
        "Of the inputs of a decoder, given its own modality alone, and given the other alone. The prior's is 1; the truth's given "
        "the other is sqrt(1 - rho^2).",
    ),
    "Negative log-likelihood (figures 8 and 10)": (
        ("joint NLL", "conditional NLL"),
        1,
        "Nats a pair, and nats an image given the other. Models with learned noise (the last three) are on a scale of their own.",
    ),
    "Images of the missing modality (figure 7)": (
        ("error missing", "spread missing", "digit missing"),
        2,
        "*error*: squared error of the mean of 20 decoded draws, as a share of the images' variance; *spread*: sd of the draws over "
        "their error, 1 where uncertainty is true; *digit*: share of draws that a classifier of real digits reads as it reads the true "
        "image. The truth's are those of its own conditional distribution.",
    ),
    "Images of an observed modality": (
        ("error own", "spread own", "digit own"),
        2,
        "The same, decoded given the image itself alone, which has noise.",
    ),
    "Aggregated posterior and generation": (
        ("aggregated variance", "distance prior", "distance mixture"),
        2,
        "Variance of latents over training samples (1 is the prior's); Frechet distance of generated pairs from test pairs in "
        "principal components, as a share of their variance, with latents from the prior and from a mixture of Gaussians fitted to the "
        "aggregated posterior. The truth's is that of another sample.",
    ),
}
TERMS = ("joint NLL", "reconstruction", "prior", "posterior", "gap", "effective_draws", "prior dimensions")


def by_rho(table: pd.DataFrame, scores: tuple[str, ...], digits: int) -> str:
    """Methods by score and correlation, mean and sd over seeds."""
    rhos = sorted(table["rho"].unique())
    found = {}
    for method, rows in table.groupby("method", sort=False):
        cells = []
        for score in scores:
            for rho in rhos:
                values = rows.loc[(rows["score"] == score) & (rows["rho"] == rho), "value"]
                cells.append("" if values.empty else spread(values, digits))
        if any(cells):
            found[method] = cells
    columns = [f"{score}, {rho:g}" for score in scores for rho in rhos]
    return markdown(pd.DataFrame.from_dict(found, orient="index", columns=columns))


def terms(table: pd.DataFrame, rho: float) -> str:
    """Figures 14 and 15: what the joint likelihood is made of."""
    part = table[(table["rho"] == rho) & table["score"].isin(TERMS)]
    wide = part.pivot_table(index="method", columns="score", values="value", sort=False)
    wide = wide.reindex(columns=list(TERMS)).loc[lambda w: w["joint NLL"].notna()]
    return markdown(wide.map(lambda v: "" if np.isnan(v) else f"{v:.1f}"))


def curves(table: pd.DataFrame, path: Path) -> None:
    """Figures 5, 6 and 8 in one."""
    panels = (
        ("joint correlation", "conditional correlation"),
        ("sd alone", "sd missing"),
        ("joint NLL", "conditional NLL"),
    )
    figure, axes = plt.subplots(2, 3, figsize=(11, 6.2), layout="constrained")
    learned = [m for m, r in correlated_mnist.RECIPES.items() if not r.published]
    for column, pair in enumerate(panels):
        for axis, score in zip(axes[:, column], pair, strict=True):
            rows = table[(table["score"] == score) & ~table["method"].str.contains("10 latents")]
            if "NLL" in score:
                rows = rows[~rows["method"].isin(learned)]
            for method, part in rows.groupby("method", sort=False):
                mean = part.groupby("rho")["value"].mean()
                if method == TRUTH:
                    axis.plot(mean.index, mean, "x--", color="black", lw=1, markersize=5, label="truth", zorder=3)
                else:
                    style = (
                        {"color": COLOURS[method], "zorder": 2} if method in COLOURS else {"color": "0.8", "zorder": 1}
                    )
                    axis.plot(
                        mean.index, mean, "o-", markersize=4, **style, label=method if method in COLOURS else None
                    )
            axis.set(xlabel="correlation of the data's latents", ylabel=score, xlim=(0, 1))
            axis.spines[["top", "right"]].set_visible(False)
    axes[0, 0].plot([], [], "o-", color="0.8", markersize=4, label="other models")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def pictures(data: str, size: str, path: Path) -> bool:
    """Figure 7: three draws of the modality given, then the truth and three draws of the other; whether there are any."""
    stem = f"{data.replace(' ', '_')}_{size}"
    methods = [m for m in ("MVAE", "DMVAE", "CoVAE as published", "CoVAE") if m in correlated_mnist.RECIPES]
    files = {
        (rho, m): correlated_mnist.CACHE / f"{stem}_{rho}_{m.replace(' ', '_')}.npz"
        for rho in (0.9, 0.6)
        for m in methods
    }
    files = {key: file for key, file in files.items() if file.exists()}
    if not files:
        return False
    figure, axes = plt.subplots(len(files), 16, figsize=(10, 0.75 * len(files)), squeeze=False)
    for row, ((rho, method), file) in zip(axes, files.items(), strict=True):
        held = np.load(file)
        side = round(len(held[f"true {NAMES[1]}"][0]) ** 0.5)
        for pair in range(2):
            images = [held[f"true {NAMES[0]}"][pair]]
            images += [filled(draw[pair], held[f"at {NAMES[0]}"], side) for draw in held[f"own {NAMES[0]}"]]
            images += [held[f"true {NAMES[1]}"][pair]]
            images += [filled(draw[pair], held[f"at {NAMES[1]}"], side) for draw in held[f"missing {NAMES[1]}"]]
            for axis, image in zip(row[8 * pair : 8 * pair + 8], images, strict=True):
                axis.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=1)
        row[0].set_ylabel(f"{method}\nrho {rho:g}", rotation=0, ha="right", va="center", fontsize=8)
    for axis in axes.ravel():
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for pair in range(2):
        for k, title in ((0, "given"), (1, "drawn again"), (4, "hidden"), (5, "drawn")):
            axes[0, 8 * pair + k].set_title(title, fontsize=8, loc="left")
    figure.savefig(path, dpi=150, bbox_inches="tight")
    plt.close(figure)
    return True


def filled(pixels: np.ndarray, at: np.ndarray, side: int) -> np.ndarray:
    """An image with blank where pixels were left out."""
    image = np.zeros(side**2)
    image[at] = pixels
    return image


def ran(part: pd.DataFrame) -> str:
    """What has been run, and what has not."""
    models = part[part["method"] != TRUTH]
    counts = models.groupby(["rho", "method"])["seed"].nunique()
    lines, flow = [], part["data"].str.endswith("flow").all()
    for rho, rows in counts.groupby("rho"):
        rows = rows.droplevel("rho")
        most = rows.value_counts().idxmax()  # seeds of most models, which are not named
        named = [f"{n} of 5 seeds of {', '.join(rows.index[rows == n])}" for n in sorted(set(rows) - {most})]
        text = f"- rho {rho:g}: {'; '.join([*named[::-1], f'{most} of 5 seeds' + ' of all others' * bool(named)])}."
        wanted = [m for m, r in correlated_mnist.RECIPES.items() if not r.only or rho in r.only]
        wanted = list(correlated_mnist.FLOW_METHODS) if flow else wanted
        lacking = [m for m in wanted if m not in rows.index]
        lines.append(text + (f" Not run: {', '.join(lacking)}." if lacking else ""))
    lacking = [f"{rho:g}" for rho in correlated_mnist.RHO if rho not in set(models["rho"])]
    lines += [f"- Not run at all: rho {', '.join(lacking)}."] if lacking else []
    return "What has been run:\n\n" + "\n".join(lines) + "\n"


def section(part: pd.DataFrame, data: str, size: str, folder: Path, suffix: str) -> list[str]:
    """One data set at one size."""
    order = {m: i for i, m in enumerate([TRUTH, *correlated_mnist.RECIPES])}
    part = part.sort_values(["method", "rho", "seed"], key=lambda c: c.map(order) if c.name == "method" else c)
    curves(part, folder / f"correlated_mnist{suffix}.png")
    text = [f"\n## {data}, {size} size\n\n{ran(part)}\n```{{image}} correlated_mnist{suffix}.png\n```\n"]
    text += ["\n### What the paper says, and what is found\n\n", claims(part)]
    if pictures(data, size, folder / f"correlated_mnist_images{suffix}.png"):
        text += [f"\n```{{image}} correlated_mnist_images{suffix}.png\n```\n\nTwo pairs, first seed. Left to right: the image that is ",
                 "given, three decoded draws of it, the image that is hidden, three decoded draws of that.\n"]  # fmt: skip
    for title, (scores, digits, sentence) in TABLES.items():
        text += [f"\n### {title}\n\n{sentence}\n\n{by_rho(part, scores, digits)}"]
    for rho in (r for r in (0.3, 0.9) if r in set(part["rho"])):
        text += [f"\n### What the joint likelihood is made of, rho {rho:g} (figures 14 and 15)\n\n"]
        text += ["Means over pairs of reconstruction + prior - posterior + gap = - joint NLL.\n\n", terms(part, rho)]
    return text


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Write ``correlated_mnist.md`` and its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    hours = table.drop_duplicates(list(correlated_mnist.COLUMNS[:5]))["cpu_seconds"].sum() / 3600
    parts = [intro(correlated_mnist.__doc__ or "", "Correlated digits")]
    parts += ["\n" + provenance(Path(correlated_mnist.__file__), hours, seeds=table["seed"])]
    for i, ((data, size), part) in enumerate(table.groupby(["data", "size"], sort=False)):
        parts += section(part, data, size, folder, f"_{i}" if i else "")
    (folder / "correlated_mnist.md").write_text("".join(parts))
