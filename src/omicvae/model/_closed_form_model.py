"""Models whose imputation rests on a closed form, alone or beside a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch.distributions import Distribution

from omicvae.data import Batch
from omicvae.model._held_out import Part
from omicvae.model._model import Model
from omicvae.model._moments import MomentBackbone
from omicvae.module._prediction import Unknowns


class ClosedFormModel(Model):
    """A model that may have a closed form for assays that were not measured."""

    backbone: MomentBackbone | None = None

    # ------------------------------------------------------------------ fit

    def _calibrate(self) -> None:
        self._fit_backbone()
        super()._calibrate()

    def _fit_backbone(self) -> None:
        if self.backbone is not None:
            self.backbone.fit(self._own_cohort(), self._fitted_positions(), np.asarray(self.calibration_indices))

    def _attach_backbone(self) -> None:
        assert self.backbone is not None
        fitted = self._fitted_positions()
        if len(fitted) != self.backbone.n_fitted:
            raise RuntimeError(
                f"{self.backbone.n_fitted - len(fitted)} of the {self.backbone.n_fitted} samples the model was fitted on "
                "are not in the attached data: held-out predictions cannot be made again"
            )
        self.backbone.attach(self._own_cohort(), fitted, np.asarray(self.calibration_indices))

    # ------------------------------------------------------------------ predict

    def _held_out_part(self, sources: tuple[int, ...], target: int, positions: NDArray[np.intp]) -> Part | None:
        if self.backbone is None:
            return super()._held_out_part(sources, target, positions)
        if not self.backbone.attached:
            self._attach_backbone()
        part = self.backbone.held_out_part(sources, target, positions)
        return super()._held_out_part(sources, target, positions) if part is None and self._by_gradient else part

    def _decoded(
        self, batch: Batch, modality: str, used: NDArray[np.bool_], unknowns: Unknowns, n_draws: int
    ) -> Distribution:
        target = self.modalities.index(modality)
        sources = tuple(np.flatnonzero(used).tolist())
        if self.backbone is None or used[target] or not sources:
            return super()._decoded(batch, modality, used, unknowns, n_draws)
        found = self.backbone.distribution(batch, sources, target, unknowns, n_draws)
        return super()._decoded(batch, modality, used, unknowns, n_draws) if found is None else found

    def summary(self) -> pd.DataFrame:
        """What the imputation of every modality rests on.

        Returns
        -------
        DataFrame with a row a modality: ``likelihood``, ``n_samples``, ``n_features``; ``network_share``, the mean
        weight of the network in the predictive distribution given all other assays (0: closed form alone, 1: network
        alone); ``r2`` (median) and ``skill_vs_ridge`` out of sample, and ``n_imputable`` features
        (:meth:`trust`), where they could be measured.
        """
        self._require_training()
        rows = {}
        for m, name in enumerate(self.modalities):
            table = self._trust.get(name)
            others = tuple(a for a in range(len(self.modalities)) if a != m)
            rows[name] = {
                "likelihood": self.schema[name].likelihood,
                "n_samples": self._n_measured()[name],
                "n_features": self.schema[name].n_vars,
                "network_share": 1.0 if self.backbone is None else self.backbone.network_share(others, m),
                "r2": float("nan") if table is None else float(table["r2"].median()),
                "skill_vs_ridge": float("nan") if table is None else float(table["skill_vs_ridge"].median()),
                "n_imputable": 0 if table is None else int(table["imputable"].sum()),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    # ------------------------------------------------------------------ saving

    def _extra_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = super()._extra_arrays()
        if self.backbone is not None and self.is_trained_:
            arrays |= {f"backbone/{k}": v for k, v in self.backbone.state().items()}
        return arrays

    def _restore_extra(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_extra(arrays)
        if self.backbone is not None and self.is_trained_:
            self.backbone.restore(
                {k.removeprefix("backbone/"): v for k, v in arrays.items() if k.startswith("backbone/")}
            )
