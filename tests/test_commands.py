"""The commands of the shell, in this process and, where exit codes and streams matter, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from mudata import MuData
from typer.testing import CliRunner, Result

import omicvae.model
from omicvae.cli import app
from omicvae.cli._options import MODELS
from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE
from omicvae.report import _map

PROGRAM = Path(sys.executable).with_name("omicvae")
COMMANDS = ("demo", "check", "train", "impute", "report", "benchmark")
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run() -> Run:
    return lambda *arguments: CliRunner().invoke(app, [str(a) for a in arguments])


def shell(*arguments: object, timeout: int = 280) -> subprocess.CompletedProcess[str]:
    """A process of its own, whose output is not a terminal."""
    command = [str(PROGRAM), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def make(n_obs: int = 60, seed: int = 3) -> MuData:
    found = correlated_gaussian(
        n_obs, modalities=["rna", "mirna", "rppa"], n_latent=2, n_vars=6, likelihoods={"mirna": "nb"},
        missing={"rppa": 0.4}, seed=seed,
    ).mdata  # fmt: skip
    found.obs["center"] = np.where(np.arange(found.n_obs) % 2, "A", "B")
    return found


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5mu"
    make().write_h5mu(path)
    make().write_zarr(path.with_suffix(".zarr"))
    return path


@pytest.fixture(scope="module")
def model(run: Run, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    result = run(
        *("train", cohort, "--output", folder, "--batch-key", "center", "--max-epochs", 2, "--set", "n_latent=3"),
        *("--seed", 5, "--accelerator", "cpu", "--likelihood", "mirna=poisson"),
    )
    assert result.exit_code == 0, result.output
    assert "Trained CoVAE in" in result.output and "poisson" in result.output
    return folder


def refused(result: Result | subprocess.CompletedProcess[str], *words: str, code: int = 1) -> None:
    """One sentence, no traceback, and nothing of other packages."""
    output = result.output if isinstance(result, Result) else result.stdout + result.stderr
    assert (result.exit_code if isinstance(result, Result) else result.returncode) == code, output
    assert "Traceback" not in output
    text = " ".join(output.replace("│", " ").split())
    for word in ("Error", *words):
        assert word in text, text


# ---------------------------------------------------------------------- as processes


def test_check_as_a_process(cohort: Path) -> None:
    done = shell("check", cohort)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    mdata = make()
    lines = [line.split() for line in done.stdout.splitlines()]
    for name, likelihood in {"rna": "normal", "mirna": "nb", "rppa": "normal"}.items():
        (row,) = [line for line in lines if line[:1] == [name]]
        n = mdata[name].n_obs
        assert row[1:4] == [str(n), str(60 - n), "6"] and row[-1] == likelihood
    assert [str(mdata["rppa"].n_obs), "yes", "yes", "yes"] in lines


@pytest.mark.slow
def test_from_a_file_to_a_report_as_processes(cohort: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    steps = [
        ("train", cohort, "--output", model, "--max-epochs", 2, "--accelerator", "cpu", "--save-data"),
        ("impute", model, cohort, "--output", tmp_path / "completed.h5mu"),
        ("report", model, "--output", tmp_path / "report.html"),
        ("benchmark", cohort, "--output", tmp_path / "bench", "--method", "mean", "--splits", 2),
    ]
    for step in steps:
        done = shell(*step)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        assert "\x1b" not in done.stdout and "\r" not in done.stdout  # no bars and no colours in a log file
    assert mudata.read_h5mu(tmp_path / "completed.h5mu")["rppa"].n_obs == 60
    assert "<h2>Methods and versions</h2>" in (tmp_path / "report.html").read_text()
    refused(shell("train", cohort, "--output", model), "exists")
    (tmp_path / "notes.h5mu").write_text("something else")
    refused(shell("check", tmp_path / "notes.h5mu"), "cannot be read as a MuData")
    assert shell("train").returncode == 2


# ---------------------------------------------------------------------- train


def test_training_is_what_the_options_say(model: Path, cohort: Path) -> None:
    found = CoVAE.load(model, mudata.read_h5mu(cohort))
    assert found.schema["mirna"].likelihood == "poisson"
    assert [c.column for c in found.schema.categorical] == ["center"]
    assert len(found.latent_names["joint"]) == 9
    assert found.training_.seed == 5 and found.training_.max_epochs == 2


def test_the_seed_decides(run: Run, cohort: Path, tmp_path: Path) -> None:
    states = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        arguments = ("--max-epochs", 1, "--accelerator", "cpu", "--model", "MVAE", "--seed", seed)
        assert run("train", cohort, "--output", tmp_path / name, *arguments).exit_code == 0
        states[name] = json.loads((tmp_path / name / "model.json").read_text())["history"]["train_loss"]["values"]
    assert states["a"] == states["b"] != states["c"]


@pytest.mark.parametrize("name", ["ProbabilisticCCA", "MMVAEPlusPlus"])
def test_any_model_from_zarr(run: Run, name: str, cohort: Path, tmp_path: Path) -> None:
    arguments = ("--max-epochs", 2, "--accelerator", "cpu", "--model", name, "--save-data")
    result = run("train", cohort.with_suffix(".zarr"), "--output", tmp_path / "model", *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "model" / "model.json").read_text())["class"] == name
    assert (tmp_path / "model" / "mdata.h5mu").is_file()


def test_values_may_stay_on_disk(run: Run, cohort: Path, tmp_path: Path) -> None:
    arguments = ("--max-epochs", 1, "--accelerator", "cpu", "--backed")
    result = run("train", cohort, "--output", tmp_path / "model", *arguments)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--likelihood", "rna=binomial"], ["binomial"]),
        (["--likelihood", "rnas=nb"], ["rnas", "Did you mean 'rna'"]),
        (["--layer", "rna=counts"], ["rna", "counts"]),
        (["--batch-key", "centre"], ["Did you mean 'center'"]),
        (["--set", "n_latents=3"], ["n_latents", "Did you mean 'n_latent'"]),
        (["--set", "n_latent=-3"], ["n_latent"]),
        (["--modality", "rna"], ["at least two modalities"]),
        (["--accelerator", "gpu"], ["gpu"]),
    ],
)
def test_mistakes_in_training_are_one_sentence(
    run: Run, arguments: list[str], words: list[str], cohort: Path, tmp_path: Path
) -> None:
    if "gpu" in arguments and torch.cuda.is_available():
        pytest.skip("there is one")
    refused(run("train", cohort, "--output", tmp_path / "model", *arguments), *words)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["--likelihood", "nb"],
        ["--likelihood", "rna=nb", "--likelihood", "rna=normal"],
        ["--model", "VAE"],
        ["--max-epochs", "0"],
        ["--seed", "-1"],
        ["--accelerator", "abacus"],
    ],
)
def test_options_of_the_wrong_form_are_mistyped_commands(
    run: Run, arguments: list[str], cohort: Path, tmp_path: Path
) -> None:
    refused(run("train", cohort, "--output", tmp_path / "model", *arguments), code=2)


def test_an_existing_model_is_replaced_only_if_asked(run: Run, cohort: Path, tmp_path: Path) -> None:
    arguments = ("train", cohort, "--output", tmp_path / "m", "--model", "ProbabilisticCCA", "--max-epochs", 2)
    assert run(*arguments).exit_code == 0
    refused(run(*arguments), "exists")
    assert run(*arguments, "--overwrite").exit_code == 0


# ---------------------------------------------------------------------- check


def test_check_names_every_problem(run: Run, tmp_path: Path) -> None:
    mdata = make()
    mdata["rna"].X[0, 0] = np.inf
    mdata["rppa"].X[1] = np.nan
    mdata.write_h5mu(tmp_path / "bad.h5mu")
    result = run("check", tmp_path / "bad.h5mu")
    refused(result, "'rna'", "infinite", "'rppa'", "no value at all")
    assert "mirna" in result.output  # what can be said of the rest is said


def test_files_that_are_something_else(run: Run, tmp_path: Path) -> None:
    AnnData(np.ones((3, 2), np.float32)).write_h5ad(tmp_path / "one.h5ad")
    AnnData(np.ones((3, 2), np.float32)).write_h5ad(tmp_path / "one.h5mu")
    (tmp_path / "notes.h5mu").write_text("something else")
    (tmp_path / "table.csv").write_text("a,b\n")
    (tmp_path / "empty.zarr").mkdir()
    refused(run("check", tmp_path / "one.h5ad"), "single AnnData")
    refused(run("check", tmp_path / "one.h5mu"), "one.h5mu")
    refused(run("check", tmp_path / "notes.h5mu"), "cannot be read as a MuData")
    refused(run("check", tmp_path / "table.csv"), "must end in .h5mu or .zarr")
    refused(run("check", tmp_path / "empty.zarr"), "empty.zarr")
    refused(run("check", tmp_path / "nowhere.h5mu"), "does not exist", code=2)


# ---------------------------------------------------------------------- impute


@pytest.mark.parametrize("suffix", ["h5mu", "zarr"])
def test_imputed_files_are_those_of_the_function(
    run: Run, suffix: str, model: Path, cohort: Path, tmp_path: Path
) -> None:
    out = tmp_path / f"completed.{suffix}"
    result = run("impute", model, cohort, "--output", out, "--level", 0.5, "--accelerator", "cpu")
    assert result.exit_code == 0, result.output
    mdata = make()
    measured = mdata["rppa"].n_obs
    assert f"rppa: {measured} samples measured, {60 - measured} imputed" in result.output
    found = mudata.read_h5mu(out) if suffix == "h5mu" else mudata.read_zarr(out)
    assert {a.n_obs for a in found.mod.values()} == {60}
    assert found.uns["omicvae_complete"]["level"] == 0.5
    for m in mdata.mod:
        kept = found[m][mdata[m].obs_names]
        np.testing.assert_allclose(kept.X, mdata[m].X, rtol=1e-6)


def test_other_samples_and_fewer_modalities_can_be_imputed(run: Run, model: Path, tmp_path: Path) -> None:
    other = make(seed=9)
    MuData({"rna": other["rna"][:7].copy()}).write_h5mu(tmp_path / "new.h5mu")
    result = run("impute", model, tmp_path / "new.h5mu", "--output", tmp_path / "out.h5mu", "--modality", "rppa")
    assert result.exit_code == 0, result.output
    found = mudata.read_h5mu(tmp_path / "out.h5mu")
    assert list(found.mod) == ["rppa"] and found["rppa"].shape == (7, 6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--output", "out.csv"], ["'.zarr' or '.h5mu'"]),
        (["--output", "nowhere/out.h5mu"], ["not a folder"]),
        (["--output", "out.h5mu", "--level", "90"], ["--level"]),
        (["--output", "out.h5mu", "--modality", "rnas"], ["rnas"]),
        (["--output", "out.h5mu", "--min-skill", "2"], ["min_skill"]),
    ],
)
def test_mistakes_in_imputing_are_one_sentence(
    run: Run, arguments: list[str], words: list[str], model: Path, cohort: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    refused(run("impute", model, cohort, *arguments), *words)
    assert not list(tmp_path.iterdir())


def test_folders_that_hold_no_model(run: Run, model: Path, cohort: Path, tmp_path: Path) -> None:
    refused(run("impute", tmp_path, cohort, "--output", tmp_path / "out.h5mu"), "no saved omicvae model")
    (tmp_path / "model.json").write_text('{"format": 1, "class": "Pickle"}')
    refused(run("impute", tmp_path, cohort, "--output", tmp_path / "out.h5mu"))
    (tmp_path / "model.json").write_text("{")
    refused(run("impute", tmp_path, cohort, "--output", tmp_path / "out.h5mu"), "damaged")


def test_an_existing_file_is_replaced_only_if_asked(run: Run, model: Path, cohort: Path, tmp_path: Path) -> None:
    arguments = ("impute", model, cohort, "--output", tmp_path / "out.h5mu", "--modality", "rppa")
    assert run(*arguments).exit_code == 0
    refused(run(*arguments), "exists")
    assert run(*arguments, "--overwrite").exit_code == 0


# ---------------------------------------------------------------------- report and benchmark


def test_a_report_is_written(
    run: Run, model: Path, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_map, "umap_coordinates", lambda model, at, seed: np.zeros((len(at), 2)))
    result = run("report", model, cohort, "--output", tmp_path / "page.html", "--color", "center", "--title", "Ours")
    assert result.exit_code == 0, result.output
    assert "<h1>Ours</h1>" in (tmp_path / "page.html").read_text()
    refused(run("report", model, "--output", tmp_path / "page.html"), "saved without its data")
    refused(run("report", model, cohort, "--output", tmp_path / "page.pdf"), ".html")
    refused(run("report", model, cohort, "--output", tmp_path / "p.html", "--color", "centre"), "Did you mean 'center'")


def test_a_benchmark_is_written(run: Run, cohort: Path, tmp_path: Path) -> None:
    arguments = ("--method", "mean", "--method", "knn", "--splits", 2, "--target", "rppa", "--batch-key", "center")
    result = run("benchmark", cohort, "--output", tmp_path / "bench", *arguments)
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "bench" / "benchmark.csv")
    assert set(table["model"]) == {"ridge", "mean", "knn"} and set(table["target"]) == {"rppa"}
    assert (tmp_path / "bench" / "benchmark.png").stat().st_size > 1000
    means = table.groupby("model")["crps_relative_to_ridge"].mean()
    for name, value in means.items():
        assert f"{value:.3f}" in next(line for line in result.output.splitlines() if line.startswith(str(name)))
    refused(run("benchmark", cohort, "--output", tmp_path / "b", "--method", "rigde"), "Did you mean 'ridge'")


# ---------------------------------------------------------------------- help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    text = " ".join(result.output.split())
    assert "Examples" in text and f"omicvae {name}" in text
    assert name in run("--help").output


def test_help_waits_for_nothing_that_it_does_not_need() -> None:
    code = "import sys, omicvae.cli; print(*({'torch', 'scvi', 'lightning', 'scanpy', 'pandas'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == ""


def test_every_model_can_be_named() -> None:
    assert sorted(MODELS) == sorted(omicvae.model.__all__)
