"""Rows into logs: exactly once, with the moments that count, the same whoever carries it out and how often."""

import contextlib
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.declare.aggregate import avg, count, last
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Field, Record
from mainspring.errors import DataError, StoreError
from mainspring.features.logs.digest import content_digest
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import key_hashes, newest, reaching, source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.offline.history import history
from mainspring.features.view import view_of

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
NOW = START + 1000 * SECOND
MOMENT = pa.timestamp("us", "UTC")


class Reading(Record):
    sensor: str | None
    heat: float | None = Field(le=1000)
    at: datetime
    seen: datetime | None
    gone: bool | None
    number: str


app = App("test")
sensor = Entity("sensor")
plain = app.source(Reading, time="at", called="plain")
known = app.source(Reading, time="at", ingested="seen", deleted="gone", id="number", valid_to="seen", called="known")
heats = app.features(plain, entity=sensor, ttl="1h", heat=last("heat"), mean=avg("heat", "10m"), called="heats")
counts = app.features(known, entity=sensor, n=count("10m"), heat=last("heat"), called="counts")
PLAIN, KNOWN = source_of(plain), source_of(known)
HEATS, COUNTS = view_of(heats), view_of(counts)


def rows(*given, seen=None, gone=None):
    """Rows (sensor, heat, seconds after the start)."""
    return pa.table(
        {
            "sensor": pa.array([row[0] for row in given], pa.string()),
            "heat": pa.array([row[1] for row in given], pa.float64()),
            "at": pa.array([None if row[2] is None else START + row[2] * SECOND for row in given], MOMENT),
            "seen": pa.array([seen] * len(given), pa.int64()).cast(MOMENT),
            "gone": pa.array([gone] * len(given), pa.bool_()),
            "number": [str(index) for index, _ in enumerate(given)],
        }
    )


@pytest.fixture
def services(tmp_path):
    return SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path))


def ingest(services, table, content="a", source=PLAIN, **options):
    return ingest_batch(services.tables, source, prepare_rows(source, table), content=content, now_us=NOW, **options)


def log(services, name):
    return services.tables.read(name).sort_by("_seq").to_pylist()


def us(moment):
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // (datetime.resolution)


def test_history_is_known_from_its_events_on_and_says_that_this_is_assumed(services):
    done = ingest(services, rows(("a", 1.0, 5), ("b", 2.0, 6)))
    assert (done.rows, done.assumed, done.quarantined, done.max_event_us) == (2, 2, 0, START + 6 * SECOND)
    found = log(services, PLAIN.log)
    assert [us(row["_ingest_time"]) for row in found] == [START + 5 * SECOND, START + 6 * SECOND]
    assert [row["_assumed"] for row in found] == [True, True]
    assert [row["_seq"] for row in found] == [0, 1 << 15]


def test_later_files_add_what_is_new_and_it_is_known_when_it_came(services):
    first = ingest(services, rows(("a", 1.0, 5), ("a", 1.0, 5), ("b", None, 6)))
    second = ingest(services, rows(("b", None, 6), ("a", 1.0, 5), ("c", 3.0, 1), ("a", 1.0, 5), ("a", 1.0, 5)), "b")
    # The number of each row is its place: make the copies really equal.
    assert second.rows > first.rows
    new = log(services, PLAIN.log)[3:]
    assert all(us(row["_ingest_time"]) == NOW and not row["_assumed"] for row in new)


def same(table):
    return table.set_column(table.schema.get_field_index("number"), "number", pa.array(["x"] * len(table)))


def test_copies_are_counted(services):
    ingest(services, same(rows(("a", 1.0, 5), ("a", 1.0, 5), ("b", None, 6))))
    ingest(services, same(rows(("b", None, 6), ("a", 1.0, 5), ("c", 3.0, 1), ("a", 1.0, 5), ("a", 1.0, 5))), "b")
    new = [(row["sensor"], row["heat"]) for row in log(services, PLAIN.log)[3:]]
    assert new == [("c", 3.0), ("a", 1.0)]


def test_the_same_files_again_change_nothing(services):
    first = ingest(services, rows(("a", 1.0, 5)))
    version = services.tables.version(PLAIN.log)
    assert ingest(services, rows(("a", 1.0, 5))) == first
    assert ingest(services, rows(("a", 1.0, 5)), "other bytes, same rows") == first
    assert services.tables.version(PLAIN.log) == version


