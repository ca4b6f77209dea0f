"""One ONNX row over HTTP beside FastAPI, MLServer, LitServe and BentoML: CPU a request of each server's process tree.

    python bench/peers_serving.py [--rounds 5] [--only fastapi,mlserver]

Our side is a whole product: ``mainspring serve`` of the project that ``mainspring new`` makes, validation, metrics,
limits and the prediction log on, and the same with batching off beside it. Each peer runs in a venv of its own under
bench/.peers, as its documentation has it, with the same ONNX file and one thread of onnxruntime. The load comes from
this process, whose time is not counted; every answer is held against the scores of the file itself. All servers run at
once and are asked in turns, a short load each, so that what else the machine does falls on all of them alike; what is
told is the median over the rounds of each round's ratio.

Bars, at concurrency 16 and 64: >= 3x FastAPI, >= 3.5x MLServer without workers, >= 10x its default, >= 8x LitServe,
>= 13x BentoML.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import uvloop
from gateway import PEERS, children, free_port, post

from mainspring.choose.services import Services
from mainspring.server.rollouts.unpacking import unpacked
from mainspring.training.versions import champion_of

CONCURRENCY = (16, 64)
ROWS = 64
"""Different rows, asked in turns."""
PLACE = PEERS / "serving"
NEEDS = {
    "fastapi": ("fastapi==0.121.3", "uvicorn[standard]==0.54.0"),
    "mlserver": ("mlserver==1.7.1", "uvloop==0.21.0"),  # its worker crashes on newer ones
    "litserve": ("litserve==0.2.19",),
    "bentoml": ("bentoml==1.4.40",),
}
SHARED = ("onnxruntime==1.32.0", "numpy==2.4.6")
HZ = os.sysconf("SC_CLK_TCK")

SCORING = """
import os
import numpy as np
import onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
name, wanted = session.get_inputs()[0].name, os.environ["BENCH_OUTPUT"]
def scores(rows):
    found = session.run([wanted], {name: np.asarray(rows, np.float32)})[0]
    return (found[:, 1] if found.ndim == 2 and found.shape[1] == 2 else found.reshape(-1)).tolist()
"""
FASTAPI = """
from fastapi import FastAPI
from pydantic import BaseModel
from scoring import scores
class Rows(BaseModel):
    rows: list[list[float | None]]
class Scores(BaseModel):
    scores: list[float]
app = FastAPI()
@app.post("/predict")
ASYNC def predict(body: Rows) -> Scores:
    return Scores(scores=scores(body.rows))
"""
MLSERVER = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from scoring import scores
import numpy as np
class Returns(MLModel):
    async def load(self) -> bool:
        return True
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("scores", np.asarray(scores(rows)))
        return InferenceResponse(model_name=self.name, outputs=[output])
"""
LITSERVE = """
import sys
import litserve as ls
class Returns(ls.LitAPI):
    def setup(self, device):
        from scoring import scores
        self.scores = scores
    def decode_request(self, request):
        return request["rows"]
    def predict(self, rows):
        return self.scores(rows)
    def encode_response(self, found):
        return {"scores": found}
if __name__ == "__main__":
    server = ls.LitServer(Returns(), accelerator="cpu")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
"""
BENTOML = """
import bentoml
@bentoml.service
class Returns:
    def __init__(self) -> None:
        from scoring import scores
        self.scores = scores
    @bentoml.api
    def predict(self, rows: list[list[float]]) -> list[float]:
        return self.scores(rows)
"""


@dataclass(frozen=True)
class Side:
    """A server under load.

    Attributes:
        name: whose.
        bar: how many times ours its CPU a request is to be, at least.
        requests: how many are put on it in a load.
        ask: a request for a row.
        answer: the scores in a body.
    """

    name: str
    bar: float
    requests: int
    ask: Callable[[Sequence[float]], bytes]
    answer: Callable[[Any], Sequence[float]]


def v2(path: str) -> Callable[[Sequence[float]], bytes]:
    def ask(row: Sequence[float]) -> bytes:
        tensor = {"name": "input", "datatype": "FP32", "shape": [1, len(row)], "data": [*row]}
        return post(path, {"inputs": [tensor]})

    return ask


def rows_to(path: str) -> Callable[[Sequence[float]], bytes]:
    return lambda row: post(path, {"rows": [[*row]]})


