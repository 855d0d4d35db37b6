"""A folder that is not a whole model is refused, one that cannot be written is left, and nothing in it is executed."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import re
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

from omicvae.model import CoVAE, MMVAEPlusPlus

FILES = ("model.json", "arrays.npz", "SHA256SUMS")


def assert_same_latents(found: Any, expected: CoVAE) -> None:
    """Of a loaded model and the one that was saved, for the latter's data."""
    latents = expected.get_latent_representation()
    pd.testing.assert_frame_equal(found.get_latent_representation(expected.adata), latents, rtol=1e-5, atol=1e-5)


@pytest.fixture
def folder(covae: CoVAE, tmp_path: Path) -> Path:
    """A saved model for tests that damage it."""
    covae.save(tmp_path / "model")
    return tmp_path / "model"


def sign(folder: Path) -> None:
    """Checksums that fit, so that what is tested is what lies behind them."""
    lines = [f"{hashlib.sha256((folder / f).read_bytes()).hexdigest()}  {f}\n" for f in FILES[:2]]
    (folder / "SHA256SUMS").write_text("".join(lines))


class TestRefused:
    """Each in one sentence, as a ValueError or FileNotFoundError."""

    def refused(self, folder: Path, *words: str, error: type[Exception] = ValueError, cls: Any = CoVAE) -> None:
        with pytest.raises(error) as caught:
            cls.load(folder, adata=False)
        message = str(caught.value)
        assert "\n" not in message and str(folder) in message and len(message) < 600
        for word in words:
            assert word in message, message

    def test_another_class(self, saved: Path) -> None:
        self.refused(saved, "holds a CoVAE, not a MMVAEPlusPlus", "use omicvae.model.CoVAE.load", cls=MMVAEPlusPlus)

    def test_another_format(self, folder: Path) -> None:
        state = json.loads((folder / "model.json").read_text())
        (folder / "model.json").write_text(json.dumps(state | {"format": 2}))
        self.refused(folder, "written in format 2", "reads format 1")

    def test_no_folder_or_no_model(self, tmp_path: Path) -> None:
        self.refused(tmp_path / "nowhere", "no saved omicvae model", error=FileNotFoundError)
        self.refused(tmp_path, "no saved omicvae model", "model.json is missing", error=FileNotFoundError)
        (tmp_path / "model.pt").write_bytes(b"")
        self.refused(tmp_path, "model.pt, which is a pickle and is not read", error=FileNotFoundError)

    @pytest.mark.parametrize("file", FILES)
    def test_a_missing_file(self, folder: Path, file: str) -> None:
        (folder / file).unlink()
        self.refused(folder, file, error=ValueError if file == "SHA256SUMS" else FileNotFoundError)

    @pytest.mark.parametrize("file", FILES)
    @pytest.mark.parametrize("share", [0, 0.3, 0.99])
    def test_a_truncated_file(self, folder: Path, file: str, share: float) -> None:
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: int(share * len(content)) - (share > 0.9)])
        self.refused(folder, "damaged")

    def test_a_single_flipped_bit_anywhere(self, covae: CoVAE, folder: Path) -> None:
        rng = np.random.default_rng(0)
        for file in FILES:
            content = (folder / file).read_bytes()
            for at in rng.integers(0, 8 * (len(content) - 1), 120):  # the last byte of the sums is a line break
                flipped = bytearray(content)
                flipped[at // 8] ^= 1 << (at % 8)
                (folder / file).write_bytes(flipped)
                with pytest.raises(ValueError, match=r"damaged|written in format"):
                    CoVAE.load(folder, adata=False)
            (folder / file).write_bytes(content)
        assert_same_latents(CoVAE.load(folder, adata=False), covae)

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"{}", b"\xff\xfe", b"[" * 200_000, b"PK\x03\x04"])
    def test_files_of_other_programs(self, folder: Path, content: bytes) -> None:
        original = (folder / "model.json").read_bytes()
        (folder / "model.json").write_bytes(content)
        sign(folder)
        self.refused(folder, "model.json is damaged")
        (folder / "model.json").write_bytes(original)
        (folder / "arrays.npz").write_bytes(content)
        sign(folder)
        self.refused(folder, "arrays.npz is damaged")

    def test_arrays_of_another_kind(self, folder: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.zeros(3))
        (folder / "arrays.npz").write_bytes(buffer.getvalue())
        sign(folder)
        self.refused(folder, "arrays.npz is damaged, or holds something other than plain arrays")

    @pytest.mark.parametrize("key", ["class", "arguments", "registry", "history"])
    @pytest.mark.parametrize("value", [None, 3, [], {}, "x", {"x": 1}])
    def test_a_state_that_is_not_one(self, folder: Path, key: str, value: Any) -> None:
        state = json.loads((folder / "model.json").read_text())
        if value is None:
            del state[key]
        else:
            state[key] = value
        (folder / "model.json").write_text(json.dumps(state))
        sign(folder)
        if (key, value) == ("history", {}):
            assert CoVAE.load(folder, adata=False).history == {}
        else:
            self.refused(folder)

    @pytest.mark.parametrize("change", ["drop", "add", "reshape", "text"])
    def test_arrays_that_do_not_fit_the_model(self, folder: Path, change: str) -> None:
        arrays = dict(np.load(folder / "arrays.npz"))
        key = next(k for k in arrays if k.startswith("module/") and arrays[k].ndim == 2)
        if change == "drop":
            del arrays[key]
        elif change == "add":
            arrays["module/more"] = np.zeros(2)
        else:
            arrays[key] = arrays[key][1:] if change == "reshape" else arrays[key].astype(str)
        np.savez(folder / "arrays.npz", **arrays)
        sign(folder)
        self.refused(folder, "damaged", "not a model")

    def test_data_that_do_not_fit_or_are_not_there(self, covae: CoVAE, saved: Path) -> None:
        with pytest.raises(ValueError, match=r"saved without its data: .*load\(dir, mdata\).*load\(dir, adata=False\)"):
            CoVAE.load(saved)
        with pytest.raises(TypeError, match="adata must be a MuData, None or False, got AnnData"):
            CoVAE.load(saved, covae.adata["rna"])
        with pytest.raises(TypeError, match="got bool"):
            CoVAE.load(saved, True)
        mdata = covae.adata.copy()
        mdata.mod["prot"] = mdata["prot"][:, 1:].copy()
        with pytest.raises(ValueError, match="'prot' lacks 1 of the 7 features"):
            CoVAE.load(saved, mdata)

    @pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another program's"])
    def test_damaged_data_beside_a_whole_model(self, covae: CoVAE, tmp_path: Path, damage: str) -> None:
        covae.save(tmp_path / "m", save_anndata=True)
        path = tmp_path / "m" / "mdata.h5mu"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        changed = {"truncated": content[:-500], "flipped": content, "empty": b"", "another program's": b"PK\x03\x04"}
        path.write_bytes(bytes(changed[damage]))
        with pytest.raises(ValueError, match=r"mdata.h5mu is damaged: .*load\(dir, mdata\).*load\(dir, adata=False\)"):
            CoVAE.load(tmp_path / "m")
        assert_same_latents(CoVAE.load(tmp_path / "m", adata=False), covae)

    def test_checksums_are_those_of_coreutils(self, saved: Path) -> None:
        try:
            checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=saved, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no sha256sum here")
        assert checked.returncode == 0, checked.stderr


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


