"""Asks a server with Triton's own gRPC client, in a process of its own: its descriptors clash with other clients'.

Usage: ``python triton_grpc_client.py HOST:PORT MODEL COLUMNS TOKEN``; prints what it was answered as JSON.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Callable

import numpy as np
import tritonclient.grpc as triton


def refused(ask: Callable[[], object]) -> list[str]:
    """The status and the text of a call that fails."""
    try:
        ask()
    except triton.InferenceServerException as error:
        return [str(error.status()), error.message()]
    raise AssertionError("it was answered")


def streamed(client: triton.InferenceServerClient, model: str, rows: list[triton.InferInput]) -> list[object]:
    """What a stream answers: one request for a model that nobody knows, and then one a row."""
    answers: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    client.async_stream_infer("nobody", rows[:1], request_id="bad")
    for place, tensor in enumerate(rows):
        client.async_stream_infer(model, [tensor], request_id=str(place), enable_empty_final_response=True)
    found: list[object] = []
    for _ in range(len(rows) + 1):
        result, error = answers.get(timeout=60)
        if error is not None:
            found.append(error.message())  # type: ignore[attr-defined]
            continue
        assert result is not None
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        found.append([response.id, final, [float(value).hex() for value in result.as_numpy("score")]])
    client.stop_stream()
    return found


def main(server: str, model: str, columns: int, token: str) -> None:
    client = triton.InferenceServerClient(server)
    found: dict[str, object] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "server": client.get_server_metadata(as_json=True),
        "model": client.get_model_metadata(model, as_json=True),
        "config": client.get_model_config(model, as_json=True),
        "index": client.get_model_repository_index(as_json=True),
    }
    matrix = np.random.default_rng(5).normal(size=(32, columns)).astype("float32")
    matrix[3, 1] = np.nan
    tensor = triton.InferInput("input", list(matrix.shape), "FP32")
    tensor.set_data_from_numpy(matrix)
    output = triton.InferRequestedOutput("score")
    answer = client.infer(model, [tensor], outputs=[output], request_id="7", timeout=60_000_000, client_timeout=60)
    assert answer.get_response().id == "7"
    scores = [float(value).hex() for value in answer.as_numpy("score")]
    everything = client.infer(model, [tensor], model_version="1", priority=1)
    found["scores"] = scores
    assert [float(value).hex() for value in everything.as_numpy("score")] == scores
    done: queue.Queue[tuple[triton.InferResult | None, Exception | None]] = queue.Queue()
    client.async_infer(model, [tensor], lambda result, error: done.put((result, error)))
    result, error = done.get(timeout=60)
    assert error is None
    assert result is not None
    found["asynchronous"] = [float(value).hex() for value in result.as_numpy("score")]
    rows = []
    for row in matrix[:4]:
        rows.append(triton.InferInput("input", [1, columns], "FP32"))
        rows[-1].set_data_from_numpy(row[None])
    found["stream"] = streamed(client, model, rows)
    found["statistics"] = client.get_inference_statistics(model, as_json=True)
    found["unknown"] = refused(lambda: client.infer("nobody", [tensor]))
    found["no version"] = refused(lambda: client.get_model_metadata(model, "9"))
    for coding in ("gzip", "deflate"):
        compressed = client.infer(model, [tensor], compression_algorithm=coding)
        found[coding] = [float(value).hex() for value in compressed.as_numpy("score")]
    found["memory"] = refused(lambda: client.get_system_shared_memory_status())
    found["not managed"] = refused(lambda: client.unload_model(model))
    headers = {"authorization": f"Bearer {token}"}
    found["config refused"] = refused(lambda: client.load_model(model, headers=headers, config="{}"))
    found["path refused"] = refused(lambda: client.load_model("file:///etc/passwd", headers=headers))
    client.unload_model(model, headers=headers)
    for _ in range(200):  # until the last of the calls before has let it go
        if client.get_model_repository_index(as_json=True)["models"][0]["state"] == "UNAVAILABLE":
            break
        time.sleep(0.1)
    found["unloaded"] = [client.is_model_ready(model), client.get_model_repository_index(as_json=True)]
    client.load_model(model, headers=headers)
    found["loaded"] = client.is_model_ready(model)
    client.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
