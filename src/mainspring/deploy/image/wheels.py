"""Wheels of the lock for the image's platform: fetched by pip, unpacked by us; nothing of theirs is run."""

from __future__ import annotations

import configparser
import contextlib
import csv
import functools
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from mainspring.deploy.image.blobs import BlobStore
from mainspring.deploy.image.entries import Entry, entry_of_bytes
from mainspring.deploy.image.lock import Lock, Pin, Platform, pins_on
from mainspring.errors import ConfigError, DataError, ServiceError
from mainspring.lazy import lazy

if TYPE_CHECKING:
    from concurrent import futures
else:  # wanted when dependencies are compiled, and no sooner
    futures = lazy("concurrent.futures")

__all__ = ["DEPS", "Wheel", "bytecode_note", "compiled", "deps_entries", "metadata_of", "wheels_of"]

DEPS = "app/deps/site-packages"
COMMANDS = {"ray": ("ray",)}
"""Commands that a distribution's layer has, by its name."""
"""Where they are in the image: by the name of the folder Mainspring knows libraries from the code of the project."""
_UNWANTED = ("INSTALLER", "REQUESTED", "direct_url.json")
_SECONDS = 1800
_NO_WHEEL = re.compile(r"No matching distribution found for ([A-Za-z0-9._-]+)")
_HASHES = re.compile(r"DO NOT MATCH THE HASHES", re.IGNORECASE)


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on this machine: the pin that it stands for and its digest."""

    pin: Pin
    path: Path
    sha256: str


def wheels_of(
    lock: Lock, platform: Platform, store: BlobStore, places: Sequence[Path], ready: Callable[[], None]
) -> tuple[Wheel, ...]:
    """The wheels of a lock for a platform, by name; those that were fetched before are not fetched again.

    Args:
        lock: the lock.
        platform: what they are to run on.
        store: the image cache.
        places: folders with wheels of the user's own.
        ready: called before any is fetched.

    Raises:
        ConfigError: MS-3096, a distribution has no wheel for the platform; MS-3098, pip is not there.
        DataError: MS-2750, a file is not the one that was locked.
        ServiceError: MS-4085, the package index does not answer.
    """
    pins = pins_on(lock, platform, store)
    folder = store.folder("wheels")

    def made() -> dict[str, tuple[str, str]]:
        ready()
        found = _fetched(pins, lock.options, platform, folder, places)
        return {wheel.pin.name: (wheel.path.name, wheel.sha256) for wheel in found}

    def here(names: dict[str, tuple[str, str]]) -> bool:
        return len(names) == len(pins) and all((folder / digest / name).is_file() for name, digest in names.values())

    parts = [[pin.line() for pin in pins], platform.machine, platform.minor, platform.glibc]
    names = store.kept("lists", parts, dict[str, tuple[str, str]], made, holds=here)
    placed = ((pin, *names[pin.name]) for pin in pins)
    return tuple(Wheel(pin, folder / digest / name, digest) for pin, name, digest in placed)


def _fetched(
    pins: Sequence[Pin], options: Sequence[str], platform: Platform, folder: Path, places: Sequence[Path]
) -> list[Wheel]:
    with tempfile.TemporaryDirectory(dir=folder) as part:
        wanted = Path(part) / "requirements.txt"
        wanted.write_text("\n".join([*options, *(pin.line() for pin in pins)]) + "\n", "utf-8")
        into = Path(part) / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(into)]
        command += ["--implementation", "cp", "--python-version", platform.minor]
        command += [word for tag in platform.tags() for word in ("--platform", tag)]
        # Each in a folder of its digest: another file of the same name, as of a version that is still in the making,
        # would be taken and then refused.
        known = [place for pin in pins for one in pin.hashes if (place := folder / one).is_dir()]
        command += [word for place in (*known, *places) for word in ("--find-links", str(place))]
        command += ["--requirement", str(wanted)]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if done.returncode:
            raise _unfetched(done.stderr, platform)
        found = []
        for path in into.iterdir():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            at = folder / digest / path.name
            at.parent.mkdir(exist_ok=True)
            os.replace(path, at)
            pin = next(pin for pin in pins if digest in pin.hashes)
            found.append(Wheel(pin, at, digest))
    return sorted(found, key=lambda wheel: wheel.pin.name)


def _unfetched(told: str, platform: Platform) -> ConfigError | DataError | ServiceError:
    where = f"linux/{platform.architecture}, Python {platform.minor}, glibc {platform.glibc}"
    reached = "Retrying" not in told and "Connection" not in told
    told = "\n".join(line for line in told.splitlines() if not line.startswith("WARNING"))
    lines = [line for line in told.splitlines() if line.startswith("ERROR")] or told.splitlines()[-1:]
    why = lines[-1].removeprefix("ERROR: ") if lines else "pip says nothing"
    if "No module named pip" in told:
        return ConfigError(
            "pip is not installed beside mainspring",
            code="MS-3098",
            why="it fetches the wheels of an image",
            fix="python -m ensurepip, or uv pip install pip",
        )
    if _HASHES.search(told):
        return DataError(
            "a wheel is not the file that was locked",
            code="MS-2750",
            why=" ".join(told.split())[:300],
            origin="requirements.lock",
            fix="find out who changed it; then lock anew",
        )
    if (missing := _NO_WHEEL.search(told)) is not None and reached:
        return ConfigError(
            f"{missing[1]} has no wheel for {where}",
            code="MS-3096",
            why="it is not there, or only as a source distribution, and building one would run its code",
            origin="requirements.lock",
            fix=f"pip wheel {missing[1]} on such a machine, and name the folder in image.wheels",
        )
    return ServiceError(
        "the wheels cannot be fetched",
        code="MS-4085",
        why=why,
        origin="requirements.lock",
        fix="check the network and pip's settings (pip config list); what was fetched is kept",
    )


# -- what a wheel holds -----------------------------------------------------------------------------------------------


def wheel_files(wheel: Wheel) -> Iterator[tuple[str, zipfile.ZipInfo]]:
    """The files of a wheel that are installed, by where they go below the folder of dependencies."""
    with zipfile.ZipFile(wheel.path) as opened:
        for info in opened.infolist():
            at = _place(info.filename)
            if at and not info.is_dir():
                yield at, info


def _place(name: str) -> str:
    """Where a wheel's file goes; empty for what an image has no use for: scripts, headers, others' bytecode."""
    if name.endswith(".pyc") or name.rpartition("/")[2] in _UNWANTED:
        return ""
    first, _, rest = name.partition("/")
    if first.endswith(".data"):
        kind, _, below = rest.partition("/")
        return below if kind in ("purelib", "platlib", "data") else ""
    return name


def wheel_entries(wheel: Wheel, opened: zipfile.ZipFile) -> Iterator[Entry]:
    """The entries of an opened wheel, its RECORD sorted and without what is left out."""
    for at, info in wheel_files(wheel):
        path = f"{DEPS}/{at}"
        if re.fullmatch(r"[^/]+\.dist-info/RECORD", at):
            yield entry_of_bytes(path, _record(opened.read(info)))
        else:
            reading = cast("Callable[[], BinaryIO]", functools.partial(opened.open, info))
            yield Entry(path, info.file_size, reading, bool((info.external_attr >> 16) & 0o111))


def _record(data: bytes) -> bytes:
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8"))) if row and _place(row[0])]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(sorted([_place(row[0]), *row[1:]] for row in rows))
    return out.getvalue().encode()


def metadata_of(wheel: Wheel) -> str:
    """A wheel's METADATA."""
    with zipfile.ZipFile(wheel.path) as opened:
        name = next(name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        return opened.read(name).decode("utf-8", "replace")


# -- bytecode ---------------------------------------------------------------------------------------------------------


def bytecode_note(platform: Platform) -> str:
    """Why no bytecode is made for a platform; empty when it is."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if platform.minor == here:
        return ""
    return f"no bytecode: the image runs Python {platform.minor} and this is {here}; imports take longer at the start"


def compiled(wheels: Iterable[Wheel], store: BlobStore) -> Mapping[str, Path]:
    """A folder with the bytecode of each wheel, by its digest; made once a wheel and Python.

    Unchecked hash files of absolute paths: the same on every machine with the same Python.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    folder = store.folder("bytecode")
    names = {wheel.sha256: folder / f"{wheel.sha256[:32]}-{version}" for wheel in wheels}
    missing = [wheel for wheel in wheels if not names[wheel.sha256].is_dir()]
    with futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        list(pool.map(lambda wheel: _compile(wheel, names[wheel.sha256]), missing))
    return names


def _compile(wheel: Wheel, target: Path) -> None:
    """Compile what a wheel holds, in an interpreter that has loaded nothing else: what is shared shows in the bytes."""
    with tempfile.TemporaryDirectory(dir=target.parent) as part:
        sources, kept = Path(part) / "sources", Path(part) / "kept"
        kept.mkdir()
        with zipfile.ZipFile(wheel.path) as opened:
            for at, info in wheel_files(wheel):
                if at.endswith(".py"):
                    path = sources / at
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(opened.read(info))
        if sources.is_dir():
            command = [
                sys.executable,
                "-s",
                "-S",
                "-m",
                "compileall",
                "-q",
                "-j1",
                "-s",
                str(sources),
                "-p",
                f"/{DEPS}",
            ]
            command += ["--invalidation-mode", "unchecked-hash", str(sources)]
            # A file that is no Python, such as a template, fails and has no bytecode: that is no fault of the wheel.
            subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={"PYTHONHASHSEED": "0"},
                timeout=_SECONDS,
                check=False,
            )
            for path in sources.rglob("*.pyc"):
                there = kept / path.relative_to(sources)
                there.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, there)
        with contextlib.suppress(OSError):  # another build may have been first
            os.replace(kept, target)


