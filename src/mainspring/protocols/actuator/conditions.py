"""``/actuator/conditions``: every adapter that could serve a port, with what spoke for and against it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Request

__all__ = ["conditions_page"]


def conditions_page(app: str, report: Callable[[], Mapping[str, Any]], run: RunBlocking) -> Page:
    """The page.

    Args:
        app: the app's name.
        report: every port with its outcomes, as the conditions report has them.
        run: runs what is read in a thread.
    """

    def shown(request: Request) -> object:
        positive: dict[str, Any] = {}
        negative: dict[str, Any] = {}
        for port in report()["ports"]:
            for candidate in port["candidates"]:
                name = f"{port['port']}.{candidate['adapter']}"
                told = [{"condition": c["name"], "message": c["message"]} for c in candidate["conditions"]]
                if candidate["fits"]:
                    positive[name] = told
                else:
                    failed = [t for t, c in zip(told, candidate["conditions"], strict=True) if not c["ok"]]
                    held = [t for t, c in zip(told, candidate["conditions"], strict=True) if c["ok"]]
                    negative[name] = {"notMatched": failed, "matched": held}
        context = {"positiveMatches": positive, "negativeMatches": negative, "unconditionalClasses": []}
        return {"contexts": {app: context}}

    return Page("conditions", (Operation("GET", reading(shown, run)),))
