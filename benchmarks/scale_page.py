"""The page of benchmarks/scale.py, from its CSV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from page_parts import intro, markdown, provenance

MEMORY_GOAL, SPEED_GOAL = 1.10, 0.7
TITLES = {"shards": "from shards", "memory": "in memory"}


def wide(rows: pd.DataFrame, by: str, column: str) -> pd.DataFrame:
    """A row a size, a column a source."""
    return rows.pivot_table(index=by, columns="source", values=column)


def rates(rows: pd.DataFrame) -> pd.DataFrame:
    """Samples a second of processor time, while training and while computing latents."""
    return rows.assign(
        epoch_rate=rows["n_train"] / rows["epoch_cpu_s"], latents_rate=rows["cells"] / rows["latents_cpu_s"]
    )


def sizes(rows: pd.DataFrame, by: str) -> str:
    """Memory and throughput of every size."""
    rows, shown = rates(rows), pd.DataFrame(index=sorted(rows[by].unique()))
    for title, column in (
        ("peak, MB", "peak_mb"),
        ("training, cells/s", "epoch_rate"),
        ("latents, cells/s", "latents_rate"),
    ):
        for source, values in wide(rows, by, column).items():
            shown[f"{title}, {TITLES[str(source)]}"] = values.map(lambda v: f"{v:,.0f}")
    shown["on disk, MB"] = rows.groupby(by)["disk_mb"].first().map(lambda v: f"{v:,.0f}")
    return markdown(shown.rename(index=lambda n: f"{n:,}").fillna("not run"), by)


def memory_verdict(rows: pd.DataFrame) -> str:
    """Growth of the peak, and what of it was there before training."""
    shards = rows[rows["source"] == "shards"].set_index("cells").sort_index()
    first, last = shards.index[0], shards.index[-1]
    if first == last:
        return "One size only: growth of memory was not measured.\n"
    growth = shards["peak_mb"].iloc[-1] / shards["peak_mb"].iloc[0]
    opened = shards["opened_mb"].iloc[-1] - shards["opened_mb"].iloc[0]
    more = shards["peak_mb"].iloc[-1] - shards["peak_mb"].iloc[0]
    met = "meets" if growth <= MEMORY_GOAL else "misses"
    return (
        f"From {first:,} to {last:,} cells the peak from shards grows by a factor of {growth:.2f} ({more:,.0f} MB), which {met} "
        f"the goal of {MEMORY_GOAL:.2f} over that range; {opened:,.0f} MB of it are there as soon as the store is open: names "
        "and indices.\n"
    )


def speed_verdict(rows: pd.DataFrame) -> str:
    """Throughput from shards beside that in memory."""
    rows, words = rates(rows), []
    for what, column in (("training", "epoch_rate"), ("latents", "latents_rate")):
        pair = wide(rows, "cells", column)
        if not {"shards", "memory"} <= set(pair):
            continue
        ratio = (pair["shards"] / pair["memory"]).dropna()
        met = "meets" if ratio.min() >= SPEED_GOAL else "misses"
        listed = ", ".join(f"{r:.2f} at {n:,}" for n, r in ratio.items())
        words.append(
            f"Throughput of {what} from shards over that in memory: {listed}; it {met} the goal of {SPEED_GOAL}."
        )
    return " ".join(words) + "\n"


def exponents(rows: pd.DataFrame, by: str) -> str:
    """Slope of log processor time on log size."""
    words = []
    for source, part in rows.groupby("source"):
        part = part.sort_values(by)
        if len(part) > 1:
            for what, column in (
                ("an epoch", "epoch_cpu_s"),
                ("all of train()", "train_cpu_s"),
                ("latents", "latents_cpu_s"),
            ):
                slope = np.polyfit(np.log(part[by]), np.log(part[column]), 1)[0]
                words.append(f"{what} {TITLES[str(source)]} {slope:.2f}")
    return f"Exponent of processor time in {by} (1 is linear): {', '.join(words)}.\n" if words else ""


def page(data: pd.DataFrame, introduction: str, script: Path) -> str:
    """Markdown of the whole page."""
    usual = (
        data["features"].mode()[0]
        if data["cells"].nunique() < 2
        else data.groupby("features")["cells"].nunique().idxmax()
    )
    cells, features = data[data["features"] == usual], data[data["cells"] == data["cells"].min()]
    hours = data[["train_cpu_s", "latents_cpu_s"]].to_numpy().sum() / 3600
    load = f"Load average {data['load'].min():.1f} to {data['load'].max():.1f}"
    lines = [
        intro(introduction, "Scale"),
        provenance(script, hours),
        f"{load}: times are processor time, which other work on the machine changes less than wall time.\n",
        f"## By cells, {usual:,} features\n",
        sizes(cells, "cells"),
        memory_verdict(cells),
        speed_verdict(cells),
        exponents(cells, "cells"),
        "## By features\n",
    ]
    if features["features"].nunique() > 1:
        lines += [sizes(features, "features"), exponents(features, "features")]
    else:
        lines.append("Not measured yet (`--features`).\n")
    if 1_000_000 not in set(data["cells"]):
        lines.append("A million cells: not measured yet (`--million`).\n")
    return "\n".join(lines)
