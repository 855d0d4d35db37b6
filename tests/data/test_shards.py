"""Every sample is seen exactly once an epoch, with its own assays, however it was written and is read."""

from __future__ import annotations

import itertools
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

import omicvae
from omicvae.data import Batch, Cohort, ModalitySchema, Schema, ShardLoader, _runs, open_zarr, write_shards
from omicvae.data import _shards as shards
from omicvae.data._manager import registered_manager
from omicvae.data._runs import runs_of
from omicvae.data._shard_loader import evenly_spread
from omicvae.model import CoVAE

WIDTHS = {"rna": 5, "atac": 4, "rppa": 3}
STORAGE = {"rna": sparse.csr_matrix, "atac": sparse.csc_matrix, "rppa": np.asarray}
LIKELIHOODS = {"rna": "nb", "atac": "nb", "rppa": "normal"}
SCHEMA = Schema(tuple(ModalitySchema(m, "normal", tuple(f"{m}{j}" for j in range(p))) for m, p in WIDTHS.items()),
                continuous=("number",))  # fmt: skip


def value(modality: str, number: np.ndarray) -> np.ndarray:
    """What was measured: unique to modality, sample and feature, but for a quarter that is 0."""
    m, p = list(WIDTHS).index(modality), WIDTHS[modality]
    cells = 1000.0 * (m + 1) + 10.0 * np.asarray(number)[:, None] + np.arange(p) + 1
    return np.where((np.asarray(number)[:, None] + np.arange(p)) % 4 == 3, 0.0, cells)


def mosaic(present: np.ndarray, seed: int = 0) -> MuData:
    """Samples with assays as ``present`` says; each modality in an order of its own."""
    mods = {}
    for m, (name, p) in enumerate(WIDTHS.items()):
        number = np.random.default_rng([seed, m]).permutation(np.flatnonzero(present[:, m]))
        obs = pd.DataFrame(index=[f"s{i}" for i in number])
        mods[name] = AnnData(STORAGE[name](value(name, number)), obs=obs, var=pd.DataFrame(index=[f"{name}{j}" for j in range(p)]))  # fmt: skip
    mdata = MuData(mods)
    mdata.obs["number"] = mdata.obs_names.str[1:].astype(float)
    mdata.obs["center"] = ["AB"[int(i) % 2] for i in mdata.obs["number"]]
    return mdata


def registered(mdata: MuData) -> MuData:
    CoVAE.setup_mudata(
        mdata, likelihoods=LIKELIHOODS, batch_key="center", continuous_covariate_keys=["number"]
    )  # fmt: skip
    return mdata


def numbers(batch: Batch, present: np.ndarray) -> np.ndarray:
    """The samples of a minibatch, after a check that every packed row is theirs and none is lacking."""
    number = batch.continuous[:, 0].numpy().astype(int)
    np.testing.assert_array_equal(batch.present.numpy(), present[number])
    for m, name in enumerate(WIDTHS):
        here = np.flatnonzero(present[number, m])
        assert batch.rows[name].tolist() == here.tolist()
        np.testing.assert_array_equal(batch.x[name].numpy(), value(name, number[here]).astype(np.float32))
        np.testing.assert_array_equal(batch.size[name].numpy(), np.maximum(batch.x[name].numpy().sum(1), 1))
    return number


@st.composite
def presence(draw: st.DrawFn, least: int = 1) -> np.ndarray:
    """Any mosaic of three assays in which every sample has at least one."""
    codes = draw(st.lists(st.integers(1, 7), min_size=least, max_size=40))
    return (np.array(codes)[:, None] >> np.arange(3) & 1).astype(bool)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(present=presence(), data=st.data(), shuffle=st.booleans())
