from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import h5py
import mudata
import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from mudata import MuData

from omicvae.data._target import replacing
from omicvae.tl._streaming import Block, check_target, stream

FORMATS = ("zarr", "h5mu")
LAYERS = ("imputed", "imputed_sd")
read = {"zarr": mudata.read_zarr, "h5mu": mudata.read_h5mu}


def bare(n_obs: int, n_vars: dict[str, int]) -> MuData:
    """Modalities with names and columns, and without values."""
    obs = pd.DataFrame(index=[f"sample {i}" for i in range(n_obs)])
    modalities = {
        m: AnnData(
            obs=obs.copy(), var=pd.DataFrame({"flag": np.arange(p) % 2 == 0}, index=[f"{m}{j}" for j in range(p)])
        )
        for m, p in n_vars.items()
    }
    made = MuData(modalities)
    made.obs["batch"] = pd.Categorical(np.where(np.arange(n_obs) % 3 == 0, "a", "b"))
    made.obsm["X_z"] = np.arange(2.0 * n_obs).reshape(n_obs, 2)
    made.uns["level"] = 0.9
    return made


def value(n_vars: int, start: int, stop: int, which: int) -> np.ndarray:
    """A number that tells row, column and layer apart."""
    return (np.arange(start, stop)[:, None] * n_vars + np.arange(n_vars) + which / 4).astype(np.float32)


def blocks(n_obs: int, n_vars: int, n_rows: int) -> Iterator[Block]:
    for start in range(0, n_obs, n_rows):
        stop = min(start + n_rows, n_obs)
        yield Block(slice(start, stop), {name: value(n_vars, start, stop, k) for k, name in enumerate(("X", *LAYERS))})


def write(path: Path, n_obs: int, n_vars: dict[str, int], n_rows: int) -> None:
    stream(
        path,
        bare(n_obs, n_vars),
        LAYERS,
        {m: blocks(n_obs, p, n_rows) for m, p in n_vars.items()},
        dict.fromkeys(n_vars, n_rows),
    )


@pytest.mark.parametrize(
    ("form", "n_obs", "n_rows"),
    [
        ("zarr", 10, 4),
        ("zarr", 0, 4),
        *(("h5mu", *sizes) for sizes in [(10, 4), (10, 10), (9, 64), (1, 1), (5, 1), (0, 4)]),
    ],
)
def test_what_is_read_is_what_was_sent(tmp_path: Path, form: str, n_obs: int, n_rows: int) -> None:
    n_vars = {"b": 3, "a": 1}
    path = tmp_path / f"cohort.{form}"
    write(path, n_obs, n_vars, n_rows)
    found, expected = read[form](path), bare(n_obs, n_vars)
    assert list(found.mod) == ["b", "a"]
    assert list(found.obs_names) == list(expected.obs_names)
    np.testing.assert_array_equal(found.obsm["X_z"], expected.obsm["X_z"])
    assert list(found.obs["batch"]) == list(expected.obs["batch"])
    assert found.uns["level"] == 0.9
    for m, p in n_vars.items():
        pd.testing.assert_frame_equal(found[m].var, expected[m].var, check_names=False)
        for k, values in enumerate((found[m].X, *(found[m].layers[layer] for layer in LAYERS))):
            assert values.dtype == np.float32
            np.testing.assert_array_equal(values, value(p, 0, n_obs, k))


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_can_be_read_piece_by_piece(tmp_path: Path, form: str) -> None:
    path = tmp_path / f"cohort.{form}"
    write(path, 40, {"a": 7}, 16)
    root = zarr.open_group(str(path), mode="r") if form == "zarr" else h5py.File(path)
    for array in (root["mod/a/X"], root["mod/a/layers/imputed_sd"]):
        assert array.shape == (40, 7)
        assert array.chunks == (16, 7)
    if form == "h5mu":
        root.close()
        backed = mudata.read_h5mu(path, backed=True)
        np.testing.assert_array_equal(backed["a"].X[3:5], value(7, 3, 5, 0))
        backed.file.close()


