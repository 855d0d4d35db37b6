"""Tables of held-out scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray

from omicvae.model._closed_form import read_blocks
from omicvae.model._held_out import Part, Scored, intervals
from omicvae.model._representative import representative
from omicvae.stats.baselines._ridge import RidgeBaseline
from omicvae.stats.components import Block
from omicvae.stats.conformal import Conformal, fit_conformal
from omicvae.stats.scores import crps_normal, crps_sample, r2, rank_correlation, skill, spearman

if TYPE_CHECKING:
    from omicvae.model._calibration import CalibrationMixin

Float32 = NDArray[np.float32]
Flags = NDArray[np.bool_]

LEVELS = (0.5, 0.8, 0.9, 0.95)
CLIMATE = 50
"""Values of the training distribution that stand for it."""
REFERENCE_ROWS = 3000
"""Training samples from which the reference regression is fitted; with more it is scored on one fold only, ..."""
FEW = 300
"""... and above this number on two: the skill of a feature needs no more samples."""
CERTAIN = 1.645
"""Standard errors by which a prediction must be better than none to be called imputable."""


class References(NamedTuple):
    """CRPS ``(n, p)`` of predictions to be beaten, on the encoders' scale; NaN where not scored."""

    mean: Float32
    """Of the training distribution."""
    ridge: Float32
    """Of ridge regression with Gaussian intervals from its held-out residuals."""


class Calibrated(NamedTuple):
    """A part's scores with the calibration of the other folds."""

    scored: Scored
    conformal: dict[int, Conformal]
    """Fold -> calibration."""

    def inside(self, level: float) -> Float32:
        """``(n, p)`` whether each value lies in its calibrated interval; NaN where not measured."""
        s = self.scored
        if s.binary:
            tail = np.float32((1 - level) / 2)
            kept = (s.at > tail) & (s.below < 1 - tail)
        elif s.discrete:  # a whole number is in the interval if any part of its probability is
            tails = 0.5 * (1 - np.clip(self._bounds(level), 0, 1))
            kept = (s.at >= tails) & (s.below <= 1 - tails)
        else:
            kept = s.conformity <= self._bounds(level)
        return np.where(np.isnan(s.truth), np.nan, kept).astype(np.float32)

    def _bounds(self, level: float) -> Float32:
        """``(n, p)`` of conformity scores, by the calibration of each row's other folds."""
        out = np.full(self.scored.truth.shape, np.nan, np.float32)
        for fold, conformal in self.conformal.items():
            out[self.scored.part.folds == fold] = conformal.quantile(level).astype(np.float32)
        return out

    def pit(self) -> Float32:
        """``(n, p)`` probability integral transform of the calibrated distribution.

        The level at which a value enters the calibrated central interval, on the side on which it lies.
        """
        s = self.scored
        if s.binary:
            return s.pit
        level = np.full(s.truth.shape, np.nan, np.float32)
        for fold, conformal in self.conformal.items():
            here = s.part.folds == fold
            level[here] = conformal.level(s.conformity[here])
        above = s.pit >= 0.5 if s.discrete else s.truth >= s.mean
        return np.where(np.isnan(s.truth), np.nan, 0.5 + np.where(above, 0.5, -0.5) * level).astype(np.float32)


def calibrated(scored: Scored) -> Calibrated:
    """Calibrate each fold by the others."""
    found = {}
    for fold in np.unique(scored.part.folds):
        conformal = fit_conformal(scored.conformity[scored.part.folds != fold])
        if conformal is not None:
            found[int(fold)] = conformal
    return Calibrated(scored, found)


# ---------------------------------------------------------------------- references


def references(model: CalibrationMixin, scored: Scored) -> References:
    """Scores of the training distribution and of ridge regression on the rows of a part."""
    part, truth = scored.part, scored.standardised
    mean, ridge = np.full_like(truth, np.nan), np.full_like(truth, np.nan)
    rng = np.random.default_rng(0)
    training = _Training(model, part)
    folds = np.unique(part.folds)
    for fold in folds:
        here = part.folds == fold
        pool = training.target_values(exclude=part.positions[here])
        climate = pool[rng.integers(len(pool), size=(CLIMATE, 1))[:, 0]]
        mean[here] = crps_sample(truth[here], np.repeat(_filled(climate)[:, None], here.sum(), 1))
    for fold in folds[: 1 if training.n > REFERENCE_ROWS else 2 if training.n > FEW else None]:
        here = part.folds == fold
        predicted = training.ridge(part.positions[here])
        if predicted is not None:
            ridge[here] = crps_normal(truth[here], *predicted)
    return References(np.where(np.isnan(truth), np.nan, mean), ridge)


