"""The Swagger of ``/score``, in versions 2, 3 and 3.1."""

from __future__ import annotations

from typing import Any

from mainspring.serving.served import ServedModel

__all__ = ["swagger"]


def swagger(model: ServedModel, version: str) -> dict[str, Any]:
    """The description of a model's route.

    Args:
        model: who answers.
        version: ``2``, ``3`` or ``3.1``.
    """
    info = {"title": model.name, "description": f"model {model.name}", "version": model.version}
    shapes = {"ServiceInput": _input(model), "ServiceOutput": _output(), "ErrorResponse": _error()}
    if version == "2":
        return {
            "swagger": "2.0",
            "info": info,
            "schemes": ["https", "http"],
            "consumes": ["application/json"],
            "produces": ["application/json"],
            "paths": {"/": _alive_2(), "/score": {"post": _score_2()}},
            "definitions": shapes,
        }
    return {
        "openapi": "3.0.3" if version == "3" else "3.1.0",
        "info": info,
        "paths": {"/": _alive_3(), "/score": {"post": _score_3()}},
        "components": {"schemas": shapes},
    }


def _input(model: ServedModel) -> dict[str, Any]:
    names = [tensor.name for tensor in model.columns]
    frame = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string", "enum": names}},
            "data": {"type": "array", "items": {"type": "array", "items": {"type": "number"}}},
        },
    }
    example = {"input_data": {"columns": names, "data": [[0.0] * len(names)]}}
    return {"type": "object", "required": ["input_data"], "properties": {"input_data": frame}, "example": example}


def _output() -> dict[str, Any]:
    return {"type": "array", "items": {"type": "number"}, "example": [0.5]}


def _error() -> dict[str, Any]:
    return {"type": "object", "properties": {"message": {"type": "string"}}}


def _alive_2() -> dict[str, Any]:
    answer = {"description": "the server is alive", "schema": {"type": "string"}}
    return {"get": {"operationId": "ServiceHealthCheck", "produces": ["text/plain"], "responses": {"200": answer}}}


def _alive_3() -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    answer = {"description": "the server is alive", "content": content}
    return {"get": {"operationId": "ServiceHealthCheck", "responses": {"200": answer}}}


def _score_2() -> dict[str, Any]:
    body = {
        "name": "serviceInputPayload",
        "in": "body",
        "required": True,
        "schema": {"$ref": "#/definitions/ServiceInput"},
    }
    return {
        "operationId": "RunMLService",
        "parameters": [body],
        "responses": {
            "200": {"description": "the scores", "schema": {"$ref": "#/definitions/ServiceOutput"}},
            "default": {"description": "a fault", "schema": {"$ref": "#/definitions/ErrorResponse"}},
        },
    }


def _score_3() -> dict[str, Any]:
    def content(name: str) -> dict[str, Any]:
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    return {
        "operationId": "RunMLService",
        "requestBody": {"required": True, "content": content("ServiceInput")},
        "responses": {
            "200": {"description": "the scores", "content": content("ServiceOutput")},
            "default": {"description": "a fault", "content": content("ErrorResponse")},
        },
    }
