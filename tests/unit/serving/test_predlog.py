"""The prediction log: what a put returned survives SIGKILL, rows are read once, segments reach the lake once."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.errors import StoreError
from mainspring.serving.predlog import recovery, writer
from mainspring.serving.predlog.arrow import to_arrow
from mainspring.serving.predlog.categories import Categories, hash_text, read_categories
from mainspring.serving.predlog.find import find_prediction
from mainspring.serving.predlog.reader import LogReader, compact, log_table
from mainspring.serving.predlog.recovery import recover
from mainspring.serving.predlog.schema import UNFIT, LogSchema
from mainspring.serving.predlog.segment import CAPACITY, Segment, open_segment
from mainspring.serving.predlog.writer import PredictionLog

SCHEMA = LogSchema("shop", "returns", ("a", "b", "c"))
AT = 1_700_000_000_000_000

CHILD = """
import sys
from pathlib import Path
from mainspring.serving.predlog.schema import LogSchema
from mainspring.serving.predlog.writer import PredictionLog
log = PredictionLog(Path(sys.argv[1]), LogSchema("shop", "returns", ("a", "b", "c")))
n = 0
while True:
    sys.stdout.write(log.put((n, None, 1.5), 0.25, "3", 1_700_000_000_000_000 + n) + "\\n")
    sys.stdout.flush()
    n += 1
