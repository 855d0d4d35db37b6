"""Registration: every mistake a user can make with data is caught here, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mudata import MuData
from scvi.data import fields

from omicvae.data import MosaicManager
from omicvae.data._cohort import stored_values
from omicvae.data._fields import MuDataCategoryField
from omicvae.data._matrix import iterate_chunks
from omicvae.data._schema import BATCH, LABELS, batch_name, coverage_key, values_key
from omicvae.data._validate import (
    check_column,
    check_continuous,
    check_layers,
    check_mapping,
    check_names,
    check_overlap,
    choose_modalities,
)
from omicvae.nn.likelihoods import LIKELIHOODS, likelihood_class, propose
from omicvae.stats.summary import ValueSummary, summarise

logger = logging.getLogger("omicvae")


def build_manager(mdata: MuData, setup_method_args: dict[str, Any]) -> MosaicManager:
    """Check a MuData, resolve what the user left open, and register it.

    Parameters
    ----------
    mdata
        The user's data; left as it is, except for scvi-tools' identifiers in ``.uns``.
    setup_method_args
        scvi-tools' record of the call. What is resolved here (modalities, likelihoods) is written back into it, so
        that it is replayed and never proposed again.

    Raises
    ------
    TypeError, ValueError
        Naming the modality, how many values are wrong, the first offenders, and what to do.
    """
    arguments = setup_method_args["setup_args"]
    modalities = choose_modalities(mdata, arguments["modalities"])
    check_names(mdata, modalities)
    check_overlap(mdata, modalities)
    layers = check_mapping("layers", arguments["layers"], modalities)
    coverage = check_mapping("coverage_layers", arguments["coverage_layers"], modalities)
    check_layers(mdata, "layers", layers)
    check_layers(mdata, "coverage_layers", coverage)
    sizes = check_mapping("size_factor_keys", arguments["size_factor_keys"], modalities)
    for modality, column in sizes.items():
        check_column(mdata, "size_factor_keys", column, modality)
    named = check_mapping("likelihoods", arguments["likelihoods"], modalities)
    likelihoods = {m: _resolve(mdata, m, named.get(m), layers.get(m), coverage.get(m)) for m in modalities}
    covariates = _covariate_fields(mdata, arguments, modalities)
    arguments.update(
        modalities=list(modalities),
        likelihoods=likelihoods,
        layers=layers,
        coverage_layers=coverage,
        size_factor_keys=sizes,
    )
    values = [_layer_field(values_key(m), layers.get(m), m) for m in modalities]
    values += [_layer_field(coverage_key(m), layer, m) for m, layer in coverage.items()]
    manager = MosaicManager(fields=values + covariates, setup_method_args=setup_method_args)
    manager.register_fields(mdata)
    manager.cohort  # noqa: B018  (reads covariates and size factors, which may still be refused)
    return manager


def _layer_field(key: str, layer: str | None, modality: str) -> Any:
    return fields.MuDataLayerField(
        key, layer, is_count_data=False, correct_data_format=False, mod_key=modality, mod_required=True
    )


def _resolve(mdata: MuData, modality: str, name: str | None, layer: str | None, coverage: str | None) -> str:
    """The likelihood of a modality, proposed from its values if not named; its values are checked against it."""
    if name is not None:
        likelihood_class(name)  # a misspelt name should not cost a pass over the data
    summary = _summary(mdata, modality, layer)
    reads = _summary(mdata, modality, coverage) if coverage is not None else None
    if name is None:
        name, reason = propose(summary, has_coverage=coverage is not None)
        logger.info("%s: likelihood %r, because %s", modality, name, reason)
    chosen = LIKELIHOODS[name]
    if coverage is not None and not chosen.uses_coverage:
        raise ValueError(
            f"coverage_layers names modality {modality!r}, whose likelihood {name!r} does not use a coverage; "
            "leave it out or name 'betabinomial'"
        )
    chosen.validate(modality, summary, reads)
    return name


def _summary(mdata: MuData, modality: str, layer: str | None) -> ValueSummary:
    stored = stored_values(mdata, modality, layer)
    if stored is None:
        raise ValueError(f"modality {modality!r} has no .X; name a layer with layers={{{modality!r}: ...}}")
    try:
        return summarise(iterate_chunks(stored), list(mdata.mod[modality].var_names))
    except TypeError as error:
        raise TypeError(f"modality {modality!r}: {error}") from error


def _covariate_fields(mdata: MuData, arguments: Mapping[str, Any], modalities: Sequence[str]) -> list[Any]:
    found = []
    batch = arguments["batch_key"]
    if isinstance(batch, Mapping):
        batch = arguments["batch_key"] = check_mapping("batch_key", batch, modalities)
        for modality, column in batch.items():
            check_column(mdata, "batch_key", column, modality)
            found.append(MuDataCategoryField(batch_name(modality), column, mod_key=modality))
    elif batch is not None:
        check_column(mdata, "batch_key", batch)
        found.append(MuDataCategoryField(BATCH, batch))
    if arguments["labels_key"] is not None:
        check_column(mdata, "labels_key", arguments["labels_key"])
        found.append(MuDataCategoryField(LABELS, arguments["labels_key"]))
    for argument in ("categorical_covariate_keys", "continuous_covariate_keys"):
        if isinstance(arguments[argument], str):
            raise TypeError(f"{argument} must be a list of columns, got the text {arguments[argument]!r}")
        for column in arguments[argument] or ():
            check_column(mdata, argument, column)
    for column in arguments["categorical_covariate_keys"] or ():
        found.append(MuDataCategoryField(f"cat_{column}", column))
    for column in arguments["continuous_covariate_keys"] or ():
        check_continuous(mdata, column)
        found.append(fields.MuDataNumericalObsField(f"cont_{column}", column))
    return found
