"""The flights project: its declarations hold together, and its data is what it says."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from mainspring.testing import open_project

PROJECT = Path(__file__).parent.parent


def test_the_app_is_sound(tmp_path: Path) -> None:
    sys.modules.pop("flights", None)
    plan = open_project(PROJECT, state=tmp_path).plan
    assert plan.node("/model/late") is not None
    assert {node.name for node in plan.of_kind("feature_view")} == {"conditions", "congestion", "fleet"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    sys.path.insert(0, str(PROJECT))
    try:
        import data
    finally:
        sys.path.remove(str(PROJECT))
    return data.write(tmp_path_factory.mktemp("data"))


def test_every_flight_of_2013_is_there(files: dict[str, Path]) -> None:
    flights = pl.read_parquet(files["flights"])
    assert flights.height == 336_776
    assert flights["flight_id"].n_unique() == flights.height
    assert flights["departed"].null_count() == 0


def test_a_label_is_known_only_after_departure(files: dict[str, Path]) -> None:
    flights = pl.read_parquet(files["flights"])
    known = flights.filter(pl.col("late").is_not_null() & pl.col("landed").is_not_null())
    assert known.height > 327_000
    assert (known["landed"] - known["departed"]).dt.total_minutes().min() >= 20


def test_the_weather_is_hourly(files: dict[str, Path]) -> None:
    weather = pl.read_parquet(files["weather"])
    assert weather.select("origin", "observed").is_unique().all()
    assert weather["wind_speed"].max() < 60


def test_the_planes_are_those_of_the_register(files: dict[str, Path]) -> None:
    planes, flights = pl.read_parquet(files["planes"]), pl.read_parquet(files["flights"])
    assert (planes.height, planes["tailnum"].n_unique()) == (3_322, 3_322)
    unknown = planes.filter(pl.col("built").is_null())
    assert (unknown.height, unknown["since"].unique().to_list()) == (70, [datetime(2013, 1, 1, tzinfo=UTC)])
    assert (planes["since"].dt.year() == planes["built"].fill_null(2013)).all()
    without = flights.filter(pl.col("tailnum").is_null())
    assert (without.height, without["late"].count()) == (2_512, 0)
    assert 0.15 < flights.join(planes, on="tailnum", how="anti").height / flights.height < 0.16


def test_a_flight_is_answered_whatever_its_plane(files: dict[str, Path], tmp_path: Path) -> None:
    copy, until = tmp_path / "project", datetime(2013, 1, 8, tzinfo=UTC)
    shutil.copytree(PROJECT, copy, ignore=shutil.ignore_patterns("data", "tests", ".mainspring"))
    (copy / "data").mkdir()
    for name, time in (("flights", "departed"), ("weather", "observed"), ("planes", "since")):
        pl.read_parquet(files[name]).filter(pl.col(time) < until).write_parquet(copy / "data" / f"{name}.parquet")
    sys.modules.pop("flights", None)
    project = open_project(copy, state=tmp_path / "state")
    try:
        project.build()
        row: dict[str, object] = {"origin": "JFK", "distance": 1089}
        known = project.ask("late", {**row, "tailnum": "N10156"}, at=until)
        assert known.statuses == {"conditions": "PRESENT", "congestion": "PRESENT", "fleet": "PRESENT"}
        assert known.values[5:7] == (2004, 55)
        for plane in ({"tailnum": "N3ALAA"}, {"tailnum": None}, {}):
            answer = project.ask("late", {**row, **plane}, at=until)
            assert (answer.statuses["fleet"], answer.values[5:7]) == ("MISSING", (None, None))
            assert 0 <= answer.score <= 1
    finally:
        project.close()
