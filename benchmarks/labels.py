"""Are known classes found in what assays share?

Run: python benchmarks/labels.py [--seeds 0 1 2 3 4] [--tasks CLL BRCA ...] [--methods ...] [--small]
     [--out docs/benchmarks/labels.csv] [--write docs/benchmarks]

A model is fitted without the labels of test samples, to training samples alone; a logistic regression (classes weighted by
their frequency) is trained on their latents and scored on those of the test samples. Seed s is fold s of a stratified
five-fold split. The peers read principal components of the features instead (50 at most), of one assay, or of all beside
one another; of RNA and ATAC counts, MULTIVI of scvi-tools, too (20 latents, 150 epochs at most). Trees are fitted to 1,000 training
samples at most, because of thousands of cells and peaks they would take longer than all the rest. What is in the CSV already is not run
again; its ``version`` is the commit that was run, in newer rows. Data: the folder named by OMICVAE_DATA.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from label_tasks import Task, dense, tasks
from mudata import MuData
from published_systems import Recipe, as_published
from resumable import begin, commit
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import omicvae

KEY = ("task", "setting", "seed", "method")
COLUMNS = (*KEY, "label", "latent", "given", "score", "value", "cpu_seconds", "version")
ALL = "all"
SMALL_EPOCHS = 3
MULTIVI_EPOCHS, MULTIVI_LATENT = 150, 20
MULTIVI_GIVEN = {ALL: "joint", "rna": "expression", "atac": "accessibility"}
MOST_FOR_TREES = 1000  # training samples
OURS = ("ProbabilisticCCA", "MMVAE++", "CoVAE")  # at their defaults, beside the paper's settings


DEFAULTS = {
    "ProbabilisticCCA": Recipe(omicvae.model.ProbabilisticCCA),
    "MMVAE++": Recipe(omicvae.model.MMVAEPlusPlus),
    "CoVAE": Recipe(omicvae.model.CoVAE),
    "MVAE": Recipe(omicvae.model.MVAE),
    "MMVAE": Recipe(omicvae.model.MMVAE),
    "MoPoE": Recipe(omicvae.model.MoPoE),
    "DMVAE": Recipe(omicvae.model.DMVAE),
    "MMVAE+": Recipe(omicvae.model.MMVAEPlus),
}


TREES = "extremely randomised trees"
REGRESSIONS = {
    "ridge": lambda: RidgeCV(np.logspace(-1, 6, 15)),
    TREES: lambda: ExtraTreesRegressor(200, min_samples_leaf=3, max_features=0.3, random_state=0),
}


def classifier() -> LogisticRegression:
    """The same for latents and for principal components."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000, class_weight="balanced"))


def scores(train: np.ndarray, tests: dict[str, np.ndarray], y: np.ndarray, y_test: np.ndarray) -> list[dict]:
    """AUC (of two classes) and balanced accuracy of a classifier, for latents of test samples given this or that."""
    fitted, rows = classifier().fit(train, y), []
    for given, z in tests.items():
        rows.append({"given": given, "score": "balanced accuracy"})
        rows[-1]["value"] = balanced_accuracy_score(y_test, fitted.predict(z))
        if len(fitted.classes_) == 2:
            rows.append({"given": given, "score": "AUC"})
            rows[-1]["value"] = roc_auc_score(y_test == fitted.classes_[1], fitted.decision_function(z))
    return rows


def for_labels(
    task: Task, mdata: MuData, train: np.ndarray, test: np.ndarray, embed: Callable, latent: str
) -> list[dict]:
    """Scores of every label; ``embed(names, given)`` gives latents of samples."""
    rows, given = [], [ALL, *(mdata.mod if latent != "features" else ())]
    for label in task.labels:
        y = mdata.obs[label].astype(object)
        train_names, test_names = (names[y[names].notna().to_numpy()] for names in (train, test))
        tests = {g: embed(test_names, g) for g in given}
        tests = {g: z for g, z in tests.items() if z is not None}
        found = scores(embed(train_names, ALL), tests, y[train_names].to_numpy(), y[test_names].to_numpy())
        rows += [{"label": label, "latent": latent} | row for row in found]
    return rows


