"""The model class of MMVAE+."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel
from omicvae.model._sizes import whole_number
from omicvae.module import MMVAEPlusModule
from omicvae.nn import NetworkConfig


class MMVAEPlus(SharedPrivateModel):
    """MMVAE+ :cite:p:`palumbo2023mmvaeplus`: a mixture of experts with latents that each assay has alone.

    Every assay reconstructs itself from shared and private latents, and predicts the others from its shared latents
    and draws from their auxiliary priors. ``MMVAEPlus(mdata, distribution="laplace", n_samples=10)`` is the authors'
    setting.

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
    distribution
        Of latents and posteriors, ``"normal"`` or ``"laplace"``.
    n_samples
        Latent samples a source; with more than one, the objective is importance-weighted, with DReG gradients, and
        takes as many times longer.
    label_weight
        Weight of the label term; ``None`` leaves labels out; ``"auto"`` is the largest number of features. Needs
        ``labels_key``.
    network
        Sizes of the networks, a :class:`omicvae.nn.NetworkConfig` or a mapping of its fields.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.simulated_cohort(n_obs=120).mdata
    >>> omicvae.model.MMVAEPlus.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MMVAEPlus(mdata, n_shared=4)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation(kind="shared").shape
    (120, 4)
    """

    default_key = "mmvaeplus"
    module: MMVAEPlusModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_shared: int | Literal["auto"] = "auto",
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        distribution: Literal["normal", "laplace"] = "normal",
        n_samples: int = 1,
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        if distribution not in ("normal", "laplace"):
            raise ValueError(f"distribution must be 'normal' or 'laplace', got {distribution!r}")
        self.module = MMVAEPlusModule(
            self.schema,
            self._network(network),
            self._shape(n_shared, n_private, True, "MMVAE+", argument="n_shared"),
            family=distribution,
            n_samples=whole_number("n_samples", n_samples),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("MMVAE+")
        self.init_params_ = self._get_init_params(locals())
