"""Whatever a MuData holds, it trains and imputes with finite numbers, or is refused at setup in a sentence."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scvi
from hypothesis import event, given, note, settings
from hypothesis import strategies as st
from mudata import MuData
from scipy import sparse

import omicvae
from omicvae.model._base import MultimodalModel

PACKAGE = str(Path(omicvae.__file__).parent)
SMALL: dict[str, Any] = {"network": {"n_hidden": 8, "n_layers": 1}}
BUILD: Mapping[str, tuple[type[MultimodalModel], dict[str, Any]]] = {
    "covae": (omicvae.model.CoVAE, {"n_latent": 2}),
    "network": (omicvae.model.CoVAE, {"n_latent": 2, "backbone": "network"}),
    "mmvaepp": (omicvae.model.MMVAEPlusPlus, {"n_shared": 2, "n_private": 1}),
    "mvae": (omicvae.model.MVAE, {"n_latent": 2}),
}
CURE = re.compile(
    r"\b(add|build|call|check|choose|convert|drop|give|leave|lower|name|needed|pass|replace|rescale|take|use|wrap|write)",
    re.IGNORECASE,
)


def check_refusal(error: Exception, case: Any) -> None:
    """Raised on purpose, by this package; one short paragraph that says where and what to do."""
    innermost = traceback.extract_tb(error.__traceback__)[-1].filename
    assert innermost.startswith(PACKAGE), f"raised in {innermost}"
    message = str(error)
    assert message.isprintable() and len(message) < 900, repr(message)
    assert CURE.search(message), f"no cure: {message}"
    named = any(repr(m) in message for m in case.mdata.mod)
    of_the_whole = re.search(r"MuData|mdata\.obs|modalities|covariate|_key", message)
    assert named or of_the_whole, f"names no modality: {message}"


def table(mdata: MuData, modality: str) -> dict[str, np.ndarray]:
    """Sample -> its values, read with nothing but AnnData."""
    stored = mdata[modality].X[:]
    dense = stored.toarray() if sparse.issparse(stored) else np.asarray(stored)
    return dict(zip(mdata[modality].obs_names, dense.astype(np.float32), strict=True))


def check_pairing(model: MultimodalModel, mdata: MuData) -> None:
    """The batch of all samples holds each sample's own values."""
    cohort = model._own_cohort()
    batch = cohort.batch(np.arange(len(cohort)))
    for modality in model.modalities:
        own = table(mdata, modality)
        names = [str(cohort.obs_names[i]) for i in batch.rows[modality].tolist()]
        assert sorted(names) == sorted(own)
        expected = np.stack([own[name] for name in names])
        np.testing.assert_array_equal(batch.x[modality].numpy(), expected)


def permuted(mdata: MuData, seed: int) -> MuData:
    """The same measurements in another order of samples, features and modalities."""
    rng = np.random.default_rng(seed)
    mods = {}
    for m in reversed(list(mdata.mod)):
        adata = mdata[m].to_memory() if mdata[m].isbacked else mdata[m]
        mods[m] = adata[rng.permutation(adata.n_obs)][:, rng.permutation(adata.n_vars)].copy()
    other = MuData(mods)
    other = other[rng.permutation(other.n_obs)].copy()
    other.obs = mdata.obs.loc[other.obs_names].copy()
    return other


def check_imputations(model: MultimodalModel, mdata: MuData) -> None:
    """Finite, and the same for every sample when its rows lie elsewhere."""
    other = permuted(mdata, seed=1)
    names = [name for name in mdata.obs_names if name in other.obs_names]  # a sample may be left without any assay
    for modality in model.modalities:
        found = []
        for source in (mdata, other):
            scvi.settings.seed = 7
            found.append(model.impute(modality, mdata=source, indices=names, n_draws=20))
        one, two = found
        for what, values in {"mean": one.X, **one.layers}.items():
            if what is not None:
                assert np.isfinite(values).all(), f"{what} of {modality!r} is not finite"
        assert list(one.obs_names) == list(two.obs_names) == names
        assert list(one.var_names) == list(two.var_names)
        scale = np.abs(one.X) + one.layers["sd"] + 1e-6
        np.testing.assert_allclose(two.X / scale, one.X / scale, atol=2e-3, err_msg=f"mean of {modality!r}")
        np.testing.assert_allclose(two.layers["sd"] / scale, one.layers["sd"] / scale, atol=2e-3)
        assert list(one.obs["source"]) == list(two.obs["source"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("backed")


@settings(settings.get_profile("fuzz"))
@given(data=st.data())
def test_trains_and_imputes_or_is_refused(data: Any, cases: Callable, files: Path) -> None:
    classes = {cls for cls, _ in BUILD.values()}
    stores = [s for cls in classes for s in (cls._setup_adata_manager_store, cls._per_instance_manager_store)]
    held = [(store, set(store)) for store in stores]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            case = data.draw(cases(files))
            note(repr(case))
            check(case)
        finally:
            for store, known in held:  # scvi-tools would keep every case
                for key in set(store) - known:
                    del store[key]
            for file in files.iterdir():
                file.unlink()


def check(case: Any) -> None:
    cls, arguments = BUILD[case.model]
    scvi.settings.seed = 0
    try:
        cls.setup_mudata(case.mdata, **case.setup)
        model = cls(case.mdata, **SMALL, **arguments)  # type: ignore[call-arg]
    except (TypeError, ValueError) as error:
        check_refusal(error, case)
        event("refused")
        return
    check_pairing(model, case.mdata)
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    for metric, values in model.history.items():
        assert np.isfinite(values.to_numpy(dtype=float)).all(), metric
    check_imputations(model, case.mdata)
    event(f"imputed by {case.model}")
