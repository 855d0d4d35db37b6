"""Page and figure of `pancancer.py`: the tables of section 3.2 of the CoVAE paper, ours beside theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pancancer
import pandas as pd
from page_parts import intro, markdown, provenance, spread

# Columns: precision, NMI, ARI, joint NLL
TABLE_1 = {
    "MVAE": (0.901, 0.899, 0.844, 3839.3),
    "MVTCAE": (0.905, 0.903, 0.850, 3837.6),
    "MMVAE": (0.865, 0.857, 0.780, 3859.9),
    "MoPoE": (0.918, 0.918, 0.875, 3865.6),
    "JMVAE": (0.892, 0.891, 0.831, 3846.3),
    "DMVAE": (0.832, 0.838, 0.738, None),
    "MMVAE+": (0.881, 0.880, 0.814, 3431.3),
    "CoVAE as published": (0.893, 0.891, 0.834, 3856.8),
}
# Columns: MAE mRNA -> miRNA and back, types likewise, NLL of miRNA given mRNA and back
TABLE_2 = {
    "MVAE": (0.639, 0.563, 0.832, 0.784, 448.4, 3466.3),
    "MVTCAE": (0.623, 0.582, 0.690, 0.739, 444.1, 3462.3),
    "MMVAE": (0.465, 0.618, 0.786, 0.815, 442.8, 3445.2),
    "MoPoE": (0.460, 0.406, 0.926, 0.927, 448.3, 3457.0),
    "JMVAE": (0.479, 0.441, 0.935, 0.938, 433.4, 3433.3),
    "DMVAE": (0.575, 0.751, 0.891, 0.904, None, None),
    "MMVAE+": (0.468, 0.472, 0.916, 0.911, 445.1, 3448.0),
    "CoVAE as published": (0.473, 0.406, 0.914, 0.860, 429.0, 3442.3),
}
# Columns: Spearman mRNA -> miRNA and back, joint mRNA, joint miRNA
TABLE_3 = {
    "MVAE": (0.432, 0.578, 0.788, 0.742),
    "MVTCAE": (0.465, 0.547, 0.787, 0.749),
    "MMVAE": (0.685, 0.705, 0.704, 0.695),
    "MoPoE": (0.691, 0.758, 0.781, 0.716),
    "JMVAE": (0.668, 0.723, 0.782, 0.735),
    "DMVAE": (0.531, 0.284, 0.788, 0.740),
    "MMVAE+": (0.682, 0.736, 0.758, 0.701),
    "CoVAE as published": (0.684, 0.757, 0.779, 0.723),
}
NOTES = """
"Precision" is the share of samples whose cancer type is predicted (the paper's formula). NLL is importance-weighted (300
draws, 300 test samples), conditional NLL the joint minus that of the source. *Type a -> b*: a classifier trained on latents
given a alone, scored on latents of test samples given b alone. The two default models and ProbabilisticCCA have learned noise
scales, so their NLL is not on the scale of the others, which have unit noise; that of the two default models leaves out features
that are constant among training samples. Where the paper's setting is not that of this
run: hidden layers are 256-256-256 with layer normalisation (paper: 512-256-128 and 128-64, batch normalisation); MMVAE and
MMVAE+ take normal posteriors and one sample (MultiVae's defaults: Laplace, ten samples); the learning rate is constant.
Numbers that MultiVae's estimators get wrong (the joint NLL of MMVAE+ leaves out an assay; those of MMVAE and MoPoE depend on
the batch) are no target. In italics beside a number, that of the
paper, on its own data.
"""


def sections(first: str, second: str) -> dict[str, tuple[list[str], dict, list[int]]]:
    """Title to scores, the paper's table, and digits; the assays in the order of the paper."""
    ab, ba = f"{first} -> {second}", f"{second} -> {first}"
    nll = [f"NLL {second} | {first}", f"NLL {first} | {second}"]
    tables = {
        "Table 1: cancer types and likelihood, given both assays": (
            ["precision", "NMI", "ARI", "joint NLL"],
            TABLE_1,
            [3, 3, 3, 1],
        ),
        "Table 2: given one assay": (
            [f"MAE {ab}", f"MAE {ba}", f"type {ab}", f"type {ba}", *nll],
            TABLE_2,
            [3, 3, 3, 3, 1, 1],
        ),
        "Table 3: Spearman correlation, mean over features": (
            [f"Spearman {ab}", f"Spearman {ba}", f"Spearman joint {first}", f"Spearman joint {second}"],
            TABLE_3,
            [3, 3, 3, 3],
        ),
    }
    return tables


