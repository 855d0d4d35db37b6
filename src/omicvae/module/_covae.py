"""CoVAE with evidence potentials: the correlations between assays are the prior."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._base import STATISTICS_SAMPLES, MultimodalModule, dense
from omicvae.module._per_modality import PerModality
from omicvae.module._processes import sum_over_processes
from omicvae.module._records import Evidence, LatentPosterior, Pass, Readout, alone
from omicvae.nn import Encoder, NetworkConfig
from omicvae.nn.likelihoods import OWN
from omicvae.stats.canonical import CanonicalFrame, canonical_frame
from omicvae.stats.factors import OwnFactors
from omicvae.stats.gaussian import (
    CovarianceGaussian,
    FullGaussian,
    GaussianPrior,
    block_slices,
    conditional,
    diagonal_kl,
    gaussian_prior,
    potential_kl,
    potential_posterior,
    shrink_cross_blocks,
    standardise_blocks,
    symmetric_power,
)

LEAST_PRECISION = 1e-4
MOMENT_DECAY = 0.98
UPDATE_EVERY = 10  # steps between updates of Sigma; each costs an eigendecomposition a modality
RECALIBRATION_PASSES = 5
RECALIBRATION_SAMPLES = 2**15
"""Of a pass, at least; a covariance is then known to a percent, and larger cohorts need not be read through for it."""


class GaussianPosterior(LatentPosterior):
    """A Gaussian over all latents."""

    def __init__(self, gaussian: FullGaussian | CovarianceGaussian) -> None:
        self.gaussian = gaussian

    @property
    def mean(self) -> Tensor:
        return self.gaussian.mean

    def sample(self, n_samples: int) -> Tensor:
        return self.gaussian.rsample(n_samples)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.gaussian.log_prob(value)

    def project(self, matrix: Tensor) -> tuple[Tensor, Tensor]:
        return self.gaussian.project(matrix)


class CorrelatedPriorModule(MultimodalModule):
    """Latents ``z = (z_1, ..., z_M)`` with prior ``N(mu_0, Sigma)`` whose cross-blocks are the assays' correlations.

    Shared by CoVAE with potentials and CoVAE as published: the prior itself, and how latents are reported. Reported
    latents are whitened within each modality, so that ``Sigma_mm = I`` always holds outside.
    """

    prior_mean: Tensor
    prior_covariance: Tensor
    n_shared: Tensor
    pairs: Tensor

    def __init__(self, schema: Schema, network: NetworkConfig, n_latent: dict[str, int]) -> None:
        super().__init__(schema, network, decoder_widths=n_latent)
        self.sizes = [n_latent[m] for m in self.modalities]
        self.blocks = dict(zip(self.modalities, block_slices(self.sizes), strict=True))
        D = sum(self.sizes)
        self.register_buffer("prior_mean", torch.zeros(D))
        self.register_buffer("prior_covariance", torch.eye(D, dtype=torch.float64))
        self.register_buffer("n_shared", torch.ones((), dtype=torch.int64))
        self.register_buffer("pairs", torch.zeros(len(self.modalities), len(self.modalities), dtype=torch.float64))
        self._prior: GaussianPrior | None = None
        self._conditionals: dict[str, tuple[Tensor, Tensor]] = {}

    @property
    def prior(self) -> GaussianPrior:
        """The current prior with its factors, in the networks' dtype and on their device."""
        if self._prior is None or self._prior.mean.device != self.prior_mean.device:
            with torch.inference_mode(False), torch.no_grad():  # kept for training, which refuses inference tensors
                self._prior = gaussian_prior(self.prior_mean, self.prior_covariance)
            self._conditionals = {}
        return self._prior

    def _rest_given(self, modality: str) -> tuple[Tensor, Tensor]:
        """:func:`conditional` of all other latents on those of one modality, kept for as long as the prior."""
        prior = self.prior
        if modality not in self._conditionals:
            observed = torch.zeros(sum(self.sizes), dtype=torch.bool)
            observed[self.blocks[modality]] = True
            with torch.inference_mode(False), torch.no_grad():
                self._conditionals[modality] = conditional(prior, observed.to(prior.mean.device))
        return self._conditionals[modality]

    def set_prior(self, covariance: Tensor, mean: Tensor | None = None) -> None:
        """Replace the prior."""
        self.prior_covariance.copy_(covariance)
        self.prior_mean.copy_(torch.zeros_like(self.prior_mean) if mean is None else mean)
        self._prior = None

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)  # type: ignore[arg-type]
        self._prior = None

    def decoder_inputs(self, z: Tensor) -> dict[str, Tensor]:
        return {m: z[..., block] for m, block in self.blocks.items()}

    def prior_log_prob(self, z: Tensor) -> Tensor:
        return torch.distributions.MultivariateNormal(self.prior.mean, scale_tril=self.prior.tril).log_prob(z)

    def predictive_route(self, target_is_source: bool) -> int:
        """One generative model: what a source does not tell is in the latents, not in the noise."""
        return OWN

    def frame(self) -> CanonicalFrame:
        """Canonical dimensions of the prior."""
        return canonical_frame(self.prior_covariance.cpu(), self.sizes)

    def readout(self, kind: str, modality: str | None) -> Readout:
        """Whitened ``z_m``, all (``joint``), canonical ones averaged over modalities (``shared``), the rest (``private``)."""
        frame = self.frame()
        r = int(self.n_shared)
        if kind == "joint":
            matrix = frame.whiten
        elif kind == "shared":
            matrix = frame.shared(r)
        else:
            matrix = frame.private(self.modalities.index(str(modality)), r)
        return Readout(matrix.to(self.prior_mean), self.prior_mean)

    def lift(self, readout: Readout) -> Tensor:
        """Regression of all latents on the reported ones under the prior, ``Sigma W (W' Sigma W)^-1``."""
        W = readout.matrix.to(self.prior_covariance)
        covariance = self.prior_covariance @ W
        return (covariance @ torch.linalg.pinv(W.mT @ covariance, hermitian=True)).to(readout.matrix)

    def prior_sd(self, readout: Readout) -> Tensor:
        W = readout.matrix.to(self.prior_covariance)
        return (W * (self.prior_covariance @ W)).sum(0).sqrt().to(readout.matrix)

    @torch.no_grad()
    def count_pairs(self, batches: Iterable[Batch]) -> None:
        """Remember in how many training samples each pair of assays was measured together.

        Of large cohorts in those of the first :data:`STATISTICS_SAMPLES`: more would hardly change what is shrunk.
        """
        total, seen = torch.zeros_like(self.pairs), 0
        for batch in batches:
            present = batch.present.to(total)
            total += present.mT @ present
            seen += batch.n_samples
            if seen >= STATISTICS_SAMPLES:
                break
        self.pairs.copy_(total)


