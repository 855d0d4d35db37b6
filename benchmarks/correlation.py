"""Does CoVAE recover the correlation between assays, and what does that do to likelihood and intervals?

Run: python benchmarks/correlation.py [--rho .05 .3 .6 .9] [--seeds 0 1 2 3 4] [--modes default "as published"] [--small]
     [--out docs/benchmarks/correlation.csv] [--write docs/benchmarks]

Simulator: two modalities, 10 + 10 latents with correlation rho dimension by dimension, 100 + 100 features through random
two-layer networks, noise sd .3, 5000 training samples (a tenth of them to stop on) and 2000 test samples. Rows of one
rho and seed are of the same data: CoVAE's default, CoVAE as published (Deep-CCA pre-training, joint encoder, constant cross-modal
term), and the truth measured with the same estimator on the same test samples. What is in the CSV already is not run again.

Columns: ``joint`` and ``conditional`` are mean canonical correlations between the two decoder inputs, drawn from the
posterior given both assays, and given one (mean of the two directions); ``NLL`` is the importance-weighted joint negative
log-likelihood of 300 test samples (nats a sample); ``cover 50`` to ``cover 95`` are the shares of hidden test values
inside their central intervals (the published form has no calibration: its intervals are those of its own predictive
distribution); ``MSE`` is that of the imputed mean against the noise-free signal (variance 1).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
import torch
from page_parts import intro, markdown, provenance
from resumable import append, begin

import omicvae
from omicvae.stats.canonical import canonical_correlations

N_TRAIN, N_TEST, LATENT, FEATURES, NOISE = 5000, 2000, 10, 100, 0.3
MODES = {"default": {}, "as published": {"posterior": "joint_encoder"}}
CALIBRATION = {"default": "auto", "as published": 0}
LEVELS = (0.5, 0.8, 0.9, 0.95)
NAMES = ("a", "b")
KEY = ("rho", "seed", "mode")
COLUMNS = (
    *(*KEY, "truth", "joint", "conditional", "NLL"),
    *(*(f"cover {round(100 * level)}" for level in LEVELS), "MSE", "seconds"),
)


def measured(z: np.ndarray) -> float:
    """Mean canonical correlation between the two halves of latent draws."""
    z = torch.tensor(z)
    return float(canonical_correlations(z[:, :LATENT], z[:, LATENT:]).mean())


def fit_and_score(
    simulation: omicvae.datasets.Simulation, n_train: int, rho: float, mode: str, seed: int
) -> dict[str, float | str]:
    """One row of the table."""
    mdata, truth = simulation.mdata, simulation.truth
    test = np.arange(n_train, mdata.n_obs)
    split = [np.arange(int(0.9 * n_train)), np.arange(int(0.9 * n_train), n_train), test]
    scvi.settings.seed = seed
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(NAMES, "normal"))
    model = omicvae.model.CoVAE(mdata, n_latent=LATENT, **MODES[mode])
    start = time.perf_counter()
    model.train(
        enable_progress_bar=False,
        calibration_size=CALIBRATION[mode],
        datasplitter_kwargs={"external_indexing": split},
    )
    seconds = time.perf_counter() - start
    conditional = [measured(model.get_latent_representation(indices=test, n_samples=1, given=[m])[0]) for m in NAMES]
    coverage: dict[float, list[float]] = {level: [] for level in LEVELS}
    error = []
    for m in NAMES:
        x, others = np.asarray(mdata[m].X)[test], [n for n in NAMES if n != m]
        for level in LEVELS:
            imputed = model.impute(m, indices=test, given=others, level=level)
            coverage[level].append(((x >= imputed.layers["lower"]) & (x <= imputed.layers["upper"])).mean())
        error.append(((imputed.X - truth.signals[m][test]) ** 2).mean())
    return {
        "rho": rho,
        "seed": seed,
        "mode": mode,
        "truth": measured(np.concatenate([truth.latents[m][test] for m in NAMES], 1)),
        "joint": measured(model.get_latent_representation(indices=test, n_samples=1)[0]),
        "conditional": float(np.mean(conditional)),
        "NLL": -model.get_marginal_ll(indices=test[:300], n_samples=300),
        **{f"cover {round(100 * level)}": float(np.mean(found)) for level, found in coverage.items()},
        "MSE": float(np.mean(error)),
        "seconds": seconds,
    }


def over_seeds(rows: pd.DataFrame, column: str) -> str:
    """Mean over seeds, with its standard error where there are several."""
    error = rows[column].std() / len(rows) ** 0.5
    return f"{rows[column].mean():.3f}" + (f" ± {error:.3f}" if len(rows) > 1 else "")


def report(table: pd.DataFrame, folder: Path) -> None:
    """Write a figure and a page."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    mean = table.groupby(["mode", "rho"], as_index=False).mean(numeric_only=True)
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    for (mode, rows), colour in zip(mean.groupby("mode"), ("#d55e00", "#0072b2"), strict=True):
        axes[0].plot(rows["truth"], rows["conditional"], "o-", color=colour, label=f"{mode}, given one assay")
        axes[0].plot(rows["truth"], rows["joint"], "s--", color=colour, alpha=0.6, label=f"{mode}, given both")
        axes[1].plot(rows["rho"], rows["NLL"], "o-", color=colour, label=mode)
        axes[2].plot(rows["rho"], rows["cover 90"], "o-", color=colour, label=mode)
    axes[0].plot([0, 1], [0, 1], color="0.6", lw=1, zorder=0)
    axes[2].axhline(0.9, color="0.6", lw=1, zorder=0)
    axes[0].set(xlabel="true correlation", ylabel="correlation of decoder inputs", xlim=(0, 1), ylim=(0, 1))
    axes[1].set(xlabel="true correlation", ylabel="joint NLL (nats a sample)")
    axes[2].set(xlabel="true correlation", ylabel="coverage of 90 % intervals", ylim=(0.5, 1))
    axes[0].legend(frameon=False, fontsize=7)
    axes[1].legend(frameon=False, fontsize=8)
    figure.savefig(folder / "correlation.png", dpi=150)
    groups = table.groupby(["mode", "rho"])
    columns = ["truth", "joint", "conditional", "NLL", *(f"cover {round(100 * level)}" for level in LEVELS), "MSE"]
    shown = pd.DataFrame({c: groups[[c]].apply(over_seeds, column=c) for c in columns})
    shown.insert(0, "seeds", groups.size())
    shown.index = [f"{mode}, rho {rho:g}" for mode, rho in shown.index]
    (folder / "correlation.md").write_text(
        intro(__doc__ or "", "Correlation between assays")
        + f"\n{provenance(Path(__file__), table['seconds'].sum() / 3600, 'wall')}"
        + "\n```{image} correlation.png\n```\n\nMeans over seeds, ± the standard error of the mean.\n\n"
        + markdown(shown, "mode")
    )


