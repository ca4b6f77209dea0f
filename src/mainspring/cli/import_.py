"""``mainspring import``: what another feature store's repository defines, as a project."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from mainspring.cli.new import module_name
from mainspring.cli.options import json_option, open_app
from mainspring.cli.output import emit, lines
from mainspring.errors import MainspringError, StoreError, UsageError
from mainspring.protocols.feast.definitions import FeastRepository, Note
from mainspring.protocols.feast.files import FileColumn, columns_of
from mainspring.protocols.feast.places import local_path
from mainspring.protocols.feast.project import Project, project_of
from mainspring.protocols.feast.repository import read_repository
from mainspring.server.planning import plan_of
from mainspring.server.preflight import check_wiring, preflight

__all__ = ["command"]

_KEPT = (".gitignore", "requirements.in")


@click.group(short_help="a Feast repository's definitions as a project, and a report")
def command() -> None:
    """Make a project of what another feature store's repository defines."""


@command.command(short_help="a Feast repository")
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--into", type=click.Path(path_type=Path), help="the project's folder; a new one named after Feast's")
@click.option("--force", is_flag=True, help="write over the app and the settings that are there")
@json_option
def feast(folder: Path, into: Path | None, force: bool, as_json: bool) -> int:
    """Import a Feast repository: entities, sources, feature views, on-demand views and feature services.

    Nothing of it is run, and its rows are copied nowhere: the project reads them where they are. What is told: what was
    carried, what answers otherwise here, and what was left, with its line and what to do. Then the project is checked.
    """
    repository = read_repository(folder.resolve())
    target = Path(os.path.abspath(into if into is not None else _folder_name(repository.project)))
    if target.exists() and not (force and target.is_dir()):
        raise UsageError(
            f"{target.name} is there already",
            code="MS-2635",
            fix="name another folder by --into, or write over its app and settings by --force",
        )
    project = project_of(
        repository, _columns(repository), module=module_name(_folder_name(repository.project)), target=target.as_posix()
    )
    _spare(repository, target, project)
    _write(target, project.files)
    fault = _checked(target)
    if as_json:
        told = {"carried": project.carried, "changed": project.changed, "left": project.left}
        check = None if fault is None else fault.as_dict()
        emit({"project": str(target), "files": sorted(project.files), **told, "fault": check})
    else:
        lines(_report(target, project, fault))
    return 0


def _folder_name(project: str) -> str:
    """The Feast project's name as a folder's and a module's."""
    name = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in project)
    return name if name[:1].isalpha() else f"feast_{name}"


def _columns(repository: FeastRepository) -> Mapping[str, Mapping[str, FileColumn]]:
    """The columns of the files that are on this machine, by source."""
    paths = {source.name: local_path(source, repository.folder) for source in repository.sources}
    return {name: columns_of(Path(path)) for name, path in paths.items() if path is not None}


def _spare(repository: FeastRepository, target: Path, project: Project) -> None:
    """Refuse to write over what was just read."""
    for name in project.files:
        path = target / name
        if name in repository.files and path.exists() and path.samefile(Path(repository.folder) / name):
            raise UsageError(
                f"{name} would be written over the Feast repository's own",
                code="MS-2636",
                fix="name another folder by --into",
            )


def _write(target: Path, files: Mapping[str, str]) -> None:
    """Write each file whole or not at all; of what is no app and no settings, what is there stays."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            if name in _KEPT and (target / name).exists():
                continue
            part = target / f".{name}.part"
            part.write_text(text, "utf-8")
            os.replace(part, target / name)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(
            f"project {target.name} cannot be written",
            code="MS-4177",
            why=error.strerror or str(error),
            origin=str(target),
            fix="free some space and run it again" if full else "name a folder that you may write to by --into",
        ) from error


def _checked(target: Path) -> MainspringError | None:
    """The fault that ``mainspring check`` finds in the project, or None."""
    try:
        services, app = open_app(target, None)
        plan = plan_of(app)
        check_wiring(plan)
        preflight(services, plan)
    except MainspringError as error:
        return error
    return None


def _report(target: Path, project: Project, fault: MainspringError | None) -> Sequence[str]:
    told = [f"{target}: {', '.join(sorted(project.files))}"]
    for title, notes in (
        ("carried", project.carried),
        ("changed in meaning", project.changed),
        ("not carried", project.left),
    ):
        told += ["", f"{title}: {len(notes)}", *(line for note in notes for line in _told(note))]
    told.append("")
    if fault is None:
        told.append("check: no fault found")
    else:
        told += ["check:", *(f"  {line}" for line in fault.lines().splitlines())]
    told.append(f"next: cd {target} && mainspring {'apply' if fault is None else 'check'}")
    return told


def _told(note: Note) -> list[str]:
    where = f"  ({note.where})" if note.where else ""
    first = f"  {note.what}{': ' if note.why else ''}{note.why}{where}"
    return [first, *([f"      {note.fix}"] if note.fix else [])]
