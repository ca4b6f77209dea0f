"""Predictions over HTTP: by entity keys with look-up, ONNX and prediction log, and by every wire; server CPU a request.

Bars: <= 250 us of server CPU a request by keys at concurrency 16, prediction log included; <= 150 us for one row by
the Open Inference Protocol; decoding and encoding 32 rows in binary < 10 % of their request's CPU. The other side is
the same server's cheapest route (``/v2/health/live``), which is what HTTP costs. ``predict.py wires`` measures the
wires alone; ``host.py`` puts a handler of ASGI that only scores beside it.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from mainspring.ports.runtime import Card
from mainspring.protocols.oip.infer import read_call, write_answer
from mainspring.serving.calls import Inference
from mainspring.serving.inference import ServedModel
from mainspring.serving.models import LiveModel
from mainspring.serving.statistics import Statistics

CONNECTIONS, REQUESTS, ROUNDS = 16, 4_000, 3
HZ = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / HZ


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def load(port: int, request: bytes, count: int) -> int:
    """Send requests over keep-alive connections; how many were answered with 200."""
    good = 0

    async def connection(share: int) -> None:
        nonlocal good
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(share):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            good += head.startswith(b"HTTP/1.1 200")
        writer.close()

    await asyncio.gather(*(connection(count // CONNECTIONS) for _ in range(CONNECTIONS)))
    return good


def post(path: str, body: object) -> bytes:
    return sent(path, json.dumps(body).encode())


def sent(path: str, data: bytes, headers: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: x\r\n{headers}content-length: {len(data)}\r\n\r\n".encode() + data


def wires(columns: int, rows: int) -> dict[str, bytes]:
    """A request of each wire for the same rows."""
    matrix = np.random.default_rng(7).integers(1, 60, (rows, columns)).astype("f4")
    listed = matrix.tolist()
    tensor = {"name": "input", "datatype": "FP32", "shape": [rows, columns]}
    plain = {"inputs": [{**tensor, "data": listed}]}
    sink = io.BytesIO()
    np.save(sink, matrix)
    csv = "".join(",".join(map(repr, row)) + "\n" for row in listed).encode()
    return {
        "v2 JSON": post("/v2/models/late/infer", plain),
        "v2 binary": sent("/v2/models/late/infer", *binary(matrix)),
        "v1 :predict": post("/v1/models/late:predict", {"instances": listed}),
        "SageMaker JSON": post("/invocations", {"instances": listed}),
        "SageMaker CSV": sent("/invocations", csv, "content-type: text/csv\r\n"),
        "SageMaker NPY": sent("/invocations", sink.getvalue(), "content-type: application/x-npy\r\n"),
        "Azure ML": post("/score", {"data": listed}),
        "TorchServe": post("/predictions/late", listed),
    }


def binary(matrix: np.ndarray) -> tuple[bytes, str]:
    """A body with its tensor in binary, wanting the answer so, and the header with the length of its JSON."""
    data = matrix.tobytes()
    tensor = {"name": "input", "datatype": "FP32", "shape": list(matrix.shape)}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return head + data, f"inference-header-content-length: {len(head)}\r\n"


def codec_us(columns: int, rows: int) -> float:
    """CPU of decoding and encoding a binary request in this process, in microseconds."""
    card = Card("late", "onnx", "", tuple(f"c{n}" for n in range(columns)), "float32", "binary")
    served = ServedModel("late", LiveModel("1", "", card, None), Statistics())
    body, header = binary(np.ones((rows, columns), "f4"))
    length, scores = int(header.split(": ")[1]), np.ones(rows)
    answer = Inference("late", "1", [(served.outputs[0], scores)], ["0" * 32] * rows)
    began = time.process_time()
    for _ in range(REQUESTS):
        write_answer(read_call(body, length, served, None, "oip", 65_536), answer)
    return (time.process_time() - began) / REQUESTS * 1e6


def measure_wires(pid: int, port: int) -> int:
    """Print what each wire costs, and whether the row and the codec keep their bars."""
    columns = model_columns(port)
    live = b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
    cost = {}
    measured(pid, port, wires(columns, 1)["v2 JSON"])
    for rows in (1, 32):
        floor, _ = measured(pid, port, live)
        for name, request in wires(columns, rows).items():
            cost[name, rows], _ = measured(pid, port, request)
            told = f"{cost[name, rows]:>4.0f} us server CPU a request; HTTP alone {floor:.0f} us"
            print(f"{rows:>2} rows  {name:<15} {told}")
    codec, whole = codec_us(columns, 32), cost["v2 binary", 32]
    print(f"32 rows in binary: codec {codec:.1f} us of {whole:.0f} us, {codec / whole:.1%}")
    print(f"bar 10 %: {'met' if codec < 0.1 * whole else 'missed'}")
    row = cost["v2 JSON", 1]
    print(f"one row by REST: {row:.0f} us; bar 150 us: {'met' if row <= 150 else 'missed'}")
    return int(codec >= 0.1 * whole or row > 150)


def model_columns(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/late") as answer:
        return int(json.load(answer)["inputs"][0]["shape"][1])


def measured(pid: int, port: int, request: bytes) -> tuple[float, float]:
    before, began = cpu_seconds(pid), time.monotonic()
    good = asyncio.run(load(port, request, REQUESTS))
    assert good == REQUESTS, f"{REQUESTS - good} requests failed"
    return (cpu_seconds(pid) - before) / REQUESTS * 1e6, REQUESTS / (time.monotonic() - began)


def main() -> int:
    example = Path(__file__).resolve().parent.parent / "examples" / "flights"
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(temporary) / "flights"
        shutil.copytree(example, project, ignore=shutil.ignore_patterns(".mainspring", "__pycache__"))
        if not (project / "data" / "planes.parquet").exists():
            subprocess.run([sys.executable, "data.py"], cwd=project, check=True)
        command = [sys.executable, "-m", "mainspring.cli"]
        subprocess.run([*command, "apply"], cwd=project, check=True, stderr=subprocess.DEVNULL)
        port = free_port()
        server = subprocess.Popen([*command, "serve", "--port", str(port)], cwd=project, stderr=subprocess.DEVNULL)
        try:
            while True:
                try:
                    asyncio.run(load(port, b"GET /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n", CONNECTIONS))
                    break
                except OSError:
                    time.sleep(0.2)
            keys = {"origin": "JFK", "carrier": "UA", "tailnum": "N37293"}
            body = {**keys, "distance": 1089, "now": "2013-12-30T20:00:00Z"}
            ask, live = post("/endpoint/late", body), b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n"
            if "wires" in sys.argv:
                return measure_wires(server.pid, port)
            measured(server.pid, port, ask)
            worst = 0.0
            for number in range(ROUNDS):
                (ours, rate), (floor, _) = measured(server.pid, port, ask), measured(server.pid, port, live)
                worst = max(worst, ours)
                print(
                    f"round {number + 1}: {ours:.0f} us server CPU a prediction, {rate:,.0f}/s; "
                    f"HTTP alone {floor:.0f} us"
                )
            print(f"bar 250 us: {'met' if worst <= 250 else 'missed'}")
            return int(worst > 250) | measure_wires(server.pid, port)
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=60)


if __name__ == "__main__":
    sys.exit(main())
