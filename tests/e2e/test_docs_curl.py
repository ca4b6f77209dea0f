"""Every line of curl in the page about serving, run as it stands against a server of the template's app."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from e2e.conftest import Served, call

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serving.md"
OURS = {
    '"origin": "JFK", "tailnum": "N37293", "distance": 1089': '"customer": "c01", "amount": 20.0',
    '"origin": "EWR", ..': '"customer": "c02", "amount": 5.5',
    '["dep_delay", ..], "data": [[10, ..]]': '["amount", "visits_30d", "amount_30d"], "data": [[1, 2, 3]]',
    '"dep_delay": [10], "distance": [1089], ..': '"visits_30d": [1], "amount_30d": [2], "amount": [3]',
    '"dep_delay": 10, "distance": 1089, ..': '"visits_30d": 1, "amount_30d": 2',
    '"context": {..}': '"context": {"amount": 3}',
    '{"examples": [..]}': '{"examples": [{"visits_30d": 1, "amount_30d": 2, "amount": 3}]}',
    "10, 10, 5, 12, 4, 2005, 149, NaN": "1, 2, NaN",
    "10, 10, 5, 12, 4, 2005, 149, 1089": "1, 2, 3",
    "10,10,5,12,4,2005,149,1089": "1,2,3",
    "[1, 8]": "[1, 3]",
    "/late": "/returns",
    "url=late": "url=returns",
    "2013-07-01T12:00:00Z": "2025-12-01T12:00:00Z",
}
"""What the page says of flights, in words of the template's app."""
ELSEWHERE = ("/models/chat/", "AIP_PREDICT_ROUTE", "openapi.json", "/scorings")
"""Lines that need what this app has not, or write a file: a language model, Vertex AI's environment; and scorings of
tables, which take their time and are tried in `test_scorings.py`."""


def lines_of(page: str) -> list[str]:
    """The commands of the page; one goes on over lines until its quotes are closed."""
    found: list[str] = []
    for block in re.findall(r"^```\w*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        command = ""
        for line in block.splitlines():
            command = f"{command}\n{line}" if command else line
            if command.split("#")[0].count("'") % 2 == 0:
                found += [command] if command.startswith("curl ") else []
                command = ""
    return found


@pytest.mark.skipif(shutil.which("curl") is None, reason="apt-get install curl")
def test_every_line_of_curl_is_answered(served: Served, tmp_path: Path) -> None:
    answer = json.loads(call(f"{served.url}/endpoint/returns", {"customer": "c01", "amount": 20.0})[1])
    (tmp_path / "labels.csv").write_text(f"id,value,at\n{answer['id']},true,2025-12-01T12:00:00Z\n")
    page = PAGE.read_text("utf-8")
    assert set(OURS) == {words for words in OURS if words in page}, "the page says something else now"
    tried = []
    for line in lines_of(page):
        if any(part in line for part in ELSEWHERE):
            continue
        for theirs, ours in {**OURS, '"id": "..."': f'"id": "{answer["id"]}"'}.items():
            line = line.replace(theirs, ours)
        line = line.replace("localhost:8080", served.url).replace("localhost:8081", served.console)
        words = shlex.split(line, comments=True)
        assert not [word for word in words if ".." in word], line
        if "/models?url=" in line:  # registers what is not there
            call(f"{served.console}/v2/repository/models/returns/unload", b"")
        done = subprocess.run(
            [words[0], "-s", "-w", "\n%{http_code}", *words[1:]],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        body, _, status = done.stdout.rpartition("\n")
        assert status in ("200", "202"), (line, body)
        assert body, line
        tried.append(line)
        if "/unload" in line:  # "and load", says the page
            call(f"{served.console}/v2/repository/models/returns/load", b"")
    assert len(tried) > 20, "every protocol is among them"
    assert call(f"{served.url}/v2/models/returns/ready")[0] == 200, (
        "what the lines have unloaded they have loaded again"
    )
