"""Pages of other sites: which may ask, and what a browser is told."""

from __future__ import annotations

import pytest

from mainspring.protocols.http import Response
from mainspring.server.http.cors import Cors

APP, EVIL = b"https://app.example.org", b"https://evil.example.org"
CORS = Cors(frozenset({APP}))


def asked(origin: bytes, **headers: bytes) -> dict[bytes, bytes]:
    more = {f"access-control-request-{name}".encode(): value for name, value in headers.items()}
    return {b"origin": origin, **more}


def test_a_preflight_of_a_named_page() -> None:
    found = CORS.preflight("OPTIONS", asked(APP, method=b"POST", headers=b"authorization, content-type"))
    assert found is not None
    headers = dict(found.headers)
    assert (found.status, headers[b"access-control-allow-origin"]) == (204, APP)
    assert b"POST" in headers[b"access-control-allow-methods"]
    assert headers[b"access-control-allow-headers"] == b"authorization, content-type"
    assert headers[b"access-control-max-age"] == b"600"
    assert b"origin" in headers[b"vary"]
    assert b"access-control-allow-credentials" not in headers


@pytest.mark.parametrize(
    "origin",
    [EVIL, b"null", b"*", b"", b"http://app.example.org", APP + b".evil.org", APP + b":444", APP + b"/", APP.upper()],
)
def test_other_pages_are_told_nothing(origin: bytes) -> None:
    found = CORS.preflight("OPTIONS", asked(origin, method=b"POST"))
    assert found is not None
    assert found.status == 403
    assert [name for name, _ in found.headers] == [b"vary"]
    assert CORS.marked(asked(origin), Response(200)).headers == ((b"vary", b"origin"),)


def test_what_is_no_preflight_goes_on() -> None:
    assert CORS.preflight("OPTIONS", {b"origin": APP}) is None
    assert CORS.preflight("OPTIONS", {b"access-control-request-method": b"POST"}) is None
    assert CORS.preflight("POST", asked(APP, method=b"POST")) is None


def test_names_of_headers_that_are_none_are_not_sent_back() -> None:
    for names in (b"a\r\nset-cookie: x", b"a, ", b"a b", b"a" * 5000):
        found = CORS.preflight("OPTIONS", asked(APP, method=b"POST", headers=names))
        assert found is not None
        assert b"access-control-allow-headers" not in dict(found.headers)


def test_answers_may_be_read_by_named_pages_and_credentials_only_where_they_are_allowed() -> None:
    headers = dict(CORS.marked(asked(APP), Response(200, headers=((b"retry-after", b"1"),))).headers)
    assert headers[b"access-control-allow-origin"] == APP
    assert headers[b"retry-after"] == b"1"
    assert b"retry-after" in headers[b"access-control-expose-headers"]
    assert b"access-control-allow-credentials" not in headers
    named = Cors(frozenset({APP}), credentials=True)
    assert dict(named.marked(asked(APP), Response(200)).headers)[b"access-control-allow-credentials"] == b"true"
    assert b"access-control-allow-credentials" not in dict(named.marked(asked(EVIL), Response(200)).headers)
