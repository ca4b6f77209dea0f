"""Shares against a reference: scipy as the oracle, and the promise of the budget by simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from mainspring.monitoring.stats.rates import binomial_limit, binomial_tail, highest_usual

trials = st.integers(1, 3000)
shares = st.floats(0.0, 1.0, allow_subnormal=False)


@given(trials, shares, st.integers(-1, 3001))
def test_the_tail_is_scipys(n, p, least):
    assert binomial_tail(n, p, least) == pytest.approx(binom.sf(least - 1, n, p), rel=1e-7, abs=1e-11)


@given(st.integers(1, 400), st.floats(0.001, 0.999), st.floats(1e-9, 0.5))
def test_the_limit_is_the_least_that_keeps_the_chance(n, p, chance):
    limit = binomial_limit(n, p, chance)
    slow = next(k for k in range(n + 1) if k == n or binomial_tail(n, p, k + 1) <= chance)
    assert limit == slow


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=40))
def test_the_highest_usual_share_is_a_bound_of_the_pooled_one(blocks):
    hits, totals = [min(hit, total) for hit, total in blocks], [total for _, total in blocks]
    found, n, x = highest_usual(hits, totals), sum(totals), sum(hits)
    assert 0 <= found <= 1
    assert found >= (x / n if n else 1.0)
    if n:
        upper = 1.0 if x == n else beta.ppf(0.95, x + 1, n - x)
        assert found >= upper - 1e-9
        if len([total for total in totals if total]) == 1:
            assert found == pytest.approx(upper, abs=1e-9)


def test_blocks_that_differ_by_more_than_chance_are_usual_to_differ():
    steady = highest_usual([1] * 20, [20] * 20)
    restless = highest_usual([0] * 18 + [10, 10], [20] * 20)
    assert steady < 0.08
    assert restless > 0.3


def test_the_budget_holds_when_the_reference_is_small_and_nothing_changes():
    rng = np.random.default_rng(1)
    chance, alarms, rounds, blocks = 1e-3, 0, 400, 50
    for p in rng.uniform(0.0, 0.2, rounds):
        usual = highest_usual(rng.binomial(20, p, 8).tolist(), [20] * 8)
        limit = binomial_limit(20, usual, chance)
        alarms += int((rng.binomial(20, p, blocks) > limit).sum())
    assert alarms <= 2 * chance * rounds * blocks


def test_a_share_that_matters_is_found():
    usual = highest_usual([0] * 8, [20] * 8)  # 160 answers without a fault
    assert binomial_limit(20, usual, 2e-5) <= 6
    usual = highest_usual([1] * 30, [100] * 30)
    assert binomial_limit(100, usual, 2e-5) <= 9
