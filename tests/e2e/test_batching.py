"""Calls that wait for a slow model of the user's own: scored together, bounded, and each answered for itself."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import numpy as np
import pytest

from e2e.conftest import Served, call, mainspring, serve
from grpc_kit import address, failed, stub
from mainspring.protocols.oip import messages as oip

INFER = "/v2/models/returns/infer"
MODEL = '''
import pathlib
import time
import numpy as np

class Slow:
    """Takes its time, or as long as a file is there; its score tells rows apart."""

    def predict(self, rows, parameters):
        if (rows[:, 0] == 13).any():
            raise LookupError("unlucky: secret.txt")
        end = time.monotonic() + 60
        while "while" in parameters and pathlib.Path(parameters["while"]).exists() and time.monotonic() < end:
            time.sleep(0.005)
        time.sleep(float(parameters.get("seconds", 0.05)))
        return 1 / (1 + np.exp(-np.nan_to_num(rows[:, 0]) / 1000))

'''


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("slow")
    mainspring("new", "shop", cwd=folder)
    project = folder / "shop"
    code = (project / "shop.py").read_text()
    code = code.replace("class Visit(Record):", f"{MODEL}\nclass Visit(Record):")
    code = re.sub(r"    from sklearn.*?return Model\(.*?\)\n", "    return Model(Slow())\n", code, flags=re.DOTALL)
    (project / "shop.py").write_text(code)
    with (project / "mainspring.toml").open("a") as file:
        file.write("\n[endpoints.returns]\nbatch_rows = 64\nqueue_rows = 100\n")
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        yield served
    finally:
        assert served.stop() == 0, served.log.read_text()


def ask(served: Served, first: list[float], **parameters: Any) -> tuple[int, Any, dict[str, str]]:
    rows = [[value, 1.0, 1.0] for value in first]
    tensor = {"name": "input", "datatype": "FP64", "shape": [len(rows), 3], "data": rows}
    body = {"inputs": [tensor], "parameters": parameters}
    status, answer, headers = call(f"{served.url}{INFER}", body)
    return status, json.loads(answer), headers


def score(value: float) -> float:
    return 1 / (1 + 2.718281828459045 ** (-value / 1000))


def statistics(served: Served) -> Any:
    _, body, _ = call(f"{served.url}/v2/models/returns/stats")
    return json.loads(body)["model_stats"][0]


def shown(served: Served, name: str) -> float:
    """A number of the metrics page of the model, by whatever wires."""
    page = call(f"{served.console}/actuator/prometheus")[1].decode()
    model = r'app="shop",model="returns",(?:protocol="\w*",)?version="1"'
    return sum(float(value) for value in re.findall(rf"^{name}\{{{model}\}} (\S+)", page, re.MULTILINE))


def wait_for(holds: Callable[[], bool]) -> None:
    """Wait until something is so, for a minute at most."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@contextlib.contextmanager
def busy(
    served: Served, pool: concurrent.futures.Executor, seconds: float | None = None
) -> Iterator[concurrent.futures.Future[Any]]:
    """The model computes for somebody, for some seconds or as long as this lasts, and the queue is empty."""
    before = shown(served, "mainspring_queue_seconds_count")
    computing = served.project / "computing"
    computing.touch()
    how: dict[str, Any] = {"while": str(computing)} if seconds is None else {"seconds": seconds}
    head = pool.submit(ask, served, [1.0], **how)
    try:
        wait_for(lambda: shown(served, "mainspring_queue_seconds_count") > before)
        yield head
    finally:
        computing.unlink()
    assert head.result()[0] == 200


def test_callers_at_once_are_few_batches_and_each_gets_its_own(slow: Served) -> None:
    before = statistics(slow)

    def one(number: int) -> None:
        mine = [float(1000 + 10 * number + row) for row in range(1 + number % 5)]
        status, answer, _ = ask(slow, mine)
        assert status == 200, answer
        assert answer["outputs"][0]["data"] == pytest.approx([score(value) for value in mine], abs=1e-6)
        assert len(set(answer["parameters"]["prediction_ids"].split(","))) == len(mine)

    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        list(pool.map(one, range(32)))
    after = statistics(slow)
    rows = sum(1 + number % 5 for number in range(32))
    assert after["inference_count"] - before["inference_count"] == rows
    batches = after["execution_count"] - before["execution_count"]
    assert 1 < batches < 32
    assert after["inference_stats"]["queue"]["ns"] > before["inference_stats"]["queue"]["ns"]
    assert max(item["batch_size"] for item in after["batch_stats"]) > 5
    assert sum(item["compute_infer"]["count"] for item in after["batch_stats"]) == after["execution_count"]
    assert shown(slow, "mainspring_batch_rows_count") == after["execution_count"]


def test_one_bad_caller_fails_alone_and_is_told_nothing_of_the_inside(slow: Served) -> None:
    with concurrent.futures.ThreadPoolExecutor(9) as pool, busy(slow, pool, 0.5):
        found = list(pool.map(lambda value: ask(slow, [value]), [float(value) for value in range(10, 18)]))
    assert [status for status, _, _ in found] == [200, 200, 200, 500, 200, 200, 200, 200]
    assert found[3][1] == {"error": "internal error"}


def test_parameters_are_the_models_own_and_are_never_mixed(slow: Served) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: ask(slow, [float(n)], seconds=0.01 * (n % 2 + 1)), range(20, 36)))
    assert [answer["outputs"][0]["data"] for _, answer, _ in found] == [
        pytest.approx([score(float(n))], abs=1e-6) for n in range(20, 36)
    ]