def test_columns_say_when_it_was_known_until_when_it_holds_and_whether_it_is_gone(services):
    seen = START + 77 * SECOND
    table = pa.concat_tables(
        [rows(("a", 1.0, 5), seen=seen), rows(("b", 1.0, 6), gone=True), rows(("c", 1.0, 7), gone=False)]
    )
    done = ingest(services, table, source=KNOWN)
    found = log(services, KNOWN.log)
    assert [us(row["_ingest_time"]) for row in found] == [seen, START + 6 * SECOND, START + 7 * SECOND]
    assert [row["_assumed"] for row in found] == [False, True, True]
    assert [row["_deleted"] for row in found] == [False, True, False]
    assert done.assumed == 2
    update_view(services.tables, COUNTS, KNOWN, done)
    view = log(services, COUNTS.log)
    assert [row["_valid_to"] for row in view] == [row["seen"] for row in found]
    assert [row["_id"] for row in view] == [row["number"] for row in found]
    assert "number" not in view[0]


def test_rows_set_aside_are_kept_beside_the_log_once(services):
    table = rows(("a", 1.0, 5), ("a", 2000.0, 6), ("a", 1.0, None))
    done = ingest(services, table)
    assert (done.rows, done.quarantined) == (1, 2)
    ingest(services, pa.concat_tables([table, rows(("z", 1.0, 1))]), "b")
    aside = services.tables.read(PLAIN.quarantine).to_pylist()
    assert sorted(row["_reason"] for row in aside) == ["at is null", "heat is not <= 1000"]


def test_a_view_takes_keys_and_columns_of_rows_that_can_be_asked_for(services):
    done = ingest(services, rows(("a", 1.0, 5), (None, 2.0, 6), ("b", 3.0, 7)))
    update = update_view(services.tables, HEATS, PLAIN, done)
    found = log(services, HEATS.log)
    assert [(row["sensor"], row["heat"]) for row in found] == [("a", 1.0), ("b", 3.0)]
    assert (update.version.rows, update.version.through) == (2, done.through)
    assert update.appended.num_rows == 2
    again = update_view(services.tables, HEATS, PLAIN, done)
    assert (again.version, again.appended.num_rows) == (update.version, 0)


def test_a_view_at_an_old_version_of_its_source_stays_what_it_was(services):
    first = ingest(services, rows(("a", 1.0, 5)))
    early = update_view(services.tables, HEATS, PLAIN, first).version
    second = ingest(services, rows(("b", 1.0, 6)), "b")
    late = update_view(services.tables, HEATS, PLAIN, second).version
    assert late.version > early.version
    assert update_view(services.tables, HEATS, PLAIN, first).version == early
    assert reaching(services.tables, HEATS.log, second.through) == late


def test_pushed_rows_are_in_the_tables_when_the_push_returns(services):
    ingest(services, rows(("a", 1.0, 5)))
    done = append_rows(services, PLAIN, rows(("a", 2.0, 10), ("b", 2000.0, 10)), NOW, [HEATS])
    assert (done.accepted, done.quarantined, done.report) == (1, 1, {"heat is not <= 1000": 1})
    assert done.seq == ((1 << 15) | 1,) * 2
    assert done.views["heats"].rows == 2
    assert done.logged["heats"].column("heat").to_pylist() == [1.0, 2.0]  # the file's row came along
    (_, pushed) = log(services, PLAIN.log)
    assert (us(pushed["_ingest_time"]), pushed["_assumed"]) == (NOW, False)
    more = append_rows(services, PLAIN, rows(("a", 3.0, 11)), NOW + 1, [HEATS])
    assert more.logged["heats"].column("heat").to_pylist() == [3.0]
    assert more.seq[0] > done.seq[1]


def test_a_push_into_nothing_and_of_nothing(services):
    empty = append_rows(services, PLAIN, rows(), NOW, [HEATS])
    assert (empty.accepted, empty.seq, empty.source.rows) == (0, None, 0)
    first = append_rows(services, PLAIN, rows(("a", 1.0, 1)), NOW, [HEATS])
    assert first.views["heats"].rows == 1
    bad = append_rows(services, PLAIN, rows(("a", 9999.0, 1)), NOW, [HEATS])
    worse = append_rows(services, PLAIN, rows(("a", 9999.0, 2)), NOW, [HEATS])
    assert (bad.accepted, worse.quarantined) == (0, 1)
    assert services.tables.read(PLAIN.quarantine).num_rows == 2
    assert worse.source == first.source


def test_a_repeated_request_gets_its_first_answer(services):
    first = append_rows(services, PLAIN, rows(("a", 1.0, 1), ("b", 2.0, 2)), NOW, [HEATS], request_id="r1")
    append_rows(services, PLAIN, rows(("a", 9.0, 3)), NOW, [HEATS], request_id="r2")
    again = append_rows(services, PLAIN, rows(("a", 1.0, 1), ("b", 2.0, 2)), NOW + 5, [HEATS], request_id="r1")
    assert again.repeated
    assert (again.accepted, again.seq, again.source) == (first.accepted, first.seq, first.source)
    assert again.logged["heats"].equals(first.logged["heats"])
    with pytest.raises(DataError) as caught:
        append_rows(services, PLAIN, rows(("a", 1.0, 1), ("b", 2.5, 2)), NOW + 6, [HEATS], request_id="r1")
    assert caught.value.code == "MS-2121"
    assert services.tables.read(PLAIN.log).num_rows == 3


