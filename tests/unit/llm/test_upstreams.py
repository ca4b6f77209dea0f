"""Who is asked: the least loaded of those that are well; breaker, ejection and the budget of retries."""

from __future__ import annotations

import pytest

from gateway_kit import Scripted, says
from mainspring.llm.upstreams import RetryBudget, Upstream, choose
from mainspring.llm.values import Target


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def three(clock: Clock, weights: tuple[float, ...] = (1, 1, 1)) -> list[Upstream]:
    engine = Scripted(says("x"))
    targets = [Target(name=f"u{n}", engine=engine, model="m", weight=weight) for n, weight in enumerate(weights)]
    return [Upstream(target, clock) for target in targets]


def test_the_least_outstanding_tokens_by_weight_are_chosen(clock: Clock) -> None:
    one, two, heavy = three(clock, (1, 1, 4))
    one.begin(100)
    two.begin(80)
    heavy.begin(200)
    assert choose([one, two, heavy]) is heavy
    heavy.begin(200)
    assert choose([one, two, heavy]) is two
    two.end(80, True)
    assert choose([one, two]) is two


def test_equal_loads_are_told_apart_by_the_prompts_beginning_and_spread_over_all(clock: Clock) -> None:
    found = three(clock)
    chosen = {prefix: choose(found, prefix) for prefix in (f"prompt {n}".encode() for n in range(60))}
    assert all(choose(found, prefix) is upstream for prefix, upstream in chosen.items())
    assert len({upstream.target.name for upstream in chosen.values() if upstream}) == 3
    kept = [prefix for prefix, upstream in chosen.items() if upstream is not found[2]]
    assert all(choose(found[:2], prefix) is chosen[prefix] for prefix in kept), "others keep their prompts"


def fail(upstream: Upstream, times: int) -> None:
    for _ in range(times):
        upstream.begin(1)
        upstream.end(1, False)


def test_five_faults_in_a_row_open_the_breaker_and_one_trial_closes_it(clock: Clock) -> None:
    upstream = three(clock)[0]
    fail(upstream, 4)
    assert choose([upstream]) is upstream
    fail(upstream, 1)
    assert choose([upstream]) is None
    clock.now += 5.0
    assert choose([upstream]) is upstream
    upstream.begin(1)
    assert choose([upstream]) is None, "only one trial at a time"
    upstream.end(1, True)
    assert choose([upstream]) is upstream


def test_a_trial_that_fails_opens_the_breaker_for_twice_as_long(clock: Clock) -> None:
    upstream = three(clock)[0]
    fail(upstream, 5)
    clock.now += 5.0
    fail(upstream, 1)
    clock.now += 9.0
    assert choose([upstream]) is None
    clock.now += 1.0
    assert choose([upstream]) is upstream


def test_a_trial_that_was_given_up_frees_the_place_for_the_next(clock: Clock) -> None:
    upstream = three(clock)[0]
    fail(upstream, 5)
    clock.now += 5.0
    upstream.begin(1)
    upstream.end(1, None)
    assert choose([upstream]) is upstream


def test_an_outlier_is_ejected_while_enough_others_are_left(clock: Clock) -> None:
    bad, good, other = three(clock)
    for number in range(20):
        bad.begin(1)
        bad.end(1, number % 2 == 0)
    assert bad.ejected()
    for load in (good, other):
        load.begin(1000)
    assert choose([bad, good, other]) in (good, other)
    clock.now += 30.0
    assert choose([bad, good, other]) is bad


def test_an_ejected_upstream_is_used_when_nothing_else_is_there(clock: Clock) -> None:
    bad = three(clock)[0]
    for number in range(20):
        bad.begin(1)
        bad.end(1, number % 2 == 0)
    assert bad.ejected()
    assert choose([bad]) is bad


def test_the_pause_that_an_upstream_asks_for_is_kept(clock: Clock) -> None:
    one, two, _ = three(clock)
    one.begin(1)
    one.end(1, None, 3.0)
    assert choose([one, two]) is two
    assert one.closed_for() == pytest.approx(3.0)
    clock.now += 3.0
    assert one.closed_for() == 0.0


def test_retries_are_a_tenth_of_the_requests() -> None:
    budget = RetryBudget(0.1, 3)
    spent = 0
    for _ in range(1000):
        budget.earn()
        spent += budget.spend()
    assert 100 <= spent <= 103
