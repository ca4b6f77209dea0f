"""Checks where rows come in: files, pushes and views. What is refused leaves nothing, what is set aside is told."""

import importlib
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.config.settings import load_settings
from mainspring.engine.context import StepContext, entered
from mainspring.errors import DataError, DeclarationError
from mainspring.features.decorated.infer import infer
from mainspring.features.logs.log import newest, read_log, standing
from mainspring.features.logs.quarantine import set_aside
from mainspring.features.logs.write import append_rows
from mainspring.features.quality.gate import CHECKED, last_results
from mainspring.features.steps import checked_views, sources_of, tasks_for, views_of
from mainspring.plan.build import build_plan

HEAD = """
from datetime import datetime
import polars as pl
from mainspring import (
    App, Entity, Field, Record, avg, between, distance, fresh, last, matches, not_null, one_of, references, rows,
    unique,
)
app = App("weather")
airport = Entity("origin")
class Place(Record):
    code: str
    since: datetime
class Weather(Record):
    origin: str
    wind: float | None = Field(ge=-5)
    observed: datetime
"""
PLACES = "code,since\nJFK,2013-01-01 00:00:00\nLGA,2013-01-01 00:00:00\n"
PLAIN = 'places = app.source(Place, time="since", zone="UTC")\n'
BAD = "JFK,-1,2013-01-01 03:00:00\n"
GOOD = "JFK,10,2013-01-01 01:00:00\nLGA,20,2013-01-01 02:00:00\n"
NOW = 1_357_016_400_000_000  # 2013-01-01 05:00:00Z


class Events:
    """The part of a catalog that steps write to."""

    def __init__(self):
        self.told = []

    def add_event(self, event):
        self.told.append(event)
        return len(self.told)

    def last_events(self, *, what="", subject="", limit=50):
        return [e for e in reversed(self.told) if (e.what, e.subject) == (what, subject)][:limit]


class Weather:
    """A project with two sources."""

    def __init__(self, folder, monkeypatch):
        self.folder, self.catalog, self.notes = folder, Events(), []
        (folder / "mainspring.toml").write_text(
            'app = "w:app"\n[sources.weather]\npath = "w.csv"\n[sources.places]\npath = "p.csv"\n'
        )
        (folder / "p.csv").write_text(PLACES)
        self.files(GOOD)
        monkeypatch.syspath_prepend(str(folder))
        self.services = SimpleNamespace(
            project=folder,
            state=folder / ".mainspring",
            settings=load_settings(folder, profile=None, environment={}, flags={}),
            tables=open_tables(DeltaSettings(), folder / ".mainspring"),
            catalog=self.catalog,
        )

    def files(self, rows):
        (self.folder / "w.csv").write_text("origin,wind,observed\n" + rows)

    def declare(self, checks, views=""):
        (self.folder / "checked_app.py").write_text(
            HEAD + PLAIN + f'weather = app.source(Weather, time="observed", zone="UTC", checks=[{checks}])\n' + views
        )
        sys.modules.pop("checked_app", None)
        importlib.invalidate_caches()
        with pytest.MonkeyPatch.context() as patched:  # two apps within a second may be equally long
            patched.setattr(sys, "dont_write_bytecode", True)
            module = importlib.import_module("checked_app")
        module.app.bind(vars(module))
        self.plan = build_plan(module.app, infer)
        return self

    def apply(self):
        done = {}
        for task in tasks_for(self.plan, self.services):
            given = dict(task.params) | {name: done[output.task] for name, output in task.inputs.items()}
            step = StepContext(self.services, task, "run", 1, self.folder / "work", noted=self.notes.append)
            with entered(step):
                done[task.name] = task.function(**given)
        return done

    def push(self, *given, **options):
        source = sources_of(self.plan)["weather"]
        names = ("origin", "wind", "observed")
        columns = [pa.array([row[n] for row in given]) for n in range(2)]
        at = pa.array([row[2] * 1_000_000 for row in given], pa.timestamp("us", "UTC"))
        views = [v for v in checked_views(self.plan, views_of(self.plan)).values() if not v.decorated]
        return append_rows(self.services, source, pa.table([*columns, at], names=names), NOW, views, **options)

    def held(self, kind, name):
        of = sources_of(self.plan) if kind == "source" else views_of(self.plan)
        rows = standing(read_log(self.services.tables, of[name].log)).sort_by("_event_time")
        return list(zip(rows.column("origin").to_pylist(), rows.column("wind").to_pylist(), strict=True))

    def aside(self, kind, name):
        of = sources_of(self.plan) if kind == "source" else views_of(self.plan)
        found = set_aside(self.services.tables, of[name], 9)
        return {} if found is None else found.reasons

    def results(self, url):
        found = last_results(self.catalog, url)
        return {} if found is None else {c["check"]: (c["state"], c["failing"]) for c in found["checks"]}


