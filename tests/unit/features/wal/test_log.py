"""The log of pushes on disk: durable when acknowledged, in order over threads and processes, refused whole or kept."""

import contextlib
import errno
import os
import subprocess
import sys
import threading
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.app import App
from mainspring.declare.record import Field, Record
from mainspring.errors import DataError, RefusedError, StoreError
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import newest, noted, source_of
from mainspring.features.logs.quarantine import set_aside
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.wal import log as wal_log
from mainspring.features.wal.commit import commit_waiting, drain, log_of, pushed_through, retire, rows_waiting, seq_of
from mainspring.features.wal.rows import drafted
from mainspring.testing.atonce import together

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
MOMENT = pa.timestamp("us", "UTC")


class Reading(Record):
    sensor: str
    heat: float | None = Field(le=1000)
    at: datetime


app = App("test")
PLAIN = source_of(app.source(Reading, time="at", called="plain"))


def rows(*heats):
    return pa.table(
        {
            "sensor": pa.array([f"s{heat}" for heat in heats], pa.string()),
            "heat": pa.array(heats, pa.float64()),
            "at": pa.array([START + place * SECOND for place, _ in enumerate(heats)], pa.int64()).cast(MOMENT),
        }
    )


def draft(*heats, request=None):
    return drafted(PLAIN, prepare_rows(PLAIN, rows(*heats)), START, request)


@pytest.fixture
def tables(tmp_path):
    return open_tables(DeltaSettings(), tmp_path)


@pytest.fixture
def opened(tables):
    found = []

    def again(**options):
        found.append(log_of(tables, PLAIN, **options))
        return found[-1]

    yield again
    for log in found:
        log.close()


def commit(tables, log):
    with tables.writing(PLAIN.log):
        done = commit_waiting(tables, log)
        retire(tables, log)
    return done


def table(tables):
    return tables.read(PLAIN.log).sort_by("_seq").to_pylist()


def files(tables):
    return sorted(path.name for path in tables.beside(f"_wal/{PLAIN.log}").glob("*.wal"))


def segment(tables):
    return tables.beside(f"_wal/{PLAIN.log}") / files(tables)[-1]


def test_what_was_appended_is_there_for_whoever_opens_the_log(tables, opened):
    first, _ = opened().append(draft(1.0, 2.0))
    second, _ = opened().append(draft(3.0))
    assert (first.n, first.counter, second.n, second.counter) == (1, 0, 2, 2)
    assert tables.version(PLAIN.log) is None
    assert rows_waiting(tables, PLAIN, -1).column("heat").to_pylist() == [1.0, 2.0, 3.0]
    assert rows_waiting(tables, PLAIN, seq_of(1)).column("heat").to_pylist() == [3.0]
    assert pushed_through(tables, PLAIN) == (seq_of(2), 0)
    done = commit(tables, opened())
    assert [(row["heat"], row["_seq"], row["_batch"]) for row in table(tables)] == [
        (1.0, seq_of(0), "push/1"),
        (2.0, seq_of(1), "push/1"),
        (3.0, seq_of(2), "push/2"),
    ]
    assert (done.before, done.version.through, done.version.rows) == (-1, seq_of(2), 3)
    assert commit(tables, opened()) is None


def test_rows_set_aside_are_durable_too_and_told(tables, opened):
    entry, _ = opened().append(draft(1.0, 2000.0, 3000.0))
    assert (entry.rows, entry.aside, entry.report) == (1, 2, {"heat is not <= 1000": 2})
    opened().append(draft(4000.0))
    log = opened()
    assert commit(tables, log).version.quarantined == 3
    found = set_aside(tables, PLAIN, 10)
    assert (found.rows, sorted(row["heat"] for row in found.last)) == (3, ["2000.0", "3000.0", "4000.0"])
    assert commit(tables, opened()) is None
    assert log.backlog() == wal_log.Backlog(0, 0, None)


def test_a_repeated_request_gets_its_first_answer_wherever_its_rows_are(tables, opened):
    log = opened()
    first, _ = log.append(draft(1.0, request="r"))
    for asked in (log, opened()):
        assert asked.append(draft(1.0, request="r")) == (first, True)
        with pytest.raises(DataError) as caught:
            asked.append(draft(2.0, request="r"))
        assert caught.value.code == "MS-2121"
    commit(tables, log)
    assert opened().append(draft(1.0, request="r")) == (first, True)
    assert [row["heat"] for row in table(tables)] == [1.0]


