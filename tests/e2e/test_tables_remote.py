"""A project whose tables are in S3: applied, served, pushed to, restarted; its training set made again elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import object_stores
from e2e.conftest import call, mainspring, serve
from e2e.test_online_stores import ROW, copied


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_stores.s3() as found:
        object_stores.make_bucket(found, "lake")
        yield found


def test_a_project_lives_on_tables_in_s3(
    built: Path, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copied(built, tmp_path)
    shutil.rmtree(project / ".mainspring")
    with open(project / "mainspring.toml", "a") as settings:
        settings.write(
            '\n[tables]\nurl = "s3://lake/shop"\noptions.access_key_id = "me"\n'
            f'options.secret_access_key = "env:LAKE_KEY"\noptions.region = "us-east-1"\n'
            f'options.endpoint = "{endpoint}"\n'
        )
    monkeypatch.setenv("LAKE_KEY", "secret")
    report = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    assert {step["status"] for step in report["steps"]} == {"ok"}
    again = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    assert {step["status"] for step in again["steps"]} == {"hit"}
    assert not (project / ".mainspring" / "tables").exists()
    served = serve(project)
    try:
        answer = json.loads(call(f"{served.url}/endpoint/returns", ROW)[1])
        assert answer["status"] == {"habits": "PRESENT"}
        row = {"customer": "new", "amount": 5.0, "at": "2025-01-01T00:00:00Z"}
        assert call(f"{served.url}/sources/visits/push", {"rows": [row]})[0] == 200
        pushed = json.loads(call(f"{served.url}/endpoint/returns", {**ROW, "customer": "new"})[1])
        assert pushed["status"] == {"habits": "PRESENT"}
    finally:
        assert served.stop() == 0, served.log.read_text()
    shown = json.loads(mainspring("show", "source/visits", "--json", cwd=project).stdout)
    assert shown
    final = json.loads(mainspring("apply", "--json", cwd=project).stdout)
    assert {step["status"] for step in final["steps"]} <= {"ok", "hit"}
