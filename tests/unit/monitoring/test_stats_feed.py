"""Volume and freshness: too few rows, too many, none, late."""

import numpy as np
import pytest

from mainspring.monitoring.stats.blocks import BLOCK_US
from mainspring.monitoring.stats.decide import Finding
from mainspring.monitoring.stats.feed import freshness_limit, judge_volume, mute, stale, volume

DAY, HOUR = BLOCK_US["day"], BLOCK_US["hour"]
MONDAY = 19_723 * DAY
ALPHA = 1e-3


def history(block_us, blocks, expected, seed=0):
    starts = [MONDAY + i * block_us for i in range(blocks)]
    rows = np.random.default_rng(seed).poisson([expected(i) for i in range(blocks)]).tolist()
    return starts, rows


def kept(starts, rows, block_us):
    """What a baseline keeps: nonempty blocks only."""
    pairs = [(start, count) for start, count in zip(starts, rows, strict=True) if count]
    return volume([start for start, _ in pairs], [count for _, count in pairs], block_us)


def states(findings):
    return {f.window: f.state for f in findings}


def test_a_halved_day_and_an_empty_one_alarm_and_a_usual_week_does_not():
    usual = kept(*history(DAY, 70, lambda i: 2000 if i % 7 < 5 else 400), DAY)
    starts, rows = history(DAY, 7, lambda i: 2000 if i % 7 < 5 else 400, seed=1)
    week = [(start + 70 * DAY, count) for start, count in zip(starts, rows, strict=True)]
    assert set(states(judge_volume(usual, ALPHA, week)).values()) == {"ok"}
    for wrong in (0, 100, 200, 800):
        assert states(judge_volume(usual, ALPHA, [*week[:-1], (week[-1][0], wrong)]))[1] == "alarm"
    # A weekday's rows on a Sunday are as wrong as a Sunday's on a weekday.
    assert states(judge_volume(usual, ALPHA, [(week[-1][0], 2000)]))[1] == "alarm"
    assert states(judge_volume(usual, ALPHA, [(week[2][0], 400)]))[1] == "alarm"


def test_empty_nights_are_usual():
    usual = kept(*history(HOUR, 24 * 28, lambda i: 300 if 8 <= i % 24 < 20 else 0), HOUR)
    night, noon = MONDAY + 28 * DAY + 3 * HOUR, MONDAY + 28 * DAY + 12 * HOUR
    assert usual.difference(night, 0) == 0.0
    assert states(judge_volume(usual, ALPHA, [(night, 0)]))[1] == "ok"
    assert states(judge_volume(usual, ALPHA, [(noon, 0)]))[1] == "alarm"


def test_a_tenth_less_is_recorded():
    usual = kept(*history(DAY, 70, lambda i: 1_000_000), DAY)
    week = [(MONDAY + (70 + i) * DAY, 950_000) for i in range(7)]
    assert set(states(judge_volume(usual, ALPHA, week)).values()) == {"recorded"}


def test_too_little_history_answers_or_refuses():
    assert judge_volume(volume([], [], DAY), ALPHA, [(MONDAY, 5)]) == []
    one = volume([MONDAY], [100], DAY)
    assert one.weak
    assert states(judge_volume(one, ALPHA, [(MONDAY + DAY, 90)]))[1] == "ok"


def test_a_source_is_stale_after_twice_its_interval_or_its_usual_gap():
    assert freshness_limit(HOUR, []) == 2 * HOUR
    gaps = [HOUR] * 90 + [5 * HOUR] * 10
    assert freshness_limit(HOUR, gaps) == 5 * HOUR
    assert stale(10 * HOUR, 4 * HOUR, 5 * HOUR)
    assert not stale(10 * HOUR, 5 * HOUR, 5 * HOUR)
    assert stale(0, None, HOUR)


@pytest.mark.parametrize(("state", "after"), [("alarm", "recorded"), ("ok", "ok"), ("off", "off")])
def test_a_failing_feed_mutes_alarms(state, after):
    finding = Finding("x", "shape", 1, 2.0, 1.0, 0.2, 0.05, 0.1, state, False, rank=1)
    (muted,) = mute([finding], "no rows since 09:00")
    assert muted.state == after
    assert (muted.why == "no rows since 09:00") == (state == "alarm")