def of_model(
    task: Task, mdata: MuData, recipe: Recipe, train: np.ndarray, test: np.ndarray, related: dict
) -> list[dict]:
    """Latents given all assays and given each alone; how well related features are predicted from the other assay."""
    fitted = mdata[train].copy()
    labels_key = task.labels[0] if recipe.supervised else None
    recipe.cls.setup_mudata(fitted, likelihoods=task.likelihoods or None, labels_key=labels_key)
    model = recipe.cls(fitted, **recipe.arguments)
    model.train(recipe.max_epochs, enable_progress_bar=False)
    hidden = MuData({m: mdata[m][mdata[m].obs_names.isin(test)].copy() for m in mdata.mod})
    sets = {"train": fitted, "test": hidden}

    def embed(kind: str) -> Callable:
        table = {
            (part, g): model.get_latent_representation(data, kind=kind, given=None if g == ALL else [g])
            for part, data in sets.items()
            for g in ([ALL] if part == "train" else [ALL, *mdata.mod])
        }
        return lambda names, g: table["train" if names[0] in fitted.obs_names else "test", g].loc[names].to_numpy()

    rows = [r for kind in ("shared", "joint") for r in for_labels(task, mdata, train, test, embed(kind), kind)]
    for m, names in related.items():
        source = [s for s in mdata.mod if s != m]
        data = MuData({s: hidden[s].copy() for s in source})
        found = model.impute(m, mdata=data, level=None, features=list(names))[test].X
        rows.append({"given": "+".join(source), "score": f"R2 {m}", "value": r2(mdata[m][test, names].X, found)})
    return rows


def of_multivi(task: Task, mdata: MuData, max_epochs: int, train: np.ndarray, test: np.ndarray) -> list[dict]:
    """Latents of scvi-tools' model of the same counts, given both assays and given each alone."""
    names = {"modalities": {"rna_layer": "rna", "atac_layer": "atac"}}
    sets = {"train": mdata[train].copy(), "test": mdata[test].copy()}
    for data in sets.values():
        scvi.model.MULTIVI.setup_mudata(data, **names)
    model = scvi.model.MULTIVI(sets["train"], n_latent=MULTIVI_LATENT)
    model.train(max_epochs, enable_progress_bar=False)
    table = {
        (part, given): pd.DataFrame(model.get_latent_representation(data, modality=modality), index=data.obs_names)
        for part, data in sets.items()
        for given, modality in MULTIVI_GIVEN.items()
    }

    def embed(chosen: np.ndarray, given: str) -> np.ndarray:
        return table["train" if chosen[0] in sets["train"].obs_names else "test", given].loc[chosen].to_numpy()

    return for_labels(task, mdata, train, test, embed, "shared")


def r2(truth: np.ndarray, found: np.ndarray) -> float:
    """Median over features."""
    return float(np.median(1 - ((truth - found) ** 2).mean(0) / np.maximum(truth.var(0), 1e-12)))


def are_counts(values: np.ndarray) -> bool:
    """Whether all are whole, none is negative and some exceed 1."""
    return bool((values >= 0).all() and (values == np.round(values)).all() and values.max() > 1)


def of_features(task: Task, mdata: MuData, names: tuple[str, ...], train: np.ndarray, test: np.ndarray) -> list[dict]:
    """Principal components of one assay or of several; training samples that lack one are left out."""
    for m in names:
        train = train[np.isin(train, mdata[m].obs_names)]
    parts = []
    for m in names:
        values = {"train": dense(mdata[m][train].X), "test": dense(mdata[m][test].X)}
        if are_counts(values["train"]):
            values = {k: np.log1p(1e4 * v / np.maximum(v.sum(1, keepdims=True), 1)) for k, v in values.items()}
        width = min(50, len(train) - 1, values["train"].shape[1])
        steps = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler(), PCA(width, random_state=0))
        steps.fit(values["train"])
        parts.append(
            {k: pd.DataFrame(steps.transform(v), {"train": train, "test": test}[k]) for k, v in values.items()}
        )
    table = {k: pd.concat([p[k] for p in parts], axis=1) for k in ("train", "test")}

    def embed(chosen: np.ndarray, given: str) -> np.ndarray:
        return table["train" if chosen[0] in table["train"].index else "test"].loc[chosen].to_numpy()

    return for_labels(task, mdata, train, test, embed, "features")


