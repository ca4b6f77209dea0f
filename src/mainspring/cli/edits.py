"""What ``mainspring dev`` looks at to notice that something was edited."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import msgspec

from mainspring.choose.services import Services
from mainspring.config.settings import Settings
from mainspring.errors import MainspringError
from mainspring.features.sources.files import find_files
from mainspring.plan.graph import Plan
from mainspring.rag.listing import list_folder
from mainspring.rag.steps import folder_of

if TYPE_CHECKING:
    from mainspring.declare.documents import Documents

__all__ = ["Noticed", "code_stamp", "notice", "read_noticed"]


class Files(msgspec.Struct, frozen=True):
    """The files of a source: its name, its path and its format as the settings say."""

    source: str
    path: str
    format: str | None


class Listed(msgspec.Struct, frozen=True):
    """A folder of documents, with its globs."""

    name: str
    folder: str
    include: tuple[str, ...]
    exclude: tuple[str, ...]


class Places(msgspec.Struct, frozen=True):
    """Where the data of an app is, as its code and its profile say.

    Attributes:
        project: the project's folder.
        files: of the sources that are files.
        queries: files of SQL that sources are read by.
        folders: of documents.
    """

    project: str
    files: tuple[Files, ...] = ()
    queries: tuple[str, ...] = ()
    folders: tuple[Listed, ...] = ()

    def stamp(self) -> str:
        """A digest of the size and the time of every file; what cannot be listed differs from what can."""
        project = Path(self.project)
        found: list[object] = [_stamps(project / query for query in self.queries)]
        found += [_looked(partial(_of_source, one, project)) for one in self.files]
        found += [_looked(partial(_of_documents, one)) for one in self.folders]
        return hashlib.sha256(repr(found).encode()).hexdigest()


class Noticed(msgspec.Struct, frozen=True):
    """What a build was made from: the places of the app that it loaded, and their stamp before it read them."""

    places: Places
    stamp: str

    def write(self, file: Path) -> None:
        """Leave it for the process that asked for the build."""
        file.write_bytes(msgspec.json.encode(self))


def read_noticed(file: Path) -> Noticed | None:
    """What a build left there, once; None if it came to nothing before it had loaded the app."""
    try:
        left = file.read_bytes()
        file.unlink()
    except OSError:
        return None
    return msgspec.json.decode(left, type=Noticed)


def notice(services: Services, plan: Plan) -> Noticed:
    """Look at the data of a loaded app before it is read."""
    settings = services.settings
    places = Places(
        str(services.project),
        tuple(_files(settings, plan)),
        tuple(_queries(settings, plan)),
        tuple(_folders(settings, plan)),
    )
    return Noticed(places, places.stamp())


def code_stamp(project: Path) -> str:
    """A digest of the size and the time of the app's files."""
    modules = glob.glob("**/*.py", root_dir=project, recursive=True)  # nothing below .venv, .mainspring, ..
    own = [project / name for name in modules if not name.startswith("tests/")]
    return hashlib.sha256(repr(_stamps([project / "mainspring.toml", *own])).encode()).hexdigest()


def _files(settings: Settings, plan: Plan) -> Iterator[Files]:
    for node in plan.of_kind("source"):
        path = settings.text(f"sources.{node.name}.path")
        if path is not None:
            yield Files(node.name, path, settings.text(f"sources.{node.name}.format"))


def _queries(settings: Settings, plan: Plan) -> Iterator[str]:
    for node in plan.of_kind("source"):
        query = settings.text(f"sources.{node.name}.query") or ""
        if query.endswith(".sql") and "\n" not in query:
            yield query


def _folders(settings: Settings, plan: Plan) -> Iterator[Listed]:
    for node in plan.of_kind("documents"):
        with suppress(MainspringError):  # at an address, which the build refuses
            folder = folder_of(cast("Documents", node.declaration), settings)
            yield Listed(node.name, str(folder.folder), tuple(folder.include), tuple(folder.exclude))


def _of_source(one: Files, project: Path) -> object:
    return _stamps(find_files(one.path, project, source=one.source, format=one.format))


def _of_documents(one: Listed) -> object:
    listed = list_folder(Path(one.folder), one.include, one.exclude, name=one.name, known=0)
    return sorted((found.uri, found.size, found.mtime_ns) for found in listed.values())


def _looked(look: Callable[[], object]) -> object:
    """What was found, or what kept it from being found, which the build tells."""
    try:
        return look()
    except (MainspringError, OSError) as error:
        return str(error)


def _stamps(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(paths):
        with suppress(OSError):
            stat = path.stat()
            found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return found
