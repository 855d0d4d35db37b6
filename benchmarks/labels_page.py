"""Page and figure of `labels.py`: goals, and the paper's tables beside our numbers."""

from __future__ import annotations

import os
from pathlib import Path

import labels
import matplotlib.pyplot as plt
import pandas as pd
from label_tasks import tasks
from page_parts import intro, markdown, provenance, spread

SYSTEMS = ("MVAE", "MoPoE", "MMVAE", "MMVAE++", "sup-MVAE", "sup-MoPoE", "sup-MMVAE", "sup-MMVAE++")
PAPER = {
    "CLL constructed": {
        "50 other genes": (".96", ".96", ".97", ".96", ".93", ".93", ".93", ".93"),
        "250 other genes": (".72", ".77", ".76", ".83", ".84", ".81", ".92", ".92"),
        "500 other genes": (".45", ".47", ".63", ".84", ".43", ".46", ".82", ".83"),
        "1000 other genes": (".45", ".51", ".43", ".62", ".42", ".51", ".61", ".78"),
    },
    "BRCA constructed": {
        "2+2+2": (".62", ".61", ".59", ".91", ".88", ".92", ".88", ".93"),
        "3+3+3": (".61", ".88", ".85", ".94", ".89", ".91", ".94", ".91"),
        "4+4+4": (".87", ".90", ".92", ".94", ".91", ".91", ".94", ".94"),
    },
    "RNA + ATAC constructed": {
        "10 other genes": (".68", ".98", ".97", ".98", ".99", ".99", ".99", ".99"),
        "100 other genes": (".61", ".82", ".87", ".97", ".99", ".99", ".99", ".99"),
        "1000 other genes": (".63", ".79", ".81", ".91", ".99", ".99", ".99", ".99"),
    },
}
PANELS_A_ROW = 4  # of the figure
ABOUT = {
    "CLL": "IGHV status of 184 leukaemia patients from drug responses and mutations, both measured. The mutation call of "
    "IGHV itself is left out; the other mutations say little about IGHV, so that little of it is shared.",
    "BRCA": "ER status and PAM50 class of 348 breast tumours of TCGA, 645 genes and 574 CpG sites. The goal of a label is "
    "the better of the two assays.",
    "BRCA mosaic": "The same labels; fitted to all 802 tumours with whatever they have of four assays, scored on tumours "
    "that have all.",
    "pancan6": "Type of 315 tumours (six types of TCGA), 5000 genes and 605 microRNAs.",
    "CITE-seq": "Types of 6661 blood cells, 1000 genes and 14 surface proteins, counts. The types were inferred from "
    "markers, proteins among them, so that proteins know them best.",
    "RNA + ATAC": "Cell types of the mouse cortex (SNARE-seq), counts; 1677 genes and the peaks seen in at least 100 cells.",
    "CLL constructed, semi-synthetic": "Tables 1 and S2 of the MMVAE++ paper: IGHV from 10 related and Q1 other genes, 10 related and 100 "
    "other CpG sites. **Expression and methylation are semi-synthetic**: drawn from a published linear factor model of the "
    "cohort, with the real labels. Their numbers are no reproduction of the paper's. With the csv files of MOFA in "
    "`OMICVAE_DATA/cll`, the measured values are used.",
    "BRCA constructed": "Tables 2 and S1: ER status from related and other features. The paper has 1000 + 500 genes and "
    "1000 + 25000 CpG sites of 479 tumours; here a fiftieth of each, 20 + 10 and 20 + 500, of the 348 tumours at hand.",
    "RNA + ATAC constructed, mouse cortex": "Table 3: one class of cells against the rest from 10 related and Q1 other genes, 10 related "
    "and 5000 other peaks. The paper has naive CD8 T cells of a blood multiome; here layer-6 neurons of the mouse cortex, "
    "whose peaks are far sparser: the ten best alone give an AUC of about .66. With a multiome in `OMICVAE_DATA/multiome` "
    "(matrix and table of cell types), that is used.",
    "CLL constructed": "Tables 1 and S2 of the MMVAE++ paper: IGHV from 10 related and Q1 other genes, 10 related and 100 "
    "other CpG sites, as measured.",
    "RNA + ATAC constructed": "Table 3: naive CD8 T cells against the rest from 10 related and Q1 other genes, 10 related "
    "and 5000 other peaks.",
}
SELECTED = (
    "Related features are those of highest absolute correlation with the label, other ones those of lowest, on training "
    "samples alone; the paper selects on all samples, test samples included, which flatters every number of a task with "
    "few samples. *As published*: shared and private latents, networks and label weight of the paper. In italics beside "
    "a number, that of the paper.\n"
)


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Tasks as they were begun; in each, peers before our defaults before the paper's settings, whatever was run last."""
    ours = [*labels.OURS, *(m for m in labels.DEFAULTS if m not in labels.OURS)]
    place = {method: 2 + k for k, method in enumerate(ours)}
    task = table["task"].map({name: k for k, name in enumerate(dict.fromkeys(table["task"]))})
    rest = table["method"].map(lambda m: 0 if m.startswith("PCA of ") else 1 if m in labels.REGRESSIONS else 99)
    keys = pd.DataFrame({"task": task, "method": table["method"].map(place).fillna(rest)})
    return table.loc[keys.sort_values(["task", "method"], kind="stable").index]


def missing(table: pd.DataFrame, folder: Path) -> str:
    """What the CSV lacks of the full plan."""
    found = set(table[["task", "setting"]].itertuples(index=False, name=None))
    lacking = [f"{t.name} ({t.setting})" for t in tasks(folder, False) if (t.name, t.setting) not in found]
    text = "\nA blank has not been run."
    return text + (f" Not run at all: {'; '.join(lacking)}." if lacking else "") + "\n"


