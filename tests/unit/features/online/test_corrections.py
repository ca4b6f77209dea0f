"""Rows that files hold no more, and rows of the future: offline and online, windows and the newest row alike."""

import random
import shutil
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import count, last, last_n, total
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Record
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import newest, source_of, standing
from mainspring.features.logs.project import project as projected
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import Changes, append_rows, ingest_batch
from mainspring.features.offline.history import history
from mainspring.features.online.materialise import materialise
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.write import upsert
from mainspring.features.view import Pick, view_of
from mainspring.features.wal.commit import drain, log_of, rows_waiting
from mainspring.features.wal.rows import drafted
from unit.features.offline import oracle

SECOND = 1_000_000
START = 1_600_000_000 * SECOND
NOW = START + 1000 * SECOND
LATER = NOW + 500 * SECOND
MOMENT = pa.timestamp("us", "UTC")


NAMES = ("n", "sum", "recent", "amount")


class Visit(Record):
    customer: str | None
    amount: float | None
    at: datetime
    number: str | None


app = App("test")
customer = Entity("customer")
loose = app.source(Visit, time="at", called="loose")
named = app.source(Visit, time="at", id="number", called="named")
LOOSE, NAMED = source_of(loose), source_of(named)


def views_on(source):
    habits = app.features(
        source,
        entity=customer,
        n=count("10m"),
        sum=total("amount", "10m"),
        recent=last("amount"),
        amounts=last_n("amount", 3, "10m"),
        moments=last_n("at", 2, "10m"),
        called="habits",
    )
    newest = app.features(source, entity=customer, amount=last("amount"), called="newest")
    return view_of(habits, 1), view_of(newest, 2)


VIEWS = {"loose": views_on(loose), "named": views_on(named)}


def rows(*given):
    """Rows (customer, amount, seconds after the start, number)."""
    return pa.table(
        {
            "customer": pa.array([row[0] for row in given], pa.string()),
            "amount": pa.array([row[1] for row in given], pa.float64()),
            "at": pa.array([START + row[2] * SECOND for row in given], MOMENT),
            "number": pa.array([row[3] if len(row) > 3 else None for row in given], pa.string()),
        }
    )


class Project:
    """A source with its two views, offline and online."""

    def __init__(self, place, source):
        self.tables = open_tables(DeltaSettings(), place / "tables")
        self.store = open_store(LmdbSettings(map_size=1 << 26), place / "online")
        self.source, self.views = source, VIEWS[source.name]
        self.files = 0
        self.told = Changes()

    def read_files(self, *given, now=NOW):
        self.files += 1
        prepared = prepare_rows(self.source, rows(*given))
        self.told = Changes()

        def tell(changes):
            self.told = changes

        content = str(self.files)
        return ingest_batch(self.tables, self.source, prepared, content=content, now_us=now, tell=tell)

    def publish(self, now=NOW):
        for view in self.views:
            at = update_view(self.tables, view, self.source, newest(self.tables, self.source.log)).version
            materialise(view, self.tables, self.store, at.version, now_us=now, source=self.source)

    def push(self, *given, now=NOW, known=None):
        done = append_rows(SimpleNamespace(tables=self.tables), self.source, rows(*given), known or now, self.views)
        for view in self.views:
            upsert(view, self.store, done.logged[view.name], now)

    def online(self, name, t):
        plan = compile_plan(self.store, [Pick(view, view.features) for view in self.views])
        values, statuses = plan.read_one({"customer": name}, t)
        found = dict(zip(plan.names, values, strict=True))
        return {name: found[name] for name in NAMES}, list(statuses.values())

    def offline(self, name, t, *, as_known=True):
        (found,) = self.all_offline([name], t, as_known=as_known)
        return found

    def all_offline(self, names, t, *, as_known=True):
        spine = Frame({"customer": pa.array(names, pa.string()), "at": pa.array([t] * len(names), MOMENT)})
        services = SimpleNamespace(tables=self.tables)
        rows = history(services, self.views, spine, as_known=as_known, status=True).arrow().to_pylist()
        return [({name: row[name] for name in NAMES}, [row["habits__status"], row["newest__status"]]) for row in rows]

    def both(self, name, t):
        (found,) = self.all_both([name], t)
        return found

    def all_both(self, names, t):
        found = [self.online(name, t) for name in names]
        assert found == self.all_offline(names, t)
        return found