def test_segments_go_when_their_rows_are_in_the_tables_and_answers_stay(tables, opened, monkeypatch):
    monkeypatch.setattr(wal_log, "_ROLL", 4000)
    monkeypatch.setattr(wal_log, "_SMALL", 1)
    log, other = opened(), opened()
    given = [log.append(draft(float(place), request=f"r{place}"))[0] for place in range(30)]
    other.append(draft(99.0))  # reads them all, and keeps its files open
    assert len(files(tables)) > 3
    synced = []
    monkeypatch.setattr(tables, "sync", synced.append)
    commit(tables, log)
    assert len(files(tables)) == 1
    assert synced == [PLAIN.log, PLAIN.quarantine]
    late = opened()
    assert late.append(draft(7.0, request="r7")) == (given[7], True)
    assert other.append(draft(8.0, request="r8")) == (given[8], True)
    assert log.append(draft(9.0, request="r9")) == (given[9], True)
    entry, _ = other.append(draft(100.0))
    assert (entry.n, entry.counter) == (32, 31)
    commit(tables, other)
    assert [row["heat"] for row in table(tables)] == [*map(float, range(30)), 99.0, 100.0]


def test_an_answer_is_forgotten_after_a_day(tables, opened, monkeypatch):
    monkeypatch.setattr(wal_log, "_SMALL", 1)
    log = opened()
    log.append(draft(1.0, request="r"))
    commit(tables, log)
    now = wal_log._now_us()
    monkeypatch.setattr(wal_log, "_now_us", lambda: now + wal_log.DAY_US + SECOND)
    entry, repeated = opened().append(draft(2.0, request="r"))
    assert (entry.n, repeated) == (2, False)


def test_threads_share_frames_and_every_one_gets_its_own_numbers(tables, opened):
    log, entries = opened(), []

    def push(number):
        entries.extend(
            log.append(draft(float(number), float(number), request=f"{number}/{turn}"))[0] for turn in range(20)
        )

    together([lambda number=number: push(number) for number in range(6)])
    assert sorted(entry.n for entry in entries) == list(range(1, 121))
    assert sorted(entry.counter for entry in entries) == list(range(0, 240, 2))
    commit(tables, log)
    assert len(table(tables)) == 240


PUSHER = """
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
import test_log as t
tables = t.open_tables(t.DeltaSettings(), Path({place!r}))
log = t.log_of(tables, t.PLAIN)
for turn in range(30):
    log.append(t.draft(float({number} * 100 + turn), request="{number}-%d" % turn))
    if turn % 7 == {number}:
        t.commit(tables, log)
"""


def test_processes_take_turns(tables, tmp_path):
    folder = os.path.dirname(__file__)
    codes = [PUSHER.format(folder=folder, place=str(tmp_path), number=number) for number in range(3)]
    running = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) for code in codes]
    for process in running:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 0, told
    drain(tables)
    found = table(tables)
    assert sorted(row["heat"] for row in found) == sorted(float(n * 100 + turn) for n in range(3) for turn in range(30))
    assert [row["_seq"] for row in found] == [seq_of(place) for place in range(90)]
    throughs = [version.through for version in _versions(tables)]
    assert throughs == sorted(throughs)


def _versions(tables):
    found = [noted(PLAIN.log, commit) for commit in tables.commits(PLAIN.log)]
    return [version for version in reversed(found) if version is not None]


@pytest.mark.parametrize("rest", [b"MSWL", b"\0" * 9, b"MSWL\x40\0\0\0\0\0\0\0half of it"])
def test_a_torn_end_is_cut_off_by_the_next_to_append(tables, opened, rest):
    opened().append(draft(1.0))
    with open(segment(tables), "ab") as file:
        file.write(rest)
    assert rows_waiting(tables, PLAIN, -1).column("heat").to_pylist() == [1.0]
    opened().append(draft(2.0))
    assert rows_waiting(tables, PLAIN, -1).column("heat").to_pylist() == [1.0, 2.0]


