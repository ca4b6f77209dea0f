"""Tables that a running server scores for its clients: begun, asked about, fetched, killed, and gone on with."""

from __future__ import annotations

import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_protocols import raw
from e2e.test_scoring import wide
from e2e.test_server import copy
from mainspring.choose.services import Services

PARQUET = "application/vnd.apache.parquet"


@pytest.fixture(scope="module")
def scoring(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    found = serve(copy(built, tmp_path_factory.mktemp("scorings")))
    yield found
    assert found.stop() == 0, found.log.read_text()
    assert "internal error" not in found.log.read_text()


def as_parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def begun(served: Served, body: bytes, kind: str, status: int = 202, **asked: str) -> dict[str, Any]:
    found, answer, headers = raw(served.console, "POST", f"/scorings?{urlencode(asked)}", body, {"content-type": kind})
    assert found == status, answer
    said: dict[str, Any] = json.loads(answer)
    if status == 202:
        assert headers["location"] == f"/scorings/{said['id']}"
    return said


def asked(served: Served, identity: str) -> dict[str, Any]:
    status, answer, _ = call(f"{served.console}/scorings/{identity}")
    assert status == 200
    found: dict[str, Any] = json.loads(answer)
    return found


def over(served: Served, identity: str) -> dict[str, Any]:
    end = time.monotonic() + 240
    while (found := asked(served, identity))["status"] == "running":
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def process_of(served: Served, identity: str) -> int:
    """The scoring's own process, whose workers end with it."""
    return int((served.project / ".mainspring" / "scorings" / identity / "process").read_text().split("/")[-3])


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_table_that_is_sent_is_scored_as_by_the_command(scoring: Served, tmp_path: Path) -> None:
    table = wide(3_000)
    pq.write_table(table, tmp_path / "rows.parquet")
    mainspring(
        "score", "returns", "--input", str(tmp_path / "rows.parquet"), "--output", str(tmp_path / "scored.parquet"),
        cwd=scoring.project,
    )  # fmt: skip
    wanted = pq.read_table(tmp_path / "scored.parquet")
    first = begun(scoring, as_parquet(table), PARQUET, model="returns", rows="1000")
    assert (first["status"], first["model"]) == ("running", "returns")
    done = over(scoring, first["id"])
    assert (done["status"], done["version"], done["scored"], done["parts"]) == ("done", 1, 3000, 3)
    status, body, headers = call(f"{scoring.console}/scorings/{first['id']}/scores")
    assert (status, headers["content-type"]) == (200, PARQUET)
    assert pq.read_table(io.BytesIO(body)).equals(wanted)
    assert call(f"{scoring.console}/scorings/{first['id']}/set-aside")[0] == 404
    listed = json.loads(call(f"{scoring.console}/scorings")[1])["scorings"]
    assert listed[0] == done
    assert raw(scoring.console, "DELETE", f"/scorings/{first['id']}")[0] == 204
    assert call(f"{scoring.console}/scorings/{first['id']}")[0] == 404


def test_a_source_and_a_table_in_csv_and_rows_that_are_set_aside(scoring: Served) -> None:
    body = {"model": "returns", "source": "visits", "keep": ["customer"], "form": "csv"}
    status, answer, _ = call(f"{scoring.console}/scorings", body)
    assert status == 202, answer
    csv = b"id,visits_30d,amount_30d,amount\n1,2,3.5,4\n2,many,3.5,4\n3,,1.0,4\n"
    second = begun(scoring, csv, "text/csv", model="returns", set_aside="true", form="csv", keep="id")
    first = over(scoring, json.loads(answer)["id"])
    assert first["status"] == "done"
    head, *rows = call(f"{scoring.console}/scorings/{first['id']}/scores")[1].decode().splitlines()
    assert head.replace('"', "") == "customer,score,prediction"
    assert len(rows) == first["scored"] > 100
    done = over(scoring, second["id"])
    assert (done["status"], done["scored"], done["set_aside"]) == ("done", 2, 1), done
    aside = call(f"{scoring.console}/scorings/{second['id']}/set-aside")[1].decode()
    assert "many" in aside


def test_a_table_that_does_not_fit_says_why(scoring: Served) -> None:
    first = begun(scoring, b"colour\nred\n", "text/csv", model="returns")
    found = over(scoring, first["id"])
    assert (found["status"], found["error"]["code"]) == ("failed", "MS-5124")
    assert str(scoring.project) not in json.dumps(found)
    status, answer, headers = call(f"{scoring.console}/scorings/{first['id']}/scores")
    assert (status, "retry-after" in headers) == (409, False), answer
    assert over(scoring, first["id"])["status"] == "failed"


@pytest.mark.parametrize(
    ("kind", "body", "fields", "status"),
    [
        ("text/csv", b"a\n1\n", {"model": "nobody"}, 404),
        ("text/csv", b"a\n1\n", {}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "output": "/etc/passwd"}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "form": "pickle"}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "rows": "many"}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "set_aside": "maybe"}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "time": "a\nb"}, 400),
        ("text/csv", b"a\n1\n", {"model": "returns", "source": "visits"}, 400),
        ("application/x-python-pickle", b"a\n1\n", {"model": "returns"}, 415),
        ("application/json", b"{}", {}, 400),
        ("application/json", b'{"model": "returns"}', {}, 400),
        ("application/json", b'{"model": "returns", "source": "../data/visits.csv"}', {}, 400),
        ("application/json", b'{"model": "returns", "source": "/etc/passwd"}', {}, 400),
        ("application/json", b'{"model": "returns", "source": "https://a.org/x.csv"}', {}, 400),
    ],
)
def test_what_makes_no_sense_is_refused(
    scoring: Served, kind: str, body: bytes, fields: dict[str, str], status: int
) -> None:
    assert "error" in begun(scoring, body, kind, status, **fields)


