"""Do tests on partly imputed values keep their level, and what do imputed samples add to their power?

Run: python benchmarks/association.py [--seeds 0 1 2 ...] [--small] [--write docs/benchmarks]

Simulator: two groups of 100 samples; 40 features ``x`` measured in all, 30 features ``y`` in half of the first group and a
fifth of the second. Both assays share 8 factors (70 % of the variance of ``y``); ``x`` has 4 private ones and noise. The
model is CoVAE in closed form, fitted anew for every seed; it does not know the groups.

Scenarios: in ``random`` the groups are labels without a meaning; in ``private`` they differ by 3 standard deviations in
a private factor of ``x``, and not in ``y``; in ``effect`` by 0.6 in a shared factor, so that ``y`` differs as its
loadings have it; ``private, unmeasured`` and ``effect, unmeasured`` are the same with ``y`` measured in no sample of the
second group.

Tests: ``complete`` has all values of ``y``, which nobody has; ``measured`` leaves samples without ``y`` out; ``means as
data`` takes imputed means for measurements; ``plain draws`` pools 20 draws of the model by Rubin's rules; ``association`` is
``omicvae.tl.association``.

Columns: ``rejected`` is the share of features with p < .05 (``rejected 1%``: p < .01), to be .05 (.01) where groups do not
differ; ``coverage`` is how many 95 % intervals hold the true difference; ``error`` and ``se`` are root mean squares of
the estimate's error and of its standard error. Over seeds, ``rejected`` has the standard error in brackets.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from pathlib import Path

import anndata
import mudata
import numpy as np
import pandas as pd
import scvi
import torch
from page_parts import intro, provenance
from scipy import stats

import omicvae
from omicvae.stats.multiple_imputation import least_squares, pool

N, N_X, N_Y, FACTORS, PRIVATE, SHARED = 200, 40, 30, 8, 4, 0.7
MEASURED = {"": (0.5, 0.2), ", unmeasured": (0.5, 0.0)}
SCENARIOS = ("random", "private", "effect", "private, unmeasured", "effect, unmeasured")
METHODS = ("complete", "measured", "means as data", "plain draws", "association")
N_IMPUTATIONS = 20


def simulate(scenario: str, seed: int) -> tuple[mudata.MuData, np.ndarray, np.ndarray]:
    """Data, all values of y, and the true differences."""
    rng = np.random.default_rng([seed, SCENARIOS.index(scenario)])
    kind, _, hidden = scenario.partition(",")
    group = np.repeat([0, 1], N // 2)
    shared, private = rng.standard_normal((N, FACTORS)), rng.standard_normal((N, PRIVATE))
    shared[:, 0] += 0.6 * group * (kind == "effect")
    private[:, 0] += 3 * group * (kind == "private")
    weights = rng.standard_normal((FACTORS + PRIVATE, N_X)) / np.sqrt(FACTORS)
    x = np.hstack([shared, private]) @ weights + 0.5 * rng.standard_normal((N, N_X))
    loadings = rng.standard_normal((FACTORS, N_Y))
    loadings *= np.sqrt(SHARED) / np.linalg.norm(loadings, axis=0)
    y = shared @ loadings + np.sqrt(1 - SHARED) * rng.standard_normal((N, N_Y))
    share = MEASURED[", unmeasured" if hidden else ""]
    measured = np.concatenate([rng.permutation(N // 2) < round(s * N / 2) for s in share])
    names = np.array([f"s{i}" for i in range(N)])
    parts = {"x": (x, names), "y": (y[measured], names[measured])}
    mdata = mudata.MuData(
        {m: anndata.AnnData(v.astype(np.float32), obs=pd.DataFrame(index=i)) for m, (v, i) in parts.items()}
    )
    mdata.obs["group"] = pd.Series(np.where(group == 1, "b", "a"), index=names).reindex(mdata.obs_names)
    return mdata, pd.DataFrame(y, index=names).loc[mdata.obs_names].to_numpy(), 0.6 * loadings[0] * (kind == "effect")


def run(scenario: str, seed: int) -> list[dict[str, object]]:
    """One row a method: means over features."""
    mdata, complete, truth = simulate(scenario, seed)
    scvi.settings.seed = seed
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"x": "normal", "y": "normal"})
    model = omicvae.model.CoVAE(mdata, backbone="moments")
    model.train(enable_progress_bar=False)
    member = (mdata.obs["group"] == "b").to_numpy()
    has = mdata.obs_names.isin(mdata["y"].obs_names)
    design = np.column_stack([member, np.ones(N)]).astype(float)

    def tested(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        found = pool(least_squares(values[:, rows], np.ones((rows.sum(), N_Y), bool), design[rows]))
        return found.estimate, found.se, found.df, found.pvalue

    everyone = np.ones(N, bool)
    means, draws = complete.copy(), np.repeat(complete[None], N_IMPUTATIONS, axis=0)
    lacking = np.flatnonzero(~has)
    means[lacking] = model.impute("y", indices=lacking, level=None).X
    draws[:, lacking] = model.sample("y", indices=lacking, n_samples=N_IMPUTATIONS)
    table = omicvae.tl.association(mdata, model, "y", "group", groups=["b"], reference="a", n_imputations=N_IMPUTATIONS)
    unmeasured = np.full((4, N_Y), np.nan)
    found = {
        "complete": tested(complete[None], everyone),
        "measured": tested(complete[None], has) if (has & member).any() else tuple(unmeasured),
        "means as data": tested(means[None], everyone),
        "plain draws": tested(draws, everyone),
        "association": tuple(table[c].to_numpy() for c in ("estimate", "se", "df", "pvalue")),
    }
    return [summarise(scenario, seed, method, truth, *found[method]) for method in METHODS]


def summarise(
    scenario: str, seed: int, method: str, truth: np.ndarray, estimate: np.ndarray, se: np.ndarray, df: np.ndarray,
    pvalue: np.ndarray,
) -> dict[str, object]:  # fmt: skip
    error = estimate - truth
    blank = np.nan if np.isnan(estimate).all() else 1.0
    return {
        "scenario": scenario,
        "seed": seed,
        "method": method,
        "rejected": (pvalue < 0.05).mean() * blank,
        "rejected 1%": (pvalue < 0.01).mean() * blank,
        "coverage": (np.abs(error) < stats.t.ppf(0.975, df) * se).mean() * blank,
        "error": (error**2).mean(),
        "se": (se**2).mean(),
    }


def averages(table: pd.DataFrame) -> pd.DataFrame:
    """Over seeds."""
    by = table.groupby(["scenario", "method"], sort=False)
    mean = by.mean(numeric_only=True).drop(columns="seed")
    mean[["error", "se"]] **= 0.5
    mean.insert(1, "standard error", by["rejected"].sem())
    return mean.reset_index()


def report(table: pd.DataFrame, folder: Path, seconds: float) -> None:
    """Write the table, a figure and a page."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    mean = averages(table)
    mean.to_csv(folder / "association.csv", index=False, float_format="%.4f")
    figure, axes = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    colours = dict(zip(METHODS, ("#999999", "#56b4e9", "#d55e00", "#e69f00", "#0072b2"), strict=True))
    for axis, column, level, label in (
        (axes[0], "rejected", 0.05, "share of features with p < .05"),
        (axes[1], "coverage", 0.95, "coverage of 95 % intervals"),
    ):
        for i, method in enumerate(METHODS):
            rows = mean[mean["method"] == method].set_index("scenario").loc[list(SCENARIOS)]
            at = np.arange(len(SCENARIOS)) + (i - 2) * 0.16
            error = 2 * rows["standard error"] if column == "rejected" else None
            axis.bar(at, rows[column], 0.15, color=colours[method], label=method, yerr=error, error_kw={"lw": 0.8})
        axis.axhline(level, color="0.3", lw=1, ls="--")
        axis.set_xticks(range(len(SCENARIOS)), [s.replace(", ", ",\n") for s in SCENARIOS], fontsize=8)
        axis.set(ylabel=label, ylim=(0, 0.45) if column == "rejected" else (0.6, 1))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    figure.savefig(folder / "association.png", dpi=150)
    plt.close(figure)
    columns = ["rejected", "rejected 1%", "coverage", "error", "se"]
    lines = ["| scenario | method | " + " | ".join(columns) + " |", "|" + " --- |" * (len(columns) + 2)]
    for _, row in mean.iterrows():
        cells = ["" if np.isnan(row[c]) else f"{row[c]:.3f}" for c in columns]
        cells[0] += "" if np.isnan(row["standard error"]) else f" ({row['standard error']:.3f})"
        lines.append(f"| {row['scenario']} | {row['method']} | " + " | ".join(cells) + " |")
    (folder / "association.md").write_text(
        intro(__doc__ or "", "Tests on partly imputed values")
        + f"\n{provenance(Path(__file__), seconds / 3600, 'wall', table['seed'])}"
        + "\n```{image} association.png\n```\n\n"
        + "\n".join(lines)
        + "\n"
    )


def main() -> None:
    """Print the table; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(16)))
    parser.add_argument("--small", action="store_true", help="one seed")
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.seeds = arguments.seeds[:1] if arguments.small else arguments.seeds
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.getLogger("omicvae").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    start = time.perf_counter()
    rows = [row for scenario in SCENARIOS for seed in arguments.seeds for row in run(scenario, seed)]
    table = pd.DataFrame(rows)
    print(averages(table).round(3).to_string(index=False))
    seconds = time.perf_counter() - start
    print(f"{seconds:.0f} s")
    if arguments.write is not None:
        report(table, arguments.write, seconds)


if __name__ == "__main__":
    main()
