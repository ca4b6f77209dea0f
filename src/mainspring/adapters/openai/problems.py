"""What can be wrong with an upstream's settings, as people should see it."""

from __future__ import annotations

from mainspring.errors import ConfigError

__all__ = ["bad_header", "no_url"]


def no_url(why: str) -> ConfigError:
    """It is not said where the upstream is."""
    return ConfigError(
        "the address of the language model's upstream cannot be used",
        code="MS-3054",
        why=why,
        fix='llms.NAME.url = "http://HOST:PORT/v1"; keys go into llms.NAME.key',
    )


def bad_header(name: str) -> ConfigError:
    """A header that cannot be sent."""
    return ConfigError(
        f"the header {name!r} of the language model's upstream cannot be sent",
        code="MS-3055",
        why="its name or its value has a line end or a sign beyond Latin-1",
        fix="correct llms.NAME.headers, or the file or variable that llms.NAME.key refers to",
    )
