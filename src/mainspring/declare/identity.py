"""Who asks: what tools are handed and retrieval filters by."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ANYONE", "PUBLIC", "Identity"]

PUBLIC = "public"
"""The principal that everybody is."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The caller, as the server has authenticated it; nothing that a prompt or a body says becomes part of it.

    A tool whose function has a parameter of this type is handed the caller there; the model does not see it.

    Attributes:
        user: the caller's name; empty for somebody who did not say.
        groups: the groups it is in, resolved at the time of the call.
        tenant: whose data it may see; empty where there are no tenants.
        scopes: what its token allows, of OAuth; None for who has no token, and needs none. No part of who it is.
    """

    user: str = ""
    groups: tuple[str, ...] = ()
    tenant: str = ""
    scopes: tuple[str, ...] | None = field(default=None, compare=False)

    @property
    def principals(self) -> tuple[str, ...]:
        """What documents may name to let it in: ``public``, ``user:ada``, ``group:staff``, sorted."""
        own = [f"user:{self.user}"] if self.user else []
        return tuple(sorted({PUBLIC, *own, *(f"group:{group}" for group in self.groups)}))


ANYONE = Identity()
"""Somebody who did not say who they are."""
