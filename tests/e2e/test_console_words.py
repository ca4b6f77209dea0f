"""What answers in words, on the console in a real Chromium: indexes, engines, chat with sources, decisions, traces."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from e2e.conftest import Served, call, mainspring, serve

CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
APP = '''
from mainspring import App

app = App("desk")
chat, backup = app.llm("chat", max_tokens=200), app.llm("backup")
first = chat.route(backup)
greeting = app.prompt("Greet {{ who }} warmly.", llm=chat, variables={"who": str})
manuals = app.documents("manuals/", access=lambda path, metadata: ["group:staff"] if "/" in path else ["public"])
library = app.index(manuals)


@app.tool(timeout="5s")
def order_status(order_id: int) -> str:
    """Where an order is now."""
    return f"order {order_id} is on its way"


@app.tool(approve=True)
def refund(order_id: int) -> str:
    """Give the money back."""
    return f"refunded {order_id}"


help_desk = app.assistant("help_desk", chat, knows=[library], may=[order_status, refund])


@app.evaluation(help_desk, cases="evals/questions.jsonl", least={"grounded": 0.7})
def grounded(answer, case) -> bool:
    return case["must_cite"] in answer.sources


app.endpoint(help_desk)
app.endpoint(first)
app.monitor(help_desk, watch=["grounded", "latency"])
'''
TOML = """
app = "desk:app"
[llms.chat]
adapter = "fake"
script = "script.json"
[llms.backup]
adapter = "fake"
[prices.chat]
input = 1000000
output = 2000000
"""
SLOW = [f"word{place} " for place in range(400)]
SCRIPT = [
    {"when": "^refunded", "text": "The money is on its way."},
    {"when": "operator refused", "text": "Then not."},
    {"when": "my money", "calls": [{"name": "refund", "arguments": {"order_id": 7}}]},
    {"when": "where is order", "calls": [{"name": "order_status", "arguments": {"order_id": 7}}], "times": 1},
    {"when": "on its way", "text": "It is on its way."},
    {"when": "slowly", "pieces": SLOW, "pace": 0.1},
    {"when": "boom", "text": "It goes", "error": "upstream", "after": 1},
    {"when": "valve", "text": "Turn the red valve [1]."},
]
PAGES = (
    "/",
    "/assistants",
    "/assistants/help_desk",
    "/assistants/chat",
    "/assistants/first",
    "/index/library",
    "/documents/manuals",
    "/llm/chat",
    "/route/first",
    "/prompt/greeting",
    "/tool/refund",
    "/evaluation/grounded",
    "/serving",
    "/monitors/help_desk",
)
TEXT = {"Accept": "text/html"}
PLAIN = {"Accept": "application/json"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("projects") / "desk"
    (project / "manuals" / "inner").mkdir(parents=True)
    (project / "evals").mkdir()
    (project / "desk.py").write_text(APP)
    (project / "mainspring.toml").write_text(TOML)
    (project / "script.json").write_text(json.dumps(SCRIPT))
    (project / "evals" / "questions.jsonl").write_text('{"question": "Which valve?", "must_cite": "pump.md"}\n')
    (project / "manuals" / "pump.md").write_text("# The pump\n\n## Starting\n\nTurn the red valve to start the pump.\n")
    (project / "manuals" / "fan.html").write_text("<h1>The fan</h1><p>The fan has a blue switch at the back.</p>")
    (project / "manuals" / "inner" / "salaries.md").write_text("# Salaries\n\nThe pump engineer earns 5,000 a month.\n")
    (project / "manuals" / "broken.pdf").write_bytes(b"%PDF-1.7 not a real one")
    mainspring("apply", cwd=project)
    found = serve(project)
    try:
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


def opened(browser: Browser, url: str, scheme: str = "light") -> Page:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1280, "height": 900})  # type: ignore[arg-type]
    page.on("console", lambda message: pytest.fail(message.text) if message.type == "error" else None)
    answer = page.goto(url)
    assert answer is not None
    assert answer.status == 200, url
    expect(page.locator(".chart:empty")).to_have_count(0)  # all that is drawn after the page has come
    return page


def faults(page: Page) -> list[str]:
    found = Axe().run(page).response["violations"]
    return [f"{v['id']}: {node['html'][:160]}" for v in found for node in v["nodes"]]


def twin(desk: Served, path: str) -> Any:
    status, body, headers = call(f"{desk.console}{path}", headers=PLAIN)
    assert status == 200, body
    assert headers["content-type"].startswith("application/json")
    return json.loads(body)


def said(desk: Served, name: str, question: str, **fields: str) -> Any:
    form = urlencode({"question": question, **fields}).encode()
    status, body, _ = call(f"{desk.console}/assistants/{name}/talk", form, PLAIN)
    assert status == 200, body
    return json.loads(body)


def until(found: Callable[[], Any]) -> Any:
    """What is found as soon as it is: records are written a moment after the answer."""
    deadline = time.monotonic() + 30
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return value


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_an_accessibility_fault(desk: Served, browser: Browser, path: str) -> None:
    page = opened(browser, desk.console + path)
    light = faults(page)
    page.emulate_media(color_scheme="dark")
    dark = faults(page)
    page.close()
    assert (light, dark) == ([], [])


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window(desk: Served, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    wide = {}
    for path in (*PAGES, "/runs", "/data", "/models", "/monitors", "/conditions"):
        page.goto(desk.console + path, wait_until="load")
        if (found := page.evaluate("document.documentElement.scrollWidth")) > width:
            wide[path] = found
    page.close()
    assert not wide


def test_what_is_empty_says_why_and_values_are_not_written_as_code_writes_them(desk: Served) -> None:
    told = {path: call(desk.console + path, headers=TEXT)[1].decode() for path in ("/data", *PAGES[1:])}
    assert "declares no source and no feature view" in told["/data"]
    assert "no block of answers is complete" in told["/monitors/help_desk"]
    for path, page in told.items():
        for table in page.split("<tbody>")[1:]:
            assert table.partition("</tbody>")[0].strip(), path
        declared = page.partition("<h2>Declared as</h2>")[2].partition("</table>")[0]
        assert not re.search(r"True|False|None|&#39;", declared), (path, declared)
    assert "who: str</div>" in told["/prompt/greeting"]


@pytest.mark.parametrize("path", PAGES[1:])
def test_every_page_has_a_json_twin(desk: Served, path: str) -> None:
    status, body, headers = call(f"{desk.console}{path}.json", headers=TEXT)
    assert (status, headers["content-type"].split(";")[0]) == (200, "application/json")
    assert json.loads(body)


def test_everything_declared_is_in_the_graph_and_at_its_own_url(desk: Served, browser: Browser) -> None:
    nodes = {node["url"]: node for node in twin(desk, "/index.json")["nodes"]}
    assert {url.split("/")[1] for url in nodes} == {
        *("llm", "route", "prompt", "documents", "index", "tool", "assistant", "evaluation", "endpoint", "monitor")
    }
    for url in nodes:
        assert call(desk.console + url, headers=TEXT)[0] == 200, url
        assert call(f"{desk.console}{url}x", headers=TEXT)[0] == 404, url
    states = {url: node["state"] for url, node in nodes.items()}
    assert states["/index/library"] == "warn"
    assert nodes["/index/library"]["why"] == "version 1 answers; 1 files put aside"
    assert nodes["/llm/chat"]["why"] == "fake answers as fake"
    assert {states[url] for url in ("/llm/chat", "/route/first", "/assistant/help_desk", "/endpoint/first")} == {"ok"}
    assert (states["/evaluation/grounded"], nodes["/evaluation/grounded"]["why"]) == ("none", "not run yet")
    page = opened(browser, desk.console)
    page.get_by_role("link", name="index library: warn, version 1 answers; 1 files put aside").click()
    assert page.url == f"{desk.console}/index/library"
    page.close()


def test_an_index_tells_versions_moves_and_files_put_aside(desk: Served) -> None:
    page = twin(desk, "/index/library")
    assert (page["live"], page["documents"], page["chunks"]) == (1, 3, 3)
    (version,) = page["versions"]
    assert (version["version"], version["state"], version["answers"], version["rows"]) == (1, "live", True, 3)
    (move,) = page["moves"]
    assert (move["version"], move["reason"]) == (1, "first")
    run = move["by"].removeprefix("run ")
    assert call(f"{desk.console}/runs/{run}", headers=TEXT)[0] == 200
    (aside,) = page["aside"]["files"]
    assert (page["aside"]["count"], aside["uri"], aside["older"]) == (1, "broken.pdf", False)
    assert aside["why"].startswith("corrupt")
    (inside,) = twin(desk, "/documents/manuals")["indexes"]
    assert (inside["documents"], inside["aside"]["count"]) == (3, 1)
    assert twin(desk, "/documents/manuals")["folder"] == "manuals"


@pytest.mark.parametrize("scripts", [True, False])
def test_the_search_form_finds_what_the_named_caller_may_see(desk: Served, browser: Browser, scripts: bool) -> None:
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"{desk.console}/index/library")
    page.get_by_label("Query").fill("what does the pump engineer earn")
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#found .hits")
    found = page.locator("#found").inner_text()
    assert "The pump \u203a Starting" in found
    assert "by meaning" in found
    assert "5,000" not in found
    assert "fewer than k" in found
    assert "As public:" in found
    page.locator("summary", has_text="As anybody").click()
    page.get_by_label("user", exact=True).fill("ada")
    page.get_by_label("groups").fill("staff, sales")
    page.get_by_role("button", name="Search").click()
    page.wait_for_selector("#found :text('5,000')")
    assert "As group:sales, group:staff, public, user:ada:" in page.locator("#found").inner_text()
    assert "groups=staff" in page.url
    if scripts:
        assert not faults(page)
    context.close()


def test_a_search_as_data(desk: Served) -> None:
    asked = urlencode({"q": "pump engineer", "k": "2", "groups": "staff"})
    answer = twin(desk, f"/index/library.json?{asked}")["search"]["answer"]
    assert [hit["uri"] for hit in answer["hits"]] == ["inner/salaries.md", "pump.md"]
    assert (answer["complete"], answer["notes"]) == (True, [])
    assert answer["hits"][0]["ranks"]["text"] == 1
    words = twin(desk, f"/index/library.json?{asked}&mode=text")["search"]["answer"]["hits"]
    assert all(hit["ranks"]["dense"] is None for hit in words)
    assert twin(desk, "/index/library.json?q=+&k=nonsense")["search"]["answer"] is None
    assert len(twin(desk, "/index/library.json?q=pump&k=0")["search"]["answer"]["hits"]) == 1


def test_a_model_s_page_has_its_requests_from_the_record(desk: Served) -> None:
    before = twin(desk, "/llm/chat")
    asked = {"model": "first", "messages": [{"role": "user", "content": "which valve?"}]}
    assert call(f"{desk.url}/v1/chat/completions", asked)[0] == 200
    broken = {"model": "first", "messages": [{"role": "user", "content": "boom"}], "stream": True}
    assert call(f"{desk.url}/v1/chat/completions", broken)[0] == 200
    known = {row["id"] for row in before["calls"]}

    def both() -> Any:
        page = twin(desk, "/llm/chat")
        fresh = [row for row in page["calls"] if row["id"] not in known]
        return (page, fresh) if len(fresh) == 2 else None

    page, (failed, whole) = until(both)
    assert (whole["status"], whole["endpoint"], whole["api"], whole["upstream"]) == ("ok", "first", "chat", "chat")
    assert (failed["status"], failed["error_kind"]) == ("error", "upstream")
    assert whole["completion_tokens"] == 8
    assert whole["cost_micro"] == whole["prompt_tokens"] + 2 * whole["completion_tokens"]
    assert 0 < whole["ttft_us"] <= whole["total_us"]
    was = before["days"][0] if before["days"] else dict.fromkeys(("requests", "errors", "cost_micro"), 0)
    now = page["days"][0]
    assert (now["requests"] - was["requests"], now["errors"] - was["errors"]) == (2, 1)
    assert now["cost_micro"] - was["cost_micro"] == whole["cost_micro"] + failed["cost_micro"]
    assert {row["id"] for row in twin(desk, "/route/first")["calls"]} >= {whole["id"], failed["id"]}
    (engine,) = page["models"]
    assert (engine["state"], engine["adapter"], engine["context"]) == ("ready", "fake", 4096)
    assert "chat" in engine["can"]
    assert twin(desk, "/llm/backup")["calls"] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_answer_comes_with_its_sources_beside_it_and_its_trace(desk: Served, browser: Browser, scheme: str) -> None:
    page = opened(browser, f"{desk.console}/assistants/help_desk", scheme)
    page.get_by_label("Question").fill("Which valve starts the pump?")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector(".turn details.trace")
    turn = page.locator(".turn")
    assert turn.locator(".said > .answer").inner_text() == "Turn the red valve [1]."
    first = turn.locator(".sources li").first
    assert "The pump" in first.inner_text()
    assert "cited" in first.inner_text()
    answer, sources = turn.locator(".said").bounding_box(), turn.locator(".sources").bounding_box()
    assert answer is not None
    assert sources is not None
    assert sources["x"] >= answer["x"] + answer["width"]
    assert sources["y"] < answer["y"] + answer["height"]
    turn.locator("details.trace summary").click()
    spans = turn.locator("ul.tree ul.tree > li").all_inner_texts()
    assert spans[0].startswith("retrieval library")
    assert spans[-1].startswith("model chat")
    assert not faults(page)
    page.get_by_label("Question").fill("And the valve again?")
    page.get_by_role("button", name="Ask").click()
    page.locator("details.trace").nth(1).wait_for()
    history = json.loads(page.locator("main section > form.talk [name=history]").input_value())
    assert [one["role"] for one in history] == ["user", "assistant"] * 2
    page.locator(".turn").last.locator("details.trace summary").click()
    page.locator(".turn").last.locator("a[href^='/trace/']").click()
    page.wait_for_url("**/trace/*")
    assert "retrieval library" in page.locator("main").inner_text()
    assert not faults(page)
    record = twin(desk, page.url.removeprefix(desk.console))
    run, *below = record["turn"]["spans"]
    assert (run["parent"], {span["parent"] for span in below}) == (None, {0})
    assert all(0 <= span["start_us"] <= run["duration_us"] for span in below)
    page.close()


def test_what_a_caller_may_not_see_is_no_source(desk: Served) -> None:
    asked = "What does the engineer at the valve earn?"
    seen = {source["uri"] for source in said(desk, "help_desk", asked)["sources"]}
    staff = {source["uri"] for source in said(desk, "help_desk", asked, user="ada", groups="staff")["sources"]}
    assert "pump.md" in seen
    assert staff - seen == {"inner/salaries.md"}


def test_stop_stops_the_model(desk: Served, browser: Browser) -> None:
    page = opened(browser, f"{desk.console}/assistants/chat")
    assert not page.get_by_role("button", name="Stop").is_visible()
    page.get_by_label("Question").fill("count slowly")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector(".answer:has-text('word3')")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".turn :text('stopped: not part of the conversation')")
    assert page.get_by_role("button", name="Ask").is_enabled()
    assert page.locator("[name=history]").input_value() == "[]"
    page.close()
    (row,) = until(lambda: [row for row in twin(desk, "/llm/chat")["calls"] if row["status"] == "left"])
    assert row["completion_tokens"] < len(SLOW)
    assert until(lambda: [run for run in twin(desk, "/assistants/chat")["runs"] if run["question"] == "count slowly"])


def test_a_conversation_with_scripts_off(desk: Served, browser: Browser) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{desk.console}/assistants/first")
    for question in ("which valve?", "is that <b>the</b> 'red' valve?"):
        page.get_by_label("Question").fill(question)
        page.get_by_role("button", name="Ask").click()
    shown = page.locator("#turns").inner_text()
    assert shown.count("Turn the red valve [1].") == 2
    assert "is that <b>the</b> 'red' valve?" in shown
    history = json.loads(page.locator("[name=history]").input_value())
    assert [one["content"] for one in history[::2]] == ["which valve?", "is that <b>the</b> 'red' valve?"]
    page.get_by_label("Question").fill("boom")
    page.get_by_role("button", name="Ask").click()
    assert "MS-4301" in page.locator("#turns").inner_text()
    assert json.loads(page.locator("[name=history]").input_value()) == history
    page.get_by_role("link", name="JSON").click()
    assert page.url.endswith("/assistants/first.json")
    context.close()


@pytest.mark.parametrize(
    ("scripts", "word", "answer"),
    [(True, "approve", "The money is on its way."), (True, "reject", "Then not."), (False, "approve", "The money is")],
)
def test_a_person_decides_what_is_carried_out(
    desk: Served, browser: Browser, scripts: bool, word: str, answer: str
) -> None:
    context = browser.new_context(java_script_enabled=scripts)
    page = context.new_page()
    page.goto(f"{desk.console}/assistants/help_desk")
    page.get_by_label("Question").fill("I want my money back")
    page.get_by_role("button", name="Ask").click()
    page.wait_for_selector("select[name=decision-0]")
    assert "refund(order_id=7)" in page.locator(".turn form").inner_text()
    if scripts:
        assert not faults(page)
    page.get_by_label("Decide on refund").select_option(word)
    page.get_by_role("button", name="Decide").click()
    page.wait_for_selector(f".answer:has-text('{answer}')")
    page.get_by_role("button", name="Decide").wait_for(state="detached")
    context.close()


def test_a_tool_s_call_and_result_are_shown(desk: Served) -> None:
    told = said(desk, "help_desk", "where is order 7?")
    assert [one["name"] for one in told["calls"]] == ["order_status"]
    assert told["tools"][0]["content"] == "order 7 is on its way"
    shown = call(f"{desk.console}/trace/{told['run']}", headers=TEXT)[1].decode()
    assert "<code>order_status(order_id=7)</code>" in shown
    kinds = {span["id"]: span for span in twin(desk, f"/trace/{told['run']}")["turn"]["spans"]}
    (tool,) = [span for span in kinds.values() if span["kind"] == "tool"]
    assert kinds[tool["parent"]]["kind"] == "model"


def test_what_is_refused(desk: Served) -> None:
    talk = f"{desk.console}/assistants/help_desk/talk"
    ask = b"question=valve"
    assert call(talk, ask, {**PLAIN, "Sec-Fetch-Site": "cross-site"})[0] == 403
    assert call(talk, ask, {**PLAIN, "Origin": "https://elsewhere.example"})[0] == 403
    assert call(talk, b"question=+", PLAIN)[0] == 400
    assert call(talk, ask + b"&history=nonsense", PLAIN)[0] == 400
    assert (
        call(talk, ask + b"&history=" + urlencode({"": '[{"role":"system","content":"x"}]'})[1:].encode(), PLAIN)[0]
        == 400
    )
    assert call(f"{desk.console}/assistants/nobody/talk", ask, PLAIN)[0] == 404
    assert call(f"{desk.console}/assistants/chat/talk", b"interrupt=x&thread=y", PLAIN)[0] == 400
    told = json.loads(call(talk, b"interrupt=x&thread=y&decision-0=approve", PLAIN)[1])
    assert (told["error"]["code"], told["text"]) == ("MS-2511", "")
    assert call(f"{desk.console}/trace/nothing", headers=TEXT)[0] == 404


def test_the_answers_are_counted(desk: Served) -> None:
    counts = twin(desk, "/assistants/help_desk")["counts"]
    said(desk, "help_desk", "Which valve starts the pump?")
    after = twin(desk, "/assistants/help_desk")["counts"]
    assert {key: after[key] - counts[key] for key in counts} == {
        "runs": 1,
        "answered": 1,
        "refused": 0,
        "failed": 0,
        "with citations": 1,
    }
    (row,) = twin(desk, "/assistants")["assistants"]
    assert row["counts"] == after
    assert twin(desk, "/assistants")["runs"][0]["assistant"] == "help_desk"


def test_evaluations_show_their_last_runs_with_the_gate_and_the_cost(desk: Served, browser: Browser) -> None:
    (row,) = twin(desk, "/assistants/help_desk")["evaluations"]
    assert row == {"name": "grounded", "url": "/evaluation/grounded", "last": None}
    cases = desk.project / "evals" / "questions.jsonl"
    asked = cases.read_text()
    mainspring("run", "evaluation/grounded", cwd=desk.project)
    cases.write_text(json.dumps({"question": "Which valve?", "must_cite": "fan.html"}))
    try:
        mainspring("run", "evaluation/grounded", cwd=desk.project, status=5)
    finally:
        cases.write_text(asked)
    (row,) = twin(desk, "/assistants/help_desk")["evaluations"]
    last, (now, before) = row["last"], twin(desk, "/evaluation/grounded")["tried"]
    assert (now["passed"], before["passed"]) == (False, True)
    assert now == last
    assert last["scores"][0] == {"measure": "grounded", "value": 0.0, "least": 0.7}
    tokens = {score["measure"]: score["value"] for score in before["scores"]}["tokens"]
    assert tokens * 1 <= before["cost_micro"] <= tokens * 2, "1 and 2 micro-units a token of prompt and answer"
    nodes = {node["url"]: node for node in twin(desk, "/index.json")["nodes"]}
    assert nodes["/evaluation/grounded"]["state"] == "bad"
    assert twin(desk, "/index/library")["evaluations"] == []
    for path in ("/assistants/help_desk", "/evaluation/grounded"):
        page = opened(browser, f"{desk.console}{path}")
        assert "at least 0.7" in page.locator("main").inner_text()
        assert not faults(page)
        page.close()
    (alarm,) = until(lambda: twin(desk, "/monitors/help_desk")["alarms"])
    assert (alarm["kind"], alarm["features"], alarm["state"]) == ("evaluation", ["grounded"], "firing")


def test_the_chat_says_why_there_is_no_answer(desk: Served, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(f"{desk.console}/assistants/chat", wait_until="load")
    page.get_by_label("Question").fill("   ")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("no answer: nothing is asked").wait_for(timeout=20_000)
    half = 'event: text\ndata: {"text": "Half of"}\n\n'  # the server is gone before the answer is whole
    page.route("**/talk", lambda route: route.fulfill(status=200, content_type="text/event-stream", body=half))
    page.get_by_label("Question").fill("valve")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("no answer: it broke off").wait_for(timeout=20_000)
    assert page.get_by_label("Question").input_value() == "valve"
    page.close()
