"""Which message of MCP needs which scope, and who needs none."""

from __future__ import annotations

import pytest

from mainspring.declare.identity import Identity
from mainspring.protocols.http import Fault
from mainspring.protocols.mcp.messages import Message
from mainspring.protocols.mcp.scopes import Scopes

BOTH = Scopes("docs", "ask")


def message(method: str, **params: object) -> Message:
    return Message("2.0", method, 1, params)


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (message("tools/call", name="search_library"), "docs"),
        (message("tools/call", name="ask_desk"), "ask"),
        (message("tools/call", name="ask_"), "ask"),
        (message("tools/call", name="asked"), "docs"),
        (message("tools/call", name=["ask_desk"]), "docs"),
        (message("tools/call"), "docs"),
        (message("resources/read", uri="mainspring://a/b"), "docs"),
        (message("tools/list"), ""),
        (message("resources/templates/list"), ""),
        (message("initialize"), ""),
        (message("notifications/initialized"), ""),
    ],
)
def test_what_a_message_needs(asked: Message, needed: str) -> None:
    assert BOTH.needed(asked) == needed
    Scopes().check(asked, Identity("ada", scopes=()))
    BOTH.check(asked, Identity("ada", scopes=("docs", "ask")))
    BOTH.check(asked, Identity("ada"))  # a key: it has no scopes
    if not needed:
        BOTH.check(asked, Identity("ada", scopes=()))
        return
    with pytest.raises(Fault) as found:
        BOTH.check(asked, Identity("ada", scopes=("other",)), "https://x/y")
    assert found.value.status == 403
    assert found.value.challenge == (
        f'Bearer error="insufficient_scope", scope="{needed}", resource_metadata="https://x/y", '
        f'error_description="the scope {needed} is needed"'
    )


def test_one_scope_may_stand_for_both() -> None:
    one = Scopes("all", "all")
    assert one.known == ("all",)
    one.check(message("tools/call", name="ask_desk"), Identity("ada", scopes=("all",)))


def test_scopes_are_no_part_of_who_somebody_is() -> None:
    assert Identity("ada", scopes=("docs",)) == Identity("ada")
    assert len({Identity("ada", scopes=("docs",)), Identity("ada")}) == 1
