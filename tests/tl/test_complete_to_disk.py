from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from omicvae.data import Cohort
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import complete, embed

Model = CoVAE | MMVAEPlusPlus
LAYERS = ("imputed", "imputed_sd", "imputed_lower", "imputed_upper")
read = {"zarr": mudata.read_zarr, "h5mu": mudata.read_h5mu}


def seeded(*args: object, **kwargs: object) -> MuData | Path:
    """Complete with the draws of one seed, so that two calls differ in nothing else."""
    torch.manual_seed(0)
    return complete(*args, **kwargs)  # type: ignore[call-overload, no-any-return]


def assert_equal(found: MuData, expected: MuData) -> None:
    """Everything that :func:`complete` promises."""
    assert list(found.mod) == list(expected.mod)
    assert list(found.obs_names) == list(expected.obs_names)
    pd.testing.assert_frame_equal(found.obs, expected.obs)
    assert set(found.obsm) == set(expected.obsm)
    for key, values in expected.obsm.items():
        np.testing.assert_array_equal(found.obsm[key], values)
    assert found.uns["omicvae_complete"] == expected.uns["omicvae_complete"]
    for m, adata in expected.mod.items():
        pd.testing.assert_frame_equal(found[m].obs, adata.obs)
        pd.testing.assert_frame_equal(found[m].var, adata.var)
        assert isinstance(found[m].X, np.ndarray)
        np.testing.assert_array_equal(found[m].X, adata.X)
        assert {layer for layer in found[m].layers if layer} == set(LAYERS)
        for layer in LAYERS:
            assert found[m].layers[layer].dtype == np.float32
            np.testing.assert_array_equal(found[m].layers[layer], adata.layers[layer])


@pytest.fixture
def asked(covae: CoVAE, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[np.ndarray]]:
    """Modality -> positions that were imputed in each call, one entry a call."""
    calls: dict[str, list[np.ndarray]] = {}
    impute = CoVAE.impute

    def counted(self: CoVAE, modality: str, **kwargs: object) -> AnnData:
        found = impute(self, modality, **kwargs)  # type: ignore[arg-type]
        calls.setdefault(modality, []).append(np.asarray(kwargs["indices"]))
        assert found.n_obs == len(calls[modality][-1])
        return found

    monkeypatch.setattr(CoVAE, "impute", counted)
    return calls


@pytest.mark.parametrize("form", ["zarr", "h5mu"])
def test_a_file_holds_what_would_be_returned(mdata: MuData, model: Model, tmp_path: Path, form: str) -> None:
    embed(mdata, model)
    expected = seeded(mdata, model, batch_size=7)
    expected.write_h5mu(tmp_path / "expected.h5mu")
    out = tmp_path / f"cohort.{form}"
    assert seeded(mdata, model, batch_size=7, out=out) == out
    assert_equal(read[form](out), mudata.read_h5mu(tmp_path / "expected.h5mu"))
    assert {p.name for p in tmp_path.iterdir()} == {"expected.h5mu", f"cohort.{form}"}


