"""What a MuData holds, and whether a model can be set up on it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.abc import CSCDataset, CSRDataset
from mudata import MuData
from scipy import sparse

from omicvae.data import modality_rows
from omicvae.data._cohort import stored_values
from omicvae.data._validate import check_layers, check_mapping, check_names, check_overlap, choose_modalities
from omicvae.model._values import check_likelihood, read_values
from omicvae.nn.likelihoods import likelihood_class, propose
from omicvae.stats.summary import ValueSummary
from omicvae.tl._arguments import check_data

logger = logging.getLogger("omicvae")
T = TypeVar("T")


@dataclass(frozen=True)
class CohortCheck:
    """What :func:`check` found."""

    n_obs: int
    """Samples of the MuData."""
    modalities: pd.DataFrame
    """A row a modality: ``samples``, ``missing`` (samples without it), ``features``, ``storage`` (``"dense"`` or
    ``"sparse"``), ``dtype``, ``values`` (``"whole numbers"``, ``"0 and 1"``, ``"proportions"``, ``"real numbers"`` or
    ``"no values"``), ``minimum``, ``maximum``, ``nan`` (share of values), ``likelihood`` (named, else proposed) and
    ``reason``. Empty text and NaN where values could not be read."""
    patterns: pd.DataFrame
    """A row a combination of assays, most frequent first: ``assays`` (tuple of names) and ``samples``. Empty if samples
    cannot be told apart."""
    warnings: tuple[str, ...]
    """What set-up would warn of."""
    problems: tuple[str, ...]
    """Why set-up would refuse the data, each with its cure."""

    @property
    def usable(self) -> bool:
        """Whether set-up would accept the data."""
        return not self.problems


def check(
    mdata: MuData,
    *,
    modalities: Sequence[str] | None = None,
    likelihoods: Mapping[str, str] | None = None,
    layers: Mapping[str, str] | None = None,
    coverage_layers: Mapping[str, str] | None = None,
) -> CohortCheck:
    """Look at a MuData as ``setup_mudata`` would, without changing it and without stopping at the first problem.

    Every value is read once. The MuData may be backed.

    Parameters
    ----------
    mdata
        Modalities may hold different samples.
    modalities
        Names to look at; all by default.
    likelihoods, layers, coverage_layers
        As in :meth:`omicvae.model.CoVAE.setup_mudata`.

    Returns
    -------
    :class:`CohortCheck`; ``.usable`` says whether set-up would accept the data, ``.problems`` why not.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, or an argument is not of the type that set-up takes.
    """
    check_data(mdata, "check")
    problems = _Problems()
    with _collected_warnings() as warnings:
        chosen = problems.of(choose_modalities, mdata, modalities)
        names = [m for m in chosen or mdata.mod if isinstance(mdata.mod[m], AnnData)]
        named = problems.none(check_names, mdata, chosen or names)
        if named and chosen:
            problems.none(check_overlap, mdata, chosen)
        given = {"likelihoods": likelihoods, "layers": layers, "coverage_layers": coverage_layers}
        maps = {k: problems.of(check_mapping, k, v, names) or {} for k, v in given.items()}
        rows = {m: _described(mdata, m, {k: v.get(m) for k, v in maps.items()}, problems) for m in names}
    return CohortCheck(
        n_obs=mdata.n_obs,
        modalities=pd.DataFrame.from_dict(rows, orient="index", columns=list(_COLUMNS)),
        patterns=_patterns(mdata, names if named else []),
        warnings=tuple(warnings),
        problems=tuple(problems.found),
    )


_COLUMNS: dict[str, Any] = {
    **{"samples": 0, "missing": 0, "features": 0, "storage": "", "dtype": "", "values": ""},
    **{"minimum": float("nan"), "maximum": float("nan"), "nan": float("nan"), "likelihood": "", "reason": ""},
}
"""Column -> what it holds where values could not be read."""


class _Problems:
    """Runs checks and keeps the messages of those that fail."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def of(self, check: Callable[..., T], *arguments: Any) -> T | None:
        """What ``check`` returns; ``None`` if it fails."""
        try:
            return check(*arguments)
        except ValueError as error:
            self.found.append(str(error))
            return None

    def none(self, check: Callable[..., None], *arguments: Any) -> bool:
        """Whether ``check`` succeeds."""
        before = len(self.found)
        self.of(check, *arguments)
        return len(self.found) == before


def _described(mdata: MuData, modality: str, named: Mapping[str, str | None], problems: _Problems) -> dict[str, Any]:
    """Row of a modality; ``named`` has what the user named for it, by argument."""
    adata = mdata.mod[modality]
    row = _COLUMNS | {"samples": adata.n_obs, "missing": mdata.n_obs - adata.n_obs, "features": adata.n_vars}
    for argument in ("layers", "coverage_layers"):
        layer = named[argument]
        if layer is not None and not problems.none(check_layers, mdata, argument, {modality: layer}):
            return row
    layer, coverage, likelihood = named["layers"], named["coverage_layers"], named["likelihoods"]
    try:
        row |= _stored(stored_values(mdata, modality, layer))
        found = read_values(mdata, modality, layer, coverage)
    except (TypeError, ValueError) as error:  # a type that cannot be read is the data's, not the caller's
        problems.found.append(str(error))
        return row
    proposed, reason = propose(found.summary, has_coverage=coverage is not None)
    row |= _summarised(found.summary)
    row |= {"likelihood": likelihood or proposed, "reason": "named" if likelihood else reason}
    chosen = problems.of(likelihood_class, row["likelihood"])
    if chosen is not None:
        problems.none(check_likelihood, mdata, modality, chosen, found)
    return row


def _stored(values: object) -> dict[str, str]:
    compressed = sparse.issparse(values) or isinstance(values, CSRDataset | CSCDataset)
    return {"storage": "sparse" if compressed else "dense", "dtype": str(getattr(values, "dtype", ""))}


def _summarised(summary: ValueSummary) -> dict[str, Any]:
    total = summary.n_obs * summary.n_vars
    return {
        "values": _kind(summary),
        "minimum": summary.minimum,
        "maximum": summary.maximum,
        "nan": summary.n_nan / total if total else float("nan"),
    }


def _kind(summary: ValueSummary) -> str:
    if summary.n_obs * summary.n_vars == summary.n_nan + summary.n_inf:
        return "no values"
    if not summary.n_not_binary:
        return "0 and 1"
    if not summary.n_negative and not summary.n_fractional:
        return "whole numbers"
    return "real numbers" if summary.n_outside_unit else "proportions"


def _patterns(mdata: MuData, names: Sequence[str]) -> pd.DataFrame:
    """Combinations of assays and their samples, most frequent first."""
    if not names:
        return pd.DataFrame({"assays": [], "samples": []})
    present = np.stack([modality_rows(mdata, m) >= 0 for m in names], axis=1)
    patterns, counts = np.unique(present, axis=0, return_counts=True)
    order = np.lexsort((-patterns.sum(1), -counts))
    assays = [tuple(m for m, here in zip(names, patterns[k], strict=True) if here) for k in order]
    return pd.DataFrame({"assays": assays, "samples": counts[order]})


class _Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


@contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Messages that the package logs as warnings, instead of logging them."""
    collector, kept, propagates = _Collector(), list(logger.handlers), logger.propagate
    logger.handlers, logger.propagate = [collector], False
    try:
        yield collector.messages
    finally:
        logger.handlers, logger.propagate = kept, propagates
