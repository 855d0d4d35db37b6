"""What ``omicvae demo`` does: a cohort in which assays are missing, two models, and what they say about it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import scanpy as sc
import scvi
import torch
from matplotlib import pyplot as plt
from mudata import MuData
from rich.console import Console, Group, RenderableType
from rich.table import Table

from omicvae import pl, tl
from omicvae.data import modality_rows
from omicvae.datasets import DatasetUnavailableError, breast_tcga, simulated_cohort
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.pl._figure import COLORS, DPI

LEVEL = 0.9

ModelT = TypeVar("ModelT", CoVAE, MMVAEPlusPlus)


class DemoCohort(NamedTuple):
    """Data to show."""

    mdata: MuData
    name: str
    batch_key: str
    note: str
    """Why it is not the cohort one would expect, if it is not."""


class ModelSummary(NamedTuple):
    """One trained model in numbers."""

    name: str
    seconds: float
    """Wall time of training."""
    epochs: int
    n_shared: int
    scores: pd.DataFrame
    """One row a hidden modality: modality, n_samples, r2, skill, coverage."""


class DemoSummary(NamedTuple):
    """What was done."""

    cohort: DemoCohort
    likelihoods: dict[str, str]
    models: list[ModelSummary]
    output: Path
    files: dict[str, str]
    """Name of a file in ``output`` -> what it holds."""
    seconds: float


def run_demo(output: Path, seed: int, console: Console) -> DemoSummary:
    """Train CoVAE and MMVAE++ on a small cohort, and write the completed cohort and three figures.

    One thread is used: networks this small gain nothing from more.

    Parameters
    ----------
    output
        Folder to write to; made if it is not there.
    seed
        Of the split, the networks' weights and the map.
    console
        Where progress is shown.
    """
    start = time.monotonic()
    output.mkdir(parents=True, exist_ok=True)
    cohort = load_cohort(seed)
    console.print(f"Cohort: {cohort.name}. {cohort.note}".rstrip())
    scvi.settings.seed = seed
    with one_thread():
        covae, first = _train(CoVAE, cohort, console)
        _, second = _train(MMVAEPlusPlus, cohort, console)
        with console.status("Drawing and imputing"):
            files = _write(cohort.mdata, covae, output, seed)
    likelihoods = {m.name: m.likelihood for m in covae.schema.modalities}
    return DemoSummary(cohort, likelihoods, [first, second], output, files, time.monotonic() - start)


def load_cohort(seed: int) -> DemoCohort:
    """Breast tumours of TCGA or, where they cannot be had, a simulated cohort like it."""
    try:
        return DemoCohort(breast_tcga(), "breast tumours of The Cancer Genome Atlas", "split", "")
    except DatasetUnavailableError:
        note = (
            "Nothing in it was measured: the breast tumours of TCGA are neither in the folder named by OMICVAE_DATA nor "
            "in the cache, and could not be downloaded."
        )
        return DemoCohort(simulated_cohort(seed=seed).mdata, "simulated breast tumours", "center", note)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _train(cls: type[ModelT], cohort: DemoCohort, console: Console) -> tuple[ModelT, ModelSummary]:
    """Train a model, write what it says about measured samples into the cohort, and score it."""
    cls.setup_mudata(cohort.mdata, batch_key=cohort.batch_key)
    model = cls(cohort.mdata)
    with console.status(f"Training {cls.__name__}"):
        start = time.monotonic()
        model.train(accelerator="cpu", enable_progress_bar=False)
        seconds = time.monotonic() - start
        tl.embed(cohort.mdata, model)
        scores = held_out_scores(model)
    epochs = len((model.history or {})["train_loss"])
    console.print(f"Trained {cls.__name__}: {epochs} epochs in {seconds:.0f} s.")
    return model, ModelSummary(cls.__name__, seconds, epochs, len(model.latent_names["shared"]), scores)


def held_out_scores(model: CoVAE | MMVAEPlusPlus) -> pd.DataFrame:
    """How well each modality is predicted from the others, for samples that the prediction has not seen.

    Returns
    -------
    DataFrame with ``modality``, ``n_samples``, ``r2`` (median over features), ``skill`` (share of the CRPS of ridge
    regression, fitted on the same samples, that the model saves; median over features) and ``coverage`` (share of values
    in their 90 % interval).
    """
    rows = []
    for modality in model.modalities:
        table = model.trust(modality)
        measures = (float(np.nanmedian(table[c])) for c in ("r2", "skill_vs_ridge"))
        rows.append((modality, int(table["n_obs"].max()), *measures, float(table["coverage90"].mean())))
    return pd.DataFrame(rows, columns=["modality", "n_samples", "r2", "skill", "coverage"])


def _write(mdata: MuData, model: CoVAE, output: Path, seed: int) -> dict[str, str]:
    described = {
        "umap.png": "all samples by subtype, and by whether proteins were measured",
        "calibration.png": "how often values lie in their predicted interval",
        "cross_correlation.png": "how much each pair of modalities shares",
        "completed.h5mu": "every sample with every modality, with intervals",
    }
    paths = {name: output / name for name in described}
    sc.pp.neighbors(mdata, use_rep="X_covae", random_state=seed)
    sc.tl.umap(mdata, random_state=seed)
    torch.set_num_threads(1)  # numba, which both use, shares OpenMP with torch and has set the number back
    axes = sc.pl.umap(
        mdata, color=["subtype", "covae_rppa_source"], title=["Subtype", "Protein assay"], palette=list(COLORS),
        size=130, wspace=0.25, frameon=False, show=False,
    )  # fmt: skip
    axes[0].figure.savefig(paths["umap.png"], dpi=DPI, bbox_inches="tight")
    plt.close(axes[0].figure)
    pl.calibration(model, save=paths["calibration.png"])
    pl.cross_correlation(model, save=paths["cross_correlation.png"])
    tl.complete(mdata, model, level=LEVEL).write_h5mu(paths["completed.h5mu"])
    return described


def render(summary: DemoSummary) -> RenderableType:
    """One screen about what was done."""
    cohort = summary.cohort
    return Group(
        f"\n[bold]{cohort.name}[/bold], {cohort.mdata.n_obs} samples",
        _cohort_table(cohort.mdata, summary.likelihoods),
        "",
        _model_table(summary.models),
        "[dim]Each modality was hidden in turn in held-out samples and predicted from the others. R2: median over "
        "features. Against ridge: by how much the error of the predictive distribution (CRPS) is below that of "
        "ridge regression fitted on the same samples, median over features.[/dim]",
        "",
        f"Written to {summary.output} in {summary.seconds:.0f} s:",
        _file_table(summary.files),
    )


def _table(words: Sequence[str], *columns: str) -> Table:
    """Table with these columns; those named in ``words`` are aligned to the left, numbers to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right", no_wrap=True)
    return table


def _cohort_table(mdata: MuData, likelihoods: dict[str, str]) -> Table:
    table = _table(["modality", "likelihood"], "modality", "likelihood", "features", "measured", "missing")
    for m, likelihood in likelihoods.items():
        measured = int((modality_rows(mdata, m) >= 0).sum())
        table.add_row(m, likelihood, str(mdata.mod[m].n_vars), str(measured), str(mdata.n_obs - measured))
    return table


def _model_table(models: list[ModelSummary]) -> Table:
    table = _table(
        ["model", "hidden"],
        "model",
        "training",
        "epochs",
        "shared dims",
        "hidden",
        "samples",
        "R2",
        "against ridge",
        "in 90 %",
    )
    for one in models:
        about = [one.name, f"{one.seconds:.0f} s", str(one.epochs), str(one.n_shared)]
        for row in one.scores.to_dict("records"):
            scores = [str(row["modality"]), str(row["n_samples"]), f"{row['r2']:.2f}", f"{row['skill']:+.1%}"]
            scores.append(f"{row['coverage']:.0%}")
            table.add_row(*about, *scores)
            about = [""] * len(about)
    return table


def _file_table(files: dict[str, str]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 3, 0, 0))
    for name, text in files.items():
        table.add_row(name, text)
    return table
