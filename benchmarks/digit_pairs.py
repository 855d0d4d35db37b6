"""Pairs of digit images whose latents have a known correlation, for `correlated_mnist.py`."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import anndata
import numpy as np
import pandas as pd
import pyro.distributions as dist
import torch
from mudata import MuData
from pyro.distributions.transforms import affine_autoregressive
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier
from torch import Tensor, nn
from torch.nn import functional as F

NAMES = ("first", "second")
LATENT = 10  # of each modality
NOISE = 0.1  # sd of pixels around the decoded image, on the scale of 0 to 1
TRAINING_SD = 0.15  # the same while decoders are trained
LEAST_SD = 0.05  # pixels that vary less over decoded images are left out
REFERENCE = 4000
MOST_IMAGES = 20_000  # of those that decoders are trained on
BATCH, UPDATES, FLOW_UPDATES = 128, 3000, 2000
WARM_UP = 0.5  # share of the updates over which the divergence gets its weight, so that no latent is given up early


class Images(NamedTuple):
    """Real digits, to train decoders on."""

    name: str
    pixels: np.ndarray  # (n, side * side) float32, 0 to 1
    digits: np.ndarray  # (n,)
    side: int


class Pairs(NamedTuple):
    """Simulated pairs, training samples first."""

    mdata: MuData
    latents: dict[str, np.ndarray]  # (n, LATENT) before the flow, N(0, I)
    signals: dict[str, np.ndarray]  # (n, p) decoded images without noise, pixels of mdata alone
    pictures: dict[str, np.ndarray]  # (n, side * side) the same with all pixels


def read_idx(path: Path) -> np.ndarray:
    """Array of a gzipped or plain file in the idx format of MNIST."""
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    n_dims = content[3]
    shape = np.frombuffer(content, ">i4", n_dims, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def mnist_folder(given: Path | None) -> Path | None:
    """Where the idx files are: the folder that was named, else ``mnist`` in OMICVAE_DATA; ``None`` if there is neither."""
    if given is not None or "OMICVAE_DATA" not in os.environ:
        return given
    found = Path(os.environ["OMICVAE_DATA"]) / "mnist"
    return found if found.is_dir() else None


def images(folder: Path | None, full: bool) -> Images:
    """MNIST at 28 x 28, or averaged to 14 x 14; without MNIST, the 8 x 8 digits of scikit-learn."""
    if folder is None:
        digits = load_digits()
        return Images("scikit-learn digits 8 x 8", (digits.data / 16).astype(np.float32), digits.target, 8)
    files = {kind: next(iter(sorted(folder.glob(f"train-{kind}-idx*-ubyte*")))) for kind in ("images", "labels")}
    pixels = read_idx(files["images"])[:MOST_IMAGES].astype(np.float32) / 255
    if not full:
        pixels = pixels.reshape(-1, 14, 2, 14, 2).mean((2, 4))
    side = pixels.shape[1]
    return Images(
        f"MNIST {side} x {side}", pixels.reshape(len(pixels), -1), read_idx(files["labels"])[:MOST_IMAGES], side
    )


class DigitVAE(nn.Module):
    """A plain VAE of one image, whose decoder becomes the generator; with a flow if that is asked for.

    Pixels are normal around the decoded image with sd ``TRAINING_SD``, and the divergence comes in slowly, so that all latents
    are used. With a Bernoulli likelihood and without a warm-up half of them are not, and as which ones differs between the
    modalities, most of the correlation is lost.
    """

    def __init__(self, n_pixels: int, n_hidden: int, flow: bool) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(n_pixels, n_hidden), nn.SiLU(), nn.Linear(n_hidden, n_hidden), nn.SiLU(), nn.Linear(n_hidden, 20)
        )
        self.decoder = nn.Sequential(
            nn.Linear(LATENT, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_hidden),
            nn.SiLU(),
            nn.Linear(n_hidden, n_pixels),
        )
        steps = [affine_autoregressive(LATENT, hidden_dims=[64, 64]) for _ in range(3)] if flow else []
        self.flow = nn.ModuleList(steps)

    def posterior(self, x: Tensor) -> dist.Normal:
        """``q(z | x)``."""
        mean, raw = self.encoder(x).chunk(2, -1)
        return dist.Normal(mean, F.softplus(raw) + 1e-4)

    def loss(self, x: Tensor, kl_weight: float) -> Tensor:
        """Negative ELBO of a minibatch, up to a constant."""
        q = self.posterior(x)
        z = q.rsample()
        fit = 0.5 * ((torch.sigmoid(self.decoder(z)) - x) / TRAINING_SD).square().sum(-1)
        return (fit + kl_weight * (q.log_prob(z) - dist.Normal(0, 1).log_prob(z)).sum(-1)).mean()

    def flow_loss(self, x: Tensor, _: float) -> Tensor:
        """Negative log density of posterior draws under the masked autoregressive flow."""
        base = dist.Normal(torch.zeros(LATENT), 1).to_event(1)
        with torch.no_grad():
            z = self.posterior(x).sample()
        return -dist.TransformedDistribution(base, [step.inv for step in self.flow]).log_prob(z).mean()

    @torch.no_grad()
    def forward(self, z: np.ndarray) -> np.ndarray:
        """Images (n, p) of latents (n, LATENT), through the flow if there is one."""
        moved = torch.from_numpy(z.astype(np.float32))
        for step in self.flow:
            moved = step.inv(moved)
        return torch.sigmoid(self.decoder(moved)).numpy()


def train_decoder(data: Images, position: int, flow: bool, n_hidden: int, cache: Path) -> DigitVAE:
    """The VAE of a modality; two modalities differ by their seed. Kept in a file of tensors."""
    torch.manual_seed(position)
    network = DigitVAE(data.pixels.shape[1], n_hidden, flow)
    path = cache / f"{data.name.replace(' ', '_')}_{position}{'_flow' if flow else ''}.pt"
    if path.exists():
        network.load_state_dict(torch.load(path, weights_only=True))
        return network
    pixels = torch.from_numpy(data.pixels)
    descend(network, [*network.encoder.parameters(), *network.decoder.parameters()], pixels, network.loss, UPDATES)
    if flow:
        descend(network, [*network.flow.parameters()], pixels, network.flow_loss, FLOW_UPDATES)
    cache.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), path)
    return network


def descend(network: DigitVAE, parameters: list, pixels: Tensor, loss, n_updates: int) -> None:
    """AdamW with a learning rate that falls from 1e-3 to 0; the loss is told the weight of its divergence."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_updates)
    for step in range(n_updates):
        optimizer.zero_grad()
        loss(pixels[torch.randint(len(pixels), (BATCH,))], min(1.0, step / (WARM_UP * n_updates))).backward()
        optimizer.step()
        schedule.step()


