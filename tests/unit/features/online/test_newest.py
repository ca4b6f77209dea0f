"""The newest row beside windows is rule 1's: deleted, ended, moved and withdrawn rows, ties, rows to come."""

import itertools
import random
from collections import Counter
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.lmdb.online_store import open_store
from mainspring.adapters.lmdb.settings import LmdbSettings
from mainspring.declare.aggregate import avg, count, distinct, first, last, last_n, total
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Record
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import newest, source_of, standing
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import append_rows, ingest_batch
from mainspring.features.offline.history import history
from mainspring.features.online import chunks, windows
from mainspring.features.online.keys import key_packer
from mainspring.features.online.materialise import materialise
from mainspring.features.online.plan import compile_plan
from mainspring.features.online.rows import BESIDE, BODY, BUSY, read_beside
from mainspring.features.online.windows import SLACK_US, layout_of
from mainspring.features.online.write import rewrite, upsert
from mainspring.features.view import EVENT, Pick, pick, view_of
from thoroughly import THOROUGH, rounds
from unit.features.offline import oracle
from unit.features.offline.oracle import Row, same
from unit.features.offline.tables import a_view, log_table

SECOND = 1_000_000
HOUR = 3_600 * SECOND
START = 1_600_000_000 * SECOND
MOMENT = pa.timestamp("us", "UTC")


class Price(Record):
    shop: str
    x: float | None
    s: str | None
    number: str | None
    gone: bool
    until: datetime | None
    at: datetime


app = App("test")
shop = Entity("shop")
PLAIN = {"time": "at", "deleted": "gone"}
SOURCES = {
    "deleted": app.source(Price, **PLAIN, called="deleted"),
    "ended": app.source(Price, **PLAIN, valid_to="until", called="ended"),
    "named": app.source(Price, **PLAIN, id="number", called="named"),
    "all": app.source(Price, **PLAIN, id="number", valid_to="until", called="all"),
}


def views_on(name):
    some = {"n": count("10m"), "sum": total("x", "10m"), "mean": avg("x", "1m"), "firsts": first("s", "1m")}
    some |= {"lasts": last_n("x", 3, "10m"), "kinds": distinct("s", "10m")}
    only = app.features(SOURCES[name], entity=shop, called=f"only_{name}", **some)
    both = app.features(SOURCES[name], entity=shop, called=f"both_{name}", ttl="15m", x=last("x"), s=last("s"), **some)
    return view_of(only, 1), view_of(both, 2)


VIEWS = {name: views_on(name) for name in SOURCES}


def table(rows):
    kinds = {"x": pa.float64(), "gone": pa.bool_(), "until": MOMENT, "at": MOMENT}
    names = ("shop", "x", "s", "number", "gone", "until", "at")
    return pa.table({name: pa.array([row[name] for row in rows], kinds.get(name, pa.string())) for name in names})


def a_row(at, shop="a", x=1.0, s="p", number=None, gone=False, until=None):
    return {"shop": shop, "x": x, "s": s, "number": number, "gone": gone, "until": until, "at": at}


