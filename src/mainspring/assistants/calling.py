"""Carrying out one call of a tool: arguments checked, in time, tried again where it may be, once where it must be."""

from __future__ import annotations

import asyncio
import json

import msgspec

from mainspring.assistants.context import Ledger
from mainspring.assistants.events import ToolStatus
from mainspring.assistants.usable import ToolFailedError, Usable, result_text
from mainspring.declare.identity import Identity
from mainspring.errors import MainspringError

__all__ = ["Outcome", "carry_out"]


class Outcome(msgspec.Struct, frozen=True):
    """What came of a call.

    Attributes:
        status: as `ToolResult` tells it.
        text: for the model and the client; no internals of ours or of the tool's.
        why: for the trace.
    """

    status: ToolStatus
    text: str
    why: str = ""


async def carry_out(usable: Usable, arguments: bytes, caller: Identity, ledger: Ledger | None, once: str) -> Outcome:
    """Carry a call out.

    Args:
        usable: the tool.
        arguments: JSON, as the model or an approver wrote it.
        caller: on whose behalf.
        ledger: where calls that must be made once are noted, or None.
        once: what identifies such a call over restarts; empty for any other.
    """
    if ledger is None or not once:
        return await _tried(usable, arguments, caller)
    known = await asyncio.to_thread(ledger.begin, once)
    if known.state == "done":
        status, text = json.loads(known.result)
        return Outcome(status, text)
    if known.state == "unknown":
        return Outcome(
            "error",
            "It is not known whether this call was carried out: the server stopped while it was. It is not made again.",
            "begun before a restart",
        )
    outcome = await _tried(usable, arguments, caller)
    await asyncio.to_thread(ledger.finish, once, json.dumps([outcome.status, outcome.text]))
    return outcome


async def _tried(usable: Usable, arguments: bytes, caller: Identity) -> Outcome:
    outcome = Outcome("error", "")
    for _ in range(usable.retries + 1):
        outcome = await _attempt(usable, arguments, caller)
        if outcome.status not in ("error", "timeout") or outcome.why == "arguments":
            break
    return outcome


async def _attempt(usable: Usable, arguments: bytes, caller: Identity) -> Outcome:
    try:
        async with asyncio.timeout(usable.timeout):
            return Outcome("ok", result_text(await usable.call(arguments, caller)))
    except TimeoutError:
        return Outcome("timeout", f"The tool has not answered within {usable.timeout:g} seconds.", "timeout")
    except msgspec.DecodeError as error:
        return Outcome("error", f"The arguments do not fit: {error}", "arguments")
    except ToolFailedError as error:
        return Outcome("error", result_text(f"The tool failed: {error}"), "said by the tool")
    except MainspringError as error:
        return Outcome("error", f"The tool failed: {error.what}.", f"{error.code} {error.why}")
    except Exception as error:  # a user's function may raise anything; the run goes on, the trace keeps it
        return Outcome("error", f"The tool failed ({type(error).__name__}).", f"{type(error).__name__}: {error}")
