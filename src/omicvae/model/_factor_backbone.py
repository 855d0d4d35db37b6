"""Imputation by probabilistic CCA: exact predictions of the factors, with the residuals that held-out samples leave."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution, constraints

from omicvae.data import Batch, Cohort
from omicvae.model._closed_form import ClosedForm, read_target
from omicvae.model._moments import FEWER_FOLDS, FOLDS, MANY, MomentBackbone
from omicvae.module._prediction import Unknowns
from omicvae.module._probabilistic_cca import ProbabilisticCCAModule
from omicvae.nn import Response
from omicvae.nn.likelihoods import Observed
from omicvae.stats.factor_predictor import FactorPredictor, Sizes

ROWS = 2000  # samples from which responses without held-out predictions are fitted
LEAST_RESIDUAL = 0.1  # share of the variance of a prediction's error that draws leave to the single feature


class LatentDraws(Distribution):
    """A predictive distribution whose draws share latents between features.

    Mean and variance are those of ``marginal``, exactly; draws come from ``draw``, which has the same marginals.

    Parameters
    ----------
    marginal
        ``(K, B, p)``
    draw
        Gives ``(K, B, p)`` values.
    latent_share
        ``(p,)`` share of the variance, apart from that of unknown sizes and covariates, which is that of the latents.
    """

    arg_constraints = {}

    def __init__(self, marginal: Distribution, draw: Callable[[], Tensor], latent_share: Tensor) -> None:
        self.marginal, self.draw, self.latent_share = marginal, draw, latent_share
        super().__init__(marginal.batch_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """That of the marginal distribution."""
        return self.marginal.support  # type: ignore[return-value]

    @property
    def mean(self) -> Tensor:
        """``(K, B, p)``"""
        return self.marginal.mean

    @property
    def variance(self) -> Tensor:
        """``(K, B, p)``"""
        return self.marginal.variance

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        """Draw values ``(*sample_shape, K, B, p)``."""
        shape = torch.Size(sample_shape)
        drawn = [self.draw() for _ in range(shape.numel())]
        return torch.stack(drawn).reshape(*shape, *self.batch_shape)


class FactorBackbone(MomentBackbone):
    """Predictive distributions of a fitted :class:`ProbabilisticCCAModule`.

    Scale and residuals of a prediction are those of cross-fits with the same sources, or with as many of them as enough
    training samples have together with the target. Sources that were never measured with the target are left out beside
    others that were. Where no source was measured with the target, and for values given the assay itself, the variance is
    the model's own.

    Parameters
    ----------
    module
        Fitted or restored before anything is predicted.
    """

    module: ProbabilisticCCAModule

    def __init__(self, module: ProbabilisticCCAModule) -> None:
        super().__init__(module, mixes=False)
        self.own: dict[int, Response] = {}
        """Target -> distribution around what its own measurement, and all others, say of it."""
        self.prior: dict[int, Response] = {}
        """Target -> distribution around what covariates say of it."""

    @property
    def predictor(self) -> FactorPredictor:
        """Of the fitted closed form."""
        found = self.closed.predictor
        assert isinstance(found, FactorPredictor)
        return found

    # ------------------------------------------------------------------ fit

    def fit_factors(self, cohort: Cohort, positions: NDArray[np.intp], sizes: Sizes) -> Tensor:
        """Fit the model to the samples at ``positions``; returns the bound after each iteration."""
        predictor = FactorPredictor(sizes, n_folds=_folds(len(positions)))
        self.n_fitted, self._calibration = len(positions), np.zeros(0, dtype=np.intp)
        self._closed = self._crossing = closed = ClosedForm(self.module, predictor, constant_scale=True)
        closed.fit(cohort, positions)
        predictor.fit()
        self.module.set_model(predictor.model)
        for target, name in enumerate(self.module.modalities):
            column = cohort.present[positions, target]
            here = positions[column][np.linspace(0, column.sum() - 1, min(ROWS, column.sum())).astype(np.intp)]
            self._fit_responses(cohort, here, target, name)
        return predictor.elbo

    @torch.no_grad()
    def _fit_responses(self, cohort: Cohort, positions: NDArray[np.intp], target: int, name: str) -> None:
        observed = read_target(self.module, cohort, positions, target).observed
        batch = cohort.batch(positions).to(self.module.device)
        fixed = self.module.fixed(name, self.module.design(batch, name)).expand(len(positions), -1)
        q = self.module.factors(self.module.encode(batch), batch, batch.present)
        self.own[target] = self._respond((fixed + self.module.predict(q, name)[0]).float(), observed, name)
        self.prior[target] = self._respond(fixed.float(), observed, name)

    def _respond(self, prediction: Tensor, observed: Observed, name: str) -> Response:
        response = Response(self.module.likelihoods.of(name), constant_scale=True).to(self.module.device)
        return response.fit(prediction, observed) if len(prediction) else response

    def attach(self, cohort: Cohort, positions: NDArray[np.intp], calibration: NDArray[np.intp]) -> None:
        """Take the training samples of a saved model in, to make held-out predictions again."""
        fitted = self.predictor
        self._crossing = ClosedForm(
            self.module, FactorPredictor(fitted.sizes, n_folds=_folds(len(positions))), constant_scale=True
        )
        self._crossing.attach(cohort, positions)
        self._crossing.predictor.adopt(fitted)
        self._calibration = calibration

    # ------------------------------------------------------------------ predict

    @torch.no_grad()
    def distribution(
        self, batch: Batch, sources: tuple[int, ...], target: int, unknowns: Unknowns, n_draws: int
    ) -> Distribution:
        """Predictive distribution of samples that all have ``sources``, the target possibly among them."""
        module, name = self.module, self.module.modalities[target]
        if target not in sources:
            sources = self.predictor.checked(sources, target)
        given = torch.zeros(len(module.modalities), dtype=torch.bool, device=module.device)
        given[list(sources)] = True
        q = module.factors(module.encode(batch), batch, given)
        fixed, signal = module.fixed(name, _once(unknowns.design)), module.predict(q, name)[0]
        response, gains = self._response(sources, target)
        location = (fixed + gains * signal).float().reshape(-1, *signal.shape)
        scale, share, residual = self._split(sources, name, gains, response)

        def draw() -> Tensor:
            z = (q.gaussian().rsample(n_draws) - q.mean).float()
            latent = z @ (module.weights(name).mean * scale[:, None]).mT.float()
            return residual(location + latent, unknowns.size, n_draws).sample()

        return LatentDraws(response(location, unknowns.size, n_draws), draw, share.float())

    def _response(self, sources: tuple[int, ...], target: int) -> tuple[Response, Tensor]:
        """Distribution around a prediction, and the factor ``(p,)`` on the prediction."""
        device, name = self.module.device, self.module.modalities[target]
        unit = torch.ones(self.module.schema[name].n_vars, dtype=torch.float64, device=device)
        for key in () if target in sources else self.predictor.covering(sources, target):
            gains = torch.from_numpy(self.predictor.scales[key].gains)
            return self.closed.responses[key].to(device), gains.to(device)
        if not sources:
            return self.prior[target].to(device), unit
        base = self.own[target] if target in sources else self.prior[target]
        return with_deviation(base.to(device), self.module.typical_variance(sources, name)[0].sqrt()), unit

    def _split(
        self, sources: tuple[int, ...], name: str, gains: Tensor, response: Response
    ) -> tuple[Tensor, Tensor, Response]:
        """Factor ``(p,)`` on the factors' part of a draw, its share of the variance, and the response for the rest.

        Features whose response is a rate have no such part: the rate's dispersion already holds all of it.
        """
        latent = gains.square() * self.module.typical_variance(sources, name)[1]
        total = response.deviation.double().square()
        kept = ((1 - LEAST_RESIDUAL) * total / latent.clamp_min(1e-30)).clamp_max(1.0)
        kept = torch.where(response.by_rate, 0.0, kept)
        rest = with_deviation(response, (total - kept * latent).sqrt())
        return gains * kept.sqrt(), kept * latent / total, rest

    def network_share(self, sources: tuple[int, ...], target: int) -> float:
        """There is no network."""
        return 0.0

    # ------------------------------------------------------------------ saving

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays that :meth:`restore` reads, beside those of the module."""
        arrays = super().state()
        for kind, held in (("own", self.own), ("prior", self.prior)):
            for target, response in held.items():
                arrays |= {f"{kind}/{target}/{k}": v.cpu().numpy() for k, v in response.state_dict().items()}
        return arrays

    def restore(self, arrays: dict[str, NDArray[np.generic]]) -> None:
        """Read what :meth:`state` gave; the module has been read before."""
        self.n_fitted, self.weights = int(arrays["n_fitted"]), {}
        predictor = FactorPredictor()
        self._closed, self._crossing = ClosedForm(self.module, predictor, constant_scale=True), None
        self._closed.restore(arrays)
        predictor.model = self.module.factor_model()
        for kind, held in (("own", self.own), ("prior", self.prior)):
            for target, name in enumerate(self.module.modalities):
                stem = f"{kind}/{target}/"
                stored = {k.removeprefix(stem): torch.from_numpy(v) for k, v in arrays.items() if k.startswith(stem)}
                held[target] = Response(self.module.likelihoods.of(name), constant_scale=True).restore(stored)


def with_deviation(response: Response, deviation: Tensor) -> Response:
    """A response with another standard deviation ``(p,)`` of its residuals."""
    other = copy.copy(response)
    other._buffers = {**response._buffers, "deviation": deviation.to(response.deviation)}
    return other


def _once(design: Tensor | None) -> Tensor | None:
    """``(K or 1, B, c)``: one draw is enough where all covariates are known."""
    if design is None or len(design) < 2 or not bool((design == design[:1]).all()):
        return design
    return design[:1]


def _folds(n: int) -> int:
    return FOLDS if n <= MANY else FEWER_FOLDS
