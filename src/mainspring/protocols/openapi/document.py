"""The OpenAPI 3.1 document of what a process serves: endpoints, feature services and sources, with their types.

Source of the format: OpenAPI Specification 3.1.1. Routes whose contract is somebody else's are in it as far as they
take a model of the app (Open Inference Protocol, KServe v1); OpenAI's, Anthropic's, Feast's and the clouds' are
described by their owners.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from mainspring.declare.record import ColumnType, FieldSpec
from mainspring.protocols.openapi.schema import Schema, array_of, column_schema, object_of, reference

__all__ = ["EndpointShape", "Limits", "ServiceShape", "Shapes", "document"]

_NOT_LETTERS = re.compile(r"[^0-9A-Za-z]+")
_LATER = {"Retry-After": {"description": "seconds after which another try makes sense", "schema": {"type": "integer"}}}
_MOMENT: Schema = {
    "type": "string",
    "format": "date-time",
    "description": "RFC 3339 with a zone; or whole microseconds",
}
_WIDTHS = ("8", "16", "32", "64")
_TYPES = ["BOOL", *(f"{kind}{width}" for kind in ("INT", "UINT") for width in _WIDTHS)]
_TYPES += ["FP16", "FP32", "FP64", "BF16", "BYTES"]


class EndpointShape(msgspec.Struct, frozen=True):
    """What an endpoint takes.

    Attributes:
        name: its name.
        model: who answers.
        carried: the columns that a question carries.
        ignored: further ones that it may carry.
        boolean: whether what is predicted is true or false.
    """

    name: str
    model: str
    carried: Mapping[str, ColumnType]
    ignored: Sequence[str] = ()
    boolean: bool = True


class ServiceShape(msgspec.Struct, frozen=True):
    """What a feature service takes.

    Attributes:
        name: its name.
        keys: the entity keys of a question.
        request: the fields of the request.
    """

    name: str
    keys: Mapping[str, ColumnType]
    request: Mapping[str, ColumnType]


class Limits(msgspec.Struct, frozen=True):
    """What the settings allow.

    Attributes:
        rows: the most rows of one request.
        replay: whether a request may set its own moment.
        keys: whether a request needs a key.
    """

    rows: int
    replay: bool = False
    keys: bool = False


class Shapes(msgspec.Struct, frozen=True):
    """Everything of an app that has a route.

    Attributes:
        app: the app's name.
        version: of Mainspring.
        endpoints: of models.
        services: the feature services.
        sources: the columns of each source that takes pushes.
        models: the names of the models that answer the Open Inference Protocol.
    """

    app: str
    version: str
    endpoints: Sequence[EndpointShape] = ()
    services: Sequence[ServiceShape] = ()
    sources: Mapping[str, Sequence[FieldSpec]] = msgspec.field(default_factory=dict)
    models: Sequence[str] = ()


def document(shapes: Shapes, limits: Limits) -> Schema:
    """The description of an app's routes, the same for the same app."""
    return _Document(shapes, limits).made()


