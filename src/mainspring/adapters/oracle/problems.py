"""Oracle's errors turned into cause and remedy."""

from __future__ import annotations

import re

from mainspring.errors import ConfigError, DataError, MainspringError, ServiceError
from mainspring.ports.source import Relation

__all__ = ["turned"]

_SHUT = {"ORA-01017", "ORA-01031", "ORA-01045", "ORA-28000", "ORA-28001", "ORA-12514", "ORA-12505", "DPY-6001"}
_SHUT |= {"DPY-6003", "DPY-4001", "ORA-41900", "ORA-12506"}
_LATE = {"DPY-4024", "ORA-01013", "ORA-03136", "ORA-01555", "ORA-00040"}
_OFF = {"ORA-12541", "ORA-12170", "ORA-12537", "ORA-03113", "ORA-03114", "ORA-01033", "ORA-01034", "ORA-01089"}


def turned(error: Exception, place: str, of: Relation | None) -> MainspringError:
    """What went wrong while a source was read, by Oracle's code."""
    code = str(getattr(error.args[0] if error.args else None, "full_code", ""))
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    source = "a source" if of is None else f"source {of.source!r}"
    if isinstance(error, TypeError):
        return ConfigError(
            f"an option of {place} is unknown to its driver",
            code="MS-3042",
            why=text,
            origin="sources.NAME.options",
            fix="write python-oracledb's own: protocol, wallet_location, ssl_server_dn_match, ...",
        )
    if code in _SHUT:
        return ServiceError(
            f"Oracle does not let this user read {source}",
            code="MS-4221",
            why=text,
            origin=place,
            fix="look at the user, the password and the service in sources.NAME.url, and grant select",
        )
    if code in _LATE:
        return ServiceError(
            f"Oracle took too long to read {source}",
            code="MS-4222",
            why=text,
            origin=place,
            fix="raise sources.NAME.timeout, or give it a cursor that has an index",
        )
    if of is not None and code not in _OFF and re.match(r"ORA-", code):
        return DataError(
            f"{of} of {source} cannot be read",
            code="MS-2150",
            why=text,
            origin=of.origin,
            fix="correct it; Oracle says why",
        )
    return ServiceError(
        f"Oracle does not answer for {source}",
        code="MS-4220",
        why=text,
        origin=place,
        fix="look whether its listener runs, and at the address in sources.NAME.url",
    )
