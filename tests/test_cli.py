from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import mudata
import numpy as np
import pytest
import torch
from mudata import MuData
from typer.testing import CliRunner, Result

from omicvae import _demo, cli
from omicvae.datasets import DatasetUnavailableError, _download, simulated_cohort
from omicvae.model import _base, _imputation
from omicvae.train import _shared_start, training_budget

FILES = {"umap.png", "calibration.png", "cross_correlation.png", "completed.h5mu"}
Run = Callable[..., Result]


@pytest.fixture
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(cli.app, [str(a) for a in arguments])


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty data folder, no cache and no connection."""

    def refuse(file: object, folder: object) -> Path:
        raise DatasetUnavailableError("no connection")

    empty = tmp_path / "no data"
    empty.mkdir()
    monkeypatch.setenv("OMICVAE_DATA", str(empty))
    monkeypatch.setattr(_download, "_download", refuse)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three epochs, few draws, and two latents as the map: compiling UMAP takes longer than all the rest."""

    def flat(mdata: MuData, **settings: object) -> None:
        mdata.obsm["X_umap"] = mdata.obsm["X_covae"][:, :2]

    monkeypatch.setattr(_base, "training_budget", lambda *given: training_budget(*given)._replace(max_epochs=3))
    monkeypatch.setattr(_shared_start, "LEAST_EPOCHS", 3)
    monkeypatch.setattr(_shared_start, "MOST_EPOCHS", 3)
    monkeypatch.setattr(_imputation, "DRAWS", 40)
    monkeypatch.setattr(_demo.sc.pp, "neighbors", lambda *_, **__: None)
    monkeypatch.setattr(_demo.sc.tl, "umap", flat)


def check_demo(result: Result, folder: Path) -> None:
    """What a demo on simulated data has to leave behind and to say."""
    assert result.exit_code == 0, result.output
    assert {path.name for path in folder.iterdir()} == FILES
    completed = mudata.read_h5mu(folder / "completed.h5mu")
    assert {adata.n_obs for adata in completed.mod.values()} == {300}
    assert all(np.isfinite(adata.X).all() for adata in completed.mod.values())
    assert "X_umap" in completed.obsm
    for said in ("Nothing in it was measured", "rna+mirna+rppa: 179", "Trained CoVAE", "Trained MMVAEPlusPlus", *FILES):
        assert said in result.output
    summary = result.output[result.output.index("\nsimulated breast tumours") :]
    assert len(summary.splitlines()) <= 40
    assert max(map(len, result.output.splitlines())) <= 100
    rows = re.findall(r"(rna|mirna|rppa) +(\d+) +(-?\d\.\d\d) +([+-]\d+\.\d%) +(\d+)%", summary)
    assert [row[0] for row in rows] == ["rna", "mirna", "rppa"] * 2
    assert all(0 <= int(row[4]) <= 100 for row in rows)
    for chatter in ("GPU", "Seed set", "Warning", "Monitored metric", "Tip"):
        assert chatter not in result.output


@pytest.mark.usefixtures("offline", "quick")
def test_the_demo_leaves_results_a_summary_and_nothing_else(run: Run, tmp_path: Path) -> None:
    logger = logging.getLogger("omicvae")
    before = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level, list(logger.handlers), logger.level
    with warnings.catch_warnings():
        filters = list(warnings.filters)
        result = run("demo", "--output", tmp_path / "made" / "here")
        assert warnings.filters == filters
    check_demo(result, tmp_path / "made" / "here")
    # What was said about the data by the first model is not said again by the second.
    assert result.output.count("samples by assays measured") == 1
    after = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level, list(logger.handlers), logger.level
    assert after == before


@pytest.mark.slow
@pytest.mark.usefixtures("offline")
def test_the_whole_demo(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--output", tmp_path / "demo")
    check_demo(result, tmp_path / "demo")
    coverage = [int(found) for found in re.findall(r"(?:rna|mirna|rppa) +\d+ +\S+ +\S+ +(\d+)%", result.output)]
    # Nominally 90 %; a few thousand values of 20 to 30 samples, which are far from independent.
    assert all(75 <= found <= 100 for found in coverage)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_demo_on_breast_tumours(run: Run, tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMICVAE_DATA", str(data_dir))
    result = run("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    assert "breast tumours of The Cancer Genome Atlas, 220 samples" in result.output
    assert mudata.read_h5mu(tmp_path / "demo" / "completed.h5mu")["rppa"].n_obs == 220


def test_the_cohort_is_simulated_where_there_is_no_other(offline: None) -> None:
    cohort = _demo.load_cohort(seed=3)
    np.testing.assert_array_equal(cohort.mdata["rna"].X, simulated_cohort(seed=3).mdata["rna"].X)
    assert cohort.batch_key in cohort.mdata.obs


def test_threads_are_restored_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), _demo.one_thread():
        assert torch.get_num_threads() == 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_help_names_the_commands_and_version_is_the_packages(run: Run) -> None:
    for arguments in (["--help"], []):
        assert "demo" in run(*arguments).output
    assert run("--version").output == f"omicvae {version('omicvae')}\n"
    assert "--seed" in run("demo", "--help").output


@pytest.mark.parametrize(
    "arguments", [["dmeo"], ["demo", "--seed", "-1"], ["demo", "--seed", "one"], ["demo", "extra"]]
)
def test_a_mistyped_command_ends_without_a_traceback(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_an_output_that_is_a_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("something of the user's")
    result = run("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 2
    assert "is a file" in " ".join(result.output.replace("│", " ").split())
    assert (tmp_path / "demo").read_text() == "something of the user's"


def test_mistakes_with_data_end_in_one_sentence(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "breast.TCGA.rda").write_text("not the published file")
    monkeypatch.setenv("OMICVAE_DATA", str(tmp_path))
    result = run("demo", "--output", tmp_path / "demo")
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "Error:" in result.output
    assert "is not the published breast.TCGA.rda" in " ".join(result.output.split())


def test_a_mistake_of_ours_is_not_taken_for_the_users(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(_demo, "run_demo", broken)
    assert isinstance(run("demo").exception, KeyError)
