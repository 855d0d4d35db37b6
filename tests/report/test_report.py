"""The page about a model: complete, self-contained, harmless, and there for every model."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scvi
import torch
from matplotlib import image
from matplotlib import pyplot as plt
from mudata import MuData

import omicvae.model
from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, ProbabilisticCCA
from omicvae.model._model import Model
from omicvae.report import _map, write_report
from omicvae.report._methods import methods_text

SECTIONS = ["data", "skill", "calibration", "map", "shared", "training", "methods"]
CHROMIUM = shutil.which("chromium") or ("/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None)


class Page(HTMLParser):
    """What a browser would see: tags, addresses, ids and text; fails on tags that do not match."""

    VOID = {"meta", "img", "br", "link", "input", "hr"}

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]
        self.addresses += [value for name, value in attributes if name in ("src", "href", "action", "data")]
        assert not [name for name, _ in attributes if name.startswith("on")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += f" {' '.join(data.split())}" if data.strip() else ""


def check_page(path: Path) -> Page:
    """What holds for every page."""
    page = Page(path)
    assert [i for i in page.ids if i in SECTIONS] == SECTIONS
    assert not {"script", "iframe", "object", "embed", "link", "form"} & set(page.tags)
    assert all(a.startswith(("data:image/png;base64,", "#")) for a in page.addresses)
    assert {a[1:] for a in page.addresses if a.startswith("#")} <= set(page.ids)
    assert "nan" not in re.findall(r"\w+", page.text)
    assert plt.get_fignums() == []
    return page


@pytest.fixture(autouse=True)
def flat_map(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two latents as the map: compiling UMAP takes longer than all the rest."""
    if "the_real_map" not in request.node.name:
        monkeypatch.setattr(_map, "umap_coordinates", lambda model, at, seed: _two_latents(model)[at])


def _two_latents(model: Model) -> np.ndarray:
    latent = model.get_latent_representation(return_numpy=True)
    return np.stack([latent[:, 0], latent[:, -1]], axis=1)


def cohort(n_obs: int = 80, **arguments: Any) -> MuData:
    given = {"modalities": ["rna", "mirna", "rppa"], "n_latent": 3, "n_vars": 8, "missing": {"rppa": 0.3}, "seed": 2}
    return correlated_gaussian(n_obs, **given | arguments).mdata


def fitted(mdata: MuData, cls: type[Model] = CoVAE, setup: dict[str, Any] | None = None, **training: Any) -> Model:
    scvi.settings.seed = 0
    cls.setup_mudata(mdata, **setup or {})
    model = cls(mdata)
    model.train(**{"max_epochs": 2, "accelerator": "cpu", "enable_progress_bar": False} | training)
    return model


@pytest.fixture(scope="module")
def covae() -> Iterator[CoVAE]:
    mdata = cohort(120)
    mdata.obs["stage"] = ["early", "late", None] * 40
    mdata.obs["center"] = ["A", "B"] * 60
    mdata.obs["age"] = np.linspace(30, 80, 120)
    yield fitted(mdata, setup={"batch_key": "center"})  # type: ignore[misc]


@pytest.mark.parametrize("name", omicvae.model.__all__)
def test_every_model_has_a_page(name: str, tmp_path: Path) -> None:
    model = fitted(cohort(), getattr(omicvae.model, name))
    path = model.report(tmp_path / "report.html")
    page = check_page(path)
    assert f"{name} of rna, mirna and rppa" in page.text
    if name not in ("CoVAE", "MMVAEPlusPlus"):
        assert f"a {name} has no shared dimensions" in page.text
    assert ("fitted in closed form" in page.text) == (model.training_.lr is None and not model.history)


def test_the_page_has_what_it_promises(covae: CoVAE, tmp_path: Path) -> None:
    page = check_page(covae.report(tmp_path / "report.html", title="Our cohort", color=["stage", "age"]))
    assert page.tags.count("img") >= 8
    for said in ("Our cohort", "KL from the prior", "Aggregated posterior", "Skill over ridge", "scvi-tools", "Python"):
        assert said in page.text
    assert methods_text(covae) in page.text
    for row in covae.calibration_report().itertuples():
        assert f" {row.modality} {row.sources} {row.n_samples} " in page.text


def test_the_methods_paragraph_says_what_was_done(covae: CoVAE) -> None:
    text = methods_text(covae)
    present = covae._cohort(None).present
    for m, n in zip(covae.modalities, present.sum(0), strict=True):
        assert f"{m} ({n} samples, 8 features)" in text
    assert f"{present.all(1).sum()} samples had all 3 modalities" in text
    for size, use in ((covae.train_indices, "training"), (covae.calibration_indices, "calibration")):
        assert f"{len(size)} for {use}" in text
    assert "seed was 0" in text and "2 epochs of at most 2" in text and "given the covariate center" in text
    for name in ("omicvae", "scvi-tools"):
        assert covae.training_.versions[name] in text
    assert f"rna {covae.trust('rna')['r2'].median():.2f}".replace("-", "−") in text
    assert "\n" not in text and "nan" not in text and "  " not in text


def test_a_loaded_model_says_the_same(covae: CoVAE, tmp_path: Path) -> None:
    covae.save(tmp_path / "model")
    loaded = CoVAE.load(tmp_path / "model", covae.adata)
    assert methods_text(loaded) == methods_text(covae)
    check_page(loaded.report(tmp_path / "report.html"))