def test_only_who_manages_may_ask(scoring: Served) -> None:
    assert call(f"{scoring.url}/scorings")[0] == 404  # the port of the endpoints has none
    headers = {"content-type": "text/csv", "origin": "https://elsewhere.org"}
    assert raw(scoring.console, "POST", "/scorings?model=returns", b"a\n1\n", headers)[0] == 403
    for identity in ("0" * 32, "..", "%2e%2e%2f%2e%2e", "x"):
        assert call(f"{scoring.console}/scorings/{identity}")[0] == 404
        assert raw(scoring.console, "DELETE", f"/scorings/{identity}")[0] == 404


def newest_run(served: Served) -> str:
    """The id of the newest run; empty before the first."""
    services = Services.of_project(served.project)
    try:
        return next((run.id for run in services.catalog.runs(limit=1)), "")
    finally:
        services.close()


def parts_scored(served: Served, before: str) -> int:
    """How many parts the newest run has scored so far, if it has begun since another was the newest."""
    services = Services.of_project(served.project)
    try:
        (run,) = services.catalog.runs(limit=1)
        if run.id == before:
            return 0
        return sum(step.name == "scored/returns" and step.status == "ok" for step in services.catalog.steps(run.id))
    finally:
        services.close()


def test_a_scoring_whose_process_is_killed_goes_on_where_it_was(scoring: Served) -> None:
    many, before = as_parquet(wide(6_000)), newest_run(scoring)
    first = begun(scoring, many, PARQUET, model="returns", rows="250")["id"]
    until(lambda: parts_scored(scoring, before) >= 2)
    until(lambda: asked(scoring, first).get("progress", {}).get("parts_done", 0) >= 2)
    told = asked(scoring, first)["progress"]
    assert (told["parts"], told["rows"], told["parts_kept"]) == (24, 6_000, 0)
    assert told["rows_done"] >= 250 * told["parts_done"]
    assert told["rows_per_second"] > 0
    assert told["seconds_left"] == pytest.approx((6_000 - told["rows_done"]) / told["rows_per_second"])
    os.kill(process_of(scoring, first), signal.SIGKILL)
    stopped = over(scoring, first)
    assert (stopped["status"], stopped["progress"]["rows"]) == ("stopped", 6_000)
    second = begun(scoring, many, PARQUET, model="returns", rows="6000")["id"]
    assert raw(scoring.console, "POST", f"/scorings/{first}")[0] == 202
    begun(scoring, many, PARQUET, 429, model="returns")  # two at once
    done = over(scoring, first)
    assert (done["status"], done["scored"], done["parts"]) == ("done", 6_000, 24)
    assert done["kept"] >= 2
    assert "progress" not in done
    assert over(scoring, second)["status"] == "done"
    one, other = (call(f"{scoring.console}/scorings/{name}/scores")[1] for name in (first, second))
    assert pq.read_table(io.BytesIO(one)).equals(pq.read_table(io.BytesIO(other)))


def test_a_server_that_is_killed_or_stopped_goes_on_with_its_scorings(built: Path, tmp_path: Path) -> None:
    project = copy(built, tmp_path)
    served = serve(project)
    before = newest_run(served)
    identity = begun(served, as_parquet(wide(5_000)), PARQUET, model="returns", rows="250")["id"]
    until(lambda: parts_scored(served, before) >= 2)
    assert served.stop() == 0  # with SIGTERM
    served = serve(project)
    try:
        until(lambda: asked(served, identity)["status"] == "running")
        os.kill(process_of(served, identity), signal.SIGKILL)
    finally:
        served.process.kill()
        served.process.wait()
    served = serve(project)
    try:
        until(lambda: asked(served, identity)["status"] in ("running", "done"))
        done = over(served, identity)
        assert (done["status"], done["scored"]) == ("done", 5_000)
        assert done["kept"] >= 2
    finally:
        assert served.stop() == 0, served.log.read_text()
