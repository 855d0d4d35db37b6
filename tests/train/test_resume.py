"""A run that was interrupted, however rudely, goes on to the result of one that was not."""

from __future__ import annotations

import json
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import scvi
import torch

import omicvae
from omicvae.train._checkpoints import LATEST, START
from omicvae.train._record_file import read_record, write_record

QUIET = {"enable_progress_bar": False, "accelerator": "cpu", "batch_size": 32}
BUILD = {
    "covae": "omicvae.model.CoVAE(mdata, n_latent=2, backbone='network', network=small)",
    "covae and closed form": "omicvae.model.CoVAE(mdata, n_latent=2, network=small)",
    "mmvaepp": "omicvae.model.MMVAEPlusPlus(mdata, n_shared=2, n_private=1, network=small)",
    "mvae": "omicvae.model.MVAE(mdata, n_latent=2, network=small)",
}
SCRIPT = """
import scvi, torch, omicvae
torch.set_num_threads(1)
scvi.settings.seed = 0
small = {"n_hidden": 8, "n_layers": 1}
settings = {"modalities": ("rna", "meth"), "n_latent": 2, "n_vars": 8, "missing": 0.2, "seed": 1}
mdata = omicvae.datasets.correlated_gaussian(90, **settings).mdata
for cls in (omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus, omicvae.model.MVAE):
    cls.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "normal"))
scvi.settings.seed = 0
"""


class Interrupted(Exception):
    pass


