"""Runs on disk: what is kept, for how long and how much, and what is never written."""

import asyncio
import sqlite3

import msgspec
import pytest
from msgspec.structs import replace

from assistants_kit import ADA, BOB, assistant, sqlite, told, tool
from mainspring.assistants.run_log import RunLog, redacted_run, row_of_run
from mainspring.errors import StoreError
from mainspring.ports.llm import Error
from mainspring.testing import Call

QUESTION = "How are goods returned? Write to ada@example.com"


def runs(*turns, caller=ADA, question=QUESTION, **options):
    """Records of runs as an assistant makes them."""
    found = []
    service, _ = assistant(list(turns), record=found.append, **options)
    for _ in range(options.pop("times", 1)):
        told(service, question, caller)
    return found


def answered(text="Within 30 days [1].", **options):
    (record,) = runs(text, **options)
    return record


def copies(record, count):
    return [msgspec.structs.replace(record, run=f"run-{place}", at_us=record.at_us + place) for place in range(count)]


@pytest.fixture
def opened(tmp_path):
    logs = []

    def make(**options):
        log = RunLog(tmp_path / "log" / "runs.db", **{"clock_us": lambda: 2_000_000, **options})
        logs.append(log)
        return log

    yield make
    for log in logs:
        log.close()


def test_a_run_in_numbers():
    row = row_of_run(answered(), 42)
    assert (row.assistant, row.status, row.citations, row.cost_micro) == ("help_desk", "ok", 1, 42)
    assert row.sources >= 1
    assert row.score is not None
    assert row.score > 0
    assert row.done_us == row.at_us + row.took_us
    assert row_of_run(answered("The manuals do not say."), None).status == "refused"
    failed = row_of_run(answered(Error("timeout", "late", True)), None)
    assert (failed.status, failed.error_kind) == ("failed", "timeout")
    made_up = row_of_run(answered("It costs nothing [9]."), None)
    assert (made_up.citations, made_up.dropped) == (0, 1)
    broken = tool(lambda arguments, caller: 1 / 0)
    (record,) = runs(Call("refund", {"order_id": 7}), "No.", usables=[broken], pages=None)
    assert (row_of_run(record, None).tool_calls, row_of_run(record, None).tool_faults) == (1, 1)


def test_runs_outlive_the_process_as_they_were_but_for_what_is_redacted(opened):
    first = opened(price=lambda record: 7)
    record = answered()
    first.put(record)
    assert first.find(record.run) == redacted_run(record), "it can be read at once"
    first.close()
    again = opened()
    found = again.find(record.run)
    assert msgspec.to_builtins(found) == msgspec.to_builtins(redacted_run(record))
    assert found.question == "How are goods returned? Write to [email]"
    assert (found.run, found.answer.sources[0].uri) == (record.run, record.answer.sources[0].uri)
    assert again.last("help_desk") == again.last() == [found]
    assert again.last("somebody else") == []
    (row,) = again.rows("help_desk", 0, record.at_us + 10_000_000)
    assert (row.run, row.cost_micro) == (record.run, 7)
    assert again.rows("help_desk", row.done_us + 1, row.done_us + 10) == []


def test_nothing_that_is_redacted_is_in_the_file(opened, tmp_path):
    log = opened()
    secret = "sk-abcdefghijklmnop1234"
    refund = tool(lambda arguments, caller: f"paid with {secret}")
    (record,) = runs(Call("refund", {"order_id": 7, "key": secret}), f"It was {secret}", usables=[refund], pages=None)
    log.put(record)
    log.close()
    written = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert b"[key]" in written
    assert secret.encode() not in written
    assert b"ada@example.com" not in written


def test_the_newest_come_first_and_are_counted(opened):
    log = opened()
    good, refused = answered(), answered("The manuals do not say.", caller=BOB)
    for record in (*copies(good, 3), msgspec.structs.replace(refused, run="no")):
        log.put(record)
    log.flush()
    assert [record.run for record in log.last("help_desk", 2)] == ["no", "run-2"]
    counts = log.counts("help_desk")
    assert (counts.runs, counts.ok, counts.refused, counts.failed, counts.cited) == (4, 3, 1, 0, 3)
    assert log.counts("nobody").runs == 0


