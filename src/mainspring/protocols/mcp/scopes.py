"""What a token must allow at ``/mcp``: scopes of OAuth, and the answer to a token that has too few."""

from __future__ import annotations

import msgspec

from mainspring.declare.identity import Identity
from mainspring.protocols.http import Fault
from mainspring.protocols.mcp.messages import Message

__all__ = ["Scopes"]


class Scopes(msgspec.Struct, frozen=True):
    """The scopes that an issuer's tokens need; an empty one is asked of nobody. API keys have no scopes and need none.

    Attributes:
        search: to search indexes and to read documents.
        ask: to ask assistants.
    """

    search: str = ""
    ask: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """All that may be asked for, each once."""
        return tuple(dict.fromkeys(scope for scope in (self.search, self.ask) if scope))

    def needed(self, message: Message) -> str:
        """What a message needs; empty for those that tell only what there is."""
        if message.method == "resources/read":
            return self.search
        if message.method != "tools/call":
            return ""
        return self.ask if str(message.params.get("name")).startswith("ask_") else self.search

    def check(self, message: Message, caller: Identity, pointer: str = "") -> None:
        """Let a message through that its sender's token allows.

        The scopes that are told are those that the token should have had: what it has of ours, and what it lacks, so
        that a client which asks its user for them loses none.

        Args:
            message: what is asked.
            caller: who asks.
            pointer: the address of the resource's description (RFC 9728), or empty.

        Raises:
            Fault: 403, with the challenge ``insufficient_scope`` of RFC 6750.
        """
        needed = self.needed(message)
        if not needed or caller.scopes is None or needed in caller.scopes:
            return
        wanted = " ".join(scope for scope in self.known if scope == needed or scope in caller.scopes)
        place = f', resource_metadata="{pointer}"' if pointer else ""
        raise Fault(
            403,
            f"the token does not allow this: it needs the scope {needed}",
            challenge=f'Bearer error="insufficient_scope", scope="{wanted}"{place}, '
            f'error_description="the scope {needed} is needed"',
        )
