"""MuData put together from traits that real files have and no tutorial shows."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

from omicvae.nn.likelihoods import LIKELIHOODS

CASES = int(os.environ.get("OMICVAE_FUZZ_CASES", "500"))
settings.register_profile(
    "fuzz",
    max_examples=CASES,
    derandomize="OMICVAE_FUZZ_CASES" not in os.environ,  # the same cases each time, unless a number is asked for
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # each step of shrinking would train; a case's traits say what it is
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)

Random = np.random.Generator
Values = np.ndarray
NAMES = ("rna", "prot.surface", "Méthylation β", "atac/peaks 1")
KINDS: Mapping[str, Callable[[Random, tuple[int, int]], Values]] = {
    "counts": lambda rng, shape: rng.poisson(4.0, shape).astype(float),
    "proportions": lambda rng, shape: rng.uniform(0.02, 0.98, shape),
    "binary": lambda rng, shape: rng.integers(0, 2, shape).astype(float),
    "continuous": lambda rng, shape: rng.normal(size=shape),
}


# ---------------------------------------------------------------------- traits of values: (x, rng), changes x in place


def _some(x: Values, rng: Random, value: float) -> None:
    if x.size:
        x.flat[rng.integers(0, x.size, max(1, x.size // 20))] = value


def _row(x: Values, rng: Random, value: float) -> None:
    if len(x):
        x[rng.integers(len(x))] = value


def _column(x: Values, rng: Random, value: float) -> None:
    if x.shape[1]:
        x[:, rng.integers(x.shape[1])] = value


def _same_rows(x: Values, rng: Random) -> None:
    x[:] = x[:1]


def _multiplied(factor: float) -> Callable[[Values, Random], None]:
    def apply(x: Values, rng: Random) -> None:
        x *= factor

    return apply


def _set(where: Callable[[Values, Random, float], None], value: float) -> Callable[[Values, Random], None]:
    return lambda x, rng: where(x, rng, value)


def _everywhere(x: Values, rng: Random, value: float) -> None:
    x[:] = value


VALUES: Mapping[str, Callable[[Values, Random], None]] = {
    "some NaN": _set(_some, np.nan),
    "a sample of NaN": _set(_row, np.nan),
    "a feature of NaN": _set(_column, np.nan),
    "nothing but NaN": _set(_everywhere, np.nan),
    "inf": _set(_some, np.inf),
    "-inf": _set(_some, -np.inf),
    "negative": _set(_some, -3.0),
    "fractional": _set(_some, 2.5),
    "a constant feature": _set(_column, 1.0),
    "all constant": _set(_everywhere, 1.0),
    "a sample of zeros": _set(_row, 0.0),
    "a feature of zeros": _set(_column, 0.0),
    "nothing but zeros": _set(_everywhere, 0.0),
    "identical samples": _same_rows,
    "an outlier of 1e6": _set(_some, 1e6),
    "an outlier of 1e30": _set(_some, 1e30),
    "an outlier beyond float32": _set(_some, 1e300),
    "huge": _multiplied(1e7),
    "tiny": _multiplied(1e-30),
}

# ---------------------------------------------------------------------- traits of names


def _doubled(names: list[str]) -> list[str]:
    return names if len(names) < 2 else [names[1], *names[1:]]


ROW_NAMES: Mapping[str, Callable[[str], str]] = {
    "plain": lambda name: name,
    "unicode": lambda name: f"Ünïçødé 试样 🧬 {name}",
    "decomposed": lambda name: unicodedata.normalize("NFD", f"é{name}"),
    "whitespace": lambda name: f" {name}\t",
    "numbers": lambda name: name[1:],
    "slashes and dots": lambda name: f"../{name}.%2E/'\"\\",
    "markup": lambda name: f"[red]{{{name}}}\n",
}

# ---------------------------------------------------------------------- traits of storage

STORAGE: Mapping[str, Callable[[Values], Any]] = {
    "float32": lambda x: x.astype(np.float32),
    "float64": lambda x: x,
    "float16": lambda x: x.astype(np.float16),
    "fortran": lambda x: np.asfortranarray(x.astype(np.float32)),
    "int": lambda x: np.nan_to_num(x, posinf=9, neginf=-9).clip(-9e15, 9e15).astype(np.int64),
    "uint8": lambda x: np.nan_to_num(x, posinf=9).clip(0, 255).astype(np.uint8),
    "bool": lambda x: x > 0,
    "csr": lambda x: sparse.csr_matrix(x.astype(np.float32)),
    "csc": lambda x: sparse.csc_matrix(x),
    "csr array": lambda x: sparse.csr_array(x),
    "int csr": lambda x: sparse.csr_matrix(np.nan_to_num(x, posinf=9, neginf=-9).clip(-9e15, 9e15).astype(np.int64)),
    "object": lambda x: x.astype(object),
    "text": lambda x: x.astype(str).astype(object),
    "complex": lambda x: x.astype(complex),
}
USUAL_STORAGE = ("float32", "float64", "csr")

# ---------------------------------------------------------------------- traits of covariates: (names, rng) -> column

BATCHES: Mapping[str, Callable[[int, Random], Any]] = {
    "two": lambda n, rng: np.array(["A", "B"], dtype=object)[rng.integers(0, 2, n)],
    "with gaps": lambda n, rng: np.array(["A", "B", None], dtype=object)[rng.integers(0, 3, n)],
    "categorical with gaps": lambda n, rng: pd.Categorical.from_codes(
        rng.integers(-1, 2, n), categories=["A", "B", "never used"]
    ),
    "numbers with gaps": lambda n, rng: np.array([1.0, 2.0, np.nan])[rng.integers(0, 3, n)],
    "mixed": lambda n, rng: np.array([1, "1", 2.0, "é", True], dtype=object)[rng.integers(0, 5, n)],
    "one a sample": lambda n, rng: np.array([f"b{i}" for i in range(n)], dtype=object),
    "one": lambda n, rng: np.array(["A"] * n, dtype=object),
    "all missing": lambda n, rng: np.full(n, np.nan),
    "truth values": lambda n, rng: rng.integers(0, 2, n).astype(bool),
}
CONTINUOUS: Mapping[str, Callable[[int, Random], Any]] = {
    "ages": lambda n, rng: rng.normal(50, 10, n),
    "ages with gaps": lambda n, rng: np.where(rng.uniform(size=n) < 0.3, np.nan, rng.normal(50, 10, n)),
    "constant": lambda n, rng: np.full(n, 3),
    "huge": lambda n, rng: rng.normal(size=n) * 1e30,
    "inf": lambda n, rng: np.where(rng.uniform(size=n) < 0.3, np.inf, 1.0),
    "text": lambda n, rng: np.array(["old"] * n, dtype=object),
    "beyond float32": lambda n, rng: np.full(n, 1e300) * rng.uniform(size=n),
}


# ---------------------------------------------------------------------- traits of the whole


def _disjoint(n: int, m: int, rng: Random) -> Values:
    return (np.arange(n) % m)[:, None] == np.arange(m)


def _every_pattern(n: int, m: int, rng: Random) -> Values:
    """As many patterns as there can be, of one sample each where samples are few."""
    return ((np.arange(n) % (2**m - 1) + 1)[:, None] >> np.arange(m) & 1).astype(bool)


def _last_nearly_absent(n: int, m: int, rng: Random) -> Values:
    present = np.ones((n, m), dtype=bool)
    present[rng.integers(0, 4) :, -1] = False
    return present


PRESENCE: Mapping[str, Callable[[int, int, Random], Values]] = {
    "all": lambda n, m, rng: np.ones((n, m), dtype=bool),
    "most": lambda n, m, rng: rng.uniform(size=(n, m)) < 0.85,
    "half": lambda n, m, rng: rng.uniform(size=(n, m)) < 0.5,
    "every pattern": _every_pattern,
    "disjoint": _disjoint,
    "last nearly absent": _last_nearly_absent,
}


def _backed(mdata: MuData, rng: Random, folder: Path) -> MuData:
    path = folder / f"{rng.integers(2**60)}.h5mu"
    mdata.write_h5mu(path)
    return mudata.read_h5mu(path, backed="r")


def _changed(change: Callable[[AnnData, Random], AnnData]) -> Callable[[MuData, Random, Path], MuData]:
    """A MuData whose first modality was replaced after it was built, without ``mdata.update()``."""

    def apply(mdata: MuData, rng: Random, folder: Path) -> MuData:
        name = next(iter(mdata.mod))
        mdata.mod[name] = change(mdata.mod[name], rng)
        return mdata

    return apply


def _renamed(adata: AnnData, rng: Random) -> AnnData:
    adata = adata.copy()
    adata.obs_names = [f"{name}-1" for name in adata.obs_names]
    return adata


CONTAINERS: Mapping[str, Callable[[MuData, Random, Path], MuData]] = {
    "as built": lambda mdata, rng, folder: mdata,
    "copy": lambda mdata, rng, folder: mdata.copy(),
    "view": lambda mdata, rng, folder: mdata[: max(1, mdata.n_obs // 2)],
    "copy of a view": lambda mdata, rng, folder: mdata[rng.permutation(mdata.n_obs)].copy(),
    "views of modalities": _changed(lambda adata, rng: adata[np.arange(adata.n_obs)]),
    "backed": _backed,
    "renamed after": _changed(_renamed),
    "reordered after": _changed(lambda adata, rng: adata[rng.permutation(adata.n_obs)].copy()),
    "cut after": _changed(lambda adata, rng: adata[: adata.n_obs // 2].copy()),
}
MODELS = ("covae", "network", "mmvaepp", "mvae", "mvae", "mvae")


@dataclass
class Case:
    """A MuData, how to set it up, and the traits it was made of."""

    mdata: MuData
    setup: dict[str, Any]
    model: str
    traits: list[str]

    def __repr__(self) -> str:
        return f"Case({self.model}, {self.setup}, {self.traits})"


def _often(draw: Any, choices: Sequence[str], usual: Sequence[str], one_in: int) -> str:
    """One of ``usual``, and once in a while any of ``choices``."""
    return draw(st.sampled_from(list(choices) if draw(st.integers(1, one_in)) == one_in else list(usual)))


def _assay(draw: Any, name: str, rows: list[str], rng: Random, traits: list[str]) -> AnnData:
    """One assay of the samples named in ``rows``, in an order of its own."""
    p = draw(st.sampled_from([0] + 4 * [1, 2] + 12 * [4, 6, 9]))
    kind = draw(st.sampled_from(list(KINDS)))
    x = KINDS[kind](rng, (len(rows), p))
    for trait in draw(st.sampled_from([[t] for t in VALUES] + 2 * len(VALUES) * [[]])):
        VALUES[trait](x, rng)
        traits.append(f"{name}: {trait}")
    storage = _often(draw, list(STORAGE), USUAL_STORAGE, 4)
    names = [f"f{j}" for j in range(p)]
    spelling = ROW_NAMES[_often(draw, list(ROW_NAMES), ["plain"], 4)]
    names = [spelling(feature) for feature in names]
    repeated = draw(st.sampled_from([None] * 28 + ["samples", "features"]))
    rows = _doubled(rows) if repeated == "samples" else rows
    names = _doubled(names) if repeated == "features" else names
    order = rng.permutation(len(rows))
    traits.append(f"{name}: {kind} {x.shape} as {storage}" + (f", repeated {repeated}" if repeated else ""))
    with np.errstate(all="ignore"):
        stored = STORAGE[storage](x[order])
    return AnnData(stored, obs=pd.DataFrame(index=[rows[i] for i in order]), var=pd.DataFrame(index=names))


def _covariates(draw: Any, mdata: MuData, rng: Random, traits: list[str]) -> dict[str, Any]:
    """Columns written into ``mdata.obs``, and the arguments that name them."""
    setup: dict[str, Any] = {}
    for argument, columns, name in (
        ("batch_key", BATCHES, "batch"),
        ("categorical_covariate_keys", BATCHES, "category"),
        ("continuous_covariate_keys", CONTINUOUS, "number"),
    ):
        if draw(st.integers(1, 4)) < 4:
            continue
        kind = draw(st.sampled_from(list(columns)))
        mdata.obs[name] = columns[kind](mdata.n_obs, rng)
        setup[argument] = name if argument == "batch_key" else [name]
        traits.append(f"{argument}: {kind}")
    return setup


@st.composite
def _cases(draw: Any, folder: Path) -> Case:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n = draw(st.sampled_from([0, 1, 2, 3, 5, 8] + 5 * [12] + 12 * [20]))
    names = NAMES[: draw(st.sampled_from([1] + 12 * [2] + 5 * [3] + [4]))]
    spelling = _often(draw, list(ROW_NAMES), ["plain"], 3)
    rows = [ROW_NAMES[spelling](f"s{i}") for i in range(n)]
    pattern = _often(draw, list(PRESENCE), ["all", "most", "half", "every pattern"], 4)
    present = PRESENCE[pattern](n, len(names), rng)
    traits = [f"{n} samples", f"names {spelling}", f"measured: {pattern}"]
    mods = {
        m: _assay(draw, m, [r for r, here in zip(rows, present[:, k], strict=True) if here], rng, traits)
        for k, m in enumerate(names)
    }
    mdata = MuData(mods)
    setup = _covariates(draw, mdata, rng, traits)
    container = _often(draw, list(CONTAINERS), ["as built"], 3)
    try:
        mdata = CONTAINERS[container](mdata, rng, folder)
    except (IndexError, KeyError, NotImplementedError, OSError, RuntimeError, TypeError, ValueError):
        container = "as built"  # some that are empty or of mixed types can be neither written nor cut
    if draw(st.integers(1, 5)) == 5:
        setup["likelihoods"] = {names[0]: draw(st.sampled_from(sorted(LIKELIHOODS)))}
    traits.append(f"container: {container}")
    return Case(mdata, setup, draw(st.sampled_from(MODELS)), traits)


@pytest.fixture(scope="session")
def cases() -> Callable[[Path], st.SearchStrategy[Case]]:
    """Strategy of cases; files of those that are backed go to a folder."""
    return _cases
