"""The model class of MVTCAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel
from omicvae.module import MVTCAEModule
from omicvae.nn import NetworkConfig


class MVTCAE(SharedPrivateModel):
    """MVTCAE :cite:p:`hwang2021multi`: latents that explain the total correlation between assays.

    The posterior is the product of what each assay says; every assay is trained to say what all together do.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_latent
        Latents that all assays share; ``"auto"`` is 10, or 20 from 300 samples on.
    alpha
        Share of conditional divergences against that from the prior, 0 to 1; ``"auto"`` is M / (M + 1) for a sample with
        M assays.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.MVTCAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MVTCAE(mdata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (120, 5)
    """

    default_key = "mvtcae"
    module: MVTCAEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Literal["auto"] = "auto",
        alpha: float | Literal["auto"] = "auto",
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if alpha != "auto" and not (number and 0 <= alpha <= 1):
            raise ValueError(f"alpha must be 'auto' or a number from 0 to 1, got {alpha!r}")
        self.module = MVTCAEModule(
            self.schema,
            self._network(network),
            self._shape(n_latent, "auto", False, "MVTCAE"),
            alpha=None if alpha == "auto" else float(alpha),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("MVTCAE")
        self.init_params_ = self._get_init_params(locals())
