"""A gateway in a process of its own, as `mainspring serve` runs its listeners; its one argument is a pause."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import uvloop

from gateway_kit import Scripted, route
from mainspring.llm.gateway import Gateway
from mainspring.llm.stored import StoredResponses
from mainspring.ports.llm import End, Start, Text, Usage
from mainspring.protocols.http import Router
from mainspring.protocols.llm.mount import add_llm_routes
from mainspring.server.http.asgi import Limits, Listener
from mainspring.server.http.host import bind, run_listeners


async def nothing() -> None:
    await asyncio.sleep(0)


def main() -> None:
    """Serve until SIGTERM."""
    pause = float(sys.argv[1])
    engine = Scripted([Start(1), Text("first ", 1), pause, pause, Text("second", 1), End(("stop",), Usage(1, 2))])
    router = Router()
    stored = StoredResponses(None, time.time)
    add_llm_routes(router, Gateway([route(engine)]), stored)
    bound = bind("server", Listener(router, Limits(1 << 20, 30.0)), "127.0.0.1", 0, "here")
    print(bound.port, flush=True)
    uvloop.run(run_listeners([bound], 10.0, nothing, nothing))
    stored.close()


if __name__ == "__main__":
    main()
