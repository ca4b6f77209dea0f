"""Which modules are the project's own, which installed distribution owns another, and what that one requires."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import re
import site
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

__all__ = ["distributions_of", "is_project_module"]

_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*(?:\[([^\]]*)\])?[^;]*(?:;(.*))?")
_EXTRA = re.compile(r"extra\s*==\s*[\"']([^\"']+)[\"']")

_USUAL_OWNERS = {
    "PIL": "pillow",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Well-known modules whose distribution bears another name: they need no search."""


@functools.cache
def _installed() -> tuple[str, ...]:
    """The folders of the standard library and of installed packages."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    paths += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({str(Path(path).resolve()) + "/" for path in paths})


def is_project_module(name: str) -> bool:
    """Whether a module is the user's own: outside the standard library and site-packages, and not Mainspring.

    Editable installs are the project's, wherever they are registered. A module without a file (built in, made by hand,
    or not there) is not. Mainspring counts as a distribution however it is installed.
    """
    top = name.partition(".")[0]
    if top == "mainspring":
        return False
    file = _file(sys.modules.get(top))
    if file is None:  # a namespace package, which has parts in several places; or not imported yet
        file = _file(sys.modules.get(name)) or _file_of_spec(top, name)
    return file is not None and _is_project_file(file)


@functools.cache
def _is_project_file(file: str) -> bool:
    path = str(Path(file).resolve())
    return not path.startswith(_installed()) and not re.search(r"[\\/](site|dist)-packages[\\/]", path)


def _file(module: ModuleType | None) -> str | None:
    return None if module is None else vars(module).get("__file__")


def _file_of_spec(top: str, name: str) -> str | None:
    for wanted in dict.fromkeys((top, name)):
        try:
            spec = importlib.util.find_spec(wanted)
        except (ImportError, ValueError, AttributeError):
            return None
        if spec is not None and spec.has_location:
            return spec.origin
    return None


# -- distributions -----------------------------------------------------------------------------------------------------


@functools.cache
def distributions_of(top: str) -> tuple[str, ...]:
    """``name==version`` of the distributions that own a top-level module, and of all they require, sorted.

    Of Mainspring it is its version alone: what it requires is not what a step reaches.
    """
    if not top or top == "__main__" or top in sys.stdlib_module_names:
        return ()
    found: dict[str, str] = {}
    waiting = [(owner, "") for owner in _owners(top)]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        version, requirements = _metadata(name)
        if version:
            found[name] = version
        if version and top != "mainspring":
            waiting += [(needed, asked) for needed, asked, of_extra in requirements if of_extra == extra]
    return tuple(sorted(f"{name}=={version}" for name, version in found.items()))


def _owners(top: str) -> list[str]:
    """The distributions that a top-level module comes from: most bear its name, for the others all are looked at."""
    likely = _USUAL_OWNERS.get(top, top)
    if top == "mainspring" or _record_has(_record(likely), top):
        return [_normal(likely)]
    found = importlib.metadata.distributions()
    return sorted({_normal(one.name) for one in found if _record_has(one.read_text("RECORD"), top)})


def _record(name: str) -> str | None:
    try:
        return importlib.metadata.distribution(name).read_text("RECORD")
    except importlib.metadata.PackageNotFoundError:
        return None


def _record_has(record: str | None, top: str) -> bool:
    """Whether a distribution's list of files has a module: as a folder, a file or an extension."""
    return record is not None and any(f"\n{top}{end}" in record or record.startswith(top + end) for end in "/.")


@functools.cache
def _metadata(name: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The version of a distribution, and what it requires: (name, extra asked of it, extra of ours that asks).

    Read line by line: the parser for mail that `importlib.metadata` uses takes a hundred times as long.
    """
    try:
        text = importlib.metadata.distribution(name).read_text("METADATA") or ""
    except importlib.metadata.PackageNotFoundError:
        return "", []
    version = ""
    requirements: list[tuple[str, str, str]] = []
    for line in text.splitlines():
        if not line:
            break
        field, _, value = line.partition(": ")
        if field == "Version":
            version = value.strip()
        elif field == "Requires-Dist" and (match := _REQUIREMENT.match(value)):
            extra = _EXTRA.search(match[3] or "")
            asked = ["", *(part.strip() for part in (match[2] or "").split(",") if part.strip())]
            requirements += [(_normal(match[1]), one, extra[1] if extra else "") for one in asked]
    return version, requirements


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
