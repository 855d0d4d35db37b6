"""The model class of MMVAE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mudata import MuData

from omicvae.model._shared_private import SharedPrivateModel, check_private
from omicvae.model._sizes import whole_number
from omicvae.module import MMVAEModule
from omicvae.nn import NetworkConfig


class MMVAE(SharedPrivateModel):
    """MMVAE :cite:p:`shi2019variational`: a mixture of experts, each of which predicts every assay.

    ``MMVAE(mdata, distribution="laplace", n_samples=10)`` is the paper's setting.

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
    >>> omicvae.model.MMVAE.setup_mudata(mdata, batch_key="center")
    >>> model = omicvae.model.MMVAE(mdata, n_latent=5, structured=True, n_private=2)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> model.get_latent_representation(kind="shared").shape
    (120, 5)
    """

    default_key = "mmvae"
    module: MMVAEModule

    def __init__(
        self,
        mdata: MuData | None = None,
        registry: dict[str, Any] | None = None,
        *,
        n_latent: int | Literal["auto"] = "auto",
        structured: bool = False,
        n_private: int | Mapping[str, int] | Literal["auto"] = "auto",
        private: Literal["prior", "zero"] = "prior",
        distribution: Literal["normal", "laplace"] = "normal",
        n_samples: int = 1,
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        if distribution not in ("normal", "laplace"):
            raise ValueError(f"distribution must be 'normal' or 'laplace', got {distribution!r}")
        check_private(private, structured)
        self.module = MMVAEModule(
            self.schema,
            self._network(network),
            self._shape(n_latent, n_private, structured, "MMVAE"),
            private=private,
            family=distribution,
            n_samples=whole_number("n_samples", n_samples),
            label_weight=self._label_weight(label_weight),
        )
        self._model_summary_string = self._summary("MMVAE")
        self.init_params_ = self._get_init_params(locals())
