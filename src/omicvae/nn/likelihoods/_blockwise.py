"""Log densities summed over features, a few rows at a time.

What a density is made of is as large as the decoder's output. Written out, a dozen such arrays go through memory, and their
derivatives again; for wide assays that is most of a step. Here rows are taken in blocks whose intermediate results stay in the
processor's cache, and derivatives, known in closed form, are computed from the output again instead of being kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from omicvae.nn.likelihoods._stirling import stirling_error, stirling_slope

BLOCK = 2**16  # elements a thread, of which two or three arrays fit into a cache of the second level
LEAST = 2**17  # elements below which nothing leaves the cache anyway
LARGEST = 60.0  # logarithm of a rate, whose derivative has long been that of an infinite one


def pays(eta: Tensor, x: Tensor, noise: Tensor) -> bool:
    """Whether rows in blocks are quicker, and possible: the same noise for all rows of a decoding, on a processor.

    A compiler joins operations by itself.
    """
    if eta.device.type != "cpu" or eta.numel() < LEAST or eta.dtype == torch.float64 or torch.compiler.is_compiling():
        return False
    return x.shape == eta.shape[-3::2] and eta.shape[-2] == 1 and (noise.ndim == 0 or noise.shape[-1] == 1)


def decodings(eta: Tensor) -> Tensor:
    """``(L, n, p)`` float32: ``(..., n, 1, p)`` with one axis of decodings."""
    return eta.to(torch.float32).squeeze(-2).reshape(eta.shape[:-3].numel(), eta.shape[-3], eta.shape[-1])


def noise_of_decodings(noise: Tensor, eta: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of noise that are used, and which of these each of the ``L`` decodings has."""
    return torch.unique(noise.expand(*eta.shape[:-3], 1), return_inverse=True)


def of_decodings(table: Tensor, eta: Tensor) -> Tensor:
    """``(L, p)`` values of each decoding, from ``(*noise.shape, p)`` or ``()`` ones that broadcast to ``(..., n, p)``."""
    leading = eta.shape[:-3]
    return table.expand(*leading, 1, eta.shape[-1]).reshape(-1, eta.shape[-1])


