"""A project's features in a notebook: read for training, read online, pushed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2e.conftest import mainspring
from e2e.test_on_demand import write
from mainspring import FeatureStore, feature_store
from mainspring.errors import DataError, UsageError

AT = datetime(2025, 1, 10, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FeatureStore]:
    folder: Path = write(tmp_path_factory.mktemp("notebook") / "rides")
    mainspring("apply", cwd=folder)
    with feature_store(folder) as opened:
        yield opened
    sys.modules.pop("rides", None)
    sys.path[:] = [entry for entry in sys.path if entry != str(folder)]


def test_history_and_online_agree(store: FeatureStore) -> None:
    spine = {"zone": ["n", "s", "nowhere"], "at": [AT] * 3, "seats": [1, 2, 4]}
    names = ["mean", "newest", "per_seat", "ratio", "crowded", "since", "doubled", "asked"]
    known = store.history("ranking", pl.DataFrame(spine)).arrow().select(names).to_pylist()
    found = store.online("ranking", {"zone": spine["zone"]}, request={"seats": spine["seats"]}, now=AT)
    for answer, row in zip(found.dicts(), known, strict=True):
        floats = [name for name, value in row.items() if isinstance(value, float)]
        assert [answer.pop(name) for name in floats] == pytest.approx([row.pop(name) for name in floats])
        assert answer == row
    assert found.status("fares") == ["PRESENT", "PRESENT", "MISSING"]
    assert found.event_time("fares")[0] == datetime(2025, 1, 10, 20, tzinfo=UTC)
    assert found.arrow().column("per_seat").to_pylist() == found.columns()["per_seat"]
    module = sys.modules["rides"]
    alike = store.online(module.ranking, [{"zone": "n"}], request={"seats": 1}, now=AT)
    assert alike.dicts() == found.dicts()[:1]
    assert found.dicts()[0]["mean"] is not None
    both = store.online([module.per_seat, "fares:mean"], [{"zone": "s"}], request={"seats": 2}, now=AT)
    assert list(both.columns()) == ["per_seat", "mean"]


def test_one_question_in_every_shape_has_one_answer(store: FeatureStore) -> None:
    shapes = ([{"zone": "n"}], ({"zone": "n"},), {"zone": ["n"]}, pa.table({"zone": ["n"]}))
    found = [store.online("fares", shape, now=AT) for shape in shapes for _ in range(2)]
    assert found[0].status("fares") == ["PRESENT"]
    assert {repr((one.rows, one.statuses, one.events, one.names)) for one in found} == {
        repr((found[0].rows, found[0].statuses, found[0].events, found[0].names))
    }
    for rows in ([{"zone": "n"}, {"zone": None}], [{"zone": "n"}, {}], [{"zone": None}], [{"zone": "nowhere"}]):
        listed, by_column = store.online("fares", rows, now=AT), {"zone": [row.get("zone") for row in rows]}
        assert listed.dicts() == store.online("fares", by_column, now=AT).dicts()
        assert listed.status("fares") == ["PRESENT", "MISSING"][-len(rows) :]
    for rows in ([{"zone": "n", "more": 1}], [{"more": 1}], [{"zone": 1}], []):
        with pytest.raises(DataError) as raised:
            store.online("fares", rows, now=AT)
        assert raised.value.code == ("MS-2120" if rows == [{"zone": 1}] else "MS-2310")


def test_the_frames_are_what_libraries_want(store: FeatureStore, tmp_path: Path) -> None:
    spine = {"zone": ["n", "nowhere"], "at": [AT] * 2, "seats": [1, 2]}
    frame = store.history(["fares:mean", "per_seat"], spine)
    matrix = frame[["mean", "per_seat"]].numpy()
    assert (matrix.shape, matrix.dtype) == ((2, 2), np.float64)
    assert matrix.flags.c_contiguous
    assert matrix.flags.writeable
    vector = frame["mean"].numpy()
    assert vector.flags.writeable
    assert np.isnan(vector).tolist() == [False, True]
    file = frame.parquet(tmp_path / "set.parquet")
    assert pq.read_table(file).equals(frame.arrow())
    assert [entry.name for entry in tmp_path.iterdir()] == ["set.parquet"]
    with pytest.raises(OSError, match="nowhere"):
        frame.parquet(tmp_path / "nowhere" / "set.parquet")
    assert frame.pandas()["mean"].isna().tolist() == [False, True]
    assert str(frame.pandas()["at"].dtype) == "datetime64[us, UTC]"
    assert frame.polars().columns == ["zone", "at", "seats", "mean", "per_seat"]
    assert frame.sql("select count(mean) as n from frame").arrow().to_pylist() == [{"n": 1}]


def test_spines_of_what_was_observed(store: FeatureStore) -> None:
    """Trap (Feast #1611): a scan without entities."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    pairs = store.history("fares", (start, start.replace(hour=8))).arrow()
    assert (len(pairs), pairs.column("zone").to_pylist()) == (8, ["e", "e", "n", "n", "s", "s", "w", "w"])
    latest = store.history("fares:newest", "latest").arrow()
    assert latest.column("zone").to_pylist() == ["e", "n", "s", "w"]
    assert latest.column("newest")[1].as_py() == datetime(2025, 1, 10, 20, tzinfo=UTC)
    asked = store.history(["per_seat"], "select zone, \"at\", seats from rides where fare > 6 and zone = 'n'").arrow()
    assert asked.column_names == ["zone", "at", "seats", "per_seat"]
    assert len(asked) > 3


def test_what_cannot_be_asked_is_told(store: FeatureStore) -> None:
    for inputs, spine, kind, code in (
        ("fare", "latest", UsageError, "MS-2602"),
        ("per_seat", {"zone": ["n"], "at": [AT]}, DataError, "MS-2164"),
        ("per_seat", {"zone": ["n"], "at": [AT], "seats": ["1"]}, DataError, "MS-2164"),
        ("per_seat", {"zone": ["n"], "at": [AT], "seats": [None]}, DataError, "MS-2164"),
        ("unlucky", "latest", UsageError, "MS-2166"),
        ("fares", "select zone from ride", UsageError, "MS-2167"),
    ):
        with pytest.raises(kind) as caught:
            store.history(inputs, spine)
        assert caught.value.code == code
    with pytest.raises(UsageError, match="no time zone"):
        store.online("fares", [{"zone": "n"}], now=datetime(2025, 1, 1))
    with pytest.raises(UsageError) as told:
        store.online("fares", [{"zone": "n"}]).status("fare")
    assert told.value.fix == "did you mean 'fares'?"


def test_pushed_rows_answer_at_once(store: FeatureStore) -> None:
    row = {"zone": "x", "at": "2025-02-01T00:00:00Z", "seats": 2, "fare": 8.0, "tipped": None}
    assert store.push("rides", [row], request_id="one")["accepted"] == 1
    assert store.push("rides", [row], request_id="one")["accepted"] == 1
    later = datetime(2025, 2, 1, 1, tzinfo=UTC)
    found = store.online(["fares", "per_seat"], [{"zone": "x"}], request={"seats": 2}, now=later)
    assert found.dicts() == [{"mean": 8.0, "newest": datetime(2025, 2, 1, tzinfo=UTC), "per_seat": 4.0}]
    assert store.materialise("fares").rows in (0, 1)
    whole = store.materialise("fares", full=True)
    assert (whole.entities, whole.rows) == (5, 241)
    assert store.online("fares", [{"zone": "x"}], now=later).dicts()[0]["mean"] == 8.0
