"""A prediction over gRPC beside grpcio passing bytes through: CPU of the server process a call, paired in one run.

Bar: <= 1.4x of the pass-through at concurrency 16 and 64, for one row by the Open Inference Protocol's raw contents,
with validation, metrics, limits and prediction log. The other side is a `grpc.aio` server on uvloop with the same
options, that answers every call with the bytes of our answer.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop

from mainspring.protocols.oip.messages import INFERENCE, schema
from mainspring.protocols.tfserving.messages import PREDICTION
from mainspring.protocols.tfserving.messages import schema as tensorflow

# This script is called grpc too, and its folder comes first.
sys.path = [path for path in sys.path if Path(path or ".").resolve() != Path(__file__).resolve().parent]
sys.modules.pop("grpc", None)
import grpc  # noqa: E402

CALLS, SLICES, ROUNDS = 500, 6, 3
"""Both sides are asked in turn, slice by slice, so that what else the machine does meets both."""
INFER, PREDICT = f"/{INFERENCE}/ModelInfer", f"/{PREDICTION}/Predict"
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 8_388_608))


def cpu_seconds(pid: int) -> float:
    """CPU of a process's living threads, by the scheduler's nanoseconds."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def pass_through(answer: bytes) -> None:
    """Answer every call with the same bytes."""

    async def handle(data: bytes, context: object) -> bytes:
        return answer

    server = grpc.aio.server(options=OPTIONS)
    for service, method in (INFER[1:].split("/"), PREDICT[1:].split("/")):
        handlers = {method: grpc.unary_unary_rpc_method_handler(handle)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def load(port: int, path: str, message: bytes, count: int, together: int) -> bytes:
    """Make calls, so many together; the last answer."""
    answer = b""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary(path)

        async def caller(share: int) -> None:
            nonlocal answer
            for _ in range(share):
                answer = await call(message, timeout=30)

        await asyncio.gather(*(caller(count // together) for _ in range(together)))
    return answer


def measured(sides: list[tuple[int, int]], path: str, message: bytes, together: int) -> list[float]:
    """CPU of each server a call, in microseconds."""
    spent = [0.0] * len(sides)
    for _ in range(SLICES):
        for place, (pid, port) in enumerate(sides):
            before = cpu_seconds(pid)
            uvloop.run(load(port, path, message, CALLS, together))
            spent[place] += cpu_seconds(pid) - before
    return [seconds / CALLS / SLICES * 1e6 for seconds in spent]


def messages(columns: int) -> dict[str, bytes]:
    """A request of each wire for the same row."""
    row = np.random.default_rng(7).integers(1, 60, (1, columns)).astype("f4")
    tensor = {"name": "input", "datatype": "FP32", "shape": row.shape}
    request = schema().message("inference.ModelInferRequest")
    proto = tensorflow().message("tensorflow.TensorProto")(dtype=1, float_val=row.ravel().tolist())
    for size in row.shape:
        proto.tensor_shape.dim.add(size=size)
    predict = tensorflow().message("tensorflow.serving.PredictRequest")(model_spec={"name": "returns"})
    predict.inputs["input"].CopyFrom(proto)
    raw = request(model_name="returns", inputs=[tensor], raw_input_contents=[row.tobytes()])
    typed = request(model_name="returns", inputs=[{**tensor, "contents": {"fp32_contents": row.ravel().tolist()}}])
    return {
        f"raw {INFER}": raw.SerializeToString(),
        f"typed {INFER}": typed.SerializeToString(),
        f"TF {PREDICT}": predict.SerializeToString(),
    }


def served(project: Path) -> tuple[subprocess.Popen[bytes], int]:
    """A server of ours, and its port of gRPC."""
    log = project / "server.log"
    environment = {**os.environ, "MAINSPRING_GRPC_PORT": "0", "MAINSPRING_MANAGEMENT_PORT": "0"}
    with open(log, "wb") as output:
        command = [sys.executable, "-m", "mainspring.cli", "serve", "--port", "0"]
        process = subprocess.Popen(command, cwd=project, env=environment, stdout=output, stderr=output)
    for _ in range(600):
        if found := re.search(r"^grpc +\S+:(\d+)$", log.read_text(), re.MULTILINE):
            return process, int(found[1])
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise TimeoutError(log.read_text())


def compare(ours: tuple[int, int], theirs: tuple[int, int]) -> float:
    """Print both sides of each wire; the worst ratio of the raw one."""
    worst = 0.0
    for name, message in messages(3).items():
        kind, path = name.split(" ")
        for together in (16, 64):
            measured([ours], path, message, together)
            for number in range(ROUNDS):
                cost, floor = measured([ours, theirs], path, message, together)
                worst = max(worst, cost / floor) if kind == "raw" else worst
                told = f"{cost:.0f} us server CPU a call; bytes passed through {floor:.0f} us: {cost / floor:.2f}x"
                print(f"{kind:<5} concurrency {together:>2} round {number + 1}: {told}")
    return worst


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "mainspring.cli"]
        subprocess.run([*command, "new", "shop"], cwd=temporary, check=True, stdout=subprocess.DEVNULL)
        project = Path(temporary) / "shop"
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run([*command, "apply"], cwd=project, check=True, **quiet)
        ours, port = served(project)
        answer = uvloop.run(load(port, INFER, next(iter(messages(3).values())), 1, 1))
        theirs = subprocess.Popen([sys.executable, __file__, "peer", answer.hex()], stdout=subprocess.PIPE)
        try:
            assert theirs.stdout is not None
            worst = compare((ours.pid, port), (theirs.pid, int(theirs.stdout.readline())))
        finally:
            theirs.kill()
            theirs.wait()
            ours.send_signal(signal.SIGTERM)
            ours.wait(timeout=60)
    print(f"bar 1.4x: {'met' if worst <= 1.4 else 'missed'} ({worst:.2f}x)")
    return int(worst > 1.4)


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        uvloop.run(pass_through(bytes.fromhex(sys.argv[2])))
    sys.exit(main())
