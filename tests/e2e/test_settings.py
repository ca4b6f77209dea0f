"""Settings as a user meets them: what is checked before anything runs, and what the remedies lead to."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from e2e.conftest import call, mainspring, serve

MINE = """\
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin


class Mean(ClassifierMixin, BaseEstimator):
    def fit(self, x, y):
        self.classes_, self.mean_ = np.array([0, 1]), float(np.mean(y))
        return self

    def predict_proba(self, x):
        return np.tile([1 - self.mean_, self.mean_], (len(x), 1))
"""


def copy(built: Path, tmp_path: Path) -> Path:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log"))
    return project


def write(project: Path, text: str) -> None:
    with open(project / "mainspring.toml", "a") as file:
        file.write(f"\n{text}\n")


def test_an_estimator_of_one_s_own_is_served_once_the_remedy_is_followed(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    (project / "mine.py").write_text(MINE)
    app = (project / "shop.py").read_text()
    (project / "shop.py").write_text(
        app.replace(
            "    pipeline = make_pipeline", "    from mine import Mean\n\n    pipeline = Mean() or make_pipeline"
        )
    )
    refused = mainspring("apply", cwd=project, status=1).stderr
    assert 'runtime.trust = ["mine.Mean"]' in refused, refused
    write(project, '[runtime]\nthreads = 2\ntrust = ["mine.Mean"]')
    mainspring("check", cwd=project)
    mainspring("apply", cwd=project)
    mainspring("promote", "returns", "2", "--force", cwd=project)
    served = serve(project)
    try:
        status, body, _ = call(f"{served.url}/endpoint/returns", {"customer": "c01", "amount": 20.0})
        assert status == 200, body
    finally:
        assert served.stop() == 0, served.log.read_text()


@pytest.mark.parametrize(
    ("text", "code", "status"),
    [
        ('[server]\nkeys = ["env:NOBODY_SETS_THIS"]', "MS-3007", 3),
        ("[online]\nsizee = 3", "MS-3014", 3),
        ("[runtime]\nthread = 3", "MS-3014", 3),
        ('[runtime]\nadapter = "onnx"', "MS-3010", 3),
        ('[clusters]\nadapter = "ray"', "MS-3004", 3),
        ('[compute]\nadapter = "ray"', "MS-3014", 3),
        ("[server]\nport = 99999", "MS-3006", 3),
        ("[engine]\nworkers = -3", "MS-3006", 3),
        ('[management]\nhost = "0.0.0.0"', "MS-3021", 3),
        ('[management]\nexpose = ["heap"]', "MS-3022", 3),
        ('[profiles.dev]\nsources.visits.path = "data/gone.csv"', "MS-2112", 1),
        ('[profiles.dev]\nsources.visits.format = "xlsx"', "MS-3006", 3),
    ],
)
def test_check_finds_what_apply_or_serve_would(built: Path, tmp_path: Path, text: str, code: str, status: int) -> None:
    project = copy(built, tmp_path)
    write(project, text)
    done = mainspring("check", cwd=project, status=status)
    assert done.stderr.startswith(f"error {code}"), done.stderr
    assert "  fix " in done.stderr
    assert "no fault" not in done.stdout


def test_check_finds_a_source_that_nothing_here_reads(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    settings = project / "mainspring.toml"
    settings.write_text(settings.read_text().replace('path = "data/visits.csv"', 'url = "teradata://db/visits"'))
    assert mainspring("check", cwd=project, status=3).stderr.startswith("error MS-3020")


PIPELINE = """

import polars as pl


@app.step()
def counted(day: str, least: int = 1) -> int:
    return len(day) + least


@app.pipeline
def nightly(day: str):
    BODY


class Spent(Record):
    total: float


@app.features(visits, entity=customer, returns=Spent)
def spent(rows: pl.LazyFrame) -> pl.LazyFrame:
    return rows.select("customer", "at", COLUMN=pl.col("amount"))

SCHEDULE
"""


@pytest.mark.parametrize(
    ("body", "column", "schedule", "code"),
    [
        ("counted(day, lesat=2)", "total", "", "MS-1022"),
        ("counted()", "total", "", "MS-2040"),
        ("counted(1)", "total", "", "MS-2041"),
        ("return 1 if counted(day) else 2", "total", "", "MS-1020"),
        ("counted(day)", "totle", "", "MS-2119"),
        ("counted(day)", "total", 'app.schedule(nightly, "0 3 * * *")', "MS-1105"),
        ("counted(day)", "total", 'app.schedule(nightly, "0 3 * * *", day="2025-01-01", dya=1)', "MS-1105"),
        ("counted(day)", "total", 'app.schedule(nightly, "0 3 * * *", day=1)', "MS-2041"),
        ("counted(day)", "total", 'app.schedule(nightly, "0 3 * * *", day={1})', "MS-1105"),
        ("counted(day if day > '2025' else '')", "total", 'app.schedule(nightly, "0 3 * * *", day="2025-01-01")', ""),
    ],
)
def test_check_wires_pipelines_schedules_and_views(
    built: Path, tmp_path: Path, body: str, column: str, schedule: str, code: str
) -> None:
    project = copy(built, tmp_path)
    text = PIPELINE.replace("BODY", body).replace("COLUMN", column).replace("SCHEDULE", schedule)
    with open(project / "shop.py", "a") as file:
        file.write(text)
    done = mainspring("check", cwd=project, status=1 if code else 0)
    if code:
        assert done.stderr.startswith(f"error {code}"), done.stderr
        assert "shop.py:" in done.stderr
        assert "  fix " in done.stderr


def test_conditions_tell_every_value_with_its_origin_and_no_secret(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    write(project, '[server]\nkeys = ["env:KEY", "letmein"]\n[online]\nurl = "env:CACHE"\n')
    environment = {"KEY": "hunter2", "CACHE": f"lmdb://{tmp_path}/hunter2", "MAINSPRING_ENGINE_WORKERS": "3"}
    told = mainspring("conditions", cwd=project, env=environment).stdout
    assert '  server.keys = ["env:KEY","******"]  (mainspring.toml:7 [server])' in told
    assert "  engine.workers = 3  (MAINSPRING_ENGINE_WORKERS)" in told
    assert "  server.timeout = 30.0  (default)" in told
    assert "  management.enabled = true  (default of profile dev)" in told
    assert '  online.url = "env:CACHE"  (mainspring.toml:9 [online])' in told
    as_json = mainspring("conditions", "online", "--json", cwd=project, env=environment).stdout
    assert json.loads(as_json)["settings"] == [
        {"key": "online.url", "value": "env:CACHE", "origin": "mainspring.toml:9 [online]"}
    ]
    assert "hunter2" not in told + as_json
    assert "letmein" not in told
