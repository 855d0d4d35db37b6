"""What an assay would have been, and how sure that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from mudata import MuData
from numpy.typing import NDArray
from torch.distributions import Distribution

from omicvae.data import Batch
from omicvae.data._schema import BATCH, batch_name
from omicvae.data._validate import listing
from omicvae.model._calibration import CalibrationMixin
from omicvae.model._held_out import calibrated_interval, calibrated_sample
from omicvae.model._registered import Indices
from omicvae.model._sizes import whole_number
from omicvae.module._prediction import Unknowns, draw_unknowns, moments_of, predictive_distribution
from omicvae.stats.calibrated_draws import LEAST_DRAWS
from omicvae.stats.quantiles import draws_needed

DRAWS = 100
HELD = 2**25  # numbers of one (draws, samples, features) array held at once
LAYERS = ("sd", "sd_latent", "sd_noise", "lower", "upper")


class ImputationMixin(CalibrationMixin):
    """Predictive distributions of modalities."""

    def impute(
        self,
        modality: str,
        *,
        given: Sequence[str] | None = None,
        mdata: MuData | None = None,
        indices: Indices | None = None,
        features: Sequence[str] | None = None,
        n_draws: int | Literal["auto"] = "auto",
        level: float | None = 0.9,
        scale: Literal["input", "normalized"] = "input",
        transform_batch: str | None = None,
        batch_size: int | None = None,
    ) -> AnnData:
        """Predict a modality for every sample from its *other* assays, whether it was measured or not.

        Each sample is conditioned on what it has of ``given``; a sample that has none of it is predicted from its batch
        alone. The predictive distribution holds what is not known: latents given the sources, library sizes and
        batches (drawn from their training distribution), and noise. Its intervals are calibrated on samples that the
        predictor has not seen, for each set of sources (:mod:`omicvae.stats.conformal`); a sample without any source,
        and models without held-out samples, have the intervals of the predictive distribution as it is.

        Parameters
        ----------
        modality
            What to predict.
        given
            Modalities to condition on; all others by default.
        mdata, indices
            Other data (matched by name), and which samples.
        features
            Features to return; all by default.
        n_draws
            Posterior draws a sample; ``"auto"`` takes 100, or more where ``level`` needs them.
        level
            Probability that the interval from ``lower`` to ``upper`` is to hold; ``None`` leaves intervals out, which
            is several times faster for counts and methylation levels.
        scale
            ``"input"``: units of the registered layer, counts at a library size that is not known and therefore drawn;
            ``"normalized"``: counts at the median library size. For ``betabinomial`` both are methylation levels.
        transform_batch
            Predict as if every sample were from this batch; the sample's own by default.
        batch_size
            Samples at a time.

        Returns
        -------
        AnnData with the samples asked for. ``X`` is the predictive mean; layers ``sd``, ``sd_latent`` (from latents,
        library size and batch), ``sd_noise`` (``sd**2`` is the sum of their squares), ``lower``, ``upper``;
        ``obs["source"]`` is ``"imputed"``, or ``"prior"`` where nothing could be conditioned on; ``obs["sources"]``
        lists what was.

        Raises
        ------
        ValueError
            For an unknown modality, feature or batch, or if ``modality`` is in ``given``.
        RuntimeError
            If the model is not trained.
        """
        return self._predict(
            modality, self._given(given, self._check_modality(modality)), mdata, indices, features, n_draws, level,
            scale, transform_batch, batch_size,
        )  # fmt: skip

    def get_denoised(
        self,
        modality: str,
        *,
        mdata: MuData | None = None,
        indices: Indices | None = None,
        features: Sequence[str] | None = None,
        n_draws: int | Literal["auto"] = "auto",
        level: float | None = 0.9,
        scale: Literal["input", "normalized"] = "input",
        transform_batch: str | None = None,
        batch_size: int | None = None,
    ) -> AnnData:
        """Predict a modality from everything measured, itself included.

        As :meth:`impute`, but a sample that has the assay is conditioned on it too, and its own library size is used:
        the result is the measurement with noise removed. ``obs["source"]`` is ``"observed"`` for those samples.
        """
        self._check_modality(modality)
        return self._predict(
            modality, self._given(None), mdata, indices, features, n_draws, level, scale, transform_batch, batch_size
        )

    @torch.inference_mode()
    def sample(
        self,
        modality: str,
        *,
        given: Sequence[str] | None = None,
        n_samples: int = 1,
        mdata: MuData | None = None,
        indices: Indices | None = None,
        scale: Literal["input", "normalized"] = "input",
        transform_batch: str | None = None,
        batch_size: int | None = None,
    ) -> NDArray[np.float32]:
        """``(n_samples, n_obs, n_vars)`` draws of the predictive distribution of :meth:`impute`.

        All features of one draw come from the same latents, so draws keep the correlations between features. Draws are
        calibrated as intervals are (:mod:`omicvae.stats.calibrated_draws`); as skewed counts have another mean once
        their distribution is wider or narrower, their average is near ``impute(...).X``, not the same.
        """
        self._require_training()
        mask = self._given(given, self._check_modality(modality))
        category = self._transform_code(modality, transform_batch)
        _check_choice("scale", scale, ("input", "normalized"))
        n_samples = whole_number("n_samples", n_samples)
        cohort = self._cohort(mdata)
        positions = self._positions(cohort, indices)
        drawn = np.zeros((n_samples, len(positions), self.schema[modality].n_vars), np.float32)
        draws = max(n_samples, LEAST_DRAWS)
        size = batch_size or int(np.clip(HELD // (draws * self.schema[modality].n_vars), 1, 512))
        for rows, used in patterns_of(cohort.present[positions] & mask.cpu().numpy()):
            conformal = self._interval_basis(used, self.modalities.index(modality))
            done = 0
            for batch in self._batches(cohort, positions[rows], size):
                distribution = self._distribution(
                    batch, modality, used, n_samples if conformal is None else draws, scale, category
                )
                values = calibrated_sample(self.module.likelihoods.of(modality), distribution, conformal)
                drawn[:, rows[done : done + batch.n_samples]] = values[:n_samples].cpu().numpy()
                done += batch.n_samples
        return drawn

    def _distribution(
        self,
        batch: Batch,
        modality: str,
        used: NDArray[np.bool_],
        n_draws: int,
        scale: Literal["input", "normalized"] = "input",
        transform_batch: int | None = None,
    ) -> Distribution:
        """``(K, B, p)`` predictive distribution of samples that all have the assays ``used`` ``(M,)``."""
        known = torch.full((batch.n_samples,), bool(used[self.modalities.index(modality)]), device=self.module.device)
        unknowns = draw_unknowns(
            self.module, batch, modality, known, n_draws, scale=scale, transform_batch=transform_batch
        )
        return self._decoded(batch, modality, used, unknowns, n_draws)

    def _decoded(
        self, batch: Batch, modality: str, used: NDArray[np.bool_], unknowns: Unknowns, n_draws: int
    ) -> Distribution:
        """The same, with library sizes and covariates drawn."""
        given = torch.from_numpy(used).to(self.module.device)
        return predictive_distribution(self.module, batch, modality, given, n_draws, unknowns=unknowns).distribution

    def _transform_code(self, modality: str, batch: str | None) -> int | None:
        """Code of the batch to decode as."""
        if batch is None:
            return None
        names = (BATCH, batch_name(modality))
        found = [c for c in self.schema.covariates_of(modality) if c.name in names]
        if not found:
            raise ValueError(f"transform_batch={batch!r}, but modality {modality!r} was set up without a batch_key")
        if str(batch) not in found[0].categories:
            raise ValueError(f"transform_batch={batch!r} is not one of the batches {list(found[0].categories)}")
        return found[0].categories.index(str(batch))

    def _feature_positions(self, modality: str, features: Sequence[str] | None) -> NDArray[np.intp]:
        names = pd.Index(self.schema[modality].var_names)
        if features is None:
            return np.arange(len(names), dtype=np.intp)
        if isinstance(features, str):
            raise TypeError(f"features must be a list of names, got the text {features!r}")
        positions = names.get_indexer(pd.Index(features))
        if (positions < 0).any():
            unknown = [f for f, p in zip(features, positions, strict=True) if p < 0]
            raise ValueError(f"modality {modality!r} has no features {listing(unknown)}")
        return positions.astype(np.intp)

    @torch.inference_mode()
    def _predict(
        self,
        modality: str,
        mask: torch.Tensor,
        mdata: MuData | None,
        indices: Indices | None,
        features: Sequence[str] | None,
        n_draws: int | Literal["auto"],
        level: float | None,
        scale: Literal["input", "normalized"],
        transform_batch: str | None,
        batch_size: int | None,
    ) -> AnnData:
        self._require_training()
        _check_choice("scale", scale, ("input", "normalized"))
        draws = _draws(n_draws, level)
        category = self._transform_code(modality, transform_batch)
        columns = self._feature_positions(modality, features)
        cohort = self._cohort(mdata)
        positions = self._positions(cohort, indices)
        size = batch_size or int(np.clip(HELD // (draws * self.schema[modality].n_vars), 1, 512))
        kept = ("mean", *(LAYERS if level is not None else LAYERS[:3]))
        values = {name: np.zeros((len(positions), len(columns)), np.float32) for name in kept}
        conditioned = cohort.present[positions] & mask.cpu().numpy()
        for rows, used in patterns_of(conditioned):
            done = 0
            for batch in self._batches(cohort, positions[rows], size):
                distribution = self._distribution(batch, modality, used, draws, scale, category)
                found = self._summarised(modality, distribution, used, level)
                for name, value in found.items():
                    values[name][rows[done : done + batch.n_samples]] = value.cpu().numpy()[:, columns]
                done += batch.n_samples
        return self._annotated(modality, values, cohort.obs_names[positions], columns, conditioned)

    def _summarised(
        self, modality: str, distribution: Distribution, used: NDArray[np.bool_], level: float | None
    ) -> dict[str, torch.Tensor]:
        """Moments and, at a ``level``, the calibrated interval."""
        moments = moments_of(distribution)
        found = moments._asdict()
        if level is None:
            return found
        target = self.modalities.index(modality)
        conformal = None if used[target] else self._interval_basis(used, target)
        likelihood = self.module.likelihoods.of(modality)
        limits = calibrated_interval(likelihood, distribution, level, conformal, moments.mean, moments.sd)
        return {**found, "lower": limits[0], "upper": limits[1]}

    def _annotated(
        self,
        modality: str,
        values: dict[str, NDArray[np.float32]],
        names: pd.Index,
        columns: NDArray[np.intp],
        used: NDArray[np.bool_],
    ) -> AnnData:
        own = used[:, self.modalities.index(modality)]
        source = np.where(own, "observed", np.where(used.any(1), "imputed", "prior"))
        sources = ["+".join(m for m, u in zip(self.modalities, row, strict=True) if u) for row in used]
        obs = pd.DataFrame({"source": source.astype(object), "sources": np.asarray(sources, dtype=object)}, index=names)
        obs["source"] = pd.Categorical(
            obs["source"], categories=["observed", "imputed", "prior"]
        ).remove_unused_categories()
        var = pd.DataFrame(index=pd.Index(np.asarray(self.schema[modality].var_names)[columns]))
        return AnnData(values["mean"], obs=obs, var=var, layers={k: v for k, v in values.items() if k != "mean"})


def _check_choice(argument: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{argument} must be one of {list(allowed)}, got {value!r}")


def patterns_of(used: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """For every combination of assays that occurs in ``used`` ``(n, M)``: the rows that have it, and it ``(M,)``."""
    patterns, group = np.unique(used, axis=0, return_inverse=True)
    for k, pattern in enumerate(patterns):
        yield np.flatnonzero(group.reshape(-1) == k), pattern


def _draws(n_draws: int | Literal["auto"], level: float | None) -> int:
    """Number of posterior draws, enough for the interval that is asked for."""
    if level is not None and not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    least = 2 if level is None else draws_needed(level)
    if n_draws == "auto":
        return max(DRAWS, least)
    draws = whole_number("n_draws", n_draws, least=2)
    if draws < least:
        raise ValueError(f"n_draws={draws} cannot resolve a {level:.0%} interval; at least {least} can")
    return draws