def first_output(body: Any) -> Sequence[float]:
    return body["outputs"][0]["data"]  # type: ignore[no-any-return]


SIDES = (
    Side("ours", 1.0, 2400, v2("/v2/models/returns/infer"), first_output),
    Side("ours, batching off", 0.0, 2400, v2("/v2/models/returns/infer"), first_output),
    Side("fastapi", 3.0, 800, rows_to("/predict"), lambda body: body["scores"]),
    Side("fastapi with threads", 3.0, 800, rows_to("/predict"), lambda body: body["scores"]),
    Side("mlserver without workers", 3.5, 800, v2("/v2/models/returns/infer"), first_output),
    Side("mlserver", 10.0, 480, v2("/v2/models/returns/infer"), first_output),
    Side("litserve", 8.0, 480, rows_to("/predict"), lambda body: body["scores"]),
    Side("bentoml", 13.0, 480, rows_to("/predict"), lambda body: body),
)


# -- the servers -------------------------------------------------------------------------------------------------------


def python_of(peer: str) -> Path:
    """The interpreter of a peer's venv, made when it is not there."""
    python = PLACE / peer / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PLACE / peer)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *NEEDS[peer], *SHARED], check=True)
    return python


def built(folder: Path) -> tuple[Path, Path, str]:
    """A project that was applied, its model's file, and the output to read."""
    command = [sys.executable, "-m", "mainspring.cli"]
    subprocess.run([*command, "new", "shop"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    project = folder / "shop"
    subprocess.run([*command, "apply"], cwd=project, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    services = Services.of_project(project)
    try:
        entity, _ = champion_of(services.catalog, "returns")
        assert entity is not None
        card = entity.spec["card"]
        assert card["format"] == "onnx", card["why"]
        return project, unpacked(services, str(entity.spec["artifact"])) / card["file"], card["output"]
    finally:
        services.close()


@contextlib.contextmanager
def running(side: Side, folder: Path, project: Path, env: dict[str, str]) -> Iterator[tuple[int, int]]:
    """A server that answers; its process and its port."""
    port = free_port()
    place = folder / side.name.replace(" ", "-")
    place.mkdir()
    (place / "scoring.py").write_text(SCORING)
    command, where, more = commands(side, place, project, port)
    with (
        open(folder / f"{side.name}.log", "wb") as log,
        subprocess.Popen(
            command, cwd=where, env={**os.environ, **env, **more}, stdout=log, stderr=log, start_new_session=True
        ) as process,
    ):
        try:
            ready(process, port, side, folder)
            yield process.pid, port
        finally:
            tree = [process.pid, *children(process.pid)] if process.poll() is None else []
            for pid in tree:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                for pid in tree:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)


def commands(side: Side, place: Path, project: Path, port: int) -> tuple[list[str], Path, dict[str, str]]:
    """How a server is started, where, and with what in its environment."""
    peer = side.name.partition(" ")[0]
    if peer.startswith("ours"):
        env = {"MAINSPRING_MANAGEMENT_PORT": str(free_port()), "MAINSPRING_GRPC_PORT": "0"}
        own = place / "shop"
        shutil.copytree(project, own)
        if "off" in side.name:
            with open(own / "mainspring.toml", "a") as file:
                file.write("\n[endpoints.returns]\nbatch_rows = 1\n")
        return [sys.executable, "-m", "mainspring.cli", "serve", "--port", str(port)], own, env
    python = str(python_of(peer))
    if peer == "fastapi":
        (place / "served.py").write_text(FASTAPI.replace("ASYNC ", "" if "threads" in side.name else "async "))
        words = ["--host", "127.0.0.1", "--port", str(port), "--no-access-log", "--log-level", "warning"]
        return [python, "-m", "uvicorn", "served:app", *words], place, {}
    if peer == "mlserver":
        (place / "served.py").write_text(MLSERVER)
        (place / "model-settings.json").write_text('{"name": "returns", "implementation": "served.Returns"}')
        settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        settings |= {"parallel_workers": 0} if "without" in side.name else {}
        (place / "settings.json").write_bytes(orjson.dumps(settings))
        return [str(Path(python).with_name("mlserver")), "start", "."], place, {"PYTHONPATH": str(place)}
    if peer == "litserve":
        (place / "served.py").write_text(LITSERVE)
        return [python, "served.py", str(port)], place, {}
    (place / "service.py").write_text(BENTOML)
    more = {"BENTOML_HOME": str(place / "home"), "BENTOML_DO_NOT_TRACK": "True"}
    return (
        [
            str(Path(python).with_name("bentoml")),
            "serve",
            "service:Returns",
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        place,
        more,
    )


def ready(process: subprocess.Popen[bytes], port: int, side: Side, folder: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, AssertionError, asyncio.IncompleteReadError, IndexError):
            uvloop.run(load(port, side, np.ones((1, env_columns)), None, 1, 1))
            return
        time.sleep(0.2)
    raise SystemExit(f"{side.name} does not answer:\n{(folder / f'{side.name}.log').read_text()[-4000:]}")


env_columns = 3


# -- the load ----------------------------------------------------------------------------------------------------------


async def load(
    port: int, side: Side, rows: np.ndarray, wanted: np.ndarray | None, count: int, connections: int
) -> float:
    """Send requests over keep-alive connections; the greatest difference of a score to what is wanted."""
    asked = [side.ask([float(value) for value in row]) for row in rows]
    worst = 0.0

    async def connection(number: int) -> None:
        nonlocal worst
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for at in range(number, number + count // connections):
            writer.write(asked[at % len(asked)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert b" 200 " in head.split(b"\r\n", 1)[0], head
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            (score,) = side.answer(orjson.loads(await reader.readexactly(length)))
            if wanted is not None:
                worst = max(worst, abs(score - wanted[at % len(asked)]))
        writer.close()

    await asyncio.gather(*(connection(number) for number in range(connections)))
    return worst


def cpu_seconds(pid: int) -> float:
    """Of a process and its children, those that have ended included."""
    total = 0.0
    for found in [pid, *children(pid)]:
        fields = Path(f"/proc/{found}/stat").read_text().rpartition(")")[2].split()
        total += sum(map(int, fields[11:15])) / HZ
    return total


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="peers, by commas")
    given = parser.parse_args()
    only = {"ours", *filter(None, given.only.split(","))}
    sides = [side for side in SIDES if not given.only or side.name.partition(" ")[0].strip(",") in only]
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        project, model, output = built(folder)
        env = {"BENCH_MODEL": str(model), "BENCH_OUTPUT": output}
        os.environ.update(env)
        known: dict[str, Any] = {}
        exec(SCORING, known)
        rows = np.random.default_rng(7).uniform(1, 60, (ROWS, env_columns)).astype(np.float32)
        wanted = np.asarray(known["scores"](rows))
        servers = {side.name: stack.enter_context(running(side, folder, project, env)) for side in sides}
        return compare(sides, servers, rows, wanted, given.rounds)


def compare(
    sides: Sequence[Side], servers: dict[str, tuple[int, int]], rows: np.ndarray, wanted: np.ndarray, rounds: int
) -> int:
    cost: dict[tuple[str, int], list[float]] = {}
    for side in sides:
        worst = uvloop.run(load(servers[side.name][1], side, rows, wanted, 320, 16))
        assert worst < 1e-5, f"{side.name} is off by {worst}"
    for _ in range(rounds):
        for connections in CONCURRENCY:
            for side in sides:
                pid, port = servers[side.name]
                before = cpu_seconds(pid)
                worst = uvloop.run(load(port, side, rows, wanted, side.requests, connections))
                assert worst < 1e-5, f"{side.name} is off by {worst}"
                spent = (cpu_seconds(pid) - before) / (side.requests // connections * connections) * 1e6
                cost.setdefault((side.name, connections), []).append(spent)
    missed = 0
    print(f"CPU us a request, the median of {rounds} rounds, and its ratio to ours in the same round")
    for connections in CONCURRENCY:
        ours = cost["ours", connections]
        for side in sides:
            mine = cost[side.name, connections]
            ratio = statistics.median(theirs / own for theirs, own in zip(mine, ours, strict=True))
            told = f"{connections:>3}  {side.name:<26}{statistics.median(mine):>7.0f} us{ratio:>7.2f}x"
            bad = ratio < side.bar
            missed += bad
            print(told + (f"   bar {side.bar:g}x {'missed' if bad else 'met'}" if side.bar > 1 else ""), flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
