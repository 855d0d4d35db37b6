from __future__ import annotations

import logging

import numpy as np
import pytest

from omicvae.nn.likelihoods import LIKELIHOODS, Likelihood, likelihood_class, make_likelihood, propose
from omicvae.stats.summary import summarise


@pytest.mark.parametrize(
    ("values", "name", "reason"),
    [
        ([[0, 1], [1, 0]], "bernoulli", "0 or 1"),
        ([[0, 1], [np.nan, 0]], "bernoulli", "0 or 1"),
        ([[0, 1], [4312, 0]], "nb", "values are whole numbers from 0 to 4312: negative binomial"),
        ([[0, np.nan], [7, 0]], "normal", "1 are missing"),
        ([[0, 0.2], [0.9, np.nan]], "beta", "proportions from 0 to 0.9"),
        ([[0.5, 0.2], [0.9, 1.1]], "normal", "real numbers from 0.2 to 1.1"),
        ([[-1, 2], [3, 4]], "normal", "real numbers from -1 to 4"),
        ([[np.nan, np.nan]], "normal", "no finite value"),
    ],
)
def test_proposal_follows_from_the_values(values, name, reason):
    proposed, sentence = propose(summarise([np.array(values, dtype=float)], ["a", "b"]), has_coverage=False)
    assert proposed == name
    assert reason in sentence


@pytest.mark.parametrize("values", [[[0, 1], [1, 0]], [[0, 1], [31, 0]], [[0, 0.2], [0.9, 1]], [[0.5, -3], [9, 1]]])
def test_what_is_proposed_is_valid(values):
    summary = summarise([np.array(values, dtype=float)], ["a", "b"])
    likelihood_class(propose(summary, has_coverage=False)[0]).validate("rna", summary)


def test_a_coverage_layer_means_bisulfite_sequencing():
    summary = summarise([np.array([[0.0, 3.0]])], ["a", "b"])
    assert propose(summary, has_coverage=True) == ("betabinomial", "there is a coverage layer: beta-binomial")


def test_all_likelihoods_are_made_by_name():
    assert sorted(LIKELIHOODS) == [
        "bernoulli",
        "beta",
        "betabinomial",
        "nb",
        "normal",
        "poisson",
        "unit_normal",
        "zinb",
    ]
    for name, cls in LIKELIHOODS.items():
        likelihood = make_likelihood(name, 3)
        assert isinstance(likelihood, Likelihood) and type(likelihood) is cls and likelihood.name == name
    assert make_likelihood("nb", 3, size_is_factor=True).size_is_factor


@pytest.mark.parametrize(
    ("wrong", "nearest"), [("Normal", "normal"), ("poison", "poisson"), ("beta-binomial", "betabinomial")]
)
def test_unknown_name_proposes_the_nearest(wrong, nearest):
    with pytest.raises(ValueError, match=f"unknown likelihood '{wrong}'.*Did you mean '{nearest}'"):
        make_likelihood(wrong, 3)


def test_unknown_name_far_from_all():
    with pytest.raises(
        ValueError, match=r"there are normal, unit_normal, nb, zinb, poisson, bernoulli, beta, betabinomial\.$"
    ):
        make_likelihood("xyz", 3)


COUNTS = ["nb", "poisson", "zinb"]
FEATURES = ["A", "B", "C", "D", "E"]
COVERAGE = np.full((4, 5), 50.0)
GOOD = {
    **dict.fromkeys([*COUNTS, "betabinomial"], np.arange(20.0).reshape(4, 5)),
    "bernoulli": np.eye(4, 5),
    "beta": np.linspace(0.1, 0.9, 20).reshape(4, 5),
    **dict.fromkeys(["normal", "unit_normal"], np.linspace(-3, 3, 20).reshape(4, 5)),
}


def spoiled(name: str, value: float) -> np.ndarray:
    x = GOOD[name].copy()
    x[0, 2] = value
    return x


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        *[(name, np.inf, r"'rna': 1 value is infinite \(first in features C\)") for name in LIKELIHOODS],
        *[
            (name, -2, r"'rna': 1 value is negative \(first in features C\).*layers=\{'rna': 'counts'\}")
            for name in COUNTS
        ],
        *[(name, 0.5, r"1 value is fractional.*likelihoods=\{'rna': 'normal'\}") for name in COUNTS],
        *[(name, np.nan, r"1 value is NaN.*drop them from mdata\['rna'\].*'normal'") for name in COUNTS],
        ("beta", 1.5, r"1 value is outside \[0, 1\] \(first in features C\)"),
        ("bernoulli", 2, r"1 value is neither 0 nor 1.*\(mdata\['rna'\].X > 0\)"),
    ],
)
def test_validate_names_modality_number_features_and_a_way_out(name, value, message):
    coverage = summarise([COVERAGE], FEATURES)
    with pytest.raises(ValueError, match=message):
        LIKELIHOODS[name].validate("rna", summarise([spoiled(name, value)], FEATURES), coverage)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_validate_accepts_good_data_and_missing_values_where_allowed(name):
    coverage = summarise([COVERAGE], FEATURES)
    LIKELIHOODS[name].validate("rna", summarise([GOOD[name]], FEATURES), coverage)
    if name not in COUNTS:
        LIKELIHOODS[name].validate("rna", summarise([spoiled(name, np.nan)], FEATURES), coverage)


def test_validate_coverage():
    likelihood = LIKELIHOODS["betabinomial"]
    x, coverage = GOOD["betabinomial"], COVERAGE
    summary = summarise([x], FEATURES, upper=[coverage])
    likelihood.validate("rna", summary, summarise([coverage], FEATURES))
    with pytest.raises(ValueError, match=r"coverage_layers=\{'rna': 'coverage'\}"):
        likelihood.validate("rna", summary)
    with pytest.raises(ValueError, match="1 value is fractional in the coverage"):
        likelihood.validate("rna", summary, summarise([spoiled("betabinomial", 0.5)], FEATURES))
    above = summarise([spoiled("betabinomial", 99.0)], FEATURES, upper=[coverage])
    with pytest.raises(ValueError, match=r"1 value is larger than their coverage \(first in features C\)"):
        likelihood.validate("rna", above, summarise([coverage], FEATURES))
    with pytest.raises(ValueError, match="exchanged"):
        likelihood.validate("rna", summarise([coverage * 100], FEATURES), summarise([x], FEATURES))


def test_validate_logs_what_is_no_error(caplog):
    x = GOOD["beta"].copy()
    x[0, 0], x[1, 0], x[:, 3], x[:, 4] = 0, 1, np.nan, 0.5
    with caplog.at_level(logging.INFO, logger="omicvae"):
        LIKELIHOODS["beta"].validate("methylation", summarise([x], FEATURES))
    messages = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert (
        "INFO",
        "modality 'methylation': 2 values are exactly 0 or 1 and are squeezed to 0.0001 and 1 - 0.0001",
    ) in messages
    assert ("WARNING", "modality 'methylation': 1 feature is without any value (D)") in messages
    assert ("WARNING", "modality 'methylation': 1 feature is constant (E)") in messages
