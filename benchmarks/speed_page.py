"""The page of benchmarks/speed.py, from its CSV."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd

MACHINE = ("processor", "python", "torch", "scvi-tools", "omicvae", "GPU")
FLOOR_GOAL, PEER_GOAL = 1.15, 3.0
DECODINGS = "decodings"
"""Part whose ``cpu_ratio`` is how often a step decodes an assay."""


def table(frame: pd.DataFrame) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(frame.columns)} |", f"| {' | '.join('---' for _ in frame.columns)} |"]
    lines += [f"| {' | '.join(map(str, values))} |" for values in frame.itertuples(index=False)]
    return "\n".join(lines) + "\n"


def number(value: float, digits: int = 2) -> str:
    """A figure of a table."""
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def floors(rows: pd.DataFrame, ours: str, theirs: str) -> str:
    """Milliseconds a step and ratios."""
    shown = pd.DataFrame({"model": rows["model"], "features": rows["setting"], "batch": rows["batch"].astype(int)})
    for title, column in ((ours, "cpu_ms"), (theirs, "peer_cpu_ms")):
        shown[f"{title}, CPU ms a step"] = rows[column].map(lambda v: number(v, 1))
    shown["ratio, wall"], shown["ratio, CPU"] = rows["wall_ratio"].map(number), rows["cpu_ratio"].map(number)
    shown["pairs"] = rows["pairs"].astype(int)
    return table(shown)


def exponent(rows: pd.DataFrame) -> tuple[float, float]:
    """Slope of log CPU time on log size, over all sizes and over the largest three."""
    size, time = np.log(rows["setting"].astype(float)), np.log(rows["cpu_ms"])
    return float(np.polyfit(size, time, 1)[0]), float(np.polyfit(size[-3:], time[-3:], 1)[0])


def verdict(rows: pd.DataFrame) -> str:
    """Where the goal of the floor is missed."""
    missed = rows[rows[["wall_ratio", "cpu_ratio"]].min(axis=1) > FLOOR_GOAL]
    above = rows[rows["cpu_ratio"] > FLOOR_GOAL]
    if above.empty:
        return f"In processor time every ratio that was measured is at most the goal of {FLOOR_GOAL}.\n"
    words = ", ".join(f"{r.model} {r.setting} at batch {int(r.batch)} ({r.cpu_ratio:.2f})" for r in above.itertuples())
    tail = "" if len(missed) == len(above) else " The rest of these meet it in wall time."
    return f"Above the goal of {FLOOR_GOAL} in processor time: {words}.{tail}\n"


def missing(data: pd.DataFrame) -> str:
    """Which rows of the floor, and which other parts, the CSV does not have."""
    rows = data[data["part"] == "floor"]
    held = set(zip(rows["model"], rows["setting"], rows["batch"].astype(int), strict=True))
    wanted = list(product(("CoVAE", "MMVAE++"), ("50+30", "3217+383", "5000+2000"), (128, 512)))
    absent = [
        f"{model} {setting} at batch {batch}" for model, setting, batch in wanted if (model, setting, batch) not in held
    ]
    return f"Not measured yet: {', '.join(absent)}.\n" if absent else ""


def decoded(data: pd.DataFrame, multivi: pd.DataFrame) -> str:
    """What our steps do more than MULTIVI's."""
    counts = data[data["part"] == DECODINGS].set_index("model")["cpu_ratio"]
    rows = multivi[multivi["setting"] == "MULTIVI"].set_index("model")
    words = [
        f"{m} {n:.1f} times, at {n / rows.loc[m, 'cpu_ratio']:.1f} times the speed each" for m, n in counts.items()
    ]
    return (
        "A step of MULTIVI decodes every assay once, from the mean of what the assays say. Here it is also decoded from each "
        f"assay alone, which is what predicts it where it is missing: {', '.join(words)}.\n"
    ) * bool(words)


