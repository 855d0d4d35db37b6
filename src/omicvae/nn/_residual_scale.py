"""How large an error to expect of a prediction, from the prediction itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from omicvae.nn._code_regression import CodeRegression

PRIOR_SAMPLES = 20.0  # how strongly the slope of a feature's log variance is held at 0
LEAST_SAMPLES = 20
NEWTON_STEPS = 12
FARTHEST = 3.0  # standard deviations beyond which a prediction counts as this far
LARGEST = 4.0


class ResidualScale(nn.Module):
    r"""Factor on the standard deviation of a residual, for each sample and feature.

    Errors are not alike: whole groups of samples (a tumour type, a cell type) are harder to predict than others, and many
    features vary more where they are high. Both show in the prediction :math:`u_i` of a sample:

    .. math::

        \log h_{ij}^2 = s(t_i) + b_j v_{ij},

    with :math:`t_i` the leading principal components of the predictions and :math:`v_{ij}` the standardised prediction.
    :math:`s` is a :class:`CodeRegression` of the logarithm of a sample's mean squared residual; :math:`b_j` has the
    largest Gaussian likelihood, held at 0 by a prior.

    Parameters
    ----------
    n_vars
        Number of features ``p``.
    """

    center: Tensor
    spread: Tensor
    slope: Tensor

    def __init__(self, n_vars: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_vars))
        self.register_buffer("spread", torch.ones(n_vars))
        self.register_buffer("slope", torch.zeros(n_vars))
        self.samples = CodeRegression(n_vars)

    @torch.no_grad()
    def fit(self, prediction: Tensor, residual: Tensor, taking_part: Tensor) -> ResidualScale:
        """Fit to residuals of samples that the predictor was not fitted on.

        Parameters
        ----------
        prediction
            ``(n, p)``
        residual
            ``(n, p)`` in units of each feature's residual standard deviation; NaN where not measured.
        taking_part
            ``(p,)`` which features are to have a scale; the others' factor is 1, and they tell nothing of the samples.

        Returns
        -------
        Itself.
        """
        squared = torch.where(taking_part, residual.double().square(), torch.nan)
        count = (~squared.isnan()).sum(1)
        kept = count > 0
        if int(kept.sum()) < LEAST_SAMPLES:
            return self
        prediction, squared, count = prediction[kept].double(), squared[kept], count[kept]
        self.center.copy_(prediction.mean(0))
        deviation = prediction.std(0)
        self.spread.copy_(torch.where(deviation > 1e-6, deviation, torch.inf))
        total = squared.nansum(1) / count
        self.samples.fit(prediction, (total + 1e-3).log())
        squared = squared / self.samples(prediction).exp()[:, None]
        slope = _log_variance_slopes(self._standardised(prediction), squared)
        self.slope.copy_(torch.where(taking_part, slope, 0.0))
        return self

    def _standardised(self, prediction: Tensor) -> Tensor:
        return ((prediction - self.center) / self.spread).clamp(-FARTHEST, FARTHEST)

    def forward(self, prediction: Tensor) -> Tensor:
        """Factor ``(..., p)`` for predictions ``(..., p)``."""
        log_variance = self.samples(prediction)[..., None] + self.slope * self._standardised(prediction)
        return (0.5 * log_variance).exp().clamp(1 / LARGEST, LARGEST)


def _log_variance_slopes(v: Tensor, squared: Tensor) -> Tensor:
    """``(p,)`` slopes :math:`b_j` of Gaussian residuals with variance :math:`exp(a_j + b_j v)`, by Fisher scoring."""
    measured = ~squared.isnan()
    n = measured.sum(0).clamp_min(1)
    a, b = (squared.nansum(0) / n).clamp_min(1e-12).log(), torch.zeros(v.shape[1], dtype=v.dtype, device=v.device)
    seen = measured * v
    h11, h12, h22 = n, seen.sum(0), seen.square().sum(0) + PRIOR_SAMPLES
    determinant = (h11 * h22 - h12.square()).clamp_min(1e-12)
    for _ in range(NEWTON_STEPS):
        score = torch.where(measured, squared / (a + b * v).clamp(-30, 30).exp() - 1, 0.0)
        g1, g2 = score.sum(0), (score * v).sum(0) - PRIOR_SAMPLES * b
        a = a + ((h22 * g1 - h12 * g2) / determinant).clamp(-1, 1)
        b = b + ((h11 * g2 - h12 * g1) / determinant).clamp(-1, 1)
    return b
