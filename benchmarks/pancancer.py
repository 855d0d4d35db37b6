"""Cancer types and cross-modal prediction in a pan-cancer cohort.

Run: python benchmarks/pancancer.py [--seeds 0 1 2 3 4] [--methods ...] [--epochs 200] [--small]
     [--out docs/benchmarks/pancancer.csv] [--write docs/benchmarks]

Section 3.2 of the CoVAE paper: tumours with two assays, 80 % to train on and 20 % to score, stratified by cancer type; 32
latents (CoVAE as published 16 an assay; private latents 16); features at mean 0 and sd 1; unit noise variance; AdamW at a
learning rate of .001, batches of 128, 200 epochs. With a folder `mlomics` in OMICVAE_DATA, the paper's own data are read
(mRNA and miRNA of 8314 tumours); without, 8251 of these tumours stand in, with miRNA and copy number in bins of 5 Mb, which
say far less about one another than mRNA and miRNA do. Only the former numbers can be compared with the paper's.
What is in the CSV already is not run again.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import mudata
import numpy as np
import pandas as pd
import scipy.sparse as sp
import scvi
import torch
from mudata import MuData
from resumable import begin
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, adjusted_rand_score, normalized_mutual_info_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import omicvae
from omicvae.stats.gaussian import standardise_blocks

COLUMNS = ("data", "epochs", "seed", "method", "score", "value", "cpu_seconds")
QUANTILES = np.linspace(0, 1, 21)
NLL_SAMPLES, NLL_DRAWS = 300, 300
ALL = "all"
LATENT, PRIVATE = 32, 16
NETWORK = {"n_hidden": 256, "n_layers": 3, "dropout": 0.1}
PLAN = {"lr": 1e-3, "lr_schedule": "constant", "min_kl_weight": 1.0}


class Recipe(NamedTuple):
    """A model class, what it is constructed with, and whether it is trained as in the paper or by default."""

    cls: type
    arguments: Mapping[str, Any] = {}
    published: bool = True


def published(cls: type, **arguments: Any) -> Recipe:
    """With the widths and networks of the paper."""
    return Recipe(cls, {"n_latent": LATENT, "network": NETWORK} | arguments)


RECIPES = {
    "MVAE": published(omicvae.model.MVAE),
    "MVTCAE": published(omicvae.model.MVTCAE),
    "MMVAE": published(omicvae.model.MMVAE),
    "MoPoE": published(omicvae.model.MoPoE),
    "JMVAE": published(omicvae.model.JMVAE),
    "DMVAE": Recipe(omicvae.model.DMVAE, {"n_shared": LATENT, "n_private": PRIVATE, "network": NETWORK}),
    "MMVAE+": Recipe(omicvae.model.MMVAEPlus, {"n_shared": LATENT, "n_private": PRIVATE, "network": NETWORK}),
    "CoVAE as published": published(
        omicvae.model.CoVAE, n_latent=LATENT // 2, posterior="joint_encoder", pretraining="dcor"
    ),
    "CoVAE default": Recipe(omicvae.model.CoVAE, published=False),
    "MMVAE++ default": Recipe(omicvae.model.MMVAEPlusPlus, published=False),
    "ProbabilisticCCA": Recipe(omicvae.model.ProbabilisticCCA, published=False),
}
REGRESSIONS: dict[str, Callable] = {
    "ridge": lambda: RidgeCV(np.logspace(-1, 6, 15)),
    "extremely randomised trees": lambda: ExtraTreesRegressor(50, min_samples_leaf=3, max_features=0.1, random_state=0),
}


def cohort(folder: Path) -> tuple[MuData, str]:
    """Both assays of every tumour that has both, with ``obs["class"]``; and what the data are."""
    if (folder / "mlomics").is_dir():
        mdata = omicvae.datasets.read_mlomics(folder / "mlomics", modalities=["rna", "mirna"])
        mdata.obs["class"] = mdata.obs["label"]
        return mdata, "MLOmics"
    source = mudata.read_h5mu(folder / "tcga_pancancer_mirna_cnv.h5mu")
    both = source.obs_names.isin(source["mirna"].obs_names) & source.obs_names.isin(source["cnv"].obs_names)
    names = source.obs_names[both & source.obs["in_mlomics_pancancer"].to_numpy(dtype=bool)]
    counts = sp.csr_matrix(source["mirna"][names].X, dtype=np.float64)
    depth = sp.diags(1e6 / np.asarray(counts.sum(1)).ravel())
    mirna = np.log2(1 + (depth @ counts).toarray()).astype(np.float32)
    found = MuData(
        {
            "mirna": anndata.AnnData(mirna, obs=source["mirna"][names].obs[[]], var=source["mirna"].var[[]]),
            "cnv": source["cnv"][names].copy(),
        }
    )
    found.obs["class"] = source.obs.loc[found.obs_names, "cancer_type"].astype(str)
    return found, "miRNA and copy number"


class Split(NamedTuple):
    """Standardised values of training and test samples, and their classes."""

    train: MuData
    test: MuData
    y: np.ndarray
    y_test: np.ndarray


def split_cohort(mdata: MuData, seed: int, n_obs: int | None) -> Split:
    """Four fifths and one fifth; means and sds of training samples."""
    y = mdata.obs["class"].astype(str).to_numpy()
    rows = np.arange(len(y))
    if n_obs is not None:
        rows = train_test_split(rows, train_size=n_obs, stratify=y, random_state=0)[0]
        common = pd.Series(y[rows]).map(pd.Series(y[rows]).value_counts()).to_numpy() >= 5
        rows = rows[common]
    train, test = train_test_split(rows, test_size=0.2, stratify=y[rows], random_state=seed)
    parts: dict[str, dict[str, anndata.AnnData]] = {"train": {}, "test": {}}
    for m, adata in mdata.mod.items():
        values = np.asarray(adata[mdata.obs_names].X, dtype=np.float32)
        scaler = StandardScaler().fit(values[train])
        for part, chosen in (("train", train), ("test", test)):
            obs = pd.DataFrame(index=mdata.obs_names[chosen])
            parts[part][m] = anndata.AnnData(scaler.transform(values[chosen]), obs=obs, var=adata.var[[]])
    return Split(MuData(parts["train"]), MuData(parts["test"]), y[train], y[test])


def classifier() -> Any:
    """Logistic regression on standardised latents."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def type_scores(fitted: Any, z: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Table 1: share of correct types (the paper's "precision"), NMI and ARI of predicted and true types."""
    found = fitted.predict(z)
    return {
        "precision": accuracy_score(y, found),
        "NMI": normalized_mutual_info_score(y, found),
        "ARI": adjusted_rand_score(y, found),
    }