def test_rows_and_traces_are_bounded_by_number_and_by_age(opened):
    now = [10_000_000_000]
    log = opened(most_traces=100, most_rows=300, trace_days=1, row_days=2, clock_us=lambda: now[0])
    record = msgspec.structs.replace(answered(), at_us=now[0])
    for one in copies(record, 513):
        log.put(one)
    log.flush()
    assert len(log.last(limit=1000)) == 100
    assert log.last(limit=1)[0].run == "run-512"
    assert len(log.rows("help_desk", 0, 1 << 60)) == 300
    now[0] += int(1.5 * 86_400_000_000)
    assert log.find("run-512") is None, "its time is over, whether it has been swept or not"
    for one in copies(msgspec.structs.replace(record, at_us=now[0]), 256):
        log.put(msgspec.structs.replace(one, run=f"later-{one.run}"))
    log.flush()
    assert {found.run.partition("-")[0] for found in log.last(limit=1000)} == {"later"}
    now[0] += 86_400_000_000
    for one in copies(msgspec.structs.replace(record, at_us=now[0]), 256):
        log.put(msgspec.structs.replace(one, run=f"last-{one.run}"))
    log.flush()
    assert {row.run.partition("-")[0] for row in log.rows("help_desk", 0, 1 << 60)} == {"last", "later"}


def test_a_share_of_the_traces_and_all_that_failed(opened):
    drawn = iter([0.9, 0.1, 0.9])
    log = opened(shares={"help_desk": 0.5}, draw=lambda: next(drawn))
    failed = msgspec.structs.replace(answered(Error("upstream", "gone", True)), run="failed")
    for record in (*copies(answered(), 3), failed):
        log.put(record)
    log.flush()
    assert {record.run for record in log.last()} == {"run-1", "failed"}
    assert log.counts("help_desk").runs == 4, "every run is counted"
    silent = opened(shares={"help_desk": 0.0})
    silent.put(msgspec.structs.replace(failed, run="unseen"))
    silent.flush()
    assert silent.find("unseen") is None


def test_a_disk_that_fails_is_told_once_and_costs_no_answer(tmp_path):
    said = []
    (tmp_path / "log").write_text("no folder")
    log = RunLog(tmp_path / "log" / "runs.db", told=said.append)
    for record in copies(answered(), 3):
        log.put(record)
    log.flush()
    log.close()
    assert (len(said), log.dropped) == (1, 3)
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(b"this is no database at all" * 100)
    log = RunLog(damaged)
    with pytest.raises(StoreError, match="cannot be read"):
        log.last()
    log.close()


def test_two_processes_may_have_the_file(opened, tmp_path):
    one, two = opened(), opened()
    one.put(msgspec.structs.replace(answered(), run="one"))
    two.put(msgspec.structs.replace(answered(), run="two"))
    one.flush()
    two.flush()
    assert {record.run for record in one.last()} == {"one", "two"}
    with sqlite3.connect(tmp_path / "log" / "runs.db") as database:
        assert database.execute("pragma journal_mode").fetchone() == ("wal",)
    database.close()


def test_a_deleted_thread_leaves_its_numbers_and_none_of_its_words(tmp_path):
    log = RunLog(tmp_path / "runs.db", clock_us=lambda: 2_000_000)
    service, _ = assistant(["The password is swordfish."] * 3, threads=sqlite(tmp_path), pages=None, record=log.put)
    service._parts = replace(service._parts, forget=log.forget)
    kept, deleted = (asyncio.run(service.create_thread(ADA)).thread_id for _ in range(2))
    for thread in (kept, deleted):
        told(service, "What is it?", thread=thread)
    asyncio.run(service.delete_thread(deleted, ADA))
    log.flush()
    (left,) = log.last()
    assert left.thread == kept
    assert log.counts("help_desk").runs == 2
    late = msgspec.structs.replace(left, run="late", thread=deleted)
    log.put(late)
    log.flush()
    assert log.find("late") is None, "a run that was going when its thread was deleted"
    asyncio.run(service.erase(ADA))
    log.close()
    assert log.last() == []
    assert b"swordfish" not in (tmp_path / "runs.db").read_bytes()
