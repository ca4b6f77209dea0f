"""The buckets of callers, against buckets that are filled and emptied step by step."""

from __future__ import annotations

import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mainspring.declare.identity import Identity
from mainspring.protocols.http import Fault, Request
from mainspring.server.http.callers import Callers, digest_of
from mainspring.server.http.guard import guard
from mainspring.server.http.rates import Rate, Rates
from mainspring.server.workers.rates import SharedRates

STEPS = st.lists(
    st.tuples(st.integers(0, 4), st.one_of(st.just(0), st.integers(0, 50), st.integers(0, 3000))), max_size=120
)
RATES = st.builds(Rate, st.integers(1, 400), st.integers(1, 6))


class Bucket:
    """A bucket as it is described in books: whole requests in it, filled as time passes, never over its brim."""

    def __init__(self, rate: Rate, now: int) -> None:
        self.rate, self.now, self.there = rate, now, Fraction(rate.burst)

    def take(self, now: int) -> bool:
        self.there = min(Fraction(self.rate.burst), self.there + Fraction(now - self.now, self.rate.interval))
        self.now = now
        if self.there < 1:
            return False
        self.there -= 1
        return True

    def wait(self) -> Fraction:
        return (1 - self.there) * self.rate.interval


@given(STEPS, RATES, RATES)
def test_who_may_ask_is_who_has_something_left_in_a_bucket(steps, usual: Rate, own: Rate) -> None:
    now = [0]
    hold_to_buckets(Rates(usual, {"0": own}, clock=lambda: now[0]), now, steps, usual, own)


@given(STEPS, RATES, RATES)
def test_so_it_is_for_workers_that_take_turns(
    tmp_path_factory: pytest.TempPathFactory, steps, usual: Rate, own: Rate
) -> None:
    now, path = [1], tmp_path_factory.mktemp("rates") / "rates.bin"
    workers = [SharedRates(usual, {"0": own}, path, sets=2, clock=lambda: now[0]) for _ in range(3)]
    turns = itertools.cycle(workers)
    either: Any = SimpleNamespace(take=lambda *asked: next(turns).take(*asked))
    hold_to_buckets(either, now, steps, usual, own)
    for worker in workers:
        worker.close()


def hold_to_buckets(rates: Rates, now: list[int], steps, usual: Rate, own: Rate) -> None:
    buckets: dict[int, Bucket] = {}
    for caller, pause in steps:
        now[0] += pause
        bucket = buckets.setdefault(caller, Bucket(own if caller == 0 else usual, now[0]))
        wait = rates.take(caller, str(caller))
        assert (wait == 0) == bucket.take(now[0])
        assert wait == 0 or wait == bucket.wait()


@given(STEPS, RATES, st.integers(1, 3))
def test_a_full_table_is_bounded_and_gives_nobody_more(steps, rate: Rate, most: int) -> None:
    now = [0]
    rates = Rates(rate, {}, most=most, clock=lambda: now[0])
    taken: dict[int, list[int]] = {}
    for caller, pause in steps:
        now[0] += pause
        if rates.take(caller) == 0:
            taken.setdefault(caller, []).append(now[0])
        assert len(rates) <= most
    for times in taken.values():
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                # The one more comes from the shared bucket, when a place is found in the table only later.
                assert last - first + 1 <= 2 * rate.burst + 2 * ((times[last] - start) // rate.interval + 1)


def test_names_made_up_get_no_more_than_one_caller() -> None:
    rates = Rates(Rate(1000, 2), {}, most=4, clock=lambda: 0)
    assert sum(rates.take(name) == 0 for name in range(1000)) == 4 + 2


def test_only_callers_with_a_rate_of_their_own_are_held_to_one() -> None:
    rates = Rates(None, {"ada": Rate(10, 1)}, clock=lambda: 5)
    assert [rates.take("ada", "ada"), rates.take("ada", "ada")] == [0, 10]
    assert [rates.take("bob", "bob") for _ in range(5)] == [0] * 5
    assert len(rates) == 1


@pytest.mark.parametrize(
    ("rate", "burst", "found"),
    [(4, None, (250_000_000, 4)), (0.5, None, (2_000_000_000, 1)), (2.5, 9, (400_000_000, 9))],
)
def test_a_rate_is_an_interval(rate: float, burst: int | None, found: tuple[int, int]) -> None:
    made = Rate.of(rate, burst)
    assert (made.interval, made.burst) == found


def test_keys_have_buckets_of_their_own_and_health_none() -> None:
    now, told = [0], []
    known = [(digest_of(b"a"), Identity()), (digest_of(b"b"), Identity()), (digest_of(b"c"), Identity("carl"))]
    rates = Rates(Rate(2_500_000_000, 1), {}, clock=lambda: now[0])
    let_in = guard(Callers(known), 9, lambda: 0, rates=rates, refused=told.append)

    def ask(key: bytes, path: str = "/v2") -> tuple[int, int | None]:
        try:
            let_in(Request("GET", path, b"", {b"x-api-key": key}, b""))
        except Fault as fault:
            return fault.status, fault.retry_after
        return 200, None

    assert [ask(b"a"), ask(b"b"), ask(b"c"), ask(b"a"), ask(b"c")] == [(200, None)] * 3 + [(429, 3)] * 2
    assert ask(b"d") == (401, None)
    assert ask(b"a", "/v2/health/live") == (200, None)
    now[0] = 1_600_000_000
    assert ask(b"b") == (429, 1)
    now[0] = 2_500_000_000
    assert ask(b"b") == (200, None)
    assert told == ["rate", "rate", "key", "rate"]


def test_without_keys_each_address_is_a_caller() -> None:
    let_in = guard(Callers(), 9, lambda: 0, rates=Rates(Rate(1000, 1), {}, clock=lambda: 0))
    for address in ("10.0.0.1", "10.0.0.2"):
        let_in(Request("GET", "/v2", b"", {}, b"", client=address))
    with pytest.raises(Fault, match="too often"):
        let_in(Request("GET", "/v2", b"", {}, b"", client="10.0.0.1"))


TAKES = """
import sys
from pathlib import Path
from mainspring.server.http.rates import Rate
from mainspring.server.workers.rates import SharedRates
rates = SharedRates(Rate(10**12, 1000), {}, Path(sys.argv[1]), patience=60)
print("there", flush=True)
sys.stdin.readline()
print(sum(rates.take(number % 4) == 0 for number in range(4000)), flush=True)
"""


def test_workers_at_the_same_time_give_no_more_than_one_would(tmp_path: Path) -> None:
    asked: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = [subprocess.Popen([sys.executable, "-c", TAKES, str(tmp_path / "rates.bin")], **asked) for _ in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "there\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    given = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(given) == 4 * 1000


def test_a_set_without_room_has_a_bucket_for_all_who_come_later(tmp_path: Path) -> None:
    now = [1]
    rates = SharedRates(Rate(100, 1), {}, tmp_path / "rates.bin", sets=1, clock=lambda: now[0])
    assert [rates.take(name) for name in range(8)] == [0] * 8
    assert (rates.take("ninth"), rates.take("tenth"), len(rates)) == (0, 100, 8)
    now[0] += 100
    assert [rates.take(name) for name in ("tenth", 0, "ninth")] == [0, 0, 0]
    rates.close()
    SharedRates.begin(tmp_path / "rates.bin")
    fresh = SharedRates(Rate(100, 1), {}, tmp_path / "rates.bin", sets=1, clock=lambda: 1)
    assert (len(fresh), fresh.take(0)) == (0, 0)
    fresh.close()
