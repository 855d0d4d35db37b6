"""What an assay would show in samples that lack it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from omicvae.data import Batch
from omicvae.module import CoVAEModule
from omicvae.module._prediction import draw_unknowns
from omicvae.nn.likelihoods import Observed


class Measurements:
    """Draws of what measuring one modality would show in some samples of a minibatch, on the scale of the encoders.

    Parameters
    ----------
    module, batch
        The model, and the samples.
    target
        Position of the modality.
    mean
        ``(B, D)`` posterior means.
    rows
        ``(n,)`` the samples asked about.
    coverage
        modality -> ``(p,)`` total reads to expect, for modalities that have a coverage.
    """

    def __init__(
        self, module: CoVAEModule, batch: Batch, target: int, mean: Tensor, rows: Tensor, coverage: Mapping[str, Tensor]
    ) -> None:
        self.module, self.batch, self.target, self.rows = module, batch, target, rows
        self.name = module.modalities[target]
        self.block = module.blocks[self.name]
        self.mean = mean[rows, self.block]
        self.likelihood = module.likelihoods.of(self.name)
        self.coverage = coverage.get(self.name)

    def __call__(self, deviation: Tensor, chosen: Tensor) -> Tensor:
        """``(K, n, p)`` measurements, noise included, at the posterior mean plus a deviation.

        Parameters
        ----------
        deviation
            ``(K, n, d)`` of the target's latents.
        chosen
            ``(n,)`` which of the rows.
        """
        z = self.mean[chosen] + deviation.to(self.mean)
        k, n = z.shape[:2]
        nothing = torch.zeros(self.batch.n_samples, dtype=torch.bool, device=z.device)
        unknowns = draw_unknowns(self.module, self.batch, self.name, nothing, k, scale="normalized")
        design, size = (None if v is None else v[:, self.rows[chosen]] for v in (unknowns.design, unknowns.size))
        noise = torch.full((k, n), self.module.predictive_route(False), device=z.device)
        eta = self.module.decode(self.name, z, design, noise)
        x = self.likelihood(eta, noise=noise, size=size, coverage=self.coverage).sample().flatten(0, 1)
        flat = Observed(
            x, None if size is None else size.flatten(), None if self.coverage is None else self.coverage.expand_as(x)
        )
        return self.likelihood.encode_transform(flat).unflatten(0, (k, n))
