"""One app on several machines: its catalog in Postgres, blobs in S3, online rows in Redis; nothing else is shared."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import object_stores
import redis_server
from e2e.conftest import call, mainspring, serve
from e2e.test_online_stores import ROW, copied
from postgres import running


@pytest.fixture(scope="module")
def shared() -> Iterator[str]:
    """The settings of the stores that all machines share."""
    with running() as postgres, redis_server.running() as redis, object_stores.s3() as endpoint:
        object_stores.make_bucket(endpoint, "lake")
        yield (
            f'\n[catalog]\nurl = "{postgres}"\nschema = "shop"\n'
            f'[online]\nurl = "{redis}"\n'
            '[objects]\nurl = "s3://lake/shop"\noptions.access_key_id = "me"\n'
            'options.secret_access_key = "env:LAKE_KEY"\noptions.region = "us-east-1"\n'
            f'options.endpoint = "{endpoint}"\n'
        )


def machine(built: Path, folder: Path, shared: str) -> Path:
    """The project as it is checked out somewhere, without any state."""
    project = copied(built, folder)
    shutil.rmtree(project / ".mainspring")
    with open(project / "mainspring.toml", "a") as settings:
        settings.write(shared)
    return project


def test_what_one_machine_trains_the_others_serve(
    built: Path, tmp_path: Path, shared: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the next version, while they run; an error of a store is told as such."""
    monkeypatch.setenv("LAKE_KEY", "secret")
    trainer, first, second = (machine(built, tmp_path / name, shared) for name in ("trainer", "first", "second"))
    report = json.loads(mainspring("apply", "--json", cwd=trainer).stdout)
    assert {step["status"] for step in report["steps"]} == {"ok"}
    assert not (trainer / ".mainspring" / "catalog.db").exists()
    assert not (trainer / ".mainspring" / "objects").exists()
    servers = [serve(project) for project in (first, second)]
    try:
        answers = [asked(server.url) for server in servers]
        assert answers[0]["score"] == answers[1]["score"]
        assert [answer["version"] for answer in answers] == ["1", "1"]
        with open(trainer / "data" / "visits.csv", "a") as visits:
            visits.write("c01,7.0,2025-01-02T00:00:00Z,true\n")
        mainspring("apply", cwd=trainer)
        mainspring("promote", "returns", "2", "--force", cwd=trainer)
        for server in servers:
            until(lambda url=server.url: asked(url)["version"] == "2")
        told = json.loads(mainspring("show", f"prediction/{asked(servers[0].url)['id']}", "--json", cwd=first).stdout)
        assert told
    finally:
        for server in servers:
            assert server.stop() == 0, server.log.read_text()


def asked(url: str) -> dict[str, object]:
    status, body, _ = call(f"{url}/endpoint/returns", ROW)
    assert status == 200, body
    found: dict[str, object] = json.loads(body)
    return found


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)