def main() -> None:
    """Run what the CSV lacks; write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rho", type=float, nargs="+", default=[0.05, 0.3, 0.6, 0.9])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--small", action="store_true", help="one correlation and seed, 300 + 150 samples, 20 features")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/correlation.csv"))
    parser.add_argument("--write", type=Path, default=None)
    arguments = parser.parse_args()
    n_train, n_test, n_vars = (300, 150, 20) if arguments.small else (N_TRAIN, N_TEST, FEATURES)
    if arguments.small:
        arguments.rho, arguments.seeds = arguments.rho[-1:], arguments.seeds[:1]
    done = begin(arguments.out, KEY)
    for seed in arguments.seeds:
        for rho in arguments.rho:
            modes = [mode for mode in arguments.modes if (rho, seed, mode) not in done]
            if not modes:
                continue
            simulation = omicvae.datasets.correlated_gaussian(
                n_train + n_test, modalities=NAMES, n_latent=LATENT, n_vars=n_vars, rho=rho, noise=NOISE, seed=seed
            )
            for mode in modes:
                append(arguments.out, fit_and_score(simulation, n_train, rho, mode, seed), COLUMNS)
    if arguments.write is not None:
        report(pd.read_csv(arguments.out), arguments.write)


if __name__ == "__main__":
    main()
