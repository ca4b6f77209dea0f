"""A Feast repository on disk, imported, checked, built, and asked: the answers are what its file holds."""

from __future__ import annotations

import json
import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from e2e.conftest import mainspring
from mainspring import feature_store

START = datetime(2025, 1, 1, tzinfo=UTC)
DEFINITIONS = '''
"""Drivers and their hours."""

import math
from datetime import timedelta

import pandas as pd
from feast import Entity, FeatureService, FeatureView, Field, FileSource, Project, PushSource, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float32, Float64, Int64, Map

project = Project(name="fleet", description="drivers")
SCALE = 10
driver = Entity(name="driver", join_keys=["driver_id"])
hours = FileSource(
    name="hours",
    path="data/driver_stats.parquet",
    timestamp_field="event_timestamp",
    created_timestamp_column="created",
)
stats = FeatureView(
    name="driver_stats",
    entities=[driver],
    ttl=timedelta(days=1),
    schema=[
        Field(name="conv_rate", dtype=Float32),
        Field(name="trips", dtype=Int64, description="trips a day"),
        Field(name="extras", dtype=Map),
    ],
    source=hours,
    tags={"team": "fleet"},
)
asked = RequestSource(name="asked", schema=[Field(name="bonus", dtype=Int64)])


@on_demand_feature_view(sources=[stats, asked], schema=[Field(name="conv_rate_plus", dtype=Float64)])
def transformed(inputs: pd.DataFrame) -> pd.DataFrame:
    df = pd.DataFrame()
    df["conv_rate_plus"] = inputs["conv_rate"] + inputs["bonus"]
    return df


@on_demand_feature_view(
    sources=[stats, asked], mode="python", singleton=True, schema=[Field(name="rounded", dtype=Int64)]
)
def round_up(inputs: dict) -> dict:
    rate = inputs["conv_rate"]
    return {"rounded": None if rate is None else math.ceil(rate * SCALE)}


@on_demand_feature_view(sources=[stats], mode="python", schema=[Field(name="busy", dtype=Float64)])
def business(inputs):
    # Of whole lists, as Feast hands them over.
    return {"busy": [None if trips is None else trips / 2 for trips in inputs["trips"]]}


activity = FeatureService(
    name="driver_activity", features=[stats[["conv_rate"]], transformed, round_up, business[["busy"]]]
)
pushed = PushSource(name="driver_push", batch_source=hours)
fresh = FeatureView(name="driver_stats_fresh", entities=[driver], ttl=timedelta(days=1), source=pushed,
                    schema=[Field(name="trips", dtype=Int64)])
'''
ROWS = [
    {
        "driver_id": 1001 + number % 3,
        "event_timestamp": START + timedelta(hours=number),
        "created": (START + timedelta(hours=number, minutes=1)).replace(tzinfo=None),
        "conv_rate": number / 8,
        "trips": number if number % 5 else None,
    }
    for number in range(30)
]


def repository(folder: Path) -> Path:
    (folder / "data").mkdir(parents=True)
    (folder / "feature_store.yaml").write_text(
        "project: fleet\nregistry: data/registry.db\nprovider: local\nonline_store:\n    type: sqlite\n"
        "    path: data/online_store.db\nentity_key_serialization_version: 3\nauth:\n    type: no_auth\n"
    )
    (folder / "definitions.py").write_text(DEFINITIONS)
    frame = pl.DataFrame(ROWS, schema_overrides={"conv_rate": pl.Float32, "event_timestamp": pl.Datetime("ns", "UTC")})
    frame.write_parquet(folder / "data" / "driver_stats.parquet")
    return folder


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("feast")
    repository(folder / "feature_repo")
    done = mainspring("import", "feast", "feature_repo", "--json", cwd=folder)
    told = json.loads(done.stdout)
    assert told["fault"] is None
    assert told["files"] == [".gitignore", "fleet.py", "mainspring.toml", "requirements.in"]
    assert [note["what"] for note in told["left"]] == ["feature driver_stats:extras"]
    assert told["left"][0]["where"] == "definitions.py:28"
    assert any("nanoseconds" in note["why"] for note in told["changed"])
    mainspring("check", cwd=folder / "fleet")
    mainspring("apply", cwd=folder / "fleet")
    return folder / "fleet"


def newest(driver: int, at: datetime) -> dict[str, object] | None:
    """What Feast answers: the newest row of the driver up to that moment, if it is known then and not too old."""
    rows = [row for row in ROWS if row["driver_id"] == driver and row["event_timestamp"] <= at]
    known = [row for row in rows if row["created"].replace(tzinfo=UTC) <= at]
    found = max(known, key=lambda row: row["event_timestamp"], default=None)
    return found if found is not None and at - found["event_timestamp"] <= timedelta(days=1) else None


