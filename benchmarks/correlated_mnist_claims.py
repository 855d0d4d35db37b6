"""Section 3.1 and appendices B and C of the CoVAE paper claim by claim, beside what `correlated_mnist.py` found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from page_parts import markdown

PAPER, REPAIRED = "CoVAE as published", "CoVAE"
ONE_LATENT = ("JMVAE", "MVAE", "MMVAE", "MVTCAE", "MoPoE")
SPLIT = ("MMVAE+", "DMVAE")
NEAR, SAME_SD = 0.1, 0.05  # how far a correlation may be from the truth, and two sds from one another
LEAST_FALL = 0.02  # of an sd
LONGER = ", 4 x epochs"
TRAINED, CROSS_DIAGONAL = f"{PAPER}, prior trained on", f"{PAPER}, cross-diagonal"
SAME_NLL = 0.02  # share of the joint NLL
OVERLAP = 0.25  # share of a posterior term by which two models may differ and still be said to agree


class Found(NamedTuple):
    """What was found about a claim."""

    text: str
    holds: bool


class Values:
    """Means over seeds."""

    def __init__(self, table: pd.DataFrame) -> None:
        self.table = table.groupby(["method", "score", "rho"])["value"].mean()

    def of(self, method: str, score: str) -> pd.Series:
        """By correlation; empty if it was not run."""
        if (method, score) not in self.table.index.droplevel("rho"):
            return pd.Series(dtype=float)
        return self.table.loc[(method, score)].sort_index()

    def at(self, method: str, score: str, rho: float) -> float:
        """NaN if it was not run."""
        return float(self.of(method, score).get(rho, np.nan))


def listed(values: pd.Series, digits: int = 2) -> str:
    """Numbers in the order of the correlations."""
    return ", ".join(f"{v:.{digits}f}" for v in values)


def correlation_is_kept(v: Values, method: str) -> Found | None:
    """Figure 5, CoVAE."""
    truth = v.of("truth", "joint correlation")
    joint, given = (v.of(method, f"{kind} correlation") for kind in ("joint", "conditional"))
    if joint.empty:
        return None
    truth = truth.reindex(joint.index)
    worst = max((joint - truth).abs().max(), (given - truth).abs().max())
    text = f"joint {listed(joint)}, conditional {listed(given)}; true {listed(truth)}"
    longer = v.of(f"{method}{LONGER}", "joint correlation")
    if len(longer):
        text += f"; with four times the epochs joint {listed(longer)} at {listed(pd.Series(longer.index), 1)}"
    return Found(text, bool(worst <= NEAR))


def one_latent_is_one(v: Values) -> Found | None:
    """Figure 5, models with one latent space."""
    found = pd.concat([v.of(m, "joint correlation") for m in ONE_LATENT])
    return None if found.empty else Found(f"least {found.min():.3f}; by construction", bool(found.min() > 0.999))


def split_is_constant(v: Values) -> Found | None:
    """Figure 5, models with private latents."""
    series = {m: v.of(m, "joint correlation") for m in SPLIT}
    series = {m: s for m, s in series.items() if len(s) > 1}
    if not series:
        return None
    return Found(
        "; ".join(f"{m} {listed(s)}" for m, s in series.items()),
        all(s.max() - s.min() <= NEAR for s in series.values()),
    )


def others_do_not_see_what_is_missing(v: Values, methods: tuple[str, ...]) -> Found | None:
    """Figure 6, left against right."""
    pairs = {m: (v.of(m, "sd alone"), v.of(m, "sd missing")) for m in methods}
    pairs = {m: p for m, p in pairs.items() if len(p[0])}
    if not pairs:
        return None
    text = "; ".join(f"{m} {a.mean():.2f} and {b.mean():.2f}" for m, (a, b) in pairs.items())
    return Found(f"sd observed and missing: {text}", all((a - b).abs().max() <= SAME_SD for a, b in pairs.values()))


def others_do_not_see_correlation(v: Values) -> Found | None:
    """Figure 6, along the axis."""
    series = {m: v.of(m, "sd missing") for m in (*ONE_LATENT, *SPLIT)}
    series = {m: s for m, s in series.items() if len(s) > 1}
    if not series:
        return None
    text = "; ".join(f"{m} {listed(s)}" for m, s in series.items())
    return Found(f"sd missing: {text}", all(s.max() - s.min() <= SAME_SD for s in series.values()))


def missing_follows_correlation(v: Values, method: str) -> Found | None:
    """Figure 6, right, CoVAE: from 1 down."""
    found = v.of(method, "sd missing")
    if len(found) < 2:
        return None
    truth = np.sqrt(1 - np.asarray(found.index) ** 2)
    falls = bool((np.diff(found) < 0).all())
    starts = abs(found.iloc[0] - truth[0]) <= SAME_SD
    return Found(f"{listed(found)}; sqrt(1 - rho^2) is {listed(pd.Series(truth))}", falls and bool(starts))


def observed_follows_correlation(v: Values, method: str) -> Found | None:
    """Figure 6, left, CoVAE."""
    found = v.of(method, "sd alone")
    return None if len(found) < 2 else Found(listed(found, 3), bool(found.iloc[0] - found.iloc[-1] > LEAST_FALL))


def likelihood_improves(v: Values, method: str, score: str) -> Found | None:
    """Figure 8: lower at higher correlation."""
    found = v.of(method, score)
    return None if len(found) < 2 else Found(listed(found, 1), bool((np.diff(found) < 0).all()))


def joint_price(v: Values, method: str) -> Found | None:
    """Figure 8 and appendix C: CoVAE's joint NLL is above the others'."""
    own = v.of(method, "joint NLL")
    others = {m: v.of(m, "joint NLL") for m in (*ONE_LATENT, *SPLIT)}
    others = {m: s for m, s in others.items() if len(s)}
    if own.empty or not others:
        return None
    best, last = min(others, key=lambda m: others[m].mean()), max(others, key=lambda m: others[m].mean())
    text = f"{listed(own, 1)}; the best other model, {best}, {listed(others[best], 1)}, the worst, {last}, "
    return Found(text + listed(others[last], 1), bool(own.mean() > others[last].mean()))


def reconstruction_is_comparable(v: Values) -> Found | None:
    """Figure 14."""
    rho = 0.9
    parts = {m: [v.at(m, s, rho) for s in ("reconstruction", "prior", "posterior")] for m in (PAPER, "JMVAE", "MVAE")}
    if any(np.isnan(p).any() for p in parts.values()):
        return None
    text = "; ".join(f"{m} {p[0]:.1f}, {p[1]:.1f}, {p[2]:.1f}" for m, p in parts.items())
    table = np.array(list(parts.values()))
    gap = np.abs(table[0] - table[1:].mean(0))
    return Found(f"reconstruction, prior, posterior at .9: {text}", bool(gap[0] < gap[1:].max()))


def entropy_is_that_of_ten(v: Values, method: str) -> Found | None:
    """Figure 15."""
    own = v.at(method, "posterior", 0.9)
    others = {m: v.at(m, "posterior", 0.9) for m in ("JMVAE, 10 latents", "MVAE, 10 latents", "JMVAE", "MVAE")}
    if np.isnan([own, *others.values()]).any():
        return None
    text = f"{own:.1f}; " + "; ".join(f"{m} {value:.1f}" for m, value in others.items())
    ten = [others[m] for m in ("JMVAE, 10 latents", "MVAE, 10 latents")]
    return Found(f"posterior term {text}", bool(max(abs(own - t) / max(abs(t), 1) for t in ten) <= OVERLAP))


def prior_has_eleven(v: Values, method: str) -> Found | None:
    """Appendix C."""
    found = v.at(method, "prior dimensions", 0.9)
    return None if np.isnan(found) else Found(f"{found:.1f}; the true covariance has 11.0", abs(found - 11) <= 1)


def digits_are_right(v: Values, method: str, rho: float, rivals: tuple[str, ...]) -> Found | None:
    """Figure 7."""
    found = {m: v.at(m, "digit missing", rho) for m in (method, *rivals, "truth")}
    if np.isnan(list(found.values())).any():
        return None
    text = ", ".join(f"{m} {value:.2f}" for m, value in found.items())
    return Found(f"share of right digits: {text}", found[method] > max(found[m] for m in rivals))


def trained_prior_is_too_high(v: Values) -> Found | None:
    """Figure 11: correlations above those of the fixed prior, and above the truth."""
    fixed, trained, truth = (v.of(m, "joint correlation") for m in (PAPER, TRAINED, "truth"))
    if trained.empty:
        return None
    fixed, truth = fixed.reindex(trained.index), truth.reindex(trained.index)
    text = f"joint correlation {listed(trained)}; prior fixed {listed(fixed)}; true {listed(truth)}"
    return Found(text, bool((trained > truth).all() and (trained > fixed).all()))


def trained_prior_is_worse(v: Values) -> Found | None:
    """Figure 11: likelihoods."""
    scores = ("joint NLL", "conditional NLL")
    if v.of(TRAINED, scores[0]).empty:
        return None
    pairs = {s: (v.of(TRAINED, s), v.of(PAPER, s).reindex(v.of(TRAINED, s).index)) for s in scores}
    text = "; ".join(f"{s} {listed(a, 1)}, prior fixed {listed(b, 1)}" for s, (a, b) in pairs.items())
    return Found(text, all(bool((a > b).all()) for a, b in pairs.values()))


def cross_diagonal_is_the_same(v: Values) -> Found | None:
    """Figures 11 and 14."""
    scores, found = ("joint correlation", "joint NLL"), v.of(CROSS_DIAGONAL, "joint NLL")
    if found.empty:
        return None
    pairs = [(v.of(CROSS_DIAGONAL, s), v.of(PAPER, s).reindex(found.index)) for s in scores]
    names = ("correlation", "joint NLL")
    text = "; ".join(
        f"{n} {listed(a, d)}, by Cholesky factor {listed(b, d)}"
        for n, d, (a, b) in zip(names, (2, 1), pairs, strict=True)
    )
    (r, r0), (nll, nll0) = pairs
    alike = (r - r0).abs().max() <= NEAR and ((nll - nll0).abs() <= SAME_NLL * nll0.abs()).all()
    return Found(text, bool(alike))


def both(check: Callable, figure: str, claim: str, **arguments: object) -> Iterator[tuple[str, str, str, Callable]]:
    """A claim about CoVAE, of both its forms."""
    for method in (PAPER, REPAIRED):
        yield figure, claim, method, lambda v, m=method: check(v, m, **arguments)


CLAIMS = (
    *both(correlation_is_kept, "5", "joint and conditional correlation are the true one"),
    ("5", "one latent space: correlation 1", "others", one_latent_is_one),
    ("5", "DMVAE and MMVAE+: constant at all correlations", "others", split_is_constant),
    (
        *("6", "as uncertain of a missing modality as of an observed one", "one latent space"),
        lambda v: others_do_not_see_what_is_missing(v, ONE_LATENT),
    ),
    ("6", "the same of DMVAE and MMVAE+", "others", lambda v: others_do_not_see_what_is_missing(v, SPLIT)),
    ("6", "uncertainty does not depend on the correlation", "others", others_do_not_see_correlation),
    *both(missing_follows_correlation, "6", "sd of a missing modality falls from 1 as the correlation rises"),
    *both(observed_follows_correlation, "6", "that of an observed one falls, too"),
    *both(digits_are_right, "7", "at .9, right digits more often than MVAE", rho=0.9, rivals=("MVAE",)),
    *both(digits_are_right, "7", "at .6, than MVAE and DMVAE", rho=0.6, rivals=("MVAE", "DMVAE")),
    *both(joint_price, "8", "joint NLL above that of all other models"),
    *both(likelihood_improves, "8", "joint NLL falls with the correlation", score="joint NLL"),
    *both(likelihood_improves, "8", "conditional NLL falls with the correlation", score="conditional NLL"),
    ("11", "a prior that is trained on is too correlated", TRAINED, trained_prior_is_too_high),
    ("11", "and the likelihoods are worse", TRAINED, trained_prior_is_worse),
    ("11, 14", "a cross-diagonal posterior makes no difference", CROSS_DIAGONAL, cross_diagonal_is_the_same),
    ("14", "reconstruction alike; prior and posterior make the difference", PAPER, reconstruction_is_comparable),
    *both(entropy_is_that_of_ten, "15", "posterior term at .9 is that of JMVAE and MVAE with 10 latents"),
    *both(prior_has_eleven, "C", "participation ratio of the prior close to 11 at .9"),
)


NOTES = f"""
A correlation is the true one within {NEAR}; two sds are the same within {SAME_SD}; posterior terms agree within {OVERLAP:.0%},
likelihoods of figure 11 within {SAME_NLL:.0%}. Models with private latents draw those of a missing modality from their prior here,
so that their sd cannot be that of an observed one. Figure 10 is a section of its own where `--flow` has been run. The paper names
no numbers but the participation ratio: its claims are read off its text, and where it says *all models*, those of its comparison
are meant.
"""


def claims(table: pd.DataFrame) -> str:
    """Table of claims and findings; with flows, for which some models are not meant, of those that were run."""
    values, rows, flow = Values(table), [], table["data"].str.endswith("flow").all()
    for figure, claim, method, check in CLAIMS:
        found = check(values)
        if found is None and flow:
            continue
        verdict = "not run" if found is None else "yes" if found.holds else "**no**"
        rows.append((claim, method, "" if found is None else found.text, verdict))
        rows[-1] = (figure, *rows[-1])
    frame = pd.DataFrame(rows, columns=["figure", "the paper", "model", "found here", "reproduces"]).set_index("figure")
    rhos = ", ".join(f"{r:g}" for r in sorted(table["rho"].unique()))
    return f"Numbers are means over seeds, in the order of rho = {rhos}.\n\n{markdown(frame, 'figure')}{NOTES}"