@pytest.fixture
def weather(tmp_path, monkeypatch):
    yield Weather(tmp_path, monkeypatch)
    sys.modules.pop("checked_app", None)


def test_a_refused_batch_leaves_nothing_and_says_why(weather):
    weather.files(GOOD + BAD)
    weather.declare('between("wind", 0, 200), not_null("origin", "observed")')
    with pytest.raises(DataError) as caught:
        weather.apply()
    assert caught.value.code == "MS-2180"
    assert "between(wind, 0, 200)" in caught.value.what
    assert "1 of 3 rows" in caught.value.why
    assert "origin JFK, wind -1.0" in caught.value.why
    assert newest(weather.services.tables, sources_of(weather.plan)["weather"].log) is None
    (event,) = [e for e in weather.catalog.told if e.subject == "/source/weather"]
    assert (event.what, event.data["refused"], event.data["run"]) == (CHECKED, True, "run")
    assert weather.results("/source/weather") == {
        "between(wind, 0, 200)": ("refused", 1),
        "not_null(origin, observed)": ("ok", 0),
    }
    weather.files(GOOD)
    assert weather.apply()["source/weather"].rows == 2
    assert weather.results("/source/weather")["between(wind, 0, 200)"] == ("ok", 0)


def test_rows_are_set_aside_with_the_reason_and_come_in_when_the_check_lets_them(weather):
    weather.files(GOOD + BAD + "EWR,-9,2013-01-01 03:00:00\n")
    weather.declare('between("wind", 0, 200, on_fail="quarantine")')
    assert weather.apply()["source/weather"].quarantined == 2  # one by the record's own rule
    assert weather.aside("source", "weather") == {"wind is not between 0 and 200": 1, "wind is not >= -5": 1}
    assert weather.held("source", "weather") == [("JFK", 10.0), ("LGA", 20.0)]
    assert any("wind is not between 0 and 200" in note for note in weather.notes)
    assert weather.apply()["source/weather"].quarantined == 2
    weather.declare('between("wind", -3, 200, on_fail="quarantine")')  # the same files, another check
    weather.apply()
    assert weather.held("source", "weather") == [("JFK", 10.0), ("LGA", 20.0), ("JFK", -1.0)]
    weather.declare('between("wind", 15, 200, on_fail="quarantine")')
    weather.apply()
    assert weather.held("source", "weather") == [("LGA", 20.0)]


def test_a_warning_is_told_and_all_is_committed(weather):
    weather.files(GOOD + BAD)
    weather.declare('between("wind", 0, 200, on_fail="warn"), rows(9, on_fail="warn"), fresh("2h")')
    assert weather.apply()["source/weather"].rows == 3
    (note,) = [note for note in weather.notes if "between" in note]
    assert "between(wind, 0, 200): 1 of 3 rows" in note
    assert "rows(least=9): 3 rows, fewer than 9" in note
    assert "fresh(2h): the newest event is" in note
    assert set(weather.results("/source/weather").values()) == {("warned", 1)}


