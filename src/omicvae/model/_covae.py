"""The model class of CoVAE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mudata import MuData

from omicvae.data import PatternSplitter
from omicvae.model._model import Model
from omicvae.model._shared_dimensions import count_shared_dimensions
from omicvae.model._sizes import per_modality
from omicvae.module import CoVAEModule, JointEncoderModule
from omicvae.module._covae import CorrelatedPriorModule
from omicvae.nn import NetworkConfig
from omicvae.train import pretrain_prior

POSTERIORS = ("potentials", "joint_encoder")


class CoVAE(Model):
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
    posterior
        ``"potentials"``: closed-form posterior for any set of assays (:class:`omicvae.module.CoVAEModule`).
        ``"joint_encoder"``: as published (:class:`omicvae.module.JointEncoderModule`), to reproduce the paper.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.
    pretraining
        How ``posterior="joint_encoder"`` finds the correlations before training: ``"cca"`` or ``"dcor"``.
    cross_weight
        Weight of the cross-modal term of ``posterior="joint_encoder"`` (eq. 4 of the paper).

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
        posterior: Literal["potentials", "joint_encoder"] = "potentials",
        network: NetworkConfig | Mapping[str, Any] | None = None,
        pretraining: Literal["cca", "dcor"] = "cca",
        cross_weight: float = 1.0,
    ) -> None:
        super().__init__(mdata, registry)
        if posterior not in POSTERIORS:
            raise ValueError(f"posterior must be one of {POSTERIORS}, got {posterior!r}")
        config = self._network(network)
        widths = per_modality(
            "n_latent", n_latent, self.schema, {m: default_width(n) for m, n in self._n_measured().items()}
        )
        if posterior == "potentials":
            self.module = CoVAEModule(self.schema, config, widths)
        else:
            self.module = JointEncoderModule(
                self.schema, config, widths, pretraining=pretraining, cross_weight=cross_weight
            )
        self._model_summary_string = (
            f"CoVAE with {posterior} over {', '.join(f'{m} ({w} latents)' for m, w in widths.items())}"
        )
        self.init_params_ = self._get_init_params(locals())

    def _before_fit(self, splitter: PatternSplitter) -> None:
        super()._before_fit(splitter)
        if isinstance(self.module, JointEncoderModule):
            pretrain_prior(self.module, splitter.train_dataloader)

    def _after_fit(self, splitter: PatternSplitter) -> None:
        super()._after_fit(splitter)
        held_out = splitter.val_idx if splitter.n_val else splitter.train_idx
        count_shared_dimensions(self, held_out)

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
