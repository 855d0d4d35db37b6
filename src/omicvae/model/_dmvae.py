"""The model class of DMVAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel
from omicvae.module import DMVAEModule
from omicvae.nn import NetworkConfig


class DMVAE(SharedPrivateModel):
    """DMVAE :cite:p:`lee2021private`: shared latents by a product of experts, private ones for each assay.

    All assays together, and each of them alone, decode every assay from its own private latents.

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
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.DMVAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.DMVAE(mdata, n_shared=4)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation(kind="shared").shape
    (120, 4)
    """

    default_key = "dmvae"
    module: DMVAEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_shared: int | Literal["auto"] = "auto",
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        self.module = DMVAEModule(
            self.schema,
            self._network(network),
            self._shape(n_shared, n_private, True, "DMVAE", argument="n_shared"),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("DMVAE")
        self.init_params_ = self._get_init_params(locals())
