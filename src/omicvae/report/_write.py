"""Writing the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from uuid import uuid4

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib import pyplot as plt
from mudata import MuData

from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.model._written_report import ReportMixin
from omicvae.report._calibration import calibration_section, skill_section
from omicvae.report._data import cards, data_section
from omicvae.report._map import check_columns, map_section
from omicvae.report._methods import methods_section
from omicvae.report._parts import Section, listed
from omicvae.report._shared import shared_section
from omicvae.report._training import training_section

STYLE = {"text.parse_math": False, "font.size": 10, "axes.titlesize": "medium", "figure.facecolor": "white"}
"""Names are shown as they are: a dollar sign in one is not the beginning of a formula."""


def write_report(
    model: ReportMixin,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    color: Sequence[str] | None = None,
    seed: int = 0,
) -> Path:
    """Write one self-contained HTML page about a model; ``model.report`` is the same.

    Parameters
    ----------
    model
        Trained, with data attached.
    path
        File to write, ``.html``; an existing one is replaced once the page is complete.
    title
        Heading; by default the model and its modalities.
    color
        Columns of ``mdata.obs`` to colour the map of samples by.
    seed
        Of the map.

    Returns
    -------
    Path of the page.

    Raises
    ------
    TypeError
        If ``model`` is not a model, or ``color`` not a list.
    ValueError
        If the model was loaded without data, ``path`` does not end in ``.html``, or a column is not there.
    FileNotFoundError
        If there is no folder to write it in.
    RuntimeError
        If the model is not trained.
    """
    known = check_model(model, "report")  # type: ignore[arg-type]  # every model class is a Model
    target = _target(path)
    if not isinstance(known.adata, MuData):
        raise ValueError("the model was loaded without data, which a report is about: load it with load(dir, mdata)")
    check_columns(known.adata, color)
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        sections = _sections(known, color, seed)
    page = _environment().get_template("page.html.jinja").render(
        title=title or f"{type(known).__name__} of {listed(list(known.modalities))}",
        model=type(model).__name__,
        cards=cards(known),
        sections=sections,
        version=version("omicvae"),
        date=date.today().isoformat(),
    )  # fmt: skip
    draft = target.with_name(f".{target.name}-{uuid4().hex}")
    try:
        draft.write_text(page, encoding="utf-8")
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)
    return target


def _target(path: str | os.PathLike[str]) -> Path:
    target = Path(path)
    if target.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"a report is a web page: its name must end in '.html', got {str(path)!r}")
    if not target.resolve().parent.is_dir():
        raise FileNotFoundError(f"{target.resolve().parent} is not a folder; make it first")
    if target.is_dir():
        raise ValueError(f"{target} is a folder; name a file")
    return target


def _sections(model: Model, color: Sequence[str] | None, seed: int) -> list[Section]:
    return [
        data_section(model),
        skill_section(model),
        calibration_section(model),
        map_section(model, color, seed),
        shared_section(model),
        training_section(model),
        methods_section(model),
    ]


def _environment() -> Environment:
    """Names of features and samples are not to be trusted: whatever is inserted is escaped."""
    return Environment(
        loader=PackageLoader("omicvae.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
