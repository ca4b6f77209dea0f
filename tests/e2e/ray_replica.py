"""A replica of Ray Serve without a cluster: its server started, asked, and stopped. Prints what came, as JSON.

In a process of its own, as Ray Serve has it; run in the project's folder. Takes the row to ask for.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from starlette.requests import Request

from mainspring.adapters.ray.application import Replica, server
from mainspring.errors import MainspringError


async def asked(replica: Replica, method: str, path: str, body: bytes = b"") -> tuple[int, str, str]:
    """Ask as Ray Serve does: a Request in, a Response that is played to whoever asked."""
    name, _, query = path.partition("?")
    scope = {
        "type": "http", "method": method, "path": name, "query_string": query.encode(), "root_path": "",
        "headers": [(b"host", b"shop.example.com"), (b"content-type", b"application/json"), (b"connection", b"close")],
    }  # fmt: skip
    sent: list[dict[str, Any]] = []

    parts = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not parts:
            await asyncio.Event().wait()  # the caller stays
        return parts.pop()

    async def send(message: Any) -> None:
        sent.append(dict(message))

    response = await replica(Request(scope, receive))
    await response(scope, receive, send)
    headers = {key.decode().lower(): value.decode() for key, value in sent[0]["headers"]}
    text = b"".join(part.get("body", b"") for part in sent[1:]).decode()
    return sent[0]["status"], headers.get("content-type", ""), text


async def started() -> Replica:
    """As Ray Serve starts one: it waits for `reconfigure` only where there is a user_config, and asks at once."""
    replica, settings = Replica(), server._bound_deployment.user_config
    if settings is not None:
        await replica.reconfigure({**settings, "start_s": 390})
    await replica.check_health()
    return replica


async def main(row: str) -> None:
    replica = await started()
    found: dict[str, Any] = {
        "answer": await asked(replica, "POST", "/endpoint/returns?features=true", row.encode()),
        "absent": (await asked(replica, "GET", "/nothing/here%20at%20all"))[0],
    }
    replica._process.kill()
    replica._process.wait()
    found["gone"] = (await asked(replica, "POST", "/endpoint/returns", row.encode()))[0]
    try:
        await replica.check_health()
    except MainspringError as error:
        found["unwell"] = error.code
    other = Replica()
    await other.reconfigure({"start_s": 390})
    await replica._session().close()
    await other._session().close()
    process = other._process
    other.__del__()
    found["stopped"] = process.returncode
    print(json.dumps(found))


asyncio.run(main(sys.argv[1]))
