"""An MCP server as somebody else runs it: over stdio, or over streamable HTTP on a port that the caller names."""

import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "lean"))

from mcp.server.fastmcp import Context, FastMCP

port = int(sys.argv[1]) if len(sys.argv) > 1 else 0
server = FastMCP("tickets", host="127.0.0.1", port=port or 8000, log_level="ERROR")


@server.tool()
def find(word: str) -> str:
    """Finds tickets with a word in them.

    Args:
        word: what to look for.
    """
    return f"ticket 7 speaks of {word}"


@server.tool()
def close(ticket: int) -> dict[str, object]:
    """Closes a ticket."""
    if ticket > 100:
        raise ValueError(f"there is no ticket {ticket}")
    return {"ticket": ticket, "state": "closed"}


@server.tool()
def wait(seconds: float) -> str:
    """Takes its time."""
    time.sleep(seconds)
    return "done"


@server.tool()
def leave() -> str:
    """Ends the server in the middle of the call."""
    os._exit(3)


@server.tool()
def given(context: Context) -> dict[str, str]:
    """What the server was given: its own variables, or a header of the request."""
    request = context.request_context.request
    token = "" if request is None else request.headers.get("authorization", "")
    return {"token": token or os.environ.get("TICKETS_TOKEN", ""), "secret": os.environ.get("NOT_FOR_IT", "")}


if __name__ == "__main__":
    server.run("streamable-http" if port else "stdio")
