"""The flights project: its declarations hold together, and its data is what it says."""

from __future__ import annotations

import sys
from pathlib import Path

import polars as pl
import pytest

from mainspring.testing import open_project

PROJECT = Path(__file__).parent.parent


def test_the_app_is_sound(tmp_path: Path) -> None:
    sys.modules.pop("flights", None)
    plan = open_project(PROJECT, state=tmp_path).plan
    assert plan.node("/model/late") is not None
    assert [node.name for node in plan.of_kind("feature_view")] == ["conditions", "congestion"]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    sys.path.insert(0, str(PROJECT))
    try:
        import data
    finally:
        sys.path.remove(str(PROJECT))
    return data.write(tmp_path_factory.mktemp("data"))


def test_every_flight_of_2013_is_there(files: tuple[Path, Path]) -> None:
    flights = pl.read_parquet(files[0])
    assert flights.height == 336_776
    assert flights["flight_id"].n_unique() == flights.height
    assert flights["departed"].null_count() == 0


def test_a_label_is_known_only_after_departure(files: tuple[Path, Path]) -> None:
    flights = pl.read_parquet(files[0])
    known = flights.filter(pl.col("late").is_not_null() & pl.col("landed").is_not_null())
    assert known.height > 327_000
    assert (known["landed"] - known["departed"]).dt.total_minutes().min() >= 20


def test_the_weather_is_hourly(files: tuple[Path, Path]) -> None:
    weather = pl.read_parquet(files[1])
    assert weather.select("origin", "observed").is_unique().all()
    assert weather["wind_speed"].max() < 60
