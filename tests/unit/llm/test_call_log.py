"""The record of requests as pages read it: what is of a name, the newest first, and sums per day."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mainspring.errors import StoreError
from mainspring.llm.call_log import CallLog
from mainspring.llm.record import CallRecord
from mainspring.llm.store import CallStore
from mainspring.llm.values import Caller, Target
from mainspring.ports.llm import Usage
from mainspring.testing.engine import FakeEngine

DAY = 86_400_000_000_000
NOW = 20_000 * DAY + 5


def record(number: int, at_ns: int, lane: str = "first", upstream: str = "chat", **changes: object) -> CallRecord:
    made = CallRecord(
        id=f"{number:024x}",
        model=lane,
        caller=Caller(),
        api="inside",
        stream=True,
        trace=("", ""),
        prompt="",
        lane=lane,
        at_ns=at_ns,
        target=Target(name=upstream, engine=FakeEngine(), model="m") if upstream else None,
        status="ok",
        error_kind="",
        finish_reason="stop",
        attempt=1,
        hedged=False,
        cache="",
        usage=Usage(10, 3, cached=4),
        queue_us=1,
        ttft_us=20,
        total_us=30,
        cost_micro=7,
        price_version="",
    )
    return msgspec.structs.replace(made, **changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    store = CallStore(tmp_path / "calls.db", lambda: 0.5, clock_ns=lambda: NOW)
    store.write(
        [
            record(1, NOW - 9 * DAY),
            record(2, NOW - DAY),
            record(3, NOW - DAY, status="error", error_kind="rate", usage=Usage(10, 0), cost_micro=0),
            record(4, NOW, cache="semantic", cost_micro=0, similarity=0.97),
            record(5, NOW - 1, status="left"),
            record(6, NOW, lane="other", upstream="backup"),
            record(7, NOW - 2, lane="chat", upstream="", status="error", error_kind="upstream"),
        ]
    )
    store.close()
    return tmp_path / "calls.db"


def test_the_last_requests_of_a_model_and_of_a_name(path: Path) -> None:
    log = CallLog(path, lambda: NOW)
    assert [int(row.id, 16) for row in log.last(["chat"])][:3] == [4, 5, 7]
    assert {int(row.id, 16) for row in log.last(["chat"])} == {2, 3, 4, 5, 7}
    assert [int(row.id, 16) for row in log.last(["other"])] == [6]
    assert len(log.last(["first"], 2)) == 2
    assert log.last(["nobody"]) == log.last([]) == []
    first = log.last(["first"])[0]
    assert (first.cache, first.cached_tokens, first.upstream, first.model_version) == ("semantic", 4, "chat", "m")
    assert (first.similarity, log.last(["other"])[0].similarity) == (0.97, None)


def test_sums_per_day(path: Path) -> None:
    today, yesterday = CallLog(path, lambda: NOW).days(["first"])
    assert (today.day, yesterday.day) == ("2024-10-04", "2024-10-03")
    assert (today.requests, today.errors, today.left, today.cached) == (2, 0, 1, 1)
    assert (today.prompt_tokens, today.completion_tokens, today.cost_micro) == (20, 6, 7)
    assert (yesterday.requests, yesterday.errors, yesterday.completion_tokens, yesterday.cost_micro) == (2, 1, 3, 7)
    assert [row.day for row in CallLog(path, lambda: NOW).days(["first"], 1)] == ["2024-10-04"]


def test_a_log_that_is_not_there_or_damaged(tmp_path: Path) -> None:
    log = CallLog(tmp_path / "none.db")
    assert log.last(["chat"]) == log.days(["chat"]) == []
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "bad.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError) as fault:
        CallLog(tmp_path / "bad.db").last(["chat"])
    assert fault.value.code == "MS-4187"


def test_it_is_read_while_it_is_written(path: Path) -> None:
    log, store = CallLog(path, lambda: NOW), CallStore(path, lambda: 0.5, clock_ns=lambda: NOW)
    store.write([record(8, NOW + 1)])
    assert int(log.last(["first"])[0].id, 16) == 8
    store.close()
