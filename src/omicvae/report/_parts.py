"""What a page is made of, before it is HTML."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import imread

DPI = 170
ON_SCREEN = 104  # pixels of the page an inch of a figure takes

Tone = Literal["text", "note", "warning", "copy"]


@dataclass(frozen=True)
class Paragraph:
    """Text."""

    text: str
    tone: Tone = "text"
    """``"note"``: why something is not there; ``"warning"``; ``"copy"``: to be copied elsewhere."""
    kind: str = field(default="paragraph", init=False)


@dataclass(frozen=True)
class Picture:
    """A figure as part of the page."""

    source: str
    """``data:`` address."""
    alt: str
    caption: str
    width: int
    """Pixels of the page."""
    kind: str = field(default="picture", init=False)


@dataclass(frozen=True)
class Grid:
    """A table."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[str]
    """Columns that hold text, aligned to the left."""
    caption: str = ""
    kind: str = field(default="grid", init=False)


@dataclass(frozen=True)
class Row:
    """Parts beside one another, where the window is wide enough."""

    parts: Sequence[Picture | Grid]
    kind: str = field(default="row", init=False)


Part: TypeAlias = Paragraph | Picture | Grid | Row


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    key: str
    """Where links to it lead."""
    title: str
    lead: str
    """What it answers."""
    parts: Sequence[Part]


@dataclass(frozen=True)
class Card:
    """A number at the top of the page."""

    value: str
    label: str


def picture(axes: Axes, alt: str, caption: str) -> Picture:
    """A figure as PNG inside the page; it is closed."""
    figure = axes.figure
    assert isinstance(figure, Figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, bbox_inches="tight")
    plt.close(figure)
    file.seek(0)
    width = imread(file, format="png").shape[1]
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return Picture(f"data:image/png;base64,{data}", alt, caption, round(width / DPI * ON_SCREEN))


def parts_of(build: Callable[[], Iterable[Part]]) -> list[Part]:
    """What ``build`` gives; a sentence where the model or its data cannot give it, and what it warns of."""
    found: list[Part] = []
    before = plt.get_fignums()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            found.extend(build())
        except (RuntimeError, ValueError) as error:  # what the package's own functions raise for such models and data
            found.append(Paragraph(f"Not available: {error}", "note"))
            for left in set(plt.get_fignums()) - set(before):
                plt.close(left)
    said = dict.fromkeys(
        str(w.message) for w in caught if issubclass(w.category, UserWarning) and "omicvae" in w.filename
    )
    return [*found, *(Paragraph(text, "warning") for text in said)]


def number(value: float, digits: int = 2) -> str:
    """A number, or a dash where there is none."""
    return "–" if value != value else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(value: float, digits: int = 0, *, sign: bool = False) -> str:
    """A share as a percentage, or a dash where there is none."""
    if value != value:
        return "–"
    return f"{round(100 * value, digits) + 0.0:{'+' if sign else ''}.{digits}f} %".replace("-", "−")


def listed(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else "none"
