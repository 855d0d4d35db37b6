"""Does imputation of a hidden assay beat linear methods, and do its intervals hold?

Run: python benchmarks/imputation.py [--tasks brca pancan6 ...] [--seeds 0 1 2 3 4] [--methods CoVAE ridge ...]
     [--out docs/benchmarks/imputation.csv] [--write docs/benchmarks]

Each task takes the samples that have its assays, splits them 80/20 by the seed, and hides the target of the test fifth
altogether: every method is fitted to the training samples, predicts the target of the test samples from their sources,
and is scored on what was measured. Scores are on one scale for all methods: features standardised by the training
samples, counts as log(1 + counts per million) before that. Rows of one task and seed come from one split. What is in the
CSV already is not run again.

Columns: ``crps`` mean over values; ``r2`` median over features; ``coverage50`` to ``coverage95`` of central intervals
(of models: of at most 500 test samples, 100 for sparse counts; for counts: of the counts themselves, the library size
unknown); ``pit50`` to ``pit95`` share of randomised probability integral transforms in the central part of (0, 1), before
calibration; ``group1`` and ``group2`` that share for counts of models, and otherwise ``coverage90``, within the two groups
that are largest in the cohort; ``auroc`` of a count being above 0, mean over features, where fewer than a quarter are;
``sd_ratio`` mean predictive sd hidden / measured; ``seconds`` to fit; ``version`` the commit that was run.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import NamedTuple

import mudata
import numpy as np
import pandas as pd
import scvi
from mudata import MuData
from resumable import append, begin, commit
from sklearn.model_selection import train_test_split

import omicvae
from omicvae.stats import baselines
from omicvae.stats.scores import auroc, crps_normal, crps_sample, r2, randomised_pit

LEVELS = (0.5, 0.8, 0.9, 0.95)
DRAWS, DRAWS_OF_SPARSE = 200, 100
HELD = 2**26  # draws of one target held at once
INTERVALS, INTERVALS_OF_SPARSE = 500, 100  # test samples, evenly spread, whose intervals are computed at every level

LINEAR = {
    "mean": baselines.MeanBaseline,
    "ridge": baselines.RidgeBaseline,
    "ridge per feature": lambda: baselines.RidgeBaseline(per_feature=True),
    "PCA + ridge": baselines.PCARidgeBaseline,
    "PLS": baselines.PLSBaseline,
    "kNN": baselines.KNNBaseline,
}
MARGINAL = "training values"
MODELS = {
    "ProbabilisticCCA": ("ProbabilisticCCA", {}),
    "CoVAE closed form": ("CoVAE", {"backbone": "moments"}),
    "CoVAE": ("CoVAE", {}),
    "CoVAE network": ("CoVAE", {"backbone": "network"}),
    "MMVAE++": ("MMVAEPlusPlus", {}),
    "MMVAE++ network": ("MMVAEPlusPlus", {"backbone": "network"}),
    "MMVAE++ without screening": ("MMVAEPlusPlus", {"screening": False}),
}


class Task(NamedTuple):
    """A cohort, its assays, and what is predicted from what."""

    file: str
    assays: tuple[str, ...]
    directions: tuple[tuple[tuple[str, ...], str], ...]
    group: str
    counts: tuple[str, ...] = ()
    most_features: int | None = None
    """Of the most variable (counts: most often seen) features of each assay."""


def both(a: str, b: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Each of two assays from the other."""
    return ((a,), b), ((b,), a)


TASKS = {
    "brca mirna-methylation": Task(
        "tcga_brca_4omics.h5mu", ("mirna", "methylation"), both("mirna", "methylation"), "PAM50", ("mirna",)
    ),
    "brca methylation-rna": Task("tcga_brca_4omics.h5mu", ("methylation", "rna"), both("methylation", "rna"), "PAM50"),
    "brca mirna-rna": Task("tcga_brca_4omics.h5mu", ("mirna", "rna"), both("mirna", "rna"), "PAM50", ("mirna",)),
    "pancan6 rna-mirna": Task(
        "tcga_pancan6_rnaseq.h5mu", ("rna", "mirna"), both("rna", "mirna"), "cancer_type", ("mirna",), 2000
    ),
    "breast_tcga": Task(
        "tcga_brca_mixomics.h5mu",
        ("rna", "mirna", "rppa"),
        ((("rna",), "mirna"), (("mirna",), "rna"), (("rna", "mirna"), "rppa")),
        "PAM50",
    ),
    "pancancer mirna-cnv": Task(
        "tcga_pancancer_mirna_cnv.h5mu", ("mirna", "cnv"), both("mirna", "cnv"), "cancer_type", ("mirna",)
    ),
    "citeseq": Task(
        "citeseq_pbmc10k.h5mu", ("rna", "protein"), ((("rna",), "protein"),), "cell_type", ("rna", "protein")
    ),
    "snare": Task(
        "snareseq_mouse_cortex.h5mu", ("rna", "atac"), both("rna", "atac"), "cell_type", ("rna", "atac"), 2500
    ),
}


