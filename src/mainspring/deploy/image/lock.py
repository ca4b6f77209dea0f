"""A project's lock: ``requirements.lock``, every distribution pinned and hashed, and what it was made from."""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from mainspring.deploy.image.blobs import BlobStore
from mainspring.errors import ConfigError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from packaging import requirements as packaging_requirements
    from packaging import utils as packaging_utils
else:
    packaging_requirements, packaging_utils = lazy("packaging.requirements"), lazy("packaging.utils")

__all__ = ["INPUTS", "LOCK", "Lock", "Pin", "Platform", "kept_lock", "pins_on", "read_lock"]

LOCK = "requirements.lock"
INPUTS = ("requirements.in", "pyproject.toml")
"""What people write; the lock is made from the first of them that names anything."""
_FORMAT = 1
"""Another one when the same files are to be read otherwise."""
_HASH = re.compile(r"--hash[= ]sha256:([0-9a-f]{64})")
_OPTION = re.compile(r"-(?:i|f|-index-url|-extra-index-url|-find-links|-no-index|-trusted-host)\b")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


class Platform(msgspec.Struct, frozen=True):
    """What an image runs on.

    Attributes:
        architecture: as Go calls it: ``amd64`` or ``arm64``.
        python: its Python: ``3.11`` or ``3.11.9``.
        glibc: the newest C library that wheels may want: ``2.36``.
    """

    architecture: str
    python: str
    glibc: str

    @property
    def machine(self) -> str:
        """The architecture as the kernel calls it."""
        return _MACHINES[self.architecture]

    @property
    def minor(self) -> str:
        """``3.11``."""
        return ".".join(self.python.split(".")[:2])

    def tags(self) -> list[str]:
        """The platforms of wheels that run there, the newest first."""
        major, _, least = self.glibc.partition(".")
        found = [f"manylinux_{major}_{number}_{self.machine}" for number in range(int(least), 4, -1)]
        return [*found, f"manylinux2014_{self.machine}", f"linux_{self.machine}"]

    def markers(self) -> dict[str, str]:
        """What the markers of requirements are told."""
        full = self.python if self.python.count(".") == 2 else f"{self.python}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.minor,
            "sys_platform": "linux",
            "extra": "",
        }


class Pin(msgspec.Struct, frozen=True):
    """One distribution of a lock: its canonical name, version, marker and the digests its files may have."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]

    def line(self) -> str:
        """As pip reads it, without the marker."""
        return f"{self.name}=={self.version}" + "".join(f" --hash=sha256:{one}" for one in self.hashes)


class Lock(msgspec.Struct, frozen=True):
    """A lock, its options for pip and its digest."""

    pins: tuple[Pin, ...]
    options: tuple[str, ...]
    digest: str

    def on(self, platform: Platform) -> tuple[Pin, ...]:
        """The pins that a platform needs, by name."""
        told = platform.markers()
        found = [pin for pin in self.pins if not pin.marker or _holds(pin, told)]
        return tuple(sorted(found, key=lambda pin: pin.name))


def kept_lock(project: Path, store: BlobStore) -> Lock:
    """The same, read once as long as neither it nor what it was made from changes.

    Raises:
        ConfigError: MS-3093 to MS-3095, as `read_lock`.
    """
    digests = []
    for name in (LOCK, *INPUTS):
        try:
            digests.append(hashlib.sha256((project / name).read_bytes()).hexdigest())
        except OSError:
            digests.append("")
    made = [_FORMAT, *digests]
    return store.kept("locks", made, Lock, lambda: read_lock(project), holds=lambda lock: lock.digest == digests[0])


def pins_on(lock: Lock, platform: Platform, store: BlobStore) -> tuple[Pin, ...]:
    """The pins that a platform needs, by name; its markers are read once a lock."""
    made = [_FORMAT, lock.digest, platform.architecture, platform.python, platform.glibc]
    return store.kept("pins", made, tuple[Pin, ...], lambda: lock.on(platform))


def read_lock(project: Path) -> Lock:
    """A project's lock, checked against what it was made from.

    Raises:
        ConfigError: MS-3093, there is none; MS-3094, a line has no pin or no hash; MS-3095, it is stale: something is
            asked for that it has not.
    """
    path = project / LOCK
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"the project has no {LOCK}",
            code="MS-3093",
            why="an image holds what a lock names, each file by its hash",
            origin=project.name,
            fix=_command(project),
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{LOCK} cannot be read", code="MS-3093", why=str(error), origin=project.name, fix=_command(project)
        ) from error
    pins, options = [], []
    for number, line in _lines(text):
        if _OPTION.match(line):
            options.append(line)
        else:
            pins.append(_pin(line, f"{LOCK}:{number}", project))
    lock = Lock(tuple(pins), tuple(options), hashlib.sha256(text.encode()).hexdigest())
    _fresh(lock, project)
    return lock


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The logical lines with the number of their first one, comments and continuations taken out."""
    waiting, started = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        plain = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        started = started if waiting else number
        if plain.endswith("\\"):
            waiting += plain[:-1] + " "
            continue
        if whole := (waiting + plain).strip():
            yield started, whole
        waiting = ""
    if waiting.strip():
        yield started, waiting.strip()


