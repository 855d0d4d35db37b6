"""Sections: whether intervals are true, and what predictions are worth."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

from omicvae import pl
from omicvae.model._model import Model
from omicvae.report._data import summary_grid
from omicvae.report._parts import Grid, Paragraph, Part, Row, Section, number, parts_of, percent, picture

LEVELS = (0.5, 0.8, 0.9, 0.95)
MOST_ROWS = 20
CAVEAT = (
    "Coverage was measured on samples that have the assay. It holds for samples that lack it as far as these differ only in "
    "what the other assays, the batch and the covariates show: not where an assay was left out because of the value that it "
    "would have had."
)


def calibration_section(model: Model) -> Section:
    """Coverage of intervals."""
    lead = "Whether a 90 % interval holds the value 90 % of the time."
    return Section("calibration", "Calibration", lead, parts_of(lambda: _coverage(model)))


def _coverage(model: Model) -> Iterator[Part]:
    table = model.calibration_report()
    curve = picture(
        pl.calibration(coverage_curve(table), show=False),
        "Share of measured values inside intervals against their nominal probability",
        "Intervals of values predicted from the other modalities, calibrated on other samples than those counted. Below the "
        "diagonal they are too narrow; those of counts and 0/1 values are above it by nature.",
    )
    transforms = picture(
        pl.pit(model, show=False),
        "Histogram of probability integral transforms",
        "Where measured values lie in their predictive distribution: flat if these are true.",
    )
    yield Row([curve, transforms])
    yield _pattern_grid(table)
    yield Paragraph(CAVEAT)


def coverage_curve(table: pd.DataFrame) -> pd.DataFrame:
    """``modality``, ``level``, ``coverage`` over all sets of sources, from :meth:`~omicvae.model.CoVAE.calibration_report`."""
    rows = []
    for modality, part in table[table["group"] == "all"].groupby("modality", sort=False):
        weights = part["n_values"].to_numpy(dtype=float)
        for level in LEVELS:
            coverage = part[f"coverage{round(100 * level)}"].to_numpy(dtype=float)
            seen = np.isfinite(coverage) & (weights > 0)
            found = float(np.average(coverage[seen], weights=weights[seen])) if seen.any() else float("nan")
            rows.append((modality, level, found, int(weights[seen].sum())))
    return pd.DataFrame(rows, columns=["modality", "level", "coverage", "n_values"])


def _pattern_grid(table: pd.DataFrame) -> Grid:
    shown = table.sort_values("n_samples", ascending=False, kind="stable").head(MOST_ROWS).sort_index()
    rows = [
        [
            *(str(row["modality"]), str(row["sources"]), str(row["n_samples"])),
            *(percent(row[c]) for c in ("coverage50", "coverage80", "coverage90", "coverage95")),
            f"± {percent(row['coverage90_se'], 1)}" if row["coverage90_se"] == row["coverage90_se"] else "–",
            number(row["rank_correlation"]),
        ]
        for row in shown.to_dict("records")
    ]
    columns = ["Predicted", "From", "Samples", "50 %", "80 %", "90 %", "95 %", "s.e. of 90 %", "Error ~ sd"]
    caption = (
        "Share of values in intervals of these probabilities, by the modalities predicted from. Error ~ sd: rank correlation "
        "of absolute errors with predictive standard deviations; above 0, small ones mean small errors."
    )
    if len(table) > len(shown):
        caption += f" {len(table) - len(shown)} rarer sets are not shown."
    return Grid(columns, rows, ("Predicted", "From"), caption)


def skill_section(model: Model) -> Section:
    """Predictions against ridge regression."""
    lead = "Whether the model predicts better than ridge regression, feature by feature."
    return Section("skill", "Skill over ridge regression", lead, parts_of(lambda: _skill(model)))


def _skill(model: Model) -> Iterator[Part]:
    grid = summary_grid(model)
    if grid is None:
        yield Paragraph(
            "Not measured: fewer than ten samples with two modalities were held out of training (calibration_size).",
            "note",
        )
        return
    yield grid
    yield picture(
        pl.skill(model, show=False),
        "Skill of imputed features over ridge regression, best feature first",
        "Share of ridge regression's CRPS that the model saves, by feature. Ridge was fitted to the same samples and is "
        "scored on the same held-out ones. Above the dashed line the model is better.",
    )
