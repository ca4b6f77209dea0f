"""Several workers at one port, on the real command line: killed, drained and moved to another version under load."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

from e2e.conftest import Served, call, mainspring, serve
from mainspring.serving.merging import numbers_in

KEYS = json.dumps({"customer": "c01", "amount": 20.0})


@pytest.fixture(scope="module")
def shop(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template with two versions, of which the first is the champion, and two workers."""
    project = tmp_path_factory.mktemp("workers") / "shop"
    shutil.copytree(built, project)
    app = project / "shop.py"
    first = app.read_text()
    app.write_text(first.replace("LogisticRegression())", "LogisticRegression(C=0.01))"))
    mainspring("run", "returns", cwd=project)
    app.write_text(first)
    mainspring("promote", "returns", "1", "--force", cwd=project)
    with open(project / "mainspring.toml", "a") as file:
        file.write("\n[server]\nworkers = 2\n")
    return project


@pytest.fixture
def server(shop: Path, tmp_path: Path) -> Iterator[Served]:
    project = tmp_path / "shop"
    shutil.copytree(shop, project)
    found = serve(project, "serve")
    try:
        wait_for(lambda: "2 answer" in found.log.read_text())
        yield found
    finally:
        if found.process.poll() is None:
            found.stop()


@pytest.fixture(scope="module")
def steady(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for the tests that leave it as it is."""
    project = tmp_path_factory.mktemp("steady") / "shop"
    shutil.copytree(shop, project)
    found = serve(project, "serve")
    try:
        wait_for(lambda: "2 answer" in found.log.read_text())
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


@pytest.fixture(scope="module")
def moving(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server for the tests that move versions, one after the other; each begins with what the last one has left."""
    project = tmp_path_factory.mktemp("moving") / "shop"
    shutil.copytree(shop, project)
    found = serve(project, "serve")
    try:
        wait_for(lambda: "2 answer" in found.log.read_text())
        yield found
    finally:
        assert found.stop() == 0, found.log.read_text()


def since(served: Served) -> Callable[[str], bool]:
    """Whether the server has told something from now on."""
    mark = len(served.log.read_text())
    return lambda line: line in served.log.read_text()[mark:]


def wait_for(found: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it never came")


def workers_of(served: Served) -> dict[int, int]:
    """The process of each worker, by the worker's number."""
    pid = served.process.pid
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"--worker" in words:
            found[int(words[words.index(b"--worker") + 1])] = int(child)
    return found


class Answered(NamedTuple):
    """When a request was sent, its answer's status, id and version, when that had come, and what was asked."""

    begun: float
    status: int
    id: str
    version: str
    ended: float
    asked: str


@dataclass
class Load:
    """Clients that ask on connections of their own until they are stopped, and what they were answered."""

    port: int
    clients: int = 6
    reconnect: bool = True
    key: Callable[[int], object] = lambda number: json.loads(KEYS)
    path: str = "/endpoint/returns"
    version: Callable[[Any], str] = lambda body: body.get("version", "")
    answered: list[Answered] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Load:
        self.threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(self.clients)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()

    def _ask(self, number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        asked = 0
        while not self.over.is_set():
            try:
                begun = time.monotonic()
                keys = json.dumps(self.key(number + asked))
                client.request("POST", self.path, keys)
                answer = client.getresponse()
                body = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(type(error).__name__)
                client.close()
                if not self.reconnect:
                    return
                time.sleep(0.2)  # the kernel closes the sockets of a dead process one after the other
                continue
            found = answer.status, body.get("id", ""), self.version(body)
            self.answered.append(Answered(begun, *found, time.monotonic(), keys))
            asked += 1
            if answer.getheader("connection") == "close":
                return
            if self.reconnect and asked % 5 == 0:  # a new connection may come to the other worker
                client.close()
        client.close()

    def ids(self) -> set[str]:
        return {one.id for one in self.answered if one.status == 200}

    def statuses(self) -> set[int]:
        return {one.status for one in self.answered}

    def came_back(self, version: str) -> list[Answered]:
        """The answers of another version to requests that were sent when somebody had an answer of this one."""
        first = min((one.ended for one in self.answered if one.version == version), default=float("inf"))
        return [one for one in self.answered if one.begun > first and one.version != version]


def port_of(served: Served) -> int:
    return int(served.url.rpartition(":")[2])


def version_now(served: Served) -> str:
    """The version that answers on a new connection; nothing if it has come to a worker that is stopped."""
    client = http.client.HTTPConnection("127.0.0.1", port_of(served), timeout=1)
    try:
        client.request("POST", "/endpoint/returns", KEYS)
        return str(json.loads(client.getresponse().read())["version"])
    except TimeoutError:
        return ""
    finally:
        client.close()


def counted(served: Served) -> float:
    """The answers of the endpoint, as the metrics page of the whole server tells them."""
    page = call(f"{served.console}/actuator/prometheus")[1].decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "mainspring_requests_total" and sample.labels.get("endpoint") == "returns"
    )


def logged(project: Path) -> list[str]:
    folder = project / ".mainspring" / "predictions" / "returns"
    return [row for path in folder.glob("seg-*.parquet") for row in pq.read_table(path)["prediction_id"].to_pylist()]


def answers_of(served: Served, worker: int) -> float:
    numbers = numbers_in(served.project / ".mainspring" / "metrics" / f"worker-{worker}.bin")
    return sum(value for (name, labels), value in numbers.items() if name == "mainspring_requests_total")


def test_a_killed_worker_is_replaced_and_nothing_that_was_answered_is_lost(server: Served) -> None:
    clients = 6
    with Load(port_of(server), clients) as load:
        wait_for(lambda: all(answers_of(server, number) > 20 for number in (0, 1)))
        before = workers_of(server)
        assert set(before) == {0, 1}
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: "worker 1 is replaced" in server.log.read_text())
        after = workers_of(server)
        assert after[0] == before[0]
        assert after[1] != before[1]
        had = answers_of(server, 1)
        wait_for(lambda: answers_of(server, 1) > had + 20)
    assert load.statuses() == {200}
    assert len(load.failed) <= 2 * clients, (
        "each client's request under way, and one more where a socket was still open"
    )
    acknowledged = load.ids()
    # A request that failed may have been counted before its answer was lost; one that was answered always is, but for
    # the one in the hands of the worker when it was killed.
    assert len(acknowledged) - 1 <= counted(server) <= len(acknowledged) + len(load.failed)
    assert (
        'mainspring_model_version{app="shop",model="returns",worker="1"} 1.0'
        in call(f"{server.console}/actuator/prometheus")[1].decode()
    )
    assert server.stop() == 0, server.log.read_text()
    kept = logged(server.project)
    assert acknowledged <= set(kept)
    assert len(kept) == len(set(kept))


def test_sigterm_drains_all_workers(server: Served) -> None:
    with Load(port_of(server), reconnect=False) as load:
        wait_for(lambda: len(load.answered) > 100)
        assert server.stop() == 0, server.log.read_text()
    assert load.failed == []
    assert load.statuses() == {200}
    assert load.ids() <= set(logged(server.project))


def test_workers_end_with_their_parent(server: Served) -> None:
    pids = workers_of(server).values()
    server.process.kill()
    server.process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids))
    with pytest.raises(OSError, match="refused"):
        call(server.url)