class Project:
    """A source with a view of windows alone and one of windows and the newest row, offline and online."""

    def __init__(self, place, name, opening=None):
        self.opening = opening or (lambda: open_store(LmdbSettings(map_size=1 << 26), place / "online"))
        self.tables = open_tables(DeltaSettings(), place / "tables")
        self.store = self.opening()
        self.source, self.views = source_of(SOURCES[name]), VIEWS[name]
        self.files = 0
        self.seen = Counter()
        self.asked = []

    def push(self, rows, now):
        done = append_rows(SimpleNamespace(tables=self.tables), self.source, table(rows), now, self.views)
        for view in self.views:
            upsert(view, self.store, done.logged[view.name], now)

    def read_files(self, rows, now):
        self.files += 1
        prepared = prepare_rows(self.source, table(rows))
        ingest_batch(self.tables, self.source, prepared, content=str(self.files), now_us=now)

    def publish(self, now, *, full=False):
        for view in self.views:
            at = update_view(self.tables, view, self.source, newest(self.tables, self.source.log)).version
            materialise(view, self.tables, self.store, at.version, now_us=now, source=self.source, full=full)

    def restart(self):
        self.store.close()
        self.store = self.opening()

    def latest(self, now):
        """Of each shop, the newest event that has happened."""
        found = {}
        for row in standing(self.tables.read(self.views[0].log)).to_pylist():
            event = round(row[EVENT].timestamp() * SECOND)
            if event <= now:
                found[row["shop"]] = max(event, found.get(row["shop"], event))
        return sorted(found.items())

    def ask(self, questions):
        """Have the questions answered online; `compare` has them answered offline."""
        for view in self.views:
            plan = compile_plan(self.store, [Pick(view, view.features)])
            self.asked += [(view, name, t, plan.read_dated([{"shop": name}], t)) for name, t in questions]

    def check(self, questions, *, as_known=True):
        self.ask(questions)
        self.compare(as_known=as_known)

    def compare(self, *, as_known=True):
        given, self.asked = self.asked, []
        services = SimpleNamespace(tables=self.tables)
        for view in self.views:
            mine = [asked for of, *asked in given if of is view]
            spine = {"shop": [name for name, *_ in mine], "asked": pa.array([t for _, t, _ in mine], MOMENT)}
            found = history(services, [view], Frame(spine), time="asked", as_known=as_known, status=True)
            for (name, t, answer), there in zip(mine, found.arrow().to_pylist(), strict=True):
                ((values, statuses, events),) = answer
                status, event = there[f"{view.name}__status"], there[f"{view.name}__event_time"]
                assert statuses == {view.name: status}, (view.name, name, t)
                if status != "MISSING":  # a row that was deleted answers nothing
                    assert events == {view.name: round(event.timestamp() * SECOND)}
                for feature, value in zip(view.feature_names, values, strict=True):
                    assert same(value, there[feature]), (view.name, feature, value, there[feature], name, t)
                self.seen[status] += 1


@pytest.fixture(params=sorted(SOURCES))
def project(request, tmp_path):
    made = Project(tmp_path, request.param)
    yield made
    made.store.close()


@pytest.fixture(params=["few", "many"])
def size(request, monkeypatch):
    if request.param == "many":
        monkeypatch.setattr(chunks, "CHUNK", 4)
        monkeypatch.setattr(chunks, "TAIL", 8)
        monkeypatch.setattr(chunks, "GROUP", 3)


def some_rows(chance, project, now, made):
    ends = project.source.valid_to is not None
    for _ in range(chance.randint(1, 8)):
        at = now - chance.choice([0, 0, 1, 2, 30, 300, 1000, 5000, 9000, -40, -500]) * SECOND
        yield a_row(
            at,
            shop=chance.choice("aab"),
            x=float(next(made)),
            s=chance.choice("pqr"),
            number=chance.choice([None, f"i{chance.randint(0, 25)}"]),
            gone=chance.random() < 0.3,
            until=at + chance.choice([20, 200, 2000]) * SECOND if ends and chance.random() < 0.5 else None,
        )


def a_program(project, chance, steps):
    """Random pushes, files, corrections and restarts, with questions about now and the two hours before."""
    now, files, made = START, [], itertools.count(1)
    for number in range(steps):
        rows = list(some_rows(chance, project, now, made))
        step = chance.choice(["push", "push", "push", "file", "withdraw", "restart", "full"]) if number else "push"
        if step == "file":
            files += [
                row
                | {"number": chance.choice([f"f{number}{i}", row["number"]]), "gone": False, "at": min(row["at"], now)}
                for i, row in enumerate(rows[:3])
            ]
        if step == "withdraw" and files:
            files.pop(chance.randrange(len(files)))
        if step in ("file", "withdraw") and files:
            project.read_files(files, now)
            project.publish(now)
        elif step in ("push", "restart"):
            project.push(rows, now)
        if step == "restart":
            project.restart()
        if step == "full":
            project.publish(now, full=True)
        project.ask([(name, now) for name in "abz"])
        if number % 3 == 0:  # now, all rows are known
            project.compare()
        past = [(name, t - chance.randint(0, 7_199) * SECOND) for name, t in project.latest(now) for _ in range(3)]
        project.check(past, as_known=False)
        now += chance.choice([1, 1, 20, 100, 700, 4000, 9000]) * SECOND


