"""What runs by itself: declared schedules, and sources and views with `every=`."""

from datetime import datetime

from mainspring import App, Entity, Record, last
from mainspring.plan.build import build_plan
from mainspring.server.schedules import timetables


class Row(Record):
    key: str
    value: float
    at: datetime


def tables_of(app):
    return {table.name: (table.target, table.arguments) for table in timetables(build_plan(app))}


def test_a_source_takes_its_views_along_and_a_view_may_have_times_of_its_own():
    app, key = App("a"), Entity("key")
    rows = app.source(Row, time="at", every="10m", called="rows")
    app.features(rows, entity=key, called="slow", slow=last("value"))
    own = app.features(rows, entity=key, called="own", every="1h", own=last("value"))
    app.source(Row, time="at", called="still")
    app.source(Row, time="at", every="1d", called="bare")
    assert tables_of(app) == {
        "/feature_view/own": ("feature_view/own", ()),
        "/source/rows /feature_view/slow": ("feature_view/slow", ()),
        "/source/bare": ("source/bare", ()),
    }
    regular = {table.name: table for table in timetables(build_plan(app))}["/feature_view/own"]
    assert regular.times(0, 7_200_000_000) == [3_600_000_000, 7_200_000_000]
    app.schedule(own, "0 3 * * *", called="nightly")
    assert tables_of(app)["nightly"] == ("feature_view/own", ())


def test_a_pipelines_arguments_go_with_it():
    app = App("a")

    @app.pipeline
    def report(n: int, name: str = "x") -> int:
        return n

    app.schedule(report, "0 3 * * *", n=3, name="a b")
    assert tables_of(app)["report"] == ("pipeline/report", ("n=3", 'name="a b"'))
