"""A closed-form predictor read from a cohort, and its predictions as distributions of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from omicvae.data import Batch, Cohort
from omicvae.model._representative import representative
from omicvae.module import MultimodalModule
from omicvae.module._prediction import Unknowns
from omicvae.nn import Response
from omicvae.nn.likelihoods import Observed
from omicvae.stats.components import Block
from omicvae.stats.patterns import CrossFit, Key, default_patterns

Float32 = NDArray[np.float32]

CHUNK = 2048  # samples read at a time
ENOUGH = 200
MOST = 15.0  # training standard deviations that a value may be from its mean
REMEMBERED = 2**27  # values of cross-fitted predictions that are kept instead of made again


class Predictor(Protocol):
    """Closed-form prediction of standardised assays from any set of others."""

    def prepare(self, blocks: Sequence[Block], present: NDArray[np.bool_]) -> None:
        """Take training samples in."""

    def supported(self, key: Key) -> bool:
        """Whether a pattern can be fitted."""

    def fit_pattern(self, key: Key) -> CrossFit:
        """Fit a pattern, and predict its training samples by fits without them."""

    def cross_fit(self, key: Key) -> CrossFit:
        """The predictions of :meth:`fit_pattern` once more."""

    def covering(self, sources: Sequence[int], target: int) -> list[Key]:
        """Fitted patterns whose predictions are averaged for these sources, best first."""

    def precision(self, key: Key) -> NDArray[np.float64]:
        """``(p,)`` weight of a pattern's prediction in such an average."""

    def signal(self, key: Key, values: Sequence[Float32], designs: Sequence[Float32]) -> Float32:
        """Prediction of new samples around what covariates explain; values are NaN where not measured."""

    def fixed(self, target: int, design: NDArray[np.floating]) -> Float32:
        """What covariates explain."""

    def adopt(self, other: Any) -> None:
        """Take over the fitted patterns of a predictor of the same samples."""

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays from which :meth:`restore` makes predictions of new samples."""

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Read what :meth:`state` gave."""


class Crossed(NamedTuple):
    """Predictions of training samples by fits without them."""

    positions: NDArray[np.intp]
    """(n,) in the cohort."""
    folds: NDArray[np.intp]
    """(n,)"""
    prediction: Tensor
    """(n, p) on the encoders' scale."""
    sources: tuple[int, ...]
    """Of the leading pattern, whose response is used."""


class Target(NamedTuple):
    """What was measured of an assay."""

    observed: Observed
    size_score: Tensor | None
    """(n,) where library sizes lie in their prior; ``None`` without library sizes."""
    source_sizes: Tensor
    """(n, k) the same of the sources that have library sizes."""


