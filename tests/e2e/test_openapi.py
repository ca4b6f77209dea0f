"""The OpenAPI description says what is served, and no request made from it is the server's fault."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from e2e.conftest import Served, call

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="session")
def described(served: Served) -> dict[str, Any]:
    status, body, _ = call(f"{served.url}/openapi.json")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.fixture(scope="session")
def api(served: Served, described: dict[str, Any]) -> Any:
    found = schemathesis.openapi.from_dict(described)
    found.config.update(base_url=served.url)
    return found


def test_it_is_valid_and_names_what_the_app_has(described: dict[str, Any]) -> None:
    validate(described)
    assert {"/endpoint/returns", "/endpoint/returns/batch", "/labels", "/sources/visits/push"} <= set(
        described["paths"]
    )
    row = described["components"]["schemas"]["ReturnsRow"]
    assert row["required"] == ["customer"]
    assert row["properties"]["amount"] == {"type": ["number", "null"], "format": "double"}
    event = described["components"]["schemas"]["VisitsEvent"]
    assert event["properties"]["at"] == {"type": "string", "format": "date-time"}
    assert event["properties"]["amount"]["description"] == "in EUR"


def test_every_route_of_it_is_served(served: Served, described: dict[str, Any]) -> None:
    for path, methods in described["paths"].items():
        for method in methods:
            status, body, _ = call(
                f"{served.url}{path.replace('{model}', 'returns')}", None if method == "get" else b"{}"
            )
            assert status not in (404, 405, 500), (method, path, body)


def test_no_request_is_the_servers_fault(api: Any) -> None:
    """By both valid and invalid bodies, queries and headers of every operation."""
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 9
    for operation in operations:
        for mode in GenerationMode:

            @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                case.call_and_validate(checks=CHECKS, timeout=30)

            with contextlib.suppress(Unsatisfiable):  # where anything is valid, there is nothing invalid
                ask()


def test_a_batch_is_what_many_rows_are_elsewhere(served: Served) -> None:
    rows = {"rows": [{"customer": "c1", "amount": 5.0}, {"customer": "nobody", "amount": None}]}
    one, many = (
        json.loads(call(f"{served.url}/endpoint/returns{path}", rows)[1])["predictions"] for path in ("", "/batch")
    )
    assert [(a["score"], a["status"]) for a in one] == [(b["score"], b["status"]) for b in many]
    status, body, _ = call(f"{served.url}/endpoint/returns/batch", {"customer": "c1"})
    assert (status, json.loads(body)["error"]) == (400, 'a batch is {"rows": [{..}, ..], "now"?}')
