"""Which directions of an assay do the other assays know anything about?

A screen of features (:mod:`omicvae.stats.screening`) parts shared from private variation where features have one or the
other. Where every feature mixes both, directions can still have one alone. They are found as in canonical correlation
analysis, but by what predictions achieve on samples left out, and nonlinear on the side of the source: an assay's leading
principal components are whitened and predicted from another assay by kernel ridge regression; the eigenvectors of the
covariance between predictions and truth are the directions, ordered by how well they are predicted. The source is then
read along its own directions only and the round repeated, as in the alternating conditional expectations of Breiman and
Friedman, *Estimating optimal transformations for multiple regression and correlation*, JASA 80 (1985).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics.pairwise import euclidean_distances

from omicvae.stats.baselines._ridge import RidgeFit, Spectrum, of_inner_products
from omicvae.stats.components import Array, Block, Float32, covariate_effects, principal_components, residual
from omicvae.stats.kernels import MixedKernel
from omicvae.stats.screening import LEAST_ROWS, Screen

PENALTIES = np.logspace(-3, 4, 15)
"""In units of the mean eigenvalue of the source's kernel."""
MOST_ROWS = 1000
"""Samples of two assays that directions are sought in."""
EXPLAINED = 0.99
"""Share of an assay's variance that whitened components hold together. What is shared can lie across all that rise above the
noise; the rest, once whitened, would be noise alone."""
LEAST_COMPONENTS, MOST_COMPONENTS, SAMPLES_A_COMPONENT = 60, 128, 6
"""They are at most one for every few samples, but may be as many as the first; never more than the second."""
MOST_DIRECTIONS = 32
ROUNDS = 3
LEAST_SCORE = 0.03
N_PERMUTATIONS = 10
BETTER = 2.0
"""Standard errors by which directions have to predict new samples better than features do, to be preferred."""

Rows = NDArray[np.intp]
Pairs = Mapping[tuple[int, int], tuple[Rows, Rows]]
"""(source, target) -> positions, in each of the two blocks, of the samples they have in common."""


class Directions(NamedTuple):
    """Directions of an assay that other assays predict."""

    into: Float32
    """(p, k) from standardised features to coordinates of variance 1."""
    back: Float32
    """(k, p) from coordinates to features."""
    score: Array
    """(k,) R2 of each on samples left out, best first."""
    features: Array
    """(p,) that of each feature, predicted along directions of the source that predicts it best."""


class _Assay(NamedTuple):
    """An assay while directions are sought."""

    values: Float32
    """(n, p) around what covariates explain; 0 where not measured."""
    new: Float32
    """(n', p) of new samples."""
    loadings: Array
    """(p, r)"""
    scale: Array
    """(r,)"""


class _Reading(NamedTuple):
    """What is read of an assay's samples, and of its new ones: ``(n, d)`` and ``(n', d)``."""

    values: NDArray[np.floating]
    new: NDArray[np.floating]


