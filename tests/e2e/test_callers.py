"""Who may ask, and how often: tokens of a real issuer beside keys, rates, and pages of other sites, on real servers."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from mcp import ClientSession
from mcp.client.auth.utils import (
    extract_field_from_www_auth,
    extract_resource_metadata_from_www_auth,
    extract_scope_from_www_auth,
)
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import ProtectedResourceMetadata
from mcp.shared.auth_utils import check_resource_allowed

from e2e.conftest import Served, call, mainspring, serve
from e2e.test_indexes import APP, search, uris
from e2e.test_language import APP as TALK
from e2e.test_language import TOML
from grpc_kit import address, called, failed
from mainspring.protocols.oip import messages as oip
from oidc_issuer import Issued, issuer

KEY, PAGE = "a-key-of-thirty-two-characters-or-so", "https://app.example.org"
SETTINGS = """
[server]
keys = ["{key}"]
cors.origins = ["{page}"]
oidc.issuer = "{issuer}"
oidc.audience = ["mainspring"]
oidc.groups = "realm_access.roles"

[callers.slow]
key = "the-key-of-the-slow-one"
rate = 0.02
burst = 3

[management]
expose = ["health", "prometheus"]
"""


@pytest.fixture(scope="module")
def issued() -> Iterator[Issued]:
    with issuer() as made:
        yield made


@pytest.fixture(scope="module")
def shop(built: Path, issued: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = tmp_path_factory.mktemp("callers") / "shop"
    shutil.copytree(built, project)
    with open(project / "mainspring.toml", "a") as file:
        file.write(SETTINGS.format(key=KEY, page=PAGE, issuer=issued.url))
    issued.failing = 503  # it comes up after the server
    found = serve(project)
    yield found
    assert found.stop() == 0, found.log.read_text()
    assert "internal error" not in found.log.read_text()


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def models(served: Served, headers: dict[str, str] | None = None) -> tuple[int, bytes, dict[str, str]]:
    return call(f"{served.url}/v2/models", headers=headers)


def test_tokens_let_in_beside_keys_when_their_issuer_is_there(shop: Served, issued: Issued) -> None:
    status, body, headers = models(shop, bearer(issued.token()))
    assert (status, headers["retry-after"]) in {(503, "1"), (503, "5")}, body
    assert models(shop, bearer(KEY))[0] == 200
    assert "MS-4385" in shop.log.read_text()
    issued.failing = 0
    deadline = time.monotonic() + 60
    while models(shop, bearer(issued.token()))[0] != 200:
        assert time.monotonic() < deadline, shop.log.read_text()
        time.sleep(0.1)
    status, body, headers = models(shop)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    status, body, headers = models(shop, bearer(issued.token(exp=int(time.time()) - 60)))
    assert status == 401
    assert headers["www-authenticate"] == 'Bearer error="invalid_token", error_description="it has expired"'
    assert models(shop, bearer(issued.forged(issued.keys["one"][1].as_pem(private=False), kid="one")))[0] == 401

    with grpc.insecure_channel(address(shop)) as channel:
        ask = called(channel, oip.schema(), "inference.GRPCInferenceService")

        def metadata(token: str) -> tuple[tuple[str, str], ...]:
            return (("authorization", f"Bearer {token}"),)

        assert ask("ServerMetadata", metadata(issued.token())).name == "mainspring"
        assert ask("ServerMetadata", metadata(KEY)).name == "mainspring"
        assert ask("ServerLive").live
        assert failed(lambda: ask("ServerMetadata"))[0] == "UNAUTHENTICATED"
        assert failed(lambda: ask("ServerMetadata", metadata(issued.token(aud="other"))))[0] == "UNAUTHENTICATED"


def test_a_caller_that_asks_too_often_is_told_when_to_come_again(shop: Served) -> None:
    slow = bearer("the-key-of-the-slow-one")
    with grpc.insecure_channel(address(shop)) as channel:
        ask = called(channel, oip.schema(), "inference.GRPCInferenceService")
        metadata = (("x-api-key", "the-key-of-the-slow-one"),)
        assert models(shop, slow)[0] == 200
        assert ask("ServerMetadata", metadata).name == "mainspring"
        assert models(shop, slow)[0] == 200
        status, _, headers = models(shop, slow)
        assert status == 429
        assert 1 <= int(headers["retry-after"]) <= 50
        assert failed(lambda: ask("ServerMetadata", metadata)) == ("RESOURCE_EXHAUSTED", "you ask too often")
    assert [models(shop, bearer(KEY))[0] for _ in range(5)] == [200] * 5
    assert call(f"{shop.url}/v2/health/ready", headers=slow)[0] == 200
    page = call(f"{shop.console}/actuator/prometheus")[1].decode()
    assert 'mainspring_refused_total{app="shop",reason="rate"} 2' in page.replace(".0", "")


def test_pages_of_named_sites_may_ask(shop: Served) -> None:
    def preflight(origin: str) -> tuple[int, dict[str, str]]:
        headers = {"origin": origin, "access-control-request-method": "GET"}
        request = urllib.request.Request(f"{shop.url}/v2/models", headers=headers, method="OPTIONS")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, dict(answer.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, dict(error.headers)

    status, headers = preflight(PAGE)
    assert (status, headers["access-control-allow-origin"]) == (204, PAGE)
    status, headers = preflight("https://evil.example.org")
    assert status == 403
    assert "access-control-allow-origin" not in headers
    for key, expected in ((KEY, 200), ("wrong", 401)):  # the page may read why it was refused
        status, _, headers = models(shop, {**bearer(key), "origin": PAGE})
        assert (status, headers["access-control-allow-origin"]) == (expected, PAGE)
    assert "access-control-allow-origin" not in models(shop, {**bearer(KEY), "origin": "null"})[2]
    assert "vary" not in call(f"{shop.console}/actuator/health", headers={"origin": PAGE})[2]


def test_the_groups_of_a_token_decide_what_is_found(tmp_path: Path, issued: Issued) -> None:
    issued.failing = 0
    project = tmp_path / "shelf"
    (project / "manuals" / "inner").mkdir(parents=True)
    (project / "shelf.py").write_text(APP)
    (project / "mainspring.toml").write_text(
        f'app = "shelf:app"\n[server.oidc]\nissuer = "{issued.url}"\naudience = ["mainspring"]\n'
        'search_scope = "docs.search"\nask_scope = "ask"\n'
    )
    (project / "manuals" / "pump.md").write_text("# The pump\n\nTurn the red valve to start the pump.\n")
    (project / "manuals" / "inner" / "salaries.md").write_text("# Salaries\n\nThe pump engineer earns 5,000 a month.\n")
    mainspring("apply", cwd=project)
    served = serve(project)
    try:
        deadline = time.monotonic() + 60
        while call(f"{served.url}/v1/indexes", headers=bearer(issued.token()))[0] == 503:
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.1)
        earns = "what does the pump engineer earn"
        assert uris(search(served, earns, bearer(issued.token(groups=["staff"])))) == {"pump.md", "inner/salaries.md"}
        for groups in (None, [], ["others"], {"staff": True}, "group:staff"):
            assert uris(search(served, earns, bearer(issued.token(groups=groups)))) == {"pump.md"}
        assert call(f"{served.url}/v1/indexes")[0] == 401
        asyncio.run(ask_by_mcp(served, earns, issued))
        assert "securitySchemes" in json.loads(
            call(f"{served.url}/openapi.json", headers=bearer(issued.token()))[1]
        ).get("components", {})
    finally:
        assert served.stop() == 0, served.log.read_text()


async def ask_by_mcp(served: Served, question: str, issued: Issued) -> None:
    """As a client of MCP does that knows the address alone, with the protocol's own package."""
    url = f"{served.url}/mcp"
    async with httpx.AsyncClient() as web:
        refused = await web.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        assert refused.status_code == 401
        pointer = extract_resource_metadata_from_www_auth(refused)
        assert pointer == f"{served.url}/.well-known/oauth-protected-resource/mcp"
        stale = await web.post(url, json={}, headers=bearer(issued.token(exp=1)))
        assert stale.headers["www-authenticate"].startswith('Bearer error="invalid_token", ')
        assert extract_resource_metadata_from_www_auth(stale) == pointer
        for page in (pointer, f"{served.url}/.well-known/oauth-protected-resource"):
            found = await web.get(page)
            assert found.status_code == 200
            described = ProtectedResourceMetadata.model_validate_json(found.content)
            assert check_resource_allowed(url, str(described.resource))
            assert [str(one) for one in described.authorization_servers] == [issued.url]
            assert described.scopes_supported == ["docs.search", "ask"]
        assert extract_scope_from_www_auth(refused) == "docs.search ask"
        call = {"name": "search_library", "arguments": {"query": question}}
        for name, params, wanted in (
            ("tools/call", call, "docs.search ask"),
            ("resources/read", {"uri": "mainspring://library/x"}, "docs.search ask"),
            ("tools/call", {"name": "ask_nobody"}, ""),
            ("tools/list", {}, ""),
            ("initialize", {}, ""),
        ):
            asked = {"jsonrpc": "2.0", "id": 1, "method": name, "params": params}
            for scope in ("ask other", ["ask", 7]):
                told = await web.post(url, json=asked, headers=bearer(issued.token(scope=scope)))
                assert told.status_code == (403 if wanted else 200)
                if wanted:
                    assert extract_scope_from_www_auth(told) == wanted
                    assert extract_field_from_www_auth(told, "error") == "insufficient_scope"
                    assert extract_resource_metadata_from_www_auth(told) == pointer
        allowed = bearer(issued.token(scp="docs.search"))
        told = await web.post(
            url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call}, headers=allowed
        )
        assert told.status_code == 200
        more = await web.post(
            url, json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "ask_x"}}, headers=allowed
        )
        assert (more.status_code, extract_scope_from_www_auth(more)) == (403, "docs.search ask"), "none is lost"
        elsewhere = await web.get(f"{served.url}/v1/indexes")
        assert elsewhere.headers["www-authenticate"] == "Bearer", "other wires know nothing of it"
        hostile = await web.get(pointer, headers={"host": 'a"b'})
        assert hostile.status_code == 400
    for groups, known in ((["staff"], True), ([], False)):
        async with (
            httpx.AsyncClient(headers=bearer(issued.token(groups=groups, scope="docs.search"))) as web,
            streamable_http_client(url, http_client=web) as (reader, writer, _),
            ClientSession(reader, writer) as session,
        ):
            await session.initialize()
            (tool,) = (await session.list_tools()).tools
            answer = await session.call_tool(tool.name, {"query": question})
            assert ("5,000" in str(answer.content)) is known


