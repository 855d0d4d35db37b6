"""Is the correlation between two images kept, and does uncertainty follow it?

Run: python benchmarks/correlated_mnist.py [--rho .05 .3 .6 .9] [--seeds 0 1 2 3 4] [--methods ...] [--flow] [--mnist FOLDER]
     [--small | --full] [--out docs/benchmarks/correlated_mnist.csv] [--write docs/benchmarks]

Section 3.1 of the CoVAE paper: pairs of digits, decoded from 10 + 10 latents with correlation rho dimension by dimension.
MNIST is read from idx files, in the folder that is named or in `mnist` of OMICVAE_DATA; without either, the 8 x 8 digits of
scikit-learn stand in. Two plain VAEs, which differ by their seed, are trained on the real digits, and their decoders draw
the pairs (the paper: a VAEGAN of residual convolutions). Pixels get noise of sd 0.1, so that noise scales can be learned
(the paper: none), and those that hardly vary are left out. With `--flow`, masked autoregressive flows move the latents
into the aggregated posteriors of the VAEs first (appendix A and figure 10).

By default images have 14 x 14 pixels, and there are 4000 pairs to train on and 1000 to score; networks have two layers of 64;
30 epochs of batches of 128, learning rate rising to .003 and falling to 0. `--full` has what the paper has: 28 x 28 pixels,
20000 and 5000 pairs, 30 epochs of batches of 256, a constant learning rate of .001, but two layers of 512 for its residual
convolutions. `--small` runs in minutes and says nothing. As in the paper: AdamW, unit noise variance (here of standardised
pixels), 20 latents (CoVAE 10 a modality; models with private latents 10 shared and 10 private a modality). CoVAE as published
has the joint encoder and Deep CCA; CoVAE the evidence potentials, otherwise trained alike, at a correlation of .9 also for 120
epochs (960 steps are fewer than the 2344 of the paper, and at .9 too few); CoVAE default, MMVAE++ default and
ProbabilisticCCA are what the package does by itself, with learned noise. What is in the CSV already is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import scvi
from correlated_mnist_scores import scores_of_model, scores_of_truth
from digit_pairs import LATENT, NAMES, DigitVAE, Images, images, mnist_folder, pairs, read_digits, train_decoder
from resumable import begin, commit

import omicvae

COLUMNS = ("data", "size", "rho", "seed", "method", "score", "value", "cpu_seconds", "version")
TRUTH = "truth"
RHO = (0.05, 0.3, 0.6, 0.9)
CACHE = Path("build/correlated_mnist")


class Size(NamedTuple):
    """How much is run."""

    name: str
    n_train: int
    n_test: int
    epochs: int
    batch_size: int
    plan: Mapping[str, Any]
    n_hidden: int
    decoder_hidden: int
    draws: int  # of importance weighting
    scored: int  # samples whose likelihood is estimated


SHORT = {"lr": 3e-3, "min_kl_weight": 1.0}
AS_PUBLISHED = {"lr": 1e-3, "lr_schedule": "constant", "min_kl_weight": 1.0}
SIZES = {
    "small": Size("small", 300, 150, 2, 128, SHORT, 16, 128, 20, 20),
    "default": Size("default", 4000, 1000, 30, 128, SHORT, 64, 128, 300, 200),
    "full": Size("full", 20_000, 5000, 30, 256, AS_PUBLISHED, 512, 512, 1000, 500),
}


class Recipe(NamedTuple):
    """A model class, what it is constructed with, and whether it is trained as in the paper or by default."""

    cls: type
    arguments: Mapping[str, Any] = {}
    published: bool = True
    only: tuple[float, ...] = ()  # correlations it is run at; all if empty
    longer: int = 1  # times the epochs of the others


APPENDIX = (0.3, 0.6, 0.9)  # correlations that figure 11 is run at
SPLIT = {"n_shared": LATENT, "n_private": LATENT}
RECIPES = {
    "CoVAE": Recipe(omicvae.model.CoVAE, {"n_latent": LATENT, "backbone": "network"}),
    "CoVAE as published": Recipe(omicvae.model.CoVAE, {"n_latent": LATENT, "posterior": "joint_encoder"}),
    "JMVAE": Recipe(omicvae.model.JMVAE, {"n_latent": 2 * LATENT}),
    "MVAE": Recipe(omicvae.model.MVAE, {"n_latent": 2 * LATENT}),
    "MMVAE": Recipe(omicvae.model.MMVAE, {"n_latent": 2 * LATENT}),
    "MVTCAE": Recipe(omicvae.model.MVTCAE, {"n_latent": 2 * LATENT}),
    "MoPoE": Recipe(omicvae.model.MoPoE, {"n_latent": 2 * LATENT}),
    "MMVAE+": Recipe(omicvae.model.MMVAEPlus, SPLIT),
    "DMVAE": Recipe(omicvae.model.DMVAE, SPLIT),
    "MMVAE++ as published": Recipe(omicvae.model.MMVAEPlusPlus, SPLIT | {"screening": False, "private": "zero"}),
    "CoVAE, 4 x epochs": Recipe(
        omicvae.model.CoVAE, {"n_latent": LATENT, "backbone": "network"}, only=(0.9,), longer=4
    ),
    "CoVAE as published, prior trained on": Recipe(
        omicvae.model.CoVAE,
        {"n_latent": LATENT, "posterior": "joint_encoder", "prior": "trained"},
        only=APPENDIX,
    ),
    "CoVAE as published, cross-diagonal": Recipe(
        omicvae.model.CoVAE, {"n_latent": LATENT, "posterior": "cross_diagonal"}, only=APPENDIX
    ),
    "JMVAE, 10 latents": Recipe(omicvae.model.JMVAE, {"n_latent": LATENT}, only=(0.9,)),
    "MVAE, 10 latents": Recipe(omicvae.model.MVAE, {"n_latent": LATENT}, only=(0.9,)),
    "ProbabilisticCCA": Recipe(omicvae.model.ProbabilisticCCA, published=False),
    "CoVAE default": Recipe(omicvae.model.CoVAE, {"n_latent": LATENT}, published=False),
    "MMVAE++ default": Recipe(omicvae.model.MMVAEPlusPlus, published=False),
}
FLOW_METHODS = (
    "CoVAE",
    "CoVAE as published",
    "DMVAE",
    "MMVAE+",
)  # figure 10: those that can be other than fully correlated


def trained(recipe: Recipe, mdata, size: Size):
    """A model of training pairs."""
    likelihood = "unit_normal" if recipe.published else "normal"
    recipe.cls.setup_mudata(mdata, likelihoods=dict.fromkeys(NAMES, likelihood))
    network = {"network": {"n_hidden": size.n_hidden, "n_layers": 2, "dropout": 0.0}} if recipe.published else {}
    model = recipe.cls(mdata, **recipe.arguments, **network)
    if recipe.published:
        own = {"batch_size": size.batch_size, "plan_kwargs": size.plan, "early_stopping": False}
        model.train(recipe.longer * size.epochs, calibration_size=0, enable_progress_bar=False, **own)
    elif size.name == "small" and recipe.cls is not omicvae.model.ProbabilisticCCA:
        model.train(2, enable_progress_bar=False)
    else:
        model.train(enable_progress_bar=False)
    return model


def wanted_methods(arguments: argparse.Namespace, rho: float, key: tuple, done: set) -> list[str]:
    """What is to be run for a correlation and seed, and is not in the CSV."""
    chosen = arguments.methods or (FLOW_METHODS if arguments.flow else RECIPES)
    found = [TRUTH, *(m for m in chosen if not RECIPES[m].only or rho in RECIPES[m].only)]
    return [m for m in found if (*key, m) not in done]


def run(
    data: Images, decoders: list[DigitVAE], reader: Any, rho: float, seed: int, arguments: argparse.Namespace, done: set
) -> None:
    """All methods on one data set."""
    size = SIZES[arguments.size]
    key = {"data": data.name + (", flow" if arguments.flow else ""), "size": size.name, "rho": rho, "seed": seed}
    methods = wanted_methods(arguments, rho, tuple(key.values()), done)
    if not methods:
        return
    drawn = pairs(decoders, rho, size.n_train + size.n_test, seed)
    train, test = drawn.mdata[: size.n_train].copy(), drawn.mdata[size.n_train :].copy()
    for method in methods:
        scvi.settings.seed = seed
        start = time.process_time()
        if method == TRUTH:
            found = scores_of_truth(decoders, drawn, reader, size, rho)
        else:
            model = trained(RECIPES[method], train, size)
            kept = CACHE / f"{key['data'].replace(' ', '_')}_{size.name}_{rho}_{method.replace(' ', '_')}.npz"
            found = scores_of_model(model, test, drawn, reader, size, kept if seed == 0 else None)
        seconds = time.process_time() - start
        rows = [key | {"method": method, "score": score, "value": value} for score, value in found.items()]
        table = pd.DataFrame(rows).assign(cpu_seconds=seconds, version=commit())
        out = arguments.out
        table[list(COLUMNS)].to_csv(out, mode="a", header=not out.exists(), index=False, float_format="%.4f")
        print(f"seed {seed}, rho {rho}, {method}: {seconds:.0f} s", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rho", type=float, nargs="+", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--methods", nargs="+", default=None, choices=list(RECIPES))
    parser.add_argument("--flow", action="store_true", help="move latents by normalising flows before they are decoded")
    parser.add_argument("--mnist", type=Path, default=None, help="folder of the idx files")
    parser.add_argument("--small", dest="size", action="store_const", const="small", default="default")
    parser.add_argument("--full", dest="size", action="store_const", const="full")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    small = arguments.size == "small"
    arguments.rho = arguments.rho or ([0.9] if small else list(RHO))
    arguments.seeds = arguments.seeds if arguments.seeds is not None else [0] if small else [0, 1, 2, 3, 4]
    name = "correlated_mnist_small.csv" if small else "docs/benchmarks/correlated_mnist.csv"
    arguments.out = arguments.out or Path(name)
    return arguments


def main() -> None:
    """Run what is not in the CSV yet; write the page if asked."""
    arguments = parsed()
    done = begin(arguments.out, COLUMNS[:5])
    folder = None if arguments.size == "small" and arguments.mnist is None else mnist_folder(arguments.mnist)
    data = images(folder, arguments.size == "full")
    hidden = SIZES[arguments.size].decoder_hidden
    decoders = [train_decoder(data, k, arguments.flow, hidden, CACHE) for k in range(len(NAMES))]
    reader = read_digits(data)
    for seed in arguments.seeds:
        for rho in arguments.rho:
            run(data, decoders, reader, rho, seed, arguments, done)
    if arguments.write is not None:
        from correlated_mnist_page import write_page

        write_page(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