"""


def rows(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for path in sorted([*folder.glob("seg-*.parquet"), *folder.glob("wal-*")]):
        if path.suffix == ".parquet":
            found += pq.read_table(path).to_pylist()
        else:
            segment = open_segment(path)
            assert segment is not None
            found += to_arrow(segment.schema, segment.records(), read_categories(folder)).to_pylist()
    return found


def write(segment: Segment, row: int, moment_ns: int) -> None:
    SCHEMA.record().pack_into(
        segment.view,
        segment.start + row * segment.size,
        *(bytes([row]) * 16, 1.0, 1, 0, 0, 0, 0.5, 1.0, 2.0, 3.0, moment_ns),
    )


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, SCHEMA)
    first = log.put((1.5, None, True), 0.75, "12", AT)
    second = log.put((float("nan"), 2, 3), 0.5, "12", AT + 1)
    log.close()
    found = {row["prediction_id"]: row for row in rows(tmp_path)}
    assert found[first]["score"] == 0.75
    assert (found[first]["a"], found[first]["b"], found[first]["c"]) == (1.5, None, 1.0)
    assert found[first]["version"] == 12
    assert found[second]["a"] != found[second]["a"]
    assert str(found[first]["at"]) == "2023-11-14 22:13:20+00:00"
    assert sorted([first, second]) == [first, second], "ids rise"


def test_a_full_segment_is_sealed_and_the_next_one_goes_on(tmp_path: Path) -> None:
    sealed: list[int] = []
    log = PredictionLog(tmp_path, SCHEMA, on_seal=sealed.append)
    ids = [log.put((n, n, n), 0.5, "1", AT + n) for n in range(2 * CAPACITY + 10)]
    log.close()
    assert sealed == [CAPACITY, CAPACITY, 10]
    # A segment that was made in a hurry may have a later number than a spare that is used after it.
    assert sorted(str(row["prediction_id"]) for row in rows(tmp_path)) == ids
    assert not list(tmp_path.glob("wal-*"))
    assert log.dropped == 0


@pytest.mark.parametrize("seed", range(6))
def test_nothing_acknowledged_is_lost_on_sigkill(tmp_path: Path, seed: int) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    wanted = random.Random(seed).randrange(1, 9000)
    acknowledged = [child.stdout.readline().strip() for _ in range(wanted)]
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.wait()
    child.stdout.close()
    acknowledged += [line for line in rest if len(line) == 32]
    recover(tmp_path)
    kept = [str(row["prediction_id"]) for row in rows(tmp_path)]
    assert set(acknowledged) <= set(kept)
    assert len(kept) == len(set(kept))
    assert not list(tmp_path.glob("wal-*"))


def test_a_segment_in_use_is_left_alone(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, SCHEMA)
    log.put((1, 2, 3), 0.5, "1", AT)
    code = (
        "import sys; from pathlib import Path; from mainspring.serving.predlog.recovery import recover; "
        "print(recover(Path(sys.argv[1])))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"
    assert list(tmp_path.glob("wal-*"))
    log.close()


def test_recovery_cut_short_is_repeated_without_doubling(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "wal-0-aa-000001", SCHEMA, 0, bytes(16))
    for n in range(5):
        write(segment, n, AT * 1000)
    segment.close()
    kept = (tmp_path / "wal-0-aa-000001").read_bytes()
    assert recover(tmp_path) == 5
    (tmp_path / "wal-0-aa-000001").write_bytes(kept)  # the unlink did not happen
    (tmp_path / "seg-x.parquet.tmp").write_bytes(b"torn")
    recover(tmp_path)
    assert len(rows(tmp_path)) == 5
    assert not list(tmp_path.glob("*.tmp"))


def test_an_unfinished_record_does_not_exist(tmp_path: Path) -> None:
    segment = Segment.create(tmp_path / "wal-0-aa-000001", SCHEMA, 0, bytes(16))
    write(segment, 0, AT * 1000)
    write(segment, 1, 0)
    segment.close()
    read = open_segment(tmp_path / "wal-0-aa-000001")
    assert read is not None
    assert len(read.records()) == 1


def test_a_torn_header_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "wal-0-aa-000001").write_bytes(b"MSPL" + bytes(5000))
    assert open_segment(tmp_path / "wal-0-aa-000001") is None


def test_a_file_that_is_no_segment_is_set_aside_and_kept(tmp_path: Path) -> None:
    (tmp_path / "wal-0-aa-000001").write_bytes(b"somebody else's")
    assert recover(tmp_path) == 0
    assert (tmp_path / "unreadable-wal-0-aa-000001").read_bytes() == b"somebody else's"


KINDS = LogSchema(
    "shop", "returns", ("f4", "f8", "i8", "bool", "category", "text"), ("f4", "f8", "i8", "bool", "category", "text")
)
NUMBERS = st.one_of(st.none(), st.booleans(), st.floats(), st.integers(-(2**70), 2**70))
TEXTS = st.one_of(st.none(), st.text(max_size=300))
VALUES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS, TEXTS, TEXTS)


def expected(value: object, kind: str) -> object:
    """What a reader sees of a value, by the specification of the kinds; null for what does not fit."""
    if value is None:
        return None
    if kind == "text":
        return len(str(value))
    if kind == "category":
        word = str(value)
        return word if len(word) <= 256 else f"#{hash_text(word):016x}"
    number = value
    assert isinstance(number, int | float)
    if kind == "f8":
        return float(number)
    if kind == "f4":
        if 3.4028234663852886e38 < abs(number) < float("inf"):
            return None
        return struct.unpack("<f", struct.pack("<f", number))[0]
    if number != number or number in INFINITE or int(number) != number:
        return None
    if kind == "bool":
        return bool(number) if number in (0, 1) else None
    return int(number) if -(2**63) <= number < 2**63 else None


INFINITE = (float("inf"), float("-inf"))


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=8))
def test_every_kind_comes_back_as_it_was_or_null(answers: list[tuple[object, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        log = PredictionLog(Path(folder), KINDS)
        for row in answers:
            log.put(row, 0.5, "1", AT)
        log.close()
        found = rows(Path(folder))
    assert len(found) == len(answers)
    for kept, row in zip(found, answers, strict=True):
        for kind, value in zip(KINDS.columns, row, strict=True):
            wanted = expected(value, kind)
            assert kept[kind] == wanted or (kept[kind] != kept[kind] and wanted != wanted), (kind, value)


def test_a_value_that_does_not_fit_flags_its_record(tmp_path: Path) -> None:
    schema = LogSchema("shop", "returns", ("n",), ("i8",))
    log = PredictionLog(tmp_path, schema)
    log.put((1.5,), 0.5, "1", AT)
    log.put((2,), 0.5, "1", AT)
    flags = [
        int(flag)
        for path in tmp_path.glob("wal-*")
        if (segment := open_segment(path)) is not None
        for flag in segment.records()["flags"]
    ]
    log.close()
    assert flags == [UNFIT, 0]


def test_whole_numbers_of_a_matrix_are_logged_as_integers(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, LogSchema("shop", "returns", ("n", "x"), ("i8", "f4")))
    sent = [(3.0, 0.5), [-0.0, 2.0], (2.0**53, 1.0), (float("inf"), 1.0), (1e300, 1.0), (0.5, 1.0), (None, 1.0)]
    for row in sent:
        log.put(row, 0.5, "1", AT)
    log.close()
    assert [row["n"] for row in rows(tmp_path)] == [3, 0, 2**53, None, None, None, None]
    assert sent[1] == [-0.0, 2.0]


def test_more_columns_than_a_word_has_bits(tmp_path: Path) -> None:
    names = tuple(f"c{n}" for n in range(130))
    log = PredictionLog(tmp_path, LogSchema("shop", "returns", names))
    log.put(tuple(None if n in (0, 63, 64, 129) else float(n) for n in range(130)), 0.5, "1", AT)
    log.close()
    (row,) = rows(tmp_path)
    assert [name for name in names if row[name] is None] == ["c0", "c63", "c64", "c129"]
    assert row["c128"] == 128.0


def test_sampling_keeps_a_share_with_its_weight(tmp_path: Path) -> None:
    log = PredictionLog(tmp_path, SCHEMA, share=0.25)
    for n in range(400):
        assert len(log.put((n, n, n), 0.5, "1", AT)) == 32
    log.close()
    found = rows(tmp_path)
    assert len(found) == 100
    assert {row["weight"] for row in found} == {4.0}


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(StoreError) as caught:
        PredictionLog(tmp_path, SCHEMA)
    assert caught.value.code == "MS-4101"
    assert not list(tmp_path.glob("wal-*"))


def test_each_row_is_read_once_from_wal_segment_and_lake(tmp_path: Path) -> None:
    folder, tables = tmp_path / "predictions", open_tables(DeltaSettings(), tmp_path)
    reader = LogReader(folder, "shop", tables)
    log = PredictionLog(folder, SCHEMA)
    ids: list[str] = []
    seen: list[str] = []

    def look() -> None:
        for table in reader.new_rows():
            seen.extend(table.column("prediction_id").to_pylist())

    for turn in range(4):
        ids += [log.put((n, n, n), 0.5, "1", AT + n) for n in range(CAPACITY // 3 * turn + 7)]
        look()
        compact(folder, tables, "shop", keep=1)
    log.close()
    look()
    assert sorted(seen) == ids
    compact(folder, tables, "shop")
    assert tables.version(log_table("shop")) is not None
    fresh = [
        i for table in LogReader(folder, "shop", tables).new_rows() for i in table.column("prediction_id").to_pylist()
    ]
    assert sorted(fresh) == sorted(ids)


def test_a_span_is_read_from_wal_segment_and_lake_each_row_once(tmp_path: Path) -> None:
    folder, tables = tmp_path / "predictions", open_tables(DeltaSettings(), tmp_path)
    reader, put = LogReader(folder, "shop", tables), dict[str, int]()
    log = PredictionLog(folder, SCHEMA)

    def span(start: int, stop: int) -> list[str]:
        first, last = (datetime.fromtimestamp((AT + second * 1_000_000) / 1e6, UTC) for second in (start, stop))
        table = reader.between(first, last)
        assert table.column_names == ["prediction_id", "score", "weight"]
        return sorted(table.column("prediction_id").to_pylist())

    assert span(0, 100) == []
    for turn in range(4):
        for second in random.Random(turn).sample(range(100), 40):
            put[log.put((1, 2, 3), 0.5, "1", AT + second * 1_000_000)] = second
        for start, stop in ((0, 100), (30, 31), (50, 80), (99, 200)):
            assert span(start, stop) == sorted(i for i, second in put.items() if start <= second < stop)
        log.flush()
        if turn == 2:
            deadline = time.monotonic() + 30
            while len(list(folder.glob("seg-*.parquet"))) < 3 and time.monotonic() < deadline:
                time.sleep(0.01)
            (kept, *_) = sorted(folder.glob("seg-*.parquet"))
            data = kept.read_bytes()
            assert compact(folder, tables, "shop", keep=1) == 80
            kept.write_bytes(data)  # killed between the commit and the unlink
            assert span(0, 100) == sorted(put)
    log.close()
    assert span(0, 100) == sorted(put)


def test_no_row_is_passed_over_while_segments_go_on(tmp_path: Path) -> None:
    """Rows are read while others are sealed and compacted: each that was put before is there, once."""
    folder, tables = tmp_path / "predictions", open_tables(DeltaSettings(), tmp_path)
    reader, put = LogReader(folder, "shop", tables), list[str]()
    log = PredictionLog(folder, SCHEMA)
    first, last = (datetime.fromtimestamp(AT / 1e6, UTC) + timedelta(seconds=s) for s in (0, 10_000))
    for turn in range(60):
        put += [log.put((1, 2, 3), 0.5, "1", AT + turn) for _ in range(3)]
        log.flush()
        if turn % 3 == 2:
            compact(folder, tables, "shop", keep=turn % 2)
        assert sorted(reader.between(first, last).column("prediction_id").to_pylist()) == sorted(put)
        assert find_prediction(folder, "shop", tables, put[0])["version"] == 1
    log.close()
    assert find_prediction(folder, "shop", tables, "nobody") is None


def test_a_segment_is_in_the_lake_once(tmp_path: Path) -> None:
    folder, tables = tmp_path / "predictions", open_tables(DeltaSettings(), tmp_path)
    log = PredictionLog(folder, SCHEMA)
    log.put((1, 2, 3), 0.5, "1", AT)
    log.close()
    (sealed,) = folder.glob("seg-*.parquet")
    data = sealed.read_bytes()
    assert compact(folder, tables, "shop") == 1
    sealed.write_bytes(data)  # killed between the commit and the unlink
    assert compact(folder, tables, "shop") == 0
    assert len(tables.read(log_table("shop"))) == 1


def test_a_reader_passes_over_what_is_too_old_in_the_lake_and_takes_the_rest_once(tmp_path: Path) -> None:
    folder, tables = tmp_path / "predictions", open_tables(DeltaSettings(), tmp_path)
    log = PredictionLog(folder, SCHEMA)
    ids = [log.put((n, n, n), 0.5, "1", AT + n * 1_000_000) for n in range(10)]
    log.flush()
    ids.append(log.put((1, 1, 1), 0.5, "1", AT))
    log.close()
    first, _ = sorted(folder.glob("seg-*.parquet"))
    late = first.with_name("late")
    os.rename(sorted(folder.glob("seg-*.parquet"))[1], late)
    assert compact(folder, tables, "shop") == 10
    os.rename(late, late.with_name("seg-z.parquet"))
    since = datetime.fromtimestamp(AT / 1e6 + 6, UTC)
    reader = LogReader(folder, "shop", tables, since)
    seen = [i for table in reader.new_rows() for i in table.column("prediction_id").to_pylist()]
    assert sorted(seen) == ids[6:]
    assert not list(reader.new_rows())


class Disk:
    """A disk that can be full: no room for a segment, and no Parquet file can be written."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        monkeypatch.setattr(writer, "_RETRY_S", 0.01)
        allocate, write_table = os.posix_fallocate, pq.write_table

        def allocated(descriptor: int, start: int, length: int) -> None:
            self._ask()
            allocate(descriptor, start, length)

        def written(table: pa.Table, path: Path, **options: object) -> None:
            if self.full:
                Path(path).write_bytes(b"PAR1")
            self._ask()
            write_table(table, path, **options)

        monkeypatch.setattr(os, "posix_fallocate", allocated)
        monkeypatch.setattr(recovery.pq, "write_table", written)

    def _ask(self) -> None:
        if self.full:
            raise OSError(28, "No space left on device")


