"""One split of a cohort into samples to train on and samples in which whole assays are hidden."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from torch import Tensor

from omicvae.data import Cohort, Schema
from omicvae.module._base import build_likelihood
from omicvae.nn import Covariates, Design
from omicvae.nn.likelihoods import Likelihood, Observed
from omicvae.stats.components import Block, covariate_effects, residual

Array = NDArray[np.float64]
Float32 = NDArray[np.float32]
Rows = NDArray[np.intp]

CHUNK = 4096  # samples read at a time


class Values:
    """All measured values of a cohort, read once.

    Parameters
    ----------
    mdata
        The user's data.
    cohort
        The same, as models read it.
    """

    def __init__(self, mdata: MuData, cohort: Cohort) -> None:
        self.mdata, self.cohort, self.schema = mdata, cohort, cohort.schema
        self.likelihoods = {m: build_likelihood(self.schema[m]) for m in self.schema.names}
        batches = [(at, cohort.batch(slice(at, at + CHUNK))) for at in range(0, len(cohort), CHUNK)]
        self.codes = {name: torch.cat([b.codes[name] for _, b in batches]) for name in batches[0][1].codes}
        self.continuous = torch.cat([b.continuous for _, b in batches])
        self.rows: dict[str, Rows] = {}
        self.observed: dict[str, Observed] = {}
        for m, likelihood in self.likelihoods.items():
            self.rows[m] = np.concatenate([b.rows[m].numpy() + at for at, b in batches]).astype(np.intp)
            self.observed[m] = Observed(
                torch.cat([b.x[m] for _, b in batches]),
                torch.cat([b.size[m] for _, b in batches]) if likelihood.uses_size else None,
                torch.cat([b.coverage[m] for _, b in batches]) if likelihood.uses_coverage else None,
            )


class Split:
    """What every contender of one split is given: all of it made from training samples.

    Values are on the scale of the likelihood's encoder input, such as log counts at the median library size,
    standardised with training statistics. Regressions see them less what covariates (batch) explain in training
    samples, which is added to their predictions.

    Parameters
    ----------
    values
        Of all samples.
    train, test
        Positions in the cohort.
    given
        Modalities that may be conditioned on.
    """

    def __init__(self, values: Values, train: Rows, test: Rows, given: Sequence[str]) -> None:
        self.values, self.train, self.test = values, np.sort(train), np.sort(test)
        self.schema, self.present = values.schema, values.cohort.present
        self.given = tuple(given)
        self.likelihoods = {m: build_likelihood(self.schema[m]) for m in self.schema.names}
        self.blocks: dict[str, Block] = {}
        self._effects: dict[str, Array] = {}
        self._at = np.full(self.present.shape, -1, dtype=np.intp)
        for k, m in enumerate(self.schema.names):
            self._standardise(k, m)

    def _standardise(self, k: int, modality: str) -> None:
        rows, observed = self.values.rows[modality], self.values.observed[modality]
        likelihood, training = self.likelihoods[modality], np.flatnonzero(np.isin(rows, self.train))
        likelihood.fit([observed.take(torch.from_numpy(training))])
        measured = likelihood.measured(observed).numpy()
        self.blocks[modality] = Block(
            likelihood.encode_transform(observed).numpy(),
            None if measured.all() else measured,
            rows,
            self._design(modality, rows, training),
        )
        self._effects[modality] = covariate_effects(self.blocks[modality], training)
        self._at[rows, k] = np.arange(len(rows))

    def _design(self, modality: str, rows: Rows, training: Rows) -> Float32:
        """``(n_m, c)`` covariates of a modality's samples; frequencies and scales from training samples."""
        columns = {c.name: len(c.categories) for c in self.schema.covariates_of(modality)}
        design, at = Design(columns, len(self.schema.continuous)), torch.from_numpy(rows)
        codes, continuous = {n: self.values.codes[n][at] for n in columns}, self.values.continuous[at]
        kept = torch.from_numpy(training)
        design.fit([Covariates({n: c[kept] for n, c in codes.items()}, continuous[kept])])
        found = design(Covariates(codes, continuous))
        return np.zeros((len(rows), 0), np.float32) if found is None else found.numpy()

    # ------------------------------------------------------------------ who has what

    def sources(self, target: str) -> tuple[str, ...]:
        """Modalities to predict a target from."""
        return tuple(m for m in self.schema.names if m in self.given and m != target)

    def having(self, samples: Rows, modalities: Sequence[str]) -> Rows:
        """Those of ``samples`` that have all of ``modalities``."""
        columns = [self.schema.names.index(m) for m in modalities]
        return samples[self.present[samples][:, columns].all(1)]

    def usable(self, samples: Rows, target: str) -> Rows:
        """Those of ``samples`` that have the target and at least one source."""
        columns = [self.schema.names.index(m) for m in self.sources(target)]
        have = self.having(samples, [target])
        return have[self.present[have][:, columns].any(1)]

    def by_sources(self, samples: Rows, target: str) -> Iterator[tuple[Rows, tuple[str, ...]]]:
        """Positions within ``samples`` of those with the same sources, and these."""
        names = self.sources(target)
        have = self.present[samples][:, [self.schema.names.index(m) for m in names]]
        patterns, group = np.unique(have, axis=0, return_inverse=True)
        for k, pattern in enumerate(patterns):
            yield np.flatnonzero(group.reshape(-1) == k), tuple(m for m, h in zip(names, pattern, strict=True) if h)

    # ------------------------------------------------------------------ numbers

    def _rows(self, modality: str, samples: Rows) -> Rows:
        return self._at[samples, self.schema.names.index(modality)]

    def truth(self, target: str, samples: Rows) -> Float32:
        """``(n, p)`` values to be predicted; NaN where not measured."""
        rows, block = self._rows(target, samples), self.blocks[target]
        if block.observed is None:
            return block.values[rows]
        return np.where(block.observed[rows], block.values[rows], np.float32(np.nan))

    def fixed(self, modality: str, samples: Rows) -> Float32:
        """``(n, p)`` what covariates explain."""
        effects, design = self._effects[modality], self.blocks[modality].design[self._rows(modality, samples)]
        return (effects[0] + design @ effects[1:]).astype(np.float32)

    def features(self, modality: str, samples: Rows, missing: float = np.nan) -> Float32:
        """``(n, p)`` values less what covariates explain; ``missing`` where not measured, by sample or element."""
        rows, block = self._rows(modality, samples), self.blocks[modality]
        out = np.full((len(samples), block.values.shape[1]), missing, dtype=np.float32)
        here, rows = rows >= 0, rows[rows >= 0]
        seen = None if block.observed is None else block.observed[rows]
        found = residual(block.values[rows], seen, block.design[rows], self._effects[modality])
        out[here] = found if seen is None else np.where(seen, found, np.float32(missing))
        return out

    def concatenated(self, sources: Sequence[str], samples: Rows) -> Float32:
        """``(n, sum p)`` of all sources."""
        return np.concatenate([self.features(m, samples) for m in sources], axis=1)

    def observed(self, modality: str, samples: Rows) -> Observed:
        """Measured values in the units of the registered layer."""
        return self.values.observed[modality].take(torch.from_numpy(self._rows(modality, samples)))

    # ------------------------------------------------------------------ data for models

    def names(self, samples: Rows) -> NDArray[np.object_]:
        """Names of samples."""
        return np.asarray(self.values.cohort.obs_names[samples], dtype=object)

    def subset(self, samples: Rows, modalities: Sequence[str]) -> MuData:
        """A new MuData of some samples with some modalities and nothing of the others."""
        mdata, wanted = self.values.mdata, pd.Index(self.names(samples))
        kept = {}
        for m in modalities:
            adata = mdata.mod[m]
            part = adata[adata.obs_names.isin(wanted)]
            if part.n_obs:
                kept[m] = part.to_memory() if adata.isbacked else part.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = MuData(kept)
        for column in _columns(self.schema):
            found.obs[column] = mdata.obs[column].reindex(found.obs_names)
        return found