def _filled(climate: Float32) -> Float32:
    """Draws of each feature's distribution: missing ones replaced by others of the same feature."""
    seen = ~np.isnan(climate)
    order = np.argsort(~seen, axis=0, kind="stable")
    packed = np.take_along_axis(climate, order, axis=0)
    count = np.maximum(seen.sum(0), 1)
    return np.nan_to_num(np.take_along_axis(packed, np.arange(len(climate))[:, None] % count, axis=0))


class _Training:
    """Training samples that have all sources and the target, those of a part among them, on the encoders' scale."""

    def __init__(self, model: CalibrationMixin, part: Part) -> None:
        sources, target = part.sources, part.target
        cohort, fitted = model._own_cohort(), model._fitted_positions()
        have = fitted[cohort.present[fitted][:, [*sources, target]].all(1)]
        chosen = np.union1d(representative(cohort, have), part.positions)
        self.n = len(chosen)
        self.positions, self._model = chosen, model
        blocks = read_blocks(model.module, cohort, chosen)
        self.x = np.concatenate([blocks[a].values for a in sources], axis=1)
        self.y = _with_nan(blocks[target])

    def target_values(self, exclude: NDArray[np.intp]) -> Float32:
        """``(n, p)`` of the target, without some samples."""
        kept = ~np.isin(self.positions, exclude)
        return self.y[kept] if kept.any() else self.y

    def ridge(self, predicted: NDArray[np.intp]) -> tuple[Float32, Float32] | None:
        """Mean and sd of ridge regression fitted without the samples at ``predicted``."""
        test = np.isin(self.positions, predicted)
        train = np.flatnonzero(~test)
        if len(train) < 2:
            return None
        if len(train) > REFERENCE_ROWS:
            train = np.sort(np.random.default_rng(0).choice(train, REFERENCE_ROWS, replace=False))
        baseline = RidgeBaseline().fit(self.x[train], self.y[train])
        order = np.searchsorted(self.positions, predicted)
        found = baseline.predict(self.x[order])
        return found.mean, found.sd


def _with_nan(block: Block) -> Float32:
    if block.observed is None:
        return block.values
    return np.asarray(np.where(block.observed, block.values, np.nan), dtype=np.float32)


# ---------------------------------------------------------------------- tables


def feature_table(model: CalibrationMixin, modality: str, scored: list[Scored]) -> pd.DataFrame:
    """A row a feature: :meth:`~omicvae.model.CoVAE.trust`."""
    beaten = [references(model, s) for s in scored]
    crps = np.concatenate([_crps(s) for s in scored])
    mean, ridge = (np.concatenate([getattr(r, f) for r in beaten]) for f in References._fields)
    truth = np.concatenate([s.standardised for s in scored])
    prediction = np.concatenate([s.standardised_mean for s in scored])
    inside = np.concatenate([calibrated(s).inside(0.9) for s in scored])
    gain = mean - crps
    n = (~np.isnan(gain)).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        certainty = _column_mean(gain) / (_spread(gain) / np.sqrt(n))
    noise = _column_mean(np.concatenate([s.draw_variance for s in scored]))
    explained = r2(truth, prediction) + noise / _variance(truth)
    columns = {
        "n_obs": n,
        "r2": explained,
        "spearman": spearman(truth, prediction),
        "coverage90": _column_mean(inside),
        "crps": _column_mean(crps),
        "skill_vs_mean": skill(crps, mean),
        "skill_vs_ridge": skill(crps, ridge),
        "imputable": (np.nan_to_num(certainty, nan=-np.inf) > CERTAIN) & (np.nan_to_num(explained, nan=-1.0) > 0),
    }
    return pd.DataFrame(columns, index=pd.Index(model.schema[modality].var_names))


