"""The model class of MMVAE++."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import PatternSplitter
from omicvae.model._closed_form import read_blocks
from omicvae.model._closed_form_model import ClosedFormModel
from omicvae.model._moments import MomentBackbone
from omicvae.model._representative import representative
from omicvae.model._sizes import per_modality
from omicvae.module import MMVAEPlusPlusModule, ScreenedModule, Shape
from omicvae.nn import NetworkConfig
from omicvae.stats.components import Block
from omicvae.stats.screening import Screen, screens
from omicvae.stats.shared_directions import Directions, shared_directions
from omicvae.train import Budget, train_shared

logger = logging.getLogger("omicvae")

BACKBONES = ("auto", "network")
LEAST_SAMPLES = 10
"""Held-out samples that tell whether the network or the closed form predicts: where few features among many private ones are
shared, the closed form misses them, and a cohort of 150 samples has to do with few."""
DEFAULT_SHARED = 8  # two fold a curved manifold; the divergence switches off what is not needed
FASTEST, FAST_FROM = 2e-3, 600
"""Learning rate of the second stage, and the training samples from which on it has this one."""
MOST, WEAK = 0.5, np.float32(0.1)
"""Share of features that pass from which on those that do not are read and predicted, too, and the weight they have."""


class MMVAEPlusPlus(ClosedFormModel):
    """MMVAE++ :cite:p:`martens2024disentangling`: what assays share, apart from what each has alone.

    Shared latents are trained by predicting one assay from another and by nothing else. By default features are screened
    first: shared encoders read, and shared decoders explain, only features that another assay predicts on held-out samples
    (:meth:`get_screen`), and private latents come after, for what is left (:class:`omicvae.module.ScreenedModule`). Where
    validation samples are predicted better that way, directions of continuous assays take the place of features. As
    published (``screening=False``) private variation of many features drowns what assays share.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_shared
        Shared latents; ``"auto"`` is 8.
    n_private
        Private latents, for all modalities or a mapping; ``"auto"`` chooses from the number of samples.
    screening
        Whether to screen features and train in two stages; ``False`` is the published objective.
    backbone
        What imputation rests on. ``"auto"``: a closed form beside the network, as in :class:`CoVAE`; a feature's predictive
        distribution is the mixture of the two that was best on samples neither has seen, and the closed form where the
        network has not earned a weight. ``"network"``: the network alone, as always with ``screening=False``.
    private
        Private latents of an assay that is predicted, with ``screening=False``: draws from their ``"prior"``, or ``"zero"``
        as in the authors' code, which makes intervals too narrow.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features, as the paper
        recommends. Needs ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.MMVAEPlusPlus.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MMVAEPlusPlus(mdata, n_shared=4)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation(kind="shared").shape
    (120, 4)
    """

    default_key = "mmvaepp"
    module: MMVAEPlusPlusModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_shared: int | Literal["auto"] = "auto",
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        screening: bool = True,
        backbone: Literal["auto", "network"] = "auto",
        private: Literal["prior", "zero"] = "prior",
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        if private not in ("prior", "zero"):
            raise ValueError(f"private must be 'prior' or 'zero', got {private!r}")
        if screening and private == "zero":
            raise ValueError("private='zero' is an option of the published objective: it needs screening=False")
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {BACKBONES}, got {backbone!r}")
        if n_shared != "auto" and (not isinstance(n_shared, int) or n_shared < 1):
            raise ValueError(f"n_shared must be 'auto' or a positive whole number, got {n_shared!r}")
        shared = DEFAULT_SHARED if n_shared == "auto" else n_shared
        counts = {m: 4 if n < 300 else 8 for m, n in self._n_measured().items()}
        shape = Shape(shared, per_modality("n_private", n_private, self.schema, counts))
        widest = max(m.n_vars for m in self.schema.modalities)
        weight = float(widest) if label_weight == "auto" else label_weight
        config = self._network(network)
        if screening:
            self.module = ScreenedModule(self.schema, config, shape, label_weight=weight)
        else:
            self.module = MMVAEPlusPlusModule(self.schema, config, shape, private=private, label_weight=weight)
        self._screens: dict[str, Screen] = {}
        self.backbone = (
            MomentBackbone(self.module, mixes=True, least=LEAST_SAMPLES) if screening and backbone == "auto" else None
        )
        widths = ", ".join(f"{m} ({w} private)" for m, w in shape.private.items())
        self._model_summary_string = f"MMVAE++ with {shape.shared} shared latents over {widths}"
        self.init_params_ = self._get_init_params(locals())

    def _budget(self, n_train: int, batch_size: int) -> Budget:
        """Of the second stage, where there is one: private networks begin anew in it, and what is shared is found."""
        found = super()._budget(n_train, batch_size)
        if not isinstance(self.module, ScreenedModule):
            return found
        lr = float(np.clip(FASTEST * n_train / FAST_FROM, found.lr, FASTEST))
        return found._replace(lr=lr, max_epochs=max(1, round(found.max_epochs * (found.lr / lr) ** 0.5 / 2)))

    # ------------------------------------------------------------------ screen

    def _before_fit(self, splitter: PatternSplitter) -> None:
        super()._before_fit(splitter)
        if not isinstance(self.module, ScreenedModule):
            return
        with torch.no_grad():
            cohort = self._own_cohort()
            blocks = read_blocks(self.module, cohort, representative(cohort, splitter.train_idx))
        self._screens = dict(zip(self.modalities, screens(blocks), strict=True))
        directions = self._directions(blocks, splitter)
        self.module.set_directions(directions)
        if self.backbone is not None:
            self.backbone.together = frozenset(i for i, m in enumerate(self.modalities) if directions[m] is not None)
        for m, found in self._screens.items():
            if directions[m] is None and not found.passed.any():
                warnings.warn(
                    f"{m}: no feature is predicted by another modality on held-out samples; shared latents are trained on "
                    "all of them, and may hold nothing that is shared",
                    stacklevel=2,
                )
        self.module.set_gates({m: torch.from_numpy(_weights(found)) for m, found in self._screens.items()})
        validation = splitter.val_dataloader if splitter.n_val else None
        train_shared(self.module, splitter.train_dataloader, validation, self._asked_epochs)

    def _directions(self, blocks: list[Block], splitter: PatternSplitter) -> dict[str, Directions | None]:
        """Directions to read modalities along, which validation samples have to prefer to features."""
        assert isinstance(self.module, ScreenedModule)
        nothing: dict[str, Directions | None] = dict.fromkeys(self.modalities)
        if not splitter.n_val or not self.module.turnable:
            return nothing
        with torch.no_grad():
            cohort = self._own_cohort()
            new = read_blocks(self.module, cohort, representative(cohort, splitter.val_idx))
        can_turn = [m in self.module.turnable for m in self.modalities]
        found = shared_directions(blocks, new, [self._screens[m] for m in self.modalities], can_turn)
        for m, one in zip(self.modalities, found, strict=True):
            if one is not None:
                self._screens[m] = self._screens[m]._replace(score=one.features)
                logger.info("%s: shared latents read %d directions that other modalities predict", m, len(one.score))
        return dict(zip(self.modalities, found, strict=True))

    @property
    def n_directions(self) -> dict[str, int]:
        """Modality -> number of directions that shared latents read; 0 where they read features."""
        if not isinstance(self.module, ScreenedModule):
            return dict.fromkeys(self.modalities, 0)
        turned = {m: self.module.turned(m) for m in self.modalities}
        return {m: 0 if t is None else t.n for m, t in turned.items()}

    def get_screen(self, modality: str) -> pd.DataFrame:
        """Which features of an assay the other assays know something about.

        Parameters
        ----------
        modality
            Which assay.

        Returns
        -------
        DataFrame with a row a feature: ``score``, R2 on held-out training samples of the source assay that predicts it
        best (NaN where no two assays have enough samples in common), and ``passed``, whether it exceeds the threshold.
        Where shared latents read directions (:attr:`n_directions`), prediction is along those of the source.

        Raises
        ------
        ValueError
            For an unknown modality, or a model with ``screening=False``.
        RuntimeError
            If the model is not trained.
        """
        name = self._check_modality(modality)
        if not isinstance(self.module, ScreenedModule):
            raise ValueError("the model was made with screening=False: it has not screened features")
        self._require_training()
        found = self._screens[name]
        return pd.DataFrame(
            {"score": found.score, "passed": found.passed}, index=pd.Index(self.schema[name].var_names, name="feature")
        )

    def _feature_columns(self, modality: str) -> dict[str, NDArray[np.float32]]:
        found = self._screens.get(modality)
        return {} if found is None else {"shared_weight": found.gate}

    def _extra_arrays(self) -> dict[str, NDArray[Any]]:
        arrays = super()._extra_arrays()
        for i, m in enumerate(self.modalities):
            if m in self._screens:
                arrays[f"screen/{i}/score"] = self._screens[m].score
                arrays[f"screen/{i}/threshold"] = np.asarray(self._screens[m].threshold)
        return arrays

    def _restore_extra(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore_extra(arrays)
        self._screens = {
            m: Screen(arrays[f"screen/{i}/score"], float(arrays[f"screen/{i}/threshold"]))
            for i, m in enumerate(self.modalities)
            if f"screen/{i}/score" in arrays
        }

    @property
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        shape = self.module.shape
        shared = [f"shared_{k}" for k in range(shape.shared)]
        private = {f"private_{m}": [f"{m}_private_{k}" for k in range(w)] for m, w in shape.private.items()}
        return {"joint": shared + [name for names in private.values() for name in names], "shared": shared} | private


def _weights(screen: Screen) -> NDArray[np.float32]:
    """``(p,)`` weights of features in the shared encoder: where most pass, what is shared is all but everywhere."""
    return np.maximum(screen.gate, WEAK) if screen.passed.mean() > MOST else screen.gate
