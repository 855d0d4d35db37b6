"""The page and figures of benchmarks/imputation.py, from its CSV.

Run: python benchmarks/imputation_page.py docs/benchmarks/imputation.csv docs/benchmarks
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from page_parts import provenance

LINEAR = ("ridge", "ridge per feature", "PCA + ridge", "PLS", "ProbabilisticCCA")
OURS = "CoVAE"
SHOWN = (0.74, 1.2)  # CRPS relative to ridge; smaller ones are written at the edge
COUNTS = {
    ("mirna", "brca"),
    ("mirna", "pancan6"),
    ("mirna", "pancancer"),
    ("protein", "citeseq"),
    ("rna", "snare"),
    ("atac", "snare"),
}
INTRODUCTION = """# Imputation of assays that were never measured

Written by `python benchmarks/imputation.py` (scores) and `python benchmarks/imputation_page.py` (this page). Each task
takes the samples that have its assays, splits them 80/20, and hides one assay of the test fifth altogether; every method
is fitted to the same training samples and scored on the same hidden values, standardised by the training samples (counts
as log counts per million before that). CRPS is in training standard deviations; lower is better. CoVAE is the default
(`omicvae.model.CoVAE(mdata)`, likelihoods proposed from the data): closed form and network, mixed where that is better on
samples neither has seen. Baselines are Gaussian, with standard deviations and interval widths from their own
cross-validated residuals; `training values` is the distribution of a feature's training values, the same for all samples,
which beats Gaussians where most counts are 0. What is not in a table has not been run.
"""


def is_count(task: str, target: str) -> bool:
    """Whether a target is counts, whose intervals cover more than asked for."""
    return (target, task.split()[0]) in COUNTS


def on_all(wide: pd.DataFrame, method: str) -> float:
    """Mean of a method's column; NaN unless it was run on all seeds, because seeds differ."""
    return float(wide[method].mean(skipna=False)) if method in wide else float("nan")


def over_closed_form(wide: pd.DataFrame) -> str:
    """By how much CoVAE's CRPS is below that of its closed form, over the seeds of both, and how many these are."""
    if "CoVAE closed form" not in wide:
        return ""
    both = wide[[OURS, "CoVAE closed form"]].dropna()
    if both.empty:
        return ""
    gain = 1 - both[OURS].mean() / both["CoVAE closed form"].mean()
    return f"{round(100 * gain, 1) + 0.0:.1f} % ({len(both)})"  # no -0.0


def comparison(table: pd.DataFrame) -> pd.DataFrame:
    """A row a direction: CRPS of CoVAE and of the best linear method, means over shared seeds."""
    rows = []
    for (task, sources, target), part in table.groupby(["task", "sources", "target"], sort=False):
        wide = part.pivot_table(index="seed", columns="method", values="crps")
        if OURS not in wide:
            continue
        wide = wide.dropna(subset=[OURS])
        linear = [m for m in LINEAR if m in wide and wide[m].notna().all()]
        means = wide[linear].mean()
        best = means.idxmin()
        own = part[part["method"] == OURS].set_index("seed").loc[wide.index]
        rows.append(
            {
                "task": task,
                "direction": f"{sources} → {target}",
                "n": int(own["n_train"].iloc[0]),
                "seeds": len(wide),
                "training values": on_all(wide, "training values"),
                "mean": on_all(wide, "mean"),
                "kNN": on_all(wide, "kNN"),
                "ridge": on_all(wide, "ridge"),
                "probabilistic CCA": on_all(wide, "ProbabilisticCCA"),
                "best linear": f"{means[best]:.4f} ({best})",
                "networks gain": over_closed_form(wide),
                "CoVAE": wide[OURS].mean(),
                "gain": 1 - wide[OURS].mean() / means[best],
                "lower in": f"{int((wide[OURS] < wide[best]).sum())}/{len(wide)}",
            }
        )
    return pd.DataFrame(rows)


def coverage(table: pd.DataFrame, columns: str, *, counts: bool) -> pd.DataFrame:
    """Coverage of CoVAE's intervals or of its PIT, means over seeds; standard errors are over seeds."""
    rows = []
    own = table[table["method"] == OURS]
    for (task, sources, target), part in own.groupby(["task", "sources", "target"], sort=False):
        if is_count(task, target) != counts:
            continue
        at = part[f"{columns}90"]
        gaps = [abs(part[g].mean() - 0.9) for g in ("group1", "group2")]
        row = {"task": task, "direction": f"{sources} → {target}", "seeds": len(part)}
        row |= {level: part[f"{columns}{level}"].mean() for level in ("50", "80", "90", "95")}
        row["90 s.e."] = at.std(ddof=1) / np.sqrt(len(at)) if len(at) > 1 else float("nan")
        row |= {"interval 90": part["coverage90"].mean()} if counts else {}
        row |= {"largest gap in a group": max(gaps), "sd hidden / measured": part["sd_ratio"].mean()}
        rows.append(row | ({"AUROC": part["auroc"].mean()} if counts else {}))
    return pd.DataFrame(rows)


