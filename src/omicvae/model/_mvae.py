"""The model class of MVAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel
from omicvae.model._sizes import whole_number
from omicvae.module import MVAEModule
from omicvae.nn import NetworkConfig


class MVAE(SharedPrivateModel):
    """MVAE :cite:p:`wu2018multimodal`: a product of experts over one latent space.

    Every assay contributes evidence about the same latents, and evidence multiplies.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_latent
        Latents that all assays share; ``"auto"`` is 8 beside private latents, else 10, or 20 from 300 samples on.
    structured
        Whether each assay also has private latents :cite:p:`lee2021private`.
    n_private
        Private latents, for all modalities or a mapping; ``"auto"`` chooses from the number of samples. Needs
        ``structured=True``.
    n_subsets
        Random subsets of assays that get an ELBO of their own in every step, for samples with three assays or more.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.MVAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MVAE(mdata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (120, 5)
    """

    default_key = "mvae"
    module: MVAEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Literal["auto"] = "auto",
        structured: bool = False,
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        n_subsets: int = 1,
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        self.module = MVAEModule(
            self.schema,
            self._network(network),
            self._shape(n_latent, n_private, structured, "MVAE"),
            n_subsets=whole_number("n_subsets", n_subsets, least=0),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("MVAE")
        self.init_params_ = self._get_init_params(locals())
