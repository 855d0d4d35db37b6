"""The model class of MMVAE++."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mudata import MuData

from omicvae.model._model import Model
from omicvae.model._sizes import per_modality
from omicvae.module import MMVAEPlusPlusModule, Shape
from omicvae.nn import NetworkConfig

DEFAULT_SHARED = 8  # two fold a curved manifold; the divergence switches off what is not needed


class MMVAEPlusPlus(Model):
    """MMVAE++ :cite:p:`martens2024disentangling`: what assays share, apart from what each has alone.

    Shared latents are trained by predicting one assay from another and by nothing else.

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
    private
        Private latents of an assay that is predicted: draws from their ``"prior"``, or ``"zero"`` as in the authors'
        code, which makes intervals too narrow.
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
        private: Literal["prior", "zero"] = "prior",
        label_weight: float | Literal["auto"] | None = None,
        network: NetworkConfig | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(mdata, registry)
        if private not in ("prior", "zero"):
            raise ValueError(f"private must be 'prior' or 'zero', got {private!r}")
        if n_shared != "auto" and (not isinstance(n_shared, int) or n_shared < 1):
            raise ValueError(f"n_shared must be 'auto' or a positive whole number, got {n_shared!r}")
        shared = DEFAULT_SHARED if n_shared == "auto" else n_shared
        counts = {m: 4 if n < 300 else 8 for m, n in self._n_measured().items()}
        shape = Shape(shared, per_modality("n_private", n_private, self.schema, counts))
        widest = max(m.n_vars for m in self.schema.modalities)
        weight = float(widest) if label_weight == "auto" else label_weight
        self.module = MMVAEPlusPlusModule(
            self.schema, self._network(network), shape, private=private, label_weight=weight
        )
        widths = ", ".join(f"{m} ({w} private)" for m, w in shape.private.items())
        self._model_summary_string = f"MMVAE++ with {shape.shared} shared latents over {widths}"
        self.init_params_ = self._get_init_params(locals())

    @property
    def latent_names(self) -> Mapping[str, Sequence[str]]:
        shape = self.module.shape
        shared = [f"shared_{k}" for k in range(shape.shared)]
        private = {f"private_{m}": [f"{m}_private_{k}" for k in range(w)] for m, w in shape.private.items()}
        return {"joint": shared + [name for names in private.values() for name in names], "shared": shared} | private
