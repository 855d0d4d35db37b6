"""Which methods take part in a benchmark, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import pandas as pd

import omicvae.model
from omicvae.data._validate import listing, nearest
from omicvae.model._model import Model
from omicvae.stats.baselines import (
    Baseline,
    KNNBaseline,
    MeanBaseline,
    MOFABaseline,
    PCARidgeBaseline,
    PLSBaseline,
    RidgeBaseline,
)
from omicvae.tl._contenders import BaselineContender, Contender, GroupMeanContender, ModelContender, MOFAContender

REFERENCE = "ridge"
GROUP_MEAN, MOFA = "group_mean", "mofa"
BASELINES: dict[str, Callable[[], Baseline]] = {
    "mean": MeanBaseline,
    REFERENCE: RidgeBaseline,
    "ridge_per_feature": partial(RidgeBaseline, per_feature=True),
    "pca_ridge": PCARidgeBaseline,
    "pls": PLSBaseline,
    "knn": KNNBaseline,
}
DEFAULT_MODELS = ("ProbabilisticCCA", "CoVAE", "MMVAEPlusPlus")


def resolve_names(models: Sequence[str] | None, *, with_groups: bool) -> list[str]:
    """Methods in the order of the table."""
    classes = [n for n in omicvae.model.__all__ if issubclass(getattr(omicvae.model, n), Model)]
    known = [*BASELINES, GROUP_MEAN, MOFA, *classes]
    if models is None:
        models = [*BASELINES, *(n for n in DEFAULT_MODELS if n in classes)]
        models[1:1] = [GROUP_MEAN] if with_groups else []
        models += [MOFA] if find_spec("mofapy2") is not None else []
    if isinstance(models, str):
        raise TypeError(f"models must be a list of names, got the text {models!r}; write models=[{models!r}]")
    for name in models:
        if name not in known:
            raise ValueError(f"models: there is no {name!r}; there are {', '.join(known)}.{nearest(str(name), known)}")
    if GROUP_MEAN in models and not with_groups:
        raise ValueError(f"{GROUP_MEAN!r} needs groups: name a column of mdata.obs with groupby=")
    if MOFA in models:
        MOFABaseline()  # raises if its package is missing
    return list(dict.fromkeys([*models] if REFERENCE in models else [REFERENCE, *models]))


def maker(
    name: str,
    registry: Mapping[str, Any],
    groups: pd.Series | None,
    model_kwargs: Mapping[str, Mapping[str, Any]] | None,
    train_kwargs: Mapping[str, Any] | None,
    seed: int,
) -> Callable[[], Contender]:
    """A function that makes the method, unfitted."""
    classes = set(omicvae.model.__all__)
    for argument, given in (("model_kwargs", model_kwargs), ("train_kwargs", train_kwargs)):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{argument} must be a mapping, got {type(given).__name__}")
    unknown = [k for k in model_kwargs or {} if k not in classes]
    if unknown:
        raise ValueError(f"model_kwargs names {listing(unknown)}; it maps names of model classes to their arguments")
    if name in BASELINES:
        return partial(BaselineContender, BASELINES[name])
    if name == GROUP_MEAN:
        assert groups is not None
        return partial(GroupMeanContender, groups)
    if name == MOFA:
        return partial(MOFAContender, seed)
    common = {k: v for k, v in (train_kwargs or {}).items() if k not in classes}
    own = dict((train_kwargs or {}).get(name) or {})
    arguments = dict((model_kwargs or {}).get(name) or {})
    return partial(ModelContender, getattr(omicvae.model, name), registry["setup_args"], arguments, common, own, seed)