def load(task: Task) -> MuData:
    """The samples that have all assays of a task."""
    folder = Path(os.environ.get("OMICVAE_DATA", "../shared/data"))
    full = mudata.read_h5mu(folder / task.file)
    names = full.mod[task.assays[0]].obs_names
    for assay in task.assays[1:]:
        names = names[names.isin(full.mod[assay].obs_names)]
    parts = {}
    for assay in task.assays:
        part = full.mod[assay][names].copy()
        if task.most_features is not None and part.n_vars > task.most_features:
            x = part.X
            score = np.asarray((x > 0).mean(0)).ravel() if assay in task.counts else np.asarray(x).var(0)
            part = part[:, np.sort(np.argsort(-score)[: task.most_features])].copy()
        parts[assay] = part
    mdata = MuData(parts)
    column = full.obs[task.group] if task.group in full.obs else full.obs[f"{task.assays[0]}:{task.group}"]
    mdata.obs["group"] = column.reindex(mdata.obs_names).astype(str).to_numpy()
    return mdata


def log_cpm(counts: np.ndarray, library: np.ndarray) -> np.ndarray:
    """log(1 + counts per million)."""
    return np.log1p(counts / np.maximum(library, 1)[..., None] * 1e6)


class Scale:
    """The scale of scores of one assay, from training samples."""

    def __init__(self, task: Task, assay: str, raw: np.ndarray, train: np.ndarray) -> None:
        self.counts = assay in task.counts
        values = log_cpm(raw, raw.sum(1)) if self.counts else raw.astype(float)
        self.mean, sd = np.nanmean(values[train], 0), np.nanstd(values[train], 0)
        self.varies = sd > 1e-6
        self.sd = np.where(self.varies, sd, 1.0)
        self.library = float(np.median(raw[train].sum(1)))
        self.seen = (raw > 0).astype(float)[:, self.varies]
        self.sparse = self.counts and self.seen.mean() < 0.25
        self.values = ((values - self.mean) / self.sd)[:, self.varies]

    def of_draws(self, draws: np.ndarray) -> np.ndarray:
        """``(K, n, p)`` draws, sparse counts by their own totals, others at the median library size."""
        library = draws.sum(2) if self.sparse else np.full(draws.shape[:2], self.library)
        values = log_cpm(draws, library) if self.counts else draws
        return (((values - self.mean) / self.sd)[..., self.varies]).astype(np.float32)


def dense(mdata: MuData, assay: str) -> np.ndarray:
    """Values of an assay in the order of the samples of ``mdata``."""
    x = mdata.mod[assay][mdata.obs_names].X
    return np.asarray(x.toarray() if hasattr(x, "toarray") else x, dtype=np.float32)


class Groups(NamedTuple):
    """Groups of the test samples."""

    of: np.ndarray
    largest: tuple[str, ...]
    """The two largest of the cohort."""


def row_of(
    inside: dict[float, np.ndarray], crps: np.ndarray, point: np.ndarray, truth: np.ndarray, groups: Groups
) -> dict:
    """Scores that all methods share."""
    return {
        "crps": float(np.nanmean(crps)),
        "r2": float(np.nanmedian(r2(truth, point))),
        **{f"coverage{round(100 * level)}": float(np.nanmean(inside[level])) for level in LEVELS},
        **within_groups(inside[0.9], groups),
    }


def within_groups(inside: np.ndarray, groups: Groups) -> dict:
    """Share of values inside, within each of the largest groups."""
    found = {}
    for i, group in enumerate(groups.largest):
        own = inside[groups.of == group]
        found[f"group{i + 1}"] = float(np.nanmean(own)) if len(own) else float("nan")
    return found