def test_a_language_model_knows_who_brings_a_token(tmp_path: Path, issued: Issued) -> None:
    issued.failing = 0
    (tmp_path / "talk.py").write_text(TALK)
    oidc = f'[server.oidc]\nissuer = "{issued.url}"\naudience = ["mainspring"]\n'
    (tmp_path / "mainspring.toml").write_text(TOML + '[callers.key]\nkey = "a-key"\n' + oidc)
    served = serve(tmp_path)
    try:
        url = f"{served.url}/v1/chat/completions"
        asked = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}
        deadline = time.monotonic() + 60
        while call(url, asked, bearer(issued.token()))[0] == 503:
            assert time.monotonic() < deadline, served.log.read_text()
            time.sleep(0.1)
        assert call(url, asked, bearer(issued.token()))[0] == 200
        assert call(url, asked, bearer("a-key"))[0] == 200
        assert call(url, {**asked, "model": "backup"}, bearer(issued.token()))[0] == 404
        for key in ("another", issued.token(aud="other")):
            assert call(url, asked, bearer(key))[0] == 401
    finally:
        assert served.stop() == 0, served.log.read_text()
    with sqlite3.connect(tmp_path / ".mainspring" / "log" / "calls.db") as log:
        assert "oidc:ada" in "".join(log.iterdump())


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ('oidc.issuer = "http://login.example.org"', "MS-3116"),
        ('oidc.issuer = "https://login.example.org"', "MS-3117"),
        ('oidc.issuer = "https://a.b"\noidc.audience = ["x"]\noidc.algorithms = ["HS256"]', "MS-3118"),
        ('oidc.issuer = "https://a.b"\noidc.audience = ["x"]\noidc.resource = "http://ml.example.org"', "MS-3171"),
        ('oidc.issuer = "https://a.b"\noidc.audience = ["x"]\noidc.ask_scope = "two words"', "MS-3183"),
        ('oidc.search_scope = "docs.search"', "MS-3183"),
        ("burst = 3", "MS-3119"),
        ('cors.origins = ["*"]', "MS-3120"),
        ("cors.credentials = true", "MS-3121"),
    ],
)
def test_settings_that_would_open_too_much_are_refused(built: Path, tmp_path: Path, written: str, code: str) -> None:
    shutil.copytree(built, tmp_path / "shop", ignore=shutil.ignore_patterns(".mainspring"))
    with open(tmp_path / "shop" / "mainspring.toml", "a") as file:
        file.write(f"\n[server]\n{written}\n")
    told = mainspring("check", cwd=tmp_path / "shop", status=3)
    assert code in told.stdout + told.stderr
