"""How true a model's predictions are, measured on samples it was not fitted on, and intervals made true by it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from numpy.typing import NDArray

from omicvae.data import Batch
from omicvae.model._base import MultimodalModel
from omicvae.model._held_out import FOR_INTERVALS, FOR_REPORTS, MOST_VALUES, Part, Scored, for_trust, score
from omicvae.model._report import feature_table, held_out_anndata, pattern_table
from omicvae.module._prediction import Unknowns, predictive_distribution
from omicvae.stats.conformal import Conformal, fit_conformal
from omicvae.stats.patterns import assign_folds, default_patterns

N_FOLDS = 5
LEAST_HELD_OUT = 10
"""Samples below which an error says nothing about others."""
TRUST_VALUES, TRUST_SAMPLES = MOST_VALUES // 4, 1000
"""Held-out values, and samples at least, that are scored in training: a feature's coverage is then known to .01."""
TRUST_COLUMNS = (
    *("n_obs", "r2", "spearman", "coverage90", "crps", "skill_vs_mean", "skill_vs_ridge"),
    "imputable",
)

Pattern = tuple[tuple[int, ...], int]


class CalibrationMixin(MultimodalModel):
    """Calibration after training, and what it found."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._conformal: dict[Pattern, Conformal] = {}
        self._trust: dict[str, pd.DataFrame] = {}

    # ------------------------------------------------------------------ what models differ in

    def _fitted_positions(self) -> NDArray[np.intp]:
        """Samples that took part in fitting, early stopping or calibration."""
        parts = [self.train_indices, self.validation_indices, self.calibration_indices]
        return np.sort(
            np.concatenate([np.zeros(0, np.intp), *(np.asarray(p, np.intp) for p in parts if p is not None)])
        )

    def _held_out_part(self, sources: tuple[int, ...], target: int, positions: NDArray[np.intp]) -> Part | None:
        """Those of ``positions`` that can be predicted from ``sources`` by what has not seen them."""
        held = self.calibration_indices
        if held is None or len(held) < LEAST_HELD_OUT:
            return None
        asked = np.zeros(len(self._own_cohort()), dtype=np.bool_)
        asked[positions] = True
        chosen = np.sort(held[asked[held]])
        if len(chosen) < LEAST_HELD_OUT:
            return None
        given = torch.zeros(len(self.modalities), dtype=torch.bool, device=self.module.device)
        given[list(sources)] = True
        name = self.modalities[target]

        def predict(
            rows: NDArray[np.intp], batch: Batch, unknowns: Unknowns, n_draws: int
        ) -> torch.distributions.Distribution:
            return predictive_distribution(self.module, batch, name, given, n_draws, unknowns=unknowns).distribution

        folds = assign_folds(np.ones((len(chosen), 1), bool), N_FOLDS, seed=0)
        return Part(chosen, folds, sources, target, predict)

    # ------------------------------------------------------------------ after training

    def _calibrate(self) -> None:
        """Fit intervals for every set of sources, and measure how far each feature can be trusted."""
        self._conformal, self._trust = {}, {}
        present = self._own_cohort().present[self._fitted_positions()]
        for target, name in enumerate(self.modalities):
            mine = [self._scored(key) for key in default_patterns(present) if key[1] == target]
            self._fit_intervals(target, [s for s in mine if s is not None])
            scored = list(self._scored_as_measured(name, in_training=True))
            if scored:
                self._trust[name] = feature_table(self, name, scored)

    def _scored(self, key: Pattern) -> Scored | None:
        """What intervals are made from: all samples that have the sources and the target."""
        cohort = self._own_cohort()
        fitted = self._fitted_positions()
        sources, target = key
        have = fitted[cohort.present[fitted][:, [*sources, target]].all(1)]
        part = self._held_out_part(sources, target, have)
        if part is None or len(part.positions) < LEAST_HELD_OUT:
            return None
        part = part.thinned(max(LEAST_HELD_OUT, MOST_VALUES // self.schema[self.modalities[target]].n_vars))
        return score(self.module, cohort, part, FOR_INTERVALS)

    def _fit_intervals(self, target: int, scored: list[Scored]) -> None:
        for one in scored:
            others = [s.conformity for s in scored if s is not one]
            found = fit_conformal(one.conformity, others)
            if found is not None:
                self._conformal[one.part.sources, target] = found

    def _scored_as_measured(
        self, modality: str, given: Sequence[str] | None = None, *, in_training: bool = False
    ) -> Iterator[Scored]:
        """Scores of samples from the sources they have, one part a set of sources; of fewer samples in training."""
        cohort, target = self._own_cohort(), self.modalities.index(modality)
        fitted = self._fitted_positions()
        fitted = fitted[cohort.present[fitted, target]]
        used = cohort.present[fitted] & self._given(given, modality).cpu().numpy()
        for pattern in np.unique(used, axis=0)[::-1]:
            if not pattern.any():
                continue
            sources = tuple(np.flatnonzero(pattern).tolist())
            part = self._held_out_part(sources, target, fitted[(used == pattern).all(1)])
            if part is not None and len(part.positions) >= LEAST_HELD_OUT:
                n_vars = self.schema[modality].n_vars
                limit = max(LEAST_HELD_OUT, MOST_VALUES // n_vars)
                if in_training:
                    limit = min(limit, max(TRUST_SAMPLES, TRUST_VALUES // n_vars))
                part = part.thinned(limit)
                yield score(self.module, cohort, part, for_trust(part) if in_training else FOR_REPORTS)

    def _interval_basis(self, used: NDArray[np.bool_], target: int) -> Conformal | None:
        """Calibration of predictions from the assays marked in ``used``: of this set, else of the most similar one."""
        sources = tuple(np.flatnonzero(used).tolist())
        if (sources, target) in self._conformal:
            return self._conformal[sources, target]
        fitted = [k for k in self._conformal if k[1] == target and sources]
        if not fitted:
            return None
        nearest = max(fitted, key=lambda k: (len(set(k[0]) & set(sources)) - len(set(k[0]) - set(sources)), -len(k[0])))
        return self._conformal[nearest]

    # ------------------------------------------------------------------ saving

    def _extra_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = super()._extra_arrays()
        for (sources, target), conformal in self._conformal.items():
            stem = f"conformal/{'-'.join(map(str, sources))}/{target}"
            arrays |= {f"{stem}/{name}": value for name, value in conformal._asdict().items()}
        for m, name in enumerate(self.modalities):
            if name in self._trust:
                arrays |= {f"trust/{m}/{c}": self._trust[name][c].to_numpy() for c in TRUST_COLUMNS}
        return arrays

    def _restore_extra(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_extra(arrays)
        self._conformal, self._trust = {}, {}
        for stem in {name.rsplit("/", 1)[0] for name in arrays if name.startswith("conformal/")}:
            _, sources, target = stem.split("/")
            key = tuple(int(s) for s in sources.split("-")), int(target)
            self._conformal[key] = Conformal(*(arrays[f"{stem}/{field}"] for field in Conformal._fields))
        for m, name in enumerate(self.modalities):
            if f"trust/{m}/r2" in arrays:
                columns = {c: arrays[f"trust/{m}/{c}"] for c in TRUST_COLUMNS}
                self._trust[name] = pd.DataFrame(columns, index=pd.Index(self.schema[name].var_names))

    # ------------------------------------------------------------------ reports

    def get_held_out_predictions(
        self, modality: str, *, given: Sequence[str] | None = None, level: float = 0.9
    ) -> AnnData:
        """Measured values beside predictions by fits that have not seen them.

        Every sample that has ``modality`` and at least one source, as far as it can be predicted out of sample:
        cross-fitted where the prediction is in closed form, the calibration samples where a network takes part. At
        most some millions of values, evenly spread over samples.

        Parameters
        ----------
        modality
            What is predicted.
        given
            Modalities to condition on; all others by default.
        level
            Of the intervals, which are calibrated on folds other than the sample's own.

        Returns
        -------
        AnnData with ``X`` the measured values, NaN where not measured (for ``betabinomial`` fractions of reads), and
        layers ``imputed`` (predictive mean), ``imputed_normalized`` (of counts at the median library size),
        ``imputed_sd``, ``imputed_lower``, ``imputed_upper``, ``pit`` (randomised probability integral transform of the
        calibrated distribution) and ``crps`` (in training standard deviations of the encoder's scale, the library size
        given); ``obs["sources"]``.

        Raises
        ------
        ValueError
            For an unknown modality, ``modality`` in ``given``, or a model loaded without data.
        RuntimeError
            If the model is not trained, or no sample was held out.
        """
        self._check_reportable(modality)
        self._given(given, modality)
        scored = list(self._scored_as_measured(modality, given))
        if not scored:
            raise RuntimeError(
                f"no sample that has {modality!r} and another modality was held out: nothing to compare with"
            )
        return held_out_anndata(self, modality, scored, level)

    def trust(self, modality: str) -> pd.DataFrame:
        """How far each imputed feature can be trusted, measured on samples the predictor had not seen.

        Parameters
        ----------
        modality
            What is predicted, from all other assays each sample has.

        Returns
        -------
        DataFrame with a row a feature: ``n_obs`` samples it was measured on, ``r2`` and ``spearman`` of the predictive
        mean (on the encoder's scale, such as log counts), ``coverage90`` of calibrated intervals, ``crps`` in training
        standard deviations, ``skill_vs_mean`` and ``skill_vs_ridge`` (one minus the ratio of the CRPS to that of the
        training distribution, and to that of ridge regression fitted on the same samples), and ``imputable``: whether
        the prediction is better than the training distribution beyond sampling error.

        Raises
        ------
        ValueError
            For an unknown modality.
        RuntimeError
            If the model is not trained, or nothing was held out.
        """
        self._require_training()
        if self._check_modality(modality) not in self._trust:
            raise RuntimeError(
                f"how far imputed {modality!r} can be trusted was not measured: fewer than {LEAST_HELD_OUT} samples "
                "with it and another modality were held out"
            )
        return self._trust[modality].copy()

    def calibration_report(
        self,
        *,
        by: Literal["pattern", "feature"] = "pattern",
        groupby: str | None = None,
        modalities: Sequence[str] | None = None,
        given: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """Coverage, sharpness and skill of imputation, on samples the predictor had not seen.

        Parameters
        ----------
        by
            ``"pattern"``: a row a modality, set of sources and group; ``"feature"``: a row a feature
            (:meth:`trust` of all modalities).
        groupby
            Column of ``mdata.obs``: a row for each of its values as well as for all samples.
        modalities
            What to report on; all by default.
        given
            Modalities to condition on; all others by default.

        Returns
        -------
        For ``by="pattern"``: ``modality``, ``sources``, ``group``, ``n_samples``, ``n_values``; ``coverage50``,
        ``coverage80``, ``coverage90``, ``coverage95`` of calibrated central intervals, ``coverage90_se`` (standard
        error over samples), ``pit_coverage90`` (share of the randomised probability integral transform between .05 and
        .95: for counts the interval coverage is larger by nature), ``width90`` (in the units of the layer), ``crps``,
        ``skill_vs_mean``, ``skill_vs_ridge`` and ``rank_correlation`` of absolute error with predictive sd.
        Intervals are calibrated on folds other than the one they are scored on.

        Raises
        ------
        ValueError
            For an unknown modality, column or ``by``.
        RuntimeError
            If the model is not trained, or nothing was held out.
        """
        if by not in ("pattern", "feature"):
            raise ValueError(f"by must be 'pattern' or 'feature', got {by!r}")
        names = self.modalities if modalities is None else [self._check_modality(m) for m in modalities]
        for name in names:
            self._check_reportable(name)
        if by == "feature":
            tables = [self.trust(m).rename_axis("feature").reset_index() for m in names if m in self._trust]
            if not tables:
                self.trust(names[0])
            kept = [m for m in names if m in self._trust]
            return pd.concat([t.assign(modality=m) for t, m in zip(tables, kept, strict=True)], ignore_index=True)
        groups = self._groups(groupby)
        rows: list[pd.DataFrame] = []
        for name in names:
            scored = list(self._scored_as_measured(name, None if given is None else [m for m in given if m != name]))
            rows += [pattern_table(self, name, s, groups) for s in scored]
        if not rows:
            raise RuntimeError("no sample with two modalities was held out: nothing to compare with")
        return pd.concat(rows, ignore_index=True)

    def _groups(self, groupby: str | None) -> pd.Series | None:
        from omicvae.data._validate import nearest

        if groupby is None:
            return None
        assert self.adata is not None
        if groupby not in self.adata.obs:
            raise ValueError(
                f"groupby={groupby!r} is not a column of mdata.obs.{nearest(groupby, list(self.adata.obs.columns))}"
            )
        return self.adata.obs[groupby]

    def _check_reportable(self, modality: str) -> None:
        self._require_training()
        self._check_modality(modality)
        if self.adata is None:
            raise ValueError(
                "the model was loaded without data, and what was held out is not stored: load it with data"
            )