class _Document:
    def __init__(self, shapes: Shapes, limits: Limits) -> None:
        self._shapes = shapes
        self._limits = limits
        self._paths: dict[str, Schema] = {}
        self._schemas: dict[str, Schema] = {
            "Error": object_of(
                {
                    "error": {"type": "string"},
                    "code": {"type": "string", "description": "a code of the page of errors"},
                    "why": {"type": "string"},
                    "fix": {"type": "string"},
                },
                ("error",),
            )
        }

    def made(self) -> Schema:
        """The whole document."""
        shapes = self._shapes
        for endpoint in shapes.endpoints:
            self._endpoint(endpoint)
        if shapes.endpoints:
            self._labels()
        for name, columns in shapes.sources.items():
            self._source(name, columns)
        for service in shapes.services:
            self._service(service)
        if shapes.models:
            self._models()
        self._health()
        made: Schema = {
            "openapi": "3.1.0",
            "info": {"title": shapes.app, "version": shapes.version},
            "servers": [{"url": "/"}],
            "paths": self._paths,
            "components": {"schemas": self._schemas},
        }
        if self._limits.keys:
            made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            made["security"] = [{"key": []}]
        return made

    def _endpoint(self, shape: EndpointShape) -> None:
        title = self._title(shape.name)
        row = {name: column_schema(kind) for name, kind in shape.carried.items()}
        row |= {name: {"description": "may be sent, and is not read"} for name in shape.ignored if name not in row}
        required = tuple(name for name, kind in shape.carried.items() if not kind.nullable)
        moment = {"now": _MOMENT} if self._limits.replay and "now" not in row else {}
        rows = array_of(reference(f"{title}Row"), minItems=1, maxItems=self._limits.rows)
        self._schemas[f"{title}Row"] = object_of(row | moment, required)
        self._schemas[f"{title}Rows"] = object_of({"rows": rows} | moment, ("rows",))
        self._schemas[f"{title}Prediction"] = object_of(
            {
                "id": {"type": "string", "description": "under which labels arrive; empty when it was not logged"},
                "model": {"type": "string"},
                "version": {"type": "string"},
                "prediction": {"type": "boolean"} if shape.boolean else {"type": "number", "format": "double"},
                "score": {"type": "number", "format": "double"},
                "status": _statuses(),
                "features": {"type": "object", "description": "what the model saw, where features=true asks for it"},
            },
            ("id", "model", "version", "prediction", "score", "status"),
            closed=False,
        )
        self._schemas[f"{title}Predictions"] = object_of(
            {"predictions": array_of(reference(f"{title}Prediction"))}, closed=False
        )
        shown = {"name": "features", "in": "query", "required": False, "schema": {"type": "boolean"}}
        self._paths[f"/endpoint/{shape.name}"] = {
            "post": {
                "operationId": f"predict{title}",
                "summary": f"ask {shape.name}, which model {shape.model} answers, about one row",
                "tags": ["endpoints"],
                "parameters": [shown],
                "requestBody": _json(reference(f"{title}Row")),
                "responses": self._answers(reference(f"{title}Prediction"), "413", "503"),
            },
            "get": {
                "operationId": f"describe{title}",
                "summary": f"the keys and columns of {shape.name}",
                "tags": ["endpoints"],
                "responses": self._answers({"type": "object"}),
            },
        }
        self._paths[f"/endpoint/{shape.name}/batch"] = {
            "post": {
                "operationId": f"predict{title}Batch",
                "summary": f"ask {shape.name} about many rows, which the model answers with one call",
                "tags": ["endpoints"],
                "parameters": [shown],
                "requestBody": _json(reference(f"{title}Rows")),
                "responses": self._answers(reference(f"{title}Predictions"), "413", "503"),
            }
        }

    def _labels(self) -> None:
        kinds = {"boolean" if endpoint.boolean else "number" for endpoint in self._shapes.endpoints}
        label = object_of(
            {
                "id": {"type": "string", "description": "of the prediction"},
                "value": {"type": sorted(kinds) if len(kinds) > 1 else kinds.pop()},
                "at": _MOMENT,
                "name": {"type": "string", "description": "the label's column"},
            },
            ("id", "value", "at"),
        )
        self._schemas["Label"] = label
        counted = object_of({"accepted": {"type": "integer"}, "duplicate": {"type": "integer"}}, closed=False)
        self._paths["/labels"] = {
            "post": {
                "operationId": "label",
                "summary": "what became of predictions",
                "tags": ["endpoints"],
                "requestBody": _json(object_of({"labels": array_of(reference("Label"))}, closed=False)),
                "responses": self._answers(counted, "413", "422", "503", status="202"),
            }
        }

    def _source(self, name: str, columns: Sequence[FieldSpec]) -> None:
        title = self._title(name)
        needed = tuple(one.name for one in columns if not one.type.nullable)
        row = object_of({one.name: column_schema(one.type, one.rules) for one in columns}, needed)
        self._schemas[f"{title}Event"] = row
        key = {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[!-~]+$"},
            "description": "a push that comes again under the same key is taken once",
        }
        rows = array_of(reference(f"{title}Event"), maxItems=self._limits.rows)
        body = object_of({"rows": rows}, ("rows",), closed=False)
        taken = object_of(
            {"accepted": {"type": "integer"}, "quarantined": {"type": "integer"}}, ("accepted",), closed=False
        )
        self._paths[f"/sources/{name}/push"] = {
            "post": {
                "operationId": f"push{title}",
                "summary": f"rows of {name}: durable, and online, before the answer",
                "tags": ["sources"],
                "parameters": [key],
                "requestBody": _json(body),
                "responses": self._answers(taken, "409", "413", "422", "429", "503"),
            }
        }

    def _service(self, shape: ServiceShape) -> None:
        title = self._title(shape.name)
        keys = {name: array_of(column_schema(kind)) for name, kind in shape.keys.items()}
        request = {name: {} if kind.nullable else column_schema(kind) for name, kind in shape.request.items()}
        asked: dict[str, Schema] = {"entities": object_of(keys)}
        if request:
            asked["request"] = object_of(request, ())
        if self._limits.replay:
            asked["now"] = _MOMENT
        needed = ("entities", "request") if request else ("entities",)
        self._schemas[f"{title}Question"] = object_of(asked, needed)
        self._schemas[f"{title}Answer"] = object_of(
            {
                "names": array_of({"type": "string"}),
                "rows": array_of(array_of({})),
                "status": {
                    "type": "object",
                    "additionalProperties": {"type": "string", "description": "a letter an entity: P, M or E"},
                },
                "event_us": {
                    "type": "object",
                    "additionalProperties": array_of({"type": ["integer", "null"], "format": "int64"}),
                },
            },
            closed=False,
        )
        self._paths[f"/feature-services/{shape.name}/read"] = {
            "post": {
                "operationId": f"read{title}",
                "summary": f"the features of {shape.name}, of each entity",
                "tags": ["features"],
                "requestBody": _json(reference(f"{title}Question")),
                "responses": self._answers(reference(f"{title}Answer"), "413", "503"),
            }
        }

    def _models(self) -> None:
        parameters: Schema = {
            "type": "object",
            "additionalProperties": {"type": ["string", "number", "boolean"]},
        }
        tensor = {
            "name": {"type": "string"},
            "shape": array_of({"type": "integer", "format": "int64", "minimum": 0}, minItems=1),
            "datatype": {"type": "string", "enum": _TYPES},
            "parameters": parameters,
            "data": array_of({}),
        }
        self._schemas["Tensor"] = object_of(tensor, ("name", "shape", "datatype"))
        wanted = object_of({"name": {"type": "string"}, "parameters": parameters}, ("name",))
        self._schemas["InferenceRequest"] = object_of(
            {
                "id": {"type": "string"},
                "parameters": parameters,
                "inputs": array_of(reference("Tensor"), minItems=1),
                "outputs": array_of(wanted),
            },
            ("inputs",),
        )
        self._schemas["InferenceResponse"] = object_of(
            {
                "id": {"type": "string"},
                "model_name": {"type": "string"},
                "model_version": {"type": "string"},
                "parameters": parameters,
                "outputs": array_of(reference("Tensor")),
            },
            ("model_name", "outputs"),
            closed=False,
        )
        named = {
            "name": "model",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "enum": sorted(self._shapes.models)},
        }
        self._paths["/v2/models/{model}/infer"] = {
            "post": {
                "operationId": "infer",
                "summary": "Open Inference Protocol v2",
                "tags": ["models"],
                "parameters": [named],
                "requestBody": _json(reference("InferenceRequest")),
                "responses": self._answers(reference("InferenceResponse"), "404", "413", "503", "504"),
            }
        }
        self._paths["/v2/models/{model}"] = {
            "get": {
                "operationId": "modelMetadata",
                "summary": "what a model takes and gives",
                "tags": ["models"],
                "parameters": [named],
                "responses": self._answers({"type": "object"}, "404", "503"),
            }
        }
        self._paths["/v1/models/{model}:predict"] = {
            "post": {
                "operationId": "predictV1",
                "summary": "TensorFlow Serving's and KServe v1's prediction",
                "tags": ["models"],
                "parameters": [named],
                "requestBody": _json(object_of({"instances": array_of({}, minItems=1)}, closed=False)),
                "responses": self._answers(
                    object_of({"predictions": array_of({})}, closed=False), "404", "413", "503", "504"
                ),
            }
        }

    def _health(self) -> None:
        for word, summary in (("live", "whether the process answers"), ("ready", "whether it can answer for all")):
            found = self._answers(object_of({"live": {"type": "boolean"}}, (), closed=False))
            if word == "ready":
                found["503"] = _described("not yet, or no longer", {"type": "object"})
            self._paths[f"/v2/health/{word}"] = {
                "get": {
                    "operationId": {"live": "liveness", "ready": "readiness"}[word],
                    "summary": summary,
                    "tags": ["health"],
                    "responses": found,
                    "security": [],
                }
            }

    def _answers(self, good: Schema, *further: str, status: str = "200") -> Schema:
        found = {status: _described("the answer", good)}
        for code in ("400", *(("401",) if self._limits.keys else ()), *further, "429", "500"):
            found[code] = _described(_WORDS[code], reference("Error"))
            if code in ("429", "503"):
                found[code]["headers"] = _LATER
        return found

    def _title(self, name: str) -> str:
        """A name in the document's own style; two that would fall together are numbered."""
        plain = "".join(part[:1].upper() + part[1:] for part in _NOT_LETTERS.split(name)) or "Unnamed"
        taken = {key.removesuffix(end) for key in self._schemas for end in ("Row", "Event", "Question")}
        found, number = plain, 1
        while found in taken:
            number += 1
            found = f"{plain}{number}"
        return found


_WORDS: Mapping[str, str] = {
    "400": "the request is not understood",
    "401": "a key is needed",
    "404": "there is no such model",
    "409": "the idempotency key was used for other rows",
    "413": "too many bytes or rows",
    "422": "the rows are understood, and refused for what they say",
    "429": "too much is under way; later",
    "500": "a fault of the server's",
    "503": "the server cannot answer now",
    "504": "nobody waits for the answer any more",
}


def _described(text: str, schema: Schema) -> Schema:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _json(schema: Schema) -> Schema:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _statuses() -> Schema:
    return {
        "type": "object",
        "description": "of each feature view",
        "additionalProperties": {"type": "string", "enum": ["PRESENT", "MISSING", "EXPIRED"]},
    }
