"""Budgets of several workers: held to the token by processes that race, and by those that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mainspring.config.settings import load_settings
from mainspring.errors import ConfigError, StoreError
from mainspring.llm.limits import Account, Denied, Reservation
from mainspring.llm.values import Limits
from mainspring.plan.graph import Plan
from mainspring.server.answering.budgets import budgets_of
from mainspring.server.workers.budgets import SharedAccounts, leave

LIMITS = Limits(requests=50, tokens=1000, window_s=60, concurrent=5, money_micro=500, period_s=600)
DAY = 86_400.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def workers(path: Path, clock: Clock, limits: Limits = LIMITS, **more: object) -> list[tuple[SharedAccounts, Account]]:
    found = []
    for number in range(3):
        accounts = SharedAccounts(clock, path, 3, number, **more)  # type: ignore[arg-type]
        account = accounts.add("key:web", limits)
        assert account is not None
        found.append((accounts, account))
    return found


def test_what_one_worker_takes_the_others_have_no_more(tmp_path: Path) -> None:
    clock = Clock()
    (one, first), (two, second), (_, third) = workers(tmp_path / "b.bin", clock)
    held = one.reserve([first], 700, 100)
    assert isinstance(held, Reservation)
    denied = two.reserve([second], 301, 0)
    assert isinstance(denied, Denied)
    assert (denied.what, denied.left) == ("tokens", 300)
    other = two.reserve([second], 300, 400)
    assert isinstance(other, Reservation)
    assert isinstance(one.reserve([first], 0, 1), Denied), "the money is gone too"
    held.settle(10, 1)
    held.settle(900, 400)  # only the first counts
    assert (third.used_tokens, third.used_micro) == (310, 401)
    left = other.left()
    assert left.tokens is not None
    clock.now += 60
    assert (third.used_tokens, third.used_micro) == (0, 401), "the window is another, the period is not"
    other.settle(0, 0)
    assert second.used_tokens == 0, "what was settled late is of its own window"
    clock.now += 600
    assert third.used_micro == 0


def test_requests_and_those_at_once_are_counted_over_all(tmp_path: Path) -> None:
    found = workers(tmp_path / "b.bin", Clock())
    held = [accounts.reserve([account], 1, 0) for accounts, account in (*found, *found)]
    assert [isinstance(got, Reservation) for got in held] == [True] * 5 + [False]
    for got in held[:5]:
        assert isinstance(got, Reservation)
        got.settle(1, 0)
    given = 5
    for _ in range(30):
        for accounts, account in found:
            got = accounts.reserve([account], 1, 0)
            if isinstance(got, Reservation):
                given += 1
                got.settle(1, 0)
    assert given == 50


def test_what_a_dead_worker_held_is_free_and_what_it_used_is_not(tmp_path: Path) -> None:
    path, clock = tmp_path / "b.bin", Clock()
    (one, first), (two, second), _ = workers(path, clock)
    for _ in range(5):
        assert isinstance(one.reserve([first], 10, 2), Reservation)
    assert isinstance(two.reserve([second], 1, 0), Denied)
    leave(path, 0)
    got = two.reserve([second], 1, 0)
    assert isinstance(got, Reservation)
    assert second.used_tokens == 51
    again = SharedAccounts(clock, path, 3, 0, {"key:web": 400})
    account = again.add("key:web", LIMITS)
    assert account is not None
    assert account.used_micro == 10, "the accounts know: the record would count twice"
    assert isinstance(again.reserve([account], 949, 0), Reservation)
    assert second.used_tokens == 1000
    leave(tmp_path / "none.bin", 0)


def test_money_that_was_spent_before_the_start_counts_once(tmp_path: Path) -> None:
    found = workers(tmp_path / "b.bin", Clock(), spent={"key:web": 450})
    assert [account.used_micro for _, account in found] == [450] * 3
    accounts, account = found[2]
    assert isinstance(accounts.reserve([account], 0, 51), Denied)
    assert isinstance(accounts.reserve([account], 0, 50), Reservation)


def test_many_accounts_each_have_their_own_and_none_without_limits(tmp_path: Path) -> None:
    clock = Clock()
    one, two = (SharedAccounts(clock, tmp_path / "b.bin", 2, number) for number in range(2))
    names = [f"key:{number}" for number in range(40)]
    firsts = [one.add(name, Limits(tokens=100 + place)) for place, name in enumerate(names)]
    seconds = {name: two.add(name, Limits(tokens=100 + names.index(name))) for name in reversed(names)}
    for place, first in enumerate(firsts):
        assert first is not None
        assert isinstance(one.reserve([first], place, 0), Reservation)
    assert [second and second.used_tokens for second in map(seconds.get, names)] == list(range(40))
    assert one.add("key:open", Limits()) is None
    assert isinstance(two.reserve([account for account in seconds.values() if account], 200, 0), Denied)
    assert seconds["key:3"] is not None
    assert seconds["key:3"].used_tokens == 3, "at all or at none"


RACE = """
import sys, time
from pathlib import Path
from mainspring.llm.limits import Reservation
from mainspring.llm.values import Limits
from mainspring.server.workers.budgets import SharedAccounts