def test_grpc_answers_from_the_port_that_workers_share(steady: Served) -> None:
    line = next(line for line in steady.log.read_text().splitlines() if line.startswith("grpc "))
    with grpc.insecure_channel(line.split()[1]) as channel:
        live = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
        assert live(b"", timeout=30) == b"\x08\x01"


def test_a_port_of_other_workers_is_taken(steady: Served) -> None:
    done = mainspring("serve", "--port", str(port_of(steady)), cwd=steady.project, status=3)
    assert "error MS-3016" in done.stderr


def test_the_worker_that_manages_is_replaced_too(steady: Served) -> None:
    asked = 20
    for _ in range(asked):
        assert call(f"{steady.url}/endpoint/returns", KEYS.encode())[0] == 200
    wait_for(lambda: counted(steady) == asked)  # what was answered is counted just after
    os.kill(workers_of(steady)[0], signal.SIGKILL)
    wait_for(lambda: "worker 0 is replaced" in steady.log.read_text())
    assert counted(steady) == asked, "counts go on where the dead worker's stopped"
    for name in ("liveness", "readiness"):
        assert call(f"{steady.console}/actuator/health/{name}")[0] == 200


def test_what_is_asked_of_one_worker_is_done_by_all(steady: Served) -> None:
    def asked(what: str) -> None:
        assert call(f"{steady.console}/v2/repository/models/returns/{what}", b"{}")[0] == 200

    def statuses() -> set[int]:
        return {call(f"{steady.url}/endpoint/returns", KEYS.encode())[0] for _ in range(24)}  # each on a new connection

    before = workers_of(steady)[1]
    asked("unload")
    gone = statuses()
    assert 200 not in gone
    assert len(gone) == 1
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: "worker 1 is replaced" in steady.log.read_text())
    assert statuses() == gone, "its replacement knows of it"
    asked("load")
    assert statuses() == {200}


