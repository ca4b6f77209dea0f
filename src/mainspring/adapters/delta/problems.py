"""delta-rs's errors turned into cause and remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mainspring.errors import ConfigError, InternalError, MainspringError, ServiceError, StoreError
from mainspring.lazy import lazy
from mainspring.ports.tables import Owner

if TYPE_CHECKING:
    from deltalake import exceptions as delta_errors
else:
    delta_errors = lazy("deltalake.exceptions")

__all__ = [
    "another_home",
    "busy",
    "forked",
    "no_bucket",
    "no_owner",
    "no_such_table",
    "not_that_owner",
    "strange_home",
    "taken_over",
    "turned",
    "unfit",
    "unreachable",
    "unspeakable",
]


_UNREACHABLE = ("permission denied", "read-only", "not a directory", "file exists", "input/output error")


def turned(error: Exception, table: str) -> MainspringError:
    """The error as people should see it."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    lowered = str(error).lower()
    if "no space left" in lowered or "disk quota" in lowered:
        return StoreError("the disk is full", code="MS-4101", why=text, fix="free some space and run it again")
    if isinstance(error, OSError) or any(word in lowered for word in _UNREACHABLE):
        return StoreError(
            f"table {table!r} cannot be read or written",
            code="MS-4130",
            why=text,
            fix="make the state folder readable and writable",
        )
    if isinstance(error, delta_errors.TableNotFoundError):
        return no_such_table(table)
    if isinstance(error, delta_errors.SchemaMismatchError) or "failed validation check" in lowered:
        return unfit(table, text)
    if isinstance(error, delta_errors.DeltaProtocolError):
        return _damaged(table, text)
    if "schema" in lowered or "cast" in lowered or "type" in lowered:
        return unfit(table, text)
    return _damaged(table, text)


def unfit(table: str, why: str) -> StoreError:
    """Columns of the wrong type."""
    return StoreError(
        f"rows do not fit table {table!r}",
        code="MS-4132",
        why=why,
        fix="a column's type cannot change; rename the column",
    )


def _damaged(table: str, why: str) -> StoreError:
    return StoreError(
        f"table {table!r} cannot be understood",
        code="MS-4133",
        why=why,
        fix="it was written by a newer program or is damaged: restore it, or remove its folder and run again",
    )


def no_such_table(table: str, version: int | None = None) -> StoreError:
    """The table, or that version of it, is not there."""
    which = f"table {table!r}" if version is None else f"version {version} of table {table!r}"
    return StoreError(
        f"{which} is not there",
        code="MS-4131",
        why="it was never written, or was removed" if version is None else "it was never written, or was vacuumed",
        fix="run what makes it: mainspring run NAME",
    )


def busy(table: str, tries: int) -> StoreError:
    """Other processes commit to the table all the time."""
    return StoreError(
        f"table {table!r} is being written by other processes",
        code="MS-4134",
        why=f"{tries} tries met another commit",
        fix="wait for them, or raise tables.tries",
    )


def forked() -> InternalError:
    """delta-rs was used before this process was forked, and its threads are gone."""
    return InternalError(
        "the table store was used before a fork",
        code="MS-7021",
        why="delta-rs keeps threads that a forked process does not have",
        fix="open tables in the worker, or start the process anew",
    )


def unspeakable(folder: str) -> StoreError:
    """The folder's path cannot be made a URL by delta-rs."""
    return StoreError(
        "tables cannot lie in this folder",
        code="MS-4135",
        why=f"delta-rs does not understand [ ] ^ | ? # \\ or % with two digits in a path: {folder}",
        fix="move the project, or set tables.url = file:///another/folder",
    )


def no_bucket(url: str) -> ConfigError:
    """The URL of tables in an object store says too little, or too much."""
    return ConfigError(
        f"{url.partition('://')[0]}:// of tables names no bucket",
        code="MS-4313",
        why="it is scheme://bucket/path, without credentials",
        origin="tables.url",
        fix="correct it; credentials belong into tables.options or the environment",
    )


def unreachable(place: str, error: Exception) -> ServiceError:
    """The object store does not answer, or does not let us in."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return ServiceError(
        f"the tables at {place} cannot be reached",
        code="MS-4312",
        why=text[:300],
        origin="tables.url",
        fix="see that the bucket is there, and that tables.options or the environment hold credentials for it",
    )


def another_home(place: str, owner: Owner) -> StoreError:
    """Another project folder writes to these tables, and has their write-ahead log."""
    return StoreError(
        f"the tables at {place} are written from another state folder",
        code="MS-4311",
        why=f"{owner.place} has their write-ahead log and their locks; reading them is possible from anywhere",
        origin="tables.url",
        fix=f"write from there, or use another path; if it is lost for good: mainspring tables take {owner.id[:12]}",
    )


def taken_over(place: str, table: str) -> StoreError:
    """Another project folder has taken the writing over while this one was at it."""
    return StoreError(
        f"table {table!r} is written from another state folder by now",
        code="MS-4274",
        why=f"somebody took the tables at {place} over; nothing of this was committed",
        origin="tables.url",
        fix="stop what runs here; what was pushed here and is in no table has to be pushed there again",
    )


def not_that_owner(place: str, owner: Owner, *, own: bool) -> StoreError:
    """Somebody meant to take over from one who does not write."""
    return StoreError(
        f"the tables at {place} are not written by that state folder",
        code="MS-4271",
        why="this state folder writes them already" if own else f"{owner.id[:12]} writes them: {owner.place}",
        origin="tables.url",
        fix="there is nothing to take over"
        if own
        else f"mainspring tables take {owner.id[:12]}, if it is lost for good",
    )


def strange_home(place: str, name: str) -> StoreError:
    """The note of who writes is damaged, or of a newer version."""
    return StoreError(
        f"who writes the tables at {place} cannot be told",
        code="MS-4272",
        why=f"{name} was written by another version of Mainspring, or is damaged",
        origin="tables.url",
        fix="use the newer version; if the object is damaged, and nobody writes these tables, delete it",
    )


def no_owner(place: str) -> StoreError:
    """There is nobody from whom the writing could be taken over."""
    return StoreError(
        f"nobody alone writes the tables at {place}",
        code="MS-4273",
        why="tables in a folder have no owner, and those in an object store have one from their first write on",
        origin="tables.url",
        fix="there is nothing to take over: write",
    )
