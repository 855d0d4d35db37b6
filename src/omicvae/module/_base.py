"""What all models share: encode once, decode every modality once, add up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from scvi.module.base import BaseModuleClass, LossOutput
from torch import Tensor

from omicvae.data import Batch, ModalitySchema, Schema
from omicvae.module._per_modality import Mapped, PerModality
from omicvae.module._records import Evidence, LatentPosterior, LikelihoodTerms, Pass, Readout, Step, scatter_rows
from omicvae.nn import Covariates, Decoder, Design, NetworkConfig, SizePrior
from omicvae.nn.likelihoods import CROSS, OWN, Likelihood, Observed, make_likelihood

DEEP = 1e6  # reads from which a level is as good as known
STATISTICS_SAMPLES = 2**16
"""From which means, scales and frequencies are taken: they are then known to half a percent of a standard deviation."""


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Where mixed precision is on, a context without it: factors and densities need float32."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def at_least_float32(values: Tensor) -> Tensor:
    """Values of half precision as float32, others as they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def build_likelihood(modality: ModalitySchema) -> Likelihood:
    """The likelihood a modality was registered with."""
    factor = modality.size_factor_key is not None and modality.likelihood in ("nb", "zinb", "poisson")
    return make_likelihood(modality.likelihood, modality.n_vars, **({"size_is_factor": True} if factor else {}))