def wait_for(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_disk_drops_and_counts_and_logging_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch)
    log = PredictionLog(tmp_path, SCHEMA)
    wait_for(lambda: len(list(tmp_path.glob("wal-*"))) == 3)  # the one that is written, and two spares
    disk.full = True
    total = 5 * CAPACITY
    ids = [log.put((n, n, n), 0.5, "1", AT + n) for n in range(total)]
    assert len(set(ids)) == total
    assert log.rows == 3 * CAPACITY
    assert log.dropped == total - log.rows
    wait_for(lambda: log.fault == "the disk is full")
    assert not list(tmp_path.glob("*.tmp")), "half a file takes the room that is waited for"
    disk.full = False
    wait_for(lambda: log.fault == "")
    later = [log.put((n, n, n), 0.5, "1", AT + CAPACITY) for n in range(5)]
    wait_for(lambda: len(list(tmp_path.glob("wal-*"))) == 3)  # the spares are there again
    later += [log.put((n, n, n), 0.5, "1", AT + n) for n in range(CAPACITY)]
    log.close()
    kept = [str(row["prediction_id"]) for row in rows(tmp_path)]
    assert sorted(kept) == sorted(ids[: 3 * CAPACITY] + later)
    assert log.dropped == total - 3 * CAPACITY
    assert not list(tmp_path.glob("wal-*"))