def of_regression(mdata: MuData, method: str, train: np.ndarray, test: np.ndarray, related: dict) -> list[dict]:
    """Related features of one assay from all features of the other."""
    rows = []
    if method == TREES and len(train) > MOST_FOR_TREES:
        train = np.random.default_rng(0).choice(train, MOST_FOR_TREES, replace=False)
    for m, names in related.items():
        source = next(s for s in mdata.mod if s != m)
        fitted = REGRESSIONS[method]().fit(mdata[source][train].X, mdata[m][train, names].X)
        found = fitted.predict(mdata[source][test].X)
        rows.append({"given": source, "score": f"R2 {m}", "value": r2(mdata[m][test, names].X, found)})
    return rows


def methods_of(task: Task, mdata: MuData, max_epochs: int | None) -> dict[str, Callable]:
    """Name to a function of the data, training and test samples and related features."""
    every = tuple(mdata.mod)
    found: dict[str, Callable] = {
        f"PCA of {m}": lambda d, a, b, r, m=m: of_features(task, d, (m,), a, b) for m in every
    }
    found[f"PCA of all {len(every)}"] = lambda d, a, b, r: of_features(task, d, every, a, b)
    recipes = DEFAULTS
    if task.latents is not None:
        recipes = {name: DEFAULTS[name] for name in OURS} | as_published(*task.latents)
        found |= {name: lambda d, a, b, r, name=name: of_regression(d, name, a, b, r) for name in REGRESSIONS}
    elif set(every) == {"rna", "atac"}:
        found["MULTIVI"] = lambda d, a, b, r: of_multivi(task, d, max_epochs or MULTIVI_EPOCHS, a, b)
    recipes = {name: recipe._replace(max_epochs=max_epochs) for name, recipe in recipes.items()}
    return found | {
        name: lambda d, a, b, r, recipe=recipe: of_model(task, d, recipe, a, b, r) for name, recipe in recipes.items()
    }


def run(task: Task, folder: Path, seed: int, arguments: argparse.Namespace, done: set) -> None:
    """All methods on one split."""
    out, wanted = arguments.out, arguments.methods
    mdata = task.load(folder)
    train, test = task.split(mdata, seed)
    chosen, related = task.features(mdata, train)
    for name, method in methods_of(task, chosen, SMALL_EPOCHS if arguments.small else None).items():
        if (task.name, task.setting, seed, name) in done or (
            wanted and name not in wanted and not name.startswith("PCA of")
        ):
            continue
        scvi.settings.seed = seed
        start = time.process_time()
        rows = method(chosen, train, test, related)
        key = {"task": task.name, "setting": task.setting, "seed": seed, "method": name}
        table = pd.DataFrame([key | row for row in rows]).assign(
            cpu_seconds=time.process_time() - start, version=commit()
        )
        if len(table):
            table.reindex(columns=list(COLUMNS)).to_csv(
                out, mode="a", header=not out.exists(), index=False, float_format="%.4f"
            )
        first = rows[0]["value"] if rows else float("nan")
        print(
            f"{task.name}, {task.setting}, seed {seed}, {name}: {first:.3f}, {time.process_time() - start:.0f} s",
            flush=True,
        )


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--tasks", nargs="+", default=None)
    parser.add_argument("--methods", nargs="+", default=None, help="besides principal components, which set the goals")
    parser.add_argument("--small", action="store_true", help="one seed, few samples and epochs, in a few minutes")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.out = arguments.out or Path("labels_small.csv" if arguments.small else "docs/benchmarks/labels.csv")
    done = begin(arguments.out, KEY)
    folder = Path(os.environ["OMICVAE_DATA"])
    for seed in arguments.seeds[:1] if arguments.small else arguments.seeds:
        for task in tasks(folder, arguments.small):
            if arguments.tasks is None or task.name.split(",")[0] in arguments.tasks:
                run(task, folder, seed, arguments, done)
    if arguments.write is not None:
        from labels_page import write_page

        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
