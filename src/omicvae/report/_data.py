"""Section: what was measured, and in whom."""

from __future__ import annotations

from collections.abc import Iterator

from omicvae import pl
from omicvae.model._model import Model
from omicvae.report._parts import Card, Grid, Paragraph, Part, Picture, Row, Section, listed, number, percent, picture
from omicvae.tl._trust import measured_trust

WIDE = 470
"""Pixels from which a picture has a line of its own."""
NOISE = {
    "normal": "normal",
    "unit_normal": "normal, variance 1",
    "nb": "negative binomial",
    "zinb": "zero-inflated negative binomial",
    "poisson": "Poisson",
    "bernoulli": "Bernoulli",
    "beta": "beta",
    "betabinomial": "beta-binomial",
}
"""Likelihood -> what it is called in prose."""


def cards(model: Model) -> list[Card]:
    """The numbers at the top of the page."""
    present = model._cohort(None).present
    complete = int(present.all(1).sum())
    found = [
        Card(f"{len(present):,}", "samples"),
        Card(str(len(model.modalities)), "modalities"),
        Card(f"{complete:,}", "samples with every modality"),
        Card(percent(1 - float(present.mean())), "of assays missing"),
    ]
    tables = {m: t for m in model.modalities if (t := measured_trust(model, m)) is not None}
    if tables:
        n_features = sum(len(t) for t in tables.values())
        imputable = sum(int(t["imputable"].sum()) for t in tables.values())
        found.append(Card(percent(imputable / n_features), "of features can be imputed better than by their mean"))
    return found


def data_section(model: Model) -> Section:
    """Modalities, likelihoods, and combinations of assays."""
    return Section("data", "Data and missing assays", "What was measured, and in whom.", list(_parts(model)))


def _parts(model: Model) -> Iterator[Part]:
    cohort = model._cohort(None)
    n_measured = dict(zip(model.modalities, cohort.present.sum(0).tolist(), strict=True))
    rows = []
    for one in model.schema.modalities:
        n = n_measured[one.name]
        held = "X" if one.layer is None else f"layer {one.layer}"
        rows.append(
            [
                one.name,
                f"{n:,}",
                f"{len(cohort) - n:,}",
                f"{one.n_vars:,}",
                held,
                NOISE.get(one.likelihood, one.likelihood),
            ]
        )
    columns = ["Modality", "Samples", "Missing", "Features", "Values", "Likelihood"]
    grid, shown = Grid(columns, rows, ("Modality", "Values", "Likelihood")), _pattern_picture(model)
    if shown.width < WIDE:
        yield Row([grid, shown])
    else:
        yield grid
        yield shown
    together = cohort.present.astype(int).T @ cohort.present.astype(int)
    names = model.modalities
    never = [f"{a} and {b}" for i, a in enumerate(names) for j, b in enumerate(names) if i < j and not together[i, j]]
    if never:
        yield Paragraph(
            f"Never measured together: {'; '.join(never)}. How these relate is learned through other assays only.",
            "warning",
        )
    empty = int((~cohort.present.any(1)).sum())
    if empty:
        yield Paragraph(
            f"{empty} samples have none of the registered modalities: nothing is known about them.", "warning"
        )
    if model.schema.categorical or model.schema.continuous:
        covariates = [c.column for c in model.schema.categorical] + list(model.schema.continuous)
        yield Paragraph(f"Covariates: {listed(list(dict.fromkeys(covariates)))}.")


def _pattern_picture(model: Model) -> Picture:
    mdata = model.adata
    axes = pl.missingness(mdata, modalities=model.modalities, show=False)
    return picture(
        axes, "Number of samples with each combination of modalities",
        "Samples by the modalities they have. Dark dots: measured; numbers in brackets: samples with the modality.",
    )  # fmt: skip


def summary_grid(model: Model) -> Grid | None:
    """How well each modality is predicted from the others."""
    rows = []
    for one in model.schema.modalities:
        table = measured_trust(model, one.name)
        if table is None:
            continue
        rows.append(
            [
                *(one.name, str(int(table["n_obs"].max())), number(float(table["r2"].median()))),
                percent(float(table["skill_vs_mean"].median()), 1, sign=True),
                percent(float(table["skill_vs_ridge"].median()), 1, sign=True),
                percent(float(table["coverage90"].mean())),
                f"{int(table['imputable'].sum()):,} of {len(table):,}",
            ]
        )
    if not rows:
        return None
    columns = ["Modality", "Samples", "R²", "Skill over mean", "Skill over ridge", "In 90 % interval", "Imputable"]
    return Grid(
        columns, rows, ("Modality",),
        "Each modality hidden and predicted from the others, in samples the predictor had not seen. R² and skill: median "
        "over features; skill is the share of the CRPS of the reference that the model saves. Imputable: features whose "
        "prediction is better than their distribution over training samples, beyond sampling error.",
    )  # fmt: skip