def test_other_data_than_the_models_own_give_the_same(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    expected = seeded(covae.adata, covae, batch_size=7)
    found = read["h5mu"](seeded(mdata, covae, batch_size=7, out=str(tmp_path / "cohort.h5mu")))
    for m, adata in expected.mod.items():
        np.testing.assert_array_equal(found[m].X, adata.X)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_every_sample_is_imputed_once_and_never_more_than_a_batch_at_a_time(
    mdata: MuData, covae: CoVAE, asked: dict[str, list[np.ndarray]], tmp_path: Path, batch_size: int
) -> None:
    mdata = mdata[mdata.obs_names[:20]].copy()
    complete(mdata, covae, batch_size=batch_size, out=tmp_path / "cohort.h5mu", n_draws=20)
    assert set(asked) == set(covae.modalities)
    for positions in asked.values():
        assert max(map(len, positions)) == min(batch_size, mdata.n_obs)
        np.testing.assert_array_equal(np.concatenate(positions), np.arange(mdata.n_obs))


def test_the_data_are_read_and_checked_once_however_many_batches_there_are(
    mdata: MuData, covae: CoVAE, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    read, init = [], Cohort.__init__
    monkeypatch.setattr(Cohort, "__init__", lambda self, *args: (read.append(self), init(self, *args))[-1])
    mdata["mirna"].X[:3] = 0  # of which users are warned
    with caplog.at_level(logging.WARNING, logger="omicvae"):
        complete(mdata, covae, batch_size=10, n_draws=20)
    assert len(read) == 1
    assert caplog.text.count("hold nothing but zeros") == 1


def test_numbers_do_not_depend_on_the_batch_size(mdata: MuData, covae: CoVAE) -> None:
    one, other = (seeded(mdata, covae, batch_size=size, n_draws=400) for size in (60, 7))
    for m, adata in one.mod.items():
        sd = adata.layers["imputed_sd"]
        # Both are means over 400 draws, whose error is below sd / sqrt(400) each.
        assert (np.abs(adata.X - other[m].X) <= 6 * sd * np.sqrt(2 / 400)).all()
        np.testing.assert_array_equal(adata.obs["sources"], other[m].obs["sources"])


@pytest.mark.parametrize("exists", [True, False])
def test_a_failure_leaves_the_folder_as_it_was(
    mdata: MuData, covae: CoVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    out = tmp_path / "cohort.h5mu"
    if exists:
        out.write_bytes(b"precious")
    impute = CoVAE.impute

    def fails(self: CoVAE, modality: str, **kwargs: object) -> AnnData:
        if modality == "meth" and 30 in np.asarray(kwargs["indices"]):
            assert len(list(tmp_path.iterdir())) == 1 + exists  # it had begun to write
            raise MemoryError
        return impute(self, modality, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(CoVAE, "impute", fails)
    with pytest.raises(MemoryError):
        complete(mdata, covae, out=out, batch_size=20, overwrite=True)
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"precious"] * exists


def test_nothing_is_imputed_for_a_file_that_cannot_be_written(
    mdata: MuData, covae: CoVAE, asked: dict[str, list[np.ndarray]], tmp_path: Path
) -> None:
    out = tmp_path / "cohort.h5mu"
    out.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="pass overwrite=True to replace it"):
        complete(mdata, covae, out=out)
    with pytest.raises(ValueError, match=r"must end in '\.zarr' or '\.h5mu'"):
        complete(mdata, covae, out=tmp_path / "cohort.h5ad")
    with pytest.raises(TypeError, match="out must be a path"):
        complete(mdata, covae, out=True)  # type: ignore[call-overload]
    assert not asked
    assert out.read_bytes() == b"precious"
    complete(mdata, covae, out=out, overwrite=True, modalities=["meth"], n_draws=20)
    assert list(mudata.read_h5mu(out).mod) == ["meth"]


def test_batch_sizes_that_are_none_are_named(mdata: MuData, covae: CoVAE) -> None:
    for wrong in (0, -1, 2.5, True, "8"):
        with pytest.raises(ValueError, match="batch_size must be a whole number of at least 1"):
            complete(mdata, covae, batch_size=wrong)  # type: ignore[call-overload]


def test_a_sparse_assay_is_completed_densely(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    expected = seeded(mdata, covae, modalities=["mirna"])
    mdata["mirna"].X = sparse.csr_matrix(mdata["mirna"].X)
    found = read["h5mu"](seeded(mdata, covae, modalities=["mirna"], out=tmp_path / "cohort.h5mu"))
    np.testing.assert_array_equal(found["mirna"].X, expected["mirna"].X)


def test_data_on_disk_are_completed_to_disk(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    mdata.write_h5mu(tmp_path / "cohort.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cohort.h5mu", backed=True)
    before = (tmp_path / "cohort.h5mu").read_bytes()
    with pytest.raises(ValueError, match="is the file the data are read from"):
        complete(backed, covae, out=tmp_path / "cohort.h5mu", overwrite=True)
    seeded(backed, covae, batch_size=20, out=tmp_path / "completed.h5mu")
    expected = seeded(mdata, covae, batch_size=20)
    found = mudata.read_h5mu(tmp_path / "completed.h5mu")
    for m in covae.modalities:
        np.testing.assert_array_equal(found[m].X, expected[m].X)
    backed.file.close()
    assert (tmp_path / "cohort.h5mu").read_bytes() == before


def test_one_sample_no_sample_and_samples_without_assays(mdata: MuData, covae: CoVAE, tmp_path: Path) -> None:
    alone = AnnData(np.ones((1, 1), np.float32), obs=pd.DataFrame(index=["new"]))
    queries = {
        "one": mdata[mdata.obs_names[:1]].copy(),
        "none": mdata[:0].copy(),
        "prior": MuData({"rna": mdata["rna"][:2].copy(), "other": alone}),
    }
    for name, query in queries.items():
        out = complete(query, covae, out=tmp_path / f"{name}.h5mu", n_draws=20)
        for found in (mudata.read_h5mu(out), complete(query, covae, n_draws=20)):
            assert list(found.mod) == list(covae.modalities)
            for m, adata in found.mod.items():
                assert adata.shape == (query.n_obs, covae.schema[m].n_vars)
                assert list(adata.obs_names) == list(query.obs_names)
                assert np.isfinite(adata.X).all()
    assert (found["mirna"].obs.loc["new", ["source", "sources"]] == ["prior", ""]).all()


def test_order_does_not_matter_on_disk_either(
    mdata: MuData, covae: CoVAE, shuffled: Callable[[MuData], MuData], tmp_path: Path
) -> None:
    query = shuffled(mdata)
    found = mudata.read_h5mu(complete(query, covae, out=tmp_path / "cohort.h5mu", batch_size=7, n_draws=20))
    assert list(found.obs_names) == list(query.obs_names)
    for m in covae.modalities:
        assert list(found[m].var_names) == list(mdata[m].var_names)
        np.testing.assert_array_equal(found[m].obs["source"] == "observed", query.obs_names.isin(query[m].obs_names))
    counts = pd.DataFrame(mdata["mirna"].X, mdata["mirna"].obs_names)
    written = pd.DataFrame(found["mirna"].X, found.obs_names).loc[counts.index]
    np.testing.assert_array_equal(written, counts)