def verdicts(continuous: pd.DataFrame, counts: pd.DataFrame) -> str:
    """Which directions miss the bands that the package aims for."""
    missed = []
    for frame, name in ((continuous, "coverage"), (counts, "PIT coverage")):
        for row in frame.to_dict("records"):
            where = f"{row['task'].split()[0]}, {row['direction']}"
            if not 0.88 <= row["90"] <= 0.92:
                missed.append(f"{where}: {name} at 90 is {row['90']:.3f}")
            for level in ("50", "80", "95"):
                if abs(row[level] - int(level) / 100) > 0.03:
                    missed.append(f"{where}: {name} at {level} is {row[level]:.3f}")
            if row["largest gap in a group"] > 0.05:
                missed.append(f"{where}: {row['largest gap in a group']:.3f} off within a group")
            if row["sd hidden / measured"] <= 1:
                missed.append(f"{where}: sd hidden / measured is {row['sd hidden / measured']:.3f}")
            if row.get("interval 90", 1) < 0.88:
                missed.append(f"{where}: interval coverage at 90 is {row['interval 90']:.3f}")
    return "Outside of these bands: " + ("; ".join(missed) if missed else "nothing") + "."


def detection(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over seeds of the AUROC of counts above 0, a column a direction."""
    known = table.dropna(subset=["auroc"])
    wide = known.assign(direction=known["sources"] + " → " + known["target"]).pivot_table(
        index="method", columns=["task", "direction"], values="auroc", sort=False
    )
    wide.columns = [f"{task}, {direction}" for task, direction in wide.columns]
    return wide.reset_index()


def versions(table: pd.DataFrame) -> str:
    """Which code each task was run with."""
    own = table[table["method"] == OURS].groupby("task", sort=False)["version"].unique()
    return "; ".join(f"{task} {', '.join(map(str, found))}" for task, found in own.items())


def markdown(frame: pd.DataFrame, digits: dict[str, int]) -> str:
    """A table of a page."""

    def cell(name: str, value: object) -> str:
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.{digits.get(name, 4)}f}"
        return str(value)

    lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * frame.shape[1]]
    for row in frame.itertuples(index=False):
        lines.append("| " + " | ".join(cell(n, v) for n, v in zip(frame.columns, row, strict=True)) + " |")
    return "\n".join(lines)


def figure_of_scores(table: pd.DataFrame, shown: set[tuple[str, str]], path: Path) -> None:
    """CRPS relative to ridge, a row a direction (task and direction) of those shown."""
    methods = ["PLS", "PCA + ridge", "kNN", "ridge per feature", "ProbabilisticCCA", "CoVAE closed form", OURS]
    colours = dict(
        zip(methods, ["#bbbbbb", "#999999", "#d8b365", "#5e81ac", "#7b5ea7", "#8fbc8f", "#c0392b"], strict=True)
    )
    methods = [m for m in methods if (table["method"] == m).any()]
    keys = dict.fromkeys(table[["task", "sources", "target"]].itertuples(index=False, name=None))
    keys = [(t, s, g) for t, s, g in keys if (t, f"{s} → {g}") in shown]
    figure, axes = plt.subplots(figsize=(7.5, 0.42 * len(keys) + 1.2), layout="constrained")
    for y, (task, sources, target) in enumerate(keys):
        part = table[(table["task"] == task) & (table["sources"] == sources) & (table["target"] == target)]
        ridge, beyond = part[part["method"] == "ridge"].set_index("seed")["crps"], 0
        for method in methods:
            own = part[part["method"] == method].set_index("seed")["crps"]
            ratio = (own / ridge).dropna()
            label = method if y == 0 else None
            if ratio.mean() < SHOWN[0]:
                x = SHOWN[0] + 0.008 + 0.06 * beyond
                axes.scatter(x, y, s=46, marker="<", color=colours[method])
                axes.text(x + 0.012, y, f"{ratio.mean():.2f}", va="center", fontsize=8, color=colours[method])
                beyond += 1
                continue
            axes.scatter(ratio, [y] * len(ratio), s=14, color=colours[method], alpha=0.5, linewidths=0)
            axes.scatter(ratio.mean(), y, s=46, color=colours[method], label=label, edgecolors="white", linewidths=0.7)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(range(len(keys)), [f"{t.split()[0]}: {s} → {g}" for t, s, g in keys])
    axes.invert_yaxis()
    axes.set_xlabel("CRPS relative to ridge (left is better)")
    axes.set_xlim(*SHOWN)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def figure_of_coverage(table: pd.DataFrame, path: Path) -> None:
    """Empirical against nominal coverage of CoVAE's intervals."""
    own = table[table["method"] == OURS]
    figure, axes = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    levels = [50, 80, 90, 95]
    axes.plot([45, 100], [45, 100], color="black", linewidth=0.8)
    for (task, _, target), part in own.groupby(["task", "sources", "target"], sort=False):
        count = is_count(task, target)
        column = "pit" if count else "coverage"
        axes.plot(
            levels, [100 * part[f"{column}{level}"].mean() for level in levels],
            marker="o", markersize=3.5, linewidth=1, color="#d08770" if count else "#c0392b",
            linestyle=":" if count else "-",
        )  # fmt: skip
    axes.plot([], [], color="#c0392b", label="continuous")
    axes.plot([], [], color="#d08770", linestyle=":", label="counts (PIT)")
    axes.set_xlabel("nominal coverage, %")
    axes.set_ylabel("hidden values inside, %")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Tables and figures."""
    folder.mkdir(parents=True, exist_ok=True)
    scores = comparison(table)
    continuous = coverage(table, "coverage", counts=False)
    counts = coverage(table, "pit", counts=True)
    blind = scores["training values"] < 1.01 * scores["CoVAE"]
    told = set(scores.loc[~blind, ["task", "direction"]].itertuples(index=False, name=None))
    figure_of_scores(table, told, folder / "imputation_crps.png")
    figure_of_coverage(table, folder / "imputation_coverage.png")
    lost = scores[scores["gain"] < 0]
    verdict = (
        "CoVAE has the lowest CRPS on every direction."
        if lost.empty
        else "Lost to the best linear method: "
        + "; ".join(f"{t}, {d} ({-100 * g:.1f} % worse)" for t, d, g in lost[["task", "direction", "gain"]].to_numpy())
        + ". On every other direction CoVAE has the lowest CRPS."
    )
    if blind.any():
        verdict += " Hardly anything is predicted, CRPS being within 1 % of that of training values or above it, on: "
        verdict += "; ".join(f"{t}, {d}" for t, d in scores.loc[blind, ["task", "direction"]].to_numpy())
        verdict += (
            ". What is gained there over Gaussian methods is the form of the distribution; the figure leaves them out."
        )
    seeds = table[table["method"] == OURS].groupby("task", sort=False)["seed"].nunique()
    hours = table.groupby(["task", "seed", "method"])["seconds"].max().sum() / 3600
    page = [
        INTRODUCTION,
        "Seeds of each task: " + ", ".join(f"{task} {n}" for task, n in seeds.items()) + ".\n",
        "Commits that CoVAE's rows are from: " + versions(table) + ".\n",
        provenance(Path(__file__).with_name("imputation.py"), hours, "wall"),
        "## CRPS\n",
        f"{verdict} `gain` is relative to the best of {', '.join(LINEAR)} that was run on all seeds; `lower in` counts seeds. `networks gain` is over CoVAE without them (seeds).\n",
        markdown(scores, {"gain": 3}),
        "\n![CRPS relative to ridge](imputation_crps.png)\n",
        "## Coverage\n",
        "Central intervals of CoVAE for hidden values. Aimed for: .88 to .92 at 90, within .03 of the others, within .05 of .90 in the "
        "two largest groups of the cohort (cancer type, subtype, cell type), a larger sd where the assay is hidden than where it is "
        f"given. {verdicts(continuous, counts)}\n",
        "### Continuous values\n",
        markdown(continuous, dict.fromkeys(continuous.columns, 3)),
        "\n### Counts and 0/1 values\n",
        "Intervals end at whole numbers, and cover more than asked for where values are small (`interval 90`). The other columns are "
        "shares of randomised probability integral transforms of the predictive distribution in the central part of (0, 1), which do "
        "not have this excess. AUROC: whether a feature is seen at all, for sparse features.\n",
        markdown(counts, dict.fromkeys(counts.columns, 3)),
        "\nAUROC of a count being above 0, mean over features:\n",
        markdown(detection(table), {}),
        "\n![Coverage](imputation_coverage.png)\n",
    ]
    (folder / "imputation.md").write_text("\n".join(page))


def main() -> None:
    """Read the CSV, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    write_page(pd.read_csv(arguments.csv), arguments.folder)


if __name__ == "__main__":
    main()