def test_damage_before_the_end_is_told_and_nothing_is_cut_off(tables, opened):
    log = opened()
    for heat in (1.0, 2.0, 3.0):
        log.append(draft(heat))
    path = segment(tables)
    data = bytearray(path.read_bytes())
    data[data.rfind(b"MSWL") - 3] ^= 1
    path.write_bytes(bytes(data))
    for work in (lambda: opened().append(draft(4.0)), lambda: commit(tables, opened()), lambda: drain(tables)):
        with pytest.raises(StoreError) as caught:
            work()
        assert caught.value.code == "MS-4172"
    assert path.read_bytes() == bytes(data)


def test_a_log_of_another_version_is_left_as_it_is(tables, opened, monkeypatch):
    opened().append(draft(1.0))
    data = segment(tables).read_bytes()
    monkeypatch.setattr(wal_log, "VERSION", 2)
    for work in (lambda: opened().append(draft(4.0)), lambda: commit(tables, opened()), lambda: drain(tables)):
        with pytest.raises(StoreError) as caught:
            work()
        assert caught.value.code == "MS-4174"
    assert segment(tables).read_bytes() == data


@pytest.mark.parametrize("fault", ["write", "sync"])
def test_a_full_disk_refuses_whole_pushes_and_harms_none_before_or_after(tables, opened, monkeypatch, fault):
    log = opened()
    log.append(draft(1.0, request="a"))
    size = segment(tables).stat().st_size
    write = os.pwrite

    def half(descriptor, data, at):
        write(descriptor, bytes(data)[: len(data) // 2], at)
        raise OSError(errno.ENOSPC, "No space left on device")

    def unsynced(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", half) if fault == "write" else patch.setattr(os, "fdatasync", unsynced)
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                log.append(draft(2.0, request="b"))
            assert caught.value.code == "MS-4101"
            assert log.append(draft(1.0, request="a"))[1], "what was taken before is answered all the same"
    assert segment(tables).stat().st_size == size
    entry, repeated = log.append(draft(2.0, request="b"))
    assert (entry.n, repeated) == (2, False)
    commit(tables, log)
    assert [row["heat"] for row in table(tables)] == [1.0, 2.0]


def test_a_folder_that_cannot_be_made_is_told(tables, opened, tmp_path):
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "_wal").write_text("in the way")
    with pytest.raises(StoreError) as caught:
        opened().append(draft(1.0))
    assert caught.value.code == "MS-4173"


def test_too_much_waiting_is_refused_until_it_is_in_the_tables(tables, opened):
    log = opened(most_bytes=2000)
    refused = []

    def push(number):
        try:
            log.append(draft(float(number), request=f"r{number}"))
        except RefusedError as error:
            refused.append((number, error.code))

    for number in range(10):
        push(number)
    taken = 10 - len(refused)
    assert 0 < taken < 10
    assert refused == [(number, "MS-5046") for number in range(taken, 10)]
    assert log.append(draft(0.0, request="r0"))[1]
    commit(tables, log)
    log.append(draft(500.0))
    commit(tables, log)
    assert [row["heat"] for row in table(tables)] == [*map(float, range(taken)), 500.0]


def test_rows_of_a_source_that_is_declared_otherwise_now_go_where_they_were_meant(tables, opened):
    opened().append(draft(1.0))

    class Reading(Record):
        sensor: str
        heat: float | None
        at: datetime
        more: int | None

    other = source_of(App("other").source(Reading, time="at", called="plain"))
    assert other.log != PLAIN.log
    assert [done.version.table for done in drain(tables)] == [PLAIN.log]
    assert [row["heat"] for row in table(tables)] == [1.0]
    assert pushed_through(tables, other) is None


def test_a_log_that_is_lost_goes_on_where_the_table_is(tables, opened):
    log = opened()
    log.append(draft(1.0, 2.0))
    commit(tables, log)
    segment(tables).unlink()
    entry, _ = opened().append(draft(3.0))
    assert (entry.n, entry.counter) == (2, 2)
    assert [row["heat"] for row in (drain(tables), table(tables))[1]] == [1.0, 2.0, 3.0]


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 3)),
        st.tuples(st.just("file"), st.integers(1, 3)),
        st.tuples(st.just("commit"), st.none()),
        st.tuples(st.just("reopen"), st.none()),
        st.tuples(st.just("during"), st.integers(1, 2)),
    ),
    max_size=12,
)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=ACTIONS)
def test_files_and_pushes_in_any_order_are_each_there_once_and_in_the_order_of_their_numbers(tmp_path_factory, actions):
    """A push may come while files are read: its number is after theirs, and so is its commit."""
    tables = open_tables(DeltaSettings(), tmp_path_factory.mktemp("tables"))
    log, pushed, filed, heat = log_of(tables, PLAIN), [], [], 0.0
    for action, count in actions:
        if action == "push":
            heats = [heat + 0.01 * (place + 1) for place in range(count)]
            log.append(draft(*heats))
            pushed += heats
        elif action in ("file", "during"):
            heats = [heat + 0.5 + 0.01 * place for place in range(count)]
            meanwhile = [heat + 0.9] if action == "during" else []

            def tell(changes, meanwhile=meanwhile, log=log):
                for one in meanwhile:
                    log.append(draft(one))

            filed += heats
            prepared = prepare_rows(PLAIN, rows(*filed))
            ingest_batch(tables, PLAIN, prepared, content=f"c{heat}", now_us=START + SECOND, tell=tell)
            pushed += meanwhile
        elif action == "commit":
            commit(tables, log)
        else:
            log.close()
            log = log_of(tables, PLAIN)
        heat += 1
    drain(tables)
    log.close()
    found = table(tables) if tables.version(PLAIN.log) is not None else []
    there = [row["heat"] for row in found if row["_retracts"] is None]
    gone = {row["_retracts"] for row in found if row["_retracts"] is not None}
    alive = [row["heat"] for row in found if row["_retracts"] is None and row["_seq"] not in gone]
    assert sorted(set(there)) == sorted({*pushed, *filed})
    assert sorted(alive) == sorted([*pushed, *filed])
    throughs = [version.through for version in _versions(tables)]
    assert throughs == sorted(throughs)
    for before, after in zip(_versions(tables), _versions(tables)[1:], strict=False):
        fresh = tables.read(PLAIN.log, version=after.version, where=[("_seq", ">", before.through)])
        assert len(fresh) == len(tables.read(PLAIN.log, version=after.version)) - len(
            tables.read(PLAIN.log, version=before.version)
        ), "a commit brought a row from before what was reached"


