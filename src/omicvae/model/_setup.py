"""Registration: every mistake a user can make with data is caught here, before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from mudata import MuData

from omicvae.data import MosaicManager
from omicvae.data._fields import registry_fields
from omicvae.data._validate import (
    check_categories,
    check_column,
    check_columns,
    check_continuous,
    check_layers,
    check_mapping,
    check_names,
    check_overlap,
    choose_modalities,
)
from omicvae.model._values import check_likelihood, read_values
from omicvae.nn.likelihoods import LIKELIHOODS, Likelihood, likelihood_class, propose

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
    for modality, name in named.items():
        _named_class(modality, name)  # a misspelt name should not cost a pass over the data
    arguments.update(_covariates(mdata, arguments, modalities))
    arguments.update(
        modalities=list(modalities),
        likelihoods={
            m: _resolve(mdata, m, named.get(m), layers.get(m), coverage.get(m), sizes.get(m)) for m in modalities
        },
        layers=layers,
        coverage_layers=coverage,
        size_factor_keys=sizes,
    )
    manager = MosaicManager(fields=registry_fields(arguments), setup_method_args=setup_method_args)
    manager.register_fields(mdata)
    manager.cohort  # noqa: B018  (reads covariates and size factors, which may still be refused)
    return manager


def _named_class(modality: str, name: str) -> type[Likelihood]:
    if not isinstance(name, str):
        raise TypeError(f"likelihoods: modality {modality!r} must have the name of one, got {name!r}")
    try:
        return likelihood_class(name)
    except ValueError as error:
        raise ValueError(f"likelihoods: modality {modality!r}: {error}") from error


def _resolve(
    mdata: MuData, modality: str, name: str | None, layer: str | None, coverage: str | None, size_factor: str | None
) -> str:
    """The likelihood of a modality, proposed from its values if not named; its values are checked against it."""
    values = read_values(mdata, modality, layer, coverage)
    if name is None:
        name, reason = propose(values.summary, has_coverage=coverage is not None)
        logger.info("%s: likelihood %r, because %s", modality, name, reason)
    chosen = LIKELIHOODS[name]
    for argument, given, used, uses in (
        ("coverage_layers", coverage, chosen.uses_coverage, "'betabinomial'"),
        ("size_factor_keys", size_factor, chosen.uses_size, "one of counts, such as 'nb'"),
    ):
        if given is not None and not used:
            raise ValueError(
                f"{argument} names modality {modality!r}, whose likelihood {name!r} does not use it; "
                f"leave it out or name {uses} in likelihoods"
            )
    check_likelihood(mdata, modality, chosen, values)
    return name


def _covariates(mdata: MuData, arguments: Mapping[str, Any], modalities: Sequence[str]) -> dict[str, Any]:
    """The arguments that name columns, checked and as plain names, lists and dicts."""
    batch, labels = arguments["batch_key"], arguments["labels_key"]
    if isinstance(batch, Mapping):
        batch = check_mapping("batch_key", batch, modalities)
        for modality, column in batch.items():
            check_categories(mdata, "batch_key", column, modality)
    elif batch is not None:
        check_categories(mdata, "batch_key", batch)
    if labels is not None:
        check_categories(mdata, "labels_key", labels)
    categorical = check_columns("categorical_covariate_keys", arguments["categorical_covariate_keys"])
    for column in categorical:
        check_categories(mdata, "categorical_covariate_keys", column)
    continuous = check_columns("continuous_covariate_keys", arguments["continuous_covariate_keys"])
    for column in continuous:
        check_column(mdata, "continuous_covariate_keys", column)
        check_continuous(mdata, column)
    return {"batch_key": batch, "categorical_covariate_keys": categorical, "continuous_covariate_keys": continuous}