def test_all_workers_flip_at_one_moment(moving: Served) -> None:
    with Load(port_of(moving)) as load:
        wait_for(lambda: all(answers_of(moving, number) > 5 for number in (0, 1)))
        for version in ("2", "1", "2"):
            had, told = len(load.answered), since(moving)
            mainspring("promote", "returns", version, "--force", cwd=moving.project)
            wait_for(lambda version=version: load.answered[-1].version == version)
            wait_for(lambda version=version, told=told: told(f"version {version} answers in all workers"))
            part = Load(0, answered=load.answered[had:])
            assert part.came_back(version) == [], "once anybody was answered by it, nobody is by another"
            assert {one.version for one in part.answered} == {"1", "2"}
    assert load.failed == []
    assert load.statuses() == {200}


def test_no_worker_flips_before_all_are_ready_and_one_that_dies_takes_what_is_agreed(moving: Served) -> None:
    """Worker 1 is stopped in the middle of a flip, and then killed; worker 0 waits for it just so long."""
    before, told = workers_of(moving), since(moving)
    with Load(port_of(moving)) as load:
        wait_for(lambda: load.answered)
        os.kill(before[1], signal.SIGSTOP)
        mainspring("promote", "returns", "1", "--force", cwd=moving.project)
        waiting = "version 1 waits until all workers have it; READY in: 0"
        wait_for(lambda: waiting in mainspring("show", "model/returns", cwd=moving.project).stdout)
        assert wait_for(lambda: version_now(moving)) == "2", "worker 1 might still answer with it"
        assert {one.version for one in load.answered} == {"2"}
        had = len(load.answered)
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: told("worker 1 is replaced"))
        wait_for(lambda: told("version 1 answers in all workers"))
        wait_for(lambda: len(load.answered) > had + 200)
    assert load.came_back("1") == [], "the replacement begins with what the others have agreed on"
    assert {one.version for one in load.answered} == {"1", "2"}
    assert load.statuses() == {200}


def test_a_rollout_is_judged_by_what_all_workers_have_seen_in_all_their_lives(moving: Served) -> None:
    mainspring("promote", "returns", "2", "--canary", "50%", "--force", cwd=moving.project)

    def found() -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(call(f"{moving.console}/actuator/rollouts")[1])["rollouts"]["returns"]
        return shown

    wait_for(lambda: found()["since"])
    before = workers_of(moving)
    with Load(port_of(moving), key=lambda number: {"customer": f"c{number % 40:02}", "amount": 20.0}) as load:
        wait_for(lambda: {one.version for one in load.answered} == {"1", "2"})
        had = [answers_of(moving, number) for number in (0, 1)]
        wait_for(lambda: all(answers_of(moving, number) > had[number] + 50 for number in (0, 1)))
        told = since(moving)
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: told("worker 1 is replaced"))
        had[1] = answers_of(moving, 1)
        wait_for(lambda: answers_of(moving, 1) > had[1] + 50)
    assert load.statuses() == {200}
    by_keys: dict[str, set[str]] = {}
    for one in load.answered:
        by_keys.setdefault(one.asked, set()).add(one.version)
    assert {len(versions) for versions in by_keys.values()} == {1}, "a caller stays with a version in all workers"
    done, failed = len(load.answered), len(load.failed)
    wait_for(lambda: done <= sum(found()["calls"].values()) <= done + failed)
    assert sum(found()["errors"].values()) <= failed, "what was under way in the worker that was killed"
    assert found()["state"] == "running"
    mainspring("rollback", "returns", cwd=moving.project)
    wait_for(lambda: found()["state"] == "stopped")


def test_a_version_that_cannot_be_loaded_flips_nobody(moving: Served) -> None:
    for pid in workers_of(moving).values():  # what they have loaded they need not load
        told = since(moving)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda told=told: told("is replaced"))
    shutil.rmtree(moving.project / ".mainspring" / "models")
    for path in (moving.project / ".mainspring" / "objects").rglob("*"):
        if path.is_file():
            path.write_bytes(b"damaged")
    mainspring("promote", "returns", "2", "--force", cwd=moving.project)
    wait_for(lambda: "error MS-5132" in moving.log.read_text())
    both = ("READY in: none", "worker 0: ", "worker 1: ")
    wait_for(lambda: all(part in call(f"{moving.console}/actuator/health")[1].decode() for part in both))
    status, body, _ = call(f"{moving.console}/actuator/health")
    assert (status, json.loads(body)["components"]["versions"]["status"]) == (503, "DOWN")
    shown = mainspring("show", "model/returns", cwd=moving.project).stdout
    assert all(part in shown for part in both)
    assert call(f"{moving.console}/actuator/health/readiness")[0] == 200
    assert {json.loads(call(f"{moving.url}/endpoint/returns", KEYS.encode())[1])["version"] for _ in range(9)} == {"1"}
    mainspring("rollback", "returns", cwd=moving.project)
    wait_for(lambda: "versions" not in json.loads(call(f"{moving.console}/actuator/health")[1])["components"])
    assert moving.log.read_text().count("error MS-5132") == 1