EACH = [("all", "few"), ("all", "many"), ("deleted", "many"), ("ended", "few"), ("named", "many")]


@pytest.mark.parametrize(
    ("project", "size"), [*itertools.product(SOURCES, ("few", "many"))] if THOROUGH else EACH, indirect=True
)
def test_whatever_comes_the_newest_row_online_is_the_one_offline(project, size):
    a_program(project, random.Random(0), 14)
    assert min(project.seen[status] for status in ("MISSING", "PRESENT", "EXPIRED")) > 5


STEP = 10_000_000
FEATURES = {"recent": last("n"), "rows": count("5m"), "sum": total("n", "5m"), "lasts": last_n("s", 3, "40s")}


@pytest.mark.parametrize("seed", range(rounds(2, 6)))
@pytest.mark.parametrize("recent", [False, True], ids=["windows alone", "with the newest"])
@pytest.mark.parametrize("versioned", [False, True])
def test_the_newest_row_is_that_of_a_loop(tmp_path, size, seed, recent, versioned):
    chance = random.Random(seed)
    store = open_store(LmdbSettings(map_size=1 << 26), tmp_path / "online")
    features = {name: what for name, what in FEATURES.items() if recent or name in ("rows", "sum")}
    view = a_view(features, ttl=20 * STEP, has_valid_to=seed % 2 == 0, versioned=versioned)
    plan, (key,) = compile_plan(store, [pick(view)]), [key_packer(view.id, view.keys)({"k": "a"})]
    rows, now, seen, beside = [], 2_000 * STEP, Counter(), 0
    for _ in range(40):
        batch = []
        for _ in range(chance.randint(1, 5)):
            event = now - STEP * chance.choice([-30, -2, 0, 0, 1, 2, 5, 20, 100, 300, 700, 900])
            values = {"x": None, "n": chance.choice([None, len(rows)]), "s": chance.choice([None, "p", "q"])}
            number = f"i{chance.randint(0, 30)}" if versioned and chance.random() < 0.8 else None
            until = event + STEP * chance.choice([1, 5, 30]) if view.has_valid_to and chance.random() < 0.4 else None
            seq, gone = len(rows) + len(batch), chance.random() < 0.3
            batch.append(Row("a", event, now, seq, values, gone, until, number))
        rows += batch
        upsert(view, store, log_table(view, batch), now)
        before = store.get_many([key])
        withdrawn = {row.retracts for row in rows}
        upsert(view, store, log_table(view, [*batch, *([] if len(withdrawn) > 1 else rows[-20:])]), now)
        if not before[0][BODY - 1] & BUSY:  # a chunk that is read anew loses what has become too old
            assert store.get_many([key]) == before  # what is there already changes nothing
        if chance.random() < 0.2:
            one = chance.choice([row for row in rows[-15:] if row.retracts is None and row.seq not in withdrawn])
            marker = replace(one, ingest=now, seq=len(rows), deleted=True, retracts=one.seq)
            rows.append(marker)
            log = log_table(view, rows)
            rewrite(view, store, lambda log=log: log, pa.table({"k": ["a"]}), now)
        beside += bool(store.get_many([key])[0][BODY - 1] & BESIDE)
        latest = max((row.event for row in oracle.standing(rows, now, False) if row.event <= now), default=now)
        edges = [row.event for row in rows if latest - SLACK_US < row.event <= now]
        edges += [edge - 1 for edge in edges if edge - 1 > latest - SLACK_US]
        edges += [row.valid_to for row in rows if row.valid_to and latest - SLACK_US < row.valid_to <= now]
        for t in {now, *chance.sample(edges, min(12, len(edges)))}:
            wanted = oracle.newest(rows, "a", t, as_known=False, ttl=view.ttl_us)
            ((values, statuses, events),) = plan.read_dated([{"k": "a"}], t)
            assert (statuses["v"], events["v"]) == (wanted.status, wanted.event if wanted.status != "MISSING" else None)
            seen[wanted.status] += 1
            for (name, what), value in zip(features.items(), values, strict=True):
                inside = oracle.in_window(rows, "a", t, what.window_us or 0, as_known=False, versioned=versioned)
                right = oracle.aggregate(inside, what) if what.window_us else wanted.values.get("n")
                assert same(value, right), (name, value, right, t)
        now += STEP * chance.choice([0, 1, 1, 4, 15, 300, 800])
    assert min(seen[status] for status in ("MISSING", "PRESENT", "EXPIRED")) > 10
    assert beside > 20
    store.close()