def peer_text(data: pd.DataFrame) -> str:
    """MULTIVI and mofapy2."""
    parts = []
    multivi = data[data["part"] == "multivi"]
    if len(multivi):
        shown = pd.DataFrame({"model": multivi["model"], "peer": multivi["setting"]})
        shown["ours, CPU s an epoch"] = (multivi["cpu_ms"] / 1e3).map(number)
        shown["peer's, CPU s an epoch"] = (multivi["peer_cpu_ms"] / 1e3).map(number)
        for kind in ("wall", "CPU"):
            shown[f"times as fast, {kind}"] = (1 / multivi[f"{kind.lower()}_ratio"]).map(number)
        slow = [f"{r.model} ({r.setting})" for r in multivi.itertuples() if 1 / r.cpu_ratio < PEER_GOAL]
        missed = f"The goal of {PEER_GOAL:.0f} times is missed by {', '.join(slow)}.\n" if slow else ""
        parts += [table(shown), missed, decoded(data, multivi)]
    else:
        parts.append("MULTIVI: not measured yet.\n")
    mofa = data[data["part"] == "mofapy2"]
    if len(mofa):
        one = mofa.iloc[0]
        parts.append(
            f"\nmofapy2 on BRCA (rna, methylation, mirna, rppa; 802 samples, 2159 features, assays missing; all standardised, "
            f"Gaussian, 16 factors): {one['peer_wall_ms'] / 1e3:.2f} s a sweep over all samples, CoVAE "
            f"{one['wall_ms'] / 1e3:.2f} s an epoch at batch 128; CoVAE is {1 / one['wall_ratio']:.2f} times as fast in wall "
            f"time, {1 / one['cpu_ratio']:.2f} times in processor time. A sweep updates every factor in closed form: how many "
            "of each a fit needs differs.\n"
        )
    else:
        parts.append("mofapy2: not measured yet.\n")
    return "\n".join(p for p in parts if p)


def page(data: pd.DataFrame, introduction: str) -> str:
    """Markdown of the whole page."""

    def part(name: str) -> pd.DataFrame:
        return data[data["part"] == name]

    lines = ["# Speed\n", introduction.strip().split("\n\n", 1)[1].replace("Run: ", "Written by `", 1) + "\n"]
    lines[1] = lines[1].replace("--write docs/benchmarks]", "--write docs/benchmarks]`", 1)
    known = [c for c in MACHINE if c in data and data[c].notna().any()]
    lines.append(
        "Measured on: " + "; ".join(f"{c} {', '.join(sorted(data[c].dropna().astype(str).unique()))}" for c in known)
    )
    load = data["load"].dropna()
    busy = f" Load average {load.min():.1f} to {load.max():.1f}: with other work on the machine times are longer and ratios " \
        "are what to read." if len(load) else ""  # fmt: skip
    lines[-1] += f"; {', '.join(sorted(data['date'].unique()))}.{busy}\n"
    if len(part("floor")):
        lines += [
            "## `train()` and a bare loop\n",
            "The bare loop has the data in memory, picks minibatches by `index_select`, and runs the same module, objective, "
            "optimiser, learning-rate schedule and clipping. It has no metrics, history, callbacks or Lightning. CoVAE is "
            "`backbone='network'`, MMVAE++ `screening=False`: what comes before and after the epochs is not in these figures. "
            "Simulated complete data; the first two epochs are left out.\n",
            floors(part("floor"), "train()", "bare loop"),
            verdict(part("floor")),
            missing(data),
        ]
    if len(part("profile")):
        wide = part("profile").pivot_table(index="model", columns="setting", values="cpu_ratio", sort=False)
        shown = wide.map(lambda v: f"{100 * v:.1f} %").reset_index(names="part of a step")
        lines += ["## Where the time goes\n", "Shares of the epochs of CoVAE at batch 128, by cProfile, which makes Python "
                  "look slower than it is.\n", table(shown)]  # fmt: skip
    if len(part("naive")):
        lines += [
            "## All passes stacked\n",
            "The bare loop with each decoder called once, beside one that decodes pass by pass. A ratio above 1 is what "
            "stacking saves.\n",
            floors(part("naive"), "pass by pass", "stacked"),
        ]
    lines += ["## Other programs\n",
              "SNARE-seq mouse cortex: 1024 cells, 1677 genes, the 5000 most open peaks, complete, RNA registered before ATAC; "
              "batch 128, two hidden layers of 128, 20 latents in all, negative binomial and Bernoulli likelihoods.\n",
              peer_text(data)]  # fmt: skip
    lines.append("## Growth\n")
    for what, fixed in (("samples", "300 features"), ("features", "640 samples")):
        rows = part(f"scaling {what}")
        if len(rows):
            whole, last = exponent(rows)
            times = ", ".join(f"{s}: {t / 1e3:.2f} s" for s, t in zip(rows["setting"], rows["cpu_ms"], strict=True))
            lines.append(
                f"Processor time of an epoch of CoVAE with {fixed}, by {what}: {times}. Exponent {whole:.2f}, over the "
                f"largest three {last:.2f} (1 is linear).\n"
            )
        else:
            lines.append(f"By {what}: not measured yet.\n")
    lines.append("## On a GPU\n")
    if len(part("gpu floor")):
        lines.append(floors(part("gpu floor"), "train()", "bare loop"))
        rows = part("gpu cells")
        rate = rows["setting"].astype(float) / (rows["wall_ms"] / 1e3)
        lines.append(table(pd.DataFrame({"cells": rows["setting"], "batch": rows["batch"].astype(int),
                                         "cells a second": rate.map(lambda v: f"{v:,.0f}")})))  # fmt: skip
    else:
        lines.append("Not measured: the machine had none.\n")
    return "\n".join(lines)
