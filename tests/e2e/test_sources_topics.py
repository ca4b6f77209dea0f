"""A Kafka topic read by the real command line, from librdkafka's own brokers; killed in the midst."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kafka_broker
from e2e.conftest import mainspring
from mainspring.choose.services import Services

APP = """
from datetime import datetime

from mainspring import App, Entity, Record, count, last

app = App("shop")
customer = Entity("customer")


class Visit(Record):
    customer: str
    pages: int
    at: datetime


visits = app.source(Visit, time="at")
habits = app.features(visits, entity=customer, pages=last("pages"), often=count("30d"))
"""


def held(folder: Path) -> list[tuple[int, bool]]:
    services = Services.of_project(folder)
    (log,) = [name for name in services.tables.tables() if name.startswith("source/visits")]
    rows = services.tables.read(log).sort_by("_seq").to_pylist()
    services.close()
    return [(row["pages"], row["_assumed"]) for row in rows]


def visit(number: int) -> bytes:
    return json.dumps({"customer": f"c{number % 10}", "pages": number, "at": "2026-01-01T00:00:00Z"}).encode()


def test_a_topic_is_read_once_whatever_is_killed(tmp_path: Path) -> None:
    with kafka_broker.running() as broker:
        (tmp_path / "shop.py").write_text(APP)
        (tmp_path / "mainspring.toml").write_text(
            f'app = "shop:app"\n[sources.visits]\nurl = "kafka://{broker.place}/visits"\ncommit_rows = 10000\n'
            "[tables]\ntidy_every = 1000\n"
        )
        total = 100_000  # what these brokers keep
        values = [visit(number) for number in range(total)]
        for partition in range(4):
            broker.send("visits", partition, values[partition::4])
        found = {
            one["name"]: one for one in json.loads(mainspring("doctor", "--json", cwd=tmp_path, status=None).stdout)
        }
        assert found["sources.visits"]["value"] == f"answers: partitions 4, messages {total}"
        process = subprocess.Popen(
            [sys.executable, "-m", "mainspring.cli", "apply"],
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None and not _commits(tmp_path):
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        assert 1 <= _commits(tmp_path) < 10, "it was killed in the midst"
        mainspring("apply", cwd=tmp_path)
        rows = held(tmp_path)
        assert sorted(pages for pages, _ in rows) == list(range(total))
        assert {assumed for _, assumed in rows} == {True}
        steps = json.loads(mainspring("apply", "--json", cwd=tmp_path).stdout)["steps"]
        assert {step["name"]: step["status"] for step in steps}["feature_view/habits"] == "hit"
        broker.send("visits", 2, [visit(total), b"oops", None, visit(total)])
        done = mainspring("apply", cwd=tmp_path).stderr
        assert "2 rows added" in done, done
        assert "the message is no JSON" in done
        assert held(tmp_path)[total:] == [(total, False), (total, False)]


def _commits(folder: Path) -> int:
    return max(0, len(list(folder.glob(".mainspring/tables/source/visits/*/_delta_log/*.json"))) - 1)
