"""Everything a model says about measured samples, written into their MuData."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
import pandas as pd
from mudata import MuData
from numpy.typing import NDArray

from omicvae.data import modality_rows
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.nn import NetworkConfig
from omicvae.tl._arguments import check_data, check_obsm_keys
from omicvae.tl._cross_correlation import correlation_table, has_shared_coordinates
from omicvae.tl._held_out import HeldOut
from omicvae.tl._trust import check_stem, measured_trust, trust_columns, warn_of_guesses


def embed(mdata: MuData, model: Model, *, key_added: str | None = None, copy: bool = False) -> MuData | None:
    """Write latents, their uncertainty, provenance, denoised values and trust into a MuData.

    Parameters
    ----------
    mdata
        The model's own data or any other (matched by name). Samples may lack modalities, and modalities may be absent
        altogether. ``X`` and registered layers are not changed; what an earlier call wrote is replaced.
    model
        Trained model.
    key_added
        Stem of the names below; ``model.default_key`` by default, such as ``"covae"``.
    copy
        Return a changed copy and leave ``mdata`` as it is.

    Returns
    -------
    ``None``, or the copy. Written are, with ``covae`` standing for the stem:

    ``obsm["X_covae"]``
        ``(n_obs, n_latent)`` float32, joint latent.
    ``obsm["X_covae_shared"]``
        ``(n_obs, n_shared)`` float32, what the assays share.
    ``obsm["X_covae_private_<modality>"]``
        ``(n_obs, n_private)`` float32; NaN where the sample lacks the modality. Subset before computing neighbours.
    ``obs["covae_latent_sd"]``
        Posterior standard deviation, mean over the joint latent dimensions: larger where less was measured.
    ``obs["covae_<modality>_source"]``
        ``"observed"`` or ``"imputed"``; ``"prior"`` in a sample without any registered modality.
    ``mod[modality].layers["covae"]``, ``["covae_sd"]``
        Measured samples with noise removed, and the standard deviation of a new measurement around it, in the units of
        the registered layer (methylation levels for ``betabinomial``). float32; NaN for features that were not
        registered.
    ``mod[modality].var["covae_imputable"]``, ``["covae_r2"]``, ``["covae_coverage90"]``, ``["covae_skill_vs_ridge"]``
        How far values of a feature imputed from the other assays can be trusted, measured on samples the model had not
        seen (``model.trust``). ``False`` and NaN for features that were not registered, or if nothing was held out.
    ``mod[modality].var["mmvaepp_shared_weight"]``
        For screened MMVAE++: square root of the R2 with which the other assays predict a feature on held-out samples, 0
        where they do not; NaN for features that were not registered.
    ``uns["covae"]``
        How the model was made, the number of shared dimensions and, where the model has them, the correlations between
        assays (:func:`omicvae.tl.cross_correlation`).

    Warns
    -----
    UserWarning
        Once for each modality of which most features cannot be told from their mean.

    Raises
    ------
    TypeError
        If ``mdata`` is not a MuData, ``model`` is not a model, or ``key_added`` is not text.
    ValueError
        If ``key_added`` is empty or holds ``"/"``, if a name to be written is a modality of ``mdata.obsm`` or a
        registered layer, or if the data do not fit the model.
    RuntimeError
        If the model is not trained.
    """
    check_model(model, "embed")
    check_data(mdata, "embed")
    key = check_stem(model, key_added)
    obsm = _latents(mdata, model, key)
    obs = _annotations(mdata, model, key)
    layers = {m: _denoised(mdata, model, m, key) for m in model.modalities if m in mdata.mod}
    trust = {m: measured_trust(model, m) for m in layers}
    uns = parameters(model, mdata)
    warn_of_guesses(trust, key)
    target = mdata.copy() if copy else mdata
    for name, values in obsm.items():  # first: setting obsm turns a view into data of its own, modalities included
        target.obsm[name] = values
    for name, column in obs.items():
        target.obs[name] = column
    for modality, denoised in layers.items():
        for name, matrix in denoised.items():
            target.mod[modality].layers[name] = matrix
        adata = target.mod[modality]
        for name, scores in trust_columns(trust[modality], adata.var_names, key).items():
            adata.var[name] = scores
        for name, weights in model._feature_columns(modality).items():
            registered = pd.Series(weights, index=pd.Index(model.schema[modality].var_names))
            adata.var[f"{key}_{name}"] = registered.reindex(adata.var_names)
    target.uns[key] = uns
    return target if copy else None


def _latents(mdata: MuData, model: Model, key: str) -> dict[str, NDArray[np.float32]]:
    """Key of ``obsm`` -> ``(n_obs, d)``."""
    private = {f"X_{key}_private_{m}": m for m in model.modalities}
    check_obsm_keys(mdata, [f"X_{key}", f"X_{key}_shared", *private])

    def latent(kind: str, modality: str | None = None) -> NDArray[np.float32]:
        found = model.get_latent_representation(mdata, kind=kind, modality=modality, return_numpy=True)
        return np.asarray(found, dtype=np.float32)

    shared = {f"X_{key}": latent("joint"), f"X_{key}_shared": latent("shared")}
    return shared | {name: latent("private", m) for name, m in private.items()}


def _annotations(mdata: MuData, model: Model, key: str) -> dict[str, Any]:
    """Column of ``obs`` -> values."""
    _, variance = model.get_latent_representation(mdata, return_dist=True, return_numpy=True)
    columns: dict[str, Any] = {f"{key}_latent_sd": np.sqrt(np.asarray(variance)).mean(1)}
    present = {m: modality_rows(mdata, m) >= 0 for m in model.modalities}
    nothing = ~np.stack(list(present.values())).any(0)
    # Both words are categories even where only one occurs, so that colours agree between modalities.
    words = ["observed", "imputed"] + (["prior"] if nothing.any() else [])
    for m, here in present.items():
        source = np.where(here, "observed", np.where(nothing, "prior", "imputed"))
        columns[f"{key}_{m}_source"] = pd.Categorical(source.astype(object), categories=words)
    return columns


def _denoised(mdata: MuData, model: Model, modality: str, key: str) -> dict[str, NDArray[np.float32]]:
    """Name of the layer -> ``(n_obs, n_vars)`` of the modality, in its own order of samples and features."""
    registered = model.schema[modality]
    for name in (key, f"{key}_sd"):
        if name in (registered.layer, registered.coverage_layer):
            raise ValueError(
                f"layer {name!r} of modality {modality!r} is what the model was set up with; choose another key_added"
            )
    adata = mdata.mod[modality]
    rows = modality_rows(mdata, modality)
    measured = np.flatnonzero(rows >= 0)
    columns = adata.var_names.get_indexer(pd.Index(registered.var_names))
    found = model.get_denoised(modality, mdata=mdata, indices=measured, level=None)
    layers = {}
    for name, values in ((key, found.X), (f"{key}_sd", found.layers["sd"])):
        layers[name] = np.full(adata.shape, np.nan, dtype=np.float32)
        layers[name][np.ix_(rows[measured], columns)] = values
    return layers


def parameters(model: Model, mdata: MuData) -> dict[str, Any]:
    """What is kept in ``mdata.uns``: plain values and arrays that every h5mu can hold.

    Arguments that are ``None`` are left out, because older files cannot hold them.
    """
    arguments = model.init_params_["non_kwargs"]
    described: dict[str, Any] = {
        "model": type(model).__name__,
        "omicvae_version": version("omicvae"),
        "arguments": {name: _plain(value) for name, value in arguments.items() if value is not None},
        "modalities": np.array(model.modalities, dtype=object),
        "given": np.array([m for m in model.modalities if m in mdata.mod], dtype=object),
        "likelihoods": {m.name: m.likelihood for m in model.schema.modalities},
        "layers": {m.name: m.layer for m in model.schema.modalities if m.layer is not None},
        "n_shared": len(model.latent_names["shared"]),
    }
    if model.adata is not None and has_shared_coordinates(model):
        held_out = HeldOut(model)
        table = correlation_table(model, held_out.positions)
        described["cross_correlation"] = {str(name): column.to_numpy() for name, column in table.items()}
        described["cross_correlation_samples"] = "training" if held_out.trained_on else "held out"
    return described


def _plain(value: Any) -> Any:
    if isinstance(value, NetworkConfig):
        value = value.to_dict()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    return value