@pytest.mark.parametrize("form", FORMATS)
def test_memory_is_that_of_one_block(tmp_path: Path, form: str) -> None:
    n_obs, n_vars, n_rows = 4000, 1000, 100
    one_array, one_block = 4 * n_obs * n_vars, 4 * n_rows * n_vars * 3
    tracemalloc.start()
    write(tmp_path / f"cohort.{form}", n_obs, {"a": n_vars}, n_rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # The next block is made while the last is held; names and the compression of chunks take the rest.
    assert peak < 3 * one_block + 2**22 < one_array / 2


@pytest.mark.parametrize(
    ("form", "exists", "error"),
    [("zarr", True, RuntimeError), ("h5mu", True, KeyboardInterrupt), ("h5mu", False, RuntimeError)],
)
def test_a_failure_leaves_what_was_there(tmp_path: Path, form: str, exists: bool, error: type) -> None:
    target = tmp_path / f"cohort.{form}"
    if exists:
        write(target, 4, {"a": 2}, 4)
    before = contents(tmp_path)

    def failing() -> Iterator[Block]:
        yield from blocks(8, 2, 4)
        raise error

    with pytest.raises(error), replacing(target) as path:
        stream(path, bare(12, {"a": 2}), LAYERS, {"a": failing()}, {"a": 4})
    assert contents(tmp_path) == before


def test_a_store_that_cannot_take_the_place_of_another_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "cohort.zarr"
    write(target, 4, {"a": 2}, 4)
    before, replace, refused = contents(tmp_path), os.replace, []

    def fails_once(source: Path, destination: Path) -> None:
        if destination == target and not refused:
            refused.append(source)
            assert not target.exists()  # the old one is out of the way already
            raise OSError("no")
        replace(source, destination)

    with pytest.raises(OSError, match="no"), replacing(target) as path:
        write(path, 6, {"a": 2}, 4)
        monkeypatch.setattr(os, "replace", fails_once)
    assert refused
    assert contents(tmp_path) == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_new_file_replaces_the_old_and_nothing_else_stays(tmp_path: Path, form: str) -> None:
    target = tmp_path / f"cohort.{form}"
    for n_obs in (4, 6):
        with replacing(target) as path:
            write(path, n_obs, {"a": 2}, 4)
    assert list(tmp_path.iterdir()) == [target]
    assert read[form](target).n_obs == 6


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_targets_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    mdata = bare(3, {"a": 2})

    def check(out: object, overwrite: object = False) -> Path:
        return check_target(out, overwrite, mdata)  # type: ignore[arg-type]

    assert check(tmp_path / "new.zarr") == tmp_path / "new.zarr"
    for wrong in (3, None, b"cohort.zarr", True):
        with pytest.raises(TypeError, match=r"out must be a path such as 'cohort.zarr'"):
            check(wrong)
    for wrong in ("cohort", "cohort.h5ad", "cohort.zarr.zip", "", "cohort.ZARR"):
        with pytest.raises(ValueError, match=r"must end in '\.zarr' or '\.h5mu'"):
            check(tmp_path / wrong)
    with pytest.raises(TypeError, match="overwrite must be True or False"):
        check(tmp_path / "new.zarr", "no")
    with pytest.raises(FileNotFoundError, match="nowhere is not a folder"):
        check(tmp_path / "nowhere" / "cohort.zarr")


def test_only_what_is_of_the_same_kind_is_replaced(tmp_path: Path) -> None:
    mdata = bare(3, {"a": 2})
    folder = tmp_path / "thesis.zarr"
    folder.mkdir()
    (folder / "chapter.txt").write_text("years of work")
    file = tmp_path / "notes.zarr"
    file.write_text("notes")
    other = tmp_path / "cohort.h5mu"
    other.mkdir()
    for path in (folder, file, other):
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            check_target(path, False, mdata)
        with pytest.raises(FileExistsError, match="it is left as it is"):
            check_target(path, True, mdata)
    write(tmp_path / "old.zarr", 4, {"a": 2}, 4)
    assert check_target(tmp_path / "old.zarr", True, mdata) == tmp_path / "old.zarr"


def test_the_file_that_is_read_is_not_written(tmp_path: Path) -> None:
    write(tmp_path / "cohort.h5mu", 4, {"a": 2}, 4)
    (tmp_path / "link.h5mu").symlink_to(tmp_path / "cohort.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cohort.h5mu", backed=True)
    for name in ("cohort.h5mu", "link.h5mu"):
        with pytest.raises(ValueError, match="is the file the data are read from"):
            check_target(tmp_path / name, True, backed)
    backed.file.close()