def _columns(schema: Schema) -> list[str]:
    """Columns of ``mdata.obs`` that models read."""
    found = [c.column for c in schema.categorical if c.modality is None] + list(schema.continuous)
    return found + ([schema.labels.column] if schema.labels is not None else [])


def as_measured(
    likelihood: Likelihood, draws: Tensor, training: Observed, *, at_median: bool, seed: int
) -> NDArray[np.float32]:
    """Draws of a model ``(K, n, p)`` on the scale of the scores, as if each had been measured.

    Nothing of the hidden assay is used. Counts are divided by the sum of their own draw, as measured counts are by
    theirs, or taken to be at the median size (``at_median``); methylation levels are read as often as a training sample
    drawn at random.
    """
    flat, size, coverage = draws.flatten(0, 1), None, None
    if likelihood.uses_size:
        size = likelihood.reference_size.expand(len(flat)) if at_median else flat.sum(1).clamp_min(1.0)
    if likelihood.uses_coverage:
        assert training.coverage is not None
        generator = torch.Generator().manual_seed(seed)
        reads = training.coverage.nan_to_num()
        coverage = reads[torch.randint(len(reads), (len(flat),), generator=generator)]
        typical = torch.where(reads > 0, reads, torch.nan).nanmedian(0).values.nan_to_num(1.0)
        coverage = torch.where(coverage > 0, coverage, typical)
        flat = torch.binomial(coverage, flat.clamp(0, 1), generator=generator)
    return likelihood.encode_transform(Observed(flat, size, coverage)).reshape(draws.shape).numpy()


def transformed_limit(likelihood: Likelihood, limit: NDArray[np.floating], observed: Observed) -> Float32:
    """``(n, p)`` limits of intervals, in the units in which models give them, by the transformation of the truth."""
    x = torch.from_numpy(np.asarray(limit, dtype=np.float32))
    if observed.coverage is not None:
        x = x * observed.coverage.nan_to_num()
    return np.asarray(likelihood.encode_transform(observed._replace(x=x)).numpy())
