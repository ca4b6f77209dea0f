"""Mainspring's own gRPC services: feature services read and rows pushed as by HTTP, a column at a time."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_on_demand import APP, write
from grpc_kit import address, called, failed
from mainspring.protocols.native.messages import FEATURES, PROTO, SOURCES, schema

AT = datetime(2025, 1, 10, 22, tzinfo=UTC)
ZONES = ["n", "nowhere", "s", "n"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = write(tmp_path_factory.mktemp("native") / "rides", APP + 'app.feature_service("plain", [fares])\n')
    mainspring("apply", cwd=folder)
    found = serve(folder)
    yield found
    assert found.stop() == 0, found.log.read_text()


@pytest.fixture
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(address(served)) as opened:
        yield opened


def strings(values: list[str | None]) -> Any:
    missing = [place for place, value in enumerate(values) if value is None]
    return message("Column", strings=message("Strings", values=[value or "" for value in values]), missing=missing)


def ints(values: list[int]) -> Any:
    return message("Column", ints=message("Ints", values=values))


def message(name: str, **fields: Any) -> Any:
    return schema().message(f"mainspring.v1.{name}")(**fields)


def values(column: Any) -> list[Any]:
    kind = column.WhichOneof("kind")
    found = [values(one) for one in column.lists.values] if kind == "lists" else list(getattr(column, kind).values)
    for place in column.missing:
        found[place] = None
    return found


def asked_by_http(served: Served, service: str, body: object) -> Any:
    status, answer, _ = call(f"{served.url}/feature-services/{service}/read", body)
    assert status == 200, answer
    return json.loads(answer)


def test_a_read_says_what_http_says(served: Served, channel: grpc.Channel) -> None:
    read = called(channel, schema(), FEATURES)
    now = int(AT.timestamp() * 1e6)
    for seats, request in (([3], 3), ([1, 2, 3, 4], [1, 2, 3, 4])):
        found = read(
            "Read",
            feature_service="ranking",
            entities={"zone": strings(ZONES)},
            request={"seats": ints(seats)},
            now_us=now,
        )
        body = {"entities": {"zone": ZONES}, "request": {"seats": request}, "now": now}
        known = asked_by_http(served, "ranking", body)
        assert list(found.names) == known["names"]
        rows = [list(row) for row in zip(*(values(column) for column in found.columns), strict=True)]
        assert rows == known["rows"]
        assert {state.view: state.status.decode() for state in found.views} == known["status"]
        assert {state.view: values(state.event_us) for state in found.views} == known["event_us"]
    assert None in rows[1]


def test_what_is_wrong_has_its_status(channel: grpc.Channel) -> None:
    read = called(channel, schema(), FEATURES)
    for fields, code, word in [
        ({"feature_service": "none"}, "NOT_FOUND", "ranking"),
        ({"feature_service": "ranking"}, "INVALID_ARGUMENT", "zone"),
        ({"feature_service": "luck", "request": {"seats": ints([13])}}, "INTERNAL", ""),
        ({"feature_service": "luck", "request": {"seats": ints([])}}, "INVALID_ARGUMENT", "no value"),
        ({"feature_service": "ranking", "entities": {"zone": ints([1])}}, "INVALID_ARGUMENT", ""),
        (
            {"feature_service": "ranking", "entities": {"zone": message("Column", lists=message("Lists"))}},
            "INVALID_ARGUMENT",
            "lists",
        ),
        (
            {"feature_service": "ranking", "entities": {"zone": message("Column", missing=[7])}},
            "INVALID_ARGUMENT",
            "misses value 7",
        ),
        ({"feature_service": "ranking", "entities": {"zone": strings(["n"] * 70_000)}}, "RESOURCE_EXHAUSTED", "70000"),
    ]:
        found, text = failed(lambda fields=fields: read("Read", **fields))
        assert (found, word in text) == (code, True), (fields, found, text)


def test_rows_are_pushed_once_under_a_key_and_online_at_once(channel: grpc.Channel) -> None:
    table = pa.table(
        {
            "zone": ["new", "new"],
            "at": pa.array([AT, AT.replace(minute=30)], pa.timestamp("us", "UTC")),
            "seats": [1, 2],
            "fare": [10.0, 20.0],
            "tipped": pa.nulls(2, pa.bool_()),
        }
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    rows = sink.getvalue().to_pybytes()
    push, read = (called(channel, schema(), service) for service in (SOURCES, FEATURES))
    for _ in range(2):
        assert push("Push", source="rides", rows=rows, idempotency_key="native-1").accepted == 2
    later = int(AT.replace(hour=23).timestamp() * 1e6)
    found = read(
        "Read",
        feature_service="ranking",
        entities={"zone": strings(["new"])},
        request={"seats": ints([2])},
        now_us=later,
    )
    assert dict(zip(found.names, (values(column)[0] for column in found.columns), strict=True))["mean"] == 15.0
    assert failed(lambda: push("Push", source="rides", rows=b"no arrow"))[0] == "INVALID_ARGUMENT"
    assert failed(lambda: push("Push", source="none", rows=rows))[0] in ("NOT_FOUND", "INVALID_ARGUMENT")


def test_reads_are_counted_however_they_come(served: Served, channel: grpc.Channel) -> None:
    def counted(service: str) -> float:
        page = call(f"{served.console}/actuator/prometheus")[1].decode().splitlines()
        lines = [line for line in page if line.startswith("mainspring_feature_reads_total{")]
        of_it = [line for line in lines if f'service="{service}"' in line and 'status="PRESENT"' in line]
        return sum(float(line.rsplit(" ", 1)[1]) for line in of_it)

    read = called(channel, schema(), FEATURES)
    for service, request in (("ranking", {"seats": 1}), ("plain", {})):
        before = counted(service)
        sent = {name: ints([value]) for name, value in request.items()}
        read("Read", feature_service=service, entities={"zone": strings(["n", "s"])}, request=sent)
        asked_by_http(served, service, {"entities": {"zone": ["n"]}, "request": request})
        assert counted(service) - before == 3, service


def test_the_documented_messages_are_those_that_are_served() -> None:
    written = (Path(__file__).resolve().parents[2] / "docs" / "mainspring.proto").read_text("utf-8")
    assert written == 'syntax = "proto3";\n\npackage mainspring.v1;\n' + textwrap.dedent(PROTO)
