"""Closed form of a model, and its mixture with the network."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.distributions import Distribution

from omicvae.data import Batch, Cohort
from omicvae.model._closed_form import ClosedForm, Crossed, read_target, respond, source_sizes
from omicvae.model._held_out import HELD, Part, on_encoder_scale
from omicvae.module import MultimodalModule
from omicvae.module._prediction import Unknowns, draw_unknowns, predictive_distribution
from omicvae.nn import FeatureMixture, Response
from omicvae.stats.conformal import LEAST_SCORES
from omicvae.stats.mixing import Terms, mixture_terms, mixture_weights
from omicvae.stats.stacked import StackedPredictor

MANY = 2000
"""Samples above which fewer folds do, and the kernel regression does without a factor model."""
FOLDS, FEWER_FOLDS = 5, 3
DRAWS = 50
MOST_SAMPLES = 500
"""Held-out samples that weights are chosen on."""

Pattern = tuple[tuple[int, ...], int]


class MomentBackbone:
    """Closed-form imputation, mixed with the network's where that is better on samples neither has seen.

    Parameters
    ----------
    module
        The network.
    mixes
        Whether the network takes part.
    least
        Held-out samples below which it does not: they choose its weights, and check intervals of the mixture.
    """

    def __init__(self, module: MultimodalModule, *, mixes: bool, least: int = LEAST_SCORES) -> None:
        self.module, self.mixes, self.least = module, mixes, least
        self.n_fitted = 0
        self.weights: dict[Pattern, NDArray[np.float64]] = {}
        self.together: frozenset[int] = frozenset()
        """Targets whose features the network predicts together, along directions: it predicts all of them, or none."""
        self._closed: ClosedForm | None = None
        self._crossing: ClosedForm | None = None
        self._calibration = np.zeros(0, dtype=np.intp)

    @property
    def closed(self) -> ClosedForm:
        """The fitted closed form."""
        if self._closed is None:
            raise RuntimeError("the closed form is not fitted")
        return self._closed

    @property
    def attached(self) -> bool:
        """Whether held-out predictions can be made: training samples are in memory."""
        return self._crossing is not None

    # ------------------------------------------------------------------ fit

    def fit(self, cohort: Cohort, positions: NDArray[np.intp], calibration: NDArray[np.intp]) -> None:
        """Fit the closed form on ``positions``, and the network's weights on ``calibration``, which it has not seen."""
        self.n_fitted, self._calibration = len(positions), calibration
        self._closed = self._crossing = ClosedForm(self.module, _predictor(len(positions)))
        self._closed.fit(cohort, positions)
        self.weights = {}
        if self.mixes and len(calibration) >= self.least:
            for key in self._closed.responses:
                found = self._fit_weights(cohort, key)
                if found is not None and found.any():
                    self.weights[key] = found

    def attach(self, cohort: Cohort, positions: NDArray[np.intp], calibration: NDArray[np.intp]) -> None:
        """Take the training samples of a saved model in, to make held-out predictions again."""
        self._crossing = ClosedForm(self.module, _predictor(len(positions)))
        self._crossing.attach(cohort, positions)
        self._crossing.predictor.adopt(self.closed.predictor)
        self._calibration = calibration

    def _fit_weights(self, cohort: Cohort, key: Pattern) -> NDArray[np.float64] | None:
        sources, target = key
        name = self.module.modalities[target]
        crossed = self.closed.crossed(sources, target)
        if crossed is None:
            return None
        rows = np.flatnonzero(np.isin(crossed.positions, self._calibration))
        if len(rows) < self.least:
            return None
        rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), MOST_SAMPLES)).astype(np.intp)]
        parts: list[Terms] = []
        with torch.random.fork_rng([]), torch.inference_mode():
            torch.manual_seed(0)
            for here, response in self.closed.crossed_responses(crossed, target):
                chosen = rows[here[rows]]
                size = max(1, HELD // (2 * DRAWS * self.module.schema[name].n_vars))
                for start in range(0, len(chosen), size):
                    parts.append(self._terms(cohort, crossed, chosen[start : start + size], response, key))
        terms = Terms(*(np.concatenate(t) for t in zip(*parts, strict=True)))
        return mixture_weights(terms, together=target in self.together)

    def _terms(
        self, cohort: Cohort, crossed: Crossed, rows: NDArray[np.intp], response: Response, key: Pattern
    ) -> Terms:
        """CRPS of the mixture for some held-out samples, on the encoders' scale and with their library size given."""
        sources, target = key
        name = self.module.modalities[target]
        likelihood = self.module.likelihoods.of(name)
        observed = read_target(self.module, cohort, crossed.positions[rows], target).observed
        batch = cohort.batch(crossed.positions[rows]).to(self.module.device)
        known = torch.ones(len(rows), dtype=torch.bool, device=self.module.device)
        unknowns = draw_unknowns(self.module, batch, name, known, DRAWS)
        closed = response(crossed.prediction[torch.from_numpy(rows)].unsqueeze(0), unknowns.size, DRAWS)
        network = self._network(batch, sources, target, unknowns, DRAWS)
        moved = [on_encoder_scale(likelihood, d.sample(), observed).cpu().numpy() for d in (closed, network)]
        truth = torch.where(likelihood.measured(observed), likelihood.encode_transform(observed), torch.nan)
        return mixture_terms(truth.cpu().numpy(), *moved)

    # ------------------------------------------------------------------ predict

    def distribution(
        self, batch: Batch, sources: tuple[int, ...], target: int, unknowns: Unknowns, n_draws: int
    ) -> Distribution | None:
        """Predictive distribution of samples that all have ``sources``; ``None`` where no closed form covers them."""
        closed = self.closed.distribution(batch, sources, target, unknowns, n_draws)
        return None if closed is None else self._mixed(closed[0], batch, sources, target, closed[1], n_draws)

    def _mixed(
        self,
        closed: Distribution,
        batch: Batch,
        sources: tuple[int, ...],
        target: int,
        unknowns: Unknowns,
        n_draws: int,
    ) -> Distribution:
        weights = self._weights(sources, target)
        if weights is None:
            return closed
        share = torch.from_numpy(weights).to(self.module.device, torch.float32)
        network = self._network(batch, sources, target, unknowns, n_draws)
        return FeatureMixture([closed, network], torch.stack([1 - share, share]))

    def _weights(self, sources: tuple[int, ...], target: int) -> NDArray[np.float64] | None:
        """Weights of the network, chosen on the pattern that the closed form uses for these sources."""
        keys = self.closed.predictor.covering(sources, target)
        return self.weights.get(keys[0]) if keys else None

    def _network(
        self, batch: Batch, sources: tuple[int, ...], target: int, unknowns: Unknowns, n_draws: int
    ) -> Distribution:
        given = torch.zeros(len(self.module.modalities), dtype=torch.bool, device=self.module.device)
        given[list(sources)] = True
        name = self.module.modalities[target]
        return predictive_distribution(self.module, batch, name, given, n_draws, unknowns=unknowns).distribution

    def network_share(self, sources: tuple[int, ...], target: int) -> float:
        """Mean weight of the network over features; 1 where no closed form covers the sources."""
        if not self.closed.predictor.covering(sources, target):
            return 1.0
        weights = self._weights(sources, target)
        return 0.0 if weights is None else float(weights.mean())

    # ------------------------------------------------------------------ held-out predictions

    def held_out_part(self, sources: tuple[int, ...], target: int, positions: NDArray[np.intp]) -> Part | None:
        """Those of ``positions`` that can be predicted by fits without them; ``None`` where no closed form can.

        All that were fitted on, or the calibration samples where the network takes part.
        """
        assert self._crossing is not None
        crossed = self._crossing.crossed(sources, target)
        if crossed is None:
            return None
        allowed = positions
        if self._weights(sources, target) is not None:
            allowed = np.intersect1d(positions, self._calibration)
        rows = np.flatnonzero(np.isin(crossed.positions, allowed))
        responses = [(here, response) for here, response in self._crossing.crossed_responses(crossed, target)]
        of_row = np.full(len(crossed.positions), -1)
        for i, (here, _) in enumerate(responses):
            of_row[here] = i
        rows = rows[of_row[rows] >= 0]

        def predict(chosen: NDArray[np.intp], batch: Batch, unknowns: Unknowns, n_draws: int) -> Distribution:
            at = rows[chosen]
            response = responses[of_row[at[0]]][1]
            prediction = crossed.prediction[torch.from_numpy(at)].unsqueeze(0)
            sizes = source_sizes(self.module, batch, crossed.sources)
            closed, unknowns = respond(response, prediction, unknowns, n_draws, sizes)
            return self._mixed(closed, batch, sources, target, unknowns, n_draws)

        return Part(crossed.positions[rows], crossed.folds[rows], sources, target, predict)

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays that :meth:`restore` reads."""
        arrays = self.closed.state() | {"n_fitted": np.asarray(self.n_fitted)}
        for (sources, target), weights in self.weights.items():
            arrays[f"weights/{'-'.join(map(str, sources))}/{target}"] = weights
        return arrays

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Read what :meth:`state` gave."""
        self.n_fitted = int(arrays["n_fitted"])
        self._closed, self._crossing = ClosedForm(self.module, StackedPredictor()), None
        self._closed.restore(arrays)
        self.weights = {}
        for name in arrays:
            if name.startswith("weights/"):
                _, sources, target = name.split("/")
                key = tuple(int(s) for s in sources.split("-")), int(target)
                self.weights[key] = np.asarray(arrays[name], dtype=np.float64)


def _predictor(n: int) -> StackedPredictor:
    return StackedPredictor(n_folds=FOLDS if n <= MANY else FEWER_FOLDS, with_factors=n <= MANY)