@pytest.mark.parametrize(
    ("checks", "rows", "why"),
    [
        ('unique("origin", "observed")', GOOD + "JFK,1,2013-01-01 01:00:00\n", "1 of 3 rows repeat one"),
        ("rows(3, 9)", GOOD, "2 rows, fewer than 3"),
        ("rows(most=1)", GOOD, "2 rows, more than 1"),
        ('fresh("2h", on_fail="refuse")', GOOD, "the newest event is"),
        ('one_of("origin", ["JFK"])', GOOD, "1 of 2 rows"),
        ('matches("origin", "J.*")', GOOD, "origin LGA"),
        ('references("origin", places.code)', GOOD + "EWR,1,2013-01-01 01:00:00\n", "origin EWR"),
    ],
)
def test_each_kind_refuses(weather, checks, rows, why):
    weather.files(rows)
    weather.declare(checks)
    with pytest.raises(DataError) as caught:
        weather.apply()
    assert caught.value.code == "MS-2180"
    assert why in caught.value.why


def test_distance_looks_at_what_is_new(weather):
    rows = [f"JFK,{n % 10},2013-01-01 {n // 60:02d}:{n % 60:02d}:00\n" for n in range(300)]
    weather.files("".join(rows))
    weather.declare('distance("wind", 0.3)')
    weather.apply()
    assert weather.results("/source/weather") == {"distance(wind, 0.3)": ("not_judged", 0)}
    weather.files("".join(rows + [f"LGA,{n % 10},2013-01-01 {n:02d}:00:00\n" for n in range(20)] * 6))
    weather.apply()
    assert weather.results("/source/weather") == {"distance(wind, 0.3)": ("ok", 0)}
    weather.files("".join(rows + [f"LGA,{n},2013-01-02 00:00:00\n" for n in range(100, 220)]))
    with pytest.raises(DataError, match="distance"):
        weather.apply()
    assert newest(weather.services.tables, sources_of(weather.plan)["weather"].log).rows == 420


def test_rows_whose_reference_comes_later_come_in_then(weather):
    weather.files(GOOD + "EWR,1,2013-01-01 03:00:00\n")
    weather.declare('references("origin", places.code, on_fail="quarantine")')
    weather.apply()
    assert weather.aside("source", "weather") == {"origin is not in places.code": 1}
    assert [name for name, _ in weather.held("source", "weather")] == ["JFK", "LGA"]
    (weather.folder / "p.csv").write_text(PLACES + "EWR,2013-01-01 00:00:00\n")
    weather.apply()
    assert [name for name, _ in weather.held("source", "weather")] == ["JFK", "LGA", "EWR"]
    weather.declare('references("origin", places.code)')
    with pytest.raises(DataError, match="refuses the rows") as caught:
        weather.push(("XXX", 1.0, 1))
    assert caught.value.code == "MS-2180"


def test_pushes_pass_the_same_checks_of_rows(weather):
    weather.declare(
        'between("wind", 0, 200), one_of("origin", ["JFK", "LGA"], on_fail="quarantine"), rows(1000, on_fail="warn")'
    )
    weather.apply()
    before = newest(weather.services.tables, sources_of(weather.plan)["weather"].log)
    with pytest.raises(DataError) as caught:
        weather.push(("JFK", 1.0, 1), ("JFK", -2.0, 2), request_id="a")
    assert caught.value.code == "MS-2180"
    assert newest(weather.services.tables, sources_of(weather.plan)["weather"].log) == before
    done = weather.push(("JFK", 1.0, 1), ("EWR", -2.0, 2), request_id="a")
    assert (done.accepted, done.quarantined) == (1, 1)
    assert dict(done.report) == {"origin is none of 2 values": 1}
    assert [result.state for result in done.results] == ["ok", "set_aside"]


def test_a_repeated_request_has_its_first_answer_whatever_a_reference_holds_since(weather):
    weather.declare('references("origin", places.code, on_fail="quarantine")')
    weather.apply()
    first = weather.push(("EWR", 1.0, 1), ("JFK", 1.0, 1), request_id="a")
    assert (first.accepted, first.quarantined) == (1, 1)
    (weather.folder / "p.csv").write_text(PLACES + "EWR,2013-01-01 00:00:00\n")
    weather.apply()
    again = weather.push(("EWR", 1.0, 1), ("JFK", 1.0, 1), request_id="a")
    assert (again.repeated, again.accepted, again.quarantined) == (True, 1, 1)
    with pytest.raises(DataError) as caught:
        weather.push(("EWR", 2.0, 1), ("JFK", 1.0, 1), request_id="a")
    assert caught.value.code == "MS-2121"


