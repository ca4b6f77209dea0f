"""What a person decides of calls that wait for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mainspring.assistants.events import Interrupt
from mainspring.errors import UsageError

__all__ = ["checked"]


def checked(waiting: Interrupt, decisions: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Decisions as the agent takes them: one for each call, in order.

    ``{"type": "approve"}``, ``{"type": "edit", "edited_action": {"name", "args"}}``, ``{"type": "reject"}`` and
    ``{"type": "respond"}`` with a ``message``.

    Raises:
        UsageError: MS-2513, there are too few or too many, or one is none of these.
    """
    requests, configs = waiting.action_requests, waiting.review_configs
    if len(decisions) != len(requests):
        raise _unfit(f"{len(decisions)} decisions for {len(requests)} calls")
    return [_one(*each) for each in zip(requests, configs, decisions, strict=True)]


def _one(request: Mapping[str, Any], config: Mapping[str, Any], decision: object) -> dict[str, Any]:
    if not isinstance(decision, Mapping) or decision.get("type") not in config["allowed_decisions"]:
        raise _unfit(f"{decision!r} is no decision on {request['name']!r}")
    kind = decision["type"]
    if kind == "edit":
        return {"type": "edit", "edited_action": _edited(request, decision.get("edited_action"))}
    message = decision.get("message", "")
    if not isinstance(message, str) or (kind == "respond" and not message):
        raise _unfit(f"the message of {kind!r} is no text")
    return {"type": kind} if kind == "approve" or not message else {"type": kind, "message": message}


def _edited(request: Mapping[str, Any], action: object) -> dict[str, Any]:
    if not isinstance(action, Mapping) or action.get("name") != request["name"]:
        raise _unfit(f"an edit of {request['name']!r} keeps the tool")
    if not isinstance(action.get("args"), Mapping):
        raise _unfit("the args of an edit are no JSON object")
    return {"name": action["name"], "args": dict(action["args"])}


def _unfit(what: str) -> UsageError:
    return UsageError(
        what,
        code="MS-2513",
        why="each call is decided once, in the order of action_requests",
        fix='{"decisions": [{"type": "approve"}]}; or edit with edited_action, reject or respond with message',
    )