def kept_pixels(decoders: list[DigitVAE]) -> dict[str, np.ndarray]:
    """Positions of the pixels that vary, by modality."""
    z = np.random.default_rng(0).standard_normal((REFERENCE, LATENT))
    return {m: np.flatnonzero(d(z).std(0) > LEAST_SD) for m, d in zip(NAMES, decoders, strict=True)}


def pairs(decoders: list[DigitVAE], rho: float, n_obs: int, seed: int) -> Pairs:
    """Draw latents by equation (5) of the paper, decode them and add noise."""
    rng = np.random.default_rng([seed, round(1000 * rho)])
    first, other = rng.standard_normal((2, n_obs, LATENT))
    latents = dict(zip(NAMES, (first, rho * first + np.sqrt(1 - rho**2) * other), strict=True))
    kept = kept_pixels(decoders)
    pictures = {m: d(latents[m]) for m, d in zip(NAMES, decoders, strict=True)}
    signals = {m: pictures[m][:, kept[m]] for m in NAMES}
    names = pd.Index([f"pair_{i:05d}" for i in range(n_obs)])
    parts = {}
    for m in NAMES:
        values = signals[m] + NOISE * rng.standard_normal(signals[m].shape)
        var = pd.DataFrame(index=[f"{m}_{k:03d}" for k in kept[m]])
        parts[m] = anndata.AnnData(values.astype(np.float32), obs=pd.DataFrame(index=names), var=var)
    return Pairs(MuData(parts), latents, signals, pictures)


def read_digits(data: Images) -> MLPClassifier:
    """A classifier of real images, by which decoded ones are read."""
    return MLPClassifier((128,), batch_size=256, max_iter=15, random_state=0).fit(data.pixels, data.digits)