AGGREGATES = 'conditions = app.features(weather, entity=airport, mean=avg("wind", "2h"), checks=[{}])\n'
FUNCTION = """
@app.features(weather, entity=airport, checks=[{}])
def conditions(given: pl.LazyFrame) -> pl.LazyFrame:
    return given.select("origin", "observed", wind=pl.col("wind"))
"""


@pytest.mark.parametrize("view", [AGGREGATES, FUNCTION, FUNCTION.replace("checks", 'rows="whole", checks')])
def test_a_view_sets_rows_aside_and_the_source_keeps_them(weather, view):
    weather.files(GOOD + BAD)
    weather.declare("", view.format('between("wind", 0, 200, on_fail="quarantine"), not_null("wind")'))
    assert weather.apply()["feature_view/conditions"].rows == 2
    assert weather.held("feature_view", "conditions") == [("JFK", 10.0), ("LGA", 20.0)]
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 1}
    assert len(weather.held("source", "weather")) == 3
    weather.files(GOOD + BAD + "LGA,-3,2013-01-01 04:00:00\nLGA,3,2013-01-01 04:30:00\n")
    weather.apply()
    assert weather.held("feature_view", "conditions") == [("JFK", 10.0), ("LGA", 20.0), ("LGA", 3.0)]
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 2}
    weather.files("LGA,20,2013-01-01 02:00:00\nLGA,3,2013-01-01 04:30:00\n")  # rows that were set aside go too
    done = weather.apply()["feature_view/conditions"]
    assert weather.held("feature_view", "conditions") == [("LGA", 20.0), ("LGA", 3.0)]
    assert done.rows == 2
    weather.apply()
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 2}


@pytest.mark.parametrize("view", [AGGREGATES, FUNCTION, FUNCTION.replace("checks", 'rows="whole", checks')])
def test_a_death_between_the_quarantine_and_the_log_sets_nothing_aside_twice(weather, view, monkeypatch):
    weather.files(GOOD + BAD)
    weather.declare("", view.format('between("wind", 0, 200, on_fail="quarantine")'))

    def dying(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("mainspring.features.logs.project.append_to_log", dying)
        patched.setattr("mainspring.features.decorated.derive.append_to_log", dying)
        with pytest.raises(KeyboardInterrupt):
            weather.apply()
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 1}
    weather.files(GOOD + BAD + "LGA,-2,2013-01-01 04:00:00\n")  # more has come when it is tried again
    assert weather.apply()["feature_view/conditions"].rows == 2
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 2}
    weather.apply()
    assert weather.aside("feature_view", "conditions") == {"wind is not between 0 and 200": 2}


@pytest.mark.parametrize("view", [AGGREGATES, FUNCTION])
def test_a_view_refuses_until_the_data_is_mended(weather, view):
    weather.declare("", view.format('between("wind", 0, 200), rows(2), unique("origin", "wind")'))
    weather.apply()
    log = views_of(weather.plan)["conditions"].log
    before = newest(weather.services.tables, log)
    weather.files(GOOD + BAD)
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            weather.apply()
        assert caught.value.code == "MS-2180"
    assert "feature view 'conditions'" in caught.value.what
    assert newest(weather.services.tables, log) == before
    weather.files(GOOD + "JFK,1,2013-01-01 03:00:00\n")
    assert weather.apply()["feature_view/conditions"].rows == 3
    assert weather.results("/feature_view/conditions") == {
        "between(wind, 0, 200)": ("ok", 0),
        "rows(least=2)": ("ok", 0),
        "unique(origin, wind)": ("ok", 0),
    }


def test_a_push_that_a_view_refuses_is_in_no_log(weather):
    weather.declare("", AGGREGATES.format('between("wind", 0, 200)'))
    weather.apply()
    with pytest.raises(DataError, match="conditions"):
        weather.push(("JFK", -1.0, 1))
    assert len(weather.held("source", "weather")) == 2
    assert weather.push(("JFK", 1.0, 1)).views["conditions"].rows == 3


