"""Samples that never were: latents from the prior, or from a mixture fitted to where training samples lie."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from scvi import settings
from sklearn.mixture import GaussianMixture
from torch import Tensor

from omicvae.data import Batch
from omicvae.model._base import MultimodalModel
from omicvae.model._sizes import whole_number
from omicvae.module._prediction import draw_unknowns
from omicvae.nn.likelihoods import OWN

MOST_FITTED = 5000
"""Training samples that a mixture is fitted to."""


class GenerationMixin(MultimodalModel):
    """Unconditional generation."""

    @torch.inference_mode()
    def generate(
        self,
        n_samples: int,
        *,
        from_: Literal["prior", "mixture"] = "prior",
        n_components: int = 10,
        batch_size: int | None = None,
    ) -> MuData:
        """Draw complete samples from the generative model.

        Latents are drawn from the prior, or from a Gaussian mixture fitted to the aggregated posterior (one draw for
        every training sample), which is where decoders have been trained. Covariates are those of training samples
        taken at random, library sizes are drawn, and values have their noise.

        Parameters
        ----------
        n_samples
            How many.
        from_
            ``"prior"`` or ``"mixture"``.
        n_components
            Gaussians of the mixture, with full covariances; no more than a tenth of the training samples.
        batch_size
            Samples at a time.

        Returns
        -------
        MuData with all modalities of ``n_samples`` samples, in the units of the registered layers (levels for
        ``betabinomial``); ``obs["covariates_of"]`` names the training sample whose covariates were used.

        Raises
        ------
        ValueError
            For an unknown ``from_``, or a model loaded without data.
        RuntimeError
            If the model is not trained.
        """
        self._require_training()
        n_samples, n_components = whole_number("n_samples", n_samples), whole_number("n_components", n_components)
        if from_ not in ("prior", "mixture"):
            raise ValueError(f"from_ must be 'prior' or 'mixture', got {from_!r}")
        if self.adata is None:
            raise ValueError(
                "the model was loaded without data, whose covariates generated samples have: load it with data"
            )
        cohort, train = self._own_cohort(), np.asarray(self.train_indices, dtype=np.intp)
        rng = np.random.default_rng(settings.seed if settings.seed is not None else None)
        like = rng.choice(train, n_samples)
        mixture = self._aggregated_posterior(train, n_components, rng) if from_ == "mixture" else None
        parts: dict[str, list[NDArray[np.float32]]] = {m: [] for m in self.modalities}
        for batch in self._batches(cohort, like, batch_size):
            z = self._prior_draws(batch) if mixture is None else self._mixture_draws(mixture, batch)
            for m in self.modalities:
                parts[m].append(self._measure(m, z, batch).cpu().numpy())
        names = pd.Index([f"generated_{i}" for i in range(n_samples)])
        mods = {
            m: AnnData(
                np.concatenate(x), obs=pd.DataFrame(index=names), var=pd.DataFrame(index=list(self.schema[m].var_names))
            )
            for m, x in parts.items()
        }
        mdata = MuData(mods)
        mdata.obs["covariates_of"] = self.adata.obs_names[like].to_numpy()
        return mdata

    def _prior_draws(self, batch: Batch) -> Tensor:
        """``(B, D)``: what a posterior given nothing is."""
        nothing = torch.zeros_like(batch.present)
        return self.module.posterior(self.module.encode(batch), batch, nothing).sample(1)[0]

    def _aggregated_posterior(
        self, train: NDArray[np.intp], n_components: int, rng: np.random.Generator
    ) -> GaussianMixture:
        """A mixture fitted to one draw of the latents of every training sample."""
        chosen = train if len(train) <= MOST_FITTED else rng.choice(train, MOST_FITTED, replace=False)
        draws = [
            self.module.posterior(self.module.encode(batch), batch, batch.present).sample(1)[0].cpu().numpy()
            for batch in self._batches(self._own_cohort(), chosen, None)
        ]
        n = max(1, min(n_components, len(chosen) // 10))
        seed = int(rng.integers(2**31))
        return GaussianMixture(n, reg_covar=1e-4, random_state=seed).fit(np.concatenate(draws).astype(np.float64))

    def _mixture_draws(self, mixture: GaussianMixture, batch: Batch) -> Tensor:
        drawn, _ = mixture.sample(batch.n_samples)
        order = np.random.default_rng(mixture.random_state).permutation(len(drawn))  # they come sorted by component
        mixture.random_state = mixture.random_state + 1  # the next minibatch has other draws
        return torch.from_numpy(drawn[order].astype(np.float32)).to(self.module.device)

    def _measure(self, modality: str, z: Tensor, batch: Batch) -> Tensor:
        """``(B, p)`` noisy values of a modality at latents ``(B, D)``."""
        unknown = torch.zeros(batch.n_samples, dtype=torch.bool, device=z.device)
        unknowns = draw_unknowns(self.module, batch, modality, unknown, 1)
        inputs = self.module.decoder_inputs(z.unsqueeze(0))[modality]
        route = torch.full((batch.n_samples,), OWN, device=z.device)
        eta = self.module.decode(modality, inputs, unknowns.design, route)
        distribution = self.module.likelihoods.of(modality)(eta, noise=route, size=unknowns.size, coverage=None)
        return distribution.sample()[0]
