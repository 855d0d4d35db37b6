"""Section: whether training went well."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from omicvae import pl, tl
from omicvae.model._model import Model
from omicvae.report._parts import Grid, Paragraph, Part, Section, number, parts_of, picture

LATE = 0.98
"""Share of the longest training after which a best epoch says that training could have gone on."""
IGNORED = 0.01
"""Nats below which an assay says nothing."""
TOLERATED = 0.25
"""Distance of an aggregated variance from the prior's from which it is named."""


def training_section(model: Model) -> Section:
    """Curves, what each assay tells, and the aggregated posterior."""
    parts = [
        *parts_of(lambda: _curves(model)),
        *parts_of(lambda: _information(model)),
        *parts_of(lambda: _latents(model)),
    ]
    return Section(
        "training", "Training health", "Whether the model converged, and whether its latents are used.", parts
    )


def _curves(model: Model) -> Iterator[Part]:
    curves = model.history or {}
    if "elbo_train" not in curves:
        yield Paragraph(f"This {type(model).__name__} was fitted in closed form: there are no training curves.", "note")
        return
    with_modalities = all(f"reconstruction_loss_{m}_train" in curves for m in model.modalities)
    axes = pl.history(model, keys=None if with_modalities else ["elbo"], show=False)
    caption = "Negative evidence lower bound, training and validation samples."
    if with_modalities:
        caption += " Right: its reconstruction part, by modality."
    yield picture(axes, "Training and validation curves", caption)
    yield from _judged(model)


def _judged(model: Model) -> Iterator[Part]:
    asked, best = model.training_.max_epochs, model.best_epoch_
    n = len((model.history or {})["elbo_train"])
    if best is None or asked is None or "validation_loss" not in (model.history or {}):
        return
    stopped = f"stopped early after {n} of at most {asked} epochs" if n < asked else f"ran for all of its {n} epochs"
    yield Paragraph(f"Training {stopped}; the weights of epoch {best + 1} were kept.")
    if best + 1 >= LATE * asked and asked > 1:
        yield Paragraph(
            "The validation loss was lowest in one of the last epochs: more epochs (max_epochs) may give a better model.",
            "warning",
        )


def _information(model: Model) -> Iterator[Part]:
    table = tl.information(model)
    found = table.to_dict("records")
    rows = [[row["given"], f"{row['n_samples']:,}", number(row["kl"])] for row in found]
    yield Grid(
        ["Given", "Samples", "KL from the prior (nats)"], rows, ("Given",),
        "Divergence of the posterior from the prior, mean over samples: what each modality alone tells about a sample. Near "
        "0, it is ignored.",
    )  # fmt: skip
    ignored = [row["given"] for row in found if row["n_samples"] and row["kl"] < IGNORED]
    if ignored:
        yield Paragraph(f"The model ignores: {', '.join(ignored)}.", "warning")


def _latents(model: Model) -> Iterator[Part]:
    table = tl.aggregated_posterior(model)
    yield picture(
        pl.aggregated_posterior(table, show=False),
        "Variance of each latent over samples",
        "Aggregated posterior: variance of each latent over samples, known (of posterior means) and unknown (mean posterior "
        "variance). Their sum should be near 1, the prior's.",
    )
    active, n = int(table["active"].sum()), len(table)
    yield Paragraph(f"{active} of {n} latents are used. Aggregated variance: {_range(table['aggregated'].to_numpy())}.")
    far = table.loc[(table["aggregated"] - 1).abs() > TOLERATED, "dimension"]
    if len(far):
        names = ", ".join(far[:8]) + (f" and {len(far) - 8} more" if len(far) > 8 else "")
        yield Paragraph(
            f"Further than {TOLERATED:g} from the prior's variance: {names}. Samples drawn from the prior "
            "(generate) may not look like the data there; generate(from_='mixture') does not draw from it.",
            "note",
        )


def _range(values: np.ndarray) -> str:
    return f"{number(float(values.min()))} to {number(float(values.max()))}" if len(values) else "–"