def test_a_log_is_closed_on_a_full_disk_and_sealed_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    log = PredictionLog(tmp_path, SCHEMA)
    ids = [log.put((n, n, n), 0.5, "1", AT + n) for n in range(10)]
    disk.full = True
    log.close()
    assert recover(tmp_path) == 0, "still full: left as it is"
    assert sorted(str(row["prediction_id"]) for row in rows(tmp_path)) == ids
    disk.full = False
    assert recover(tmp_path) == 10
    assert sorted(str(row["prediction_id"]) for row in rows(tmp_path)) == ids


def test_a_segment_that_can_never_be_sealed_holds_no_other_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = pq.write_table

    def broken(*_: object, **__: object) -> None:
        raise ValueError

    log = PredictionLog(tmp_path, SCHEMA)
    log.put((1, 2, 3), 0.5, "1", AT)
    monkeypatch.setattr(recovery.pq, "write_table", broken)
    log.flush()
    wait_for(lambda: log.fault != "")
    assert (log.dropped, len(list(tmp_path.glob("unreadable-wal-*")))) == (1, 1)
    monkeypatch.setattr(recovery.pq, "write_table", kept)
    after = log.put((1, 2, 3), 0.5, "1", AT)
    log.close()
    assert (log.fault, [row["prediction_id"] for row in rows(tmp_path)]) == ("", [after])


def test_a_category_that_could_not_be_written_is_written_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, write = Categories(tmp_path), os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:5]))
    assert names.code("red") == hash_text("red")
    monkeypatch.setattr(os, "write", write)
    assert names.code("red") == hash_text("red")
    assert read_categories(tmp_path) == {hash_text("red"): "red"}
