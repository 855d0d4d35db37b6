"""Latents and bounds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray

from omicvae.model._base import MultimodalModel
from omicvae.model._registered import Indices
from omicvae.model._sizes import whole_number

KINDS = ("joint", "shared", "private")


class LatentMixin(MultimodalModel):
    """Getters of latents, ELBO and reconstruction error."""

    @torch.inference_mode()
    def get_latent_representation(
        self,
        mdata: MuData | None = None,
        *,
        kind: str = "joint",
        modality: str | None = None,
        given: Sequence[str] | None = None,
        indices: Indices | None = None,
        return_dist: bool = False,
        n_samples: int | None = None,
        batch_size: int | None = None,
        return_numpy: bool = False,
    ) -> pd.DataFrame | tuple[pd.DataFrame, pd.DataFrame] | NDArray[np.float32] | tuple[NDArray[np.float32], ...]:
        """Latent representation of every sample, from the assays it has.

        Parameters
        ----------
        mdata
            Other data, matched by name; the model's own by default.
        kind
            ``"joint"`` (all latents), ``"shared"``, or ``"private"`` (of ``modality``).
        modality
            For ``kind="private"``.
        given
            Condition on these modalities only, as if the others had not been measured.
        indices
            Positions, names or a mask of samples.
        return_dist
            Return the mean and the variance of the posterior.
        n_samples
            Return posterior draws with a leading axis of this length, as an array.
        batch_size
            Samples at a time.
        return_numpy
            Arrays instead of DataFrames.

        Returns
        -------
        ``(n_obs, n_latent)`` posterior means; with ``return_dist`` also variances; with ``n_samples`` an array
        ``(n_samples, n_obs, n_latent)``. Private latents of a sample without that assay are NaN.

        Raises
        ------
        ValueError
            For an unknown kind or modality.
        RuntimeError
            If the model is not trained.
        """
        self._require_training()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
        if (kind == "private") != (modality is not None):
            raise ValueError("kind='private' needs modality=, and only kind='private' takes one")
        if n_samples is not None and return_dist:
            raise ValueError("ask for either n_samples or return_dist")
        if n_samples is not None:
            n_samples = whole_number("n_samples", n_samples)
        if modality is not None:
            self._check_modality(modality)
        cohort, readout, mask = self._cohort(mdata), self.module.readout(kind, modality), self._given(given)
        positions = self._positions(cohort, indices)
        shape = (len(positions), readout.matrix.shape[1])
        # Filled in place: small tensors kept from every minibatch would keep the heap from being used again.
        first = np.empty(shape if n_samples is None else (n_samples, *shape), np.float32)
        second = np.empty(shape if return_dist else (0, shape[1]), np.float32)
        start = 0
        for batch in self._batches(cohort, positions, batch_size):
            here = slice(start, start + batch.n_samples)
            start = here.stop
            used = batch.present & mask
            posterior = self.module.posterior(self.module.encode(batch), batch, used)
            blank = torch.zeros(batch.n_samples, 1, device=used.device)
            if modality is not None:
                blank[~used[:, self.modalities.index(modality)]] = torch.nan
            if n_samples is not None:
                drawn = (posterior.sample(n_samples) - readout.offset) @ readout.matrix + blank
                first[:, here] = drawn.cpu().numpy()
                continue
            centre, variance = posterior.project(readout.matrix)
            first[here] = (centre - readout.offset @ readout.matrix + blank).cpu().numpy()
            if return_dist:
                second[here] = (variance + blank).cpu().numpy()
        if n_samples is not None:
            return first
        if return_numpy:
            return (first, second) if return_dist else first
        columns = list(self.latent_names[kind if modality is None else f"private_{modality}"])
        index = cohort.obs_names[positions]
        mean = pd.DataFrame(first, index=index, columns=columns)
        return (mean, pd.DataFrame(second, index=index, columns=columns)) if return_dist else mean

    @torch.inference_mode()
    def get_elbo(
        self,
        mdata: MuData | None = None,
        *,
        indices: Indices | None = None,
        batch_size: int | None = None,
    ) -> float:
        """Evidence lower bound, mean over samples; higher is better.

        In the units of the registered values. Estimated with one posterior draw a sample, so it varies between calls.
        """
        self._require_training()
        total, n = 0.0, 0
        cohort = self._cohort(mdata)
        for batch in self._batches(cohort, self._positions(cohort, indices), batch_size):
            rec, kl = self.module.elbo(batch)
            total += float(torch.stack(list(rec.values())).sum() - kl.sum())
            n += batch.n_samples
        return total / n if n else float("nan")

    @torch.inference_mode()
    def get_reconstruction_error(
        self,
        mdata: MuData | None = None,
        *,
        indices: Indices | None = None,
        batch_size: int | None = None,
    ) -> dict[str, float]:
        """Modality -> expected negative log-likelihood given everything measured, mean over samples that have it."""
        self._require_training()
        total, n = dict.fromkeys(self.modalities, 0.0), dict.fromkeys(self.modalities, 0)
        cohort = self._cohort(mdata)
        for batch in self._batches(cohort, self._positions(cohort, indices), batch_size):
            rec, _ = self.module.elbo(batch)
            for m in self.modalities:
                total[m] -= float(rec[m].sum())
                n[m] += batch.rows[m].shape[0]
        return {m: total[m] / n[m] if n[m] else float("nan") for m in self.modalities}

    @torch.inference_mode()
    def get_marginal_ll(
        self,
        mdata: MuData | None = None,
        *,
        indices: Indices | None = None,
        n_samples: int = 1000,
        batch_size: int | None = None,
    ) -> float:
        """Importance-weighted estimate of the log-likelihood of what was measured, mean over samples.

        A lower bound in expectation that tightens with ``n_samples``; the proposal is the posterior given everything
        measured. Its value does not depend on the batch size. In the units of the registered values; sample by sample,
        of some assays, or given others, see :mod:`omicvae.metrics`.

        :class:`~omicvae.model.ProbabilisticCCA` gives the exact value at the posterior mean of its weights, without
        drawing anything; for counts, 0/1 values and reads, the density of their transformed, standardised values.

        References
        ----------
        Burda et al., *Importance weighted autoencoders*, ICLR 2016, eq. (8).
        """
        self._require_training()
        n_samples = whole_number("n_samples", n_samples)
        total, n = 0.0, 0
        cohort = self._cohort(mdata)
        for batch in self._batches(cohort, self._positions(cohort, indices), batch_size):
            total += float(self.module.likelihood_terms(batch, n_samples).log_likelihood.sum())
            n += batch.n_samples
        return total / n if n else float("nan")