def test_too_much_is_refused_with_when_to_come_again(slow: Served) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        with busy(slow, pool):
            waiting = pool.submit(ask, slow, [2.0] * 90)
            wait_for(lambda: shown(slow, "mainspring_queue_rows") == 90)
            status, answer, headers = ask(slow, [3.0] * 20)
            assert (status, "too many rows" in answer["error"]) == (429, True)
            assert int(headers["retry-after"]) >= 1
            assert call(f"{slow.url}/v2/health/live")[0] == 200  # nobody is held up
        assert waiting.result()[0] == 200


def test_a_deadline_is_kept_while_the_model_is_busy_and_nothing_is_computed_for_it(slow: Served) -> None:
    before = statistics(slow)
    with concurrent.futures.ThreadPoolExecutor(4) as pool, busy(slow, pool) as head:
        status, _, _ = ask(slow, [2.0, 3.0, 4.0], timeout=50_000)
        assert (status, head.done()) == (504, False)
    after = statistics(slow)
    assert after["inference_count"] - before["inference_count"] == 1
    assert after["execution_count"] - before["execution_count"] == 1


def test_a_deadline_over_grpc_is_kept_and_nothing_is_computed_for_it(slow: Served) -> None:
    """Both of gRPC's ways: the call's own deadline, and the protocol's parameter."""
    before = statistics(slow)
    with (
        grpc.insecure_channel(address(slow)) as channel,
        concurrent.futures.ThreadPoolExecutor(4) as pool,
        busy(slow, pool) as head,
    ):
        infer, message = stub(channel, oip.schema(), oip.INFERENCE, "ModelInfer")
        tensor = {"name": "input", "datatype": "FP64", "shape": [5, 3]}
        asked = message(model_name="returns", inputs=[tensor], raw_input_contents=[np.ones((5, 3)).tobytes()])
        late, waits = asked.__deepcopy__(), pool.submit(infer, asked, timeout=60)
        late.parameters["timeout"].int64_param = 50_000
        assert failed(lambda: infer(asked, timeout=0.05))[0] == "DEADLINE_EXCEEDED"
        assert failed(lambda: infer(late, timeout=60))[0] == "DEADLINE_EXCEEDED"
        wait_for(lambda: shown(slow, "mainspring_queue_rows") == 5)
        assert not head.done()
    assert waits.result().outputs[0].shape == [5]
    after = statistics(slow)
    assert after["inference_count"] - before["inference_count"] == 1 + 5
    assert after["execution_count"] - before["execution_count"] == 2


def test_nothing_is_computed_for_a_client_that_has_left(slow: Served) -> None:
    before, address = statistics(slow), urlsplit(slow.url)
    rows = {"name": "input", "datatype": "FP64", "shape": [7, 3], "data": [1.0] * 21}
    body = json.dumps({"inputs": [rows]}).encode()
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    left = shown(slow, "mainspring_queue_left_total")
    with concurrent.futures.ThreadPoolExecutor(4) as pool, busy(slow, pool):
        with socket.create_connection((str(address.hostname), address.port or 0), timeout=30) as client:
            client.sendall(head + body)
            wait_for(lambda: shown(slow, "mainspring_queue_rows") == 7)
        wait_for(lambda: shown(slow, "mainspring_queue_left_total") == left + 1)
        assert shown(slow, "mainspring_queue_rows") == 0
    assert ask(slow, [2.0])[0] == 200
    after = statistics(slow)
    assert after["inference_count"] - before["inference_count"] == 2
    assert 7 not in {item["batch_size"] for item in after["batch_stats"]} - {
        item["batch_size"] for item in before["batch_stats"]
    }


def test_the_entity_keyed_route_waits_in_the_same_queue(slow: Served) -> None:
    before = statistics(slow)

    def one(number: int) -> Any:
        status, body, _ = call(f"{slow.url}/endpoint/returns", {"customer": f"c{number}", "amount": float(number)})
        assert status == 200, body
        return json.loads(body)

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(one, range(16)))
    assert len({answer["id"] for answer in found}) == 16
    assert statistics(slow)["execution_count"] - before["execution_count"] < 16


def test_what_serves_a_model_is_told(slow: Served) -> None:
    told = mainspring("why", "model/returns", cwd=slow.project).stdout
    assert "served: pickle scores every number of rows" in told
    asked = json.loads(mainspring("why", "model/returns", "--json", cwd=slow.project).stdout)
    assert set(asked["served"]["chosen"].values()) == {"pickle"}


def test_a_pickle_that_was_changed_on_the_disk_is_not_loaded(slow: Served, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(slow.project, project, ignore=shutil.ignore_patterns("server.log", "*.sock"))
    mainspring("check", cwd=project)
    (stored,) = (project / ".mainspring" / "models").glob("*/model.pickle")
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes() + b"\x00")
    done = mainspring("serve", "--port", "0", cwd=project, status=None)
    assert done.returncode != 0
    assert "MS-4341" in done.stderr


def test_an_endpoint_that_is_none_has_no_settings(slow: Served, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(slow.project, project, ignore=shutil.ignore_patterns("server.log", "*.sock"))
    text = (project / "mainspring.toml").read_text().replace("endpoints.returns", "endpoints.retruns")
    (project / "mainspring.toml").write_text(text)
    done = mainspring("serve", "--port", "0", cwd=project, status=3)
    assert "MS-4340" in done.stderr


def test_with_a_bound_on_memory_a_model_is_loaded_when_it_is_asked(slow: Served, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(slow.project, project, ignore=shutil.ignore_patterns("server.log", "*.sock"))
    with (project / "mainspring.toml").open("a") as file:
        file.write("\n[serving]\nmemory = 100000000\n")
    served = serve(project)
    try:
        status, answer, _ = ask(served, [5.0])
        assert status == 200
        assert answer["outputs"][0]["data"] == pytest.approx([score(5.0)], abs=1e-6)
    finally:
        assert served.stop() == 0
