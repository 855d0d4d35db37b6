"""CoVAE as published: a joint encoder for complete samples, unimodal encoders for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._base import dense
from omicvae.module._covae import CorrelatedPriorModule, GaussianPosterior
from omicvae.module._per_modality import PerModality
from omicvae.module._records import Evidence, Pass, alone
from omicvae.nn import Encoder, NetworkConfig, Perceptron
from omicvae.stats.gaussian import (
    CovarianceGaussian,
    GaussianPrior,
    cholesky,
    conditional,
    diagonal_kl,
    gaussian_prior,
)

EPSILON = 1e-4  # the paper does not state its epsilon
LEAST_SD = 1e-3
JITTER = 1e-6


class JointEncoderModule(CorrelatedPriorModule):
    r"""Correlated VAE :cite:p:`caretti2026covae` with the paper's posterior and objective.

    For complete samples, eq. (3), with :math:`q(z|x) = N(\mu, LL' + \varepsilon I)` from a joint encoder:

    .. math:: E_{q(z|x)} \Big[\sum_k \log p(x_k|z_k)\Big] - \beta \, \mathrm{KL}(q(z|x) \,\|\, N(0, \Sigma))

    and for every modality ``k`` that a sample has, eq. (4) with weight :math:`\lambda`: :math:`z_k \sim q_k(z_k|x_k)`,
    :math:`z_{-k} \sim p(z_{-k}|z_k)` by eq. (2), all modalities decoded,
    :math:`-\beta\, \mathrm{KL}(q_k \,\|\, N(0, I))`. :math:`\Sigma` comes from Deep CCA or distance-correlation
    pre-training (:func:`omicvae.train.pretrain_prior`) and stays fixed, or is trained on by the gradient of both terms
    (appendix B); its diagonal blocks are the identity either way. A sample that lacks an assay is represented by
    its unimodal posteriors and eq. (2).

    It reproduces the paper. Held at a constant weight, eq. (4) moves codes away from where conditional draws fall, and
    the model's 90 % intervals cover 36 to 55 %: for use, take :class:`~omicvae.module.CoVAEModule`.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    n_latent
        modality -> width of its latent block.
    pretraining
        ``"cca"`` or ``"dcor"``.
    cross_weight
        :math:`\lambda`.
    trains_prior
        Whether :math:`\Sigma` is trained on. The paper advises against it: correlations come out too high.
    cross_diagonal
        Of two modalities: :math:`q(z|x)` correlates latent ``i`` of one with latent ``i`` of the other alone, by a number
        between 0 and 1 (eq. 5 and appendix C), instead of any two by a Cholesky factor.

    Raises
    ------
    ValueError
        For an unknown ``pretraining``, and for ``cross_diagonal`` with any other number of modalities than two.
    """

    def __init__(
        self,
        schema: Schema,
        network: NetworkConfig,
        n_latent: dict[str, int],
        *,
        pretraining: str = "cca",
        cross_weight: float = 1.0,
        trains_prior: bool = False,
        cross_diagonal: bool = False,
    ) -> None:
        super().__init__(schema, network, n_latent)
        if pretraining not in ("cca", "dcor"):
            raise ValueError(f"pretraining must be 'cca' or 'dcor', got {pretraining!r}")
        if cross_diagonal and len(self.modalities) != 2:
            raise ValueError(
                f"a cross-diagonal posterior is for two modalities, there are {len(self.modalities)}: for more the "
                "covariance may be indefinite; use posterior='joint_encoder'"
            )
        self.pretraining, self.cross_weight, self.cross_diagonal = pretraining, cross_weight, cross_diagonal
        self.encoders = PerModality(
            self.modalities,
            lambda m: Encoder(schema[m].n_vars, self.encoder_design_width(m), n_latent[m], network, scale_start=0.0),
        )
        D = sum(self.sizes)
        widths = [schema[m].n_vars + self.encoder_design_width(m) for m in self.modalities]
        self.joint_hidden = Perceptron(sum(widths), network)
        self.joint_mean = nn.Linear(self.joint_hidden.n_out, D)
        n_free = D + min(self.sizes) if cross_diagonal else D * (D + 1) // 2
        self.joint_spread = nn.Linear(self.joint_hidden.n_out, n_free)
        nn.init.normal_(self.joint_spread.weight, std=0.01)
        self.register_buffer("tril_at", torch.tril_indices(D, D))
        self.prior_factor = nn.Parameter(torch.eye(D, dtype=torch.float64)) if trains_prior else None

    def begin_training(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """Training statistics; the prior is pre-trained by :func:`omicvae.train.pretrain_prior`."""
        self.fit_statistics(batches)
        self.count_pairs(batches())

    def start_prior(self, covariance: Tensor) -> None:
        """The prior that pre-training found; where it is trained on, training begins with it."""
        self.set_prior(covariance)
        if self.prior_factor is not None:
            with torch.no_grad():
                self.prior_factor.copy_(torch.linalg.cholesky(covariance.double()))

    def trained_prior(self) -> GaussianPrior:
        """The prior with its gradient: ``F F'``, each diagonal block made the identity by its own Cholesky factor."""
        assert self.prior_factor is not None
        factor = self.prior_factor.tril()
        wide = factor @ factor.mT
        roots = torch.block_diag(*(torch.linalg.cholesky(wide[b, b]) for b in self.blocks.values()))
        rows = torch.linalg.solve_triangular(roots, factor, upper=False)
        return gaussian_prior(self.prior_mean, rows @ rows.mT)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Where the prior is trained on, inference follows it."""
        if self.prior_factor is not None:
            self.set_prior(self.trained_prior().covariance.double())

    def encode(self, batch: Batch) -> dict[str, Evidence]:
        """Mean and standard deviation of each unimodal posterior, for the packed rows."""
        found = {}
        for m in self.modalities:
            location, raw = self.encoders.of(m)(*self.encoder_inputs(batch, m))
            found[m] = Evidence(location, F.softplus(raw) + LEAST_SD)
        return found

    def joint_posterior(self, batch: Batch) -> CovarianceGaussian:
        """Joint encoder of every sample; meaningful for complete ones only."""
        inputs = []
        for m in self.modalities:
            values, design = self.encoder_inputs(batch, m)
            full = values if design is None else torch.cat([values, design], -1)
            inputs.append(dense(Evidence(full, full), batch.rows[m], batch.n_samples).location)
        hidden = self.joint_hidden(torch.cat(inputs, -1))
        mean, raw = self.joint_mean(hidden), self.joint_spread(hidden)
        covariance = self._cross_diagonal(raw) if self.cross_diagonal else self._full(raw)
        return CovarianceGaussian(mean, cholesky(covariance + EPSILON * torch.eye(mean.shape[-1], device=mean.device)))

    def _full(self, raw: Tensor) -> Tensor:
        """``L L'`` of a lower factor with a positive diagonal."""
        D = sum(self.sizes)
        L = torch.zeros(len(raw), D, D, device=raw.device)
        L[:, self.tril_at[0], self.tril_at[1]] = raw
        diagonal = F.softplus(torch.diagonal(L, dim1=1, dim2=2))
        L = torch.tril(L, -1) + torch.diag_embed(diagonal)
        return L @ L.mT

    def _cross_diagonal(self, raw: Tensor) -> Tensor:
        """Variances, and correlations in (0, 1) on the diagonal of the cross-block."""
        D, (first, second) = sum(self.sizes), self.blocks.values()
        sd = F.softplus(raw[:, :D]) + LEAST_SD
        n = min(self.sizes)
        i, j = torch.arange(n) + first.start, torch.arange(n) + second.start
        covariance = torch.diag_embed(sd.square())
        covariance[:, i, j] = covariance[:, j, i] = torch.sigmoid(raw[:, D:]) * sd[:, i] * sd[:, j]
        return covariance

    def passes(self, evidence: dict[str, Evidence], batch: Batch, progress: float) -> list[Pass]:
        complete = batch.present.all(1).float()
        q = self.joint_posterior(batch)
        trained = self.prior_factor is not None and self.training
        prior = self.trained_prior() if trained else self.prior
        joint = Pass(
            name="joint",
            sources=batch.present & (complete > 0)[:, None],
            latents=self.decoder_inputs(q.rsample(1)),
            weights=dict.fromkeys(self.modalities, complete),
            route=dict.fromkeys(self.modalities, "own"),
            kl={"joint": (q.kl(prior) * complete).unsqueeze(0)},
            elbo_weight=complete,
        )
        return [joint, *(self._conditional(m, evidence, batch, complete, prior) for m in self.modalities)]

    def _conditional(
        self, m: str, evidence: dict[str, Evidence], batch: Batch, complete: Tensor, prior: GaussianPrior
    ) -> Pass:
        """Eq. (4) for one source."""
        column = self.modalities.index(m)
        here = batch.present[:, column].float()
        location, scale = dense(evidence[m], batch.rows[m], batch.n_samples)
        scale = scale + (1 - here).unsqueeze(-1)  # any positive value: rows without the assay have weight 0
        z = location + scale * torch.randn_like(location)
        observed = torch.zeros(sum(self.sizes), dtype=torch.bool, device=z.device)
        observed[self.blocks[m]] = True
        A, tril = conditional(prior, observed)
        full = torch.zeros(len(z), len(observed), device=z.device)
        full[:, observed] = z
        full[:, ~observed] = z @ A.mT + torch.randn(len(z), A.shape[0], device=z.device) @ tril.mT
        return Pass(
            name=f"{m}->",
            sources=alone(batch.present, column),
            latents=self.decoder_inputs(full.unsqueeze(0)),
            weights={t: self.cross_weight * here * batch.present[:, i] for i, t in enumerate(self.modalities)},
            route=dict.fromkeys(self.modalities, "own"),
            kl={m: (diagonal_kl(location, scale.square()) * here).unsqueeze(0)},
            kl_weights={m: self.cross_weight},
            elbo_weight=here * (1 - complete) / batch.present.sum(1).clamp_min(1),
        )

    def posterior(self, evidence: dict[str, Evidence], batch: Batch, given: Tensor) -> GaussianPosterior:
        D = sum(self.sizes)
        mean = torch.zeros(batch.n_samples, D, device=given.device)
        tril = torch.zeros(batch.n_samples, D, D, device=given.device)
        full = {m: dense(evidence[m], batch.rows[m], batch.n_samples) for m in self.modalities}
        joint = self.joint_posterior(batch)
        for pattern in torch.unique(given, dim=0):
            rows = (given == pattern).all(1)
            if pattern.all():
                mean[rows], tril[rows] = joint.mean[rows], joint.tril[rows]
            else:
                mean[rows], tril[rows] = self._by_regression(full, rows, pattern)
        return GaussianPosterior(CovarianceGaussian(mean, tril))

    def _by_regression(self, full: dict[str, Evidence], rows: Tensor, pattern: Tensor) -> tuple[Tensor, Tensor]:
        """Unimodal posteriors of the observed blocks, the others by eq. (2)."""
        D, n = sum(self.sizes), int(rows.sum())
        observed = torch.cat([p.expand(s) for p, s in zip(pattern, self.sizes, strict=True)])
        mean, factor = torch.zeros(n, D, device=rows.device), torch.zeros(n, D, D, device=rows.device)
        location = torch.cat([full[m].location[rows] for m in self.modalities], -1)[:, observed]
        scale = torch.cat([full[m].scale[rows] for m in self.modalities], -1)[:, observed]
        inside, outside = torch.nonzero(observed).squeeze(-1), torch.nonzero(~observed).squeeze(-1)
        mean[:, inside] = location
        factor[:, inside[:, None], inside] = torch.diag_embed(scale)
        if observed.any():
            A, tril = conditional(self.prior, observed)
            mean[:, outside] = location @ A.mT
            factor[:, outside[:, None], inside] = A * scale.unsqueeze(1)
        else:
            tril = self.prior.tril
        factor[:, outside[:, None], outside] = tril
        covariance = factor @ factor.mT + JITTER * torch.eye(D, device=rows.device)
        return mean, torch.linalg.cholesky(covariance)
