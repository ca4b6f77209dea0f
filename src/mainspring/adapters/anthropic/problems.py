"""What can be wrong with an upstream's settings, as people should see it."""

from __future__ import annotations

from mainspring.errors import ConfigError

__all__ = ["unusable"]


def unusable(what: str, why: str) -> ConfigError:
    """The address, or a header, cannot be used."""
    return ConfigError(
        f"the {what} of the language model's upstream cannot be used",
        code="MS-3056",
        why=why,
        fix="correct llms.NAME.url, llms.NAME.headers, or what llms.NAME.key refers to",
    )