def test_of_very_many_deleted_rows_the_newest_stay(project, monkeypatch):
    monkeypatch.setattr(windows, "BESIDE_MOST", 5)
    for at in range(14):
        project.push([a_row(START + at * SECOND, gone=at % 2 == 1, number=f"i{at}")], START + at * SECOND)
        project.ask([("a", START + at * SECOND)])
    project.compare()
    project.check([("a", START + at * SECOND) for at in range(5, 14)], as_known=False)
    rows = [row for _, row in project.store.scan(b"") if row[BODY - 1] & BESIDE]
    kinds = layout_of(project.views[0]).kinds
    assert [len(read_beside(row, kinds)[0].dead) for row in rows] == [5, 5]


def test_a_pushed_event_that_a_file_corrected_and_holds_no_more(project):
    project.push([a_row(START, x=9.0, number="1")], START)
    project.read_files([a_row(START, x=1.5, number="1")], START + SECOND)
    project.publish(START + SECOND)
    project.check([("a", START + SECOND)])
    project.read_files([a_row(START - SECOND, number="2", shop="b")], START + 2 * SECOND)
    project.publish(START + 2 * SECOND)
    project.check([("a", START + 2 * SECOND), ("b", START + 2 * SECOND)])
    project.publish(START + 2 * SECOND, full=True)
    project.check([("a", START + 2 * SECOND), ("b", START + 2 * SECOND)])


def test_a_row_that_becomes_due_answers_and_a_deleted_one_then_does_not(project):
    project.push([a_row(START, x=1.0, number="1")], START)
    to_come = [a_row(START + 60 * SECOND, x=2.0, number="2"), a_row(START + 90 * SECOND, number="3", gone=True)]
    project.push(to_come, START)
    for after in (0, 59, 60, 89, 90, 200):
        project.check([("a", START + after * SECOND)])
    project.restart()
    project.push([a_row(START + 95 * SECOND, number="4")], START + 100 * SECOND)
    project.check([("a", START + 100 * SECOND)])
    project.check([("a", START + after * SECOND) for after in (59, 60, 89, 90, 94, 95)], as_known=False)
    assert set(project.seen) == {"MISSING", "PRESENT"}


def test_the_last_row_before_all_windows_still_answers(project, size):
    for part in (*(range(at, at + 4) for at in range(0, 20, 4)), (40_000,), (40_001,)):
        rows = [a_row(START + at * SECOND, x=float(at), number=f"i{at}") for at in part]
        project.push(rows, START + part[-1] * SECOND)
    asked = [("a", START + at * SECOND) for at in (32_802, 36_000, 39_999, 40_000, 40_001)]
    project.check(asked, as_known=False)
    assert project.seen["MISSING"] == 0


def test_the_last_row_of_a_chunk_that_goes_still_answers(project, size):
    ahead = range(40_000, 40_008)
    rows = [a_row(START + at * SECOND, x=float(at), number=f"i{at}") for at in (*range(12), *ahead)]
    project.push(rows, START + 11 * SECOND)
    project.push([a_row(START + 40_010 * SECOND, number="last")], START + 40_010 * SECOND)
    project.check([("a", START + at * SECOND) for at in (32_811, 39_999, 40_003, 40_010)], as_known=False)
    assert project.seen["MISSING"] == 0