def blocks(eta: Tensor) -> Iterator[tuple[int, slice]]:
    """Decoding and rows of every block of ``(L, n, p)``."""
    n_decodings, n, p = eta.shape
    step = max(1, BLOCK * torch.get_num_threads() // max(p, 1))
    for decoding in range(n_decodings):
        for start in range(0, n, step):
            yield decoding, slice(start, min(start + step, n))


class Squares(torch.autograd.Function):
    r"""``(L, n)`` sums :math:`\sum_j q_{lj} m_{ij} (t_{ij} - \eta_{lij})^2`."""

    @staticmethod
    def forward(ctx: Any, eta: Tensor, target: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
        """Of ``(L, n, p)`` ``eta``, ``(n, p)`` targets, ``(n, p)`` 0 or 1 (``None``: all 1) and ``(L, p)`` weights."""
        ctx.save_for_backward(eta, target, mask, weight)
        total = eta.new_empty(eta.shape[:2])
        for decoding, rows in blocks(eta):
            total[decoding, rows] = _residual(eta, target, mask, decoding, rows).square_() @ weight[decoding]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives in ``eta`` and weights."""
        eta, target, mask, weight = ctx.saved_tensors
        of_eta, of_weight = torch.empty_like(eta), torch.zeros_like(weight)
        for decoding, rows in blocks(eta):
            g = grad[decoding, rows]
            residual = _residual(eta, target, mask, decoding, rows)
            out = of_eta[decoding, rows]
            torch.mul(residual, weight[decoding], out=out)
            out.mul_(-2 * g[:, None])
            of_weight[decoding] += g @ residual.square_()
        return of_eta, None, None, of_weight


def _residual(eta: Tensor, target: Tensor, mask: Tensor | None, decoding: int, rows: slice) -> Tensor:
    residual = target[rows] - eta[decoding, rows]
    return residual if mask is None else residual.mul_(mask[rows])


class BinaryDeviance(torch.autograd.Function):
    r"""``(L, n)`` sums :math:`\sum_j w_j m_{ij} [\log(1 + e^{\ell}) - x_{ij} \ell]` with :math:`\ell = c_j + s_j \eta_{lij}`."""

    @staticmethod
    def forward(
        ctx: Any, eta: Tensor, x: Tensor, mask: Tensor | None, centre: Tensor, scale: Tensor, weight: Tensor
    ) -> Tensor:
        """Of ``(L, n, p)`` ``eta``, ``(n, p)`` values and 0 or 1 (``None``: all 1), and ``(p,)`` constants."""
        ctx.save_for_backward(eta, x, mask, centre, scale, weight)
        total = eta.new_empty(eta.shape[:2])
        for decoding, rows in blocks(eta):
            logits = torch.addcmul(centre, scale, eta[decoding, rows])
            deviance = F.softplus(logits).addcmul_(x[rows], logits, value=-1)
            if mask is not None:
                deviance.mul_(mask[rows])
            total[decoding, rows] = deviance @ weight
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Derivative in ``eta``."""
        eta, x, mask, centre, scale, weight = ctx.saved_tensors
        of_eta, factor = torch.empty_like(eta), scale * weight
        for decoding, rows in blocks(eta):
            slope = torch.addcmul(centre, scale, eta[decoding, rows]).sigmoid_().sub_(x[rows])
            if mask is not None:
                slope.mul_(mask[rows])
            out = of_eta[decoding, rows]
            torch.mul(slope, factor, out=out)
            out.mul_(grad[decoding, rows, None])
        return of_eta, None, None, None, None, None


class BetaDensity(torch.autograd.Function):
    r"""``(L, n)`` sums :math:`\sum_j w_{ij} [a \log x_{ij} + b \log(1 - x_{ij}) - \log B(a, b)]`.

    :math:`a = \phi \mu, b = \phi (1 - \mu)` with :math:`\operatorname{logit} \mu = c_j + s_j \eta_{lij}` within bounds. By Stirling's
    formula and its error :math:`\Delta`, in which nothing large cancels, a term is

    .. math::
        a \log \frac{x}{\mu} + b \log \frac{1 - x}{1 - \mu} + \tfrac12 \log \frac{\phi \mu (1 - \mu)}{2 \pi}
        - \Delta(a) - \Delta(b) + \Delta(\phi).
    """

    @staticmethod
    def forward(
        ctx: Any, eta: Tensor, log_phi: Tensor, x: Tensor, weight: Tensor, centre: Tensor, scale: Tensor, bound: float
    ) -> Tensor:
        """Of ``(L, n, p)`` ``eta``, ``(L, p)`` log concentrations, ``(n, p)`` values in (0, 1) and weights, ``(p,)`` constants."""
        ctx.bound = bound
        logs = x.log(), torch.log1p(-x)
        ctx.save_for_backward(eta, log_phi, *logs, weight, centre, scale)
        phi, total = log_phi.exp(), eta.new_empty(eta.shape[:2])
        of_phi = stirling_error(phi).add_(log_phi, alpha=0.5).sub_(0.5 * math.log(2 * math.pi))
        for decoding, rows in blocks(eta):
            logit = torch.addcmul(centre, scale, eta[decoding, rows]).clamp_(-bound, bound)
            density = torch.zeros_like(logit).add_(of_phi[decoding])
            for sign, log_x in zip((-1, 1), logs, strict=True):
                log_mean = F.softplus(sign * logit).neg_()
                shape = log_mean.exp().mul_(phi[decoding])
                density.add_(log_mean, alpha=0.5).sub_(stirling_error(shape))
                density.addcmul_(shape, log_x[rows] - log_mean)
            total[decoding, rows] = density.mul_(weight[rows]).sum(-1)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives in ``eta`` and log concentrations."""
        eta, log_phi, *logs, weight, centre, scale = ctx.saved_tensors
        phi = log_phi.exp()
        of_eta, of_phi, fixed = torch.empty_like(eta), torch.zeros_like(phi), phi * stirling_slope(phi) + 0.5
        for decoding, rows in blocks(eta):
            logit = torch.addcmul(centre, scale, eta[decoding, rows])
            counted = weight[rows] * grad[decoding, rows, None]
            within = logit.abs() < ctx.bound
            logit.clamp_(-ctx.bound, ctx.bound)
            slope, of_block = torch.zeros_like(logit), torch.zeros_like(logit).add_(fixed[decoding])
            for sign, log_x in zip((-1, 1), logs, strict=True):
                log_mean = F.softplus(sign * logit).neg_()
                shape = log_mean.exp().mul_(phi[decoding])
                score = (log_x[rows] - log_mean).sub_(stirling_slope(shape))
                of_block.addcmul_(shape, score)
                slope.add_(score.add_(0.5 / shape), alpha=-sign)
            of_phi[decoding] += of_block.mul_(counted).sum(0)
            spread = logit.sigmoid().mul_(logit.neg_().sigmoid_()).mul_(phi[decoding])
            torch.mul(slope.mul_(spread).mul_(counted).mul_(within), scale, out=of_eta[decoding, rows])
        return of_eta, of_phi, None, None, None, None, None


class CountDeviance(torch.autograd.Function):
    r"""What of a negative binomial depends on its mean, and the logits of some elements.

    ``(L, n)`` sums :math:`\sum_j \theta_{lj} \log(1 + e^{a_{lij}}) + x_{ij} \log(1 + e^{-a_{lij}})`, the second term where ``x`` is
    given, and ``(L, k)`` logits :math:`a = \log \mu - \log \theta` of ``k`` elements. :math:`\log\mu_{lij} = o_i + c_j + s_j
    \eta_{lij}`, less its ``logsumexp`` over features if they share a library.
    """

    @staticmethod
    def forward(
        ctx: Any,
        eta: Tensor,
        log_theta: Tensor,
        offset: Tensor,
        centre: Tensor,
        scale: Tensor,
        share: bool,
        x: Tensor | None,
        rows: Tensor,
        columns: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Of ``(L, n, p)`` ``eta``, ``(L, p)`` log dispersions, ``(n,)`` offsets, ``(p,)`` constants, ``(n, p)`` counts and sorted positions."""
        ctx.share = share
        total, at, theta = eta.new_empty(eta.shape[:2]), eta.new_empty(len(eta), len(rows)), log_theta.exp()
        kept = torch.empty_like(eta) if ctx.needs_input_grad[1] else None
        rest = offset.expand(len(eta), -1).clone()  # what is added to the logits of a row
        starts = _starts(rows, eta.shape[1])
        for decoding, here in blocks(eta):
            logit = torch.addcmul(centre, scale, eta[decoding, here])
            if share:
                rest[decoding, here] -= logit.logsumexp(-1)
            logit.add_(rest[decoding, here, None]).sub_(log_theta[decoding])
            some = slice(starts[here.start], starts[here.stop])
            at[decoding, some] = logit[rows[some] - here.start, columns[some]]
            log_one = F.softplus(logit)
            total[decoding, here] = log_one @ theta[decoding]
            if kept is not None:
                kept[decoding, here] = log_one
            if x is not None:
                total[decoding, here] += F.softplus(logit.neg_()).mul_(x[here]).sum(-1)
        ctx.save_for_backward(eta, theta, rest, offset, centre, scale, x, rows, columns, kept)
        return total, at

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, of_at: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives in ``eta`` and log dispersions."""
        eta, theta, rest, offset, centre, scale, x, rows, columns, kept = ctx.saved_tensors
        of_eta, of_theta = torch.empty_like(eta), torch.zeros_like(theta)
        starts = _starts(rows, eta.shape[1])
        for decoding, here in blocks(eta):
            g = grad[decoding, here]
            log_rate = torch.addcmul(centre, scale, eta[decoding, here]).add_(rest[decoding, here, None])
            rate = log_rate.clamp_(max=LARGEST).exp_()
            excess = rate if x is None else rate - x[here]
            slope = (excess / (rate + theta[decoding])).mul_(theta[decoding]).mul_(g[:, None])
            some = slice(starts[here.start], starts[here.stop])
            slope[rows[some] - here.start, columns[some]] += of_at[decoding, some]
            if kept is not None:
                of_theta[decoding] += theta[decoding] * (g @ kept[decoding, here]) - slope.sum(0)
            if ctx.share:
                rate.mul_(offset[here, None].neg().exp_())
                slope.addcmul_(rate, slope.sum(-1, keepdim=True), value=-1)
            torch.mul(slope, scale, out=of_eta[decoding, here])
        return of_eta, of_theta if kept is not None else None, *[None] * 7


def _starts(rows: Tensor, n: int) -> list[int]:
    """Where the elements of each of ``n`` rows begin, of sorted rows."""
    return torch.searchsorted(rows, torch.arange(n + 1, device=rows.device)).tolist()
