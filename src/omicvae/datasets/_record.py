"""What a simulator returns, and how its parts are named."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData

if TYPE_CHECKING:
    from collections.abc import Mapping

TruthT = TypeVar("TruthT")


@dataclass(frozen=True, eq=False)
class Simulation(Generic[TruthT]):
    """Simulated data and the truth behind them.

    Every array of the truth with one row a sample has its rows in the order of ``mdata.obs_names``.
    """

    mdata: MuData
    """What a user would hold: a sample that lacks an assay is absent from that modality."""
    truth: TruthT
    """What generated it: see the simulator for its fields."""


def numbered(prefix: str, count: int) -> pd.Index:
    """Names ``prefix_0001``, ``prefix_0002``, ...: sorting them as text keeps the order.

    Parameters
    ----------
    prefix
        What is counted.
    count
        How many.

    Returns
    -------
    Index of ``count`` names, with at least four digits.
    """
    width = max(4, len(str(count)))
    return pd.Index([f"{prefix}_{i:0{width}d}" for i in range(1, count + 1)])


def build_mudata(tables: Mapping[str, pd.DataFrame], present: pd.DataFrame) -> MuData:
    """MuData of the measured rows of some complete tables.

    Parameters
    ----------
    tables
        Modality to its values, (n_obs, n_vars), rows and columns named.
    present
        (n_obs, n_modalities) bool, rows and columns named: who has which assay.

    Returns
    -------
    MuData whose modalities hold the rows they have, without columns in ``obs`` or ``var``: add those afterwards, so
    that versions of mudata which copy a modality's columns to the top leave the same object as those which do not.
    """
    modalities = {}
    for name, table in tables.items():
        rows = table.loc[present[name].to_numpy()]
        modalities[name] = AnnData(
            X=rows.to_numpy(dtype=np.float32, copy=True),
            obs=pd.DataFrame(index=rows.index),
            var=pd.DataFrame(index=rows.columns),
        )
    with warnings.catch_warnings():
        # mudata 0.3 announces what 0.4 does with columns; there are none to be concerned.
        warnings.filterwarnings("ignore", message=".*pull", category=FutureWarning)
        return MuData(modalities)


def order_of(mdata: MuData, names: pd.Index) -> np.ndarray:
    """Where each sample of a MuData stands among the names it was simulated under.

    MuData lists the samples of its first modality first, so with missing assays its order is not the simulated one.

    Parameters
    ----------
    mdata
        Holds every name, in any order.
    names
        (n_obs,) unique names.

    Returns
    -------
    (n_obs,) positions into ``names``.
    """
    return names.get_indexer(mdata.obs_names)
