"""Products, mixtures and random sets of experts."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch

from omicvae.stats.experts import (
    mixture_log_density,
    mixture_moments,
    product_of_experts,
    random_subset,
    stratified_components,
    subset_table,
)
from omicvae.stats.location_scale import FAMILIES

SUBSETS = [s for size in range(5) for s in combinations(range(4), size)]


class TestProduct:
    """``p(z) prod N(z; mu_m, 1 / Lambda_m)``, normalised."""

    @pytest.fixture
    def experts(self) -> tuple[torch.Tensor, torch.Tensor]:
        g = torch.Generator().manual_seed(0)
        return torch.randn(3, 4, 2, generator=g).double(), torch.rand(3, 4, 2, generator=g).double() * 3 + 0.1

    @pytest.mark.parametrize("prior", [True, False])
    @pytest.mark.parametrize("subset", SUBSETS[1:], ids=str)
    def test_equals_the_product_of_densities(self, experts, subset, prior):
        """log q minus the sum of log densities is the same everywhere, and q is a density."""
        location, precision = experts
        present = torch.zeros(3, 4, dtype=torch.bool)
        present[:, list(subset)] = True
        q = product_of_experts(location, precision, present, prior=prior)
        z = torch.linspace(-3, 3, 7).double()[:, None, None].expand(7, 3, 2)
        total = torch.distributions.Normal(q.mean, q.variance.sqrt()).log_prob(z)
        for m in subset:
            total = total - torch.distributions.Normal(location[:, m], precision[:, m].rsqrt()).log_prob(z)
        if prior:
            total = total - torch.distributions.Normal(0.0, 1.0).log_prob(z)
        torch.testing.assert_close(total, total[:1].expand_as(total))

    @pytest.mark.parametrize("prior", [True, False])
    def test_without_experts_it_is_the_prior(self, experts, prior):
        q = product_of_experts(*experts, torch.zeros(3, 4, dtype=torch.bool), prior=prior)
        assert (q.mean == 0).all() and (q.variance == 1).all()

    @pytest.mark.parametrize("prior", [True, False])
    def test_absent_experts_have_no_influence_even_if_not_a_number(self, experts, prior):
        location, precision = (e.clone() for e in experts)
        present = torch.tensor([[1, 0, 1, 1], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
        expected = product_of_experts(location, precision, present, prior=prior)
        location[~present], precision[~present] = torch.nan, torch.inf
        location.requires_grad_()
        found = product_of_experts(location, precision, present, prior=prior)
        torch.testing.assert_close(found.mean, expected.mean)
        torch.testing.assert_close(found.variance, expected.variance)
        (gradient,) = torch.autograd.grad(found.mean.sum(), location)
        assert torch.isfinite(gradient).all() and (gradient[~present] == 0).all()

    def test_order_of_experts_does_not_matter(self, experts):
        location, precision = experts
        present, order = torch.rand(3, 4) > 0.4, [2, 0, 3, 1]
        a = product_of_experts(location, precision, present)
        b = product_of_experts(location[:, order], precision[:, order], present[:, order])
        torch.testing.assert_close(a, b)

    def test_several_sets_at_once(self, experts):
        """A leading axis of sets gives what each set gives alone."""
        table = subset_table(4)
        stacked = product_of_experts(*experts, table.unsqueeze(1).expand(-1, 3, -1))
        for k, subset in enumerate(table):
            torch.testing.assert_close(stacked.mean[k], product_of_experts(*experts, subset.expand(3, -1)).mean)


class TestMixture:
    @pytest.mark.parametrize("family", ["normal", "laplace"])
    def test_density_integrates_to_one_and_has_the_moments(self, family):
        """On a fine grid: mass 1, mean and variance as reported; a component of weight 0 does not count."""
        location, sd = torch.tensor([-1.0, 2.0, 50.0]), torch.tensor([0.5, 1.2, 1e-3])
        weights = torch.tensor([[0.3, 0.7, 0.0]])
        grid = torch.linspace(-25, 25, 200_001).double()
        inputs = location.double()[:, None, None], sd.double()[:, None, None], weights.double()
        density = mixture_log_density(grid[:, None, None], *inputs, FAMILIES[family]).exp()[:, 0]
        mean = torch.trapezoid(density * grid, grid)
        found = mixture_moments(*inputs)
        assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-5)
        assert found.mean.item() == pytest.approx(mean.item(), abs=1e-4)
        variance = torch.trapezoid(density * (grid - mean).square(), grid)
        assert found.variance.item() == pytest.approx(variance.item(), rel=1e-4)

    @pytest.mark.parametrize("family", ["normal", "laplace"])
    def test_noise_follows_the_density(self, family):
        """Mean 0, variance 1, and the share within one standard deviation (4 standard errors of 40000 draws)."""
        x = FAMILIES[family].noise(torch.zeros(40_000))
        inside = math.erf(math.sqrt(0.5)) if family == "normal" else 1 - math.exp(-math.sqrt(2))
        assert x.mean().item() == pytest.approx(0, abs=4 / 200)
        assert x.var().item() == pytest.approx(1, abs=4 * math.sqrt(5) / 200)
        assert (x.abs() < 1).float().mean().item() == pytest.approx(inside, abs=4 * 0.5 / 200)

    def test_laplace_equals_torch(self):
        z = torch.linspace(-3, 3, 11)
        expected = torch.distributions.Laplace(0.5, 2.0 / math.sqrt(2)).log_prob(z)
        found = FAMILIES["laplace"].log_density(z, torch.tensor(0.5), torch.tensor(2.0))
        torch.testing.assert_close(found, expected)


class TestStratifiedComponents:
    def test_every_component_gets_its_share_up_to_one_draw(self):
        weights = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
        drawn = stratified_components(weights, 10)
        counts = torch.stack([(drawn == c).sum(0) for c in range(3)], 1)
        assert ((counts - 10 * weights).abs() < 1).all()

    def test_one_draw_has_the_probabilities(self):
        """40000 rows: 4 standard errors."""
        weights = torch.tensor([[0.1, 0.0, 0.6, 0.3]]).expand(40_000, -1)
        share = stratified_components(weights, 1)[0].bincount(minlength=4) / 40_000
        torch.testing.assert_close(share, weights[0], atol=4 * 0.5 / 200, rtol=0)
        assert share[1] == 0

    @pytest.mark.parametrize("offset", [0.0, 1 - 2**-24])
    def test_never_a_component_without_weight(self, monkeypatch, offset):
        """Also at the ends of what a uniform draw can be."""
        monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full(size, offset))
        weights = torch.tensor([[0.0, 0.3, 0.7 - 1e-7, 0.0], [0.0, 0.0, 1.0, 0.0]])
        for n in (1, 3, 100):
            drawn = stratified_components(weights, n)
            assert (torch.gather(weights, 1, drawn.mT) > 0).all()


class TestSubsets:
    @pytest.mark.parametrize("n", [1, 2, 4])
    def test_table_holds_every_non_empty_subset_once(self, n):
        table = subset_table(n)
        assert {tuple(row) for row in table.tolist()} == {
            tuple(i in s for i in range(n)) for k in range(1, n + 1) for s in combinations(range(n), k)
        }
        assert len(table) == 2**n - 1

    def test_random_subsets_are_proper_and_every_one_occurs(self):
        """Rows of five, three, two, one and no modalities; 200 draws of each."""
        patterns = torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5]).bool()
        present = patterns.repeat_interleave(600, 0)
        found = random_subset(present)
        assert not (found & ~present).any()
        sizes = found.sum(1).reshape(5, 600)
        assert set(sizes[0].tolist()) == {2, 3, 4} and set(sizes[1].tolist()) == {2}
        assert (sizes[2:] == 0).all()
        assert len({tuple(row) for row in found[:600].tolist()}) == 10 + 10 + 5
        assert len({tuple(row) for row in found[600:1200].tolist()}) == 3