def test_answers_are_what_the_file_holds(imported: Path) -> None:
    moments = [START + timedelta(hours=hour, minutes=30) for hour in (0, 7, 15, 29, 40, 60)]
    pairs = [(driver, at) for driver in (1001, 1002, 1003, 9) for at in moments]
    spine = {"driver_id": [driver for driver, _ in pairs], "at": [at for _, at in pairs], "bonus": [2] * len(pairs)}
    with feature_store(imported) as store:
        history = store.history(["driver_stats", "transformed", "round_up", "business:busy"], spine).polars()
        for (driver, at), row in zip(pairs, history.iter_rows(named=True), strict=True):
            held = newest(driver, at) or {"conv_rate": None, "trips": None}
            rate = held["conv_rate"]
            assert (row["conv_rate"], row["trips"]) == (rate, held["trips"]), (driver, at)
            assert row["conv_rate_plus"] == (None if rate is None else float(str(rate)) + 2)
            assert row["rounded"] == (None if rate is None else math.ceil(float(str(rate)) * 10))
            assert row["busy"] == (None if held["trips"] is None else int(str(held["trips"])) / 2)
        at = START + timedelta(hours=40)
        asked = [{"driver_id": driver} for driver in (1001, 1002, 1003, 9)]
        found = store.online("driver_activity", asked, request={"bonus": 2}, now=at).dicts()
        rates = [held["conv_rate"] if (held := newest(key["driver_id"], at)) else None for key in asked]
        assert [row["conv_rate"] for row in found] == rates
        assert None not in rates[:3]
        assert [row["conv_rate_plus"] for row in found] == [None if rate is None else rate + 2 for rate in rates]
        assert [row["rounded"] for row in found] == [None if rate is None else math.ceil(rate * 10) for rate in rates]
        row = {**ROWS[-1], "event_timestamp": at, "created": at, "trips": 77}
        store.push("driver_push", [row])
        fresh = store.online("driver_stats_fresh", [{"driver_id": row["driver_id"]}], now=at + timedelta(hours=1))
        assert fresh.dicts() == [{"trips": 77}]
    sys.modules.pop("fleet", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(imported)]


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    repository(tmp_path / "feast")
    done = mainspring("import", "feast", "feast", "--into", "mine", cwd=tmp_path)
    assert "check: no fault found" in done.stdout
    assert "not carried: 1" in done.stdout
    (tmp_path / "mine" / "fleet.py").write_text("mine")
    (tmp_path / "mine" / "other.py").write_text("mine too")
    (tmp_path / "mine" / ".gitignore").write_text("mine three")
    refused = mainspring("import", "feast", "feast", "--into", "mine", cwd=tmp_path, status=2)
    assert "MS-2635" in refused.stderr
    assert (tmp_path / "mine" / "fleet.py").read_text() == "mine"
    mainspring("import", "feast", "feast", "--into", "mine", "--force", cwd=tmp_path)
    assert "App(" in (tmp_path / "mine" / "fleet.py").read_text()
    assert (tmp_path / "mine" / "other.py").read_text() == "mine too"
    assert (tmp_path / "mine" / ".gitignore").read_text() == "mine three"
    (tmp_path / "feast" / "definitions.py").rename(tmp_path / "feast" / "fleet.py")
    refused = mainspring("import", "feast", "feast", "--into", "feast", "--force", cwd=tmp_path, status=2)
    assert "MS-2636" in refused.stderr
    assert (tmp_path / "feast" / "fleet.py").read_text() == DEFINITIONS


def test_what_has_no_rows_yet_is_written_and_told(tmp_path: Path) -> None:
    repository(tmp_path / "feast")
    (tmp_path / "feast" / "data" / "driver_stats.parquet").unlink()
    done = mainspring("import", "feast", "feast", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    assert told["fault"]["code"] == "MS-2112"
    assert any("declared as str" in note["why"] for note in told["changed"])
    assert "error MS-2112" in mainspring("check", cwd=tmp_path / "fleet", status=None).stderr


def test_bad_input_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "MS-2630" in mainspring("import", "feast", "empty", cwd=tmp_path, status=2).stderr
    (tmp_path / "empty" / "feature_store.yaml").write_text("project: [")
    assert "MS-2631" in mainspring("import", "feast", "empty", cwd=tmp_path, status=2).stderr
    assert mainspring("import", "feast", "nowhere", cwd=tmp_path, status=2).stderr
    assert not [path for path in tmp_path.iterdir() if path.name != "empty"]
    assert "feast" in mainspring("import", "--help", cwd=tmp_path).stdout