accounts = SharedAccounts(lambda: 5.0, Path(sys.argv[1]), 4, int(sys.argv[2]), patience=60)
limits = Limits(tokens=6_000, window_s=1e6, concurrent=3, money_micro=10**9)
mine = [accounts.add("key:web", limits), accounts.add("tenant:acme", Limits(requests=4_000, window_s=1e6))]
print("ready", flush=True)
sys.stdin.readline()
given, most, begun = 0, 0, 0
while begun < 4_000:
    begun += 1
    got = accounts.reserve(mine, 7, 1)
    if isinstance(got, Reservation):
        most = max(most, mine[0].under_way)
        got.settle(3, 1)
        given += 1
print(given, most, flush=True)
"""


def test_processes_that_race_never_exceed_a_budget(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    command = [sys.executable, "-c", RACE, str(path)]
    racing = [
        subprocess.Popen([*command, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for number in range(4)
    ]
    try:
        for process in racing:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in racing:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        said = [tuple(map(int, process.communicate(timeout=120)[0].split())) for process in racing]
    finally:
        for process in racing:
            process.kill()
    given = sum(one for one, _ in said)
    assert max(most for _, most in said) <= 3
    assert (6_000 - 7) // 3 - 2 <= given <= 6_000 // 3, "every token is given, and none twice"
    accounts = SharedAccounts(lambda: 5.0, path, 4, 0)
    account = accounts.add("key:web", Limits(tokens=6_000, window_s=1e6, concurrent=3, money_micro=10**9))
    assert account is not None
    assert (account.used_tokens, account.used_micro) == (3 * given, given)


def test_a_worker_that_is_stopped_with_the_lock_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    (one, first), *_ = workers(path, Clock(), patience=0.02)
    holder = (
        "import fcntl, sys, time\n"
        "file = open(sys.argv[1], 'r+b')\n"
        "fcntl.lockf(file, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", holder, str(path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            os.kill(process.pid, signal.SIGSTOP)
            begun = time.process_time()
            for _ in range(5):
                assert isinstance(one.reserve([first], 100, 0), Reservation)
            assert time.process_time() - begun < 0.5, "it waits once, and then not for a second"
            assert isinstance(one.reserve([first], 501, 0), Denied), "its own use counts all the same"
        finally:
            process.kill()


def test_a_place_that_cannot_be_had_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError) as told:
        SharedAccounts(Clock(), tmp_path / "file" / "b.bin", 2, 0)
    assert told.value.code == "MS-4450"


@pytest.mark.parametrize("section", ["limits", "tenant_limits", "model_limits"])
def test_limits_of_nobody_are_refused(tmp_path: Path, section: str) -> None:
    (tmp_path / "mainspring.toml").write_text(f"[{section}.nobody]\ntokens = 5\n")
    settings = load_settings(tmp_path, profile="dev")
    with pytest.raises(ConfigError) as told:
        budgets_of(settings, Plan("app", ()))
    assert told.value.code == "MS-3170"
    assert "mainspring.toml:2" in json.dumps(told.value.origin)
