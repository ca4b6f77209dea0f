"""Sources and views as tasks: what their keys hang on, and what carrying them out leaves behind."""

import importlib
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.config.settings import load_settings
from mainspring.declare.artifact import File
from mainspring.declare.frame import Frame
from mainspring.engine.context import StepContext, entered
from mainspring.engine.task import Output
from mainspring.errors import ConfigError, DataError, DeclarationError
from mainspring.features.decorated.infer import infer
from mainspring.features.logs.log import TableVersion
from mainspring.features.logs.write import append_rows
from mainspring.features.offline.history import history
from mainspring.features.steps import sources_of, tasks_for, views_of
from mainspring.features.view import picks_of
from mainspring.plan.build import build_plan

APP = """
from datetime import datetime
import polars as pl
from mainspring import App, Entity, Field, Record, avg, last

app = App("weather")
airport = Entity("origin")

class Weather(Record):
    origin: str
    wind: float | None = Field(ge=0, le=200)
    observed: datetime

weather = app.source(Weather, time="observed", zone="America/New_York")
conditions = app.features(weather, entity=airport, ttl="3h", wind=last("wind"), mean=avg("wind", "2h"))

@app.features(weather, entity=airport)
def metric(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("origin", "observed", kmh=pl.col("wind") * 1.609344)
"""
CSV = "origin,wind,observed\nJFK,10,2013-01-01 01:00:00\nJFK,20,2013-01-01 02:00:00\nLGA,1048,2013-01-01 01:00:00\n"


@pytest.fixture
def project(tmp_path, monkeypatch):
    (tmp_path / "weather_app.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text('app = "weather_app:app"\n[sources.weather]\npath = "data"\n')
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text(CSV)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("weather_app", None)


def opened(project: Path, **flags):
    return SimpleNamespace(
        project=project,
        state=project / ".mainspring",
        settings=load_settings(project, profile=None, environment={}, flags=flags),
        tables=open_tables(DeltaSettings(), project / ".mainspring"),
    )


def plan_of(project):
    module = importlib.import_module("weather_app")
    module.app.bind(vars(module))
    return build_plan(module.app, infer)


def carry_out(tasks, services):
    done = {}
    for task in tasks:
        arguments = dict(task.params) | {name: done[output.task] for name, output in task.inputs.items()}
        with entered(StepContext(services, task, "run", 1, services.project / "work")):
            done[task.name] = task.function(**arguments)
    return done


def test_an_app_becomes_tasks_and_tasks_become_answers(project):
    services, plan = opened(project), plan_of(project)
    tasks = tasks_for(plan, services)
    assert [task.name for task in tasks] == ["source/weather", "feature_view/conditions", "feature_view/metric"]
    assert tasks[0].params["files"] == [File(project / "data" / "a.csv")]
    assert tasks[1].inputs == {"at": Output("source/weather")}
    assert tasks[2].inputs == {"at0": Output("source/weather")}
    assert tasks[2].reaches == (importlib.import_module("weather_app").metric._spec.function,)
    done = carry_out(tasks, services)
    assert all(isinstance(version, TableVersion) for version in done.values())
    assert (done["source/weather"].rows, done["source/weather"].quarantined) == (2, 1)
    module = importlib.import_module("weather_app")
    picks = picks_of([module.conditions.mean, module.metric], views_of(plan))
    moment = services.tables.read(sources_of(plan)["weather"].log).column("observed")[1].as_py()
    spine = Frame({"origin": ["JFK", "JFK", "LGA"], "at": [moment, moment - timedelta(seconds=1), moment]})
    found = history(services, picks, spine, names="full").arrow()
    assert found.column("conditions__mean").to_pylist() == [15.0, 10.0, None]
    assert found.column("metric__kmh").to_pylist() == [32.18688, 16.09344, None]


def test_carried_out_again_it_is_the_same(project):
    services, plan = opened(project), plan_of(project)
    first = carry_out(tasks_for(plan, services), services)
    assert carry_out(tasks_for(plan, opened(project)), opened(project)) == first


def test_a_source_hangs_on_its_files_content_and_on_what_was_pushed(project):
    services, plan = opened(project), plan_of(project)
    before = tasks_for(plan, services)[0].params
    carry_out(tasks_for(plan, services), services)
    assert tasks_for(plan, services)[0].params == before
    source = sources_of(plan)["weather"]
    row = services.tables.read(source.log, columns=["origin", "wind", "observed"]).slice(0, 1)
    pushed = append_rows(services, source, row, 2_000_000_000_000_000)
    after = tasks_for(plan, services)[0].params
    assert (before["pushed"], after["pushed"][0]) == (None, pushed.seq[1])
    done = carry_out(tasks_for(plan, services), services)
    assert done["source/weather"] == pushed.source
    assert done["feature_view/conditions"].rows == 3


def test_a_source_without_a_place_a_file_or_a_reader(project):
    plan = plan_of(project)
    toml = project / "mainspring.toml"
    for text, error, code in (
        ("", ConfigError, "MS-3015"),
        ('[sources.weather]\nurl = "teradata://db"\n', ConfigError, "MS-3020"),
        ('[sources.weather]\npath = "nothing/*.csv"\n', DataError, "MS-2112"),
    ):
        toml.write_text('app = "weather_app:app"\n' + text)
        with pytest.raises(error) as caught:
            tasks_for(plan, opened(project))
        assert caught.value.code == code


def test_a_view_of_aggregates_has_no_rows_to_build_on(project):
    with open(project / "weather_app.py", "a") as file:
        file.write(
            "\n@app.features(conditions, entity=airport)\ndef on_top(rows):\n"
            "    return rows.with_columns(twice=pl.col('wind') * 2)\n"
        )
    with pytest.raises(DeclarationError) as caught:
        tasks_for(plan_of(project), opened(project))
    assert caught.value.code == "MS-2106"


def test_a_moved_line_or_a_longer_ttl_keeps_the_log(project):
    services = opened(project)
    first = carry_out(tasks_for(plan_of(project), services), services)
    sys.modules.pop("weather_app")
    text = "# a line more\n" + APP.replace('ttl="3h"', 'ttl="4h"')
    (project / "weather_app.py").write_text(text)
    second = carry_out(tasks_for(plan_of(project), services), services)
    assert second == first
