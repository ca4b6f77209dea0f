"""Asks a server with Triton's own HTTP client, in a process of its own: its descriptors clash with other clients'.

Usage: ``python triton_client.py HOST:PORT MANAGEMENT_HOST:PORT MODEL COLUMNS``; prints what it was answered as JSON.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.http as triton


def main(server: str, management: str, model: str, columns: int) -> None:
    client = triton.InferenceServerClient(server)
    found: dict[str, object] = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(model),
        "version_ready": client.is_model_ready(model, "1"),
        "no_version_ready": client.is_model_ready(model, "9"),
        "server": client.get_server_metadata(),
        "model": client.get_model_metadata(model),
        "config": client.get_model_config(model),
        "index": client.get_model_repository_index(),
    }
    matrix = np.random.default_rng(5).normal(size=(32, columns)).astype("float32")
    matrix[3, 1] = np.nan
    scores = {}
    for name, sent, got, zipped in (
        ("binary", True, True, None),
        ("json", False, False, None),
        ("mixed", True, False, None),
        ("gzip", True, True, "gzip"),
        ("deflate", False, True, "deflate"),
    ):
        tensor = triton.InferInput("input", list(matrix.shape), "FP32")
        tensor.set_data_from_numpy(matrix, binary_data=sent)
        output = triton.InferRequestedOutput("score", binary_data=got)
        answer = client.infer(
            model,
            [tensor],
            outputs=[output],
            request_id=name,
            timeout=60_000_000,
            request_compression_algorithm=zipped,
            response_compression_algorithm=zipped,
        )
        assert answer.get_response()["id"] == name
        scores[name] = [float(value).hex() for value in answer.as_numpy("score")]
    everything = client.infer(model, [tensor])
    scores["all outputs"] = [float(value).hex() for value in everything.as_numpy("score")]
    found["scores"] = scores
    found["statistics"] = client.get_inference_statistics(model)
    try:
        client.infer("nobody", [tensor])
    except triton.InferenceServerException as error:
        found["unknown"] = [error.status(), error.message()]
    with triton.InferenceServerClient(management) as manager:
        manager.unload_model(model)
        found["unloaded"] = [client.is_model_ready(model), client.get_model_repository_index()]
        manager.load_model(model)
        found["loaded"] = client.is_model_ready(model)
        try:
            manager.load_model(model, config="{}")
        except triton.InferenceServerException as error:
            found["config refused"] = error.status()
        try:
            manager.load_model("file:///etc/passwd")
        except triton.InferenceServerException as error:
            found["path refused"] = error.status()
    client.close()
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
