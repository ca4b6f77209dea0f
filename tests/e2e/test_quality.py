"""Checks as users meet them: a refused build, rows set aside, a push that is 422, numbers, an alarm that ends."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, mainspring, serve

CHROMIUM = shutil.which("chromium")
APP = """
from datetime import datetime
import pandera.polars as pa
from mainspring import App, Entity, Record, avg, between, conforms, fresh, last, not_null, one_of, rows

HOT = pa.DataFrameSchema({"heat": pa.Column(float, pa.Check.lt(500), nullable=True)}, name="HOT")

app = App("sensors")
sensor = Entity("sensor")

class Reading(Record):
    sensor: str
    heat: float | None
    at: datetime

readings = app.source(
    Reading,
    time="at",
    checks=[
        between("heat", -50, 90, on_fail="quarantine"),
        one_of("sensor", ["a", "b", "c"]),
        rows(1),
        not_null("heat", on_fail="warn"),
        conforms(HOT, on_fail="warn"),
    ],
)
latest = app.features(readings, entity=sensor, heat=last("heat"), mean=avg("heat", "1h"), checks=[fresh("2h")])
"""
SETTINGS = """
app = "app:app"
[sources.readings]
path = "readings.csv"
[profiles.dev]
monitoring.every = 0.2
management.enabled = true
management.expose = ["health", "prometheus"]
console.enabled = true
"""


def ago(hours: float) -> str:
    return (datetime.now(UTC) - timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")


def write(project: Path, *rows: str) -> None:
    (project / "readings.csv").write_text("\n".join(["sensor,heat,at", *rows, ""]))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sensors")
    (folder / "app.py").write_text(APP)
    (folder / "mainspring.toml").write_text(SETTINGS)
    return folder


@pytest.fixture(scope="module")
def served(project: Path) -> Iterator[Served]:
    write(project, f"a,20,{ago(9)}", f"z,21,{ago(8)}", f"b,400,{ago(8)}")
    refused = mainspring("apply", cwd=project, status=1)
    told = refused.stdout + refused.stderr
    assert "MS-2180" in told
    assert "one_of(sensor, 'a', 'b', 'c'): 1 of 2 rows; (sensor z, heat 21.0" in told
    shown = json.loads(mainspring("show", "source/readings", "--json", cwd=project).stdout)
    assert (shown["table"], shown["quality"]["checks"]["refused"]) == (None, True)
    write(project, f"a,20,{ago(9)}", f"b,400,{ago(8)}", f"c,,{ago(7)}")
    mainspring("apply", cwd=project)
    found = serve(project, "serve")
    try:
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


def metrics(served: Served) -> dict[str, dict[tuple[str, ...], float]]:
    page = call(f"{served.console}/actuator/prometheus")[1].decode()
    return {
        family.name: {tuple(value for _, value in sorted(s.labels.items())): s.value for s in family.samples}
        for family in text_string_to_metric_families(page)
    }


def until(read: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not read():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_what_checks_found_is_shown_and_counted(served: Served) -> None:
    shown = json.loads(mainspring("show", "source/readings", "--json", cwd=served.project).stdout)
    states = {one["check"]: one["state"] for one in shown["quality"]["checks"]["checks"]}
    assert states == {
        "between(heat, -50, 90)": "set_aside",
        "one_of(sensor, 'a', 'b', 'c')": "ok",
        "not_null(heat)": "warned",
        "rows(least=1)": "ok",
        "conforms(HOT)": "ok",
    }
    text = mainspring("show", "source/readings", cwd=served.project).stdout
    assert "set aside  between(heat, -50, 90)  1 of 3 rows" in text
    assert "heat is not between -50 and 90: sensor b, heat 400.0" in text
    failures = "mainspring_check_failures"
    wanted = ("sensors", "between(heat, -50, 90)", "source/readings", "quarantine")
    until(lambda: any(set(labels) == set(wanted) for labels in metrics(served).get(failures, {})))
    counted = {frozenset(labels): value for labels, value in metrics(served)[failures].items()}
    assert counted[frozenset(wanted)] == 2, "the refused batch had it too"
    assert counted[frozenset(("sensors", "one_of(sensor, 'a', 'b', 'c')", "source/readings", "refuse"))] == 1
    page = json.loads(call(f"{served.console}/data/source/readings.json")[1])
    assert page["quality"]["batch"]["checks"] == shown["quality"]["checks"]["checks"]
    assert page["quarantine"]["reasons"] == {"heat is not between -50 and 90": 1}


def alarms(served: Served) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(call(f"{served.console}/data/feature_view/latest.json")[1])["alarms"]
    return found


def test_a_view_that_is_too_old_has_an_alarm_until_it_is_not(served: Served) -> None:
    until(lambda: bool(alarms(served)))
    (alarm,) = alarms(served)
    assert (alarm["kind"], alarm["state"], alarm["features"]) == ("freshness", "firing", ["feature_view/latest"])
    ages = metrics(served)["mainspring_feature_age_seconds"]
    assert 6.9 * 3600 < ages["sensors", "event", "latest"] < 9 * 3600
    assert 0 <= ages["sensors", "commit", "latest"] < 3600
    assert metrics(served)["mainspring_feature_age_limit_seconds"]["sensors", "latest"] == 7200
    assert "alarm: freshness, firing" in mainspring("show", "feature_view/latest", cwd=served.project).stdout
    at = f"{served.console}/data/feature_view/latest/alerts/{alarm['id']}"
    status, answer, _ = call(f"{at}/acknowledge", b"by=Ada", {"accept": "application/json"})
    assert (status, json.loads(answer)["acked_by"]) == (200, "Ada")
    assert call(f"{served.console}/data/source/nothing/alerts/{alarm['id']}/mute", b"for=1h")[0] == 404
    body = {"rows": [{"sensor": "a", "heat": 30.0, "at": ago(0)}]}
    assert call(f"{served.url}/sources/readings/push", body)[0] == 200
    until(lambda: not alarms(served))
    assert metrics(served)["mainspring_feature_age_seconds"]["sensors", "event", "latest"] < 3600


def test_a_push_is_refused_or_set_aside_by_the_same_checks(served: Served) -> None:
    rows = [{"sensor": "a", "heat": 31.0, "at": ago(0)}, {"sensor": "y", "heat": 1.0, "at": ago(0)}]
    status, body, _ = call(f"{served.url}/sources/readings/push", {"rows": rows})
    told = json.loads(body)
    assert (status, told["code"]) == (422, "MS-2180")
    assert "1 of 2 rows; (sensor y" in told["why"]
    rows[1] = {"sensor": "b", "heat": -300.0, "at": ago(0)}
    status, body, _ = call(f"{served.url}/sources/readings/push", {"rows": rows})
    assert status == 200
    assert (json.loads(body)["accepted"], json.loads(body)["quarantined"]) == (1, 1)
    deadline = time.monotonic() + 60
    while True:  # what was set aside is written with the next commit
        shown = json.loads(mainspring("show", "source/readings", "--json", cwd=served.project).stdout)
        assert shown["quality"]["pushed"]["refused"] is True
        if shown["table"]["set_aside"]["rows"] == 2:
            break
        assert time.monotonic() < deadline, shown["table"]
    counted = {frozenset(labels): value for labels, value in metrics(served)["mainspring_check_failures"].items()}
    assert counted[frozenset(("sensors", "between(heat, -50, 90)", "source/readings", "quarantine"))] == 3
    assert counted[frozenset(("sensors", "one_of(sensor, 'a', 'b', 'c')", "source/readings", "refuse"))] == 2


def test_a_view_is_asked_about_an_entity_and_a_moment(served: Served) -> None:
    def asked(query: str) -> dict[str, object]:
        status, body, _ = call(f"{served.console}/data/feature_view/latest.json?{query}")
        assert status == 200
        found: dict[str, object] = json.loads(body)["preview"]
        return found

    assert asked("")["answer"] is None
    now = cast("dict[str, Any]", asked("sensor=c")["answer"])
    assert (now["status"], now["online_status"]) == ("PRESENT", "PRESENT")
    assert [(one["name"], one["of"], one["then"], one["online"]) for one in now["features"]] == [
        ("heat", "last(heat)", None, None),
        ("mean", "avg(heat, 1h)", None, None),
    ]
    past = cast("dict[str, Any]", asked(f"sensor=a&at={ago(8.5)}")["answer"])
    assert (past["status"], past["online_status"]) == ("PRESENT", None)
    assert [(one["name"], one["then"], one["now"]) for one in past["features"]] == [
        ("heat", 20.0, 20.0),
        ("mean", 20.0, 20.0),
    ]
    assert "which is no timestamp" in str(asked("sensor=a&at=yesterday")["error"])
    text = call(f"{served.console}/data/feature_view/latest?sensor=a", headers={"accept": "text/html"})[1].decode()
    assert "As known then" in text


def test_the_values_of_a_column_are_counted(served: Served) -> None:
    def looked(kind: str, column: str) -> dict[str, Any] | None:
        status, body, _ = call(f"{served.console}/data/{kind}.json?column={column}")
        assert status == 200
        found: dict[str, Any] | None = json.loads(body)["distribution"]
        return found

    text = looked("source/readings", "sensor")
    assert text is not None
    assert text["rows"] == sum(cell["rows"] for cell in text["cells"])
    assert {"a", "c"} <= {cell["from"] for cell in text["cells"]} <= {"a", "b", "c"}
    heat = looked("feature_view/latest", "heat")
    assert heat is not None
    assert heat["nulls"] == 1
    assert 19 <= heat["cells"][0]["from"] <= 20
    assert sum(cell["rows"] for cell in heat["cells"]) == heat["rows"] - 1
    assert looked("source/readings", "nothing") is None
    assert looked("source/readings", "at") is not None


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_a_source_shows_it_without_a_fault(served: Served, scheme: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
        page.goto(f"{served.console}/data/source/readings")
        assert page.get_by_role("heading", name="Checks").count() == 1
        assert page.get_by_text("between(heat, -50, 90)").count() >= 2
        assert not Axe().run(page).response["violations"]
        page.goto(f"{served.console}/data/source/readings?column=heat")
        bars = page.locator("svg.histogram rect")
        heights = [float(bars.nth(place).get_attribute("height") or 0) for place in range(bars.count())]
        counts = [int(text) for text in page.locator("#values tbody td.n").all_text_contents()]
        assert heights == pytest.approx([100 * count / max(counts) for count in counts], abs=0.01)
        assert page.get_by_role("img", name="heat").count() == 1
        assert not Axe().run(page).response["violations"]
        page.goto(f"{served.console}/data/feature_view/latest?sensor=a")
        page.get_by_label("sensor").fill("b")
        page.get_by_role("button", name="Ask").click()
        assert page.get_by_role("columnheader", name="Online").count() == 1
        assert not Axe().run(page).response["violations"]
        browser.close()
