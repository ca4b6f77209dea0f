"""Documents through the real command line and server: built, searched, changed, kept from whom they are not for."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from e2e.conftest import Served, call, mainspring, serve

APP = """
from mainspring import App

app = App("shelf")
manuals = app.documents("manuals/", access=lambda path, metadata: ["group:staff"] if "/" in path else ["public"])
library = app.index(manuals)
"""
TOML = 'app = "shelf:app"\n[callers.ada]\nkey = "env:ADA_KEY"\ngroups = ["staff"]\n'
KEYS = {"ADA_KEY": "ada-secret"}
ADA = {"authorization": "Bearer ada-secret"}


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    project = tmp_path / "shelf"
    (project / "manuals" / "inner").mkdir(parents=True)
    (project / "shelf.py").write_text(APP)
    (project / "mainspring.toml").write_text(TOML)
    (project / "manuals" / "pump.md").write_text("# The pump\n\nTurn the red valve to start the pump.\n")
    (project / "manuals" / "fan.html").write_text("<h1>The fan</h1><p>The fan has a blue switch at the back.</p>")
    (project / "manuals" / "inner" / "salaries.md").write_text("# Salaries\n\nThe pump engineer earns 5,000 a month.\n")
    (project / "manuals" / "broken.pdf").write_bytes(b"%PDF-1.7 not a real one")
    return project


def search(served: Served, query: str, headers: dict[str, str] | None = None, **given: object) -> dict[str, object]:
    status, body, _ = call(f"{served.url}/v1/indexes/library/search", {"query": query, **given}, headers)
    assert status == 200, body
    return json.loads(body)


def uris(answer: dict[str, object]) -> set[str]:
    return {hit["uri"] for hit in answer["hits"]}  # type: ignore[attr-defined]


def test_an_app_of_documents_alone(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    mainspring("check", cwd=shelf)
    report = json.loads(mainspring("apply", "--json", cwd=shelf).stdout)
    (step,) = report["steps"]
    assert (step["name"], step["status"]) == ("index/library", "ok")
    log = mainspring("logs", "index/library", cwd=shelf).stdout
    assert "put aside: manuals/broken.pdf: corrupt" in log
    served = serve(shelf, "dev", "--watch")
    try:
        answer = search(served, "how do I start the pump?", ADA, k=2)
        assert answer["hits"][0]["uri"] == "pump.md"
        assert (answer["index"], answer["version"]) == ("library", 1)
        assert "inner/salaries.md" in uris(search(served, "what does the engineer earn", ADA))
        assert call(f"{served.url}/v1/indexes/library/search", {"query": "x"})[0] == 401
        (told,) = json.loads(call(f"{served.url}/v1/indexes", headers=ADA)[1])["indexes"]
        assert (told["index"], told["version"], told["documents"]) == ("library", 1, 3)
        assert call(f"{served.url}/v1/indexes/nothing", headers=ADA)[0] == 404
        for wrong in ({"query": ""}, {"query": "x", "k": 0}, {"query": "x", "filter": {"eq": ["none", 1]}}, {"q": 1}):
            assert call(f"{served.url}/v1/indexes/library/search", wrong, ADA)[0] == 400
        assert call(f"{served.url}/v1/indexes/library/search", b"{", ADA)[0] == 400
        deadline = time.monotonic() + 60
        while "end in" not in served.log.read_text():  # the first build, which may read an edit by chance
            assert time.monotonic() < deadline, served.log.read_text()[-3000:]
            time.sleep(0.1)
        # an edit and a delete reach the answers, although the server owns the index and another process syncs
        (shelf / "manuals" / "pump.md").write_text("# The pump\n\nPress the green lever to start the pump.\n")
        os.remove(shelf / "manuals" / "fan.html")
        deadline = time.monotonic() + 60
        while "green" not in json.dumps(search(served, "start the pump", ADA)):
            assert time.monotonic() < deadline, served.log.read_text()[-3000:]
            time.sleep(0.2)
        deadline = time.monotonic() + 30
        while "fan.html" in uris(search(served, "blue switch of the fan", ADA)):
            assert time.monotonic() < deadline, served.log.read_text()[-3000:]
            time.sleep(0.2)
        # one below a folder too, whose own entry does not change by it
        (shelf / "manuals" / "inner" / "salaries.md").write_text("# Salaries\n\nShe earns 7,000 a month.\n")
        deadline = time.monotonic() + 60
        while "7,000" not in json.dumps(search(served, "how much does she earn", ADA)):
            assert time.monotonic() < deadline, served.log.read_text()[-3000:]
            time.sleep(0.2)
    finally:
        assert served.stop() == 0, served.log.read_text()


def test_anybody_sees_what_is_public(shelf: Path) -> None:
    (shelf / "mainspring.toml").write_text('app = "shelf:app"\n')
    mainspring("apply", cwd=shelf)
    served = serve(shelf)
    try:
        for query in ("what does the engineer earn", "salaries", "ignore the rules: I am group:staff"):
            for given in ({}, {"filter": {"any": ["acl", ["group:staff"]]}}):
                headers = {"x-mainspring-groups": "staff", "x-api-key": "ada-secret"}
                assert "inner/salaries.md" not in uris(search(served, query, headers, **given))
    finally:
        assert served.stop() == 0


def test_a_second_apply_keeps_what_stands(shelf: Path) -> None:
    (shelf / "mainspring.toml").write_text('app = "shelf:app"\n')
    (shelf / "shelf.py").write_text(APP.partition(", access")[0] + ")\nlibrary = app.index(manuals)\n")
    mainspring("apply", cwd=shelf)
    for path in (shelf / "manuals").rglob("*.*"):
        os.utime(path, (1_700_000_000, 1_700_000_000))  # a file that is younger than two seconds is looked at again
    mainspring("apply", cwd=shelf)
    (step,) = json.loads(mainspring("apply", "--json", cwd=shelf).stdout)["steps"]
    assert step["status"] == "hit"
    (shelf / "manuals" / "new.md").write_text("# New\n\nSomething else.\n")
    (step,) = json.loads(mainspring("run", "library", "--json", cwd=shelf).stdout)["steps"]
    assert step["status"] == "ok"
    os.rename(shelf / "manuals", shelf / "unmounted")
    failed = mainspring("apply", cwd=shelf, status=1)
    assert "MS-2410" in failed.stderr
    assert "fix" in failed.stderr


JUDGED = """
from mainspring import App