def one_table(table: pd.DataFrame, scores: list[str], paper: dict, digits: list[int]) -> str:
    """Ours, and beside it the paper's in italics."""
    found = {}
    for method, rows in table.groupby("method", sort=False):
        cells = []
        for i, (score, places) in enumerate(zip(scores, digits, strict=True)):
            values = rows.loc[rows["score"] == score, "value"]
            theirs = paper.get(method, [None] * len(scores))[i]
            cells.append(
                ("" if values.empty else spread(values, places)) + ("" if theirs is None else f" *{theirs:.{places}f}*")
            )
        if any(rows["score"].isin(scores)):
            found[method] = cells
    return markdown(pd.DataFrame.from_dict(found, orient="index", columns=scores))


def figure(table: pd.DataFrame, first: str, second: str, path: Path) -> None:
    """Figure 9: distribution over features of rank correlations, joint above and conditional below."""
    settings = [
        [f"Spearman joint {first}", f"Spearman joint {second}"],
        [f"Spearman {second} -> {first}", f"Spearman {first} -> {second}"],
    ]
    methods = [m for m in dict.fromkeys(table["method"]) if not m.startswith("PCA of")]
    fig, axes = plt.subplots(2, 1, figsize=(9, 5.6), sharex=True, layout="constrained")
    for axis, pair, title in zip(axes, settings, ("given both assays", "given the other assay"), strict=True):
        for score, shift, colour in zip(pair, (-0.2, 0.2), ("#0072b2", "#d55e00"), strict=True):
            for i, method in enumerate(methods):
                rows = table[(table["method"] == method) & table["score"].str.startswith(f"{score} 0.")]
                rows = pd.concat([rows, table[(table["method"] == method) & (table["score"] == f"{score} 1.00")]])
                if rows.empty:
                    continue
                quantiles = rows.groupby("score")["value"].mean().sort_values().to_numpy()
                body = axis.violinplot([quantiles], [i + shift], widths=0.38, showmedians=True, showextrema=False)
                body["bodies"][0].set(facecolor=colour, alpha=0.6)
                body["cmedians"].set(color="black", lw=1)
            axis.plot([], [], "s", color=colour, label=first if score == pair[0] else second)
        axis.axhline(0, color="0.6", lw=1, zorder=0)
        axis.set(title=title, ylabel="Spearman correlation")
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8)
    axes[1].set_xticks(range(len(methods)), methods, rotation=35, ha="right", fontsize=8)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def runs(table: pd.DataFrame) -> Iterator[tuple[tuple[str, int], pd.DataFrame]]:
    """Data and epochs to the rows that belong together; what is not trained as published belongs to all."""
    for what, rows in table.groupby("data", sort=False):
        always = rows[rows["epochs"] == 0]
        for epochs in sorted(set(rows["epochs"]) - {0}) or [0]:
            yield (what, epochs), pd.concat([always, rows[(rows["epochs"] == epochs) & (epochs > 0)]])


def ran(part: pd.DataFrame, epochs: int) -> str:
    """What has been run, and what has not."""
    seeds = part.groupby("method", sort=False)["seed"].nunique()
    text = (
        f"Seeds: {seeds.min()} to {seeds.max()} of 5." if seeds.min() < seeds.max() else f"Seeds: {seeds.max()} of 5."
    )
    lacking = [name for name in (*pancancer.REGRESSIONS, *pancancer.RECIPES) if name not in seeds.index]
    text += f" Models of the paper were trained for {epochs} epochs." if epochs else ""
    return text + (f" Not run: {', '.join(lacking)}." if lacking else "") + "\n"


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Write ``pancancer.md`` and ``pancancer.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    hours = table.drop_duplicates(["data", "epochs", "seed", "method"])["cpu_seconds"].sum() / 3600
    parts = [intro(pancancer.__doc__ or "", "Pan-cancer cohort")]
    for i, ((what, epochs), part) in enumerate(runs(table)):
        first, second = ("rna", "mirna") if what == "MLOmics" else ("cnv", "mirna")  # copy number in the place of mRNA
        name = f"pancancer{i or ''}.png"
        figure(part, first, second, folder / name)
        parts += [f"\n## {what}\n\n{ran(part, epochs)}"]
        parts += [f"\n{provenance(Path(pancancer.__file__), hours)}", f"\n```{{image}} {name}\n```\n", NOTES]
        for title, (scores, paper, digits) in sections(first, second).items():
            parts += [f"\n### {title}\n\n{one_table(part, scores, paper, digits)}"]
        correlation = part[part["score"] == "prior correlation"].groupby("method")["value"]
        for method, values in correlation:
            theirs = " (paper, mRNA and miRNA: .78)" if method in TABLE_1 else ""
            parts += [f"\n{method}: mean correlation between the assays in the prior {spread(values)}{theirs}.\n"]
    (folder / "pancancer.md").write_text("".join(parts))
