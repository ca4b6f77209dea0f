"""The arithmetic of CI: canaries, cooldowns, blocks, reports."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.deploy.ci.blocks import is_touched, merged, sealed, settled
from mainspring.deploy.ci.canary import Counts, counts_of, spread
from mainspring.deploy.ci.due import due
from mainspring.deploy.ci.report import MARK, markdown
from mainspring.deploy.ci.verdict import Check, Row, Verdict, read_verdict
from mainspring.serving.rollout.evidence import CELLS, STEPS_A_DOUBLING, cell_of


@given(st.lists(st.integers(0, 400), min_size=1, max_size=16), st.integers(0, 50))
def test_buckets_are_spread_evenly_and_nothing_is_lost(counts, beyond) -> None:
    edges = [0.0005 * 2**power for power in range(len(counts))]
    within = dict(zip(edges, itertools.accumulate(counts), strict=True)) | {float("inf"): sum(counts) + beyond}
    found = spread(within, STEPS_A_DOUBLING, CELLS)
    assert sum(found.values()) == sum(counts) + beyond
    assert found.get(CELLS - 1, 0) == beyond
    for edge, total in within.items():
        if edge != float("inf"):
            last = cell_of(edge * 1e6)
            assert sum(count for cell, count in found.items() if cell <= last) == total
    for one, other in itertools.pairwise(edges):
        inside = [found.get(cell, 0) for cell in range(cell_of(one * 1e6) + 1, cell_of(other * 1e6) + 1)]
        assert len(inside) == STEPS_A_DOUBLING
        assert max(inside) - min(inside) <= 1


def test_a_page_is_read_over_all_routes() -> None:
    page = """# HELP mainspring_requests_total requests answered
mainspring_requests_total{app="a",route="x",code="200"} 7
mainspring_requests_total{app="a",route="y",code="503"} 2
mainspring_request_seconds_bucket{app="a",route="x",le="0.01"} 5
mainspring_request_seconds_bucket{app="a",route="y",le="0.01"} 1
mainspring_request_seconds_bucket{app="a",route="x",le="+Inf"} 7
mainspring_prediction_score_bucket{app="a",model="late",role="stable",version="1",le="0.5"} 3
mainspring_prediction_score_bucket{app="a",model="late",role="canary",version="2",le="0.5"} 1
other_total 99
"""
    found = counts_of(page)
    assert (found.answered, found.failed) == (9, 2)
    assert found.within == {0.01: 6, float("inf"): 7}
    assert found.scores == {"late": {0.5: 4}}
    since = found.since(Counts(4, 1, {0.01: 2}, {"late": {0.5: 1}}))
    assert since == Counts(5, 1, {0.01: 4, float("inf"): 7}, {"late": {0.5: 3}})
    assert found.since(Counts(100, 1, {})) == found  # a counter that fell began anew


HOUR = 3_600_000_000


@given(st.lists(st.integers(0, 20 * 24), max_size=8), st.integers(1, 48), st.integers(1, 5))
def test_trainings_are_held_apart_and_counted(hours_ago, cooldown, weekly) -> None:
    now = 1_000 * 24 * HOUR
    found = due("m", [now - hours * HOUR for hours in hours_ago], now, cooldown * HOUR, weekly)
    lately = [hours for hours in hours_ago if hours < 7 * 24]
    assert found.due == (all(hours >= cooldown for hours in lately) and len(lately) < weekly)


TEXT = """a: 1
  # >>> yours: one. hint
  # <<< yours: one
uses: actions/checkout@{pin} # v1
# >>> yours: two. hint
# <<< yours: two
""".replace("{pin}", "a" * 40)
lines = st.lists(st.from_regex(r"\A  [a-z: ]{0,10}\Z"), max_size=4)


@given(lines, lines)
def test_what_is_the_user_s_survives(one, two) -> None:
    new = sealed(TEXT)
    old = new.replace("one. hint\n", "one. hint\n" + "".join(f"{line}\n" for line in one))
    old = old.replace("two. hint\n", "two. hint\n" + "".join(f"{line}\n" for line in two))
    old = old.replace("a" * 40 + " # v1", "b" * 40 + " # v2")
    assert not is_touched(old)
    assert merged(new, old, "f") == old
    assert settled(old) == {name: found for name, found in (("one", one), ("two", two)) if found}
    changed = sealed(TEXT.replace("a: 1", "a: 2"))
    again = merged(changed, old, "f")
    assert settled(again) == settled(old)
    assert "a: 2" in again
    assert "b" * 40 in again


def test_a_change_elsewhere_is_seen() -> None:
    text = sealed(TEXT)
    assert not is_touched(text)
    assert is_touched(text.replace("a: 1", "a: 2"))
    assert is_touched(TEXT)
    assert is_touched("")


@given(st.text(max_size=80), st.text(max_size=80))
def test_a_report_has_no_markup_of_whoever_wrote_the_verdict(name, why) -> None:
    found = Verdict(1, "app", "model", "c0ffee", 2, 1, "", (Check(name, "failed", why),), (Row(name, 1.0, None),))
    text = markdown([found])
    assert text.startswith(MARK)
    assert text.count(MARK) == 1
    rows = [line for line in text.splitlines() if line.startswith("| ") and "failed" in line]
    assert len(rows) == 1
    assert rows[0].count("|") == 4
    assert not re.search(r"[<>`@\[\]]", rows[0])


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"x" * (2 << 20), b'{"format": 2}'])
def test_what_is_no_verdict_is_refused(data) -> None:
    with pytest.raises(ValueError, match=r".*"):
        read_verdict(data)
