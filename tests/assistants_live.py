"""Assistants behind a real socket, in a thread of their own; who asks is the header ``x-user``."""

import asyncio
import http.client
import json
import threading
import time

import uvloop

from mainspring.declare.identity import Identity
from mainspring.protocols.assistants.openai import add_assistant_models
from mainspring.protocols.assistants.rest import add_assistant_routes
from mainspring.protocols.http import Fault, Router
from mainspring.protocols.mcp.rest import add_mcp_routes
from mainspring.protocols.mcp.server import McpServer
from mainspring.protocols.mcp.tools import Offer
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.http.host import _server, bind


def who(request):
    user = request.headers.get(b"x-user", request.headers.get(b"authorization", b"").removeprefix(b"Bearer ")).decode()
    if user == "nobody":
        raise Fault(401, "who are you?")
    return Identity(user, ("staff",) if user == "ada" else ())


class Live:
    def __init__(self, services, models=None):
        router = Router()
        services = {service.settings.name: service for service in services}
        indexes = {name: found for one in services.values() for name, found in one._parts.searchers.items()}
        add_assistant_routes(router, lambda: services, who)
        add_assistant_models(router, lambda: services, who, time.time, models)
        add_mcp_routes(router, McpServer(Offer(lambda: indexes, lambda: services), "mainspring", "1"), who)
        self.faults = []
        self._bound = bind(
            "server", Listener(router, Limits(1 << 20, 30.0), on_error=self.faults.append), "127.0.0.1", 0, "here"
        )
        self.url = self._bound.url
        self._server = _server(self._bound, 5)
        self._thread = threading.Thread(target=lambda: uvloop.run(self._serve()), daemon=True)

    async def _serve(self):
        self.loop = asyncio.get_running_loop()
        await self._server._serve(sockets=[self._bound.socket])

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)

    def call(self, method, path, body=None, user="ada", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self._bound.port, timeout=30)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        given = {"x-user": user, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, data, given)
        answer = connection.getresponse()
        raw = answer.read()
        connection.close()
        if answer.getheader("content-type", "").startswith("text/event-stream"):
            return answer.status, raw.decode()
        return answer.status, json.loads(raw) if raw else None

    def stream(self, path, body, user="ada"):
        """The connection and its answer, to be read by hand."""
        connection = http.client.HTTPConnection("127.0.0.1", self._bound.port, timeout=30)
        connection.request("POST", path, json.dumps(body).encode(), {"x-user": user})
        return connection, connection.getresponse()
