"""Options that change how fast training runs and must not change what it finds."""

from __future__ import annotations

import mudata
import numpy as np
import pytest
import scvi
import torch
from anndata import AnnData
from lightning.pytorch import LightningDataModule
from mudata import MuData
from scipy import sparse
from torch.utils._python_dispatch import TorchDispatchMode

import omicvae
from omicvae.data import Cohort, PatternSplitter
from omicvae.model._device_cache import device_cache
from omicvae.train import HistoryLogger, MosaicPlan

QUIET = {"enable_progress_bar": False}
READS_THE_DEVICE = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero")


def counts(n_obs: int = 120, seed: int = 0) -> MuData:
    """Sparse counts and 0/1 values with rows that lack an assay, in another order in each."""
    rng = np.random.default_rng(seed)
    blocks = {}
    for name, p, most in (("rna", 30, 20), ("atac", 40, 1)):
        X = sparse.random(n_obs, p, density=0.3, format="csr", dtype=np.float32, random_state=seed)
        X.data[:] = rng.integers(1, most + 1, X.nnz)
        kept = rng.permutation(n_obs)[: int(0.8 * n_obs)]
        blocks[name] = AnnData(X[kept])
        blocks[name].obs_names = [f"s{i}" for i in kept]
        blocks[name].var_names = [f"{name}{j}" for j in range(p)]
    return MuData(blocks)


def build(mdata: MuData, cls: type = omicvae.model.CoVAE, *, rna: str = "nb", **arguments):
    cls.setup_mudata(mdata, likelihoods={"rna": rna, "atac": "bernoulli"})
    scvi.settings.seed = 0
    arguments = arguments or ({"backbone": "network"} if cls is omicvae.model.CoVAE else {"screening": False})
    return cls(mdata, **arguments)


def losses(model, **train) -> np.ndarray:
    scvi.settings.seed = 0
    model.train(max_epochs=6, batch_size=32, calibration_size=0, **QUIET, **train)
    return np.stack([model.history[k].to_numpy(dtype=float)[:, 0] for k in ("train_loss", "validation_loss")])


def same_batches(a: omicvae.data.Batch, b: omicvae.data.Batch) -> None:
    for name in ("x", "rows", "size", "codes", "coverage"):
        mine, other = getattr(a, name), getattr(b, name)
        assert set(mine) == set(other)
        for key in mine:
            torch.testing.assert_close(mine[key], other[key], rtol=0, atol=0)
    torch.testing.assert_close(a.present, b.present)
    torch.testing.assert_close(a.labels, b.labels)


@pytest.mark.parametrize("rows", [[5, 3, 3, 99, 0], [], [7], range(100)])
def test_a_cohort_on_a_device_gives_the_batches_of_the_one_in_memory(rows):
    """Sparse values are gathered by other code there; a device of torch's CPU runs it too."""
    model = build(counts())
    cohort = model.adata_manager.cohort
    same_batches(cohort.to("cpu").batch(np.array(rows, dtype=int)), cohort.batch(np.array(rows, dtype=int)))


def test_a_cohort_on_a_device_keeps_the_order_of_registered_features():
    mdata = counts()
    model = build(mdata)
    shuffled = MuData({"rna": mdata["rna"][:, ::-1].copy(), "atac": mdata["atac"].copy()})
    cohort = Cohort(shuffled, model.schema)
    same_batches(cohort.to("cpu").batch([4, 90, 2]), model.adata_manager.cohort.batch(
        model.adata_manager.cohort.obs_names.get_indexer(cohort.obs_names[[4, 90, 2]])))  # fmt: skip


def test_training_from_a_resident_copy_repeats_training_exactly():
    plain = losses(build(counts()))
    model = build(counts())
    with model.adata_manager.resident("cpu"):
        resident = losses(model)
    np.testing.assert_array_equal(plain, resident)
    assert model.adata_manager._resident is None