def shared_directions(
    blocks: Sequence[Block],
    new: Sequence[Block],
    screens: Sequence[Screen],
    can_turn: Sequence[bool],
    *,
    seed: int = 0,
) -> list[Directions | None]:
    """Directions of assays that others predict, where they predict new samples better than screened features do.

    Parameters
    ----------
    blocks
        Training samples of every assay.
    new
        Other samples, which decide between directions and features.
    screens
        Of the features of each assay.
    can_turn
        Whether sums of an assay's features mean anything; others are read by features.
    seed
        Of permutations and the choice of at most :data:`MOST_ROWS` samples of a pair.

    Returns
    -------
    For each assay its directions, or ``None`` where features are to be read: in all assays, unless directions predict
    whitened components of new samples better by :data:`BETTER` standard errors, and their features no worse. (Where
    little of an assay is shared, hardly anything of its features' variance depends on what is read.)
    """
    nothing: list[Directions | None] = [None] * len(blocks)
    rng = np.random.default_rng(seed)
    pairs = _pairs([b.rows for b in blocks], rng, LEAST_ROWS, MOST_ROWS)
    if not pairs or not any(can_turn):
        return nothing
    assays = [_assay(block, other) for block, other in zip(blocks, new, strict=True)]
    by_feature = [_gated(a, s) for a, s in zip(assays, screens, strict=True)]
    readings, found = [_Reading(a.values, a.new) for a in assays], nothing
    for turn in range(ROUNDS):
        inputs = {pair: readings[pair[0]].values[at] for pair, (at, _) in pairs.items()}
        spectra = {
            pair: _spectrum(x, _gaussian(x) if turn else MixedKernel(nonlinear=0.0)) for pair, x in inputs.items()
        }
        found = [
            _directions(assays, spectra, pairs, m, rng, honest=turn == 0) if can_turn[m] else None
            for m in range(len(blocks))
        ]
        if all(d is None for d in found):
            return nothing
        readings = [_along(a, d, f) for a, d, f in zip(assays, found, by_feature, strict=True)]
    new_pairs = _pairs([b.rows for b in new], rng, 1, MOST_ROWS)
    errors = [_errors(assays, r, pairs, new_pairs) for r in (readings, by_feature)]
    gain = errors[1].codes - errors[0].codes
    clear = len(gain) > 1 and gain.mean() > BETTER * gain.std(ddof=1) / np.sqrt(len(gain))
    if not clear or errors[0].features.sum() > errors[1].features.sum():
        return nothing
    return [None if d is None else d._replace(features=r) for d, r in zip(found, errors[0].r2, strict=True)]


def _pairs(rows: Sequence[Rows], rng: np.random.Generator, least: int, most: int) -> Pairs:
    found = {}
    for s, t in permutations(range(len(rows)), 2):
        common = np.intersect1d(rows[s], rows[t])
        if len(common) < least:
            continue
        if len(common) > most:
            common = np.sort(rng.choice(common, most, replace=False))
        found[s, t] = np.searchsorted(rows[s], common), np.searchsorted(rows[t], common)
    return found