def test_a_push_of_another_type_appends_nothing(services):
    ingest(services, rows(("a", 1.0, 5)))
    wrong = rows(("a", 2.0, 10)).set_column(1, "heat", pa.array(["hot"]))
    with pytest.raises(DataError):
        append_rows(services, PLAIN, wrong, NOW, [HEATS])
    assert services.tables.read(PLAIN.log).num_rows == 1


def test_files_that_repeat_pushed_rows_add_nothing(services):
    append_rows(services, PLAIN, same(rows(("a", 1.0, 5))), NOW)
    done = ingest(services, same(rows(("a", 1.0, 5), ("b", 1.0, 6))))
    assert [row["sensor"] for row in log(services, PLAIN.log)] == ["a", "b"]
    # The files are history, even if a push came first.
    assert us(log(services, PLAIN.log)[1]["_ingest_time"]) == START + 6 * SECOND
    assert done.rows == 2


def test_a_source_task_repeated_after_pushes_reaches_them(services):
    first = ingest(services, rows(("a", 1.0, 5)))
    pushed = append_rows(services, PLAIN, rows(("a", 2.0, 6)), NOW)
    append_rows(services, PLAIN, rows(("a", 3.0, 7)), NOW)
    mark = pushed.seq[1]
    assert ingest(services, rows(("a", 1.0, 5))) == first
    assert ingest(services, rows(("a", 1.0, 5)), pushed=mark) == pushed.source


class CrashError(Exception):
    pass


@pytest.mark.parametrize("calls", range(12))
def test_whatever_is_cut_short_and_repeated_ends_the_same(services, tmp_path, calls, monkeypatch):
    """A process that dies between any two commits, then the same work again: the versions of an undisturbed run."""

    tables_of = {"a": rows(("a", 1.0, 5), ("b", 2000.0, 6)), "b": rows(("c", 2.0, 7))}

    def work(on, state):
        while True:
            source = ingest(on, tables_of[state["files"]], state["files"])
            view = update_view(on.tables, HEATS, PLAIN, source).version
            pushed = append_rows(on, PLAIN, rows(("a", 3.0, 8)), NOW, [HEATS], request_id="r")
            if state["files"] == "b":
                return pushed.source, pushed.views, source, view
            state["files"] = "b"  # and that is what they are when the work is repeated

    undisturbed = work(SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path / "calm")), {"files": "a"})
    state = {"files": "a"}
    tables = services.tables
    left = iter(range(calls))

    def dying(original):
        def call(*args, **options):
            done = original(*args, **options)
            if next(left, None) is None:
                raise CrashError
            return done

        return call

    with monkeypatch.context() as patch:
        patch.setattr(tables, "append", dying(tables.append))
        with contextlib.suppress(CrashError):
            work(services, state)
    tables.close()
    assert work(services, state) == undisturbed


ACTIONS = st.lists(st.sampled_from(["push", "late", "file", "compact", "view", "reopen"]), max_size=8)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(actions=ACTIONS)
def test_pushed_or_loaded_in_any_order_the_answers_are_the_same(tmp_path_factory, actions):
    """Push for load, late rows, compaction, another process: what is asked at the end has one answer."""
    place = tmp_path_factory.mktemp("tables")
    services = SimpleNamespace(tables=open_tables(DeltaSettings(), place))
    loaded = []
    for index, action in enumerate(["file", *actions, "view"]):
        row = ("a" if index % 2 else "b", float(index), 100 + index if action != "late" else index)
        if action in ("push", "late"):
            append_rows(services, PLAIN, same(rows(row)), NOW + index, [HEATS])
            loaded.append(row)
        elif action == "file":
            loaded.append(row)
            ingest(services, same(rows(*loaded)), f"f{index}")
        elif action == "compact":
            for name in services.tables.tables():
                services.tables.compact(name)
        elif action == "reopen":
            services = SimpleNamespace(tables=open_tables(DeltaSettings(), place))
        else:
            update_view(services.tables, HEATS, PLAIN, newest(services.tables, PLAIN.log))
    assert services.tables.read(PLAIN.log).num_rows == len(loaded)
    spine = Frame({"sensor": ["a", "b", "c"], "at": pa.array([NOW] * 3, MOMENT)})
    found = history(services, [HEATS], spine, as_known=False).arrow().to_pylist()
    for answer in found:
        mine = [row for row in loaded if row[0] == answer["sensor"]]
        assert answer["heat"] == (max(mine, key=lambda row: row[2])[1] if mine else None)


