"""Section: what the assays share."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from omicvae import pl, tl
from omicvae.model._model import Model
from omicvae.report._parts import Grid, Paragraph, Part, Section, number, parts_of, percent, picture
from omicvae.tl._cross_correlation import has_shared_coordinates

TOP = 8


def shared_section(model: Model) -> Section:
    """Correlation spectrum and the features the other assays know most about."""
    parts = [*parts_of(lambda: _spectrum(model)), *parts_of(lambda: _features(model))]
    return Section(
        "shared", "What the assays share", "In how many dimensions assays agree, and in which features.", parts
    )


def _spectrum(model: Model) -> Iterator[Part]:
    if not has_shared_coordinates(model):
        yield Paragraph(
            f"Not available: a {type(model).__name__} has no shared dimensions that can be read from one assay alone, so "
            "there is no correlation spectrum. CoVAE and MMVAEPlusPlus have one.",
            "note",
        )
        return
    table = tl.cross_correlation(model)
    if not table["correlation"].notna().any():
        yield Paragraph("Not available: fewer than three held-out samples have two modalities.", "note")
        return
    yield picture(
        pl.cross_correlation(table, show=False),
        "Correlation between modalities along shared dimensions",
        "Correlation between assays along the dimensions that the model shares, on held-out samples, each assay's coordinate "
        "from that assay alone. Whiskers: 90 % interval; dashed: what chance gives.",
    )
    yield from _counted(table)


def _counted(table: pd.DataFrame) -> Iterator[Part]:
    rows = []
    for (a, b), part in table.groupby(["modality_a", "modality_b"], sort=False):
        above = int((part["correlation"] > part["null"]).sum())
        strongest = "–" if part["correlation"].isna().all() else number(float(part["correlation"].max()))
        rows.append([f"{a} and {b}", f"{above} of {len(part)}", strongest])
    yield Grid(["Pair", "Dimensions above chance", "Strongest correlation"], rows, ("Pair",))


def _features(model: Model) -> Iterator[Part]:
    table = tl.shared_features(model, n=TOP)
    if not len(table):
        yield Paragraph("No feature could be shown to be predictable from other assays in held-out samples.", "note")
        return
    rows = [
        [
            *(str(row["modality"]), str(row["feature"]), number(row["r2"])),
            *(percent(row[c], sign=c.startswith("skill")) for c in ("skill_vs_mean", "skill_vs_ridge", "coverage90")),
            "–" if row["dimension"] is None else f"{row['dimension']} ({number(row['correlation'])})",
        ]
        for row in table.to_dict("records")
    ]
    columns = ["Modality", "Feature", "R²", "Skill over mean", "Skill over ridge", "In 90 % interval", "Shared latent"]
    yield Grid(
        columns, rows, ("Modality", "Feature", "Shared latent"),
        f"Up to {TOP} features a modality that the other modalities predict best, by skill over the mean in held-out samples; "
        "the best of many look better than they are. Shared latent: the one, from the other modalities, that the feature is "
        "most correlated with (Spearman).",
    )  # fmt: skip