@pytest.fixture(params=[LOOSE, NAMED], ids=["loose", "named"])
def project(request, tmp_path):
    made = Project(tmp_path, request.param)
    yield made
    made.store.close()


def test_a_corrected_file_replaces_what_it_said(project):
    project.read_files(("a", 1.0, 900, "1"), ("a", 2.0, 950, "2"), ("b", 5.0, 950, "3"))
    project.publish()
    done = project.read_files(("a", 1.0, 900, "1"), ("a", 200.0, 950, "2"), ("b", 5.0, 950, "3"), now=LATER)
    corrected = project.source is NAMED
    assert project.told == (Changes(0, 1, 0) if corrected else Changes(1, 0, 1))
    assert done.rows == 3
    assert standing(project.tables.read(project.source.log)).num_rows == 3
    project.publish(LATER)
    assert project.both("a", LATER) == (
        {"n": 1, "sum": 200.0, "recent": 200.0, "amount": 200.0},
        ["PRESENT", "PRESENT"],
    )
    # As it was known before, it is what it was; whenever it was known, it is what it is.
    assert project.offline("a", NOW)[0] == {"n": 2, "sum": 3.0, "recent": 2.0, "amount": 2.0}
    assert project.offline("a", NOW, as_known=False)[0] == {"n": 2, "sum": 201.0, "recent": 200.0, "amount": 200.0}
    assert project.both("b", LATER)[0]["amount"] == 5.0


def test_a_null_key_is_missing_offline_and_online(project):
    project.read_files(("a", 1.0, 900, "1"), (None, 2.0, 950, "2"))
    project.publish()
    nothing = {"n": 0, "sum": None, "recent": None, "amount": None}
    assert project.both(None, LATER) == project.both("unknown", LATER) == (nothing, ["MISSING"] * 2)


def test_rows_that_the_files_hold_no_more_leave_the_others(project):
    project.read_files(("a", 1.0, 900, "1"), ("a", 2.0, 950, "2"), ("a", 3.0, 960, "3"), ("b", 5.0, 950, "4"))
    project.publish()
    project.read_files(("a", 1.0, 900, "1"), ("a", 2.0, 950, "2"), now=NOW + SECOND)
    assert project.told == Changes(0, 0, 2)
    project.publish(NOW + SECOND)
    now = NOW + 2 * SECOND
    assert project.both("a", now) == ({"n": 2, "sum": 3.0, "recent": 2.0, "amount": 2.0}, ["PRESENT"] * 2)
    assert project.both("b", now) == ({"n": 0, "sum": None, "recent": None, "amount": None}, ["MISSING"] * 2)
    project.push(("b", 7.0, 940, "5"), now=now)  # older than what was taken away, and the only one now
    assert project.both("b", now)[0]["amount"] == 7.0


def test_one_of_equal_rows_is_taken_away(tmp_path):
    project = Project(tmp_path, LOOSE)
    project.read_files(("a", 1.0, 900), ("a", 1.0, 900), ("a", 1.0, 900))
    project.read_files(("a", 1.0, 900), ("a", 1.0, 900), now=NOW + SECOND)
    project.publish(NOW + SECOND)
    assert project.both("a", NOW + SECOND)[0]["n"] == 2
    project.store.close()


def test_files_that_say_again_what_they_said_before(project):
    before, after = [("a", 1.0, 900, "1"), ("a", 2.0, 950, "2")], [("a", 1.0, 900, "1")]
    for step, given in enumerate([before, after, before, after, before]):
        now = NOW + step * SECOND
        assert project.read_files(*given, now=now).rows == len(given)
        project.publish(now)
        assert project.both("a", now)[0]["amount"] == given[-1][1]


def test_pushed_rows_are_not_the_files_to_take_away(project):
    project.read_files(("a", 1.0, 900, "1"))
    project.push(("a", 2.0, 950, "2"))
    project.read_files(("a", 3.0, 940, "3"), now=NOW + SECOND)
    project.publish(NOW + SECOND)
    assert project.both("a", NOW + SECOND)[0] == {"n": 2, "sum": 5.0, "recent": 2.0, "amount": 2.0}


