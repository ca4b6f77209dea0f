"""``mainspring new``: a project that passes its tests."""

from __future__ import annotations

import errno
import keyword
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import click

from mainspring.choose.discover import is_installed
from mainspring.cli.options import json_option
from mainspring.cli.output import emit, lines
from mainspring.errors import StoreError, UsageError

__all__ = ["command", "module_name"]

_HERE = Path(__file__).parent
_KINDS = ("blank", "flights", "support")
_MANY = 8
"""Files of a folder that are told by name."""
_NOT_COPIED = shutil.ignore_patterns(
    "__pycache__", ".mainspring", "*.parquet", ".pytest_cache", "images", "site", "reference.py", "screenshot.py"
)


@click.command(short_help="make a project that passes its tests")
@click.argument("name")
@click.option(
    "--from", "kind", type=click.Choice(_KINDS), default="blank", show_default=True, help="what to start from"
)
@json_option
def command(name: str, kind: str, as_json: bool) -> int:
    """Make a folder NAME with an app, its settings, a little data and a test."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", name):
        raise UsageError(
            f"{name!r} is no name for a project", code="MS-2606", fix="use letters, digits, - and _, a letter first"
        )
    target = Path.cwd() / name
    if target.exists():
        raise UsageError(f"{name} is there already", code="MS-2607", fix="choose another name, or move it away")
    part = target.with_name(f".{name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        shutil.copytree(_template(kind), part, ignore=_NOT_COPIED)
        if (part / "gitignore").exists():
            (part / "gitignore").rename(part / ".gitignore")
        if kind == "blank":
            _name(part, name)
        os.rename(part, target)
    except OSError as error:
        raise _unwritable(name, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    files = sorted(str(path.relative_to(target)) for path in target.rglob("*") if path.is_file())
    if as_json:
        emit({"project": name, "from": kind, "files": files})
    else:
        data = "python data.py && " if kind == "flights" else ""
        lines([f"{name}: {', '.join(_told(files))}", f"next: cd {name} && {data}mainspring dev"])
    return 0


def _told(files: Sequence[str]) -> list[str]:
    """The files of a new project as a person reads them: of a folder with many, how many."""
    held = Counter(file.partition("/")[0] for file in files if "/" in file)
    folders = [file.partition("/")[0] for file in files]
    told = [
        f"{folder}/ ({held[folder]} files)" if held[folder] > _MANY else file
        for file, folder in zip(files, folders, strict=True)
    ]
    return list(dict.fromkeys(told))


def _unwritable(name: str, error: OSError) -> StoreError:
    """The error of a project that cannot be made; copying a tree collects what it meets, and keeps only the text."""
    text, full = str(error.strerror or error), os.strerror(errno.ENOSPC)
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or full in text:
        return StoreError("the disk is full", code="MS-4101", why=full, fix="free some space and run it again")
    return StoreError(
        f"project {name} cannot be made here",
        code="MS-4171",
        why=text,
        origin=Path.cwd().name,
        fix="change into a folder that you may write to",
    )


def _template(kind: str) -> Path:
    """The template's folder: in the package, or in a checkout beside it."""
    packaged = _HERE / "projects" / kind
    return packaged if packaged.is_dir() else _HERE.parents[2] / "examples" / kind


def _name(project: Path, name: str) -> None:
    """Name the app and its module after the project; the template's are called shop."""
    module = module_name(name)
    (project / "shop.py").rename(project / f"{module}.py")
    for file, old, new in (
        (f"{module}.py", 'App("shop")', f'App("{name}")'),
        ("mainspring.toml", '"shop:app"', f'"{module}:app"'),
    ):
        path = project / file
        path.write_text(path.read_text("utf-8").replace(old, new), "utf-8")


def module_name(name: str) -> str:
    """The project's name as a module's that hides no other, and that nothing hides."""
    module = name.replace("-", "_").lower()
    taken = keyword.iskeyword(module) or module in sys.stdlib_module_names or module == "tests" or is_installed(module)
    return f"{module}_app" if taken else module
