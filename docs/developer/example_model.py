"""A complete model in one file of passes and one class: the product of experts of Wu and Goodman (2018)."""

from __future__ import annotations

from typing import Any

import torch
from mudata import MuData
from torch import Tensor
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.model._model import Model
from omicvae.module import Evidence, LatentPosterior, MultimodalModule, Pass
from omicvae.module._base import dense
from omicvae.module._per_modality import PerModality
from omicvae.module._records import Readout
from omicvae.nn import Encoder, NetworkConfig
from omicvae.stats.gaussian import diagonal_kl


class DiagonalPosterior(LatentPosterior):
    """A Gaussian with independent latents."""

    def __init__(self, location: Tensor, variance: Tensor) -> None:
        self.location, self.variance = location, variance

    @property
    def mean(self) -> Tensor:
        return self.location

    def sample(self, n_samples: int) -> Tensor:
        noise = torch.randn(n_samples, *self.location.shape, device=self.location.device)
        return self.location + self.variance.sqrt() * noise

    def log_prob(self, value: Tensor) -> Tensor:
        return torch.distributions.Normal(self.location, self.variance.sqrt()).log_prob(value).sum(-1)

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return self.location @ matrix, self.variance @ matrix.square()


class ProductOfExpertsModule(MultimodalModule):
    r"""Product of experts over one shared latent.

    .. math::
        q(z | x_O) \propto p(z) \prod_{m \in O} \tilde q(z | x_m), \qquad
        \mathcal L = \mathrm{ELBO}(x_O) + \sum_{m \in O} \mathrm{ELBO}(x_m)
    """

    def __init__(self, schema: Schema, network: NetworkConfig, n_latent: int) -> None:
        super().__init__(schema, network, decoder_widths=dict.fromkeys(schema.names, n_latent))
        self.n_latent = n_latent
        self.encoders = PerModality(
            self.modalities,
            lambda m: Encoder(schema[m].n_vars, self.encoder_design_width(m), n_latent, network, scale_start=0.0),
        )

    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Mean and precision of each expert, for the packed rows."""
        found = {}
        for m in self.modalities:
            location, raw = self.encoders.of(m)(*self.encoder_inputs(batch, m))
            found[m] = Evidence(location, F.softplus(raw))
        return found

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> DiagonalPosterior:
        precision = torch.ones(batch.n_samples, self.n_latent, device=given.device)  # of the prior
        weighted = torch.zeros_like(precision)
        for i, m in enumerate(self.modalities):
            expert = dense(evidence[m], batch.rows[m], batch.n_samples)  # precision 0 where the assay is absent
            used = expert.scale * given[:, i : i + 1]
            precision, weighted = precision + used, weighted + used * expert.location
        return DiagonalPosterior(weighted / precision, 1 / precision)

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        joint = self._pass("joint", evidence, batch, batch.present, elbo_weight=1.0)
        alone = []
        for i, m in enumerate(self.modalities):
            sources = torch.zeros_like(batch.present)
            sources[:, i] = batch.present[:, i]
            alone.append(self._pass(m, evidence, batch, sources))
        return [joint, *alone]

    def _pass(
        self, name: str, evidence: dict[str, Evidence], batch: Batch, sources: Tensor, elbo_weight: float | None = None
    ) -> Pass:
        """Reconstruct the sources from themselves."""
        q = self.posterior(evidence, batch, sources)
        z = q.sample(1)
        here = sources.to(z.dtype)
        return Pass(
            name=name,
            sources=sources,
            latents=self.decoder_inputs(z),
            weights={m: here[:, i] for i, m in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, "own"),
            kl={name: diagonal_kl(q.mean, q.variance).unsqueeze(0)},
            elbo_weight=None if elbo_weight is None else torch.full_like(here[:, 0], elbo_weight),
        )

    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        return dict.fromkeys(self.modalities, z)

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(-1)

    def predictive_route(self, target_is_source: bool) -> int:
        return 0  # all passes are "own", so this is the noise that was trained

    def readout(self, kind: str, modality: str | None) -> Readout:
        """Everything is shared, nothing is private."""
        eye = torch.eye(self.n_latent, device=next(self.parameters()).device)
        return Readout(eye[:, :0] if kind == "private" else eye, torch.zeros(self.n_latent, device=eye.device))


class ProductOfExperts(Model):
    """The model class: arguments, defaults, names of latents."""

    default_key = "poe"
    module: ProductOfExpertsModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int = 10,
        network: NetworkConfig | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        self.module = ProductOfExpertsModule(self.schema, self._network(network), n_latent)
        self._model_summary_string = f"Product of experts with {n_latent} latents"
        self.init_params_ = self._get_init_params(locals())

    @property
    def latent_names(self) -> dict[str, list[str]]:
        names = [f"poe_{k}" for k in range(self.module.n_latent)]
        return {"joint": names, "shared": names} | {f"private_{m}": [] for m in self.modalities}
