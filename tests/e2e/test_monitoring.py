"""A monitor at work behind the real server: segments, labels, alarms, acknowledgements, the console and the metrics."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_console import CHROMIUM, FLAGS

DAYS, ROWS = 40, 160
FIRST = datetime(2025, 1, 1, tzinfo=UTC)
AFTER = FIRST + timedelta(days=DAYS)

APP = """
from datetime import datetime
from mainspring import App, Entity, Frame, Model, Record, count

app = App("sales")
customer = Entity("customer")

class Visit(Record):
    customer: str
    region: str | None
    vip: bool | None
    amount: float
    at: datetime
    returned: bool | None
    known: datetime | None

visits = app.source(Visit, time="at")
habits = app.features(visits, entity=customer, visits_30d=count("30d"))

@app.model(inputs=[habits, visits.amount], label=visits.returned, known_at=visits.known)
def returns(x: Frame, y: Frame) -> Model:
    from sklearn.linear_model import LogisticRegression
    return Model(LogisticRegression().fit(x.numpy(), y.numpy().ravel()))

app.endpoint(returns)
app.monitor(returns, called="watcher", segments=[visits.region, visits.vip])
"""

SETTINGS = """
app = "sales:app"
monitoring.every = 0.2

[sources.visits]
path = "visits.parquet"
"""


def visits(random: np.random.Generator, days: int, first: datetime) -> list[dict[str, Any]]:
    """Visits of some days, spread over each: three regions, one of them small; some are VIPs."""
    rows = []
    for day in range(days):
        for number in range(ROWS):
            amount = float(random.normal(20, 4))
            rows.append(
                {
                    "customer": f"c{random.integers(40):02d}",
                    "region": str(random.choice(["north", "south", "islands"], p=[0.6, 0.3, 0.1])),
                    "vip": bool(random.random() < 0.3),
                    "amount": amount,
                    "at": first + timedelta(days=day, seconds=number * 540),
                    "returned": bool(random.random() < 1 / (1 + np.exp((20 - amount) / 4))),
                }
            )
    return rows


def ask(served: Served, rows: list[dict[str, Any]], *, push: bool = True) -> list[str]:
    """Push visits and ask for predictions of them at the moments they happened; what is None is left out."""
    pushed = [{**row, "at": row["at"].isoformat(), "returned": None, "known": None} for row in rows]
    if push:
        assert call(f"{served.url}/sources/visits/push", {"rows": pushed, "now": "event"})[0] == 200
    asked = []
    for row in rows:
        known = {name: row[name] for name in ("customer", "amount", "region", "vip") if row[name] is not None}
        asked.append({**known, "now": row["at"].isoformat()})
    status, body, _ = call(f"{served.url}/endpoint/returns", {"rows": asked})
    assert status == 200, body
    return [answer["id"] for answer in json.loads(body)["predictions"]]


def page(served: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call(f"{served.console}/monitors/watcher.json")[1])
    return found


def until(true: Callable[[], bool], served: Served) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)


def closed(served: Served, day: int) -> None:
    """Wait until the block of a day after the reference has been judged."""
    start = int((AFTER + timedelta(days=day)).timestamp() * 1e6)
    until(lambda: (page(served)["block"] or 0) >= start, served)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("watched") / "sales"
    project.mkdir()
    (project / "sales.py").write_text(APP)
    (project / "mainspring.toml").write_text(SETTINGS)
    rows = [{**row, "known": row["at"] + timedelta(hours=3)} for row in visits(np.random.default_rng(1), DAYS, FIRST)]
    pq.write_table(pa.Table.from_pylist(rows), project / "visits.parquet")
    mainspring("apply", cwd=project)
    found = serve(project)
    try:
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_a_segment_is_watched_from_the_request_to_the_alarm(watched: Served) -> None:
    days = [visits(np.random.default_rng(2 + day), 1, AFTER + timedelta(days=day)) for day in range(4)]
    for row in days[1] + days[2]:
        row["amount"] *= 1.6 if row["region"] == "south" else 1.0
    for row in days[2][:20]:
        row["region"] = None
    ids = ask(watched, days[0])
    labels = [
        {"id": identity, "value": row["returned"], "at": row["at"].isoformat()}
        for identity, row in zip(ids[::2], days[0][::2], strict=True)
    ]
    assert call(f"{watched.url}/labels", {"labels": labels})[0] == 202
    for day in days[1:]:
        ask(watched, day)
    closed(watched, 2)
    until(lambda: page(watched)["measured"] is not None, watched)  # what labels say comes after the block is judged
    found = page(watched)
    shown = call(f"{watched.console}/monitors/watcher", headers={"Accept": "text/html"})[1].decode()
    tables = shown[shown.index("<h2>Latest scores") :].partition("</section>")[0]
    scores = [tuple(re.findall(r"<td[^>]*>(.*?)</td>", row)[:4]) for row in tables.split("<tr>") if "<td>" in row]
    assert {row[3] for row in scores} == {"1", "7"}, "over how many blocks"
    assert len(scores) == len(set(scores)) == len(found["scores"])
    states = [row["state"] for row in found["scores"]]
    assert states == sorted(states, key=lambda state: state == "ok"), "what is above its threshold comes first"
    segments = {row["segment"]: row for row in found["segments"]}
    assert sorted(segments) == ["region=north", "region=south", "vip=false", "vip=true"]
    north = sum(row["region"] == "north" for row in days[2])
    assert segments["region=north"]["rows"] == north
    assert segments["vip=true"]["rows"] == sum(row["vip"] for row in days[2])
    islands = sum(row["region"] == "islands" for row in days[2])
    assert found["outside"] == {"region": {"null": 20, "other": islands}}
    alarmed = {alarm["segment"] for alarm in found["alarms"] if "amount" in alarm["features"]}
    assert "region=south" in alarmed
    assert "region=north" not in alarmed
    assert found["facts"]["values not watched apart"] == "1 of region"
    measured = found["measured"]
    assert measured["n"] == len(labels)
    assert measured["coverage"] == pytest.approx(0.5)
    assert measured["method"] == "delong"
    assert measured["low"] < measured["value"] < measured["high"]
    assert {row["feature"] for row in found["reported"]} == {"visits_30d", "amount", "score"}

    families = {
        family.name: family
        for family in text_string_to_metric_families(call(f"{watched.console}/actuator/prometheus")[1].decode())
    }
    scores = families["mainspring_monitor_score"].samples
    assert {sample.labels["segment"] for sample in scores} == {"", *segments}


def test_an_endpoint_says_what_it_logs_beside_the_inputs(watched: Served) -> None:
    described = json.loads(call(f"{watched.url}/endpoint/returns")[1])
    assert described["logged"] == ["region", "vip"]
    assert [column["name"] for column in described["columns"]] == ["visits_30d", "amount"]
    row = {"customer": "c01", "amount": 1.0, "region": "north", "now": AFTER.isoformat()}
    answer = json.loads(call(f"{watched.url}/endpoint/returns?features=true", row)[1])
    assert set(answer["features"]) == {"visits_30d", "amount"}


def test_an_acknowledged_alarm_stays_one_over_blocks_and_restarts_of_the_monitor(watched: Served) -> None:
    def mine() -> list[dict[str, Any]]:
        return [
            alarm
            for alarm in page(watched)["alarms"]
            if alarm["segment"] == "region=south" and alarm["features"][0] == "amount"
        ]

    (alarm,) = mine()
    at = f"{watched.console}/monitors/watcher/alerts/{alarm['id']}/acknowledge"
    assert call(at, b"by=ada", {"Accept": "application/json"})[0] == 200
    for day in (4, 5):
        rows = visits(np.random.default_rng(day), 1, AFTER + timedelta(days=day))
        for row in rows:
            row["amount"] *= 1.6 if row["region"] == "south" else 1.0
        ask(watched, rows)
    closed(watched, 4)
    assert [(found["id"], found["state"], found["acked_by"]) for found in mine()] == [
        (alarm["id"], "acknowledged", "ada")
    ]


def test_show_tells_of_the_monitor_for_people_and_programs(watched: Served) -> None:
    text = mainspring("show", "monitor/watcher", cwd=watched.project).stdout
    for words in ("PSI", "WASSERSTEIN", "region=south", "labels, coverage 0.5", "reference_blocks: 40", "acknowledged"):
        assert words in text, text
    found = json.loads(mainspring("show", "monitor/watcher", "--json", cwd=watched.project).stdout)["monitor"]
    assert set(found) == {"reference", "evaluated", "performance", "alarms"}
    assert found["evaluated"]["reported"]["amount"]["psi"] > 0
    assert "region=south" in mainspring("show", "alert", cwd=watched.project).stdout


def test_a_source_that_stops_is_the_alarm_and_its_features_are_muted(watched: Served, browser: Browser) -> None:
    for day in (6, 7, 8):
        rows = visits(np.random.default_rng(day), 1, AFTER + timedelta(days=day))
        for row in rows:
            row["amount"] *= 2 if day == 7 else 1
        ask(watched, rows, push=day != 7)
    closed(watched, 7)
    found = page(watched)
    assert found["failing"] == ["source/visits"]
    (alarm,) = [alarm for alarm in found["alarms"] if alarm["features"] == ["source/visits"]]
    assert (alarm["state"], alarm["kind"]) == ("firing", "freshness")
    since = int((AFTER + timedelta(days=7)).timestamp() * 1e6)
    assert not [other for other in found["alarms"] if other["since"] == since and other["id"] != alarm["id"]]
    muted = {(score["feature"], score["state"]) for score in found["scores"] if score["kind"] == "location"}
    assert ("amount", "recorded") in muted
    assert "muted: source/visits failed" in mainspring("show", "monitor/watcher", cwd=watched.project).stdout
    for scheme in ("light", "dark"):
        shown = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        shown.goto(f"{watched.console}/monitors/watcher")
        shown.wait_for_load_state("networkidle")
        assert "failed in the block" in shown.locator("main").inner_text()
        violations = Axe().run(shown).response["violations"]
        shown.close()
        assert not [f"{v['id']}: {node['html'][:160]}" for v in violations for node in v["nodes"]]


def test_a_segment_more_trains_no_new_model(watched: Served, tmp_path: Path) -> None:
    copy = tmp_path / "sales"
    copy.mkdir()
    for name in ("mainspring.toml", "visits.parquet"):
        (copy / name).write_bytes((watched.project / name).read_bytes())
    (copy / "sales.py").write_text(APP.replace(", segments=[visits.region, visits.vip]", ""))
    mainspring("apply", cwd=copy)
    (copy / "sales.py").write_text(APP)
    steps = json.loads(mainspring("apply", "--json", cwd=copy).stdout)["steps"]
    states = {step["name"]: step["status"] for step in steps}
    assert states["model/returns"] == states["training_set/returns"] == states["version/returns"] == "hit"
    assert states["segments/returns"] == states["baseline/watcher"] == "ok"
