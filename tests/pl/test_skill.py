from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from omicvae import pl, tl
from omicvae.model import CoVAE


def test_a_curve_is_the_sorted_skill_of_a_modality() -> None:
    rng = np.random.default_rng(0)
    values = {"rna": rng.normal(0.1, 0.2, 40), "rppa": rng.normal(-0.1, 0.2, 25)}
    table = pd.concat([pd.DataFrame({"modality": m, "skill_vs_ridge": v}) for m, v in values.items()])
    ax = pl.skill(table)
    lines = {line.get_label(): line for line in ax.get_lines() if ":" in line.get_label()}
    for m, v in values.items():
        label = f"{m}: {(v > 0).mean():.0%} of {len(v)} better"
        np.testing.assert_allclose(lines[label].get_ydata(), np.sort(v)[::-1])


def test_features_that_were_not_scored_are_left_out() -> None:
    table = pd.DataFrame({"modality": "rna", "skill_vs_mean": [0.5, np.nan, -3.0]})
    ax = pl.skill(table, reference="mean")
    (line,) = [line for line in ax.get_lines() if ":" in line.get_label()]
    assert line.get_label() == "rna: 50% of 2 better"
    assert ax.get_ylim()[0] == pl._skill.LOWEST  # one failure does not squeeze the rest together


def test_a_model_and_its_report_give_the_same(model: CoVAE) -> None:
    one, other = pl.skill(model), pl.skill(model.calibration_report(by="feature"))
    for a, b in zip(one.get_lines(), other.get_lines(), strict=True):
        np.testing.assert_array_equal(a.get_ydata(), b.get_ydata())


def test_wrong_arguments_say_what_is_expected(model: CoVAE) -> None:
    with pytest.raises(ValueError, match="reference must be"):
        pl.skill(model, reference="median")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"model.calibration_report\(by='feature'\)"):
        pl.skill(pd.DataFrame({"modality": ["rna"]}))
    with pytest.raises(TypeError, match="expected a model or a DataFrame"):
        pl.skill(3)  # type: ignore[arg-type]


def test_bars_of_the_aggregated_posterior_add_up(model: CoVAE) -> None:
    table = tl.aggregated_posterior(model)
    ax = pl.aggregated_posterior(table)
    n = len(table)
    heights = [bar.get_y() + bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights[:n], table["means"], rtol=1e-6)
    np.testing.assert_allclose(heights[n:], table["aggregated"], rtol=1e-6)
