"""Likelihoods by name, and which one fits data that nobody named one for."""

from __future__ import annotations

import difflib
from typing import Any

from omicvae.nn.likelihoods._base import Likelihood
from omicvae.nn.likelihoods._bernoulli import Bernoulli
from omicvae.nn.likelihoods._beta import Beta
from omicvae.nn.likelihoods._betabinomial import BetaBinomial
from omicvae.nn.likelihoods._counts import Poisson
from omicvae.nn.likelihoods._negative_binomial import NegativeBinomial, ZeroInflatedNegativeBinomial
from omicvae.nn.likelihoods._normal import Normal, UnitNormal
from omicvae.stats.summary import ValueSummary

LIKELIHOOD_CLASSES: tuple[type[Likelihood], ...] = (
    Normal,
    UnitNormal,
    NegativeBinomial,
    ZeroInflatedNegativeBinomial,
    Poisson,
    Bernoulli,
    Beta,
    BetaBinomial,
)
LIKELIHOODS: dict[str, type[Likelihood]] = {likelihood.name: likelihood for likelihood in LIKELIHOOD_CLASSES}
"""Name -> class."""


def likelihood_class(name: str) -> type[Likelihood]:
    """The class of a likelihood.

    Raises
    ------
    ValueError
        If there is none of that name; the nearest spelling is proposed.
    """
    if name not in LIKELIHOODS:
        close = difflib.get_close_matches(str(name).lower(), LIKELIHOODS, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown likelihood {name!r}; there are {', '.join(LIKELIHOODS)}.{hint}")
    return LIKELIHOODS[name]


def make_likelihood(name: str, n_vars: int, **options: Any) -> Likelihood:
    """A likelihood for ``n_vars`` features.

    Parameters
    ----------
    name
        Key of :data:`LIKELIHOODS`.
    n_vars
        Number of features.
    **options
        Of its class, such as ``size_is_factor=True`` for counts.

    Raises
    ------
    ValueError
        If the name is unknown; the nearest spelling is proposed.
    """
    return likelihood_class(name)(n_vars, **options)


def propose(summary: ValueSummary, *, has_coverage: bool) -> tuple[str, str]:
    """Likelihood that fits the values of a modality.

    Parameters
    ----------
    summary
        Of the registered layer.
    has_coverage
        Whether a layer of total reads was named.

    Returns
    -------
    Its name, and a sentence for the log that says why.
    """
    low, high = f"{summary.minimum:g}", f"{summary.maximum:g}"
    if has_coverage:
        return "betabinomial", "there is a coverage layer: beta-binomial"
    if summary.n_obs * summary.n_vars == summary.n_nan + summary.n_inf:
        return "normal", "there is no finite value: normal"
    if not summary.n_not_binary:
        return "bernoulli", "values are 0 or 1: Bernoulli"
    if not summary.n_negative and not summary.n_fractional:
        if not summary.n_nan:
            return "nb", f"values are whole numbers from {low} to {high}: negative binomial"
        return "normal", f"values are whole numbers from {low} to {high}, but {summary.n_nan} are missing: normal"
    if not summary.n_outside_unit:
        return "beta", f"values are proportions from {low} to {high}: beta"
    return "normal", f"values are real numbers from {low} to {high}: normal"