class TestNothingIsExecuted:
    @pytest.fixture
    def canary(self, tmp_path: Path) -> Path:
        path = tmp_path / "canary"
        pickle.loads(pickle.dumps(Canary(path)))
        assert path.exists()  # it would sing
        path.unlink()
        return path

    def attempts(self, folder: Path, mdata: MuData) -> None:
        for attempt in (
            lambda: CoVAE.load(folder, adata=False),
            lambda: CoVAE.load(folder),
            lambda: CoVAE.load(folder, mdata.copy()),
            lambda: CoVAE.load_registry(folder),
            lambda: CoVAE.view_setup_args(folder),
            lambda: CoVAE.convert_legacy_save(folder, folder / "converted"),
        ):
            with pytest.raises((ValueError, FileNotFoundError)):
                attempt()

    def test_a_folder_of_scvi_tools(self, covae: CoVAE, canary: Path, tmp_path: Path) -> None:
        folder = tmp_path / "stranger"
        folder.mkdir()
        torch.save({"model_state_dict": Canary(canary), "attr_dict": {}, "var_names": []}, folder / "model.pt")
        for legacy in ("attr.pkl", "var_names.csv", "model_params.pt"):
            (folder / legacy).write_bytes(pickle.dumps(Canary(canary)))
        self.attempts(folder, covae.adata)
        assert not canary.exists()

    @pytest.mark.parametrize("kind", ["object array", "object scalar", "pickle", "npy of objects", "torch file"])
    def test_arrays(self, covae: CoVAE, canary: Path, folder: Path, kind: str) -> None:
        path, song = folder / "arrays.npz", Canary(canary)
        arrays: dict[str, Any] = dict(np.load(path))
        if kind == "object array":
            np.savez(path, **arrays, extra=np.array([song], dtype=object))
        elif kind == "object scalar":
            key = next(iter(arrays))
            np.savez(path, **arrays | {key: np.array(song, dtype=object)})
        elif kind == "pickle":
            path.write_bytes(pickle.dumps(song))
        elif kind == "npy of objects":
            buffer = io.BytesIO()
            np.save(buffer, np.array([song], dtype=object), allow_pickle=True)
            path.write_bytes(buffer.getvalue())
        else:
            torch.save(song, path)
        sign(folder)
        (folder / "model.pt").write_bytes(pickle.dumps(song))
        with pytest.raises(ValueError, match=r"arrays.npz is damaged, or holds something other than plain arrays"):
            CoVAE.load(folder, covae.adata.copy())
        assert not canary.exists()

    def test_state(self, covae: CoVAE, canary: Path, folder: Path) -> None:
        (folder / "model.json").write_bytes(pickle.dumps(Canary(canary)))
        sign(folder)
        self.attempts(folder, covae.adata)
        assert not canary.exists()