def test_a_push_goes_on_where_a_view_is_held_up_by_files(weather):
    weather.declare("", AGGREGATES.format('between("wind", 0, 200)'))
    weather.apply()
    weather.files(GOOD + BAD)
    with pytest.raises(DataError):
        weather.apply()
    done = weather.push(("JFK", 1.0, 1))
    assert done.accepted == 1
    assert list(done.behind) == ["conditions"]
    assert "MS-2180" in done.behind["conditions"]


def test_a_warning_changes_no_log_and_a_quarantine_does(weather):
    logs = []
    for action in ("", ', on_fail="warn"', ', on_fail="quarantine"'):
        weather.declare("", AGGREGATES.format(f'between("wind", 0, 200{action})'))
        logs.append(views_of(weather.plan)["conditions"].log)
    weather.declare("", AGGREGATES.format(""))
    plain = views_of(weather.plan)["conditions"].log
    assert logs[:2] == [plain, plain]
    assert logs[2] != plain
    assert weather.plan.node("/feature_view/conditions").spec.get("checks") is None


@pytest.mark.parametrize(
    ("checks", "code"),
    [
        ('between("wind")', "MS-1060"),
        ('between("wind", 3, 2)', "MS-1060"),
        ('between("wind", 3, "a")', "MS-1060"),
        ('between("wind", float("nan"), 2)', "MS-1060"),
        ('matches("origin", "(")', "MS-1060"),
        ("rows()", "MS-1060"),
        ("rows(3, 2)", "MS-1060"),
        ("not_null()", "MS-1060"),
        ('one_of("origin", "JFK")', "MS-1060"),
        ('distance("wind", 2)', "MS-1060"),
        ('rows(3, on_fail="quarantine")', "MS-1061"),
        ('fresh("2h", on_fail="quarantine")', "MS-1061"),
        ('unique("origin", on_fail="quarantine")', "MS-1061"),
        ('distance("wind", 0.1, on_fail="quarantine")', "MS-1061"),
        ('not_null("wnd")', "MS-1007"),
        ('between("origin", 1, 2)', "MS-1062"),
        ('between("observed", datetime(2026, 1, 1))', "MS-1062"),
        ('matches("wind", "a")', "MS-1062"),
        ('one_of("wind", ["a"])', "MS-1062"),
        ('references("wind", places.since)', "MS-1062"),
        ('references("origin", "places")', "MS-1033"),
        ('not_null("wind", on_fail="drop")', "MS-1034"),
        ('"not_null"', "MS-1033"),
    ],
)
def test_what_cannot_be_checked_is_refused_where_it_is_written(weather, checks, code):
    with pytest.raises(DeclarationError) as caught:
        weather.declare(checks)
    assert caught.value.code == code
    assert "checked_app.py" in caught.value.origin


def test_a_view_references_nothing_and_knows_its_columns(weather):
    with pytest.raises(DeclarationError) as caught:
        weather.declare("", AGGREGATES.format('references("origin", places.code)'))
    assert caught.value.code == "MS-1062"
    with pytest.raises(DeclarationError) as caught:
        weather.declare("", AGGREGATES.format('not_null("observed")'))
    assert caught.value.code == "MS-1007"
    weather.declare("", FUNCTION.format('not_null("speed")'))
    with pytest.raises(DeclarationError, match="speed"):
        views_of(weather.plan)


def test_a_pattern_that_re2_does_not_know_is_told(weather):
    weather.declare('matches("origin", "(?=J).*")')
    with pytest.raises(DataError) as caught:
        weather.apply()
    assert caught.value.code == "MS-2181"


def test_a_reference_is_an_edge_of_the_plan(weather):
    weather.declare('references("origin", places.code)')
    assert weather.plan.node("/source/weather").inputs == ("/source/places",)
    assert weather.plan.node("/source/weather").spec["checks"] == {"references(origin, places.code)": "refuse"}
