"""Half of three assays missing at random: is what is filled in still better than regression on the samples that have both?

Run: python benchmarks/mosaic.py [--cohorts brca breast_tcga] [--seeds 0 1 2 3 4] [--methods CoVAE ridge ...] [--small]
     [--out docs/benchmarks/mosaic.csv] [--write docs/benchmarks]

300 breast tumours (120 of breast_tcga) of which each has each of three assays with probability one half, and at least one;
the other tumours are test samples, whose target is hidden altogether. CoVAE and ProbabilisticCCA are fitted once, to all
training samples, and predict each assay from each other one and from both. Regressions are fitted anew for each set of
sources, to the training samples that have all of it and the target, as one would by hand. Scores are those of
imputation.py, standardised by the training samples that have the assay. What is in the CSV already is not run again.

Columns as there; ``n_common`` training samples have all sources and the target.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import imputation
import numpy as np
import pandas as pd
from mudata import MuData
from page_parts import intro, markdown, provenance, spread
from resumable import append, begin, commit

COHORTS = {
    "brca": imputation.Task(
        "tcga_brca_4omics.h5mu", ("mirna", "methylation", "rna"), (), "PAM50", ("mirna",), most_features=400
    ),
    "breast_tcga": imputation.Task("tcga_brca_mixomics.h5mu", ("rna", "mirna", "rppa"), (), "PAM50"),
}
N_TRAIN = {"brca": 300, "breast_tcga": 120}
REGRESSIONS = ("mean", "ridge", "PCA + ridge", "PLS", "kNN")
MODELS = ("ProbabilisticCCA", "CoVAE")
KEY = ("cohort", "seed", "method", "sources", "target")
COLUMNS = (
    *(*KEY, "n_common", "crps", "r2", "coverage50", "coverage80", "coverage90", "coverage95", "pit90"),
    *("group1", "group2", "sd_ratio", "seconds", "version"),
)


def directions(assays: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
    """Each assay from each other one, and from both."""
    return [
        (sources, target)
        for target in assays
        for size in (1, 2)
        for sources in combinations([a for a in assays if a != target], size)
    ]


class Split:
    """Training samples that lack assays, and complete test samples."""

    def __init__(self, cohort: str, seed: int) -> None:
        self.task = COHORTS[cohort]
        self.mdata = imputation.load(self.task)
        rng = np.random.default_rng(seed)
        order, n = rng.permutation(self.mdata.n_obs), N_TRAIN[cohort]
        self.train, self.test = np.sort(order[:n]), np.sort(order[n:])
        self.present = rng.random((n, len(self.task.assays))) < 0.5
        nothing = ~self.present.any(1)
        self.present[nothing, rng.integers(0, len(self.task.assays), nothing.sum())] = True
        self.scales = {
            a: imputation.Scale(self.task, a, imputation.dense(self.mdata, a), self.having((a,)))
            for a in self.task.assays
        }
        group = self.mdata.obs["group"]
        largest = tuple(group[group != "nan"].value_counts().index[:2])
        self.groups = imputation.Groups(group.to_numpy()[self.test], largest)

    def having(self, assays: tuple[str, ...]) -> np.ndarray:
        """Training samples that have all of some assays."""
        at = [self.task.assays.index(a) for a in assays]
        return self.train[self.present[:, at].all(1)]

    def training(self) -> MuData:
        """What models are fitted to."""
        names = self.mdata.obs_names
        return MuData({a: self.mdata.mod[a][names[self.having((a,))]].copy() for a in self.task.assays})


def run(cohort: str, seed: int, methods: list[str], done: set, epochs: int | None, out: Path) -> None:
    """All methods on one split; rows are appended as they come."""
    wanted = directions(COHORTS[cohort].assays)
    left = [m for m in methods if any((cohort, seed, m, "+".join(s), t) not in done for s, t in wanted)]
    if not left:
        return
    split = Split(cohort, seed)
    for method in left:
        model, seconds = None, 0.0
        if method in MODELS:
            model, seconds = imputation.fit_model(method, split.training(), seed, epochs)
        for sources, target in wanted:
            key = dict(zip(KEY, (cohort, seed, method, "+".join(sources), target), strict=True))
            if tuple(key.values()) in done:
                continue
            common, scale = split.having((*sources, target)), split.scales[target]
            if model is None:
                inputs = [split.scales[s] for s in sources]
                found = imputation.linear_scores(method, inputs, scale, (common, split.test), split.groups)
            else:
                found = imputation.model_scores(
                    model, split.mdata, sources, target, scale, split.test, split.groups
                ) | {"seconds": seconds}
            append(out, key | {"n_common": len(common)} | found | {"version": commit()}, COLUMNS)


def crps_table(part: pd.DataFrame) -> pd.DataFrame:
    """Text of a cohort: a row a direction, mean CRPS of each method, and on how many seeds CoVAE has the least."""
    lines = {}
    for (target, sources), own in part.groupby(["target", "sources"], sort=False):
        wide = own.pivot_table(index="seed", columns="method", values="crps").dropna()
        if wide.empty:
            continue
        others = wide.drop(columns="CoVAE", errors="ignore")
        best = int((wide.get("CoVAE", np.nan) < others.min(1)).sum())
        lines[f"{sources} → {target}"] = (
            {"samples with all": f"{own['n_common'].mean():.0f}"}
            | {m: f"{v:.4f}" for m, v in wide.mean().items()}
            | {"CoVAE has the least": f"{best} of {len(wide)}"}
        )
    return pd.DataFrame.from_dict(lines, orient="index")


def honesty_table(part: pd.DataFrame) -> pd.DataFrame:
    """Text of a cohort: coverage of CoVAE, and whether two sources are better than the better one alone."""
    own = part[part["method"] == "CoVAE"]
    alone = own[~own["sources"].str.contains("+", regex=False)].groupby(["target", "seed"])["crps"].min()
    lines = {}
    for (target, sources), rows in own.groupby(["target", "sources"], sort=False):
        one = alone.loc[target].reindex(rows["seed"]).mean()
        lines[f"{sources} → {target}"] = {
            "coverage of .90": spread(rows["coverage90"]),
            "of .50": spread(rows["coverage50"]),
            "sd hidden / measured": f"{rows['sd_ratio'].mean():.2f}",
            "CRPS less than from the better one (in hindsight)": f"{100 * (1 - rows['crps'].mean() / one):.1f} %"
            if "+" in sources
            else "",
        }
    return pd.DataFrame.from_dict(lines, orient="index")


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Two tables a cohort."""
    page = intro(__doc__ or "", "Cohorts in which half is missing")
    fits = table.drop_duplicates(["cohort", "seed", "method"])
    page += f"\n{provenance(Path(__file__), fits['seconds'].sum() / 3600, 'wall', seeds=table['seed'])}"
    page += f"\nCommits: {', '.join(sorted(set(table['version'].astype(str))))}.\n"
    for cohort, part in table.groupby("cohort", sort=False):
        page += (
            f"\n## {cohort}: {N_TRAIN[cohort]} samples\n\nCRPS in training standard deviations; lower is better.\n\n"
        )
        page += markdown(crps_table(part), "direction") + "\nCoVAE:\n\n" + markdown(honesty_table(part), "direction")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mosaic.md").write_text(page)


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", nargs="+", default=list(COHORTS), choices=list(COHORTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=[*REGRESSIONS, *MODELS])
    parser.add_argument("--small", action="store_true", help="the smaller cohort, one seed, networks for 2 epochs")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/mosaic.csv"))
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    epochs = None
    if arguments.small:
        arguments.cohorts, arguments.seeds, epochs = ["breast_tcga"], [0], 2
    done = begin(arguments.out, KEY)
    for seed in arguments.seeds:
        for cohort in arguments.cohorts:
            run(cohort, seed, arguments.methods, done, epochs, arguments.out)
    if arguments.write is not None:
        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
