"""Length of training."""

from __future__ import annotations

import math

import pytest

from omicvae.train import training_budget


@pytest.mark.parametrize("n", [80, 300, 1_000, 10_000, 100_000])
def test_updates_grow_slowly_with_samples(n):
    """Between about 500 and 10000 updates from 80 to 100000 samples; scvi-tools' rule gives 400 to 62000."""
    budget = training_budget(n)
    updates = budget.max_epochs * math.ceil(n / budget.batch_size)
    assert 500 <= updates <= 10_000
    assert budget.max_epochs >= 10


def test_budget_is_monotone():
    """More samples never mean fewer updates or a smaller batch."""
    sizes = [80, 200, 400, 600, 2_000, 10_000, 30_000, 100_000]
    budgets = [training_budget(n) for n in sizes]
    assert [b.batch_size for b in budgets] == sorted(b.batch_size for b in budgets)
    updates = [b.max_epochs * math.ceil(n / b.batch_size) for n, b in zip(sizes, budgets, strict=True)]
    assert all(after > 0.98 * before for before, after in zip(updates, updates[1:], strict=False))  # epochs are whole


def test_the_users_batch_size_is_kept():
    assert training_budget(1000, 17).batch_size == 17