def expected(project, name, t):
    """What a loop over the source's log says."""
    found = []
    for row in project.tables.read(project.source.log).to_pylist():
        event, ingest = (int(row[at].timestamp() * SECOND) for at in ("_event_time", "_ingest_time"))
        found.append(
            oracle.Row(
                row["customer"],
                event,
                ingest,
                row["_seq"],
                {"amount": row["amount"]},
                row["_deleted"],
                id=row["number"] if project.source is NAMED else None,
                retracts=row.get("_retracts"),
            )
        )
    windowed = oracle.in_window(found, name, t, 600 * SECOND, versioned=project.source is NAMED)
    recent = oracle.newest(found, name, t).values.get("amount")
    total_of = sum(row.values["amount"] for row in windowed) if windowed else None
    return {"n": len(windowed), "sum": total_of, "recent": recent, "amount": recent}


def test_a_pushed_event_whose_correction_by_a_file_is_withdrawn_is_what_was_pushed(project):
    project.read_files(("a", 1.0, 900, "1"))
    project.push(("a", 2.0, 950, "2"))
    pushed = project.both("a", NOW)[0]
    stages = [
        [("a", 1.0, 900, "1"), ("a", 7.0, 950, "2")],  # the file has another amount for the event
        [("a", 1.0, 900, "1"), ("a", 8.0, 960, "2")],  # and another moment
        [("a", 1.0, 900, "1"), ("b", 8.0, 960, "2")],  # and another entity
        [("a", 1.0, 900, "1")],  # and then nothing of it
    ]
    for step, given in enumerate(stages, 1):
        now = NOW + step * SECOND
        project.read_files(*given, now=now)
        project.publish(now)
        for name, (found, _) in zip("ab", project.all_both("ab", now), strict=True):
            assert found == expected(project, name, now), (step, name)
    assert project.both("a", now)[0] == pushed
    project.push(("a", 5.0, 955, "2"), now=now + SECOND)
    assert project.both("a", now + SECOND)[0] == expected(project, "a", now + SECOND)


@pytest.mark.parametrize("seed", [3, 103])
def test_files_and_pushes_of_the_same_events_are_what_a_loop_says(project, seed):
    chance = random.Random(seed)
    for step in range(7):
        now = NOW + step * SECOND

        def some(most):
            moments = [900, 905, 905, 910, 2000]
            return [
                (chance.choice("ab"), float(chance.randint(1, 3)), chance.choice(moments), str(chance.randint(0, 3)))
                for _ in range(chance.randint(1, most))
            ]

        if chance.random() < 0.5:
            project.read_files(*{row[3]: row for row in some(4)}.values(), now=now)
            project.publish(now)
        else:
            project.push(*some(2), now=now)
        for name, (found, _) in zip("ab", project.all_both("ab", now), strict=True):
            assert found == expected(project, name, now), (step, name)


def test_an_event_that_moves_to_another_moment_and_entity(tmp_path):
    project = Project(tmp_path, NAMED)
    project.read_files(("a", 1.0, 990, "1"), ("a", 2.0, 950, "2"))
    project.publish()
    project.read_files(("b", 1.0, 940, "1"), ("a", 2.0, 950, "2"), now=NOW + SECOND)
    assert project.told == Changes(0, 1, 0)
    project.publish(NOW + SECOND)
    assert project.both("a", NOW + SECOND)[0] == {"n": 1, "sum": 2.0, "recent": 2.0, "amount": 2.0}
    assert project.both("b", NOW + SECOND)[0] == {"n": 1, "sum": 1.0, "recent": 1.0, "amount": 1.0}
    project.store.close()


def test_whatever_files_and_pushes_say_online_is_offline_is_what_they_say(project):
    chance = random.Random(7)
    for step in range(12):
        now = NOW + step * SECOND
        given = [
            (chance.choice("abc"), float(chance.randint(1, 3)), chance.randint(900, 910), str(number))
            for number in range(chance.randint(0, 8))
        ]
        project.read_files(*given, now=now)
        project.publish(now)
        for name, (values, _) in zip("abc", project.all_both("abc", now), strict=True):
            assert values["n"] == sum(row[0] == name for row in given)
            assert (values["sum"] or 0.0) == sum(row[1] for row in given if row[0] == name)