def _pin(line: str, origin: str, project: Path) -> Pin:
    hashes = tuple(sorted(set(_HASH.findall(line))))
    wanted = line.partition("--hash")[0].strip()
    try:
        found = packaging_requirements.Requirement(wanted)
        pins = [one for one in found.specifier if one.operator in ("==", "===") and not one.version.endswith(".*")]
        why = "" if len(pins) == 1 and len(found.specifier) == 1 and not found.url else "it is not pinned by =="
    except packaging_requirements.InvalidRequirement as error:
        why = str(error).partition("\n")[0]
    if not why and not hashes:
        why = "it has no sha256 hash"
    if why:
        raise ConfigError(
            f"{wanted!r} of {LOCK} locks nothing", code="MS-3094", why=why, origin=origin, fix=_command(project)
        )
    marker = str(found.marker) if found.marker is not None else ""
    return Pin(packaging_utils.canonicalize_name(found.name), pins[0].version, marker, hashes)


def _holds(pin: Pin, told: dict[str, str]) -> bool:
    found = packaging_requirements.Requirement(f"x; {pin.marker}")
    return found.marker is not None and found.marker.evaluate(dict(told))


def _fresh(lock: Lock, project: Path) -> None:
    name, asked = _asked(project)
    locked = {pin.name: pin.version for pin in lock.pins}
    for text, origin in (*asked, ("mainspring", "")):
        try:
            wanted = packaging_requirements.Requirement(text)
        except packaging_requirements.InvalidRequirement:
            continue  # a path or an option: whatever made the lock knows what it means
        version = locked.get(packaging_utils.canonicalize_name(wanted.name))
        if version is not None and (wanted.url or wanted.specifier.contains(version, prereleases=True)):
            continue
        if version is None and wanted.marker is not None:
            continue  # it may be for another platform than any that was locked for
        raise ConfigError(
            f"{LOCK} is stale" if origin else f"{LOCK} has no mainspring",
            code="MS-3095",
            why=f"{name or 'an image'} needs {text}, and it has {version or 'none'}",
            origin=origin or LOCK,
            fix=_command(project),
        )


def _asked(project: Path) -> tuple[str, Sequence[tuple[str, str]]]:
    """What the project asks for, each with where it is written."""
    plain = project / INPUTS[0]
    if plain.is_file():
        return INPUTS[0], [
            (line, f"{INPUTS[0]}:{number}")
            for number, line in _lines(plain.read_text("utf-8"))
            if not line.startswith("-")
        ]
    try:
        document = tomllib.loads((project / INPUTS[1]).read_text("utf-8"))
    except (OSError, ValueError):
        return "", []
    found = document.get("project", {}).get("dependencies", [])
    return INPUTS[1], [(str(one), INPUTS[1]) for one in found]


def _command(project: Path) -> str:
    made_from = next((name for name in INPUTS if (project / name).is_file()), "")
    begin = "" if made_from else f"echo 'mainspring[tabular]' > {INPUTS[0]}, then "
    return f"{begin}uv pip compile {made_from or INPUTS[0]} --universal --generate-hashes -o {LOCK}"