def test_a_pinned_version_answers_the_same_after_anything(services):
    done = update_view(services.tables, HEATS, PLAIN, ingest(services, rows(("a", 1.0, 5), ("b", 2.0, 6)))).version
    spine = Frame({"sensor": ["a", "b"], "at": pa.array([NOW + SECOND] * 2, MOMENT)})

    def ask(version):
        found = history(services, [HEATS], spine, versions={"heats": version}, as_known=False).arrow()
        return content_digest(found)

    before = ask(done)
    for index in range(5):
        append_rows(services, PLAIN, rows(("a", 50.0 + index, 10 + index)), NOW + index, [HEATS])
    services.tables.compact(HEATS.log)
    services.tables.vacuum(HEATS.log, keep=[done.version], retention_hours=0)
    assert ask(done) == before == ask(done.version)
    assert ask(services.tables.version(HEATS.log)) != before


def test_a_log_says_whether_it_is_tidy(services):
    """Only then may its rows be taken as they are; what is late or at once with another makes it untidy for good."""

    def tidy(table, content, **options):
        return update_view(services.tables, HEATS, PLAIN, ingest(services, table, content, **options)).version.tidy

    first = rows(("a", 1.0, 5), ("b", 2.0, 5), ("a", 3.0, 6))
    assert tidy(first, "a")
    spine = Frame({"sensor": ["a", "b", "a"], "at": pa.array([START + n * SECOND for n in (5, 7, 4)], MOMENT)})
    found = history(services, [HEATS], spine, status=True).arrow()
    assert found.column("heat").to_pylist() == [1.0, 2.0, None]
    assert found.column("heats__status").to_pylist() == ["PRESENT", "PRESENT", "MISSING"]
    assert not tidy(pa.concat_tables([first, rows(("a", 4.0, 8))]), "b")  # it came later than it happened
    append_rows(services, PLAIN, rows(("a", 9.0, 2000)), START, [HEATS])  # tidy by itself
    assert not newest(services.tables, HEATS.log).tidy


@pytest.mark.parametrize(
    ("table", "tidy"),
    [
        (rows(("a", 1.0, 5), ("b", 1.0, 5)), True),
        (rows(("a", 1.0, 5), ("a", 2.0, 5)), False),
        (rows(("a", 1.0, 5), seen=START + 6 * SECOND), False),
        (rows(("a", 1.0, 5), seen=START + 4 * SECOND), True),
        (rows(), True),
    ],
)
def test_what_is_tidy(services, table, tidy):
    done = ingest(services, table, source=KNOWN)
    assert update_view(services.tables, COUNTS, KNOWN, done).version.tidy is tidy


def test_a_changed_record_gets_a_log_of_its_own(services):
    class Changed(Record):
        sensor: str
        heat: int
        at: datetime

    other = app.source(Changed, time="at", called="plain")
    assert source_of(other).log != PLAIN.log
    view = view_of(app.features(other, entity=sensor, heat=last("heat"), called="heats"))
    assert view.log != HEATS.log
    longer = view_of(app.features(plain, entity=sensor, ttl="2h", heat=last("heat"), called="heats"))
    assert longer.log == HEATS.log
    assert longer.version != HEATS.version


def test_a_view_that_was_never_computed_says_what_to_do(services):
    with pytest.raises(StoreError) as caught:
        history(services, [HEATS], Frame({"sensor": ["a"], "at": pa.array([NOW], MOMENT)}))
    assert (caught.value.code, "mainspring run" in caught.value.fix) == ("MS-4131", True)


def test_digests_are_of_content_alone():
    one = pa.table(
        {"a": ["x", None, "yz"], "n": [1, None, 3], "v": pa.array([[1.0], None, []], pa.list_(pa.float32()))}
    )
    chunks = pa.concat_tables([one.slice(0, 1), one.slice(1)])
    assert content_digest(chunks) == content_digest(one) == content_digest(one.slice(0))
    other = [
        one.set_column(0, "a", pa.array(["xy", None, "z"])),
        one.set_column(0, "a", pa.array(["x", "", "yz"])),
        one.set_column(1, "n", pa.array([1, 0, 3])),
        one.rename_columns(["b", "n", "v"]),
        one.take([1, 0, 2]),
        one.set_column(2, "v", pa.array([[1.0], [], None], pa.list_(pa.float32()))),
    ]
    assert len({content_digest(table) for table in [one, *other]}) == 7


def test_key_hashes_tell_columns_apart():
    keys = (*HEATS.keys, msgspec.structs.replace(HEATS.keys[0], name="heat"))
    table = pa.table({"sensor": ["ab", "a", "ab"], "heat": ["c", "bc", "c"]})
    found = key_hashes(table, keys).to_pylist()
    assert found[0] == found[2] != found[1]
    assert key_hashes(table.slice(1), keys).to_pylist() == found[1:]
    assert key_hashes(table.slice(0, 0), keys).to_pylist() == []