def test_a_device_cache_that_cannot_be_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="device_cache must be"):
        build(counts()).train(max_epochs=1, device_cache="yes", **QUIET)
    mdata = omicvae.datasets.correlated_gaussian(40, modalities=("rna", "atac"), n_vars=5, seed=0).mdata
    mdata.write(tmp_path / "cohort.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cohort.h5mu", backed=True)
    omicvae.model.CoVAE.setup_mudata(backed, likelihoods={"rna": "normal", "atac": "normal"})
    model = omicvae.model.CoVAE(backed, backbone="network")
    assert model.adata_manager.cohort.n_bytes is None
    found = ("cuda", 1, torch.device("cuda:0"))
    monkeypatch.setattr("omicvae.model._device_cache.parse_device_args", lambda **_: found)
    splitter = PatternSplitter(model.adata_manager)
    with pytest.raises(ValueError, match="read from disk"):
        device_cache(splitter, True, "gpu", 1)
    with pytest.raises(ValueError, match="datamodule is given"):
        device_cache(LightningDataModule(), True, "gpu", 1)
    device_cache(splitter, "auto", "gpu", 1)  # a copy is left out without a word


@pytest.mark.parametrize("cls", [omicvae.model.CoVAE, omicvae.model.MMVAEPlusPlus])
def test_bfloat16_gives_the_loss_curve_of_float32(cls):
    """Networks keep 8 bits of their numbers, about .4 %; everything else, and so the loss, stays within a per cent."""
    full = losses(build(counts(), cls))
    mixed = losses(build(counts(), cls), precision="bf16-mixed")
    assert not np.array_equal(full, mixed), "mixed precision must have been used"
    np.testing.assert_allclose(mixed, full, rtol=0.01)


def test_compiled_networks_give_the_same_loss_curve():
    """The tracing of torch.compile without code generation: the graphs must be right for every number of rows."""
    network = {"n_hidden": 16, "dropout": 0.0}
    plain = losses(build(counts(), backbone="network", network=network))
    model = build(counts(), backbone="network", network=network)
    compiled = losses(model, plan_kwargs={"compile": True, "compile_kwargs": {"backend": "aot_eager"}})
    np.testing.assert_allclose(compiled, plain, rtol=1e-4)
    assert all(m._compiled_call_impl is None for m in model.module.modules())


@pytest.mark.slow
def test_generated_code_gives_the_same_loss_curve():
    network = {"n_hidden": 16, "dropout": 0.0}
    plain = losses(build(counts(), backbone="network", network=network))
    compiled = losses(build(counts(), backbone="network", network=network), plan_kwargs={"compile": True})
    np.testing.assert_allclose(compiled, plain, rtol=1e-3)


class Reads(TorchDispatchMode):
    """Names of operations whose result the host waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in READS_THE_DEVICE:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "cls, arguments",
    [
        (omicvae.model.CoVAE, {}),
        (omicvae.model.MMVAEPlusPlus, {}),
        (omicvae.model.MMVAEPlusPlus, {"screening": True}),
    ],
)
def test_a_step_reads_nothing_from_the_device(cls, arguments):
    """Neither values nor data-dependent shapes; CoVAE moves its prior every tenth step, which does.

    Not with ``"nb"``, which on the CPU, where this runs, looks how sparse its counts are.
    """
    model = build(counts(), cls, rna="poisson", **arguments)
    model.train(max_epochs=1, calibration_size=0, **QUIET)
    if arguments:
        model.module.set_gates({"rna": (torch.arange(30) > 5).float(), "atac": (torch.arange(40) > 5).float()})
    batch, module = model.adata_manager.cohort.batch(range(50)), model.module.train()
    optimizer = MosaicPlan(module, total_steps=10).configure_optimizers()["optimizer"]
    module.objective(batch, progress=0.1)  # keeps what lasts until the prior moves
    with Reads() as reads:
        module.objective(batch, progress=0.1).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 10.0)
        optimizer.step()
        module.after_step(7)
    assert reads.found == []


def test_history_logger_keeps_curves_by_epoch_and_others_by_step():
    logger = HistoryLogger()
    logger.log_metrics({"loss": torch.tensor(2.0), "epoch": 0}, step=10)
    logger.log_metrics({"loss": 1.5, "epoch": 1}, step=20)
    logger.log_metrics({"lr": 0.1}, step=7)
    assert logger.history["loss"].index.tolist() == [0, 1] and logger.history["loss"].index.name == "epoch"
    assert logger.history["loss"]["loss"].tolist() == [2.0, 1.5]
    assert logger.history["lr"].index.tolist() == [7] and logger.history["lr"].index.name == "step"
