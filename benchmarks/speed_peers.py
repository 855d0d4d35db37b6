"""Other programs on the same matrices, for benchmarks/speed.py."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import mudata
import numpy as np
import scvi
from lightning.pytorch import Callback, LightningModule, Trainer
from mudata import MuData
from scipy import sparse
from speed_floor import QUIET, clock

import omicvae

N_CELLS, N_PEAKS, BATCH = 1024, 5000, 128
WIDTH, LATENT = 128, 20
MULTIVI = {"MULTIVI": {}, "MULTIVI without its adversary": {"adversarial_mixing": False}}
MOFA_SCRIPT = """
import json, sys, time
import numpy as np
from mofapy2.run.entry_point import entry_point
held = np.load(sys.argv[1])
views, n_factors, sweeps = sorted(held.files), int(sys.argv[2]), int(sys.argv[3])
entry = entry_point()
entry.set_data_options(scale_views=False)
entry.set_data_matrix([[held[v]] for v in views], views_names=views)
entry.set_model_options(factors=n_factors, spikeslab_weights=False, ard_weights=True)
entry.set_train_options(iter=sweeps, startELBO=sweeps, freqELBO=sweeps, convergence_mode="slow", quiet=True, seed=0)
entry.build()
start, cpu = time.perf_counter(), time.process_time()
entry.run()
print(json.dumps([(time.perf_counter() - start) / sweeps, (time.process_time() - cpu) / sweeps]))
"""


class Clock(Callback):
    """Wall and processor seconds of every epoch."""

    def __init__(self) -> None:
        self.marks: list[np.ndarray] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch begins."""
        self.marks.append(clock())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last has ended."""
        self.marks.append(clock())

    @property
    def epochs(self) -> np.ndarray:
        """``(epochs, 2)`` seconds, without the first epoch."""
        return np.diff(np.stack(self.marks), axis=0)[1:]


def trained(model: object, epochs: int, **settings: object) -> np.ndarray:
    """``(epochs, 2)`` seconds of the epochs of a model with scvi-tools' ``train``."""
    timer = Clock()
    model.train(  # type: ignore[attr-defined]
        max_epochs=epochs + 1,
        batch_size=BATCH,
        train_size=1.0,
        early_stopping=False,
        callbacks=[timer],
        **QUIET,
        **settings,
    )
    return timer.epochs


def snare(data: Path) -> MuData:
    """Cells of SNARE-seq mouse cortex with all genes and the peaks open in most cells; complete, RNA first."""
    full = mudata.read_h5mu(data / "snareseq_mouse_cortex.h5mu")
    cells = np.sort(np.random.default_rng(0).choice(full.n_obs, N_CELLS, replace=False))
    rna, atac = full["rna"][full.obs_names[cells]].copy(), full["atac"][full.obs_names[cells]].copy()
    atac.X = (sparse.csr_matrix(atac.X) > 0).astype(np.float32)
    open_in = np.asarray(atac.X.sum(0)).ravel()
    atac = atac[:, np.sort(np.argsort(-open_in)[:N_PEAKS])].copy()
    return MuData({"rna": rna, "atac": atac})


def decodings(model: omicvae.model.CoVAE | omicvae.model.MMVAEPlusPlus) -> float:
    """How often a step decodes an assay, on average over assays and over training; MULTIVI does it once."""
    batch, module = model.adata_manager.cohort.batch(np.arange(BATCH)), model.module
    counts = [
        len(one.weights) / len(module.modalities)
        for progress in (0.25, 0.75)
        for one in module.passes(module.encode(batch), batch, progress)
    ]
    return sum(counts) / 2


def against_multivi(data: Path, epochs: int, rounds: int) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Epochs of MULTIVI, with and without adversarial mixing of modalities, CoVAE and MMVAE++ in turn: the same cells, batch, hidden layers, widths and latents. And how often ours decode an assay in a step."""
    mdata = snare(data)
    likelihoods = {"rna": "nb", "atac": "bernoulli"}
    network = omicvae.nn.NetworkConfig(n_hidden=WIDTH, n_layers=2, dropout=0.1)
    scvi.model.MULTIVI.setup_mudata(mdata, modalities={"rna_layer": "rna", "atac_layer": "atac"})
    models = {
        name: scvi.model.MULTIVI(mdata, n_hidden=WIDTH, n_latent=LATENT, gene_likelihood="nb") for name in MULTIVI
    }
    for cls, settings in (
        (omicvae.model.CoVAE, {"backbone": "network", "n_latent": LATENT // 2}),
        (omicvae.model.MMVAEPlusPlus, {"screening": False, "n_shared": LATENT // 2, "n_private": LATENT // 4}),
    ):
        cls.setup_mudata(mdata, likelihoods=likelihoods)
        models["CoVAE" if cls is omicvae.model.CoVAE else "MMVAE++"] = cls(mdata, network=network, **settings)
    found: dict[str, list[np.ndarray]] = {name: [] for name in models}
    for _ in range(rounds):
        for name, model in models.items():
            found[name].append(trained(model, epochs, **MULTIVI.get(name, {"calibration_size": 0})))
    counted = {name: decodings(model) for name, model in models.items() if name not in MULTIVI}
    return {name: np.concatenate(seconds) for name, seconds in found.items()}, counted


def brca(data: Path) -> MuData:
    """Four assays of breast cancers, of which samples lack some; logarithms of counts, all features standardised."""
    mdata = mudata.read_h5mu(data / "tcga_brca_4omics.h5mu")
    for name, adata in mdata.mod.items():
        X = adata.X.toarray() if sparse.issparse(adata.X) else np.asarray(adata.X)
        X = np.log1p(X) if name == "mirna" else X
        adata.X = ((X - X.mean(0)) / (X.std(0) + 1e-8)).astype(np.float32)
    return mdata


def against_mofa(data: Path, python: Path, epochs: int) -> dict[str, np.ndarray]:
    """A sweep of mofapy2, which sees all samples at once, and an epoch of CoVAE; the same matrices, 16 factors."""
    mdata = brca(data)
    views = {}
    for name, adata in mdata.mod.items():
        views[name] = np.full((mdata.n_obs, adata.n_vars), np.nan)
        views[name][mdata.obs_names.get_indexer(adata.obs_names)] = adata.X
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(mdata.mod, "normal"))
    model = omicvae.model.CoVAE(mdata, backbone="network", n_latent=16)
    own, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "views.npz", **views)
        for _ in range(3):
            own.append(trained(model, epochs, calibration_size=0))
            command = [str(python), "-c", MOFA_SCRIPT, str(Path(folder) / "views.npz"), "16", str(epochs)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            peer.append(np.array(json.loads(done.stdout.strip().splitlines()[-1])))
    return {"CoVAE": np.concatenate(own), "mofapy2": np.stack(peer)}