def test_a_push_in_process_is_in_the_table_with_what_waited(tables, opened):
    opened().append(draft(1.0))
    done = append_rows(SimpleNamespace(tables=tables), PLAIN, rows(2.0), START)
    assert (done.seq, done.source) == ((seq_of(1), seq_of(1)), newest(tables, PLAIN.log))
    assert [row["heat"] for row in table(tables)] == [1.0, 2.0]


def test_waiting_threads_hear_of_a_fault_too(tables, opened, monkeypatch):
    log, told = opened(), []
    log.append(draft(0.0))
    entered, go = threading.Event(), threading.Event()

    def slow(descriptor):
        entered.set()
        go.wait(60)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", slow)

    def push(number):
        with contextlib.suppress(StoreError):
            log.append(draft(float(number)))
            return
        told.append(number)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    entered.wait(60)
    go.set()
    for thread in threads:
        thread.join(60)
    assert sorted(told) == [1, 2, 3, 4]
    monkeypatch.undo()
    log.append(draft(9.0))
    commit(tables, log)
    assert [row["heat"] for row in table(tables)] == [0.0, 9.0]


def test_a_log_that_was_put_aside_is_begun_anew(tmp_path):
    """Whoever has it open goes on in the new one, with the numbers that the tables have reached."""
    tables = open_tables(DeltaSettings(), tmp_path)
    with contextlib.closing(log_of(tables, PLAIN)) as log, contextlib.closing(log_of(tables, PLAIN)) as other:
        log.append(draft(1.0, request="a"))
        commit_waiting(tables, log)
        log.append(draft(2.0, request="b"))
        assert other.newest() is not None
        place = tables.beside("_wal")
        place.rename(place.with_name("_before"))
        append_rows(SimpleNamespace(tables=tables), PLAIN, rows(3.0), START)
        assert commit_waiting(tables, log) is None
        entry, repeated = log.append(draft(4.0, 5.0, request="b"))
        assert (repeated, other.newest()) == (False, entry.counter + 1)
        commit_waiting(tables, other)
        retire(tables, log)
        assert sorted(tables.read(PLAIN.log).column("heat").to_pylist()) == [1.0, 3.0, 4.0, 5.0]
        seq = tables.read(PLAIN.log).column("_seq").to_pylist()
        assert len(set(seq)) == 4
