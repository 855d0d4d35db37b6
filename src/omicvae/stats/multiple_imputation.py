r"""Linear models on partly imputed values, so that an imputed value counts for what it is worth.

Values :math:`y_i` of one feature are measured in some samples; a prediction :math:`m_i` from other data, made by a fit
that has not seen :math:`y_i`, is known for some of these and for all others. Within groups of samples with design
:math:`x_i` (group means and covariates)

.. math::

    y_i = x_i' c + b\, m_i + e_i, \qquad m_i = x_i' g + u_i,
    \qquad \operatorname{Var} e_i = \sigma^2, \quad \operatorname{Var} u_i = \tau^2 .

A completed data set is made in the order of proper multiple imputation (Rubin, 1987, section 5.3): :math:`\sigma^2, b` and
:math:`c` are drawn from their posterior, then :math:`y_i^* = x_i' c + b\, m_i + s\, e_i^*` with :math:`e_i^*` a draw of
the predictor's own noise and :math:`s` such that its variance is :math:`\sigma^2` where it can be checked. Because every
group has its own mean, the imputation does not assume what is to be tested (it is *congenial*: Meng, 1994); because
:math:`b` and :math:`\sigma` are estimated, a prediction that is worth nothing changes nothing.

References
----------
Rubin, Multiple Imputation for Nonresponse in Surveys, 1987; Meng, Statistical Science 9, 1994; Barnard & Rubin,
Biometrika 86, 1999. With infinitely many imputations and every measured value predicted, the estimate is the regression
estimator of survey sampling, known in machine learning as prediction-powered inference (Angelopoulos et al., Science 382,
2023; cross-fitted: Zrnic & Candes, PNAS 121, 2024).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Float = NDArray[np.floating]
Flags = NDArray[np.bool_]

LEAST_DF = 5
"""Residual degrees of freedom below which predictions are not used: their slope would be a guess."""
NO_SLOPE = 1e-8
"""Share of the variance of measured values below which predictions count as constant."""
SINGULAR = 1e-10


class Fit(NamedTuple):
    """A coefficient of a linear model, feature by feature."""

    estimate: Float
    """(..., p); NaN where it cannot be estimated."""
    variance: Float
    """(..., p) of the estimate."""
    df: Float
    """(p,) residual degrees of freedom."""


class Pooled(NamedTuple):
    """A coefficient pooled over imputations, all ``(p,)``."""

    estimate: Float
    se: Float
    df: Float
    pvalue: Float
    """Two-sided."""
    fraction_missing_information: Float
    """Between 0 (all that matters was measured) and 1."""


def pool(fits: Fit) -> Pooled:
    r"""Rubin's rules with the degrees of freedom of Barnard and Rubin.

    Parameters
    ----------
    fits
        Of ``K`` completed data sets: ``estimate`` and ``variance`` ``(K, p)``, ``df`` those of complete data.

    Returns
    -------
    Mean estimate; standard error from :math:`T = \bar U + (1 + 1/K) B`; degrees of freedom of Barnard and Rubin (1999,
    eq. 3) and fraction of missing information (Rubin, 1987, eq. 3.1.10). Where estimates do not differ at all, nothing
    was imputed, and the degrees of freedom are those of complete data.
    """
    k = len(fits.estimate)
    estimate, within = fits.estimate.mean(0), fits.variance.mean(0)
    spread = fits.estimate.var(0, ddof=1) if k > 1 else np.zeros_like(estimate)
    between = (1 + 1 / k) * np.where(np.ptp(fits.estimate, axis=0) > 0, spread, 0.0)
    total = within + between
    with np.errstate(divide="ignore", invalid="ignore"):
        share, ratio = between / total, between / within
        observed = (fits.df + 1) / (fits.df + 3) * fits.df * (1 - share)
        df = np.where(share > 0, 1 / (share**2 / max(k - 1, 1) + 1 / observed), fits.df)
        fraction = np.where(share > 0, (ratio + 2 / (df + 3)) / (ratio + 1), 0.0)
        pvalue = 2 * stats.t.sf(np.abs(estimate) / np.sqrt(total), df)
    fraction = np.where(np.isnan(estimate), np.nan, fraction)
    return Pooled(estimate, np.sqrt(total), df, pvalue, fraction)


def least_squares(values: Float, weights: Flags, design: Float) -> Fit:
    """First coefficient of a linear model with constant variance, for every feature of every completed data set.

    Parameters
    ----------
    values
        ``(K, n, p)``
    weights
        ``(n, p)`` values that take part.
    design
        ``(n, q)``; without missing values. Columns may be collinear, as long as the first is not.
    """
    taken = weights.astype(np.float64)
    count = taken.sum(0)
    centre = np.where(weights, values, 0.0).sum((0, 1)) / np.maximum(count * len(values), 1)
    centred = np.where(weights, values - centre, 0.0)
    inverse, rank = _inverse(_gram(design, taken))
    moments = np.einsum("nq,knp->kpq", design, centred, optimize=True)
    coefficients = np.einsum("pqr,kpr->kpq", inverse, moments)
    residual = (centred**2).sum(1) - (coefficients * moments).sum(2)
    df = np.where(estimable(weights, design), count - rank, 0).astype(np.float64)
    ok = df > 0
    df = np.where(ok, df, np.nan)
    variance = np.maximum(residual, 0) / df * inverse[:, 0, 0]
    estimate = np.where(ok, coefficients[:, :, 0], np.nan)
    return Fit(estimate, np.where(ok, variance, np.nan), df)


def estimable(weights: Flags, design: Float) -> Flags:
    """``(p,)`` whether the first column of the ``(n, q)`` design varies given the others, where ``weights`` ``(n, p)``."""
    gram = _gram(design, weights.astype(np.float64))
    inverse, _ = _inverse(gram[:, 1:, 1:])
    left = gram[:, 0, 0] - np.einsum("pq,pqr,pr->p", gram[:, 0, 1:], inverse, gram[:, 0, 1:])
    return np.asarray(left > 1e-8 * np.maximum(gram[:, 0, 0], 1e-30))


class RegressionImputer:
    """Draws completed values of features measured in some samples and predicted in others.

    Parameters
    ----------
    values
        ``(n, p)`` measured; NaN elsewhere.
    prediction
        ``(n, p)`` by fits that have not seen the value; NaN where there is none.
    group
        ``(n,)`` integers; every group has its own mean. One that was not measured at all in a feature has the mean
        residual of the others: its difference from them is then that of the predictions.
    covariates
        ``(n, c)``, without a constant.
    imputed
        ``(n,)`` samples to complete.
    noise
        ``(p,)`` mean variance of the predictor's noise where values were measured, to which draws are compared.
    """

    def __init__(
        self, values: Float, prediction: Float, group: NDArray[np.intp], covariates: Float, imputed: Flags, noise: Float
    ) -> None:
        onehot = group[:, None] == np.arange(group.max(initial=0) + 1)
        self.design = np.concatenate([onehot, covariates], axis=1).astype(np.float64)
        self.n_groups, self.imputed, self.noise = onehot.shape[1], imputed, noise
        measured = ~np.isnan(values) & ~imputed[:, None]
        paired = measured & ~np.isnan(prediction)
        usable = paired.sum(0) - self.design.shape[1] - 1 >= LEAST_DF
        prediction = np.where(usable, prediction, 0.0)  # a constant: then all measured values count, unpredicted
        paired = np.where(usable, paired, measured)
        self.centre, self.scale = _standards(values, measured)
        self.y = np.where(measured, (values - self.centre) / self.scale, 0.0)
        known = ~np.isnan(prediction)
        self.m = np.where(known, (prediction - np.where(usable, self.centre, 0.0)) / self.scale, 0.0)
        self._summarise(measured, paired, paired | (imputed[:, None] & known))

    def _summarise(self, measured: Flags, paired: Flags, predicted: Flags) -> None:
        c, d, m = (flags.astype(np.float64) for flags in (paired, measured & ~paired, predicted))
        self.gram_c, self.gram_d, self.gram_m = (_gram(self.design, w) for w in (c, d, m))
        self.xy_c, self.xm_c = self._cross(c * self.y), self._cross(c * self.m)
        self.xy_d, self.xm_m = self._cross(d * self.y), self._cross(m * self.m)
        inverse, rank = _inverse(self.gram_c)
        y_fitted, m_fitted = (np.einsum("pq,pqr->pr", x, inverse) for x in (self.xy_c, self.xm_c))
        yy = (c * self.y**2).sum(0) - (y_fitted * self.xy_c).sum(1)
        ym = (c * self.y * self.m).sum(0) - (y_fitted * self.xm_c).sum(1)
        mm = (c * self.m**2).sum(0) - (m_fitted * self.xm_c).sum(1)
        informative = mm > NO_SLOPE * np.maximum(yy, 1e-30)
        self.mm = np.where(informative, mm, np.inf)
        self.slope = np.where(informative, ym / self.mm, 0.0)
        self.residual = np.maximum(yy - self.slope * np.where(informative, ym, 0.0), 0.0)
        self.df = c.sum(0) - rank - informative
        self.n_measured = self._cross(measured.astype(np.float64))[:, : self.n_groups]

    def _cross(self, weighted: Float) -> Float:
        return np.asarray(weighted.T @ self.design)

    def draw(self, noise: Float, rng: np.random.Generator) -> Float:
        """Completed values of the imputed samples, ``(n_imputed, p)``; NaN for features that cannot be imputed.

        Parameters
        ----------
        noise
            ``(n_imputed, p)`` draws of the predictor's noise, with mean 0.
        rng
            Source of randomness.
        """
        p = len(self.slope)
        possible = self.df > 0
        variance = self.residual / np.where(possible, rng.chisquare(np.maximum(self.df, 1)), np.nan)
        slope = self.slope + np.sqrt(variance / self.mm) * rng.standard_normal(p)
        spread = np.where(np.isinf(self.mm), 0.0, self.mm) / rng.chisquare(np.maximum(self.df + 1, 1))
        intercept = self._intercepts(variance, slope, spread, rng)
        rows = self.imputed
        location = self.design[rows] @ intercept.T + slope * self.m[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.sqrt(variance * self.scale**2 / self.noise)
        own = noise * np.where(np.isfinite(factor), factor, 0.0)
        plain = np.sqrt(variance) * self.scale * rng.standard_normal(own.shape)
        drawn = self.centre + self.scale * location + np.where(self.noise > 0, own, plain)
        return np.where(possible, drawn, np.nan)

    def _intercepts(self, variance: Float, slope: Float, spread: Float, rng: np.random.Generator) -> Float:
        """``(p, q)`` draw of group means and covariate effects, predictions of unpaired samples integrated out."""
        v = np.maximum(np.nan_to_num(variance, nan=1.0), 1e-12)
        total = v + slope**2 * spread
        tau = np.maximum(spread, 1e-12)
        share = (slope / total)[:, None, None]
        inner, _ = _inverse(self.gram_m / tau[:, None, None] + (slope**2 / total)[:, None, None] * self.gram_d)
        bridge = share * self.gram_d @ inner
        precision = self.gram_c / v[:, None, None] + self.gram_d / total[:, None, None]
        precision = precision - bridge @ self.gram_d * share
        of_m = self.xm_m / tau[:, None] + (slope / total)[:, None] * self.xy_d
        right = (self.xy_c - slope[:, None] * self.xm_c) / v[:, None] + self.xy_d / total[:, None]
        right = right - np.einsum("pqr,pr->pq", bridge, of_m)
        drawn = _draw_normal(precision, right, rng)
        counts = self.n_measured
        weights = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        groups = drawn[:, : self.n_groups]
        pooled = (weights * groups).sum(1, keepdims=True)
        drawn[:, : self.n_groups] = np.where(counts > 0, groups, pooled)
        return drawn


def _standards(values: Float, measured: Flags) -> tuple[Float, Float]:
    count = np.maximum(measured.sum(0), 1)
    held = np.where(measured, values, 0.0).astype(np.float64)
    centre = held.sum(0) / count
    scale = np.sqrt((np.where(measured, held - centre, 0.0) ** 2).sum(0) / count)
    return centre, np.where(scale > 0, scale, 1.0)


def _gram(design: Float, weights: Float) -> Float:
    """``(p, q, q)`` weighted cross-products of the design's columns."""
    n, q = design.shape
    outer = (design[:, :, None] * design[:, None, :]).reshape(n, q * q)
    return np.asarray((weights.T @ outer).reshape(-1, q, q))


def _inverse(gram: Float) -> tuple[Float, NDArray[np.intp]]:
    """Pseudo-inverses of ``(p, q, q)`` and their ranks ``(p,)``."""
    size, basis = np.linalg.eigh(gram)
    kept = size > SINGULAR * np.maximum(size[:, -1:], 1e-300) if gram.shape[1] else size > 0
    inverse = np.where(kept, 1 / np.where(kept, size, 1.0), 0.0)
    return np.asarray((basis * inverse[:, None, :]) @ basis.transpose(0, 2, 1)), kept.sum(1)


def _draw_normal(precision: Float, right: Float, rng: np.random.Generator) -> Float:
    """``(p, q)`` draws of N(P^-1 r, P^-1); 0 along directions on which nothing is known."""
    size, basis = np.linalg.eigh(precision)
    kept = size > SINGULAR * np.maximum(size[:, -1:], 1e-300)
    inverse = np.where(kept, 1 / np.where(kept, size, 1.0), 0.0)
    along = np.einsum("pqr,pq->pr", basis, right) * inverse + np.sqrt(inverse) * rng.standard_normal(right.shape)
    return np.einsum("pqr,pr->pq", basis, along)