def deps_entries(
    wheels: Sequence[Wheel], bytecode: Mapping[str, Path], opened: contextlib.ExitStack
) -> Iterator[Entry]:
    """What the layer of dependencies holds. Of a file that two wheels have, the one of the first by name stays.

    Args:
        wheels: the wheels, by name.
        bytecode: folders as `compiled` gives them.
        opened: closes the wheels, when the entries have been read.
    """
    seen: set[str] = set()
    for wheel in wheels:
        own = set()
        for entry in wheel_entries(wheel, opened.enter_context(zipfile.ZipFile(wheel.path))):
            own.add(entry.path)
            if entry.path not in seen:
                yield entry
        for entry in _commands(wheel):
            if entry.path not in seen:
                own.add(entry.path)
                yield entry
        for at, path in _bytecode_files(bytecode.get(wheel.sha256)):
            source = f"{at.rpartition('/__pycache__/')[0]}/{path.name.partition('.cpython-')[0]}.py"
            if at not in seen and source not in seen:
                own.add(at)
                yield entry_of_bytes(at, path.read_bytes())
        seen |= own


def _commands(wheel: Wheel) -> Iterator[Entry]:
    """The commands that others start in the container by name: KubeRay starts ``ray``.

    A distribution's own scripts are left out, since they hold the path of the Python that installed them; these hold
    none. They lie where also a login shell looks, which sets ``PATH`` anew.
    """
    wanted = COMMANDS.get(wheel.pin.name, ())
    if not wanted:
        return
    with zipfile.ZipFile(wheel.path) as opened:
        names = [name for name in opened.namelist() if re.fullmatch(r"[^/]+\.dist-info/entry_points.txt", name)]
        points = configparser.ConfigParser(delimiters=("=",))
        points.read_string("".join(opened.read(name).decode("utf-8") for name in names))
    for command in wanted:
        module, _, function = points.get("console_scripts", command).partition(":")
        text = f"#!/usr/bin/env python3\nimport sys\n\nfrom {module} import {function}\n\nsys.exit({function}())\n"
        yield entry_of_bytes(f"usr/local/bin/{command}", text.encode(), executable=True)


def _bytecode_files(folder: Path | None) -> Iterator[tuple[str, Path]]:
    if folder is not None:
        for path in sorted(folder.rglob("*.pyc")):
            yield f"{DEPS}/{path.relative_to(folder).as_posix()}", path