def goals(table: pd.DataFrame, task: str) -> str:
    """Balanced accuracy of every method, given all assays and given one, beside the best single assay."""
    part = table[(table["task"] == task) & (table["score"] == "balanced accuracy")].copy()
    part["column"] = part["label"] + ", given " + part["given"]
    part["row"] = part["method"].where(part["latent"].isin(["shared", "features"]), part["method"] + ", joint latents")
    wide = part.pivot_table(index="row", columns="column", values="value", aggfunc=spread, sort=False).fillna("")
    lines = [markdown(wide)]
    for label, rows in part.groupby("label", sort=False):
        rows = rows[rows["given"] == labels.ALL]
        mean = rows.groupby(["method", "latent"])["value"].mean()
        peers = mean[[m.startswith("PCA of ") and not m.startswith("PCA of all") for m, _ in mean.index]]
        best = peers.max()
        shared = mean[[latent == "shared" for _, latent in mean.index]].droplevel("latent")
        reached = sorted(shared.index[shared >= best])
        text = f"shared latents that reach it: {', '.join(reached) if reached else 'none of those run'}"
        lines.append(f"\n{label}: the best single assay gives {best:.3f}; {text}.\n")
    seeds = part.groupby("row", sort=False)["seed"].nunique()
    several = f"{seeds.min()} to {seeds.max()}" if seeds.min() < seeds.max() else f"{seeds.max()}"
    lines.append(f"\nFolds run: {several} of 5. *Given* one assay: the others are missing in the test samples.\n")
    return "".join(lines)


def beside_paper(table: pd.DataFrame, task: str) -> str:
    """AUC, median over seeds, of every system and setting, the paper's beside it; R2 of related features."""
    part = table[(table["task"] == task) & (table["given"] == labels.ALL) & (table["score"] == "AUC")]
    part = part[part["latent"].isin(["shared", "features"])]
    wide = part.pivot_table(
        index="setting", columns="method", values="value", aggfunc=lambda v: spread(v, 2, "median"), sort=False
    ).fillna("")
    for setting, numbers in PAPER[task.split(",")[0]].items():
        if setting not in wide.index:
            continue
        for system, number in zip(SYSTEMS, numbers, strict=True):
            column = system if system.startswith("sup-") else f"{system} as published"
            if column in wide.columns and wide.loc[setting, column]:
                wide.loc[setting, column] = f"{wide.loc[setting, column]} *{number}*"
    r2 = table[(table["task"] == task) & table["score"].str.startswith("R2")]
    second = r2.pivot_table(
        index="method",
        columns=["setting", "score"],
        values="value",
        aggfunc=lambda v: spread(v, 2, "median"),
        sort=False,
    ).fillna("")
    second.columns = [f"{score}, {setting}" for setting, score in second.columns]
    text = "AUC of the label, median over folds:\n\n" + markdown(wide.T)
    return (
        text + "\nR2 of related features predicted from the other assay, median over features:\n\n" + markdown(second)
    )


def figure(table: pd.DataFrame, path: Path) -> None:
    """Balanced accuracy of shared latents, one panel a label, with the best single assay as a line."""
    part = table[(table["score"] == "balanced accuracy") & (table["given"] == labels.ALL)]
    part = part[~part["task"].str.contains("constructed")]
    panels = list(part.groupby(["task", "label"], sort=False))
    columns = min(PANELS_A_ROW, len(panels))
    n_rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(
        n_rows, columns, figsize=(3.1 * columns + 1, 3.2 * n_rows + 0.4), layout="constrained", squeeze=False
    )
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, ((task, label), rows) in zip(axes.flat, panels, strict=False):
        mean = rows.groupby(["method", "latent"], sort=False)["value"].mean().unstack()
        order = mean.index[::-1]
        single = [m for m in order if m.startswith("PCA of ") and not m.startswith("PCA of all")]
        axis.axvline(mean.loc[single, "features"].max(), color="0.6", lw=1, zorder=0)
        for latent, marker, colour in (("features", "s", "0.4"), ("shared", "o", "#0072b2"), ("joint", "D", "#d55e00")):
            if latent in mean:
                axis.plot(mean.loc[order, latent], range(len(order)), marker, color=colour, label=latent, markersize=5)
        axis.set(yticks=range(len(order)), title=f"{task}: {label}", xlabel="balanced accuracy", xlim=(0.2, 1.02))
        axis.set_yticklabels(order, fontsize=7)
        axis.spines[["top", "right"]].set_visible(False)
    handles, names = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, names, frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Write ``labels.md`` and ``labels.png``."""
    table = in_order(table)
    folder.mkdir(parents=True, exist_ok=True)
    figure(table, folder / "labels.png")
    hours = table.drop_duplicates(["task", "setting", "seed", "method"])["cpu_seconds"].sum() / 3600
    parts = [
        intro(labels.__doc__ or "", "Known classes in shared latents"),
        missing(table, Path(os.environ["OMICVAE_DATA"])),
    ]
    parts += ["\n" + provenance(Path(labels.__file__), hours), "\n```{image} labels.png\n```\n"]
    parts += ["\nGrey line: the best single assay. Its number is the goal for shared latents.\n"]
    for task in dict.fromkeys(table["task"]):
        parts += [f"\n## {task}\n\n{ABOUT[task]}\n\n"]
        if task.split(",")[0] in PAPER:
            parts += [SELECTED, "\n", beside_paper(table, task)]
        else:
            parts += [goals(table, task)]
    (folder / "labels.md").write_text("".join(parts))
