"""References to images: ``host:port/team/name:tag@sha256:...``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from mainspring.errors import UsageError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from oras import defaults
else:
    defaults = lazy("oras.defaults")

__all__ = ["Reference", "reference_of", "refuse_tags"]

_NAME = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d+)?")


class Reference(msgspec.Struct, frozen=True):
    """Where an image is.

    Attributes:
        host: the registry, with its port.
        name: the repository in it.
        tag: a name that moves; empty when only a digest is meant.
        digest: the manifest; empty when the tag says which.
    """

    host: str
    name: str
    tag: str = ""
    digest: str = ""

    @property
    def scheme(self) -> str:
        """``http`` on this machine alone, else ``https``."""
        return "http" if _LOOPBACK.fullmatch(self.host) else "https"

    @property
    def root(self) -> str:
        """The URL under which the registry answers for the repository."""
        host = self.host
        if host == defaults.registry.index_name:
            host = str(defaults.registry.default_v2_registry["host"])
        return f"{self.scheme}://{host}/v2/{self.name}"

    @property
    def wanted(self) -> str:
        """What to ask for: the digest, or the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        tag, digest = self.tag and f":{self.tag}", self.digest and f"@{self.digest}"
        return f"{self.host}/{self.name}{tag}{digest}"


def refuse_tags(tags: Iterable[str]) -> None:
    """See to it that names may be tags, before anything is built for them.

    Raises:
        UsageError: MS-8300, one may not.
    """
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise UsageError(
                f"{tag!r} is no tag",
                code="MS-8300",
                why="it has up to 128 letters, digits, dots, dashes and underscores, and begins with no dot or dash",
                origin="--tag",
                fix="mainspring build --image --tag 1.4.0",
            )


def reference_of(text: str, *, origin: str = "", tag: str = "latest") -> Reference:
    """Read a reference as Docker does: a first part with a dot or a port, or ``localhost``, is the registry.

    Args:
        text: what the user wrote.
        origin: where.
        tag: the tag that is meant when neither a tag nor a digest is named.

    Raises:
        UsageError: MS-2701, it is no reference.
    """
    rest, _, digest = text.partition("@")
    first, slash, more = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        host, rest = first, more
    else:
        host = defaults.registry.index_name
        rest = rest if slash else f"library/{rest}"
    name, _, named = rest.partition(":")
    fits = _NAME.fullmatch(name) and (not named or _TAG.fullmatch(named)) and (not digest or _DIGEST.fullmatch(digest))
    if not fits or ("@" in text and not digest) or rest.endswith(":"):
        raise UsageError(
            f"{text!r} is no reference of an image",
            code="MS-2701",
            why="it is HOST[:PORT]/NAME[:TAG][@sha256:DIGEST], the name in small letters",
            origin=origin,
            fix='image.repository = "registry.example.com/team/name"',
        )
    return Reference(host, name, named or ("" if digest else tag), digest)