def test_an_epoch_holds_every_sample_once(present: np.ndarray, data: st.DataObject, shuffle: bool) -> None:
    """Whatever the sizes of shards, buffers and minibatches, and whichever samples are asked for."""
    cohort = Cohort(mosaic(present), SCHEMA)
    indices = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=len(cohort), max_size=len(cohort))))
    sizes = {n: data.draw(st.integers(1, 12), label=n) for n in ("batch_size", "shard_rows", "buffer_shards")}
    torch.manual_seed(0)
    loader = ShardLoader(cohort, indices, shuffle=shuffle, **sizes)
    for _ in range(2):  # epochs
        seen = [numbers(batch, present) for batch in loader]
        asked = cohort.obs_names[indices].str[1:].astype(int)
        assert sorted(itertools.chain(*seen)) == sorted(asked)
        assert len(seen) == len(loader) == -(-len(indices) // sizes["batch_size"])
        assert all(len(s) == sizes["batch_size"] for s in seen[:-1])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(groups=st.lists(st.integers(0, 3), max_size=40), width=st.integers(1, 12), seed=st.integers(0, 5))
def test_shards_of_a_pattern_are_spread_evenly(groups: list[int], width: int, seed: int) -> None:
    """Any stretch of the order has about as many of each group as its share says; which ones, is random."""
    group = np.array(groups, dtype=np.intp)
    order = evenly_spread(group, np.random.default_rng(seed))
    assert sorted(order) == list(range(len(group)))
    for start in range(0, len(group) - width + 1):
        here = np.bincount(group[order[start : start + width]], minlength=4)
        share = np.bincount(group, minlength=4) / len(group)
        assert (np.abs(here - width * share) < 1 + 4 * share).all()  # of each group less than one off where it is cut
    if len(group) > 8:
        others = [evenly_spread(group, np.random.default_rng(k)).tolist() for k in range(20)]
        assert len(set(map(tuple, others))) > 10


def test_minibatches_hold_the_mix_of_the_whole() -> None:
    """Shards that are in memory together are of all patterns; drawn at random, in some epochs they would not be."""
    patterns = np.repeat([[1, 1, 1], [1, 1, 0], [0, 0, 1]], [200, 120, 80], axis=0).astype(bool)
    cohort = Cohort(mosaic(patterns), SCHEMA)
    loader = ShardLoader(cohort, np.arange(400), batch_size=40, shard_rows=1, buffer_shards=40, shuffle=True)
    torch.manual_seed(0)
    for batch in (batch for _ in range(10) for batch in loader):
        found = (batch.present[:, None] == torch.tensor(np.unique(patterns, axis=0))).all(-1).sum(0)
        assert (found - torch.tensor([8, 12, 20])).abs().max() <= 2


@settings(max_examples=100, deadline=None, derandomize=True)
@given(present=presence(), length=st.integers(1, 12))
def test_runs_are_of_one_pattern_and_hold_every_sample_once(present: np.ndarray, length: int) -> None:
    cohort = Cohort(mosaic(present), SCHEMA)
    runs = runs_of(cohort, np.arange(len(cohort)), length)
    assert sorted(np.concatenate(runs)) == list(range(len(cohort)))
    assert all(1 <= len(run) <= length for run in runs)
    assert all((cohort.present[run] == cohort.present[run[0]]).all() for run in runs)
    assert len(runs) <= len(cohort) // length + 7


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(present=presence(), rows=st.integers(1, 9), window=st.integers(1, 20), source=st.sampled_from(["memory", "h5mu", "zarr"]))  # fmt: skip
def test_what_is_written_is_what_was_registered(
    present: np.ndarray, rows: int, window: int, source: str, tmp_path: Path
) -> None:
    """By name, from memory and from files, whatever the sizes; the registration comes back with it."""
    present = np.concatenate([np.ones((3, 3), bool), present])
    folder = tmp_path / str(len(list(tmp_path.iterdir())))
    folder.mkdir()
    mdata = registered(stored(mosaic(present), source, folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "WINDOW_BYTES", window * 100)
        patch.setattr(_runs, "BLOCK", 3)
        write_shards(mdata, folder / "shards.zarr", shard_rows=rows)
    for opened in (open_zarr(folder / "shards.zarr"), mudata.read_zarr(folder / "shards.zarr")):
        CoVAE.setup_mudata(opened)
        manager = registered_manager(opened)
        assert manager.registry["setup_args"] == registered_manager(mdata).registry["setup_args"]
        cohort = manager.cohort
        assert sorted(numbers(cohort.batch(slice(None)), present)) == list(range(len(present)))
        np.testing.assert_array_equal(cohort.batch(slice(None)).codes["batch"], opened.obs["number"].to_numpy() % 2)
        assert opened["rna"].X.dtype == mdata["rna"].X.dtype
        for run in runs_of(cohort, np.arange(len(cohort)), rows):  # shards are contiguous in the files
            assert all((np.diff(cohort.stored_rows(run, m)) == 1).all() for m in np.flatnonzero(cohort.present[run[0]]))


def stored(mdata: MuData, source: str, folder: Path) -> MuData:
    """The MuData in memory or in a file of one kind."""
    if source == "h5mu":
        mdata.write_h5mu(folder / "m.h5mu")
        return mudata.read_h5mu(folder / "m.h5mu", backed="r")
    if source == "zarr":
        mdata.write_zarr(folder / "m.zarr")
        return open_zarr(folder / "m.zarr")
    return mdata


def some(n: int = 60) -> np.ndarray:
    present = (np.arange(n)[:, None] % 7 + 1 >> np.arange(3) & 1).astype(bool)
    present[:3] = True
    return present


def test_the_order_follows_from_the_seed(tmp_path: Path) -> None:
    """Of writing, and of an epoch; other seeds and other epochs have other orders."""
    mdata = registered(mosaic(some()))
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_shards(mdata, tmp_path / name, seed=seed, shard_rows=8)
    a, b, c = (open_zarr(tmp_path / name).obs_names.tolist() for name in "abc")
    assert a == b != c
    opened = open_zarr(tmp_path / "a")
    CoVAE.setup_mudata(opened)
    cohort = registered_manager(opened).cohort
    loader = ShardLoader(cohort, np.arange(60), batch_size=16, shard_rows=8, buffer_shards=3, shuffle=True)

    def epoch() -> list[int]:
        return list(itertools.chain(*(numbers(batch, some()) for batch in loader)))

    torch.manual_seed(1)
    first, second = epoch(), epoch()
    torch.manual_seed(1)
    assert epoch() == first != second
    torch.manual_seed(2)
    assert epoch() != first


def test_samples_are_mixed_as_they_are_written(tmp_path: Path) -> None:
    """Neighbours of a sorted cohort end up apart: the rank correlation of old and new places is that of chance.

    With 2000 samples in blocks of 32, of which 62 are drawn in random order and then shuffled, its standard deviation
    is 1 / sqrt(1999) = .022; .1 is over four of it.
    """
    mdata = registered(mosaic(np.ones((2000, 3), bool)))
    write_shards(mdata, tmp_path / "s.zarr")
    number = open_zarr(tmp_path / "s.zarr").obs["number"].to_numpy()
    assert abs(np.corrcoef(number, np.arange(2000))[0, 1]) < 0.1


def test_no_more_than_a_window_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    read_rows = shards.read_rows

    def watched(values: object, rows: np.ndarray) -> object:
        asked.append(len(rows))
        return read_rows(values, rows)

    monkeypatch.setattr(shards, "read_rows", watched)
    monkeypatch.setattr(shards, "WINDOW_BYTES", 1500)
    mdata = registered(stored(mosaic(some(200)), "h5mu", tmp_path))
    write_shards(mdata, tmp_path / "s.zarr", shard_rows=2)
    bytes_a_row = sum(shards.row_bytes(mdata[m].X, mdata.n_obs) for m in WIDTHS)
    assert max(asked) <= max(2, 1500 / bytes_a_row)
    assert sum(asked) == some(200).sum()


def test_loading_touches_only_the_shards_of_the_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory is a buffer, whatever the size of the cohort; each row is read once an epoch."""
    write_shards(registered(mosaic(some(200))), tmp_path / "s.zarr", shard_rows=10)
    opened = open_zarr(tmp_path / "s.zarr")
    CoVAE.setup_mudata(opened)
    sizes: list[int] = []
    loaded = Cohort.loaded

    def watched(cohort: Cohort, runs: list[np.ndarray]) -> Cohort:
        sizes.append(sum(map(len, runs)))
        return loaded(cohort, runs)

    monkeypatch.setattr(Cohort, "loaded", watched)
    cohort = registered_manager(opened).cohort
    for _ in ShardLoader(cohort, np.arange(200), batch_size=64, shard_rows=10, buffer_shards=2, shuffle=True):
        pass
    assert max(sizes) <= 20 and sum(sizes) == 200


# ---------------------------------------------------------------------- what users get wrong


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written once, and left as it is."""
    path = tmp_path_factory.mktemp("shards") / "s.zarr"
    write_shards(registered(mosaic(some())), path, shard_rows=8)
    return path


def test_unregistered_data_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not registered: call setup_mudata"):
        write_shards(mosaic(some()), tmp_path / "s.zarr")
    with pytest.raises(ValueError, match="not registered"):  # the copy of one that is
        write_shards(registered(mosaic(some())).copy(), tmp_path / "s.zarr")
    with pytest.raises(TypeError, match="expected a MuData, got AnnData"):
        write_shards(mosaic(some())["rna"], tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rows", [0, -3, 2.5, True, "all"])
def test_impossible_shards_are_refused(tmp_path: Path, rows: object) -> None:
    with pytest.raises(ValueError, match="shard_rows must be a whole number"):
        write_shards(registered(mosaic(some())), tmp_path / "s.zarr", shard_rows=rows)  # type: ignore[arg-type]


def test_targets_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    mdata, written = registered(mosaic(some())), tmp_path / "s.zarr"
    write_shards(mdata, written)
    with pytest.raises(FileExistsError, match="pass overwrite=True"):
        write_shards(mdata, written)
    write_shards(mdata, written, overwrite=True, seed=3)
    (tmp_path / "other").mkdir()
    with pytest.raises(FileExistsError, match="not a zarr store; it is left as it is"):
        write_shards(mdata, tmp_path / "other", overwrite=True)
    with pytest.raises(FileNotFoundError, match="is not a folder; make it first"):
        write_shards(mdata, tmp_path / "nowhere" / "s.zarr")
    with pytest.raises(TypeError, match="path must be a path"):
        write_shards(mdata, 3)  # type: ignore[arg-type]
    opened = open_zarr(written)
    CoVAE.setup_mudata(opened)
    with pytest.raises(ValueError, match="the store the data are read from"):
        write_shards(opened, written, overwrite=True)


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(shards, "_append", fails)
    with pytest.raises(OSError, match="disk full"):
        write_shards(registered(mosaic(some())), tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def test_samples_without_a_registered_assay_are_left_out(tmp_path: Path) -> None:
    present = some()
    present[-4:] = [False, False, True]
    mdata = mosaic(present)
    CoVAE.setup_mudata(mdata, modalities=["atac", "rna"], likelihoods={"rna": "nb", "atac": "nb"})
    write_shards(mdata, tmp_path / "s.zarr")
    opened = open_zarr(tmp_path / "s.zarr")
    assert list(opened.mod) == ["atac", "rna"]
    assert set(opened.obs_names) == {f"s{i}" for i in np.flatnonzero(present[:, :2].any(1))}


def test_one_row_and_an_absent_modality(written: Path, tmp_path: Path) -> None:
    """Data attached to a registration may be as small as that."""
    registry = registered_manager(registered(mosaic(some()))).registry
    present = np.array([[True, False, False]])
    one = mosaic(present)
    one = MuData({"rna": one["rna"]})
    one.obs["number"] = [0.0]
    CoVAE.setup_mudata(one, source_registry=registry)
    write_shards(one, tmp_path / "one.zarr")
    opened = open_zarr(tmp_path / "one.zarr")
    CoVAE.setup_mudata(opened)
    batches = list(ShardLoader(registered_manager(opened).cohort, np.arange(1), batch_size=4, shard_rows=2,
                               buffer_shards=1, shuffle=True))  # fmt: skip
    assert len(batches) == 1 and numbers(batches[0], present).tolist() == [0]
    assert batches[0].codes["batch"].tolist() == [-1]


def test_layers_coverage_sizes_and_batches_by_modality_come_along(tmp_path: Path) -> None:
    """What was registered elsewhere than in ``.X`` is found there again."""
    mdata = mosaic(some())
    rng = np.random.default_rng(0)
    for name in ("rna", "atac"):
        mdata[name].layers["counts"] = mdata[name].X.copy()
        mdata[name].X = None
    mdata["atac"].layers["reads"] = np.asarray(mdata["atac"].layers["counts"].todense()) + 2
    mdata["rna"].obs["factor"] = rng.gamma(3.0, size=mdata["rna"].n_obs)
    mdata["rppa"].obs["plate"] = rng.integers(3, size=mdata["rppa"].n_obs)
    mdata.obs["kind"] = pd.Series(rng.choice(["x", "y"], mdata.n_obs), index=mdata.obs_names).where(
        mdata.obs["number"] > 9
    )
    CoVAE.setup_mudata(
        mdata, likelihoods=LIKELIHOODS | {"atac": "betabinomial"}, layers={"rna": "counts", "atac": "counts"},
        coverage_layers={"atac": "reads"}, size_factor_keys={"rna": "factor"}, batch_key={"rppa": "plate"},
        labels_key="kind", continuous_covariate_keys=["number"],
    )  # fmt: skip
    write_shards(mdata, tmp_path / "s.zarr")
    opened = open_zarr(tmp_path / "s.zarr")
    CoVAE.setup_mudata(opened)
    assert opened["rna"].X is None and set(opened["atac"].layers) == {"counts", "reads"}
    before = registered_manager(mdata).cohort
    there = registered_manager(opened).cohort.batch(slice(None))
    here = before.batch(before.obs_names.get_indexer(opened.obs_names))
    for field in ("x", "coverage", "size", "codes"):
        for name, tensor in getattr(here, field).items():
            torch.testing.assert_close(getattr(there, field)[name], tensor, rtol=0, atol=0)
    assert there.labels.tolist() == here.labels.tolist() and -1 in there.labels


def test_a_registration_that_was_damaged_is_refused(written: Path) -> None:
    opened = open_zarr(written)
    for damage in ("", "{}", '{"setup_args": 3}', '{"setup_args": {"modalities": ["rna"]}, "field_registries": {}}'):
        opened.uns[shards.SETUP] = damage
        with pytest.raises(ValueError, match="is damaged: delete it and pass the arguments"):
            CoVAE.setup_mudata(opened)
    del opened.uns[shards.SETUP]
    CoVAE.setup_mudata(opened, likelihoods=LIKELIHOODS)  # as any other MuData


def test_arguments_replace_the_registration(written: Path) -> None:
    opened = open_zarr(written)
    CoVAE.setup_mudata(opened, likelihoods={"rna": "poisson", "atac": "normal"})
    schema = registered_manager(opened).cohort.schema
    assert [m.likelihood for m in schema.modalities] == ["poisson", "normal", "nb"] and not schema.categorical


def test_values_that_were_changed_are_checked_again(written: Path) -> None:
    read = mudata.read_zarr(written)
    read["rna"].X = read["rna"].X * 0.5
    with pytest.raises(ValueError, match="modality 'rna'.* fractional"):
        CoVAE.setup_mudata(read)


def test_other_features_are_named(written: Path) -> None:
    opened = open_zarr(written)
    opened["rna"].var_names = ["rna0", "rna1", "gene", "rna3", "rna4"]
    opened.update()
    with pytest.raises(ValueError, match="'rna' lacks 1 of the 5 features the model was set up with: rna2"):
        CoVAE.setup_mudata(opened)


@pytest.mark.parametrize("name", ["batch_size", "buffer_shards"])
@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "auto"])
def test_impossible_sizes_are_refused(written: Path, name: str, wrong: object) -> None:
    opened = open_zarr(written)
    CoVAE.setup_mudata(opened)
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1"):
        omicvae.data.ShardSplitter(opened, **{name: wrong})