def test_a_row_of_the_future_waits_beside_what_answers_now(project):
    project.read_files(("a", 1.0, 900, "1"), ("a", 2.0, 950, "2"))
    project.publish()
    month = 30 * 86_400
    project.push(("a", 9.0, month, "3"))
    now = project.both("a", NOW)
    assert now == ({"n": 2, "sum": 3.0, "recent": 2.0, "amount": 2.0}, ["PRESENT"] * 2)
    project.push(("a", 4.0, 960, "4"), ("a", 8.0, month - 1, "5"))
    assert project.both("a", NOW)[0] == {"n": 3, "sum": 7.0, "recent": 4.0, "amount": 4.0}
    project.push(("a", 3.0, 955, "6"))  # older than what answers: it joins the windows only
    assert project.both("a", NOW)[0] == {"n": 4, "sum": 10.0, "recent": 4.0, "amount": 4.0}
    due = START + month * SECOND
    assert project.both("a", due - SECOND)[0] == {"n": 1, "sum": 8.0, "recent": 8.0, "amount": 8.0}
    assert project.both("a", due)[0] == {"n": 2, "sum": 17.0, "recent": 9.0, "amount": 9.0}
    project.push(("a", 6.0, month + 1, "7"), now=due + SECOND)
    assert project.both("a", due + SECOND)[0]["amount"] == 6.0


def test_nothing_but_future(project):
    project.push(("z", 9.0, 10_000, "1"))
    assert project.both("z", NOW) == ({"n": 0, "sum": None, "recent": None, "amount": None}, ["MISSING"] * 2)
    assert project.both("z", START + 10_000 * SECOND)[0]["amount"] == 9.0


def test_a_source_that_was_lost_with_its_pushes_is_followed_again(project):
    project.read_files(("a", 1.0, 900, "1"))
    project.push(("a", 2.0, 950, "2"))
    project.publish()
    project.tables.drop(project.source.log)
    shutil.rmtree(project.tables.beside("_wal"))
    again = NOW + SECOND
    project.read_files(("a", 1.0, 900, "1"), now=again)
    project.publish(again)
    assert project.both("a", again)[0] == {"n": 1, "sum": 1.0, "recent": 1.0, "amount": 1.0}
    project.push(("a", 4.0, 940, "3"), now=again)
    assert project.both("a", again)[0] == {"n": 2, "sum": 5.0, "recent": 4.0, "amount": 4.0}


def test_a_table_that_was_lost_gets_back_the_pushes_that_their_log_still_holds(project):
    project.read_files(("a", 1.0, 900, "1"))
    project.push(("a", 2.0, 950, "2"))
    project.publish()
    project.tables.drop(project.source.log)
    again = NOW + SECOND
    project.read_files(("a", 1.0, 900, "1"), now=again)
    project.publish(again)
    assert project.both("a", again)[0] == {"n": 2, "sum": 3.0, "recent": 2.0, "amount": 2.0}


def test_what_was_acknowledged_stays_online_when_its_entity_is_written_anew(project):
    """A push that is in no table yet, for an entity of which the files hold a row no more."""
    project.read_files(("a", 1.0, 900, "1"), ("a", 2.0, 950, "2"))
    project.publish()
    project.read_files(("a", 1.0, 900, "1"), now=NOW + SECOND)
    log = log_of(project.tables, project.source)
    log.append(drafted(project.source, prepare_rows(project.source, rows(("a", 4.0, 940, "3"))), NOW, None))
    log.close()
    for view in project.views:
        waiting = rows_waiting(project.tables, project.source, -1)
        upsert(view, project.store, projected(view, project.source, waiting), NOW)
    for _ in range(2):  # before it is in the tables, and after
        project.publish(NOW + SECOND)
        assert project.online("a", NOW + SECOND)[0] == {"n": 2, "sum": 5.0, "recent": 4.0, "amount": 4.0}
        drain(project.tables)
    assert project.both("a", NOW + SECOND)[0] == {"n": 2, "sum": 5.0, "recent": 4.0, "amount": 4.0}