class TestWriting:
    def test_an_existing_folder_is_kept_unless_asked(self, covae: CoVAE, folder: Path) -> None:
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        with pytest.raises(FileExistsError, match="pass overwrite=True"):
            covae.save(folder)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before

    def test_what_is_not_a_model_is_never_overwritten(self, covae: CoVAE, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "thesis.txt").write_text("years of work")
        (tmp_path / "file").write_text("x")
        for name in ("home", "file"):
            with pytest.raises(FileExistsError, match="does not hold a saved model"):
                covae.save(tmp_path / name, overwrite=True)
        assert (tmp_path / "home" / "thesis.txt").read_text() == "years of work"
        assert (tmp_path / "file").read_text() == "x"

    def test_overwriting_replaces_the_model_and_keeps_other_files(
        self, covae: CoVAE, folder: Path, cohort: Callable
    ) -> None:
        (folder / "report.html").write_text("mine")
        (folder / "figures").mkdir()
        (folder / "figures" / "a.png").write_bytes(b"png")
        covae.save(folder, overwrite=True, save_anndata=True)
        assert (folder / "mdata.h5mu").exists()
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        CoVAE(mdata).save(folder, overwrite=True)
        assert not CoVAE.load(folder, adata=False).is_trained
        assert not (folder / "mdata.h5mu").exists()  # it belonged to the other model
        assert (folder / "report.html").read_text() == "mine" and (folder / "figures" / "a.png").exists()
        assert [f.name for f in folder.parent.iterdir()] == [folder.name]

    @pytest.mark.parametrize("fails", ["savez", "first replace", "second replace", "interrupt", "data"])
    def test_a_failure_leaves_the_old_model_whole(
        self, covae: CoVAE, folder: Path, monkeypatch: pytest.MonkeyPatch, cohort: Callable, fails: str
    ) -> None:
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        mdata = cohort()
        CoVAE.setup_mudata(mdata)
        new, calls, replace = CoVAE(mdata), [], os.replace

        def broken(*args: Any, **kwargs: Any) -> None:
            calls.append(args)
            if fails == "interrupt" and len(calls) == 2:
                raise KeyboardInterrupt
            if fails == "second replace" and len(calls) != 2 or fails == "interrupt":
                replace(*args)
                return
            raise OSError(28, "No space left on device")

        if fails == "savez":
            monkeypatch.setattr(np, "savez", broken)
        elif fails == "data":
            monkeypatch.setattr(MuData, "write", broken)
        else:
            monkeypatch.setattr(os, "replace", broken)
        with pytest.raises(KeyboardInterrupt if fails == "interrupt" else OSError):
            new.save(folder, overwrite=True, save_anndata=True)
        monkeypatch.undo()
        assert calls
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
        assert [f.name for f in folder.parent.iterdir()] == [folder.name]
        assert_same_latents(CoVAE.load(folder, adata=False), covae)

    def test_a_file_that_grows_no_further(self, covae: CoVAE, folder: Path) -> None:
        """The system itself refuses to write on, as on a full disk, part of the way through the arrays."""
        resource = pytest.importorskip("resource")
        before = {f.name: f.read_bytes() for f in folder.iterdir()}
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["model.json"]) + 100, limits[1]))
        try:
            with pytest.raises(OSError):
                covae.save(folder, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
        assert [f.name for f in folder.parent.iterdir()] == [folder.name]
        assert_same_latents(CoVAE.load(folder, adata=False), covae)

    def test_killed_between_the_two_renames(self, covae: CoVAE, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is lost, and the message says where it is."""
        replace = os.replace

        def killed(source: Path, target: Path) -> None:
            replace(source, target)
            os._exit(9)

        child = os.fork()
        if child == 0:
            monkeypatch.setattr(os, "replace", killed)
            covae.save(folder, overwrite=True)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        with pytest.raises(FileNotFoundError, match=r"left the model before it in .*: rename that folder") as caught:
            CoVAE.load(folder, adata=False)
        found = re.search(r"before it in (.*): rename", str(caught.value))
        assert found is not None
        Path(found.group(1)).rename(folder)
        assert_same_latents(CoVAE.load(folder, adata=False), covae)

    def test_a_new_folder_has_the_permissions_of_any_other(self, covae: CoVAE, tmp_path: Path) -> None:
        """A temporary folder would be closed to everyone else."""
        (tmp_path / "other").mkdir()
        covae.save(tmp_path / "deep" / "er" / "model")
        modes = [stat.S_IMODE((tmp_path / p).stat().st_mode) for p in ("other", "deep/er/model")]
        assert modes[0] == modes[1]

    def test_relative_paths_links_and_the_working_directory(
        self, covae: CoVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        covae.save("relative")
        assert_same_latents(CoVAE.load("relative", adata=False), covae)
        (tmp_path / "link").symlink_to("relative", target_is_directory=True)
        covae.save("link", overwrite=True)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "relative" / "model.json").is_file()
        monkeypatch.chdir(tmp_path / "relative")
        with pytest.raises(FileExistsError, match="working directory"):
            covae.save(".", overwrite=True)