class MultimodalModule(BaseModuleClass):
    """Base of all models: a subclass says which passes it makes and what its posterior is.

    One minibatch goes ``encode -> passes -> log_likelihoods -> reduce``. All passes are stacked and each modality's
    decoder is called once.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    decoder_widths
        modality -> width of its decoder's input.
    """

    importance_samples: int = 1

    def __init__(self, schema: Schema, network: NetworkConfig, decoder_widths: dict[str, int]) -> None:
        super().__init__()
        self.schema, self.network = schema, network
        self.modalities = schema.names
        self.likelihoods = PerModality(self.modalities, lambda m: build_likelihood(schema[m]))
        self.designs = PerModality(
            self.modalities,
            lambda m: Design({c.name: len(c.categories) for c in schema.covariates_of(m)}, len(schema.continuous)),
        )
        self.size_priors = PerModality(self.modalities, lambda m: SizePrior(max(1, self._n_batches(m))))
        self.decoders = PerModality(
            self.modalities,
            lambda m: Decoder(
                decoder_widths[m],
                self.designs.of(m).n_columns,
                schema[m].n_vars,
                self.likelihoods.of(m).n_heads,
                network,
            ),
        )
        self._routes: dict[tuple[tuple[str, ...], torch.device], Tensor] = {}

    @property
    def device(self) -> torch.device:
        """That of the first parameter; scvi-tools' own property looks at all of them each time it is asked."""
        return next(self.parameters()).device

    # ------------------------------------------------------------------ what a model says

    @abstractmethod
    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Evidence of every modality's packed rows."""

    @abstractmethod
    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        """The passes of the objective; ``progress`` runs from 0 to 1 over training."""

    @abstractmethod
    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> LatentPosterior:
        """Posterior of all latents given the assays marked in ``given`` ``(B, M)``, a subset of those present."""

    @abstractmethod
    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        """Modality -> ``(..., d_m)`` decoder input, from latents ``(..., D)``."""

    @abstractmethod
    def prior_log_prob(self, z: Tensor) -> Tensor:
        """``(...)`` log prior density of latents ``(..., D)``."""

    @abstractmethod
    def readout(self, kind: str, modality: str | None) -> Readout:
        """How a reported latent is read off the module's latents."""

    def proposal(
        self, evidence: dict[str, Evidence], batch: Batch, targets: Tensor, given: Tensor | None
    ) -> LatentPosterior:
        """What latents are drawn from to score ``targets``, by themselves or given others, both ``(B, M)``: all is seen."""
        return self.posterior(evidence, batch, targets if given is None else given | targets)

    def predictive_route(self, target_is_source: bool) -> int:
        """Noise scale of a prediction: own if the target itself was conditioned on, else cross."""
        return OWN if target_is_source else CROSS

    def label_term(self, passes: list[Pass], batch: Batch) -> Tensor | None:
        """``(B,)`` weighted log-likelihood of labels, in supervised variants."""
        return None

    def reduce(self, passes: list[Pass], log_likelihoods: list[dict[str, Tensor]], kl_weight: float) -> Tensor:
        """``(B,)`` objective: the mean over latent samples of weighted log-likelihoods minus divergences."""
        total: Tensor | float = 0.0
        for one, found in zip(passes, log_likelihoods, strict=True):
            for modality, value in found.items():
                total = total + (one.weights[modality] * value).mean(0)
            for name, divergence in one.kl.items():
                total = total - kl_weight * one.kl_weights.get(name, 1.0) * divergence.mean(0)
        assert isinstance(total, Tensor)
        return total

    def begin_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Set everything that is read off training samples before the first step."""
        self.fit_statistics(batches)

    def after_step(self, step: int) -> None:
        """Update what is not learned by gradient."""

    def end_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Finish what is computed from training samples after the last step."""

    def decode(self, modality: str, z: Tensor, design: Tensor | None, route: Tensor) -> Tensor:
        """``(..., n_heads, p)`` link-scale parameters from decoder inputs ``(..., d_m)``.

        Parameters
        ----------
        modality
            Which decoder.
        z
            Its input.
        design
            ``(..., c)`` covariates.
        route
            Own or cross, broadcastable to ``z.shape[:-1]``.
        """
        return self.decoders.of(modality)(z, design)

    def log_prob(self, modality: str, eta: Tensor, observed: Observed, route: Tensor) -> Tensor:
        """``(...)`` log-likelihood of a modality's packed rows, as the objective counts it."""
        return self.likelihoods.of(modality).log_prob(eta, observed, route)

    def lift(self, readout: Readout) -> Tensor:
        """``(D, r)`` latents expected a priori per unit of each reported latent, the other reported ones being 0.

        Here for latents that are a priori independent with variance 1.
        """
        return torch.linalg.pinv(readout.matrix).mT

    def prior_sd(self, readout: Readout) -> Tensor:
        """``(r,)`` prior standard deviation of each reported latent."""
        return torch.linalg.vector_norm(readout.matrix, dim=0)

    def standardised_mean(
        self, modality: str, z: Tensor, design: Tensor | None, coverage: Tensor | None = None
    ) -> Tensor:
        """``(..., p)`` mean that latents decode to, on the scale of the encoders.

        That is what :meth:`encoder_inputs` would be if the mean were measured: in training standard deviations of log
        counts (at the median library size), of logit levels, of 0/1 values (a probability) or of continuous values.

        Parameters
        ----------
        modality
            What to decode.
        z
            ``(..., D)`` latents, which are taken to have seen the modality.
        design
            ``(..., c)`` covariates.
        coverage
            ``(..., p)`` total reads, where the modality has them; by default so many that levels are known.
        """
        likelihood = self.likelihoods.of(modality)
        route = torch.full(z.shape[:-1], OWN, device=z.device)
        eta = self.decode(modality, self.decoder_inputs(z)[modality], design, route)
        size = likelihood.reference_size.expand(z.shape[:-1]) if likelihood.uses_size else None
        mean = likelihood(eta, noise=route, size=size, coverage=None).mean
        if not likelihood.uses_coverage:
            return likelihood.encode_transform(Observed(mean, size, None))
        reads = torch.full_like(mean, DEEP) if coverage is None else coverage
        return likelihood.encode_transform(Observed(mean * reads, size, reads))

    # ------------------------------------------------------------------ what is the same for all

    def _n_batches(self, modality: str) -> int:
        batch = [c for c in self.schema.covariates_of(modality) if not c.name.startswith("cat_")]
        return len(batch[0].categories) if batch else 0

    def batch_codes(self, batch: Batch, modality: str) -> Tensor:
        """``(B,)`` batch category that a modality's sizes depend on; 0 without a batch covariate."""
        for covariate in self.schema.covariates_of(modality):
            if not covariate.name.startswith("cat_"):
                return batch.codes[covariate.name]
        return torch.zeros(batch.n_samples, dtype=torch.int64, device=batch.present.device)

    def observed(self, batch: Batch, modality: str) -> Observed:
        """A modality's packed rows as its likelihood takes them."""
        likelihood = self.likelihoods.of(modality)
        return Observed(
            x=batch.x[modality],
            size=batch.size[modality] if likelihood.uses_size else None,
            coverage=batch.coverage.get(modality) if likelihood.uses_coverage else None,
        )

    def design(self, batch: Batch, modality: str) -> Tensor | None:
        """``(B, c)`` covariates of a modality's networks, or ``None``."""
        return self.designs.of(modality)(Covariates(batch.codes, batch.continuous))

    def encoder_inputs(self, batch: Batch, modality: str) -> tuple[Tensor, Tensor | None]:
        """Packed inputs of a modality's encoder: transformed values and, if asked for, covariates."""
        likelihood = self.likelihoods.of(modality)
        values = likelihood.encode_transform(self.observed(batch, modality)) * likelihood.varies
        if not self.network.encode_covariates:
            return values, None
        design = self.design(batch, modality)
        return values, None if design is None else design.index_select(0, batch.rows[modality])

    def encoder_design_width(self, modality: str) -> int:
        """Covariate columns that a modality's encoder sees."""
        return self.designs.of(modality).n_columns if self.network.encode_covariates else 0

    def _noise(self, routes: tuple[str, ...], device: torch.device) -> Tensor:
        key = (routes, device)
        if key not in self._routes:
            with torch.inference_mode(False):  # kept for training, which refuses inference tensors
                self._routes[key] = torch.tensor([[OWN if r == "own" else CROSS] for r in routes], device=device)
        return self._routes[key]

    def log_likelihoods(self, passes: list[Pass], batch: Batch) -> list[dict[str, Tensor]]:
        """For each pass, modality -> ``(K, B)`` log-likelihood; 0 where the modality was not measured."""
        found: list[dict[str, Tensor]] = [{} for _ in passes]
        for modality in self.modalities:
            users = [i for i, one in enumerate(passes) if modality in one.latents]
            if not users:
                continue
            rows = batch.rows[modality]
            z = torch.stack([passes[i].latents[modality].index_select(1, rows) for i in users], 1)
            design = self.design(batch, modality)
            noise = self._noise(tuple(passes[i].route[modality] for i in users), z.device)
            eta = self.decode(modality, z, None if design is None else design.index_select(0, rows), noise)
            with full_precision(z.device):
                packed = self.log_prob(modality, eta, self.observed(batch, modality), noise)
            full = torch.zeros(*packed.shape[:2], batch.n_samples, dtype=packed.dtype, device=packed.device)
            full = full.index_copy(2, rows, packed)
            for position, i in enumerate(users):
                found[i][modality] = full[:, position]
        return found

    def objective(self, batch: Batch, *, kl_weight: float = 1.0, progress: float = 1.0) -> Step:
        """Loss of a minibatch, and its metrics as sums over samples."""
        evidence = {m: Evidence(*map(at_least_float32, e)) for m, e in self.encode(batch).items()}
        with full_precision(batch.present.device):
            passes = self.passes(evidence, batch, progress)
        found = self.log_likelihoods(passes, batch)
        with full_precision(batch.present.device):
            value = self.reduce(passes, found, kl_weight)
            labels = self.label_term(passes, batch)
            if labels is not None:
                value = value + labels
        loss = -value.mean()
        with torch.no_grad():
            sums, counts = self._metrics(value.detach(), passes, found, batch)
        return Step(loss, sums, counts)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Names of the entries of :class:`Step`; ``elbo`` and the others are to be minimised, as in scvi-tools."""
        return (
            "loss",
            "elbo",
            "reconstruction_loss",
            "kl_local",
            *(f"reconstruction_loss_{m}" for m in self.modalities),
        )

    def _metrics(
        self, value: Tensor, passes: list[Pass], found: list[dict[str, Tensor]], batch: Batch
    ) -> tuple[Tensor, Tensor]:
        rec, kl = self.elbo_terms(passes, found, batch)
        total = torch.stack(list(rec.values())).sum(0)
        sums = torch.stack(
            [-value.sum(), (kl - total).sum(), -total.sum(), kl.sum(), *(-r.sum() for r in rec.values())]
        )
        counts = torch.full_like(sums, batch.n_samples)
        for i, modality in enumerate(self.modalities):
            counts[4 + i] = batch.rows[modality].shape[0]
        return sums, counts

    def elbo_terms(
        self, passes: list[Pass], found: list[dict[str, Tensor]], batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Modality -> ``(B,)`` expected log-likelihood, and ``(B,)`` divergence, of the passes that make up the ELBO."""
        zero = torch.zeros(batch.n_samples, device=batch.present.device)
        rec, kl = dict.fromkeys(self.modalities, zero), zero
        for one, values in zip(passes, found, strict=True):
            if one.elbo_weight is None:
                continue
            for modality, value in values.items():
                rec[modality] = rec[modality] + one.elbo_weight * value.mean(0)
            for divergence in one.kl.values():
                kl = kl + one.elbo_weight * divergence.mean(0)
        return rec, kl

    def elbo(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """:meth:`elbo_terms` of a minibatch, without the passes that are not part of it."""
        passes = [p for p in self.passes(self.encode(batch), batch, 1.0) if p.elbo_weight is not None]
        return self.elbo_terms(passes, self.log_likelihoods(passes, batch), batch)

    def likelihood_terms(
        self, batch: Batch, n_samples: int, *, targets: Tensor | None = None, given: Tensor | None = None
    ) -> LikelihoodTerms:
        """Log-likelihood of assays, by themselves or given others: :func:`omicvae.module._bounds.importance_weighted`."""
        from omicvae.module._bounds import importance_weighted

        return importance_weighted(self, batch, n_samples, targets=targets, given=given)

    # ------------------------------------------------------------------ training statistics

    @torch.no_grad()
    def fit_statistics(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Feature means and scales, covariate frequencies and library sizes, from training samples only.

        Of large cohorts from the first :data:`STATISTICS_SAMPLES` that come, which are drawn at random.
        """

        def enough() -> Iterator[Batch]:
            seen = 0
            for batch in batches():
                yield batch
                seen += batch.n_samples
                if seen >= STATISTICS_SAMPLES:
                    return

        for modality in self.modalities:

            def observed(batch: Batch, name: str = modality) -> Observed:
                return self.observed(batch, name)

            def covariates(batch: Batch, name: str = modality) -> Covariates:
                rows = batch.rows[name]
                return Covariates({key: codes[rows] for key, codes in batch.codes.items()}, batch.continuous[rows])

            def sizes(batch: Batch, name: str = modality) -> tuple[Tensor, Tensor]:
                return batch.size[name], self.batch_codes(batch, name)[batch.rows[name]]

            self.likelihoods.of(modality).fit(Mapped(enough, observed))
            self.designs.of(modality).fit(Mapped(enough, covariates))
            if self.likelihoods.of(modality).uses_size:
                self.size_priors.of(modality).fit(Mapped(enough, sizes))

    # ------------------------------------------------------------------ scvi-tools' contract

    def _get_inference_input(self, tensors: Batch, **kwargs: Any) -> dict[str, Any]:
        return {"batch": tensors}

    def inference(self, batch: Batch, progress: float = 1.0) -> dict[str, Any]:
        """scvi-tools' name for :meth:`encode` and :meth:`passes`."""
        return {"passes": self.passes(self.encode(batch), batch, progress)}

    def _get_generative_input(self, tensors: Batch, inference_outputs: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        return {"batch": tensors, "passes": inference_outputs["passes"]}

    def generative(self, batch: Batch, passes: list[Pass]) -> dict[str, Any]:
        """scvi-tools' name for :meth:`log_likelihoods`."""
        return {"log_likelihoods": self.log_likelihoods(passes, batch)}

    def loss(
        self,
        tensors: Batch,
        inference_outputs: dict[str, Any],
        generative_outputs: dict[str, Any],
        kl_weight: float = 1.0,
    ) -> LossOutput:
        """scvi-tools' name for :meth:`reduce`."""
        passes, found = inference_outputs["passes"], generative_outputs["log_likelihoods"]
        rec, kl = self.elbo_terms(passes, found, tensors)
        return LossOutput(
            loss=-self.reduce(passes, found, kl_weight).mean(),
            reconstruction_loss={m: -r for m, r in rec.items()},
            kl_local=kl,
            n_obs_minibatch=tensors.n_samples,
        )

    def sample(self, batch: Batch, modality: str, n_samples: int = 1) -> Tensor:
        """``(n_samples, B, n_vars)`` posterior predictive draws given everything measured."""
        from omicvae.module._prediction import predictive_distribution

        return predictive_distribution(self, batch, modality, batch.present, n_samples).distribution.sample()


def dense(evidence: Evidence, rows: Tensor, n_samples: int) -> Evidence:
    """Evidence with a row for every sample of the batch, zeros where the assay is absent."""
    return Evidence(*(scatter_rows(tensor, rows, n_samples) for tensor in evidence))
