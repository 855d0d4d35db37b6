"""The page of benchmarks/scale.py, from its CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from page_parts import intro, markdown, provenance

MEMORY_GOAL, SPEED_GOAL = 1.10, 0.7
MILLION = 1_000_000
TITLES = {"shards": "from shards", "memory": "in memory"}


def wide(rows: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """A row a size, a column a source."""
    return rows.pivot_table(index=by, columns="source", values=column)


RATES = {"epoch": "training", "latents": "latents"}


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells a second of processor time, in an epoch and while computing latents."""
    return rows.assign(epoch=rows["n_train"] / rows["epoch_cpu_s"], latents=rows["cells"] / rows["latents_cpu_s"])


def sizes(rows: pd.DataFrame, by: str) -> str:
    """Memory and throughput of every size."""
    rows, shown = rates(rows), pd.DataFrame(index=sorted(rows[by].unique()))
    titles = {"peak_mb": "peak, MB", "epoch": "an epoch, cells/s", "latents": "latents, cells/s"}
    for column, title in titles.items():
        for source, values in wide(rows.dropna(subset=column), by, column).items():
            shown[f"{title}, {TITLES[str(source)]}"] = values.map(lambda v: "not run" if np.isnan(v) else f"{v:,.0f}")
    shown["on disk, MB"] = rows.groupby(by)["disk_mb"].first().map(lambda v: f"{v:,.0f}")
    return markdown(shown.rename(index=lambda n: f"{n:,}").fillna("not run"), by)


def met(growth: float) -> str:
    """Whether memory grows little enough."""
    return "meets" if growth <= MEMORY_GOAL else "misses"


def memory_verdict(rows: pd.DataFrame, repeated: pd.DataFrame) -> str:
    """Growth of the peak, and what of it was there before the first minibatch.

    ``repeated``: the fewest cells, trained for as many minibatches as a million; empty where this does not apply.
    """
    shards = rows[rows["source"] == "shards"].set_index("cells").sort_index()
    if len(shards) < 2:
        return "One size only: growth of memory was not measured.\n"
    first, last = shards.iloc[0], shards.iloc[-1]
    growth = last["peak_mb"] / first["peak_mb"]
    verdict = f"which {met(growth)} the goal of {MEMORY_GOAL:.2f}"
    if shards.index[-1] < MILLION:
        verdict = f"where the goal is {MEMORY_GOAL:.2f} from 10,000 to a million"
    if not repeated.empty:
        longer = repeated.iloc[0]["peak_mb"]
        again = last["peak_mb"] / longer
        verdict += (
            f". The former was trained for one epoch, the latter for more minibatches; trained for as many, the former has a peak of "
            f"{longer:,.0f} MB, and the factor is {again:.2f}, which {met(again)} it (a comparison added after the first had "
            "missed). Peaks are of one run each and vary between runs"
        )
    held = last["held_mb"] - first["held_mb"]
    before = (
        "" if np.isnan(held) else f" {held:,.0f} MB more are there before the first minibatch: names and positions."
    )
    return (
        f"From {shards.index[0]:,} to {shards.index[-1]:,} cells the peak from shards grows by a factor of {growth:.2f} "
        f"({last['peak_mb'] - first['peak_mb']:,.0f} MB), {verdict}.{before} Opening the store has a peak that "
        f"grows by {last['opened_mb'] - first['opened_mb']:,.0f} MB, of which what reading names took is then returned.\n"
    )


def speed_verdict(rows: pd.DataFrame, part: str) -> str:
    """Throughput from shards beside that in memory."""
    words = []
    for column, what in RATES.items():
        pair = wide(rates(rows).dropna(subset=column), "cells", column)
        if {"shards", "memory"} <= set(pair):
            ratio = (pair["shards"] / pair["memory"]).dropna()
            listed = ", ".join(f"{r:.2f} at {n:,}" for n, r in ratio.items())
            verdict = f": the goal of {SPEED_GOAL} is {'met' if ratio.min() >= SPEED_GOAL else 'missed'}"
            name = what if part == "train" else "minibatches alone"
            words.append(
                f"Throughput of {name} from shards over that in memory: {listed}{verdict * (part == 'train')}."
            )
    return " ".join(words) + "\n"


def exponents(rows: pd.DataFrame, by: str) -> str:
    """Slope of log processor time on log size."""
    words = []
    for source, part in rows.groupby("source"):
        for column, what in (("epoch", "an epoch"), ("train", "all of `train()`"), ("latents", "latents")):
            whole = part if column == "latents" else part[part["n_train"] > part["cells"] / 2]  # epochs
            known = whole.dropna(subset=f"{column}_cpu_s").sort_values(by)
            if known[by].nunique() > 1:
                slope = np.polyfit(np.log(known[by]), np.log(known[f"{column}_cpu_s"]), 1)[0]
                words.append(f"{what} {TITLES[str(source)]} {slope:.2f}")
    return f"Exponent of processor time in {by} (1 is linear): {', '.join(words)}.\n" if words else ""


def section(data: pd.DataFrame, part: str, title: str, usual: int) -> list[str]:
    """What was measured of one part."""
    rows = data[data["part"] == part]
    if rows.empty:
        return [f"## {title}\n", "Not measured yet.\n"]
    cells, features = rows[rows["features"] == usual], rows[rows["cells"] == rows["cells"].min()]
    repeated = data[(data["part"] == "steps") & (part == "train") & (cells["cells"].max() >= MILLION)]
    lines = [f"## {title}\n", sizes(cells, "cells"), memory_verdict(cells, repeated), speed_verdict(cells, part)]
    lines.append(exponents(cells, "cells"))
    if features["features"].nunique() > 1:
        lines += [sizes(features, "features"), exponents(features, "features")]
    return lines


def page(data: pd.DataFrame, introduction: str, script: Path, usual: int) -> str:
    """Markdown of the whole page; ``usual`` is the number of features unless they are varied."""
    for column in ("train_cpu_s", "latents_cpu_s", "held_mb"):
        data[column] = data.get(column, np.nan)
    hours = data["train_cpu_s"].fillna(data["epoch_cpu_s"]).add(data["latents_cpu_s"], fill_value=0).sum() / 3600
    lines = [
        intro(introduction, "Scale"),
        provenance(script, hours),
        f"Load average {data['load'].min():.1f} to {data['load'].max():.1f}: rates are by processor time, which other work on "
        "the machine changes less than wall time.\n",
        *section(data, "train", "Training and latents", usual),
        *section(data, "loader", "Minibatches alone", usual),
    ]
    trained = data.loc[data["part"] == "train", "cells"]
    absent = [] if MILLION in set(trained) else ["training on a million cells (`--million`)"]
    absent += [] if data["features"].nunique() > 1 else ["other numbers of features (`--features`)"]
    return "\n".join([*lines, f"Not measured yet: {' and '.join(absent)}.\n" if absent else ""])