@pytest.mark.parametrize("cls", [CoVAE, ProbabilisticCCA])
def test_names_cannot_put_anything_into_the_page(cls: type[Model], tmp_path: Path) -> None:
    hostile = "<script>alert('x')</script>"
    mdata = cohort(120)
    for m in mdata.mod:
        mdata[m].var_names = [f'{hostile}"><img src=x onerror=alert({j})> {m} $x^$ {{{{ 7 * 7 }}}}' for j in range(8)]
    renamed = MuData({f"{hostile[:-9]}$y_{m}^$": mdata[m].copy() for m in mdata.mod})
    renamed.obs[f"<b>{hostile}"] = ["</title><svg onload=alert(1)>", "$\\frac{$"] * 60
    model = fitted(renamed, cls)
    page = check_page(model.report(tmp_path / "report.html", title=hostile, color=[f"<b>{hostile}"]))
    assert "svg" not in page.tags
    assert page.text.count("alert(") > 3  # it is there to be read
    assert "{{ 7 * 7 }}" in page.text  # names are not templates either


def test_nobody_has_everything(tmp_path: Path) -> None:
    """Each sample lacks one of three assays."""
    mdata = cohort(90)
    kept = {m: np.arange(90) % 3 != k for k, m in enumerate(("rna", "mirna", "rppa"))}
    full = cohort(90, missing=None)
    mosaic = MuData({m: full[m][kept[m]].copy() for m in kept})
    assert mdata.n_obs == mosaic.n_obs
    page = check_page(fitted(mosaic).report(tmp_path / "report.html"))
    assert "0 samples had all 3 modalities" in page.text
    assert "33 % of assays missing" in page.text


def test_assays_never_measured_together(tmp_path: Path) -> None:
    full = cohort(80, missing=None)
    names = full.obs_names
    chain = MuData({"rna": full["rna"][:50].copy(), "mirna": full["mirna"].copy(), "rppa": full["rppa"][50:].copy()})
    assert len(names) == chain.n_obs
    page = check_page(fitted(chain).report(tmp_path / "report.html"))
    assert "Never measured together: rna and rppa" in page.text


@pytest.mark.parametrize("n_obs", [8, 14])
def test_few_samples(n_obs: int, tmp_path: Path) -> None:
    page = check_page(fitted(cohort(n_obs, missing=None)).report(tmp_path / "report.html"))
    assert f"{n_obs} samples are too few for a map" in page.text


def test_a_model_that_kept_nothing_back(tmp_path: Path) -> None:
    mdata = cohort(40)
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata, backbone="network")
    model.train(2, train_size=1.0, calibration_size=0.0, accelerator="cpu", enable_progress_bar=False)
    page = check_page(model.report(tmp_path / "report.html"))
    assert "looks better than it is" in page.text  # the warning of what was measured on training samples
    assert "Too few samples were held out" in page.text


def test_mistakes(covae: CoVAE, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in '.html'"):
        covae.report(tmp_path / "report.pdf")
    with pytest.raises(FileNotFoundError, match="not a folder"):
        covae.report(tmp_path / "nowhere" / "report.html")
    with pytest.raises(ValueError, match="Did you mean 'stage'"):
        covae.report(tmp_path / "report.html", color=["stages"])
    with pytest.raises(TypeError, match="list of columns"):
        covae.report(tmp_path / "report.html", color="stage")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        covae.report(tmp_path / "folder.html")
    with pytest.raises(TypeError, match="expects a model"):
        write_report("covae", tmp_path / "report.html")  # type: ignore[arg-type]
    covae.save(tmp_path / "model")
    with pytest.raises(ValueError, match="without data"):
        CoVAE.load(tmp_path / "model", adata=False).report(tmp_path / "report.html")
    with pytest.raises(RuntimeError, match="not been trained"):
        CoVAE(covae.adata).report(tmp_path / "report.html")
    assert not list(tmp_path.glob("*report*"))  # nothing half written is left


def test_a_failure_leaves_the_page_that_was_there(
    covae: CoVAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("an earlier page")

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("omicvae.report._write.methods_section", broken)
    with pytest.raises(ZeroDivisionError):
        covae.report(path)
    assert path.read_text() == "an earlier page"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_the_real_map_is_reproducible_and_threads_are_left_alone(covae: CoVAE) -> None:
    before = torch.get_num_threads()
    everyone = np.arange(120)
    one, other = (_map.umap_coordinates(covae, everyone, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.shape == (120, 2) and np.isfinite(one).all()
    assert torch.get_num_threads() == before


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_browser_shows_it(covae: CoVAE, tmp_path: Path) -> None:
    """Opened without a network: all pictures load, and the page is as tall as its content."""
    path = covae.report(tmp_path / "report.html")
    flags = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--window-size=1200,2400"),
    ]
    screenshot = tmp_path / "page.png"
    done = subprocess.run(
        [str(CHROMIUM), *flags, f"--screenshot={screenshot}", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "CONSOLE" not in done.stderr and "Refused to load" not in done.stderr
    shown = image.imread(screenshot)
    assert shown.shape[:2] == (2400, 1200)
    assert all(part.std() > 0.01 for part in np.array_split(shown[..., :3], 6))  # nothing is blank from top to bottom
