"""Files in an S3 bucket, read by the real command line: whole, nothing fetched twice."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import obstore
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from obstore.store import S3Store

import object_stores
from e2e.conftest import mainspring
from mainspring.choose.services import Services

APP = """
from datetime import datetime

from mainspring import App, Entity, Record, last

app = App("shop")
customer = Entity("customer")


class Visit(Record):
    customer: str
    pages: int
    at: datetime


visits = app.source(Visit, time="at")
habits = app.features(visits, entity=customer, pages=last("pages"))
"""
CONFIG = {"region": "eu-central-1", "access_key_id": "me", "secret_access_key": "secret-word"}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with object_stores.s3() as found:
        object_stores.make_bucket(found, "lake")
        yield found


def applied(folder: Path) -> dict[str, str]:
    return {
        step["name"]: step["status"] for step in json.loads(mainspring("apply", "--json", cwd=folder).stdout)["steps"]
    }


def held(folder: Path) -> list[tuple[str, int, bool]]:
    services = Services.of_project(folder)
    (log,) = [name for name in services.tables.tables() if name.startswith("source/visits")]
    rows = services.tables.read(log).sort_by("_seq").to_pylist()
    services.close()
    return [(row["customer"], row["pages"], row["_deleted"]) for row in rows]


def kept(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_ino for path in folder.glob(".mainspring/sources/visits/*/*")}


def test_files_in_a_bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "mainspring.toml").write_text(
        'app = "shop:app"\n[sources.visits]\nurl = "s3://lake/visits/**/*"\n[sources.visits.options]\n'
        f'region = "eu-central-1"\nendpoint = "{endpoint}"\naccess_key_id = "me"\nsecret_access_key = "env:KEY"\n'
    )
    monkeypatch.setenv("KEY", "secret-word")
    store = S3Store("lake", config={**CONFIG, "endpoint": endpoint}, client_options={"allow_http": True})
    nothing = mainspring("apply", cwd=tmp_path, status=1)
    assert "MS-2112" in nothing.stderr
    buffer = io.BytesIO()
    at = pa.array([1_767_225_600_000_000], pa.int64()).cast(pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"customer": ["ann"], "pages": [3], "at": at}), buffer)
    obstore.put(store, "visits/2026/a.parquet", buffer.getvalue())
    obstore.put(store, "visits/2026/b.csv", b"customer,pages,at\nbob,4,2026-01-02T00:00:00Z\n")
    obstore.put(store, "visits/readme.txt", b"not data")
    assert applied(tmp_path) == dict.fromkeys(["source/visits", "feature_view/habits", "online/habits"], "ok")
    assert held(tmp_path) == [("ann", 3, False), ("bob", 4, False)]
    before = kept(tmp_path)
    assert set(before) == {"a.parquet", "b.csv"}
    done = mainspring("apply", cwd=tmp_path)
    assert "nothing new" in done.stderr
    assert kept(tmp_path) == before
    obstore.put(store, "visits/2026/b.csv", b"customer,pages,at\nbob,5,2026-01-02T00:00:00Z\n")
    applied(tmp_path)
    assert held(tmp_path)[2:] == [("bob", 4, True), ("bob", 5, False)]
    after = kept(tmp_path)
    assert after["a.parquet"] == before["a.parquet"], "what has not changed is not fetched again"
    assert len(list((tmp_path / ".mainspring" / "sources" / "visits").iterdir())) == 2
    obstore.delete(store, "visits/2026/a.parquet")
    applied(tmp_path)
    assert held(tmp_path)[4:] == [("ann", 3, True)]
    text = mainspring("conditions", cwd=tmp_path).stdout + mainspring("doctor", cwd=tmp_path, status=None).stdout
    assert "secret-word" not in text
    assert "sources.visits" in text
