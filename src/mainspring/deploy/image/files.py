"""The app's own files: the project's folder, without what is not the app."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from mainspring.config.settings import Settings
from mainspring.deploy.image.entries import Entry, entry_of_file
from mainspring.deploy.image.generated import is_output, is_output_folder
from mainspring.errors import RefusedError, UsageError

__all__ = ["SOURCE", "AppFile", "app_entries", "app_files", "left_out", "refuse_secrets"]

SOURCE = "app/src"
_NEVER = (
    "__pycache__", "*.pyc", "*.pyo", "node_modules", "*.egg-info", "*.part", "*.log",
    "*.pem", "*.key", "*.p12", "*.pfx", "*.kdbx", "id_rsa*", "id_ed25519*", "credentials*.json", "*.tfstate*",
    "Dockerfile", "compose.yaml", "image/models", "/verdicts/*.json", "/sbom/*.cdx.json",
    "image.cdx.json", "image-[0-9]*.cdx.json",
)  # fmt: skip
"""Besides everything hidden, virtual environments, secrets' files, and the data of sources and documents.

What generated CI writes into its workspace is among it: the next build there would come to another image.
"""
_LEAST = 8
"""Secrets with fewer characters are not looked for: they would be found everywhere."""
_CHUNK = 1 << 20


class AppFile(msgspec.Struct, frozen=True):
    """A file of the app: where it is here, and in the project."""

    path: Path
    name: str
    link: str = ""

    def made_of(self) -> list[object]:
        """What decides that it has not changed: a file that keeps size and time has another change time."""
        if self.link:
            return [self.name, self.link]
        found = os.stat(self.path)
        times = [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]
        return [self.name, bool(found.st_mode & 0o100), *times]


def left_out(settings: Settings) -> tuple[str, ...]:
    """The patterns of what is no part of the app: the user's own, secrets' files, and the data.

    Data is where the profile's sources are; an image with data in it would serve the past, and show it.
    """
    found = list(settings.words("image.exclude"))
    for key, setting in settings.values.items():
        for reference in setting.references():
            kind, _, name = str(reference.value).partition(":")
            if kind == "file":
                found.append("/" + os.path.normpath(name))
        section, _, last = key.partition(".")
        if section in ("sources", "documents") and last.endswith(".path"):
            found.append("/" + os.path.normpath(str(setting.value)))
    return tuple(found)


def app_files(project: Path, patterns: Sequence[str]) -> Iterator[AppFile]:
    """The project's files in the order of their names; links stay links when they lead nowhere outside.

    Raises:
        UsageError: MS-2703, a link leads out of the project.
    """
    yield from _below(project, "", (*_NEVER, *patterns), project)


def _below(folder: Path, prefix: str, patterns: Sequence[str], project: Path) -> Iterator[AppFile]:
    for entry in sorted(os.scandir(folder), key=lambda item: item.name):
        name = prefix + entry.name
        if entry.name.startswith(".") or any(_fits(name, entry.name, pattern) for pattern in patterns):
            continue
        if entry.is_symlink():
            yield _link(Path(entry.path), name, project)
        elif entry.is_dir():
            if not (Path(entry.path) / "pyvenv.cfg").exists() and not is_output_folder(Path(entry.path)):
                yield from _below(Path(entry.path), name + "/", patterns, project)
        elif entry.is_file() and not is_output(Path(entry.path)):
            yield AppFile(Path(entry.path), name)


def _fits(name: str, last: str, pattern: str) -> bool:
    """Whether a pattern means a file: by its path from the project on, or without a slash by its own name anywhere."""
    if pattern.startswith("/"):
        return fnmatch.fnmatchcase(name, pattern[1:])
    return fnmatch.fnmatchcase(name, pattern) or ("/" not in pattern and fnmatch.fnmatchcase(last, pattern))


def _link(path: Path, name: str, project: Path) -> AppFile:
    to = os.readlink(path)
    if os.path.isabs(to) or not Path(os.path.normpath(path.parent / to)).is_relative_to(project):
        raise UsageError(
            f"link {name} leads out of the project",
            code="MS-2703",
            why="in the image it would lead nowhere",
            origin=name,
            fix=f'copy what it leads to, or image.exclude = ["{name}"]',
        )
    return AppFile(path, name, to)


def app_entries(files: Sequence[AppFile]) -> Iterator[Entry]:
    """The entries of the app's layer."""
    for file in files:
        if file.link:
            yield Entry(f"{SOURCE}/{file.name}", link=file.link)
        else:
            yield entry_of_file(f"{SOURCE}/{file.name}", file.path)


def refuse_secrets(files: Sequence[AppFile], secrets: dict[str, str]) -> None:
    """Look for the values of secrets in the app's files.

    Args:
        files: the files.
        secrets: values by the reference that leads to them.

    Raises:
        RefusedError: MS-5071, one is there.
    """
    wanted = {value.encode(): name for name, value in secrets.items() if len(value) >= _LEAST}
    if not wanted:
        return
    longest = max(map(len, wanted))
    for file in files:
        if file.link:
            continue
        with open(file.path, "rb") as source:
            kept = b""
            while chunk := source.read(_CHUNK):
                window = kept + chunk
                for value, name in wanted.items():
                    if value in window:
                        raise RefusedError(
                            f"the secret {name} is in {file.name}",
                            code="MS-5071",
                            why="whoever can pull the image could read it",
                            origin=file.name,
                            fix=f'take it out, and change it; or image.exclude = ["{file.name}"]',
                        )
                kept = window[-longest:]
