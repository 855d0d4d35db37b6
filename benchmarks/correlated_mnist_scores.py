"""What `correlated_mnist.py` measures of a trained model, and of the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from digit_pairs import LATENT, NAMES, DigitVAE, Pairs
from mudata import MuData
from scipy.linalg import sqrtm
from sklearn.decomposition import PCA

import omicvae
from omicvae.metrics import (
    conditional_log_likelihood,
    decoder_input_correlation,
    joint_log_likelihood,
    latent_sd,
    participation_ratio,
    prior_covariance,
)
from omicvae.nn.likelihoods import OWN
from omicvae.stats.canonical import canonical_correlations

if TYPE_CHECKING:
    from correlated_mnist import Size

IMAGE_DRAWS = 20  # of decoded images a pair
COMPONENTS = 15  # principal components a modality in which generated images are compared
SHOWN, SHOWN_DRAWS = 4, 3  # pairs and draws of the figure of images
TERMS = ("reconstruction", "prior", "posterior", "gap", "effective_draws")


def scores_of_model(model, test: MuData, drawn: Pairs, reader, size: Size, kept: Path | None) -> dict[str, float]:
    """Everything the figures of the paper show, and errors of decoded images; images are written to ``kept``."""
    found = correlations(model, test) | spreads(model, test) | likelihoods(model, test, size)
    signals = {m: drawn.signals[m][size.n_train :] for m in NAMES}
    pictures = {m: drawn.pictures[m][size.n_train :] for m in NAMES}
    found |= image_scores(model, test, signals, pictures, reader, kept)
    for source in ("prior", "mixture"):
        found[f"distance {source}"] = distance(signals, generated(model, len(test), source))
    return found


def correlations(model, test: MuData) -> dict[str, float]:
    """Figure 5, and what the prior holds."""
    joint = decoder_input_correlation(model, mdata=test).iloc[0]
    given = [decoder_input_correlation(model, given=[m], mdata=test)["correlation"].iloc[0] for m in NAMES]
    found = {"joint correlation": joint["correlation"], "conditional correlation": float(np.mean(given))}
    found["correlation by chance"] = joint["null"]
    if isinstance(model, omicvae.model.CoVAE):
        sigma = prior_covariance(model).to_numpy()
        cross = sigma[: model.module.sizes[0], model.module.sizes[0] :]
        found["prior correlation"] = float(np.linalg.svd(cross, compute_uv=False).mean())
        found["prior dimensions"] = participation_ratio(sigma)
    return found


def spreads(model, test: MuData) -> dict[str, float]:
    """Figure 6, and the variance of the aggregated posterior."""
    sd = latent_sd(model, mdata=test)
    aggregated = omicvae.tl.aggregated_posterior(model)
    return {
        "sd alone": sd["sd_alone"].mean(),
        "sd observed": sd["sd_observed"].mean(),
        "sd missing": sd["sd_missing"].mean(),
        "aggregated variance": aggregated["aggregated"].mean(),
        "active latents": float(aggregated["active"].sum()),
    }


def likelihoods(model, test: MuData, size: Size) -> dict[str, float]:
    """Figures 8, 14 and 15: nats a pair, the joint with its terms (means and sds over pairs)."""
    some = test[: size.scored].copy()
    joint = joint_log_likelihood(model, mdata=some, n_samples=size.draws)
    found = {"joint NLL": -joint["log_likelihood"].mean()}
    for term in TERMS:
        found[term] = joint[term].mean()
    for term in TERMS[:3]:
        found[f"{term} sd"] = joint[term].std()
    given = [conditional_log_likelihood(model, [m], mdata=some, n_samples=size.draws) for m in NAMES]
    return found | {"conditional NLL": -float(np.mean([g["log_likelihood"].mean() for g in given]))}


def image_scores(model, test: MuData, signals: dict, pictures: dict, reader, kept: Path | None) -> dict[str, float]:
    """Error, honesty of the spread, and digits of images decoded from a modality itself and from the other."""
    error: dict[str, list[float]] = {"own": [], "missing": []}
    ratio: dict[str, list[float]] = {"own": [], "missing": []}
    right: dict[str, list[float]] = {"own": [], "missing": []}
    shown = {}
    for target in NAMES:
        at = [int(name.rpartition("_")[2]) for name in test[target].var_names]
        digits = reader.predict(pictures[target])
        for kind, given in (("own", target), ("missing", next(n for n in NAMES if n != target))):
            draws = decoded(model, test, target, given)
            truth, spread = signals[target], draws.var(0, ddof=1)
            squared = ((draws.mean(0) - truth) ** 2).mean()
            error[kind].append(squared / truth.var(0).mean())
            ratio[kind].append(float(np.sqrt(spread.mean() * (1 + 1 / IMAGE_DRAWS) / squared)))
            filled = np.tile(pictures[target].mean(0), (len(truth), 1))
            filled[:, at] = draws[0]
            right[kind].append((reader.predict(filled) == digits).mean())
            shown[f"{kind} {target}"] = draws[:SHOWN_DRAWS, :SHOWN]
        shown[f"at {target}"], shown[f"true {target}"] = np.array(at), pictures[target][:SHOWN]
    if kept is not None:
        np.savez_compressed(kept, **shown)
    return {
        f"{name} {kind}": float(np.mean(values))
        for name, found in (("error", error), ("spread", ratio), ("digit", right))
        for kind, values in found.items()
    }


@torch.inference_mode()
def decoded(model, test: MuData, target: str, given: str) -> np.ndarray:
    """``(IMAGE_DRAWS, n, p)`` images of a modality without noise, from draws of the latents given one modality."""
    cohort, asked = model._cohort(test), model._given([given])
    parts = []
    for batch in model._batches(cohort, model._positions(cohort, None), None):
        posterior = model.module.posterior(model.module.encode(batch), batch, asked & batch.present)
        parts.append(means(model, target, posterior.sample(IMAGE_DRAWS), given == target))
    return np.concatenate(parts, 1)


@torch.inference_mode()
def generated(model, n_samples: int, source: str) -> dict[str, np.ndarray]:
    """Images without noise of both modalities, from latents of the prior or of a mixture fitted to training samples."""
    cohort, rng = model._own_cohort(), np.random.default_rng(0)
    train = np.asarray(model.train_indices, dtype=np.intp)
    mixture = model._aggregated_posterior(train, 10, rng) if source == "mixture" else None
    parts: dict[str, list[np.ndarray]] = {m: [] for m in NAMES}
    for batch in model._batches(cohort, rng.choice(train, n_samples), None):
        z = model._prior_draws(batch) if mixture is None else model._mixture_draws(mixture, batch)
        for m in NAMES:
            parts[m].append(means(model, m, z, True))
    return {m: np.concatenate(part) for m, part in parts.items()}


def means(model, target: str, z: torch.Tensor, own: bool) -> np.ndarray:
    """``(..., p)`` images that joint latents decode to, own or as a prediction from the other modality."""
    module, likelihood = model.module, model.module.likelihoods.of(target)
    if isinstance(model, omicvae.model.ProbabilisticCCA):
        return (likelihood.input_mean + likelihood.input_scale * module.standardised_mean(target, z, None)).numpy()
    route = torch.full(z.shape[:-1], OWN if own else module.predictive_route(False))
    eta = module.decode(target, module.decoder_inputs(z)[target], None, route)
    return likelihood(eta, noise=route, size=None, coverage=None).mean.numpy()


def distance(truth: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> float:
    """Frechet distance between pairs of images, in principal components of the true ones, as a share of their variance."""
    steps = {m: PCA(COMPONENTS, random_state=0).fit(truth[m]) for m in NAMES}
    a, b = (np.concatenate([steps[m].transform(part[m]) for m in NAMES], 1) for part in (truth, found))
    A, B = (np.cov(x, rowvar=False) for x in (a, b))
    root = sqrtm(A @ B).real
    return float((((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(A + B - 2 * root)) / np.trace(A))


def scores_of_truth(decoders: list[DigitVAE], drawn: Pairs, reader, size: Size, rho: float) -> dict[str, float]:
    """The same of the latents and decoders that drew the pairs; the distance of a fresh sample is chance."""
    z = {m: drawn.latents[m][size.n_train :] for m in NAMES}
    correlation = float(canonical_correlations(*(torch.tensor(z[m]) for m in NAMES)).mean())
    fresh, test = (
        {m: signal[part] for m, signal in drawn.signals.items()}
        for part in (slice(size.n_test), slice(size.n_train, None))
    )
    error, right = [], []
    rng = np.random.default_rng(0)
    for target, source, decoder in zip(NAMES, reversed(NAMES), decoders, strict=True):
        at = [int(name.rpartition("_")[2]) for name in drawn.mdata[target].var_names]
        noise = rng.standard_normal((IMAGE_DRAWS, *z[source].shape))
        pictures = np.stack([decoder(rho * z[source] + np.sqrt(1 - rho**2) * e) for e in noise])
        truth = drawn.pictures[target][size.n_train :]
        error.append(((pictures.mean(0) - truth)[:, at] ** 2).mean() / truth[:, at].var(0).mean())
        right.append((reader.predict(pictures[0]) == reader.predict(truth)).mean())
    return {
        "joint correlation": correlation,
        "conditional correlation": correlation,
        "sd missing": float(np.sqrt(1 - rho**2)),
        "error missing": float(np.mean(error)),
        "digit missing": float(np.mean(right)),
        "distance prior": distance(test, fresh),
        "prior dimensions": 2 * LATENT / (1 + rho**2),
    }
