from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from omicvae.stats.assay_value import balanced_normal, explained, partner_draws, posterior_covariance
from omicvae.stats.gaussian import block_slices, gaussian_prior, potential_posterior

SIZES = (2, 3, 2, 1)
D = sum(SIZES)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance_of(d: int, seed: int) -> Tensor:
    half = draw(d, d + 2, seed=seed)
    return half @ half.mT / (d + 2)


def patterns(m: int) -> Tensor:
    return torch.tensor(list(product([False, True], repeat=m)))


class TestPosteriorCovariance:
    def test_is_conditioning_of_a_joint_gaussian_for_every_set_of_assays(self) -> None:
        """Factor model ``x_m = W_m z + e_m``, all latents in all assays, as in probabilistic CCA."""
        prior, n_vars = covariance_of(D, 0), 5
        loadings = [draw(n_vars, D, seed=m + 1) for m in range(4)]
        noise = [draw(n_vars, seed=m + 11).exp() for m in range(4)]
        evidence = [W.mT @ (W / v[:, None]) for W, v in zip(loadings, noise, strict=True)]
        present = patterns(4)
        found = posterior_covariance(prior, evidence, present)
        for here, covariance in zip(present, found, strict=True):
            expected = prior
            if here.any():
                W = torch.cat([w for w, h in zip(loadings, here, strict=True) if h])
                v = torch.cat([n for n, h in zip(noise, here, strict=True) if h])
                gain = torch.linalg.solve(W @ prior @ W.mT + torch.diag(v), W @ prior)
                expected = prior - prior @ W.mT @ gain
            torch.testing.assert_close(covariance, expected)

    def test_is_the_posterior_of_evidence_potentials(self) -> None:
        prior = gaussian_prior(torch.zeros(D, dtype=torch.float64), covariance_of(D, 3))
        present, blocks = patterns(4), block_slices(SIZES)
        precision = torch.zeros(len(present), D, dtype=torch.float64)
        evidence = []
        for m, block in enumerate(blocks):
            own = torch.zeros_like(precision)
            own[:, block] = draw(len(present), SIZES[m], seed=m).exp()
            evidence.append(torch.diag_embed(own))
            precision += own * present[:, m : m + 1]
        expected = potential_posterior(prior, torch.zeros_like(precision), precision).covariance()
        torch.testing.assert_close(posterior_covariance(prior.covariance, evidence, present), expected)

    def test_what_is_absent_is_not_read_and_no_evidence_changes_nothing(self) -> None:
        prior = covariance_of(3, 1)
        present = torch.tensor([[True, False], [False, False]])
        found = posterior_covariance(prior, [torch.zeros(3, 3), torch.full((3, 3), torch.nan)], present)
        torch.testing.assert_close(found, prior.expand(2, 3, 3))
        assert posterior_covariance(prior, [torch.zeros(3, 3)], torch.zeros(0, 1, dtype=torch.bool)).shape == (0, 3, 3)


class TestExplained:
    def test_shares_are_squared_canonical_correlations_with_the_assay_to_come(self) -> None:
        """Of some latents with the measurement, given what is measured already."""
        prior, W, noise = covariance_of(4, 5), draw(6, 4, seed=6), draw(6, seed=7).exp()
        target = slice(0, 2)
        evidence = W.mT @ (W / noise[:, None])
        now, then = (posterior_covariance(prior, [evidence], torch.tensor([[here]])) for here in (False, True))
        gain = explained(now[:, target, target], then[:, target, target])
        S_zz, S_zx, S_xx = prior[target, target], prior[target] @ W.mT, W @ prior @ W.mT + torch.diag(noise)
        expected = torch.linalg.eigvals(torch.linalg.solve(S_zz, S_zx @ torch.linalg.solve(S_xx, S_zx.mT))).real
        torch.testing.assert_close(torch.linalg.eigvalsh(gain.share)[0], expected.sort().values)

    def test_root_and_share_give_back_both_covariances(self) -> None:
        then = torch.stack([covariance_of(3, s) for s in range(4)])
        now = then + torch.stack([0.5 * covariance_of(3, s) for s in range(4, 8)])
        root, share = explained(now, then)
        torch.testing.assert_close(root @ root.mT, now)
        torch.testing.assert_close(now - root @ share @ root.mT, then)


class TestPartnerDraws:
    def test_covariances_are_exact(self) -> None:
        d = 4
        then = covariance_of(d, 0).expand(2, d, d)
        now = then + torch.stack([0.3 * covariance_of(d, 1), torch.zeros(d, d, dtype=torch.float64)])
        gain = explained(now, then)
        first, second = balanced_normal(64, 2 * d, seed=3).split(d, 1)
        u = torch.einsum("bij,kj->kbi", gain.root, first)
        v = partner_draws(gain, first, second)
        for a, b, expected in ((u, u, now), (v, v, now), (u, v, now - then)):
            torch.testing.assert_close(torch.einsum("kbi,kbj->bij", a, b) / len(a), expected)
            assert a.mean(0).abs().max() < 1e-12

    def test_variance_left_of_a_curved_function_is_the_closed_form(self) -> None:
        r"""For ``z ~ N(0, s)`` of which a share ``r`` will be known, ``E Var(e^z) = e^s (e^s - e^{r s})`` (lognormal)."""
        variance, share, n_draws = 0.5, 0.6, 400_000
        now = torch.full((1, 1, 1), variance, dtype=torch.float64)
        gain = explained(now, (1 - share) * now)
        first, second = draw(n_draws, 1, seed=0), draw(n_draws, 1, seed=1)
        f, g = (gain.root[0, 0, 0] * first).exp()[:, 0], partner_draws(gain, first, second).exp()[:, 0, 0]
        left = f.var() - ((f - f.mean()) * (g - g.mean())).mean()
        s = torch.tensor(variance, dtype=torch.float64)
        expected = s.exp() * (s.exp() - (share * s).exp())
        # relative error of a covariance of 400,000 lognormal pairs is below 1 %
        torch.testing.assert_close(left, expected, rtol=0.03, atol=0)


class TestBalancedNormal:
    def test_first_and_second_moments_are_those_of_a_normal(self) -> None:
        found = balanced_normal(60, 7, seed=1)
        torch.testing.assert_close(found.mT @ found / 60, torch.eye(7, dtype=torch.float64))
        assert found.sum(0).abs().max() < 1e-10
        torch.testing.assert_close(balanced_normal(60, 7, seed=1), found)
        assert not torch.allclose(balanced_normal(60, 7, seed=2), found)

    def test_fourth_moments_are_near_those_of_a_normal(self) -> None:
        found = balanced_normal(20_000, 5, seed=0)
        assert (found.pow(4).mean(0) - 3).abs().max() < 0.4  # sd of one is sqrt(96 / 10000) = 0.1

    @pytest.mark.parametrize("n_draws", [9, 12])
    def test_too_few_draws_are_refused(self, n_draws: int) -> None:
        with pytest.raises(ValueError, match="even and at least 14"):
            balanced_normal(n_draws, 7, seed=0)
