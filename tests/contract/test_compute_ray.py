"""History on a Ray cluster of two nodes on this machine: the same bytes as here, whatever the cluster does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import ray
from ray.cluster_utils import Cluster

from mainspring.adapters.delta.settings import DeltaSettings
from mainspring.adapters.delta.tables import open_tables
from mainspring.adapters.ray.compute import RayCompute, open_compute
from mainspring.adapters.ray.health import health
from mainspring.adapters.ray.settings import RaySettings
from mainspring.declare.aggregate import avg, count, distinct, highest, last, quantile, stddev, total
from mainspring.declare.app import App
from mainspring.declare.data import Entity
from mainspring.declare.frame import Frame
from mainspring.declare.record import Record
from mainspring.errors import DataError, ServiceError
from mainspring.features.logs.ingest import prepare_rows
from mainspring.features.logs.log import source_of
from mainspring.features.logs.project import update_view
from mainspring.features.logs.write import ingest_batch
from mainspring.features.offline.history import KERNELS, history
from mainspring.features.offline.parts import Part, answer_part
from mainspring.features.view import view_of
from mainspring.features.windows import pieces
from mainspring.ports.compute import Compute

SPAN = 30 * 86_400_000_000
START = 1_600_000_000_000_000


class Visit(Record):
    customer: str | None
    shop: int
    amount: float | None
    note: str | None
    at: datetime
    known: datetime


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    quiet = {"num_cpus": 1, "object_store_memory": 128 << 20, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=quiet)
    made.add_node(num_cpus=1, object_store_memory=128 << 20)
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture
def compute(cluster: Cluster) -> Iterator[RayCompute]:
    found = open_compute(RaySettings(f"ray://{cluster.address}"), Path())
    yield found
    found.close()


def spelled(number: int) -> str:
    return str(number)


def node(number: int) -> str:
    time.sleep(0.2)
    time.sleep(0.4)  # so that one node is not done with all before the other has a worker
    return str(ray.get_runtime_context().get_node_id())


def test_parts_go_to_all_nodes_and_come_back_in_order(compute: RayCompute) -> None:
    assert isinstance(compute, Compute)
    assert health(compute) == {"nodes": 2, "cores": 2.0}
    assert list(compute.map(spelled, range(40))) == [str(number) for number in range(40)]
    assert len(set(compute.map(node, range(12)))) == 2
    assert list(compute.map(spelled, [])) == []


def fails(number: int) -> int:
    if number == 3:
        raise DataError("three is too many", code="MS-2117", fix="send two")
    return number


def dies(number: int) -> int:
    os._exit(1)


def test_a_fault_of_a_part_is_the_callers_and_a_lost_one_is_told(cluster: Cluster, compute: RayCompute) -> None:
    with pytest.raises(DataError, match="three is too many"):
        list(compute.map(fails, range(6)))
    twice = open_compute(RaySettings(f"ray://{cluster.address}", tries=2), Path())
    with pytest.raises(ServiceError) as caught:
        list(twice.map(dies, [1]))
    assert caught.value.code == "MS-4241"
    assert "tried 2 times" in caught.value.why
    assert list(compute.map(spelled, [1])) == ["1"], "the cluster goes on"


def test_a_cluster_that_is_not_there_is_told() -> None:
    with pytest.raises(ServiceError) as caught:
        list(open_compute(RaySettings("ray://127.0.0.1:1"), Path()).map(spelled, [1]))
    assert caught.value.code == "MS-4240"
    assert "ray start" in caught.value.fix


@pytest.mark.parametrize(
    ("said", "why"), [(None, "timed out"), (b"", "no cluster"), (b"-ERR unknown command\r\n", "no cluster")]
)
def test_another_server_at_the_address_is_told_in_time(said: bytes | None, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            caller, _ = other.accept()
            with caller, contextlib.suppress(OSError):  # who asked may have hung up
                caller.recv(100)
                if said is not None:
                    caller.sendall(said)
                    caller.shutdown(socket.SHUT_WR)
                while caller.recv(100):
                    pass

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"ray://127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ServiceError) as caught:
            health(open_compute(RaySettings(url, connect_timeout=0.5), Path()))
        answering.join(timeout=60)
    assert caught.value.code == "MS-4240"
    assert why in caught.value.why


def test_doctor_asks_the_cluster(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text('from mainspring import App\n\napp = App("far")\n')

    def told(url: str) -> dict[str, dict[str, str]]:
        (tmp_path / "mainspring.toml").write_text(f'app = "app:app"\n\n[compute]\nurl = "{url}"\n')
        command = [sys.executable, "-m", "mainspring.cli", "doctor", "--json"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=180, check=False)
        return {one["name"]: one for one in json.loads(done.stdout)}

    found = told(f"ray://{cluster.address}")["compute.ray"]
    assert (found["value"], found["remedy"]) == ("answers: nodes 2, cores 2.0", "")
    found = told("ray://127.0.0.1:1")["compute"]
    assert "no Ray cluster answers at ray://127.0.0.1:1" in found["value"]
    assert "ray start --head" in found["remedy"]


def test_history_is_the_same_bytes_on_two_nodes(
    compute: RayCompute, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = App("test")
    visits = app.source(Visit, time="at", ingested="known", called="visits")
    source = source_of(visits)
    keys = (Entity("customer"), Entity("shop"))
    newest = app.features(visits, entity=keys, ttl="2d", called="newest", amount=last("amount"), note=last("note"))
    windows = app.features(
        visits,
        entity=keys[0],
        called="windows",
        n=count("3d"),
        mean=avg("amount", "1d"),
        sum=total("amount", "7d"),
        sd=stddev("amount", "3d"),
        high=highest("note", "2d"),
        kinds=distinct("note", "7d"),
        median=quantile("amount", 0.5, "3d"),
        newest_amount=last("amount"),
    )
    views = [view_of(newest), view_of(windows)]
    services = SimpleNamespace(tables=open_tables(DeltaSettings(), tmp_path))
    rng, names = np.random.default_rng(7), [f"c{number}" for number in range(60)] + [None]
    moment = pa.timestamp("us", "UTC")
    hot = np.where(rng.random(30_000) < 0.3, 0, rng.integers(0, 61, 30_000))
    events = START + rng.integers(0, SPAN, 30_000)
    late = np.where(rng.random(30_000) < 0.1, rng.integers(0, 86_400_000_000, 30_000), 0)
    rows = pa.table(
        {
            "customer": pa.array([names[place] or "c0" for place in hot]),
            "shop": pa.array(rng.integers(0, 3, 30_000)),
            "amount": pa.array(rng.normal(size=30_000) * 1e6, mask=rng.random(30_000) < 0.1),
            "note": pa.array([f"n{number}" for number in rng.integers(0, 50, 30_000)]),
            "at": pa.array(events, moment),
            "known": pa.array(events + late, moment),
        }
    )
    at = ingest_batch(services.tables, source, prepare_rows(source, rows), content="1", now_us=START)
    for view in views:
        update_view(services.tables, view, source, at)
    asked = 4_000
    spine = Frame(
        pa.table(
            {
                "label": pa.array(range(asked)),
                "customer": pa.array(
                    ["c0" if number % 5 < 2 else random.Random(number).choice(names) for number in range(asked)]
                ),
                "shop": pa.array(rng.integers(0, 3, asked)),
                "at": pa.array(START + rng.integers(0, SPAN, asked), moment),
            }
        )
    )
    monkeypatch.setattr(pieces, "PIECE", 3_000)
    parts: list[Part] = []

    class Counting:
        """The cluster, with an eye on what it is given."""

        def map(self, function, given):  # type: ignore[no-untyped-def]
            assert function is answer_part
            parts.extend(given)
            return compute.map(function, parts)

    for view in views:
        parts.clear()
        here = history(services, [view], spine, status=True).arrow()
        there = history(services, [view], spine, status=True, compute=Counting()).arrow()  # type: ignore[arg-type]
        assert len(parts) > 8, "one part would prove nothing"
        assert sum(len(part.spine) for part in parts) == asked
        assert sum(part.asked.stretch for part in parts) > 2, "the hot key was not split by time"
        assert there.combine_chunks().equals(here.combine_chunks()), view.name
        sinks = []
        for table in (here, there):
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table.combine_chunks())
            sinks.append(sink.getvalue().to_pybytes())
        assert sinks[0] == sinks[1], "equal values, and other bytes"
        assert here.schema.metadata[KERNELS] == there.schema.metadata[KERNELS]
        assert here.column(view.feature_names[0]).null_count < asked
