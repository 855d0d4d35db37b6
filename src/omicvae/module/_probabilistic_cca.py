"""Probabilistic CCA as a module: fitted without gradients, exact for any set of assays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from omicvae.data import Batch, Schema
from omicvae.module._base import MultimodalModule
from omicvae.module._covae import GaussianPosterior
from omicvae.module._per_modality import PerModality
from omicvae.module._records import LikelihoodTerms, Pass, Readout
from omicvae.nn import NetworkConfig
from omicvae.nn.likelihoods import Likelihood, Observed
from omicvae.stats.factor_predictor import FactorModel
from omicvae.stats.gaussian import FullGaussian
from omicvae.stats.probabilistic_cca import (
    Evidence,
    Posterior,
    Weights,
    complete_covariance,
    evidence,
    expected_log_density,
    expected_log_likelihood,
    find_gaps,
    posterior,
    predict,
    typical_variance,
)
from omicvae.stats.shared_private import shared_private


class ProbabilisticCCAModule(MultimodalModule):
    r"""Linear-Gaussian factor model of all assays :cite:p:`bach2005probabilistic,virtanen2012group`.

    On the standardised, transformed scale of the likelihoods' encoders (log counts per library, methylation on its
    transformed scale, 0/1 values as they are), around what batch and covariates :math:`c` explain,

    .. math::
        z \sim N(0, I_K), \qquad
        \tilde x_{mj} \mid z \sim N(\mu_{mj} + \beta_{mj}' c + w_{mj}' z,\; \psi_{mj}), \qquad
        w_{mjk} \sim N(0, 1/\lambda_{mk}).

    Directions of :math:`z` that several assays tell are shared, those that a single one tells private to it
    (:mod:`omicvae.stats.shared_private`). Maximised by variational EM (:mod:`omicvae.stats.variational_factors`) is

    .. math::
        \mathcal L = \operatorname{E}_q \log p(\tilde x_O \mid z, \mu, w)
        - \mathrm{KL}(q(z) \,\|\, N(0, I)) - \mathrm{KL}(q(\mu, w) \,\|\, p(\mu, w)).

    The posterior of :math:`z` given any assays, single missing values included, is a Gaussian in closed form
    (:mod:`omicvae.stats.probabilistic_cca`).

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    """

    vectors: Tensor
    owner: Tensor

    def __init__(self, schema: Schema) -> None:
        smallest = NetworkConfig(n_hidden=1, n_layers=0, dropout=0.0)
        super().__init__(schema, smallest, dict.fromkeys(schema.names, 1))
        self.decoders = PerModality((), lambda m: torch.nn.Identity())  # there is nothing to decode with
        for i, m in enumerate(self.modalities):
            p, c = schema[m].n_vars, self.designs.of(m).n_columns
            self.register_buffer(f"effects_{i}", torch.zeros(1 + c, p, dtype=torch.float64))
            for field, shape in _shapes(p, 0, 0).items():
                self.register_buffer(f"{field}_{i}", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("vectors", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("owner", torch.zeros(0, dtype=torch.int64))

    # ------------------------------------------------------------------ parameters

    @property
    def device(self) -> torch.device:
        """Where the module is; it may have no parameter that would tell."""
        return self.vectors.device

    @property
    def n_factors(self) -> int:
        """Number of factors ``K``; 0 before the fit."""
        return self._get("mean", 0).shape[1]

    def weights(self, modality: str) -> Weights:
        """Posterior of an assay's weights."""
        i = self.modalities.index(modality)
        return Weights(*(self._get(field, i) for field in Weights._fields))

    def loadings(self, modality: str) -> tuple[Tensor, Tensor]:
        """``(p, K)`` posterior mean of an assay's weights and ``(p,)`` noise variances, on the CPU."""
        weights = self.weights(modality)
        return weights.mean.cpu(), weights.noise.cpu()

    def weight_uncertainty(self, modality: str) -> Tensor:
        """``(K, K)`` sum over features of the covariance of their weights, divided by their noise, on the CPU."""
        weights = self.weights(modality)
        return ((weights.basis * ((1 / weights.noise) @ weights.spread)) @ weights.basis.mT).cpu()

    def set_model(self, model: FactorModel) -> None:
        """Take over a fitted model."""
        device = self.device
        for i, (weights, effects) in enumerate(zip(model.weights, model.effects, strict=True)):
            self._buffers[f"effects_{i}"] = torch.from_numpy(np.asarray(effects)).double().to(device)
            for field, value in weights._asdict().items():
                self._buffers[f"{field}_{i}"] = value.double().to(device)
        self.vectors, self.owner = (v.to(device) for v in shared_private(model.weights))

    def factor_model(self) -> FactorModel:
        """The fitted model, on the CPU."""
        weights = (Weights(*(v.cpu() for v in self.weights(m))) for m in self.modalities)
        effects = (self._get("effects", i).cpu().numpy() for i in range(len(self.modalities)))
        return FactorModel(tuple(weights), tuple(effects))

    def _get(self, name: str, i: int) -> Tensor:
        found = self._buffers[f"{name}_{i}"]
        assert found is not None
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Make room for as many factors as were saved."""
        for i, m in enumerate(self.modalities):
            mean, spread = (state_dict.get(f"{prefix}{name}_{i}") for name in ("mean", "spread"))
            if isinstance(mean, Tensor) and isinstance(spread, Tensor) and mean.ndim == spread.ndim == 2:
                for field, shape in _shapes(self.schema[m].n_vars, mean.shape[1], spread.shape[1]).items():
                    self._buffers[f"{field}_{i}"] = self._get(field, i).new_zeros(shape)
        vectors = state_dict.get(f"{prefix}vectors")
        if isinstance(vectors, Tensor) and vectors.ndim == 2:
            self.vectors, self.owner = self.vectors.new_zeros(vectors.shape), self.owner.new_zeros(vectors.shape[1])
        super()._load_from_state_dict(state_dict, prefix, *args)

    # ------------------------------------------------------------------ factors

    def encode(self, batch: Batch) -> dict[str, Evidence]:  # type: ignore[override]
        """Evidence of every assay's packed rows on the factors."""
        return {m: self._evidence(batch, m, self.weights(m)) for m in self.modalities}

    def _evidence(self, batch: Batch, modality: str, weights: Weights) -> Evidence:
        observed = self.observed(batch, modality)
        likelihood = self.likelihoods.of(modality)
        design = self.design(batch, modality)
        own = None if design is None else design.index_select(0, batch.rows[modality])
        values = likelihood.encode_transform(observed).double() - self.fixed(modality, own)
        return evidence(weights, values, find_gaps(likelihood.measured(observed)))

    def fixed(self, modality: str, design: Tensor | None) -> Tensor:
        """``(..., p)`` what covariates ``(..., c)`` explain; ``(p,)`` without."""
        effects = self._get("effects", self.modalities.index(modality))
        return effects[0] if design is None else effects[0] + design.double() @ effects[1:]

    def factors(self, found: dict[str, Evidence], batch: Batch, given: Tensor) -> Posterior:
        """Posterior of the factors given the assays marked in ``given`` ``(B, M)`` or ``(M,)``; float64."""
        given = given.expand(batch.n_samples, -1)
        used, rows = [], []
        for i, m in enumerate(self.modalities):
            keep = given[batch.rows[m], i]
            one = found[m]
            used.append(Evidence(one.precision, one.pattern[keep], one.information[keep], one.constant[keep]))
            rows.append(batch.rows[m][keep])
        return posterior(used, rows, batch.n_samples, self.n_factors)

    def posterior(  # type: ignore[override]
        self, evidence: dict[str, Evidence], batch: Batch, given: Tensor
    ) -> GaussianPosterior:
        q = self.factors(evidence, batch, given).gaussian()
        return GaussianPosterior(FullGaussian(q.mean.float(), q.precision_tril.float()))

    def predict(self, q: Posterior, modality: str) -> tuple[Tensor, Tensor]:
        """Mean and variance ``(B, p)`` of a new measurement around what covariates explain, on the encoders' scale."""
        return predict(self.weights(modality), q)

    def typical_variance(self, sources: Sequence[int], target: str) -> tuple[Tensor, Tensor]:
        """Variance ``(p,)`` of a prediction from completely measured sources, and its part from factors; encoders' scale."""
        given = [self.weights(self.modalities[a]) for a in sources]
        return typical_variance(self.weights(target), complete_covariance(given, self.n_factors))

    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self.modalities, z)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)

    def passes(self, evidence: Any, batch: Batch, progress: float) -> list[Pass]:
        """Not available: nothing is trained by gradient."""
        return self._without_gradients()

    def sample(self, batch: Batch, modality: str, n_samples: int = 1) -> Tensor:
        """Not available here: a distribution of the data needs the held-out residuals that the model holds."""
        return self._without_gradients()

    def _without_gradients(self) -> NoReturn:
        raise NotImplementedError(f"{type(self).__name__} is fitted without gradients: use the methods of the model")

    # ------------------------------------------------------------------ reading

    def standardised_mean(
        self, modality: str, z: Tensor, design: Tensor | None, coverage: Tensor | None = None
    ) -> Tensor:
        """``(..., p)`` linear in the factors, whatever the kind of data."""
        return (self.fixed(modality, design) + z.double() @ self.weights(modality).mean.mT).float()

    def directions(self, kind: str, modality: str | None = None) -> Tensor:
        """``(K, r)`` directions of a reported latent in the space of the factors."""
        if kind == "joint":
            return torch.eye(self.n_factors, device=self.device)
        wanted = -1 if kind == "shared" else self.modalities.index(str(modality))
        return self.vectors[:, self.owner == wanted].float()

    def readout(self, kind: str, modality: str | None) -> Readout:
        """``joint``: all factors; ``shared``, ``private``: directions that several assays tell, or one alone does."""
        matrix = self.directions(kind, modality)
        return Readout(matrix, matrix.new_zeros(self.n_factors))

    # ------------------------------------------------------------------ bounds

    def elbo(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Modality -> ``(B,)`` expected log-likelihood given everything measured, and ``(B,)`` divergence.

        Continuous values: in the units of the registered layer. Counts, 0/1 values and reads: density of their
        transformed, standardised values.
        """
        found = self.encode(batch)
        q = self.factors(found, batch, batch.present)
        terms = {}
        for m in self.modalities:
            packed = expected_log_likelihood(found[m], batch.rows[m], q) + self._log_jacobian(batch, m)
            terms[m] = packed.new_zeros(batch.n_samples).index_copy(0, batch.rows[m], packed).float()
        return terms, q.divergence().float()

    def likelihood_terms(
        self, batch: Batch, n_samples: int, *, targets: Tensor | None = None, given: Tensor | None = None
    ) -> LikelihoodTerms:
        """Exact log-likelihood at the posterior mean of the weights; nothing is drawn. Units as in :meth:`elbo`."""
        sources = torch.zeros_like(batch.present) if given is None else given & batch.present
        scored = (batch.present if targets is None else targets & batch.present) & ~sources
        found = {m: self._evidence(batch, m, self.weights(m).plug_in()) for m in self.modalities}
        before, after = self.factors(found, batch, sources), self.factors(found, batch, sources | scored)
        total = after.log_evidence - before.log_evidence
        reconstruction = torch.zeros_like(total)
        for i, m in enumerate(self.modalities):
            rows, wanted = batch.rows[m], scored[batch.rows[m], i]
            jacobian = self._log_jacobian(batch, m) * wanted
            fit = expected_log_likelihood(found[m], rows, after) * wanted
            total = total.index_add(0, rows, jacobian)
            reconstruction = reconstruction.index_add(0, rows, fit + jacobian)
        prior, posterior = (expected_log_density(q, after) for q in (before, after))
        return LikelihoodTerms(total, reconstruction, prior, posterior, torch.full_like(total, torch.inf))

    def _log_jacobian(self, batch: Batch, modality: str) -> Tensor:
        """``(n_m,)`` log derivative of the transformed values by the measured ones; 0 for discrete values."""
        likelihood, observed = self.likelihoods.of(modality), self.observed(batch, modality)
        if likelihood.discrete:
            return torch.zeros(len(observed.x), dtype=torch.float64, device=observed.x.device)
        return _log_derivative(likelihood, observed)


def _shapes(p: int, K: int, r: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the fields of :class:`Weights`."""
    return {
        "mean": (p, K),
        "intercept": (p,),
        "noise": (p,),
        "basis": (K, r),
        "spread": (p, r),
        "shift": (p, K),
        "intercept_variance": (p,),
        "precision": (K,),
    }


def _log_derivative(likelihood: Likelihood, observed: Observed) -> Tensor:
    """``(n,)`` sum over measured features of the log derivative of the encoders' transform."""
    with torch.inference_mode(False), torch.enable_grad():
        x = observed.x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(likelihood.encode_transform(observed._replace(x=x)).sum(), x)
    logs = slope.double().abs().clamp_min(1e-30).log()
    return torch.where(likelihood.measured(observed), logs, 0.0).sum(1)