def spearman(truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """(p,) rank correlation of every feature over samples; 0 for a feature that is constant."""
    a, b = (rankdata(v, axis=0) for v in (truth, found))
    a, b = a - a.mean(0), b - b.mean(0)
    scale = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.divide((a * b).sum(0), scale, out=np.zeros(a.shape[1]), where=scale > 0)


def predicted(name: str, truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """Tables 2 and 3: mean absolute error, and rank correlation a feature: its mean and its quantiles."""
    rank = spearman(truth, found)
    quantiles = {f"Spearman {name} {q:.2f}": v for q, v in zip(QUANTILES, np.quantile(rank, QUANTILES), strict=True)}
    return {f"MAE {name}": float(np.abs(truth - found).mean()), f"Spearman {name}": float(rank.mean())} | quantiles


def of_model(data: Split, recipe: Recipe, epochs: int, small: bool) -> dict[str, float]:
    """All scores of a model."""
    names = list(data.train.mod)
    likelihood = "unit_normal" if recipe.published else "normal"
    recipe.cls.setup_mudata(data.train, likelihoods=dict.fromkeys(names, likelihood))
    model = recipe.cls(data.train, **recipe.arguments)
    own = {"max_epochs": epochs if recipe.published else 3 if small else None}
    if recipe.published:
        own |= {"batch_size": 128, "plan_kwargs": PLAN, "early_stopping": False, "calibration_size": 0}
    model.train(enable_progress_bar=False, **own)
    kind = "shared" if recipe.cls in (omicvae.model.DMVAE, omicvae.model.MMVAEPlus) else "joint"

    def embed(part: MuData, given: list[str] | None = None) -> np.ndarray:
        return model.get_latent_representation(part, kind=kind, given=given, return_numpy=True)

    found = type_scores(classifier().fit(embed(data.train), data.y), embed(data.test), data.y_test)
    some = data.test.obs_names[: NLL_SAMPLES // 10 if small else NLL_SAMPLES]
    nll = {ALL: -model.get_marginal_ll(data.test[some].copy(), n_samples=NLL_DRAWS)}
    for m in names:
        nll[m] = -model.get_marginal_ll(MuData({m: data.test[m][some].copy()}), n_samples=NLL_DRAWS)
        found |= predicted(f"joint {m}", data.test[m].X, model.get_denoised(m, mdata=data.test, level=None).X)
    found["joint NLL"] = nll[ALL]
    for source, target in permutations(names, 2):
        imputed = model.impute(target, mdata=MuData({source: data.test[source].copy()}), level=None)
        found |= predicted(f"{source} -> {target}", data.test[target].X, imputed[data.test.obs_names].X)
        trained = classifier().fit(embed(data.train, [source]), data.y)
        found[f"type {source} -> {target}"] = accuracy_score(data.y_test, trained.predict(embed(data.test, [target])))
        found[f"type given {source}"] = accuracy_score(data.y_test, trained.predict(embed(data.test, [source])))
        found[f"NLL {target} | {source}"] = nll[ALL] - nll[source]
    if recipe.cls is omicvae.model.CoVAE:
        first = model.module.sizes[0]
        # after recalibration the prior of one assay is not standard normal: correlations are those of whitened latents
        whitened = standardise_blocks(model.module.prior_covariance.cpu(), model.module.sizes)
        cross = whitened[:first, first:]
        found["prior correlation"] = float(torch.linalg.svdvals(cross).mean())
    return found


def of_regression(data: Split, method: str) -> dict[str, float]:
    """Each assay from the other."""
    found: dict[str, float] = {}
    for source, target in permutations(data.train.mod, 2):
        fitted = REGRESSIONS[method]().fit(data.train[source].X, data.train[target].X)
        found |= predicted(f"{source} -> {target}", data.test[target].X, fitted.predict(data.test[source].X))
    return found


def of_components(data: Split, names: list[str]) -> dict[str, float]:
    """Types from 50 principal components."""
    train, test = (np.concatenate([part[m].X for m in names], 1) for part in (data.train, data.test))
    steps = PCA(50, random_state=0).fit(train)
    return type_scores(classifier().fit(steps.transform(train), data.y), steps.transform(test), data.y_test)


def methods_of(data: Split, epochs: int, small: bool) -> dict[str, Callable[[], dict[str, float]]]:
    """Name to a function without arguments; cheap ones first."""
    names = list(data.train.mod)
    found: dict[str, Callable[[], dict[str, float]]] = {
        f"PCA of {m}": lambda m=m: of_components(data, [m]) for m in names
    }
    found["PCA of both"] = lambda: of_components(data, names)
    found |= {name: lambda name=name: of_regression(data, name) for name in REGRESSIONS}
    ordered = sorted(RECIPES, key=lambda name: RECIPES[name].published)
    return found | {name: lambda name=name: of_model(data, RECIPES[name], epochs, small) for name in ordered}


def run(mdata: MuData, what: str, seed: int, arguments: argparse.Namespace, done: set) -> None:
    """All methods on one split."""
    data = split_cohort(mdata, seed, 600 if arguments.small else None)
    for name, method in methods_of(data, arguments.epochs, arguments.small).items():
        epochs = arguments.epochs if name in RECIPES and RECIPES[name].published else 0
        if (what, epochs, seed, name) in done or (arguments.methods and name not in arguments.methods):
            continue
        scvi.settings.seed = seed
        start = time.process_time()
        found = method()
        key = {"data": what, "epochs": epochs, "seed": seed, "method": name}
        rows = [key | {"score": score, "value": value} for score, value in found.items()]
        table = pd.DataFrame(rows).assign(cpu_seconds=time.process_time() - start)
        out = arguments.out
        table[list(COLUMNS)].to_csv(out, mode="a", header=not out.exists(), index=False, float_format="%.4f")
        print(f"seed {seed}, {name}: {time.process_time() - start:.0f} s", flush=True)


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--epochs", type=int, default=None, help="of the published settings; 200, or 3 with --small")
    parser.add_argument("--small", action="store_true", help="600 tumours, one seed, a few epochs: a few minutes")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    arguments.epochs = arguments.epochs or (3 if arguments.small else 200)
    arguments.out = arguments.out or Path("pancancer_small.csv" if arguments.small else "docs/benchmarks/pancancer.csv")
    done = begin(arguments.out, ["data", "epochs", "seed", "method"])
    mdata, what = cohort(Path(os.environ["OMICVAE_DATA"]))
    for seed in arguments.seeds[:1] if arguments.small else arguments.seeds:
        run(mdata, what, seed, arguments, done)
    if arguments.write is not None:
        from pancancer_page import write_page

        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
