"""The mixOmics cohort: found where it should be, verified, read as published, and refused clearly otherwise."""

from __future__ import annotations

import http.server
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mudata
import numpy as np
import pooch
import pytest
import xarray

from omicvae.datasets import DatasetUnavailableError, _breast_tcga, _download, breast_tcga

NAME = "breast.TCGA.rda"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Start with an empty cache, no OMICVAE_DATA and a closed port as the source: neither network nor user's files."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda project: folder)
    monkeypatch.setattr(_breast_tcga, "_FILE", _breast_tcga._FILE._replace(url=f"http://127.0.0.1:9/{NAME}"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv("OMICVAE_DATA", raising=False)
    return folder


@pytest.fixture
def original(data_dir: Path) -> Path:
    path = data_dir / "raw" / NAME
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    return path


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes, float], list[str]]]:
    """Serve given bytes, after a delay, from this machine as if they were the published file; list the requests."""
    servers: list[http.server.HTTPServer] = []

    def start(content: bytes, delay: float = 0.0) -> list[str]:
        requests: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                requests.append(self.path)
                time.sleep(delay)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.handle_error = lambda *args: None  # a client that gave up is what some tests are about
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        monkeypatch.setattr(_breast_tcga, "_FILE", _breast_tcga._FILE._replace(url=url))
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def matrix(rows: list[str], columns: list[str], first: float) -> xarray.DataArray:
    values = first + np.arange(len(rows) * len(columns), dtype=float).reshape(len(rows), len(columns))
    return xarray.DataArray(values, dims=["dim_0", "dim_1"], coords={"dim_0": rows, "dim_1": columns})


def test_splits_are_stacked_and_labels_stay_with_their_samples() -> None:
    train, test = ["B2", "A1"], ["A9", "C3", "A0"]
    mdata = _breast_tcga._assemble(
        {
            "data.train": {
                "mirna": matrix(train, ["mir-1"], 0),
                "mrna": matrix(train, ["G1", "G2"], 10),
                "protein": matrix(train, ["P1"], 20),
                "subtype": ["Her2", "Basal"],
            },
            "data.test": {
                "mirna": matrix(test, ["mir-1"], 30),
                "mrna": matrix(test, ["G1", "G2"], 40),
                "subtype": ["LumA", "Basal", "Her2"],
            },
        }
    )
    assert {m: a.shape for m, a in mdata.mod.items()} == {"rna": (5, 2), "mirna": (5, 1), "rppa": (2, 1)}
    assert dict(mdata.obs["subtype"].astype(str)) == {
        "TCGA-B2": "Her2",
        "TCGA-A1": "Basal",
        "TCGA-A9": "LumA",
        "TCGA-C3": "Basal",
        "TCGA-A0": "Her2",
    }
    assert list(mdata.obs.loc[["TCGA-A1", "TCGA-A0"], "split"]) == ["train", "test"]
    np.testing.assert_array_equal(mdata["rna"]["TCGA-C3"].X, [[42, 43]])
    np.testing.assert_array_equal(mdata["rppa"]["TCGA-A1"].X, [[21]])


def test_without_any_source_the_error_says_what_to_do() -> None:
    with pytest.raises(DatasetUnavailableError, match="OMICVAE_DATA.*simulated_cohort") as error:
        breast_tcga()
    assert isinstance(error.value, OSError)


def test_a_silent_server_is_given_up(serve, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _download._TIMEOUT_SECONDS == 10
    monkeypatch.setattr(_download, "_TIMEOUT_SECONDS", 0.2)
    serve(b"", 2.0)
    start = time.monotonic()
    with pytest.raises(DatasetUnavailableError):
        breast_tcga()
    assert time.monotonic() - start < 1.5


def test_a_download_with_other_content_is_refused(serve, cache: Path) -> None:
    serve(b"<html>log in to the network</html>")
    with pytest.raises(DatasetUnavailableError, match="hash"):
        breast_tcga()
    assert not (cache / NAME).exists()


@pytest.mark.parametrize("place", [NAME, f"raw/{NAME}"])
@pytest.mark.parametrize("variable", [True, False])
def test_a_local_file_with_other_content_is_refused(
    place: str, variable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data" / place
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something else")
    if variable:
        monkeypatch.setenv("OMICVAE_DATA", str(tmp_path / "data"))
    with pytest.raises(ValueError, match="SHA-256"):
        breast_tcga(None if variable else tmp_path / "data")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="data_dir"):
        breast_tcga(tmp_path / "nowhere")


def test_an_empty_folder_is_mentioned_where_the_download_fails_too(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnavailableError, match="not in .*, not in the cache"):
        breast_tcga(tmp_path)


@pytest.mark.realdata
def test_equals_the_converted_cohort(original: Path) -> None:
    path = original.parents[1] / "tcga_brca_mixomics.h5mu"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    reference, mdata = mudata.read_h5mu(path), breast_tcga(original.parents[1])
    assert {m: a.shape for m, a in mdata.mod.items()} == {"rna": (220, 200), "mirna": (220, 184), "rppa": (150, 142)}
    assert list(mdata.mod) == list(reference.mod)
    assert list(mdata.obs_names) == list(reference.obs_names)
    assert list(mdata.obs["subtype"]) == list(reference.obs["PAM50"])
    assert list(mdata.obs["split"]) == list(reference.obs["split"])
    for m, adata in mdata.mod.items():
        assert list(adata.obs_names) == list(reference[m].obs_names)
        assert list(adata.var_names) == list(reference[m].var_names)
        np.testing.assert_array_equal(adata.X, reference[m].X)
    assert mdata.var_names.is_unique
    assert mdata.uns["provenance"]["source"] == json.loads(reference.uns["provenance"])["source"]
    assert set(mdata.obs["split"][~mdata.obsm["rppa"].ravel()]) == {"test"}


@pytest.mark.realdata
def test_survives_a_file(original: Path, tmp_path: Path) -> None:
    mdata = breast_tcga(original.parent)
    mdata.write_h5mu(tmp_path / "breast.h5mu")
    read = mudata.read_h5mu(tmp_path / "breast.h5mu")
    for column in ("subtype", "split"):
        assert list(read.obs[column].astype(str)) == list(mdata.obs[column].astype(str))
    assert read.uns["provenance"] == mdata.uns["provenance"]
    assert "GPL" in read.uns["provenance"]["licence"]
    assert {m: read[m].uns["units"] for m in read.mod} == {m: mdata[m].uns["units"] for m in mdata.mod}


@pytest.mark.realdata
def test_is_downloaded_once_and_then_read_from_the_cache(original: Path, serve, cache: Path) -> None:
    requests = serve(original.read_bytes())
    first, second = breast_tcga(), breast_tcga()
    assert requests == [f"/{NAME}"]
    assert (cache / NAME).is_file()
    np.testing.assert_array_equal(first["rppa"].X, second["rppa"].X)


@pytest.mark.realdata
def test_the_folder_of_the_environment_comes_before_the_cache(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(original, tmp_path / NAME)
    monkeypatch.setenv("OMICVAE_DATA", str(tmp_path))
    assert breast_tcga().n_obs == 220
