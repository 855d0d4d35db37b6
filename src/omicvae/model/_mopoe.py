"""The model class of MoPoE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel, check_private
from omicvae.module import MoPoEModule
from omicvae.nn import NetworkConfig


class MoPoE(SharedPrivateModel):
    """MoPoE-VAE :cite:p:`sutter2021generalized`: a mixture of the products of experts of all subsets of assays.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_latent
        Latents that all assays share; ``"auto"`` is 8 beside private latents, else 10, or 20 from 300 samples on.
    structured
        Whether each assay also has private latents.
    n_private
        Private latents, for all modalities or a mapping; ``"auto"`` chooses from the number of samples. Needs
        ``structured=True``.
    private
        Private latents of an assay that is predicted: draws from their ``"prior"``, or ``"zero"``.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.MoPoE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MoPoE(mdata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (120, 5)
    """

    default_key = "mopoe"
    module: MoPoEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Literal["auto"] = "auto",
        structured: bool = False,
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        private: Literal["prior", "zero"] = "prior",
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        check_private(private, structured)
        self.module = MoPoEModule(
            self.schema,
            self._network(network),
            self._shape(n_latent, n_private, structured, "MoPoE"),
            private=private,
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("MoPoE")
        self.init_params_ = self._get_init_params(locals())
