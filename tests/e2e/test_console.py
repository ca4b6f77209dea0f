"""The console in a real Chromium: every page, its JSON twin, the form, and no accessibility fault, light and dark."""

from __future__ import annotations

import hashlib
import html
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from e2e.conftest import Served, call, mainspring, serve
from mainspring.catalog.ids import new_id, now_us
from mainspring.choose.services import Services
from mainspring.ports.catalog import Alert

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
PAGES = (
    "/",
    "/runs",
    "/data",
    "/data/source/visits",
    "/data/feature_view/habits",
    "/models",
    "/models/returns",
    "/serving",
    "/monitors",
    "/monitors/returns",
    "/conditions",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def opened(browser: Browser, url: str, scheme: str = "light") -> Page:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else None)
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200, url
    expect(page.locator(".chart:empty")).to_have_count(0)  # all that is drawn after the page has come
    return page


def faults(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:160]}" for v in found for node in v["nodes"]]


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_accessibility_fault(served: Served, browser: Browser, path: str) -> None:
    page = opened(browser, served.console + path)
    light = faults(page)
    page.emulate_media(color_scheme="dark")
    dark = faults(page)
    page.close()
    assert (light, dark) == ([], [])


@pytest.mark.parametrize("path", PAGES)
def test_every_page_has_a_json_twin(served: Served, path: str) -> None:
    twin = "/index.json" if path == "/" else f"{path}.json"
    status, body, headers = call(served.console + twin)
    assert status == 200
    assert headers["content-type"].startswith("application/json")
    assert json.loads(body)


def test_a_run_shows_its_steps_and_logs(served: Served, browser: Browser) -> None:
    page = opened(browser, f"{served.console}/runs")
    page.locator("main table a").last.click()
    page.wait_for_load_state("networkidle")
    assert page.locator(".timeline .bar").count() >= 8
    assert page.get_by_text("training_set/returns").count() >= 1
    assert not faults(page)
    page.close()


def test_the_form_asks_the_endpoint(served: Served, browser: Browser) -> None:
    page = opened(browser, f"{served.console}/serving")
    page.get_by_label("customer").fill("c01")
    page.get_by_label("amount").fill("20")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("#answer-returns pre")
    answer = json.loads(page.locator("#answer-returns pre").inner_text())
    assert 0 <= answer["score"] <= 1
    assert answer["features"]["amount"] == 20
    page.close()


def test_the_form_works_with_scripts_off(served: Served, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{served.console}/serving")
    page.get_by_label("customer").fill("c01")
    page.get_by_label("amount").fill("20")
    page.get_by_role("button", name="Ask").click()
    assert "score" in page.locator("pre").inner_text()
    context.close()


@pytest.fixture
def alarm(served: Served) -> Iterator[Alert]:
    """An open alarm of the template's monitor, as the monitor itself would raise it."""
    catalog = Services.of_project(served.project).catalog
    found = Alert(
        new_id(), new_id()[:16], "returns", "customer=c01", "shape", "firing", 5, now_us(), 9.5, 4.0, 0.25, ("amount",)
    )
    catalog.open_alert(found)
    try:
        yield found
    finally:
        for alert in catalog.alerts(open_only=True, monitor="returns"):
            if alert.id == found.id:
                catalog.move_alert(msgspec.structs.replace(alert, state="resolved", resolved=now_us()), alert.state)
        catalog.close()


def state_of(served: Served, alarm: Alert) -> dict[str, object]:
    rows = json.loads(call(f"{served.console}/monitors/returns.json")[1])["alarms"]
    found: dict[str, object] = next(row for row in rows if row["id"] == alarm.id)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_alarm_is_acknowledged_and_muted_with_scripts_off(
    served: Served, browser: Browser, alarm: Alert, scheme: str
) -> None:
    shown = opened(browser, f"{served.console}/monitors/returns", scheme)
    assert not faults(shown)
    shown.close()
    context = browser.new_context(java_script_enabled=False, color_scheme=scheme)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{served.console}/monitors/returns")
    page.get_by_label("Your name, to acknowledge shape of amount in customer=c01").fill("Ada")
    page.get_by_role("button", name="Acknowledge shape of amount").click()
    assert page.url == f"{served.console}/monitors/returns"
    assert "acknowledged by Ada" in page.locator("main").inner_text()
    page.get_by_label("How long to mute shape of amount").select_option("4h")
    page.get_by_role("button", name="Mute shape of amount").click()
    assert "muted until" in page.locator("main").inner_text()
    context.close()
    found = state_of(served, alarm)
    assert (found["state"], found["acked_by"]) == ("muted", "Ada")
    left = int(str(found["muted_until"])) - now_us()
    assert 3.9 * 3_600_000_000 < left <= 4 * 3_600_000_000
    shown = opened(browser, f"{served.console}/monitors/returns", scheme)
    assert not faults(shown)
    shown.close()


def test_a_program_acknowledges_an_alarm_and_is_told_why_not(served: Served, alarm: Alert) -> None:
    at, plain = f"{served.console}/monitors/returns/alerts/{alarm.id}", {"Accept": "application/json"}
    status, body, _ = call(f"{at}/acknowledge", b"by=ci", plain)
    assert (status, json.loads(body)["state"], json.loads(body)["acked_by"]) == (200, "acknowledged", "ci")
    assert call(f"{at}/mute", b"for=soon", plain)[0] == 400
    assert call(f"{at}/forget", b"", plain)[0] == 404
    assert call(f"{served.console}/monitors/nothing/alerts/{alarm.id}/mute", b"for=1h", plain)[0] == 404
    status, body, _ = call(f"{served.console}/monitors/returns/alerts/nothing/acknowledge", b"", plain)
    assert (status, "no open alarm" in json.loads(body)["error"]) == (409, True)
    assert call(f"{at}/mute")[0] == 405


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://elsewhere.example"}])
def test_a_form_of_another_site_is_refused(served: Served, alarm: Alert, headers: dict[str, str]) -> None:
    assert call(f"{served.console}/monitors/returns/alerts/{alarm.id}/mute", b"for=1h", headers)[0] == 403
    assert call(f"{served.console}/serving/returns/try", b"customer=c01&amount=1", headers)[0] == 403
    assert state_of(served, alarm)["state"] == "firing"


def test_slash_opens_the_palette(served: Served, browser: Browser) -> None:
    page = opened(browser, served.console)
    page.keyboard.press("/")
    page.get_by_label("Go to", exact=True).last.fill("model/ret")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/returns")
    page.close()


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("/source/visits", "/data/source/visits"),
        ("/feature_view/habits", "/data/feature_view/habits"),
        ("/model/returns", "/models/returns"),
        ("/endpoint/returns", "/serving#returns"),
        ("/monitor/returns", "/monitors/returns"),
        ("/run/RUN", "/runs/RUN"),
    ],
)
def test_every_object_has_the_url_that_the_command_line_calls_it_by(
    served: Served, browser: Browser, url: str, page: str
) -> None:
    run = json.loads(call(f"{served.console}/runs.json")[1])["runs"][0]["id"]
    shown = opened(browser, served.console + url.replace("RUN", run))
    assert shown.url == served.console + page.replace("RUN", run)
    shown.close()
    plain = page.replace("RUN", run).partition("#")[0]
    assert call(f"{served.console}{url.replace('RUN', run)}.json")[1] == call(f"{served.console}{plain}.json")[1]
    assert call(f"{served.console}{url[:-1]}x")[0] == 404


