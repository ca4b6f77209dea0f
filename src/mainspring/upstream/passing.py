"""What an upstream is asked by clients themselves: which of its paths, and what nobody else may see of its refusals."""

from __future__ import annotations

import re
from collections.abc import Sequence

from mainspring.errors import ConfigError

__all__ = ["may_pass", "passed_paths"]

_PATH = re.compile(r"(/[A-Za-z0-9._~:@!$&'()+,;=-]+)*(/\*)?")


def passed_paths(paths: Sequence[str]) -> tuple[str, ...]:
    """The paths of the setting ``passthrough``.

    Raises:
        ConfigError: MS-3182, one of them is none.
    """
    for path in paths:
        if not path or not _PATH.fullmatch(path) or ".." in path.split("/") or "." in path.split("/"):
            raise ConfigError(
                f"passthrough = [{path!r}] is no path below the upstream's address",
                code="MS-3182",
                why="a path begins with a slash; a star stands at its end, for whatever is below it",
                fix='passthrough = ["/audio/*", "/moderations"], or ["/*"] for all that the key may do there',
            )
    return tuple(paths)


def may_pass(path: str, allowed: Sequence[str]) -> bool:
    """Whether one of the allowed paths is this one, or ends in a star that it is below of."""
    return any(path.startswith(one[:-1]) if one.endswith("/*") else path == one for one in allowed)