class ClosedForm:
    """Imputation of a model's assays without gradients.

    Parameters
    ----------
    module
        Holds likelihoods and covariate designs, fitted.
    predictor
        What predicts standardised values.
    constant_scale
        Whether residuals of a feature have the same scale in every sample.
    """

    def __init__(self, module: MultimodalModule, predictor: Predictor, *, constant_scale: bool = False) -> None:
        self.module, self.predictor, self.constant_scale = module, predictor, constant_scale
        self.responses: dict[Key, Response] = {}
        self._fits: dict[Key, CrossFit] = {}

    # ------------------------------------------------------------------ fit

    @torch.no_grad()
    def fit(self, cohort: Cohort, positions: NDArray[np.intp]) -> None:
        """Fit every supported pattern on the samples at ``positions``, or on those that stand for them."""
        self.attach(cohort, positions)
        self.responses = {}
        for key in default_patterns(cohort.present[self.positions]):
            if self.predictor.supported(key):
                fit = self.predictor.fit_pattern(key)
                self._keep(key, fit)
                self._respond(key, self._positioned(fit, key[0]))

    def attach(self, cohort: Cohort, positions: NDArray[np.intp]) -> None:
        """Take training samples in without fitting, so that cross-fits can be made again."""
        positions = representative(cohort, positions)
        self.positions, self.cohort = positions, cohort
        self._fits = {}
        self.predictor.prepare(read_blocks(self.module, cohort, positions), cohort.present[positions])

    def _keep(self, key: Key, fit: CrossFit) -> None:
        if sum(f.prediction.size for f in self._fits.values()) + fit.prediction.size <= REMEMBERED:
            self._fits[key] = fit

    def _cross_fit(self, key: Key) -> CrossFit:
        if key not in self._fits:
            fit = self.predictor.cross_fit(key)
            self._keep(key, fit)
            return fit
        return self._fits[key]

    def _respond(self, key: Key, crossed: Crossed) -> None:
        target = read_target(self.module, self.cohort, crossed.positions, key[1], crossed.sources)
        self.responses[key] = self._new_response(key[1]).fit(crossed.prediction, *target)

    def _new_response(self, target: int) -> Response:
        likelihood = self.module.likelihoods.of(self.module.modalities[target])
        return Response(likelihood, constant_scale=self.constant_scale).to(self.module.device)

    def _positioned(self, fit: CrossFit, sources: tuple[int, ...]) -> Crossed:
        prediction = torch.from_numpy(fit.prediction).to(self.module.device)
        return Crossed(self.positions[fit.rows], fit.folds, prediction, sources)

    # ------------------------------------------------------------------ held-out predictions

    @torch.no_grad()
    def crossed(self, sources: tuple[int, ...], target: int) -> Crossed | None:
        """Cross-fitted predictions of the training samples that have sources and target, averaged over patterns."""
        keys = self.predictor.covering(sources, target)
        if not keys:
            return None
        fits = [self._cross_fit(key) for key in keys]
        rows = fits[0].rows
        for fit in fits[1:]:
            rows = np.intersect1d(rows, fit.rows)
        at = [np.searchsorted(fit.rows, rows) for fit in fits]
        prediction = self._average(keys, [fit.prediction[i] for fit, i in zip(fits, at, strict=True)])
        return self._positioned(CrossFit(rows, fits[0].folds[at[0]], prediction), keys[0][0])

    def _average(self, keys: list[Key], predictions: list[Float32]) -> Float32:
        """Predictions weighted by precision, feature by feature."""
        if len(keys) == 1:
            return predictions[0]
        weights = [self.predictor.precision(key) for key in keys]
        total = sum(w * p for w, p in zip(weights, predictions, strict=True))
        return np.asarray(total / sum(weights), dtype=np.float32)

    def crossed_responses(self, crossed: Crossed, target: int) -> Iterator[tuple[NDArray[np.bool_], Response]]:
        """For each fold: its members among ``crossed``, and the response fitted on the other folds.

        A response has two or three numbers a feature: from :data:`ENOUGH` samples on one fit serves all folds.
        """
        read = read_target(self.module, self.cohort, crossed.positions, target, crossed.sources)
        if len(crossed.positions) >= ENOUGH:
            response = self._new_response(target).fit(crossed.prediction, *read)
            yield np.ones(len(crossed.positions), bool), response
            return
        for fold in np.unique(crossed.folds):
            here = crossed.folds == fold
            rest = torch.from_numpy(~here)
            if not bool(rest.any()):
                continue
            scores = None if read.size_score is None else read.size_score[rest]
            others = read.observed.take(rest), scores, read.source_sizes[rest]
            yield here, self._new_response(target).fit(crossed.prediction[rest], *others)

    # ------------------------------------------------------------------ predict

    @torch.no_grad()
    def distribution(
        self, batch: Batch, sources: tuple[int, ...], target: int, unknowns: Unknowns, n_draws: int
    ) -> tuple[Distribution, Unknowns] | None:
        """Predictive distribution of samples that all have the ``sources``; ``None`` where no fit covers them.

        With the unknowns it rests on: library sizes that were drawn from the prior are told from the prediction.
        """
        keys = self.predictor.covering(sources, target)
        if not keys:
            return None
        signal = torch.from_numpy(self._average(keys, [self._signal(batch, key) for key in keys]))
        location = self._fixed(target, unknowns, batch.n_samples) + signal
        sizes = source_sizes(self.module, batch, keys[0][0])
        return respond(self._response(keys[0]), location, unknowns, n_draws, sizes)

    def _response(self, key: Key) -> Response:
        return self.responses[key].to(self.module.device)

    def _signal(self, batch: Batch, key: Key) -> Float32:
        values, designs = [], []
        for a in key[0]:
            name = self.module.modalities[a]
            values.append(_inputs(self.module, batch, name, missing=np.nan))
            designs.append(_design(self.module, batch, name))
        return self.predictor.signal(key, values, designs)

    def _fixed(self, target: int, unknowns: Unknowns, n: int) -> Tensor:
        """``(K or 1, B, p)``; one draw is enough where all covariates are known."""
        design = np.zeros((1, n, 0), np.float32) if unknowns.design is None else _array(unknowns.design)
        if len(design) > 1 and bool((design == design[:1]).all()):
            design = design[:1]
        return torch.from_numpy(self.predictor.fixed(target, design))

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays that :meth:`restore` reads."""
        arrays = {f"predictor/{k}": v for k, v in self.predictor.state().items()}
        for (sources, target), response in self.responses.items():
            stem = f"response/{'-'.join(map(str, sources))}/{target}"
            arrays |= {f"{stem}/{k}": v.numpy() for k, v in response.state_dict().items()}
        return arrays

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Read what :meth:`state` gave."""
        self.predictor.restore(_under("predictor/", arrays))
        for name in {k.rsplit("/", 1)[0] for k in arrays if k.startswith("response/")}:
            _, sources, target = name.split("/")
            key = tuple(int(s) for s in sources.split("-")), int(target)
            stored = {k: torch.from_numpy(v) for k, v in _under(f"{name}/", arrays).items()}
            self.responses[key] = self._new_response(key[1]).restore(stored)