def test_the_data_pages_tell_rows_quarantine_builds_and_lineage(built: Path, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(built, project, ignore=shutil.ignore_patterns("dev.lock", "server.log", ".mainspring"))
    visits = project / "data" / "visits.csv"
    lines = visits.read_text().splitlines()
    head, broken = lines[0].split(","), lines[1].split(",")
    broken[head.index("amount")] = "-1"
    visits.write_text("\n".join([*lines, ",".join(broken)]) + "\n")
    mainspring("apply", cwd=project)
    mainspring("apply", cwd=project)
    found = serve(project)
    try:
        items = {item["name"]: item for item in json.loads(call(f"{found.console}/data.json")[1])["items"]}
        held = items["visits"]["held"]
        assert (held["rows"], held["quarantined"]) == (len(lines) - 1, 1)
        assert {item["status"] for item in items.values()} == {"hit"}
        assert all(item["built"] < item["looked"] for item in items.values())
        row = {"customer": "new", "amount": 12.5, "at": "2025-12-05T10:00:00Z", "returned": None}
        assert call(f"{found.url}/sources/visits/push", {"rows": [row]})[0] == 200
        deadline = time.monotonic() + 60
        while True:  # a push is acknowledged before it is in the table
            after = json.loads(call(f"{found.console}/data/source/visits.json")[1])["held"]
            if after["rows"] == held["rows"] + 1:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = call(f"{found.console}/data/source/visits", headers={"Accept": "text/html"})[1].decode()
        assert '<a class="id" href="/feature_view/habits">/feature_view/habits</a>' in shown
        assert '<a class="id" href="/model/returns">/model/returns</a>' in shown
        aside = json.loads(call(f"{found.console}/data/source/visits.json")[1])["quarantine"]
        (reason,) = aside["reasons"]
        assert (aside["rows"], aside["reasons"][reason]) == (1, 1)
        assert aside["last"][0]["amount"] == "-1.0"
        assert html.escape(reason) in shown
        assert '<td title="-1.0">-1.0</td>' in shown
        visits.write_bytes(b"customer,amount\n\xff\xfe,1\n")
        mainspring("apply", cwd=project, status=1)
        failed = json.loads(call(f"{found.console}/data/source/visits.json")[1])
        assert failed["status"] == "failed"
        left = failed["held"]["rows"] + failed["held"]["waiting"]
        assert left >= held["rows"] + 1, "what was built before is still there"
    finally:
        assert found.stop() == 0, found.log.read_text()


def test_pages_that_are_not_there(served: Served) -> None:
    assert call(f"{served.console}/models/nothing")[0] == 404
    assert call(f"{served.console}/runs/00000000000000000000000000000000.json")[0] == 404


def test_the_policy_lets_nothing_else_in(served: Served) -> None:
    _, body, headers = call(served.console, headers={"Accept": "text/html"})
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert b"http://" not in body.replace(b"http://www.w3.org", b"")


def test_vendored_files_are_the_pinned_ones() -> None:
    folder = Path(__file__).parents[2] / "src/mainspring/console/static/vendor"
    pinned = dict(reversed(line.split()) for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {path.name for path in folder.iterdir()} - {"SHA256SUMS", "LICENSES.txt"}
    assert found == set(pinned)
    for name, digest in pinned.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
