"""TensorFlow Serving's and KServe's v1 paths, which are partly the same ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from e2e.conftest import Served, call
from e2e.test_protocols import ROWS, oip_scores, raw

MODEL = "/v1/models/returns"


def columns_of(url: str) -> list[str]:
    return [column["name"] for column in json.loads(call(f"{url}/endpoint/returns")[1])["columns"]]


def answered(served: Served, path: str, body: Any, status: int = 200) -> Any:
    found, answer, _ = call(f"{served.url}{path}", body)
    assert found == status, (path, body, answer)
    return json.loads(answer)


def test_rows_and_columns_by_value_and_by_name(served: Served) -> None:
    wanted = oip_scores(served.url, ROWS)
    names = columns_of(served.url)
    objects = [dict(zip(names, row, strict=True)) for row in ROWS]
    columns = {name: [row[place] for row in ROWS] for place, name in enumerate(names)}
    for instances in (ROWS, [{"input": row} for row in ROWS], objects):
        assert answered(served, f"{MODEL}:predict", {"instances": instances}) == {"predictions": wanted}
    for inputs in (ROWS, {"input": ROWS}, columns, {name: [[v] for v in column] for name, column in columns.items()}):
        assert answered(served, f"{MODEL}:predict", {"inputs": inputs}) == {"outputs": wanted}
    signed = {"signature_name": "serving_default", "instances": ROWS}
    for path in ("/versions/1", "/labels/champion", "/labels/stable", "/VERSIONS/1"):
        assert answered(served, f"{MODEL}{path}:predict", signed) == {"predictions": wanted}
    assert answered(served, "/V1/MODELS/returns:Predict", signed) == {"predictions": wanted}
    assert answered(served, "/v1/models/returns%3Apredict", signed) == {"predictions": wanted}


def test_not_a_number_is_legal_and_is_a_missing_value(served: Served) -> None:
    missing = answered(served, f"{MODEL}:predict", {"instances": [[None, 2.0, 3.0]]})
    bare = answered(served, f"{MODEL}:predict", b'{"instances": [[NaN, 2.0, 3.0]]}')
    assert bare == missing
    assert answered(served, f"{MODEL}:predict", b'{"instances": [[Infinity, 2.0, -Infinity]]}')["predictions"]


def test_examples_are_classified_and_regressed(served: Served) -> None:
    scores = oip_scores(served.url, ROWS)
    names = columns_of(served.url)
    examples: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in ROWS]
    examples[1] = {name: [value] for name, value in examples[1].items()}
    assert answered(served, f"{MODEL}:regress", {"examples": examples}) == {"results": scores}
    classified = answered(served, f"{MODEL}:classify", {"examples": examples})["results"]
    assert classified == [[["false", 1 - score], ["true", score]] for score in scores]
    context = {names[0]: ROWS[0][0]}
    rest = [{name: value for name, value in examples[0].items() if name != names[0]}]
    assert answered(served, f"{MODEL}:regress", {"context": context, "examples": rest}) == {"results": scores[:1]}


def test_what_is_answered_is_in_the_log(served: Served) -> None:
    body = json.dumps({"instances": ROWS}).encode()
    ids = raw(served.url, "POST", f"{MODEL}:predict", body)[2]["x-mainspring-prediction-ids"].split(",")
    labels = [{"id": identity, "value": True, "at": "2025-12-01T00:00:00Z"} for identity in ids]
    assert len(set(ids)) == 3
    assert answered(served, "/labels", {"labels": labels}, 202)["accepted"] == 3


def test_status_metadata_and_the_merged_list(served: Served) -> None:
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert answered(served, f"{MODEL}/versions/1", None) == {"model_version_status": [available]}
    assert answered(served, f"{MODEL}/labels/stable", None) == {"model_version_status": [available]}
    found = answered(served, MODEL, None)
    assert {"name": "returns", "ready": True, "id": "returns", "object": "model"}.items() <= found.items()
    assert found["model_version_status"] == [available]
    listed = answered(served, "/v1/models", None)
    assert (listed["object"], listed["models"]) == ("list", ["returns"])
    assert [item["id"] for item in listed["data"]] == ["returns"]
    for path in (f"{MODEL}/metadata", f"{MODEL}/versions/1/METADATA"):
        metadata = answered(served, path, None)
        assert metadata["model_spec"] == {"name": "returns", "signature_name": "", "version": "1"}
        signature = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        dimensions = [{"size": "-1", "name": ""}, {"size": "3", "name": ""}]
        assert signature["inputs"]["input"] == {
            "dtype": "DT_FLOAT",
            "tensor_shape": {"dim": dimensions, "unknown_rank": False},
            "name": "input:0",
        }
        assert signature["outputs"]["score"]["dtype"] == "DT_DOUBLE"
        assert signature["method_name"] == "tensorflow/serving/predict"
    assert answered(served, "/", None) == {"status": "alive"}
    assert call(f"{served.url}/monitoring/prometheus/metrics")[0] == 200


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (":predict", {}, 400),
        (":predict", [], 400),
        (":predict", {"instances": ROWS, "inputs": ROWS}, 400),
        (":predict", {"instances": []}, 400),
        (":predict", {"instances": [{}]}, 400),
        (":predict", {"instances": [[1, 2]]}, 400),
        (":predict", {"instances": [[1, 2, 3], [4, 5]]}, 400),
        (":predict", {"instances": [[1], [2, 3], [4, 5, 6]]}, 400),
        (":predict", {"instances": [{"input": [1, 2, 3]}, {"output": [1, 2, 3]}]}, 400),
        (":predict", {"instances": [{"input": [1, 2, 3]}, [1, 2, 3]]}, 400),
        (":predict", {"instances": [{"b64": "AAAA"}]}, 400),
        (":predict", {"instances": [[1, 2, {"b64": "AAAA"}]]}, 400),
        (":predict", {"instances": [[1, 2, "3"]]}, 400),
        (":predict", {"instances": [[1, 2, True]]}, 400),
        (":predict", {"instances": [[1, 2, 1e300]]}, 400),
        (":predict", {"instances": [[0, 0, 0]] * 65_537}, 413),
        (":predict", {"inputs": 1}, 400),
        (":predict", {"inputs": {"colour": [1]}}, 400),
        (":predict", {"signature_name": "other", "instances": ROWS}, 400),
        (":predict", {"signature_name": [1], "instances": ROWS}, 400),
        (":classify", {"examples": [{"colour": 1}]}, 400),
        (":classify", {"examples": [{}]}, 400),
        (":classify", {"examples": {}}, 400),
        (":regress", {"examples": [{"amount": [1, 2]}]}, 400),
        (":explain", {"instances": ROWS}, 501),
        ("", {"instances": ROWS}, 405),
        ("/versions/7:predict", {"instances": ROWS}, 404),
        ("/versions/x:predict", {"instances": ROWS}, 404),
        ("/labels/canary:predict", {"instances": ROWS}, 404),
    ],
)
def test_what_does_not_fit_is_refused(served: Served, path: str, body: Any, status: int) -> None:
    assert answered(served, f"{MODEL}{path}", body, status)["error"]


def test_unknown_models(served: Served) -> None:
    assert answered(served, "/v1/models/nobody:predict", {"instances": ROWS}, 404)["error"]
    assert answered(served, "/v1/models/nobody", None, 404)["error"]
    assert answered(served, "/v1/models/nobody/metadata", None, 404)["error"]


def test_a_model_that_is_not_loaded(served: Served) -> None:
    assert call(f"{served.console}/v2/repository/models/returns/unload", b"")[0] == 200
    try:
        found = answered(served, MODEL, None, 503)
        assert (found["ready"], found["model_version_status"]) == (False, [])
        assert answered(served, f"{MODEL}:predict", {"instances": ROWS}, 503)["error"]
    finally:
        assert call(f"{served.console}/v2/repository/models/returns/load", b"")[0] == 200
