"""Regression of one number a sample on where its prediction lies."""

from __future__ import annotations

import torch
from torch import Tensor, nn

COMPONENTS = 10
"""Principal components of the predictions in which samples are compared."""
RIDGE = 1.0
MOST = 4.0  # of a number beside the predictions
STEEPEST = 1.5  # factor on the regression, which shrinks
NOISE = 2.0  # squared standard errors of a correlation that are put down to chance


class CodeRegression(nn.Module):
    """Kernel regression on the leading principal components of predictions, and on other numbers of a sample.

    As steep as its leave-one-out predictions warrant: 0 where they tell nothing.

    Parameters
    ----------
    n_vars
        Number of predicted features ``p``.
    """

    center: Tensor
    axes: Tensor
    landmarks: Tensor
    coefficients: Tensor
    residual: Tensor

    def __init__(self, n_vars: int) -> None:
        super().__init__()
        self.register_buffer("center", torch.zeros(n_vars))
        self.register_buffer("axes", torch.zeros(n_vars, 0))
        self.register_buffer("landmarks", torch.zeros(0, 0))
        self.register_buffer("coefficients", torch.zeros(0))
        self.register_buffer("residual", torch.ones(()))

    @torch.no_grad()
    def fit(self, prediction: Tensor, target: Tensor, beside: Tensor | None = None) -> CodeRegression:
        """Fit to predictions ``(n, p)`` and numbers ``(n,)``, of which the mean is taken off.

        ``beside`` ``(n, k)`` are other numbers that are known of a sample, of variance 1 or so.

        ``residual`` becomes the standard deviation of leave-one-out errors.

        Returns
        -------
        Itself.
        """
        prediction, target = prediction.double(), target.double()
        self.center.copy_(prediction.mean(0))
        target = target - target.mean()
        self.residual.copy_(target.std(correction=0))
        _, sizes, axes = torch.linalg.svd(prediction - prediction.mean(0), full_matrices=False)
        axes = axes[: min(COMPONENTS, int((sizes > 1e-6 * sizes[0].clamp_min(1e-30)).sum()))].mT
        typical = ((prediction - prediction.mean(0)) @ axes).square().sum(1).mean().sqrt()
        if not float(typical) > 1e-6:
            axes = axes[:, :0]
        self.axes = (axes / typical).float()
        self.landmarks = self._codes(prediction, beside)
        if self.landmarks.shape[1] == 0:
            return self
        kernel = _kernel(self.landmarks, self.landmarks)
        inverse = torch.linalg.inv(kernel + RIDGE * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device))
        # Leave-one-out residuals of a ridge regression: those of the fit, divided by 1 - leverage.
        left_out = target - inverse @ target / inverse.diagonal()
        slope = _warranted_slope(left_out, target)
        self.coefficients = slope * (inverse @ target)
        self.residual.copy_((target - slope * (left_out - left_out.mean())).std(correction=0))
        return self

    def _codes(self, prediction: Tensor, beside: Tensor | None) -> Tensor:
        codes = (prediction - self.center).to(self.axes) @ self.axes
        if beside is None:
            return codes
        others = beside.to(codes).clamp(-MOST, MOST).expand(*codes.shape[:-1], -1)
        return torch.cat([codes, others], -1)

    def forward(self, prediction: Tensor, beside: Tensor | None = None) -> Tensor:
        """``(...)`` expected number, around the mean, for predictions ``(..., p)`` and what ``fit`` had beside them."""
        if len(self.coefficients) == 0:
            return prediction.new_zeros(prediction.shape[:-1])
        return (_kernel(self._codes(prediction, beside), self.landmarks) @ self.coefficients).to(prediction)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian kernel of codes; those of predictions have a mean squared norm of 1."""
    return (-0.5 * torch.cdist(a.double(), b.double()).square()).exp()


def _warranted_slope(predicted: Tensor, target: Tensor) -> Tensor:
    """Slope of centred ``target`` on held-out predictions of it, shrunk by what chance would give."""
    predicted = predicted - predicted.mean()
    own, cross = predicted.square().sum(), (predicted * target).sum()
    explained = cross.square() / (own * target.square().sum()).clamp_min(1e-30)  # squared correlation
    certain = (1 - NOISE / (len(target) * explained).clamp_min(1e-30)).clamp_min(0)
    return certain * (cross / own.clamp_min(1e-30)).clamp(0, STEEPEST)
