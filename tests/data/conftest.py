"""A small mosaic whose every value says which modality, sample and feature it belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from omicvae.data import Batch, ModalitySchema, Schema


class Mosaic:
    """Three assays of twenty samples, none of which has all samples."""

    samples = [f"s{i:02d}" for i in range(20)]
    n_vars = {"rna": 7, "prot.surface": 5, "méthylation": 4}  # a dot, and a letter outside ASCII
    likelihoods = {"rna": "nb", "prot.surface": "normal", "méthylation": "normal"}
    measured = {
        "rna": samples[:17],
        "prot.surface": samples[4:16],
        "méthylation": [*samples[:3], *samples[10:20]],
    }
    storage = {
        "dense": np.asarray,
        "csr": sparse.csr_matrix,
        "csc": sparse.csc_matrix,
        "csr_array": sparse.csr_array,
        "csc_array": sparse.csc_array,
    }

    def value(self, modality: str, sample: str, feature: str) -> float:
        """What was measured: unique to its place, but for a third that is 0 and some of méthylation that is NaN."""
        i, j = int(sample[1:]), int(feature.rsplit("_", 1)[1])
        if (i + j) % 3 == 0:
            return 0.0
        if modality == "méthylation" and (i + 2 * j) % 5 == 0:
            return np.nan
        return 1000.0 * list(self.n_vars).index(modality) + 10 * i + j + 1

    def features(self, modality: str) -> list[str]:
        return [f"{modality}_{j}" for j in range(self.n_vars[modality])]

    def table(self, modality: str, samples: Sequence[str], features: Sequence[str] | None = None) -> np.ndarray:
        """``(len(samples), n_vars)`` true values."""
        names = self.features(modality) if features is None else features
        rows = [[self.value(modality, s, f) for f in names] for s in samples]
        return np.array(rows, dtype=float).reshape(-1, len(names))

    def mdata(
        self,
        *,
        seed: int | None = 0,
        storage: str = "dense",
        modalities: Sequence[str] = tuple(n_vars),
        features: Mapping[str, Sequence[str]] | None = None,
    ) -> MuData:
        """The MuData, with the rows of every modality in an order of their own (unless ``seed`` is None)."""
        mods = {}
        for k, modality in enumerate(modalities):
            samples = list(self.measured[modality])
            if seed is not None:
                np.random.default_rng([seed, k]).shuffle(samples)
            names = list((features or {}).get(modality, self.features(modality)))
            x = self.storage[storage](self.table(modality, samples, names).astype(np.float32))
            mods[modality] = AnnData(x, obs=pd.DataFrame(index=samples), var=pd.DataFrame(index=names))
        mdata = MuData(mods)
        numbers = mdata.obs_names.str[1:].astype(int)
        mdata.obs["center"] = ["AB"[i % 2] for i in numbers]
        mdata.obs["age"] = [50.0 + i for i in numbers]
        return mdata

    def schema(self, **options: object) -> Schema:
        modalities = tuple(
            ModalitySchema(m, likelihood, tuple(self.features(m))) for m, likelihood in self.likelihoods.items()
        )
        return Schema(modalities, **options)  # type: ignore[arg-type]

    def check(self, batch: Batch, samples: Sequence[str], measured: Mapping[str, Sequence[str]] | None = None) -> None:
        """Every packed row is that of the sample it claims to be, and no row that exists is missing."""
        assert batch.n_samples == len(samples)
        for column, modality in enumerate(self.n_vars):
            held = set((self.measured if measured is None else measured).get(modality, ()))
            here = [i for i, s in enumerate(samples) if s in held]
            assert batch.rows[modality].tolist() == here
            assert batch.present[:, column].tolist() == [s in held for s in samples]
            expected = torch.from_numpy(self.table(modality, [samples[i] for i in here])).float()
            torch.testing.assert_close(batch.x[modality], expected, rtol=0, atol=0, equal_nan=True)


@pytest.fixture(scope="session")
def mosaic() -> Mosaic:
    return Mosaic()