def read_blocks(module: MultimodalModule, cohort: Cohort, positions: NDArray[np.intp]) -> list[Block]:
    """Every assay of the samples at ``positions`` as its encoder sees it."""
    parts: dict[str, list[tuple[Float32, NDArray[np.bool_], NDArray[np.intp], Float32]]] = {
        m: [] for m in module.modalities
    }
    for start in range(0, len(positions), CHUNK):
        batch = cohort.batch(positions[start : start + CHUNK]).to(module.device)
        for m in module.modalities:
            observed = module.observed(batch, m)
            likelihood = module.likelihoods.of(m)
            parts[m].append(
                (
                    _inputs(module, batch, m),
                    likelihood.measured(observed).cpu().numpy(),
                    batch.rows[m].cpu().numpy() + start,
                    _design(module, batch, m)[batch.rows[m].cpu().numpy()],
                )
            )
    blocks = []
    for m in module.modalities:
        values, measured, rows, design = (np.concatenate(part) for part in zip(*parts[m], strict=True))
        blocks.append(Block(values, None if measured.all() else measured, rows.astype(np.intp), design))
    return blocks


def read_target(
    module: MultimodalModule, cohort: Cohort, positions: NDArray[np.intp], target: int, sources: tuple[int, ...] = ()
) -> Target:
    """What was measured of one assay in samples that all have it, and all ``sources``."""
    name = module.modalities[target]
    values, scores, beside = [], [], []
    for start in range(0, max(len(positions), 1), CHUNK):
        batch = cohort.batch(positions[start : start + CHUNK]).to(module.device)
        values.append(module.observed(batch, name))
        beside.append(source_sizes(module, batch, sources))
        if module.likelihoods.of(name).uses_size:
            scores.append(_size_score(module, batch, name))
    x, size, coverage = ([getattr(v, field) for v in values] for field in Observed._fields)
    observed = Observed(
        torch.cat(x),
        None if size[0] is None else torch.cat(size),
        None if coverage[0] is None else torch.cat(coverage),
    )
    return Target(observed, torch.cat(scores) if scores else None, torch.cat(beside))


def source_sizes(module: MultimodalModule, batch: Batch, sources: tuple[int, ...]) -> Tensor:
    """``(B, k)`` where the library sizes of those sources that have any lie in their priors; all samples have them."""
    names = [module.modalities[s] for s in sources if module.likelihoods.of(module.modalities[s]).uses_size]
    columns = [_size_score(module, batch, name) for name in names]
    return torch.stack(columns, 1) if columns else torch.zeros(batch.n_samples, 0, device=module.device)


def _size_score(module: MultimodalModule, batch: Batch, name: str) -> Tensor:
    codes = module.batch_codes(batch, name)[batch.rows[name]]
    return module.size_priors.of(name).score(batch.size[name], codes)


def respond(
    response: Response, location: Tensor, unknowns: Unknowns, n_draws: int, sizes: Tensor
) -> tuple[Distribution, Unknowns]:
    """Distribution around predictions ``(K or 1, B, p)``, and the unknowns with library sizes that suit them.

    ``sizes`` are those of the sources (:func:`source_sizes`).
    """
    if unknowns.sizes is not None:
        size = response.conditioned(unknowns.sizes, location.to(unknowns.sizes.size), sizes)
        unknowns = unknowns._replace(sizes=unknowns.sizes._replace(size=size))
    return response(location, unknowns.size, n_draws), unknowns


def _inputs(module: MultimodalModule, batch: Batch, modality: str, *, missing: float = 0.0) -> Float32:
    """``(n_m, p)`` standardised values, with outliers moved in: one absurd value is not to rule a kernel."""
    likelihood, observed = module.likelihoods.of(modality), module.observed(batch, modality)
    values = likelihood.encode_transform(observed).clamp(-MOST, MOST)
    return _array(values if missing == 0 else torch.where(likelihood.measured(observed), values, missing))


def _design(module: MultimodalModule, batch: Batch, modality: str) -> Float32:
    design = module.design(batch, modality)
    return np.zeros((batch.n_samples, 0), np.float32) if design is None else _array(design)


def _array(values: Tensor) -> Float32:
    return np.asarray(values.detach().cpu().numpy(), dtype=np.float32)


def _under(prefix: str, arrays: dict[str, NDArray[np.generic]]) -> dict[str, NDArray[np.generic]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