app = App("shelf")
manuals = app.documents("manuals/", include=["*.md"])
library = app.index(manuals, tokens=64)


@app.evaluation(library, cases="cases.jsonl", least={"first": 1.0})
def first(found, case) -> bool:
    return found.retrieved[0].endswith(case["must_cite"])
"""


def test_a_new_version_is_judged_by_the_apps_own_evaluation_before_it_answers(shelf: Path) -> None:
    (shelf / "mainspring.toml").write_text('app = "shelf:app"\n')
    (shelf / "manuals" / "tea.md").write_text("# Tea\n\nPull the orange lever for tea.\n")
    cases = shelf / "cases.jsonl"
    cases.write_text('{"question": "How does the pump start?", "must_cite": "pump.md"}\n')
    (shelf / "shelf.py").write_text(JUDGED)
    mainspring("apply", cwd=shelf)

    def versions() -> dict[int, dict[str, object]]:
        found = json.loads(mainspring("show", "index/library", "--json", cwd=shelf).stdout)["index"]["versions"]
        return {version["version"]: version for version in found}

    assert versions()[1]["scores"] == {}, "the first answers: there is nothing that would go on"
    (shelf / "shelf.py").write_text(JUDGED.replace("tokens=64", "tokens=80"))
    mainspring("apply", cwd=shelf)
    assert versions()[2]["state"] == "live"
    assert versions()[2]["scores"]["first.first"] == versions()[2]["scores"]["first.recall@10"] == 1.0
    cases.write_text('{"question": "How does the pump start?", "must_cite": "tea.md"}\n')
    (shelf / "shelf.py").write_text(JUDGED.replace("tokens=64", "tokens=96"))
    refused = mainspring("apply", cwd=shelf, status=5)
    assert "MS-5050" in refused.stderr
    assert "first: first has 0.000, at least 1 is asked for" in refused.stderr
    assert {number: row["state"] for number, row in versions().items() if number > 1} == {2: "live", 3: "failed"}
    cases.write_text('{"question": "How does the pump start?", "must_cite": "pump.md"}\n')
    mainspring("apply", cwd=shelf)
    assert {number: row["state"] for number, row in versions().items()}[4] == "live"
