"""The model class of probabilistic CCA."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray
from torch import Tensor
from torch.distributions import Distribution

from omicvae.data import Batch, PatternSplitter
from omicvae.data._validate import nearest
from omicvae.model._base import MultimodalModel
from omicvae.model._closed_form import read_blocks
from omicvae.model._closed_form_model import ClosedFormModel
from omicvae.model._factor_backbone import FactorBackbone, LatentDraws
from omicvae.model._representative import representative
from omicvae.model._sizes import per_modality, whole_number
from omicvae.module._prediction import Unknowns, draw_unknowns
from omicvae.module._probabilistic_cca import ProbabilisticCCAModule
from omicvae.stats.factor_selection import select_sizes

logger = logging.getLogger("omicvae")

SELECTION_SAMPLES = 3000
"""Training samples from which the number of factors is chosen."""
OF_TRAINER = ("callbacks", "enable_progress_bar", "logger", "precision", "simple_progress_bar")


class ProbabilisticCCA(ClosedFormModel):
    """Probabilistic CCA :cite:p:`bach2005probabilistic,virtanen2012group`: linear, Gaussian, exact, without a network.

    Every assay is a linear function of common factors plus noise. The posterior given any assays is in closed
    form, single missing values included, and training takes seconds: the model to compare a network with. Shared latents
    are directions of the factors that are known even if any one assay is left out, private ones those that one assay
    alone tells; what belongs to neither is only in the joint latent.

    Counts, methylation and 0/1 values enter on the scale of the encoders (such as log counts); predictions go back to the
    data through the residuals of held-out samples (:class:`omicvae.nn.Response`).

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_factors
        Factors that all assays may use; ``"auto"`` takes as many as predict assays of validation samples best.
    n_private
        Further factors of each assay alone, for all assays or a mapping. ``"auto"`` adds none: what is private
        is then found among the ``n_factors``, and assays that are missing are predicted better.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.ProbabilisticCCA.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.ProbabilisticCCA(mdata, n_factors=8)
    >>> model.train()
    >>> model.impute("rppa", given=["rna"]).shape[0]
    120
    """

    default_key = "pcca"
    module: ProbabilisticCCAModule
    backbone: FactorBackbone
    _by_gradient = False

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_factors: int | Literal["auto"] = "auto",
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
    ) -> None:
        super().__init__(mdata, registry)
        self._n_factors = None if n_factors == "auto" else whole_number("n_factors", n_factors)
        none = dict.fromkeys(self.modalities, 1)
        private = {} if n_private == "auto" else per_modality("n_private", n_private, self.schema, none)
        named = n_private if isinstance(n_private, Mapping) else private
        self._n_private = tuple(private[m] if m in named else 0 for m in self.modalities)
        self.module = ProbabilisticCCAModule(self.schema)
        self.backbone = FactorBackbone(self.module)
        self._model_summary_string = f"Probabilistic CCA with {n_factors} factors over {', '.join(self.modalities)}"
        self.init_params_ = self._get_init_params(locals())

    # ------------------------------------------------------------------ training

    def train(  # type: ignore[override]
        self,
        max_iter: int | None = None,
        *,
        train_size: float = 0.9,
        validation_size: float | None = None,
        shuffle_set_split: bool = True,
        datasplitter_kwargs: Mapping[str, Any] | None = None,
        **of_gradient_training: Any,
    ) -> None:
        """Fit the model by variational EM.

        Numbers of factors and iterations are chosen by predicting the assays of validation samples from their other
        assays. The model is then fitted to training and validation samples together, and once more without each of five
        folds, from which predictions get their scale, their residuals and their intervals. ``history["elbo_train"]`` is
        the negative bound a sample after each iteration, on the encoders' scale and with the weights' divergence.

        Parameters
        ----------
        max_iter
            Most iterations; fewer are taken if they predict validation samples as well. Without validation samples, the
            usual number (:data:`omicvae.stats.factor_selection.USUAL_ITERATIONS`).
        train_size, validation_size
            Shares of samples; the split keeps the mix of presence patterns. What is left over is the test part.
        shuffle_set_split
            Whether to shuffle before splitting.
        datasplitter_kwargs
            Passed to :class:`omicvae.data.PatternSplitter`, for example ``external_indexing``.
        **of_gradient_training
            What the other models take (``batch_size``, ``accelerator``, ...), so that one call fits any of them; without
            effect here, but for ``max_epochs``, another name of ``max_iter``.

        Raises
        ------
        TypeError
            For an argument that no model takes.
        """
        _check_known(of_gradient_training)
        asked = of_gradient_training.get("max_epochs") if max_iter is None else max_iter
        self._max_iter = None if asked is None else whole_number("max_iter", asked)
        datamodule = of_gradient_training.get("datamodule")
        if datamodule is None:
            splitter = self._splitter(
                "auto",
                train_size=train_size,
                validation_size=validation_size,
                shuffle_set_split=shuffle_set_split,
                **(datasplitter_kwargs or {}),
            )
        else:
            splitter = self._checked_datamodule(datamodule, processes=1)
        self.calibration_indices = splitter.calibration_idx
        self._before_fit(splitter)
        self._finish_without_gradient(splitter)

    def _after_fit(self, splitter: PatternSplitter) -> None:
        self.module.eval()
        cohort = self._own_cohort()
        validation = representative(cohort, splitter.val_idx)
        positions = np.concatenate([_thinned(splitter.train_idx), validation])
        held_out = np.arange(len(positions)) >= len(positions) - len(validation)
        sizes, scored = select_sizes(
            read_blocks(self.module, cohort, positions),
            ~held_out,
            held_out,
            n_factors=self._n_factors,
            n_private=self._n_private,
            max_iter=self._max_iter,
        )
        for one in scored:
            logger.info("%d factors, %d iterations: error %.4f on validation samples", *one)
        logger.info("taken: %d factors, %d iterations", sizes.n_factors, sizes.n_iter)
        fitted = self._fitted_positions()
        bound = self.backbone.fit_factors(cohort, fitted, sizes) / max(len(fitted), 1)
        index = pd.RangeIndex(len(bound), name="epoch")
        self.history_ = {
            name: pd.DataFrame({name: -bound.numpy()}, index=index) for name in ("elbo_train", "train_loss")
        }

    def _fit_backbone(self) -> None:
        """It is the model, and was fitted as that."""

    # ------------------------------------------------------------------ prediction

    def _measure(self, modality: str, z: Tensor, batch: Batch) -> Tensor:
        unknown = torch.zeros(batch.n_samples, dtype=torch.bool, device=z.device)
        unknowns = draw_unknowns(self.module, batch, modality, unknown, 1)
        fixed = self.module.fixed(modality, unknowns.design)
        location = (fixed + z.double() @ self.module.weights(modality).mean.mT).float()
        response = self.backbone.own[self.modalities.index(modality)].to(z.device)
        return response(location.reshape(1, batch.n_samples, -1), unknowns.size, 1).sample()[0]

    def _decoded(
        self, batch: Batch, modality: str, used: NDArray[np.bool_], unknowns: Unknowns, n_draws: int
    ) -> Distribution:
        sources = tuple(np.flatnonzero(used).tolist())
        return self.backbone.distribution(batch, sources, self.modalities.index(modality), unknowns, n_draws)

    def _summarised(
        self, modality: str, distribution: Distribution, used: NDArray[np.bool_], level: float | None
    ) -> dict[str, torch.Tensor]:
        found = super()._summarised(modality, distribution, used, level)
        assert isinstance(distribution, LatentDraws)
        moved = distribution.latent_share * found["sd_noise"].square()
        sd_latent = (found["sd_latent"].square() + moved).sqrt()
        return {**found, "sd_latent": sd_latent, "sd_noise": (found["sd_noise"].square() - moved).sqrt()}

    @property
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        def numbered(stem: str, kind: str, modality: str | None = None) -> list[str]:
            return [f"{stem}_{k}" for k in range(self.module.directions(kind, modality).shape[1])]

        names = {"joint": numbered("factor", "joint"), "shared": numbered("shared", "shared")}
        return names | {f"private_{m}": numbered(f"{m}_private", "private", m) for m in self.modalities}


def _check_known(arguments: Mapping[str, Any]) -> None:
    known = {*inspect.signature(MultimodalModel.train).parameters, *OF_TRAINER}
    for name in arguments:
        if name not in known:
            raise TypeError(f"train() has no argument {name!r}.{nearest(name, sorted(known | {'max_iter'}))}")


def _thinned(positions: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most :data:`SELECTION_SAMPLES` of the training samples, evenly spread."""
    if len(positions) <= SELECTION_SAMPLES:
        return positions
    return positions[np.linspace(0, len(positions) - 1, SELECTION_SAMPLES).astype(np.intp)]
