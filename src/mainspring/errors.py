"""The whole error tree. Every error carries what, why, from, fix and a code; its class decides the exit status.

MainspringError                 exit
├── DeclarationError              1   the app says something that cannot be (codes 10xx declare, 11xx plan)
├── UserCodeError                 1   the user's own function failed (20xx engine, 22xx training)
├── DataError                     1   the user's data breaks a contract (21xx features, 24xx monitoring)
├── UsageError                    2   a command or a call with the wrong arguments (26xx)
├── ConfigError                   3   mainspring.toml, profile, environment, choice (30xx)
├── ServiceError                  4   something outside could not be reached, read or written (40xx)
│   └── StoreError                4   a store on this machine: full, read-only, corrupt, newer (41xx)
├── RefusedError                  5   a gate, quota or guard said no (50xx)
└── InternalError                70   our bug (70xx)
"""

from __future__ import annotations

__all__ = [
    "ConfigError",
    "DataError",
    "DeclarationError",
    "InternalError",
    "MainspringError",
    "RefusedError",
    "ServiceError",
    "StoreError",
    "UsageError",
    "UserCodeError",
]


class MainspringError(Exception):
    """What went wrong, why, where it came from and how to mend it.

    Args:
        what: one clause, without a full stop: ``online store "redis" does not answer``.
        code: ``MS-dddd``, unique to the fault; every code is listed in ``docs/errors.md``.
        why: the cause, in the terms of the user.
        origin: where the faulty value was written: ``mainspring.toml:14 [profiles.prod]`` or ``flights.py:31``.
        fix: what to do now; a command when there is one.
    """

    exit_status = 70

    def __init__(self, what: str, *, code: str, why: str = "", origin: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.why = why
        self.origin = origin
        self.fix = fix

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.what, self.code, self.why, self.origin, self.fix)

    def lines(self) -> str:
        """The error as the CLI prints it: four lines at most, empty parts left out, of each part its first line."""
        parts = [f"error {self.code}  {_first_line(self.what)}"]
        for label, text in (("why", self.why), ("from", self.origin), ("fix", self.fix)):
            if text:
                parts.append(f"  {label:<4}   {_first_line(text)}")
        return "\n".join(parts)

    def as_dict(self) -> dict[str, str]:
        """The error as ``--json`` prints it."""
        return {"code": self.code, "what": self.what, "why": self.why, "from": self.origin, "fix": self.fix}


def _first_line(text: str) -> str:
    first, _, more = text.strip().partition("\n")
    return f"{first.rstrip()} ..." if more else first


def _rebuild(kind: type[MainspringError], what: str, code: str, why: str, origin: str, fix: str) -> MainspringError:
    return kind(what, code=code, why=why, origin=origin, fix=fix)


class DeclarationError(MainspringError):
    """The app declares something that cannot be carried out."""

    exit_status = 1


class UserCodeError(MainspringError):
    """A function of the user's raised, was killed or returned the wrong thing."""

    exit_status = 1


class DataError(MainspringError):
    """Data breaks the contract that the app declares for it."""

    exit_status = 1


class UsageError(MainspringError):
    """A command or a call has the wrong arguments."""

    exit_status = 2


class ConfigError(MainspringError):
    """A setting, a profile or the choice of an adapter is wrong."""

    exit_status = 3


class ServiceError(MainspringError):
    """Something outside the process could not be reached, read or written."""

    exit_status = 4


class StoreError(ServiceError):
    """A store on this machine is full, read-only, corrupt, locked or of a newer version."""


class RefusedError(MainspringError):
    """A gate, a quota or a guard said no."""

    exit_status = 5


class InternalError(MainspringError):
    """A fault of ours: please report it."""
