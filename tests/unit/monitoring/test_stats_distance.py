"""Distances are scipy's to 1e-12, and those on cells are within a cell of those on values."""

import math

import numpy as np
import pytest
import scipy.spatial.distance
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.metrics.distance import chi_square, jensen_shannon, kolmogorov, psi, wasserstein
from mainspring.monitoring.stats.canary import canary_bound, canary_drifts
from mainspring.monitoring.stats.grid import COARSE, FINE, build_grid, cell_counts, cuts, quantile

CLOSE = {"rel": 1e-12, "abs": 1e-12}
counts = st.lists(st.integers(0, 1000), min_size=2, max_size=20)


@settings(max_examples=100, deadline=None)
@given(counts, st.randoms())
def test_jensen_shannon_is_scipys(p, random):
    q = random.sample(p, len(p))
    ours = float(jensen_shannon(p, q))
    if sum(p) == 0:
        assert math.isnan(ours)
    else:
        # Near zero the root of the rounding error is what remains: compare the squares there.
        assert ours**2 == pytest.approx(scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2, rel=1e-12, abs=1e-14)


def test_jensen_shannon_of_equal_and_disjoint_rows():
    assert jensen_shannon([[1, 1], [1, 0]], [[3, 3], [0, 5]]).tolist() == [0.0, 1.0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=2, max_size=40))
def test_chi_square_is_scipys_two_sample_test(rows):
    a, b = np.array(rows).T
    statistic, degrees, p = chi_square(a, b)
    some = a + b > 0
    if not a.sum() or not b.sum():
        assert math.isnan(statistic)
        return
    expected = scipy.stats.chi2_contingency(np.stack([a[some], b[some]]), correction=False)
    assert (statistic, degrees) == (pytest.approx(expected.statistic, rel=1e-9, abs=1e-9), expected.dof)
    assert p == pytest.approx(scipy.stats.chi2.sf(statistic, degrees) if degrees else 1.0, rel=1e-11, abs=1e-300)


def test_ks_and_wasserstein_on_cells_are_near_those_on_values():
    random = np.random.default_rng(0)
    for shift in (0.0, 0.05, 0.5):
        a, b = np.sort(random.normal(size=8000)), np.sort(random.normal(size=5000) + shift)
        edges, _ = build_grid(a)
        left, right = cell_counts(a, edges), cell_counts(b, edges)
        exact = scipy.stats.ks_2samp(a, b).statistic
        heaviest = max((left / 8000).max(), (right / 5000).max())
        assert exact - heaviest <= kolmogorov(left, right) <= exact + 1e-12
        low, high = min(a[0], b[0]), max(a[-1], b[-1])
        near = scipy.stats.wasserstein_distance(a, b)
        assert wasserstein(left, right, edges, low, high) == pytest.approx(near, rel=0.02, abs=2e-3)


def test_psi_of_ten_cells_by_hand_and_joined():
    a, b = np.full(10, 100), np.array([150] * 5 + [50] * 5)
    shares = (a + 0.5) / (a + 0.5).sum(), (b + 0.5) / (b + 0.5).sum()
    by_hand = sum((y - x) * math.log(y / x) for x, y in zip(*shares, strict=True))
    assert psi(a, b) == pytest.approx(by_hand, **CLOSE)
    assert psi(np.full(100, 10), np.repeat(b // 10, 10)) == pytest.approx(by_hand, **CLOSE)
    assert psi(a, a * 7) == pytest.approx(0.0, abs=1e-4)
    assert math.isnan(psi(a, np.zeros(10)))


reference = (
    st.lists(st.one_of(st.integers(-4, 4).map(float), st.floats(-1e9, 1e9)), max_size=200).map(sorted).map(np.array)
)


@settings(max_examples=100, deadline=None)
@given(reference, st.integers(2, 40))
def test_cuts_follow_the_definition(ordered, cells):
    n = len(ordered)
    expected = set()
    for i in range(1, cells) if n else ():
        q = ordered[min(i * n // cells, n - 1)]
        expected.add(q)
        if np.count_nonzero(ordered == q) > n / (2 * cells):
            expected.add(np.nextafter(q, -np.inf))
    assert cuts(ordered, cells).tolist() == sorted(expected)


@settings(max_examples=60, deadline=None)
@given(reference)
def test_coarse_cells_are_sums_of_fine_cells(ordered):
    fine, coarse = build_grid(ordered)
    assert fine[coarse].tolist() == cuts(ordered, COARSE).tolist()
    assert len(fine) < 2 * FINE
    assert len(coarse) < 2 * COARSE
    inner = np.diff(np.cumsum(cell_counts(ordered, fine))[coarse], prepend=0, append=len(ordered))
    assert inner.tolist() == cell_counts(ordered, fine[coarse]).tolist()


def test_an_atom_has_a_cell_of_its_own():
    values = np.sort(np.concatenate([np.zeros(600), np.random.default_rng(1).normal(size=400)]))
    fine, coarse = build_grid(values)
    for edges in (fine, fine[coarse]):
        assert cell_counts(np.zeros(5), edges).tolist().count(5) == 1
        at = int(np.searchsorted(edges, 0.0))
        # The neighbours on either side are outside the cell, however near.
        assert cell_counts(np.array([np.nextafter(0.0, -1)]), edges)[at] == 0
        assert cell_counts(np.array([np.nextafter(0.0, 1)]), edges)[at] == 0


def test_quantiles_are_values():
    assert quantile(np.arange(1000.0), 0.999) == 999.0
    assert quantile(np.arange(10.0), 0.001) == 0.0
    assert quantile(np.array([4.0]), 0.999) == 4.0


def test_the_canary_never_alarms_on_equal_traffic_however_often_one_looks_and_finds_a_shift():
    random = np.random.default_rng(3)
    false = found = 0
    for _ in range(20):
        settled, fresh = np.sort(random.normal(size=20_000)), random.normal(size=40_000)
        edges, _ = build_grid(settled)
        base = cell_counts(settled, edges)
        for shift in (0.0, 0.2):
            alarmed = any(
                canary_drifts(kolmogorov(base, cell_counts(np.sort(fresh[:rows] + shift), edges)), rows, 20_000)
                for rows in range(1000, 40_001, 1950)
            )
            false, found = false + (alarmed and not shift), found + (alarmed and shift > 0)
    assert (false, found) == (0, 20)


def test_the_canarys_bound_is_the_formula():
    rows, n, q, m = 5000, 80_000, 0.05, 1000
    growing = 0.85 * math.sqrt((math.log(math.log(math.e * rows / m)) + 0.8 * math.log(1612 / (q / 2))) / rows)
    assert canary_bound(rows, n) == pytest.approx(growing + math.sqrt(math.log(4 / q) / (2 * n)), **CLOSE)
    assert canary_bound(rows, rows, growing=True) == pytest.approx(2 * growing, **CLOSE)
    assert canary_bound(999, n) == math.inf