def linear_scores(name: str, sources: list[Scale], target: Scale, split, groups) -> dict:
    """Fit and score a baseline."""
    train, test = split
    x = np.concatenate([s.values for s in sources], 1)
    start = time.perf_counter()
    fitted = LINEAR[name]().fit(x[train], target.values[train])
    seconds = time.perf_counter() - start
    truth = target.values[test]
    found = fitted.predict(x[test])
    inside = {}
    for level in LEVELS:
        at = fitted.predict(x[test], level=level)
        inside[level] = np.where(np.isnan(truth), np.nan, (truth >= at.lower) & (truth <= at.upper))
    row = row_of(inside, crps_normal(truth, found.mean, found.sd), found.mean, truth, groups) | {"seconds": seconds}
    return row | ({"auroc": float(np.nanmean(auroc(target.seen[test], found.mean)))} if target.sparse else {})


def marginal_scores(target: Scale, split, groups) -> dict:
    """Score the distribution of training values, the same for all test samples: what knows nothing but zeros has."""
    train, test = split
    truth, known = target.values[test], target.values[train]
    start = time.perf_counter()
    rng, draws = np.random.default_rng(0), np.empty((DRAWS, known.shape[1]), np.float32)
    for j in range(known.shape[1]):
        column = known[:, j]
        draws[:, j] = rng.choice(column[~np.isnan(column)], DRAWS)
    crps = np.concatenate(
        [
            crps_sample(part, np.repeat(draws[:, None], len(part), 1))
            for part in np.array_split(truth, max(1, truth.size * DRAWS // HELD))
        ]
    )
    inside = {}
    for level in LEVELS:
        low, high = np.nanquantile(known, [(1 - level) / 2, (1 + level) / 2], axis=0)
        inside[level] = np.where(np.isnan(truth), np.nan, (truth >= low) & (truth <= high))
    point = np.broadcast_to(np.nanmean(known, 0), truth.shape)
    return row_of(inside, crps, point, truth, groups) | {"seconds": time.perf_counter() - start}


def fit_model(name: str, fitted: MuData, seed: int, epochs: int | None):
    """A model of training samples, and its seconds."""
    cls, arguments = MODELS[name]
    model_class = getattr(omicvae.model, cls)
    model_class.setup_mudata(fitted)
    scvi.settings.seed = seed
    model = model_class(fitted, **arguments)
    start = time.perf_counter()
    quiet = {} if cls == "ProbabilisticCCA" else {"max_epochs": epochs, "enable_progress_bar": False}
    model.train(**quiet)
    return model, time.perf_counter() - start


def model_scores(model, mdata: MuData, sources, assay: str, target: Scale, test: np.ndarray, groups) -> dict:
    """Score a model's imputation of a hidden assay."""
    hidden = mdata[mdata.obs_names[test]].copy()
    hidden = MuData({m: hidden.mod[m] for m in mdata.mod if m in sources})  # what was measured is not even there
    truth, raw = target.values[test], dense(mdata, assay)[test]
    n_draws, n_intervals = (DRAWS_OF_SPARSE, INTERVALS_OF_SPARSE) if target.sparse else (DRAWS, INTERVALS)
    names, step = mdata.obs_names[test], max(1, HELD // (n_draws * raw.shape[1]))
    crps, mean, pit = np.zeros_like(truth), np.zeros_like(truth), np.zeros(raw.shape)
    rng = np.random.default_rng(0)
    for start in range(0, len(names), step):
        rows = slice(start, start + step)
        # at one library size every single count would be the same number of counts per million
        scale = "input" if target.sparse else "normalized"
        draws = model.sample(assay, mdata=hidden, indices=names[rows].to_numpy(), n_samples=n_draws, scale=scale)
        moved = target.of_draws(draws)
        crps[rows], mean[rows] = crps_sample(truth[rows], moved), moved.mean(0)
        if not target.sparse:
            draws = model.sample(assay, mdata=hidden, indices=names[rows].to_numpy(), n_samples=n_draws)
        pit[rows] = randomised_pit(raw[rows], draws, rng)
    inside = {}
    some = np.unique(np.linspace(0, len(names) - 1, min(n_intervals, len(names))).astype(int))
    for level in LEVELS:
        found = model.impute(assay, mdata=hidden, given=list(sources), level=level, indices=names[some].to_numpy())
        kept = (raw[some] >= found.layers["lower"]) & (raw[some] <= found.layers["upper"])
        inside[level] = np.full(truth.shape, np.nan)
        inside[level][some] = np.where(np.isnan(raw[some]), np.nan, kept)[:, target.varies]
    row = row_of(inside, crps, mean, truth, groups)
    found = model.impute(assay, mdata=hidden, given=list(sources), level=None)[names]
    measured = model.get_denoised(assay, mdata=mdata[names].copy(), level=None)
    row["sd_ratio"] = float(np.median(found.layers["sd"].mean(0) / np.maximum(measured.layers["sd"].mean(0), 1e-9)))
    central = np.where(np.isnan(raw), np.nan, np.abs(2 * pit - 1))[:, target.varies]
    for level in LEVELS:
        kept = np.where(np.isnan(central), np.nan, central <= level)
        row[f"pit{round(100 * level)}"] = float(np.nanmean(kept))
        if target.counts and level == 0.9:
            row |= within_groups(kept, groups)
    if target.sparse:
        row["auroc"] = float(np.nanmean(auroc(target.seen[test], np.asarray(found.X)[:, target.varies])))
    return row


def run(task_name: str, seed: int, methods: list[str], done: set, epochs: int | None, out: Path) -> None:
    """All methods on one split; rows are appended as they come."""
    task = TASKS[task_name]
    wanted = [m for m in methods if any((task_name, seed, m, "+".join(s), t) not in done for s, t in task.directions)]
    if not wanted:
        return
    mdata = load(task)
    train, test = train_test_split(np.arange(mdata.n_obs), test_size=0.2, random_state=seed)
    train, test = np.sort(train), np.sort(test)
    largest = mdata.obs["group"].loc[lambda g: g != "nan"].value_counts().index[:2]
    groups = Groups(mdata.obs["group"].to_numpy()[test], tuple(largest))
    scales = {a: Scale(task, a, dense(mdata, a), train) for a in task.assays}
    for method in wanted:
        try:
            model, seconds = None, 0.0
            if method in MODELS:
                model, seconds = fit_model(method, mdata[mdata.obs_names[train]].copy(), seed, epochs)
        except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:  # must not end the run
            print(f"{task_name} seed {seed} {method}: {type(error).__name__}: {error}", flush=True)
            continue
        for sources, target in task.directions:
            if (task_name, seed, method, "+".join(sources), target) in done:
                continue
            scale = scales[target]
            if method == MARGINAL:
                found = marginal_scores(scale, (train, test), groups)
            elif model is None:
                found = linear_scores(method, [scales[s] for s in sources], scale, (train, test), groups)
            else:
                found = model_scores(model, mdata, sources, target, scale, test, groups) | {"seconds": seconds}
            row = {"task": task_name, "seed": seed, "method": method, "sources": "+".join(sources), "target": target}
            row |= {"n_train": len(train), **found, "version": commit()}
            append(out, row, COLUMNS)


COLUMNS = (
    *("task", "seed", "method", "sources", "target", "n_train", "crps", "r2", "coverage50", "coverage80"),
    *(
        "coverage90",
        "coverage95",
        "pit50",
        "pit80",
        "pit90",
        "pit95",
        "group1",
        "group2",
        "auroc",
        "sd_ratio",
        "seconds",
        "version",
    ),
)


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument(
        "--methods", nargs="+", default=[MARGINAL, *LINEAR, "ProbabilisticCCA", "CoVAE closed form", "CoVAE"]
    )
    parser.add_argument("--epochs", type=int, default=None, help="of networks, instead of the default")
    parser.add_argument("--small", action="store_true", help="one cohort and seed, four methods, networks for 2 epochs")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/imputation.csv"))
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.tasks, arguments.seeds, arguments.epochs = ["breast_tcga"], [0], 2
        arguments.methods = ["mean", "ridge", "CoVAE closed form", "CoVAE"]
    done = begin(arguments.out, ["task", "seed", "method", "sources", "target"])
    for seed in arguments.seeds:
        for task in arguments.tasks:
            run(task, seed, arguments.methods, done, arguments.epochs, arguments.out)
    if arguments.write is not None:
        from imputation_page import write_page

        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