def pattern_table(model: CalibrationMixin, modality: str, scored: Scored, groups: pd.Series | None) -> pd.DataFrame:
    """A row for all samples of a part, and one for each group."""
    beaten, known = references(model, scored), calibrated(scored)
    inside = {level: known.inside(level) for level in LEVELS}
    lower, upper = intervals_of(model, modality, known, 0.9)
    pit = known.pit()
    chosen: dict[str, Flags] = {"all": np.ones(len(scored.truth), bool)}
    if groups is not None:
        labels = groups.iloc[scored.part.positions].astype(str).where(groups.iloc[scored.part.positions].notna())
        chosen |= {str(g): (labels == g).to_numpy() for g in sorted(labels.dropna().unique())}
    rows = []
    spread = _spread(scored.truth)
    for group, here in chosen.items():
        error = np.abs(scored.truth[here] - scored.mean[here])
        rows.append(
            {
                "modality": modality,
                "sources": "+".join(model.modalities[a] for a in scored.part.sources),
                "group": group,
                "n_samples": int(here.sum()),
                "n_values": int((~np.isnan(scored.truth[here])).sum()),
                **{f"coverage{round(100 * level)}": _mean(inside[level][here]) for level in LEVELS},
                "coverage90_se": _standard_error(inside[0.9][here]),
                "pit_coverage90": _mean(np.where(np.isnan(pit[here]), np.nan, np.abs(pit[here] - 0.5) <= 0.45)),
                "width90": _mean((upper - lower)[here]),
                "crps": _mean(_crps(scored)[here]),
                "skill_vs_mean": float(skill(_crps(scored)[here], beaten.mean[here], axis=None)),
                "skill_vs_ridge": float(skill(_crps(scored)[here], beaten.ridge[here], axis=None)),
                "rank_correlation": _rank_correlation(error, scored.sd[here], spread),
            }
        )
    return pd.DataFrame(rows)


def held_out_anndata(model: CalibrationMixin, modality: str, scored: list[Scored], level: float) -> AnnData:
    """Truth, predictions and scores of all parts, in the order of the cohort."""
    known = [calibrated(s) for s in scored]
    limits = [intervals_of(model, modality, k, level) for k in known]
    layers = {
        "imputed": [s.mean for s in scored],
        "imputed_normalized": [s.normalized_mean for s in scored],
        "imputed_sd": [s.sd for s in scored],
        "imputed_lower": [low for low, _ in limits],
        "imputed_upper": [high for _, high in limits],
        "pit": [k.pit() for k in known],
        "crps": [_crps(s) for s in scored],
    }
    positions = np.concatenate([s.part.positions for s in scored])
    order = np.argsort(positions)
    sources = np.concatenate(
        [np.repeat("+".join(model.modalities[a] for a in s.part.sources), len(s.truth)) for s in scored]
    )
    names = model._own_cohort().obs_names[positions[order]]
    return AnnData(
        np.concatenate([s.truth for s in scored])[order],
        obs=pd.DataFrame({"sources": sources[order].astype(object)}, index=names),
        var=pd.DataFrame(index=pd.Index(model.schema[modality].var_names)),
        layers={name: np.concatenate(parts)[order] for name, parts in layers.items()},
    )


def intervals_of(model: CalibrationMixin, modality: str, known: Calibrated, level: float) -> tuple[Float32, Float32]:
    """Lower and upper limits ``(n, p)``, calibrated by the other folds; NaN where not measured."""
    lower, upper = intervals(model.module, model._own_cohort(), known.scored, known.conformal, level)
    blank = np.isnan(known.scored.truth)
    return np.where(blank, np.nan, lower), np.where(blank, np.nan, upper)


def _crps(scored: Scored) -> Float32:
    assert scored.crps is not None
    return scored.crps


def _column_mean(values: Float32) -> NDArray[np.float64]:
    count = (~np.isnan(values)).sum(0)
    return np.where(count > 0, np.nansum(values, 0, dtype=np.float64) / np.maximum(count, 1), np.nan)


def _spread(values: Float32) -> NDArray[np.float64]:
    """``(p,)`` standard deviation over measured values; at least a little, to divide by."""
    n = np.maximum((~np.isnan(values)).sum(0), 1)
    centred = values - np.nansum(values, 0, dtype=np.float64) / n
    return np.asarray(np.maximum(np.sqrt(np.nansum(centred**2, 0) / np.maximum(n - 1, 1)), 1e-12))


def _variance(values: Float32) -> NDArray[np.float64]:
    """``(p,)`` mean squared deviation from the mean of measured values; at least a little, to divide by."""
    n = np.maximum((~np.isnan(values)).sum(0), 1)
    return np.maximum(_spread(values) ** 2 * (n - 1) / n, 1e-24)


def _mean(values: NDArray[np.floating]) -> float:
    return float(np.nanmean(values, dtype=np.float64)) if (~np.isnan(values)).any() else float("nan")


def _standard_error(values: Float32) -> float:
    """Of the mean, over samples: values of one sample are not independent."""
    count = (~np.isnan(values)).sum(1)
    rows = np.nansum(values, 1)[count > 0] / count[count > 0]
    return float(rows.std(ddof=1) / np.sqrt(len(rows))) if len(rows) > 1 else float("nan")


def _rank_correlation(error: Float32, sd: Float32, scale: NDArray[np.floating]) -> float:
    """Between features standardised by their truth's spread, so that units do not count."""
    return rank_correlation(error / scale, sd / scale)