class CoVAEModule(CorrelatedPriorModule):
    r"""Correlated VAE :cite:p:`caretti2026covae` with evidence potentials.

    Prior :math:`z = (z_1, \dots, z_M) \sim N(0, \Sigma)`, :math:`\Sigma_{mm} = I`. Encoder :math:`m` gives a Gaussian
    potential with mean :math:`m_m(x)` and diagonal precision :math:`\Lambda_m(x)`. For any observed set :math:`O`

    .. math::
        P = \Sigma^{-1} + \mathrm{blockdiag}_{m \in O}(\Lambda_m), \qquad
        \mu = P^{-1} h, \quad h_m = \Lambda_m m_m \ (m \in O)

        \mathrm{KL} = \tfrac12 \Big[ -\sum_{m \in O} \mathrm{tr}(\Lambda_m C_{mm}) + \mu' \Sigma^{-1} \mu
        + \log|P| + \log|\Sigma| \Big], \qquad C = P^{-1}

    so ``M`` encoders serve all subsets; for one observed modality this is eq. (2) of the paper. Maximised is

    .. math::
        \mathcal L = \mathrm{ELBO}(x_O) + \sum_{m \in O} \mathrm{ELBO}(x_m)
        + w(t) \sum_{m \in O} \sum_{k \in O \setminus m} E_{q(z_m|x_m)\, p(z_k|z_m)} \log p(x_k | z_k)

    with eq. (3) of the paper as the first term and the cross-modal part of eq. (4) as the last, whose weight falls from
    1 to 0 over the first half of training: held at 1 it ruins calibration, dropped it costs accuracy.
    :math:`\Sigma` is never learned by gradient: its cross-blocks follow the moments :math:`E[zz']`, and after training
    a few EM passes set :math:`\Sigma \leftarrow E[C + \mu\mu']` with cross-blocks denoised
    (:func:`omicvae.stats.gaussian.shrink_cross_blocks`).

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    n_latent
        modality -> width of its latent block.
    """

    moments: Tensor

    def __init__(self, schema: Schema, network: NetworkConfig, n_latent: dict[str, int]) -> None:
        super().__init__(schema, network, n_latent)
        self.encoders = PerModality(
            self.modalities,
            lambda m: Encoder(schema[m].n_vars, self.encoder_design_width(m), n_latent[m], network, scale_start=2.0),
        )
        self.register_buffer("moments", torch.eye(sum(self.sizes), dtype=torch.float64))
        self._latest: Tensor | None = None
        self.start: Mapping[str, OwnFactors] | None = None
        """Factors to start from instead of each assay's principal components."""

    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Potential means and precisions of the packed rows."""
        found = {}
        for m in self.modalities:
            location, raw = self.encoders.of(m)(*self.encoder_inputs(batch, m))
            found[m] = Evidence(location, F.softplus(raw) + LEAST_PRECISION)
        return found

    def _potentials(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor | None) -> Evidence:
        """(B, D) potentials, with precision 0 where there is no evidence or it is not to be used."""
        blocks = [dense(evidence[m], batch.rows[m], batch.n_samples) for m in self.modalities]
        if given is not None:
            blocks = [Evidence(b.location, b.scale * given[:, i : i + 1]) for i, b in enumerate(blocks)]
        return Evidence(torch.cat([b.location for b in blocks], -1), torch.cat([b.scale for b in blocks], -1))

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> GaussianPosterior:
        location, precision = self._potentials(evidence, batch, given)
        return GaussianPosterior(potential_posterior(self.prior, location, precision))

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        cross_weight = max(0.0, 1.0 - 2.0 * progress)
        passes = [self._joint(evidence, batch)]
        for m in self.modalities:
            passes += self._single(m, evidence, batch, cross_weight)
        return passes

    def _joint(self, evidence: dict[str, Evidence], batch: Batch) -> Pass:
        location, precision = self._potentials(evidence, batch, None)
        q = potential_posterior(self.prior, location, precision)
        z = q.rsample(1)
        if self.training:
            self._latest = z.detach()[0]
        present = batch.present.to(z.dtype)
        return Pass(
            name="joint",
            sources=batch.present,
            latents=self.decoder_inputs(z),
            weights={m: present[:, i] for i, m in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, "own"),
            kl={"joint": potential_kl(q, self.prior, precision).unsqueeze(0)},
            elbo_weight=torch.ones_like(present[:, 0]),
        )

    def _single(self, m: str, evidence: dict[str, Evidence], batch: Batch, cross_weight: float) -> list[Pass]:
        """ELBO given one modality alone and, early in training, the others predicted from it."""
        location, precision = dense(evidence[m], batch.rows[m], batch.n_samples)
        column = self.modalities.index(m)
        here = batch.present[:, column].to(location.dtype)
        sources = alone(batch.present, column)
        variance = 1 / (1 + precision)  # the prior of one block is standard normal while training
        mean = variance * precision * location
        z = (mean + variance.sqrt() * torch.randn_like(mean)).unsqueeze(0)
        own = Pass(
            name=m,
            sources=sources,
            latents={m: z},
            weights={m: here},
            route={m: "own"},
            kl={m: (diagonal_kl(mean, variance) * here).unsqueeze(0)},
        )
        if cross_weight == 0:
            return [own]
        others = [k for k in self.modalities if k != m]
        A, tril = self._rest_given(m)
        rest = z @ A.mT + torch.randn(*z.shape[:2], A.shape[0], device=z.device) @ tril.mT
        widths = [self.sizes[self.modalities.index(k)] for k in others]
        weight = {k: cross_weight * here * batch.present[:, self.modalities.index(k)] for k in others}
        cross = Pass(
            name=f"{m}->",
            sources=sources,
            latents=dict(zip(others, rest.split(widths, -1), strict=True)),
            weights=weight,
            route=dict.fromkeys(others, "cross"),
        )
        return [own, cross]

    # ------------------------------------------------------------------ Sigma

    def begin_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Training statistics, then the linear start (or, on further training, unit blocks again)."""
        self.fit_statistics(batches)
        self.count_pairs(batches())
        from omicvae.module._linear_start import linear_start

        linear_start(self, batches, self.start)
        self.moments.copy_(self.prior_covariance)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Moving average of ``E[zz']``, estimated by one draw a sample; every few steps it becomes Sigma."""
        if self._latest is None:
            return
        z = self._latest.double()
        second, n = sum_over_processes(z.mT @ z), sum_over_processes(z.new_full((), len(z)))
        self.moments.lerp_(second / n, 1 - MOMENT_DECAY)
        if step % UPDATE_EVERY == 0:
            self.set_prior(standardise_blocks(self.moments.cpu(), self.sizes).to(self.prior_covariance))

    @torch.no_grad()
    def end_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """EM recalibration: the prior becomes the aggregated posterior, its cross-blocks denoised at the end.

        Denoising inside the loop would compound where evidence is weak, because there the posterior repeats the prior.
        """
        self._latest = None
        for _ in range(RECALIBRATION_PASSES):
            first, second, n = torch.zeros_like(self.moments[0]), torch.zeros_like(self.moments), 0
            for batch in batches():
                q = self.posterior(self.encode(batch), batch, batch.present).gaussian
                mean = q.mean.to(first)
                first += mean.sum(0)
                second += q.covariance().to(second).sum(0) + mean.mT @ mean
                n += batch.n_samples
                if n >= RECALIBRATION_SAMPLES:
                    break
            center = first / n
            self.set_prior(second / n - torch.outer(center, center), center.to(self.prior_mean))
        self.set_prior(self._denoised(self.prior_covariance), self.prior_mean.clone())

    def _denoised(self, covariance: Tensor) -> Tensor:
        """Same diagonal blocks; cross-blocks shrunk after whitening."""
        device = covariance.device
        covariance = 0.5 * (covariance + covariance.mT).cpu()
        roots = torch.block_diag(*(symmetric_power(covariance[b, b], 0.5) for b in self.blocks.values()))
        shrunk = shrink_cross_blocks(standardise_blocks(covariance, self.sizes), self.sizes, self.pairs.cpu())
        return (roots @ shrunk @ roots).to(device)
