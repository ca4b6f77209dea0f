"""What a client sends and how it reads what comes back: no sockets here, so that sync and async clients are one.

Every request may be sent again: predictions and reads change nothing but a log, a push carries an idempotency key, and
of labels the newest counts.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
import orjson

from mainspring.client.answers import FeatureAnswer, Inference, Labelled, Prediction, Pushed
from mainspring.client.faults import AnswerError, refused
from mainspring.client.tensors import Arrays, read_tensors, write_tensors

__all__ = [
    "Asked",
    "Label",
    "Received",
    "again",
    "features",
    "infer",
    "label",
    "models",
    "predict",
    "predict_many",
    "push",
]

T = TypeVar("T")

_JSON = {"content-type": "application/json"}
_LENGTH = "inference-header-content-length"
_LATER = frozenset({429, 503})
"""Statuses after which another try makes sense."""
_FIRST_S, _MOST_S = 0.1, 5.0
"""The pause before the second try where the server names none, and the longest that is kept."""


class Received(msgspec.Struct, frozen=True):
    """An answer as it came: `headers` by their names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Asked(msgspec.Struct, Generic[T], frozen=True):
    """A request, and how its answer is read."""

    method: str
    path: str
    read: Callable[[Received], T]
    body: bytes = b""
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)

    def answer(self, url: str, received: Received) -> T:
        """The answer, typed.

        Raises:
            RequestRefusedError: MS-2790; KeyRefusedError: MS-3110; AnswerError: MS-4381, as the status says; MS-4382,
                what came is no answer of a Mainspring server.
        """
        if not 200 <= received.status < 300:
            raise refused(url, received.status, *_told(received.body))
        try:
            return self.read(received)
        except (ValueError, KeyError, TypeError, msgspec.MsgspecError) as error:
            raise AnswerError(
                f"{url} answers with what is no answer of {self.path}",
                code="MS-4382",
                why=str(error),
                fix="look whether a Mainspring server of a like version is at this address",
            ) from error


def again(received: Received | None, tries: int) -> float:
    """The pause before the next try, in seconds; negative when there is to be none.

    Args:
        received: what came; None, nothing did.
        tries: how many were made.
    """
    pause: float = min(_FIRST_S * 2.0 ** (tries - 1), _MOST_S)
    if received is None:
        return pause
    if received.status not in _LATER:
        return -1.0
    told = received.headers.get("retry-after", "")
    return min(float(told), _MOST_S) if told.isdigit() else pause


def _told(body: bytes) -> tuple[str, str, str]:
    """A fault's text, code and remedy."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return body[:200].decode("utf-8", "replace"), "", ""
    if not isinstance(found, dict):
        return str(found)[:200], "", ""
    text, code, fix = (str(found.get(name, "")) for name in ("error", "code", "fix"))
    return text or str(found)[:200], code, fix


def _of(kind: type[T]) -> Callable[[Received], T]:
    decode = msgspec.json.Decoder(kind, strict=False).decode
    return lambda received: decode(received.body)


_prediction = _of(Prediction)
_labelled, _pushed, _features = _of(Labelled), _of(Pushed), _of(FeatureAnswer)


class _Predictions(msgspec.Struct):
    predictions: list[Prediction]


_predictions = _of(_Predictions)


def predict(endpoint: str, row: Mapping[str, Any], *, features: bool) -> Asked[Prediction]:
    """Ask an endpoint about a row."""
    return Asked("POST", _endpoint(endpoint, "", features), _prediction, _dumped(row), _JSON)


def predict_many(endpoint: str, rows: Sequence[Mapping[str, Any]], *, features: bool) -> Asked[list[Prediction]]:
    """Ask an endpoint about rows, which the model answers with one call."""
    path = _endpoint(endpoint, "/batch", features)
    return Asked("POST", path, lambda got: _predictions(got).predictions, _dumped({"rows": list(rows)}), _JSON)


def _endpoint(name: str, rest: str, features: bool) -> str:
    return f"/endpoint/{quote(name, '')}{rest}{'?features=true' if features else ''}"


def infer(
    model: str, inputs: Arrays, version: str | None, outputs: Sequence[str], timeout_us: int | None
) -> Asked[Inference]:
    """Ask a model about tensors, in the Open Inference Protocol's binary form."""
    body, length = write_tensors(inputs, outputs, timeout_us)
    place = f"/v2/models/{quote(model, '')}" + ("" if version is None else f"/versions/{quote(version, '')}")
    headers = {"content-type": "application/octet-stream", _LENGTH: str(length)}
    return Asked("POST", f"{place}/infer", _inferred, body, headers)


def _inferred(received: Received) -> Inference:
    length = int(received.headers.get(_LENGTH, len(received.body)))
    head = orjson.loads(received.body[:length])
    ids = str(head.get("parameters", {}).get("prediction_ids", ""))
    tensors = read_tensors(head["outputs"], memoryview(received.body)[length:])
    return Inference(
        head["model_name"], str(head.get("model_version", "")), tensors, tuple(ids.split(",")) if ids else ()
    )


def features(service: str, entities: Mapping[str, Sequence[Any]], request: Mapping[str, Any]) -> Asked[FeatureAnswer]:
    """Ask a feature service about entities."""
    body = {"entities": {name: list(values) for name, values in entities.items()}}
    if request:
        body["request"] = dict(request)
    return Asked("POST", f"/feature-services/{quote(service, '')}/read", _features, _dumped(body), _JSON)


def push(source: str, rows: Sequence[Mapping[str, Any]], key: str | None) -> Asked[Pushed]:
    """Bring rows of a source; sent twice under one key they are taken once."""
    headers = {**_JSON, "idempotency-key": key or uuid.uuid4().hex}
    return Asked("POST", f"/sources/{quote(source, '')}/push", _pushed, _dumped({"rows": list(rows)}), headers)


class Label(msgspec.Struct, frozen=True):
    """What became of a prediction.

    Args:
        id: of the prediction.
        value: the truth.
        at: when it was known; now, when it is left out.
        name: the label's column, where several models' labels come.
    """

    id: str
    value: bool | float
    at: datetime | None = None
    name: str = ""


def label(labels: Sequence[Label]) -> Asked[Labelled]:
    """Send what became of predictions."""
    now = datetime.now(UTC)
    rows = []
    for one in labels:
        row = {"id": one.id, "value": one.value, "at": (one.at or now).isoformat()}
        rows.append(row | {"name": one.name} if one.name else row)
    return Asked("POST", "/labels", _labelled, _dumped({"labels": rows}), _JSON)


def models() -> Asked[list[str]]:
    """Ask which models there are."""
    return Asked("GET", "/v2/models", lambda got: [str(name) for name in orjson.loads(got.body)["models"]])


def _dumped(value: object) -> bytes:
    """JSON; moments in RFC 3339, decimals as text, NumPy's numbers as numbers."""
    return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
