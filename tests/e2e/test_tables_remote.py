"""A project whose tables are in an object store: applied, served, pushed to; and written from elsewhere later."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
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


def test_another_folder_takes_over_while_the_first_still_serves(built: Path, tmp_path: Path) -> None:
    """The message that refuses it holds the command; what was pushed is there, and the first is refused from now on."""
    first = copied(built, tmp_path / "first")
    shutil.rmtree(first / ".mainspring")
    with object_stores.gcs_xml() as endpoint:
        object_stores.fill_gcs(endpoint, "lake", {})
        with open(first / "mainspring.toml", "a") as settings:
            settings.write(
                f'\n[tables]\nurl = "gs://lake/shop"\noptions.allow_http = "true"\n'
                f"options.service_account_key = '{object_stores.gcs_account(endpoint)}'\n"
            )
        second = tmp_path / "second"
        shutil.copytree(first, second)
        with open(second / "data" / "visits.csv", "a") as visits:  # without news it would have nothing to write
            visits.write("c01,7.0,2025-01-02T00:00:00Z,true\n")
        mainspring("apply", cwd=first)
        before = serve(first)
        try:
            row = {"customer": "new", "amount": 5.0, "at": "2025-01-01T00:00:00Z"}
            assert call(f"{before.url}/sources/visits/push", {"rows": [row]})[0] == 200
            _until(lambda: re.search(r'feature_lag_rows{[^}]*"visits"[^}]*} 0(\.0)?$', _metrics(before.console), re.M))
            told = json.loads(mainspring("apply", "--json", cwd=second, status=4).stdout)["error"]
            assert told["code"] == "MS-4311"
            assert mainspring("tables", "owner", cwd=second).stdout.startswith(
                f"{told['fix'].split()[-1]} writes, number 1: "
            )
            mainspring(*told["fix"].partition(": mainspring ")[2].split(), cwd=second)
            mainspring("apply", cwd=second)
            after = serve(second)
            try:
                answer = json.loads(call(f"{after.url}/endpoint/returns", {**ROW, "customer": "new"})[1])
                assert answer["status"] == {"habits": "PRESENT"}
                body = {"rows": [{**row, "customer": "newer"}]}
                _until(lambda: b"MS-4311" in call(f"{before.url}/sources/visits/push", body)[1])
                assert call(f"{after.url}/sources/visits/push", body)[0] == 200
            finally:
                assert after.stop() == 0, after.log.read_text()
        finally:
            before.stop()


def _metrics(console: str) -> str:
    return call(f"{console}/actuator/prometheus")[1].decode()


def _until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.3)