class Interrupt(pl.Callback):
    """An end in the middle of an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_batch_start(self, trainer: pl.Trainer, module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == self.epoch and batch_idx == 1:
            raise Interrupted


def build(kind: str) -> Any:
    names: dict[str, Any] = {}
    exec(SCRIPT, names)
    return eval(BUILD[kind], names)


def trained(kind: str, **arguments: Any) -> Any:
    model = build(kind)
    model.train(**QUIET | arguments)
    return model


def interrupted(kind: str, folder: Path, epoch: int, **arguments: Any) -> None:
    with pytest.raises(Interrupted):
        trained(kind, checkpoint_dir=folder, callbacks=[Interrupt(epoch)], **arguments)


def assert_same_run(found: Any, expected: Any) -> None:
    """Bit for bit: history, latents and imputations."""
    assert set(found.history) == set(expected.history)
    for name, values in expected.history.items():
        np.testing.assert_array_equal(found.history[name].to_numpy(float), values.to_numpy(float), err_msg=name)
        assert list(found.history[name].index) == list(values.index)
    assert found.best_epoch_ == expected.best_epoch_
    np.testing.assert_array_equal(
        found.get_latent_representation(return_numpy=True), expected.get_latent_representation(return_numpy=True)
    )
    imputed = []
    for model in (found, expected):
        scvi.settings.seed = 3
        imputed.append(model.impute("meth"))
    np.testing.assert_array_equal(imputed[0].X, imputed[1].X)
    np.testing.assert_array_equal(imputed[0].layers["upper"], imputed[1].layers["upper"])


class TestTheSameResult:
    @pytest.mark.parametrize("kind", list(BUILD))
    def test_interrupted_twice(self, kind: str, tmp_path: Path) -> None:
        """Before an epoch was done, and after some; once more when there is nothing left to do."""
        expected = trained(kind, max_epochs=6)
        interrupted(kind, tmp_path / "c", 0, max_epochs=6)
        assert os.listdir(tmp_path / "c") == [START]
        interrupted(kind, tmp_path / "c", 3, max_epochs=6, resume=True)
        assert sorted(os.listdir(tmp_path / "c")) == [LATEST, START]
        for _ in range(2):
            assert_same_run(trained(kind, checkpoint_dir=tmp_path / "c", resume=True, max_epochs=6), expected)

    def test_where_training_stops_early(self, tmp_path: Path) -> None:
        arguments = {
            "max_epochs": 60, "early_stopping_patience": 3, "early_stopping_warmup_epochs": 5,
            "plan_kwargs": {"lr": 0.05, "lr_schedule": "constant"},
        }  # fmt: skip
        expected = trained("mvae", **arguments)
        assert 8 <= len(expected.history["train_loss"]) < 60
        interrupted("mvae", tmp_path, 6, **arguments)
        for _ in range(2):
            assert_same_run(trained("mvae", checkpoint_dir=tmp_path, resume=True, **arguments), expected)

    def test_checkpoints_change_nothing(self, tmp_path: Path) -> None:
        assert_same_run(trained("mvae", max_epochs=3, checkpoint_dir=tmp_path), trained("mvae", max_epochs=3))

    def test_killed_at_a_random_moment(self, tmp_path: Path) -> None:
        """SIGKILL, which no program can answer; the moment differs from run to run."""
        folder = tmp_path / "c"
        arguments = {**QUIET, "max_epochs": 40, "resume": True, "checkpoint_dir": str(folder)}
        child = subprocess.Popen(
            [sys.executable, "-c", f"{SCRIPT}\n{BUILD['mvae']}.train(**{arguments!r})"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while child.poll() is None and not (folder / START).exists():
            time.sleep(0.01)
        time.sleep(random.SystemRandom().uniform(0, 2))
        child.send_signal(signal.SIGKILL)
        assert child.wait() in (-signal.SIGKILL, 0)
        assert_same_run(
            trained("mvae", max_epochs=40, checkpoint_dir=folder, resume=True), trained("mvae", max_epochs=40)
        )


class TestWriting:
    def test_a_disk_that_fills_up_costs_a_checkpoint_and_not_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        interrupted("mvae", tmp_path, 2, max_epochs=4)
        before, calls = (tmp_path / LATEST).read_bytes(), []

        def full(file: Any, **arrays: Any) -> None:
            calls.append(file.write(b"half a file"))
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(np, "savez", full)
        monkeypatch.setattr(logging.getLogger("omicvae"), "propagate", True)
        expected = trained("mvae", max_epochs=4, checkpoint_dir=tmp_path, resume=True)
        monkeypatch.undo()
        assert calls and (tmp_path / LATEST).read_bytes() == before
        assert "could not be written" in caplog.text and "No space left on device" in caplog.text
        assert sorted(os.listdir(tmp_path)) == [LATEST, START]
        assert_same_run(trained("mvae", max_epochs=4, checkpoint_dir=tmp_path, resume=True), expected)

    def test_a_folder_that_cannot_be_written_is_found_before_training(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        model = build("mvae")
        with pytest.raises(OSError):
            model.train(max_epochs=2, checkpoint_dir=tmp_path / "file" / "c", **QUIET)
        assert not model.is_trained

    def test_records_come_back_as_they_were(self, tmp_path: Path) -> None:
        record = {
            "a": torch.arange(3), 0: (1, [2.5, None, "ü"], {}), "b": np.array([np.nan]), "c": {"d": torch.tensor(1.0)},
            "e": float("inf"), "f": True,
        }  # fmt: skip
        write_record(tmp_path / "r.npz", record)
        found = read_record(tmp_path / "r.npz")
        assert repr(found) == repr(record) and list(found) == list(record)
        with pytest.raises(TypeError, match="cannot hold a PosixPath"):
            write_record(tmp_path / "r.npz", {"a": tmp_path})
        assert repr(read_record(tmp_path / "r.npz")) == repr(record)


class Canary:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


class TestRefused:
    def refused(self, folder: Path, *words: str, kind: str = "mvae", **arguments: Any) -> None:
        model = build(kind)
        with pytest.raises(ValueError) as caught:
            model.train(**QUIET | {"max_epochs": 3, "checkpoint_dir": folder, "resume": True} | arguments)
        message = str(caught.value)
        assert "\n" not in message and len(message) < 500 and not model.is_trained
        for word in (str(folder), *words):
            assert word in message, message

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        interrupted("mvae", tmp_path / "c", 2, max_epochs=3)
        return tmp_path / "c"

    def test_another_run(self, folder: Path) -> None:
        self.refused(folder, "of another run", "max epochs: 3 there, 4 here", max_epochs=4)
        self.refused(folder, "another run", "batch sizes: 32 there, 16 here", batch_size=16)
        self.refused(folder, "(model: MVAE there, MMVAEPlusPlus here)", kind="mmvaepp")
        self.refused(folder, "(training samples: ", "scvi.settings.seed", train_size=0.8)

    def test_without_asking(self, folder: Path) -> None:
        before = (folder / LATEST).read_bytes()
        with pytest.raises(FileExistsError, match=r"holds checkpoints.*resume=True.*another checkpoint_dir"):
            trained("mvae", max_epochs=3, checkpoint_dir=folder)
        assert (folder / LATEST).read_bytes() == before
        with pytest.raises(ValueError, match="resume=True needs checkpoint_dir"):
            build("mvae").train(resume=True, **QUIET)

    def test_closed_form_has_nothing_to_go_on_from(self, tmp_path: Path) -> None:
        model = omicvae.model.CoVAE(build("covae").adata, backbone="moments")
        with pytest.raises(ValueError, match=r"closed form.*leave checkpoint_dir out"):
            model.train(checkpoint_dir=tmp_path)

    @pytest.mark.parametrize("name", [START, LATEST])
    def test_damaged(self, folder: Path, name: str) -> None:
        content = (folder / name).read_bytes()
        rng = np.random.default_rng(0)
        flipped = bytearray(content)
        for at in rng.integers(0, len(content), 30):
            flipped[at] ^= 0x10
        for damaged in (b"", content[: len(content) // 2], content[:-1], bytes(flipped), b"PK\x03\x04", b"{}"):
            (folder / name).write_bytes(damaged)
            self.refused(folder, "damaged", "delete it to start")
        (folder / name).write_bytes(content)
        (folder / START).unlink()
        self.refused(folder, "lacks start.npz")

    @pytest.mark.parametrize("name", [START, LATEST])
    @pytest.mark.parametrize("kind", ["pickle", "torch file", "object array", "text"])
    def test_nothing_in_it_is_executed(self, folder: Path, name: str, kind: str, tmp_path: Path) -> None:
        song, path = Canary(tmp_path / "canary"), folder / name
        if kind == "pickle":
            path.write_bytes(pickle.dumps(song))
        elif kind == "torch file":
            torch.save(song, path)
        else:
            arrays: dict[str, Any] = dict(np.load(path))
            text = json.dumps(["dict", [["module", ["object", "0"]]]]).encode()
            arrays |= {"0": np.array([song], dtype=object)} if kind == "object array" else {}
            np.savez(path, **arrays | {"record": np.frombuffer(text, np.uint8)})
        self.refused(folder)
        assert not (tmp_path / "canary").exists()
