"""The model class of JMVAE."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel
from omicvae.module import JMVAEModule
from omicvae.nn import NetworkConfig


class JMVAE(SharedPrivateModel):
    """JMVAE :cite:p:`suzuki2016joint`: one encoder for all assays together, and one for each alone.

    The joint encoder takes whatever a sample has; the encoder of each assay learns to say what the joint one would.

    Parameters
    ----------
    mdata
        MuData registered with :meth:`setup_mudata`.
    registry
        Registry of a saved model, to build it without data.
    n_latent
        Latents that all assays share; ``"auto"`` is 10, or 20 from 300 samples on.
    alpha
        Weight of the divergence of each assay's encoder from the joint one.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.JMVAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.JMVAE(mdata, n_latent=5)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation().shape
    (120, 5)
    """

    default_key = "jmvae"
    module: JMVAEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Literal["auto"] = "auto",
        alpha: float = 0.1,
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        number = isinstance(alpha, int | float) and not isinstance(alpha, bool)
        if not number or not math.isfinite(alpha) or alpha <= 0:
            raise ValueError(f"alpha must be a positive number, got {alpha!r}: nothing else trains an assay's encoder")
        self.module = JMVAEModule(
            self.schema,
            self._network(network),
            self._shape(n_latent, "auto", False, "JMVAE"),
            alpha=float(alpha),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("JMVAE")
        self.init_params_ = self._get_init_params(locals())
