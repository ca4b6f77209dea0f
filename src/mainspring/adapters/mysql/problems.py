"""MySQL's errors turned into cause and remedy."""

from __future__ import annotations

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError
from mainspring.ports.source import Relation

__all__ = ["turned"]

_SHUT = {1044, 1045, 1049, 1130, 1142, 1143, 1227, 1251, 1370, 1698}
_LATE = {1205, 1317, 1969, 3024}


def turned(error: Exception, place: str, of: Relation | None) -> MainspringError:
    """What went wrong while a source was read, by the server's number."""
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = " ".join(str(part) for part in error.args[1:] or error.args).strip() or type(error).__name__
    source = "a source" if of is None else f"source {of.source!r}"
    if isinstance(error, TypeError) and not number:
        return ConfigError(
            f"an option of {place} is unknown to its driver",
            code="MS-3042",
            why=text,
            origin="sources.NAME.options",
            fix="write PyMySQL's own: ssl_ca, ssl_verify_identity, charset, ...",
        )
    if number in _SHUT or "cryptography" in text:
        return ServiceError(
            f"MySQL does not let this user read {source}",
            code="MS-4221",
            why=text,
            origin=place,
            fix="look at the user, the password and the database in sources.NAME.url, and grant select",
        )
    if number in _LATE or (number == 2013 and "timed out" in text):
        return ServiceError(
            f"MySQL took too long to read {source}",
            code="MS-4222",
            why=text,
            origin=place,
            fix="raise sources.NAME.timeout, or give it a cursor that has an index",
        )
    if (of is not None and 1000 <= number < 2000) or number >= 3000:
        return DataError(
            f"{of} of {source} cannot be read",
            code="MS-2150",
            why=text,
            origin=place if of is None else of.origin,
            fix="correct it; MySQL says why",
        )
    return ServiceError(
        f"MySQL does not answer for {source}",
        code="MS-4220",
        why=text,
        origin=place,
        fix="look whether it runs, and at the address in sources.NAME.url",
    )