def _assay(block: Block, new: Block) -> _Assay:
    everything = np.arange(len(block.rows))
    effects = covariate_effects(block, everything)
    basis = principal_components(block, everything)
    values, others = (residual(b.values, b.observed, b.design, effects) for b in (block, new))
    variance = np.cumsum(basis.scale**2)
    enough = int(np.searchsorted(variance, EXPLAINED * variance[-1])) + 1 if len(variance) else 0
    most = min(enough, int(np.clip(len(everything) // SAMPLES_A_COMPONENT, LEAST_COMPONENTS, MOST_COMPONENTS)))
    return _Assay(values, others, basis.loadings[:, :most], basis.scale[:most])


def _gated(assay: _Assay, screen: Screen) -> _Reading:
    """Features that passed, weighted by how well they are predicted; all if none did."""
    if not screen.passed.any():
        return _Reading(assay.values, assay.new)
    return _Reading(*((v * screen.gate)[:, screen.passed] for v in (assay.values, assay.new)))


def _along(assay: _Assay, directions: Directions | None, otherwise: _Reading) -> _Reading:
    if directions is None:
        return otherwise
    weighted = directions.into * np.sqrt(directions.score).astype(np.float32)
    return _Reading(assay.values @ weighted, assay.new @ weighted)


def _gaussian(inputs: NDArray[np.floating]) -> MixedKernel:
    """As wide as the median distance between inputs ``(n, d)``."""
    squares = euclidean_distances(inputs.astype(np.float64), squared=True)
    return MixedKernel(nonlinear=1.0, gamma=max(inputs.shape[1], 1) / (2 * max(float(np.median(squares)), 1e-12)))


def _spectrum(inputs: NDArray[np.floating], kernel: MixedKernel) -> Spectrum:
    return of_inner_products(kernel(inputs, inputs))


def _directions(
    assays: Sequence[_Assay],
    spectra: Mapping[tuple[int, int], Spectrum],
    pairs: Pairs,
    target: int,
    rng: np.random.Generator,
    *,
    honest: bool,
) -> Directions | None:
    """Directions of an assay, from all sources.

    Only where the sources' readings have not seen the target (``honest``) do permutations say how well directions of
    unrelated assays seem to be predicted.
    """
    assay, parts = assays[target], []
    for (s, t), (_, at) in pairs.items():
        if t != target or not len(assay.scale):
            continue
        codes = assay.values[at] @ assay.loadings / assay.scale
        codes = codes - codes.mean(0)
        penalty = PENALTIES[spectra[s, t].errors(codes, PENALTIES).sum(1).argmin()]
        vectors, scores = _predicted(spectra[s, t], codes, penalty)
        least = LEAST_SCORE
        for _ in range(N_PERMUTATIONS if honest else 0):
            least = max(least, float(_predicted(spectra[s, t], rng.permutation(codes), penalty)[1].max()))
        kept = scores > least
        parts.append(vectors[:, kept] * np.sqrt(scores[kept]))
    joined = np.concatenate(parts, 1) if parts else np.zeros((0, 0))
    if joined.size == 0:
        return None
    u, singular, _ = np.linalg.svd(joined, full_matrices=False)  # sources may predict the same directions
    score = np.minimum(singular**2, 1.0)
    kept = np.arange(len(score)) < np.minimum((score > LEAST_SCORE).sum(), MOST_DIRECTIONS)
    into, back = (assay.loadings / assay.scale) @ u[:, kept], u[:, kept].T @ (assay.loadings * assay.scale).T
    return Directions(into.astype(np.float32), back.astype(np.float32), score[kept], np.zeros(0))


def _predicted(spectrum: Spectrum, codes: Array, penalty: float) -> tuple[Array, Array]:
    """Directions ``(r, r)`` of ``codes`` ``(n, r)``, and their R2 on samples left out."""
    prediction = codes - spectrum.solve(codes, np.full(codes.shape[1], penalty)).residual
    covariance = prediction.T @ codes
    vectors = np.linalg.eigh(covariance + covariance.T)[1][:, ::-1]
    truth = codes @ vectors
    return vectors, 1 - ((truth - prediction @ vectors) ** 2).sum(0) / (truth**2).sum(0)


class _Errors(NamedTuple):
    """Sums of squared errors ``(m,)`` of new samples; a sample occurs once for each pair of assays."""

    codes: Array
    features: Array
    r2: list[Array]
    """for each assay, (p,) of its features, on training samples left out."""


def _errors(assays: Sequence[_Assay], readings: Sequence[_Reading], pairs: Pairs, new_pairs: Pairs) -> _Errors:
    none = np.zeros(0, np.intp)
    codes, features, r2 = [np.zeros(0)], [np.zeros(0)], [np.full(a.values.shape[1], -np.inf) for a in assays]
    for (source, target), (from_source, from_target) in pairs.items():
        new_source, new_target = new_pairs.get((source, target), (none, none))
        inputs, assay = readings[source].values[from_source], assays[target]
        kernel = _gaussian(inputs)
        spectrum = _spectrum(inputs, kernel)
        across = kernel(readings[source].new[new_source], inputs) - spectrum.inner_mean
        y, truth = assay.values[from_target].astype(np.float64), assay.new[new_target]
        fit = _solved(spectrum, y)
        features.append(((truth - fit.centre - across @ fit.dual) ** 2).sum(1))
        r2[target] = np.maximum(r2[target], 1 - (fit.residual**2).sum(0) / np.maximum((y**2).sum(0), 1e-6 * len(y)))
        whiten = assay.loadings / assay.scale
        fit = _solved(spectrum, y @ whiten)
        codes.append(((truth @ whiten - fit.centre - across @ fit.dual) ** 2).sum(1))
    return _Errors(np.concatenate(codes), np.concatenate(features), r2)


def _solved(spectrum: Spectrum, y: Array) -> RidgeFit:
    """With the penalty that is best for samples left out."""
    penalty = PENALTIES[spectrum.errors(y, PENALTIES).sum(1).argmin()]
    return spectrum.solve(y, np.full(y.shape[1], penalty))
