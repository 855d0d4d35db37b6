"""Is shared signal found under strong private variation?

Run: python benchmarks/private_variation.py [--private 20 50 100 250 500 1000] [--seeds 0 1 2 3 4] [--methods ...]
     [--variants paper rotated even] [--n-obs 1000] [--small]
     [--out docs/benchmarks/private_variation.csv] [--write docs/benchmarks]

Data: section 4.1 of the MMVAE++ paper (`omicvae.datasets.gp_features`). Two modalities of 1000 samples; 10 features of each
are Gaussian processes of common latents, Q1 more of the first and 100 more of the second of latents of their own; noise
sd .15. "2+2+2" and "4+2+4" are the dimensions of private, shared and private latents. A fifth of the samples is held out.
Harder than the paper: "rotated", the features of each modality multiplied by a random orthogonal matrix, so that none is
purely shared (scored after turning back); "even", shared features of x2 that do not know the sign of the shared latents (x1
cannot be predicted well by anything). *As published* are the systems that the paper compares, with its networks, 2 shared and
2 + 2 private latents, and as many epochs as any model of this package has by default. What is in the CSV already is not run
again.

Columns: ``r2`` is the median over the 10 shared features of the R2 of their prediction from the other modality on held-out
samples; at best 1 / (1 + noise^2) = .978. ``r2_private`` is that of the others, at best 0. ``passed`` counts features that the screen lets through, shared / other.
``cpu_seconds`` is processor time of a fit on one thread; ``version`` the commit that was run.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from mudata import MuData
from page_parts import intro, markdown, provenance
from published_systems import Recipe, as_published
from resumable import append, begin, commit
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split

import omicvae
from omicvae.datasets import Simulation

DESIGNS = {"2+2+2": (2, 2, 2), "4+2+4": (4, 2, 4)}
N_SHARED, N_PRIVATE_2 = 10, 100
NAMES = ("x1", "x2")
WELL = 0.8  # R2 of the shared features that the paper's curves are near
IMPUTATION = Path(__file__).parents[1] / "docs/benchmarks/imputation.csv"
KEY = ("variant", "design", "n_obs", "private", "seed", "method")
COLUMNS = (*KEY, "target", "r2", "r2_private", "passed", "cpu_seconds", "version")
TITLES = {"paper": "As in the paper", "rotated": "Rotated", "even": "Even functions"}
VARIANTS = {"paper": {}, "rotated": {"rotate": True}, "even": {"even": True}}
PUBLISHED = {name: recipe for name, recipe in as_published(2, 2).items() if not recipe.supervised}
MODELS = {
    "MMVAE++": Recipe(omicvae.model.MMVAEPlusPlus),
    "CoVAE": Recipe(omicvae.model.CoVAE),
} | PUBLISHED
REGRESSIONS = {
    "ridge": lambda: RidgeCV(np.logspace(-2, 5, 15)),
    "extremely randomised trees": lambda: ExtraTreesRegressor(
        300, min_samples_leaf=3, max_features=0.3, random_state=0
    ),
}


def matrix(mdata: MuData, name: str, samples: np.ndarray) -> np.ndarray:
    """Values of a modality in the order of some samples."""
    return np.asarray(mdata[name][mdata.obs_names[samples]].X)


def score(truth: np.ndarray, found: np.ndarray) -> float:
    """Median R2 of features."""
    return float(np.median(1 - ((truth - found) ** 2).mean(0) / truth.var(0)))


def turned_back(simulation: Simulation, name: str, values: np.ndarray) -> np.ndarray:
    """Values before the rotation, if there was one."""
    rotations = simulation.truth.rotations
    return values @ rotations[name].T if name in rotations else values


def of_regression(simulation: Simulation, method: str, target: str, train: np.ndarray, test: np.ndarray) -> dict:
    """Fit to the shared features themselves, which a user would have to know."""
    mdata = simulation.mdata
    source = next(n for n in NAMES if n != target)
    truth = turned_back(simulation, target, matrix(mdata, target, np.arange(mdata.n_obs)))[:, :N_SHARED]
    start = time.process_time()
    fitted = REGRESSIONS[method]().fit(matrix(mdata, source, train), truth[train])
    seconds = time.process_time() - start
    return {"r2": score(truth[test], fitted.predict(matrix(mdata, source, test))), "cpu_seconds": seconds}


def of_model(simulation: Simulation, method: str, train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, dict]:
    """Train once, predict both ways."""
    mdata = simulation.mdata
    fitted = mdata[mdata.obs_names[train]].copy()
    recipe = MODELS[method]
    recipe.cls.setup_mudata(fitted, likelihoods=dict.fromkeys(NAMES, "normal"))
    scvi.settings.seed = seed
    model = recipe.cls(fitted, **recipe.arguments)
    start = time.process_time()
    model.train(enable_progress_bar=False)
    seconds = time.process_time() - start
    rows = {}
    for target in NAMES:
        source = next(n for n in NAMES if n != target)
        hidden = mdata[mdata.obs_names[test]].copy()
        names = mdata.obs_names[test]
        found = model.impute(target, mdata=MuData({source: hidden[source]}), level=None)[names].X
        truth, found = (turned_back(simulation, target, v) for v in (matrix(mdata, target, test), np.asarray(found)))
        shared, private = slice(N_SHARED), slice(N_SHARED, None)
        rows[target] = {
            "r2": score(truth[:, shared], found[:, shared]),
            "r2_private": score(truth[:, private], found[:, private]),
            "cpu_seconds": seconds,
        }
        if method == "MMVAE++":
            passed = model.get_screen(target)["passed"].to_numpy()
            rows[target]["passed"] = f"{passed[:N_SHARED].sum()} / {passed[N_SHARED:].sum()}"
            if model.n_directions[target]:
                rows[target]["passed"] = f"{model.n_directions[target]} directions"
    return rows


def run(
    variant: str, design: str, n_obs: int, private: int, seed: int, methods: list[str], done: set, out: Path
) -> None:
    """All methods on one data set."""
    key = {"variant": variant, "design": design, "n_obs": n_obs, "private": private, "seed": seed}
    wanted = [m for m in methods if (*key.values(), m) not in done]
    if not wanted:
        return
    simulation = omicvae.datasets.gp_features(
        (private, N_PRIVATE_2), n_obs=n_obs, n_latent=DESIGNS[design], noise=0.15, seed=seed, **VARIANTS[variant]
    )
    train, test = train_test_split(np.arange(n_obs), test_size=0.2, random_state=seed)
    for method in wanted:
        if method in MODELS:
            found = of_model(simulation, method, train, test, seed)
        else:
            found = {t: of_regression(simulation, method, t, train, test) for t in NAMES}
        for target, values in found.items():
            append(out, key | {"method": method, "target": target} | values | {"version": commit()}, COLUMNS)


def screens(part: pd.DataFrame) -> str:
    """What the screens of MMVAE++ let through, in a sentence."""
    passed = part.loc[part["method"] == "MMVAE++", "passed"].dropna()
    by_feature = passed[passed.str.contains("/")].str.split(" / ", expand=True).astype(int)
    sentence = f"Screens of MMVAE++: {len(passed) - len(by_feature)} of {len(passed)} read directions"
    if len(by_feature):
        shared, others = by_feature.sum() / len(by_feature)
        right = by_feature[0].sum() / max(by_feature.to_numpy().sum(), 1)
        sentence += (
            f"; of the others, {shared:.1f} of {N_SHARED} shared features and {others:.2f} of the rest pass on average "
            f"(recall {shared / N_SHARED:.3f}, precision {right:.3f})"
        )
    return sentence + "."


def of_published(paper: pd.DataFrame) -> str:
    """How the systems as published compare, beside what the paper says of them."""
    wide = paper[paper["method"].isin(PUBLISHED)].pivot_table(
        index=["design", "private"], columns="method", values="r2"
    )
    wide = wide.dropna()
    own, mvae = "MMVAE++ as published", "MVAE as published"
    if len(wide) == 0 or set(PUBLISHED) - set(wide):
        return ""
    best, others = (wide.idxmax(axis=1) == own).sum(), wide.drop(columns=[own, mvae])
    least, most = wide[own].groupby("private").mean().iloc[[-1, 0]]
    return (
        "\nThe paper shows curves without numbers: all systems do well with few private features, MoPoE and MMVAE better than "
        "MVAE, and beyond 50 MMVAE++ is best. Here, mean over both directions: MMVAE++ as published is the best of the four in "
        f"{best} of {len(wide)} settings (Q1 and latents), and falls from {most:.2f} at Q1 = {wide.index[0][1]} to {least:.2f} at "
        f"{wide.index[-1][1]}; MVAE is below both others in {(others.gt(wide[mvae], axis=0)).all(axis=1).sum()}, and reaches at most "
        f"{wide[mvae].max():.2f}, MoPoE {wide['MoPoE as published'].max():.2f} and MMVAE {wide['MMVAE as published'].max():.2f}: "
        f"that they do well with few private features is {'' if others.to_numpy().max() >= WELL else 'not '}reproduced.\n"
    )


def on_cohorts(scores: pd.DataFrame) -> list[str]:
    """Lines of the page: MMVAE++ as published, with its screen and by default on real cohorts."""
    published, screened, default = methods = ("MMVAE++ without screening", "MMVAE++ network", "MMVAE++")
    wide = scores[scores["method"].isin(methods)].pivot_table(
        index=["task", "sources", "target", "seed"], columns="method", values=["crps", "r2"], sort=False
    )
    wide = wide.reindex(columns=pd.MultiIndex.from_product([["crps", "r2"], methods]))
    forms = {"screen alone": screened, "default": default}
    columns = [f"{name}: {what}" for name in forms for what in ("seeds", "CRPS", "lower by", "R2")]
    rows = {}
    for (task, sources, target), part in wide.groupby(level=[0, 1, 2], sort=False):
        row = {}
        for name, method in forms.items():
            both = part.dropna(subset=[("crps", published), ("crps", method)])
            crps, r2 = both["crps"].mean(), both["r2"].mean()
            if len(both) == 0:
                row |= {f"{name}: seeds": "0"}
                continue
            row |= {
                f"{name}: seeds": str(len(both)),
                f"{name}: CRPS": f"{crps[published]:.4f} → {crps[method]:.4f}",
                f"{name}: lower by": f"{round(100 * (1 - crps[method] / crps[published]), 1) + 0.0:.1f} %",
                f"{name}: R2": f"{r2[published]:.3f} → {r2[method]:.3f}",
            }
        if len(row) > 2:
            rows[f"{task}: {sources} → {target}"] = row
    if not rows:
        return []
    return [
        "\n## On real cohorts, as published and with what is on by default\n",
        "A hidden assay predicted by MMVAE++ with `screening=False` (the published objective; before the arrows), and after them with the "
        'screen alone (`backbone="network"`), and as it is by default (the screen, and a closed form beside the network). Tasks and '
        'scores are those of [imputation](imputation.md) (`python benchmarks/imputation.py --methods MMVAE++ "MMVAE++ network" '
        '"MMVAE++ without screening"`).\n',
        markdown(pd.DataFrame.from_dict(rows, orient="index", columns=columns).fillna(""), "task"),
    ]


def write_page(table: pd.DataFrame, folder: Path) -> None:
    """Tables and a figure."""
    import matplotlib.pyplot as plt

    lines = []
    for (variant, design, n_obs), part in table.groupby(["variant", "design", "n_obs"], sort=False):
        wide = part.pivot_table(index="method", columns=["private", "target"], values="r2", sort=False)
        wide = wide.sort_index(axis=1)
        counts = part[part["method"] == "MMVAE++"].groupby("private")["seed"].nunique()
        lines += [f"\n## {TITLES[variant]}, latents {design}, {n_obs} samples\n"]
        lines += ["Seeds at each Q1: " + ", ".join(f"{q}: {n}" for q, n in counts.items()) + ".\n"]
        lines += [
            "| method | "
            + " | ".join(f"Q1 = {q}: {t}" for q, t in wide.columns)
            + " | others, mean | CPU s a fit, mean (most) |"
        ]
        lines += ["|" + " --- |" * (wide.shape[1] + 3)]
        for method, row in wide.iterrows():
            cells = ["" if np.isnan(v) else f"{v:.3f}" for v in row]
            own = part[part["method"] == method]
            seeds = own.groupby("private")["seed"].nunique()
            fewer = ", ".join(f"{seeds[q]} at {q}" for q in seeds.index if seeds[q] < counts.get(q, 0))
            if fewer and seeds.nunique() == 1 and len(seeds) == len(counts):
                fewer = f"{seeds.iloc[0]} at each"
            name = f"{method} (seeds: {fewer})" if fewer else method
            others, seconds = own["r2_private"].mean(), own["cpu_seconds"]
            cells += ["" if np.isnan(others) else f"{others:.3f}", f"{seconds.mean():.0f} ({seconds.max():.0f})"]
            lines += [f"| {name} | " + " | ".join(cells) + " |"]
        lines += [f"\n{screens(part)}"]
    if IMPUTATION.exists():
        lines += on_cohorts(pd.read_csv(IMPUTATION))
    paper = table[(table["variant"] == "paper") & (table["n_obs"] == 1000)]
    figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), sharey=True, layout="constrained")
    for axis, target in zip(axes, NAMES, strict=True):
        for k, (method, part) in enumerate(paper[paper["target"] == target].groupby("method", sort=False)):
            mean = part.groupby("private")["r2"].mean()
            axis.plot(
                mean.index, mean, "o--" if method in PUBLISHED else "o-", color=f"C{k}", label=method, markersize=4
            )
        axis.axhline(1 / (1 + 0.15**2), color="0.6", lw=1, zorder=0)
        axis.set(xscale="log", xlabel="private features of x1", title=f"shared features of {target}", ylim=(-0.1, 1.02))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("median R2 on held-out samples")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=7)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "private_variation.png", dpi=150)
    plt.close(figure)
    fits = table.drop_duplicates(list(KEY))
    page = intro(__doc__ or "", "Shared signal under private variation")
    page += f"\n{provenance(Path(__file__), fits['cpu_seconds'].sum() / 3600, seeds=table['seed'])}"
    page += "\n```{image} private_variation.png\n```\n"
    page += "\nWhat is not in a table has not been run. Ridge and trees are told which features are shared and fitted to these alone. *Others*: R2 of features that nothing predicts. The grey line is the ceiling.\n"
    page += of_published(paper)
    (folder / "private_variation.md").write_text(page + "\n".join(lines) + "\n")


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--private", type=int, nargs="+", default=[20, 50, 100, 250, 500, 1000])
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS))
    parser.add_argument("--variants", nargs="+", default=["paper"], choices=list(VARIANTS))
    parser.add_argument("--n-obs", type=int, nargs="+", default=[1000])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=[*REGRESSIONS, *MODELS])
    parser.add_argument("--small", action="store_true", help="one data set of 200 samples")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/private_variation.csv"))
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    if arguments.small:
        arguments.private, arguments.designs, arguments.n_obs, arguments.seeds = [20], ["2+2+2"], [200], [0]
    done = begin(arguments.out, KEY)
    for seed in arguments.seeds:
        for n_obs in arguments.n_obs:
            for variant, design, private in product(arguments.variants, arguments.designs, arguments.private):
                run(variant, design, n_obs, private, seed, arguments.methods, done, arguments.out)
    if arguments.write is not None:
        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
