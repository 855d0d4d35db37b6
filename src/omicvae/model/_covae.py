"""The model class of CoVAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from mudata import MuData

from omicvae.data import PatternSplitter, ShardSplitter
from omicvae.model._closed_form_model import ClosedFormModel
from omicvae.model._moments import MomentBackbone
from omicvae.model._probabilistic_cca import ProbabilisticCCA
from omicvae.model._shared_dimensions import count_shared_dimensions
from omicvae.model._sizes import per_modality
from omicvae.module import CoVAEModule, JointEncoderModule
from omicvae.module._covae import CorrelatedPriorModule
from omicvae.nn import NetworkConfig
from omicvae.stats.factors import own_factors
from omicvae.train import pretrain_prior, settle_noise

POSTERIORS = ("potentials", "joint_encoder", "cross_diagonal")
PRIORS = ("pretrained", "trained")
BACKBONES = ("auto", "moments", "network")
MOST_HELD_OUT = 2**14
"""Samples that the number of shared dimensions is told from."""


class CoVAE(ClosedFormModel):
    """Correlated VAE :cite:p:`caretti2026covae`: one latent block an assay, their correlations in the prior.

    An assay that was not measured is predicted through the correlations, with the uncertainty that these leave.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_latent
        Width of the latent block, for all modalities or a mapping; ``"auto"`` chooses it from the number of samples.
    backbone
        What imputation rests on. ``"moments"``: the closed form (:class:`omicvae.stats.stacked.StackedPredictor`), no
        training by gradient; latents come from the closed-form start of the network. ``"network"``: the network alone.
        ``"auto"``: both; a feature's predictive distribution is the mixture of the two that was best on samples neither
        has seen, and the closed form where the network has not earned a weight.
    posterior
        ``"potentials"``: closed-form posterior for any set of assays (:class:`omicvae.module.CoVAEModule`).
        ``"joint_encoder"``: as published (:class:`omicvae.module.JointEncoderModule`), to reproduce the paper.
        ``"cross_diagonal"``: the same with the other covariance of its appendices B and C, for two assays.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.
    pretraining
        How the published form finds the correlations before training: ``"cca"`` or ``"dcor"``.
    cross_weight
        Weight of the cross-modal term of the published form (eq. 4 of the paper).
    prior
        Of the published form: ``"pretrained"``, correlations stay as they were found, or ``"trained"``, they are trained
        on (appendix B), which makes them too high. The default form never learns them by gradient.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.CoVAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.CoVAE(mdata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.impute("rppa", given=["rna"]).shape[0]
    120
    """

    default_key = "covae"
    module: CorrelatedPriorModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Mapping[str, int] | Literal["auto"] = "auto",
        backbone: Literal["auto", "moments", "network"] = "auto",
        posterior: Literal["potentials", "joint_encoder", "cross_diagonal"] = "potentials",
        network: NetworkConfig | Mapping[str, Any] | None = None,
        pretraining: Literal["cca", "dcor"] = "cca",
        cross_weight: float = 1.0,
        prior: Literal["pretrained", "trained"] = "pretrained",
    ) -> None:
        super().__init__(mdata, registry)
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior must be one of {POSTERIORS}, got {posterior!r}")
        if backbone not in BACKBONES:
            raise ValueError(f"backbone must be one of {BACKBONES}, got {backbone!r}")
        if prior not in PRIORS:
            raise ValueError(f"prior must be one of {PRIORS}, got {prior!r}")
        published = posterior != "potentials"
        if published and backbone == "moments":
            raise ValueError(f"posterior={posterior!r} is trained by gradient: use backbone='network'")
        if prior == "trained" and not published:
            raise ValueError("prior='trained' is an option of the published form: add posterior='joint_encoder'")
        config = self._network(network)
        widths = per_modality(
            "n_latent", n_latent, self.schema, {m: default_width(n) for m, n in self._n_measured().items()}
        )
        if published:
            self.module = JointEncoderModule(
                self.schema,
                config,
                widths,
                pretraining=pretraining,
                cross_weight=cross_weight,
                trains_prior=prior == "trained",
                cross_diagonal=posterior == "cross_diagonal",
            )
        else:
            self.module = CoVAEModule(self.schema, config, widths)
        alone = published or backbone == "network"
        self.backbone = MomentBackbone(self.module, mixes=backbone == "auto") if not alone else None
        self._by_gradient = backbone != "moments"
        self._model_summary_string = (
            f"CoVAE with {posterior} over {', '.join(f'{m} ({w} latents)' for m, w in widths.items())}"
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def from_probabilistic_cca(cls, factors: ProbabilisticCCA, **arguments: Any) -> CoVAE:
        """A model of the same data whose training starts from the factors of a trained :class:`ProbabilisticCCA`.

        Each assay's latents begin as the directions of the common factors that the assay tells most about, and
        ``Sigma`` as what these have in common; by default they begin as the assay's own principal components.

        Parameters
        ----------
        factors
            Trained, with its data.
        **arguments
            Of :class:`CoVAE`; its published form has no linear start.

        Returns
        -------
        An untrained model, registered as ``factors`` was. Train it before saving: the start is not saved.

        Raises
        ------
        TypeError
            If ``factors`` is not a :class:`ProbabilisticCCA`.
        RuntimeError
            If it is not trained.
        ValueError
            If it was loaded without data, or for the published form.
        """
        if not isinstance(factors, ProbabilisticCCA):
            raise TypeError(f"factors must be a trained ProbabilisticCCA, got {type(factors).__name__}")
        factors._require_training()
        if factors.adata is None:
            raise ValueError("the ProbabilisticCCA was loaded without data: load it with data to start from it")
        cls.setup_mudata(factors.adata, **factors.registry["setup_args"])
        model = cls(factors.adata, **arguments)
        if not isinstance(model.module, CoVAEModule):
            raise ValueError(
                "the published form has no linear start: use posterior='potentials', not 'joint_encoder' or 'cross_diagonal'"
            )
        starts = {}
        for m, width in zip(model.modalities, model.module.sizes, strict=True):
            starts[m] = own_factors(*factors.module.loadings(m), width, factors.module.weight_uncertainty(m))
        model.module.start = starts
        return model

    def _before_fit(self, splitter: PatternSplitter) -> None:
        if isinstance(self.module, JointEncoderModule) and isinstance(splitter, ShardSplitter):
            raise ValueError(
                "CoVAE as published holds all complete samples in memory for its pre-training, which shards are not for: "
                "use posterior='potentials', or leave datamodule out if the data fit into memory"
            )
        super()._before_fit(splitter)
        if isinstance(self.module, JointEncoderModule):
            pretrain_prior(self.module, splitter.train_dataloader)

    def _after_fit(self, splitter: PatternSplitter) -> None:
        super()._after_fit(splitter)
        if not self._by_gradient:
            settle_noise(self.module, splitter.train_dataloader)
        held_out = np.concatenate([splitter.val_idx, splitter.calibration_idx]).astype(np.intp)
        held_out = held_out if len(held_out) else splitter.train_idx
        some = np.linspace(0, len(held_out) - 1, min(len(held_out), MOST_HELD_OUT)).astype(np.intp)
        count_shared_dimensions(self, held_out[some])

    def _calibration_share(self, size: float | str) -> float:
        return 0.0 if size == "auto" and not self._by_gradient else super()._calibration_share(size)

    @property
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        r = int(self.module.n_shared)
        sizes = dict(zip(self.modalities, self.module.sizes, strict=True))
        names = {
            "joint": [f"{m}_{k}" for m, width in sizes.items() for k in range(width)],
            "shared": [f"shared_{k}" for k in range(r)],
        }
        return names | {f"private_{m}": [f"{m}_private_{k}" for k in range(w - r)] for m, w in sizes.items()}


def default_width(n_obs: int) -> int:
    """Latents an assay: as many as its samples can tell apart."""
    return 6 if n_obs < 100 else 10 if n_obs < 300 else 16 if n_obs < 2000 else 20
