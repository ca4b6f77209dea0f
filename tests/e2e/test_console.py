"""The console in a real Chromium: every page, its JSON twin, the form, and no accessibility fault, light and dark."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from e2e.conftest import Served, call

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
    page.wait_for_load_state("networkidle")
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_accessibility_fault(served: Served, browser: Browser, path: str, scheme: str) -> None:
    page = opened(browser, served.console + path, scheme)
    found = Axe().run(page)
    faults = [f"{v['id']}: {node['html'][:160]}" for v in found.response["violations"] for node in v["nodes"]]
    page.close()
    assert not faults


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
    found = Axe().run(page)
    assert not found.response["violations"]
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


def test_slash_opens_the_palette(served: Served, browser: Browser) -> None:
    page = opened(browser, served.console)
    page.keyboard.press("/")
    page.get_by_label("Go to", exact=True).last.fill("model/ret")
    page.keyboard.press("Enter")
    page.wait_for_url("**/models/returns")
    page.close()


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
