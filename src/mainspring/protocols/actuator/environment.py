"""``/actuator/env`` and ``/actuator/configprops``: every setting with its origin, its value hidden from most."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from mainspring.protocols.actuator.page import Operation, Page, RunBlocking, reading
from mainspring.protocols.http import Fault, Request

__all__ = ["HIDDEN", "Property", "configprops_page", "env_page"]

HIDDEN = "******"
_SOURCE = re.compile(r"^(.*?):\d+( \[.*\])?$")
"""An origin with a line: the file, and the section of it."""


class Property(msgspec.Struct, frozen=True):
    """A setting.

    Attributes:
        key: its dotted path.
        value: as it was written, references to secrets unresolved.
        origin: where that was: ``mainspring.toml:14 [profiles.prod]``, a variable, ``default``.
        secret: whether it is, or may hold, a secret: it is hidden from everybody.
    """

    key: str
    value: object
    origin: str
    secret: bool

    @property
    def source(self) -> str:
        """The origin without its line."""
        found = _SOURCE.match(self.origin)
        return self.origin if found is None else found[1] + (found[2] or "")


Visible = Callable[[Request], bool]


def env_page(
    profiles: Callable[[], tuple[str, Sequence[str]]],
    properties: Callable[[], Sequence[Property]],
    visible: Visible,
    run: RunBlocking,
) -> Page:
    """``env`` and ``env/KEY``.

    Args:
        profiles: the active profile, and all there are.
        properties: every setting.
        visible: whether who asks may see values.
        run: runs what is read in a thread.
    """

    def sources(request: Request, only: str = "") -> list[dict[str, object]]:
        found: dict[str, dict[str, object]] = {}
        seen = visible(request)
        for one in properties():
            own = found.setdefault(one.source, {})
            if not only or one.key == only:
                own[one.key] = {"value": _value(one, seen=seen), "origin": one.origin}
        return [{"name": name, "properties": own} for name, own in found.items()]

    def whole(request: Request) -> object:
        active, known = profiles()
        return {
            "activeProfiles": [active],
            "defaultProfiles": list(known[:1]) or [active],
            "propertySources": sources(request),
        }

    def one(request: Request) -> object:
        (key,) = request.parameters
        found = next((item for item in properties() if item.key == key), None)
        if found is None:
            raise Fault(404, f"there is no setting {key[:80]!r}")
        return {
            "property": {"source": found.source, "value": _value(found, seen=visible(request))},
            **whole_without(request),
            "propertySources": [
                {"name": part["name"], **({"property": own[key]} if key in own else {})}
                for part in sources(request, key)
                if isinstance(own := part["properties"], dict)
            ],
        }

    def whole_without(request: Request) -> dict[str, object]:
        active, known = profiles()
        return {"activeProfiles": [active], "defaultProfiles": list(known[:1]) or [active]}

    return Page(
        "env",
        (Operation("GET", reading(whole, run)), Operation("GET", reading(one, run), "*", "{toMatch}", "toMatch")),
    )


def configprops_page(
    app: str, properties: Callable[[], Sequence[Property]], visible: Visible, run: RunBlocking
) -> Page:
    """``configprops`` and ``configprops/PREFIX``: settings by their section.

    Args:
        app: the app's name.
        properties: every setting.
        visible: whether who asks may see values.
        run: runs what is read in a thread.
    """

    def beans(request: Request, prefix: str = "") -> Mapping[str, object]:
        found: dict[str, dict[str, dict[str, object]]] = {}
        seen = visible(request)
        for one in properties():
            section, _, name = one.key.rpartition(".")
            if prefix and section != prefix and not section.startswith(prefix + "."):
                continue
            bean = found.setdefault(section, {"properties": {}, "inputs": {}})
            bean["properties"][name] = _value(one, seen=seen)
            bean["inputs"][name] = {"value": _value(one, seen=seen), "origin": one.origin}
        shown = {section or app: {"prefix": section, **bean} for section, bean in found.items()}
        return {"contexts": {app: {"beans": shown}}}

    def one(request: Request) -> object:
        (prefix,) = request.parameters
        found = beans(request, prefix)
        if not found["contexts"][app]["beans"]:  # type: ignore[index]
            raise Fault(404, f"no setting begins with {prefix[:80]!r}")
        return found

    return Page(
        "configprops",
        (Operation("GET", reading(beans, run)), Operation("GET", reading(one, run), "*", "{prefix}", "prefix")),
    )


def _value(one: Property, *, seen: bool) -> object:
    return one.value if seen and not one.secret else HIDDEN
